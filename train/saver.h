/* saver.h: checkpoints beside the training: the state is copied, then one thread writes it while steps go on.
 *
 * In: a machine and a position between two steps. Out: the files of checkpoint.h, one after another. At most one is being written: who saves
 * again waits for the one before. Host memory: one copy of the state (params, momentum and, with an EMA, its params), taken at the start.
 * A line "checkpoint saved …" tells of a file once it is durable. All functions are for one thread, the one that trains. */
#pragma once

#include "train/checkpoint.h"

struct saver;

/* All lent until saver_close. */
struct saver_config {
	const char *directory;
	const struct params_layout *layout;
	const struct run_identity *identity;
	int keep; /* as checkpoint_write's */
};

/* ST_MEMORY: no room for the copy, or no thread. */
enum status saver_open(const struct saver_config *config, struct saver **saver);

/* Waits for the checkpoint before, copies the machine's state and gives it to the thread; the file is not there yet when this returns.
 * The failure of an earlier one, with its sentence, or the machine's; then nothing is written. */
enum status saver_save(struct saver *saver, const struct position *position, const struct machine *machine);

/* The failure of a checkpoint (checkpoint_write's statuses) whose writing has ended; ST_OK while one is written. Never waits. NULL: ST_OK. */
enum status saver_check(struct saver *saver);

/* Waits until all that was saved is durable, however long the disk takes; what became of it. NULL: ST_OK. */
enum status saver_finish(struct saver *saver);

/* Waits as saver_finish does, and leaves this thread's sentence as it is: a failure that nobody was told yet becomes a line of the log.
 * Accepts NULL. */
void saver_close(struct saver *saver);
