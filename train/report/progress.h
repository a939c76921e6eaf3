/* progress.h: how far the run is and how long it will take; on a terminal, as a line that renews itself at the bottom.
 *
 * The line is drawn with a carriage return, so only where progress_open was told that a person watches (report_terminal). Whatever is
 * logged erases it first (log_erase_set); the next step draws it again. One thread. */
#pragma once

#include "train/report/report.h"

struct progress {
	bool live;
	int64_t steps_total, epochs_total, steps_first;
	double seconds_start, seconds_drawn; /* of the monotonic clock */
	bool measured;                       /* `last` holds a loss and a speed */
	struct report_step last;
};

void progress_open(struct progress *progress, const struct report_config *config);
/* Estimated seconds until steps_total at the pace since progress_open (validation and checkpoints included); -1: not known yet. */
double progress_seconds_left(const struct progress *progress, int64_t step);
/* Seconds since progress_open. */
double progress_seconds(const struct progress *progress);
/* Draws the live line, ten times a second at most; a tick with the loss and the speed that were known last. */
void progress_tick(struct progress *progress, int64_t epoch, int64_t step, int64_t step_in_epoch, int64_t steps_in_epoch);
void progress_step(struct progress *progress, const struct report_step *step);
/* Removes the live line. */
void progress_close(struct progress *progress);

/* "42 s", "3 min 05 s", "2 h 07 min". */
enum { DURATION_BYTES = 48 };
void duration_write(double seconds, char to[DURATION_BYTES]);
