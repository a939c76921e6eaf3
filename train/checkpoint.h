/* checkpoint.h: everything a run needs to go on as if it had not been stopped.
 *
 * A checkpoint is one safetensors file, so that Python reads it too:
 *   1. u64 length of the header, header (JSON), data; as the safetensors format says.
 *   2. `__metadata__`: "format" = "smelt checkpoint 1", the network's identity, the settings and the data's fingerprint, and the
 *      position (epoch, step, sums of the running epoch, early stopping's memory, the last scores); all strings.
 *   3. Tensors "weights/<name>", "buffers/<name>", "momentum/<name>" and, with an EMA, "ema_weights/<name>", "ema_buffers/<name>";
 *      names and shapes as in a state dict, fp32.
 *   4. The last tensor, "crc32" (U32): CRC-32 of all bytes of the file before its four.
 * Name: ckpt-EEEEE-SSSSSSSSS.safetensors, epoch and global step at which it was made. It is written as
 * NAME.sagemaker-ignore, synced, renamed; so SageMaker never uploads half of one. Files whose names do not match exactly, among
 * them SageMaker's own markers NAME.sagemaker-uploading and NAME.sagemaker-uploaded, are never read, changed or removed. */
#pragma once

#include "train/report/report.h"
#include "train/step.h"

#include <stdbool.h>
#include <stdint.h>

/* Where a run is, between two steps. */
struct position {
	int64_t epoch;         /* the running epoch, from 0; equal to the settings' epochs when the run is finished */
	int64_t step_in_epoch; /* steps of it that are done */
	int64_t step;          /* steps done in all epochs */
	struct counters train; /* sums of the running epoch's steps */
	bool finished;         /* nothing is left to train: epochs done, or stopped early */
	/* early stopping */
	double best_value;     /* of the watched score; meaningful when best_epoch > 0 */
	int64_t best_epoch;    /* from 1; 0: none yet */
	struct report_epoch last; /* the last finished epoch's report; epoch 0: none yet */
};

/* What must agree for a checkpoint to be usable, and what is worth a warning when it does not. */
struct run_identity {
	enum stem stem;
	int image_size, classes;
	bool ema;
	int64_t steps_per_epoch;
	uint64_t data_fingerprint;
	char settings[8192]; /* settings_fingerprint's text */
};

/* Arenas for a whole state, zeros; with an EMA its params too. ST_MEMORY: state_free is still due. */
enum status state_alloc(struct training_state *state, const struct params_layout *layout, bool ema);
void state_free(struct training_state *state);

/* Writes one checkpoint of `state` (all arenas that the identity asks for), and then prunes: at most `keep` of our own remain, the one
 * just written among them; one that SageMaker is uploading just now stays. Those past `position` go first: damaged ones, or of a run
 * that was begun again. On a full disk older checkpoints are removed and the write is tried once more; ST_DISK if that fails too, and
 * the one before is still there. Any thread; one at a time for a directory. */
enum status checkpoint_write(const char *directory, const struct params_layout *layout, const struct run_identity *identity,
	const struct position *position, const struct training_state *state, int keep);

/* Finds the newest whole checkpoint in `directory` and fills position and state (arenas allocated by the caller). Damaged ones are
 * passed over with a warning each. *found is false when there is none. A whole one of another network (stem, classes, image size)
 * is ST_SETTINGS: going on would waste the older run, starting anew would hide it. Other settings or data: a warning; when the
 * number of steps in an epoch differs, the running epoch is begun again. */
enum status checkpoint_resume(const char *directory, const struct params_layout *layout, const struct run_identity *identity,
	struct position *position, struct training_state *state, bool *found);

/* True if `name` is one that checkpoint_write makes; then also its epoch and step (either may be NULL). */
bool checkpoint_name_parse(const char *name, int64_t *epoch, int64_t *step);
