/* epoch.h: the training loop: epochs of steps, validation, reports, checkpoints, early stopping, budgets and stop requests.
 *
 * In: everything prepared (struct training). Out: the trained state in the machine and the position reached. It leaves files of the
 * model to artifact, and the exit to main. */
#pragma once

#include "core/base/opt_ml.h"
#include "core/comm/control.h"
#include "train/checkpoint.h"
#include "train/data/dataset.h"
#include "train/report/report.h"
#include "train/settings/settings.h"
#include "train/share.h"
#include "train/step.h"

struct training {
	const struct settings *settings;
	const struct opt_ml *opt_ml;
	const struct dataset *dataset; /* of this host */
	uint64_t images_before;        /* of other hosts: numbers of this one's first training image among all */
	int rank, world;
	struct control *control;       /* SCOPE_RANKS */
	struct course train, validation;
	const struct params_layout *layout;
	struct machine machine;
	struct run_identity identity;
	struct normalization normalization;
	struct report *report;
	struct position position; /* where to begin; where it ended */
	bool fresh;               /* nothing was trained before: momentum is undefined */
	double started_seconds;   /* monotonic clock when the process began, for max_seconds */
};

/* Steps of the whole run: epochs × steps of one, or max_steps if that is less. */
int64_t run_steps(const struct settings *settings, int64_t steps_per_epoch);

/* Trains from position to the end. Collective: all ranks take the same decisions at the same places, from sums over all of them. ST_OK:
 * finished, or the budget is used up; the last checkpoint is written. ST_STOPPED: a stop was requested; machine and checkpoint are those of
 * the last step done. ST_INTERNAL when the loss is no longer a number (the sentence says what to try), ST_DISK. */
enum status training_run(struct training *training);
