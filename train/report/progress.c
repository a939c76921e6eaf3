/* progress.c: see progress.h. */
#include "train/report/progress.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "train/report/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Back to the first column, erase to the end of the line (ECMA-48). */
#define LINE_ERASE "\r\033[K"
#define SECONDS_BETWEEN_DRAWS 0.1

enum { BAR_CELLS = 20, LINE_BYTES_MAX = 512, COLUMNS_DEFAULT = 80 };

bool report_terminal(void)
{
	const char *terminal = getenv("TERM");
	return isatty(STDOUT_FILENO) && terminal != NULL && terminal[0] != '\0' && strcmp(terminal, "dumb") != 0 && getpid() != 1 &&
		getenv("TRAINING_JOB_NAME") == NULL;
}

void progress_open(struct progress *progress, const struct report_config *config)
{
	*progress = (struct progress){
		.live = config->terminal,
		.steps_total = config->steps_total,
		.epochs_total = config->epochs_total,
		.steps_first = config->resumed_step,
		.seconds_start = clock_seconds(),
	};
	if (progress->live)
		log_erase_set(LINE_ERASE);
}

double progress_seconds(const struct progress *progress)
{
	return clock_seconds() - progress->seconds_start;
}

double progress_seconds_left(const struct progress *progress, int64_t step)
{
	int64_t done = step - progress->steps_first, left = progress->steps_total - step;
	if (done <= 0 || left < 0)
		return -1;
	return progress_seconds(progress) / (double)done * (double)left;
}

void duration_write(double seconds, char to[DURATION_BYTES])
{
	long long whole = seconds > 0 ? (long long)(seconds + 0.5) : 0;
	if (whole < 60)
		snprintf(to, DURATION_BYTES, "%lld s", whole);
	else if (whole < 3600)
		snprintf(to, DURATION_BYTES, "%lld min %02lld s", whole / 60, whole % 60);
	else
		snprintf(to, DURATION_BYTES, "%lld h %02lld min", whole / 3600, whole % 3600 / 60);
}

static void line_compose(const struct progress *progress, char line[LINE_BYTES_MAX])
{
	const struct report_step *step = &progress->last;
	char bar[BAR_CELLS + 1], of[48] = "", measured[64] = "", left[DURATION_BYTES + 8] = "";
	int filled = step->steps_in_epoch > 0 ? (int)(BAR_CELLS * step->step_in_epoch / step->steps_in_epoch) : 0;
	for (int i = 0; i < BAR_CELLS; i++)
		bar[i] = i < filled ? '#' : '.';
	bar[BAR_CELLS] = '\0';
	if (progress->measured) {
		char loss[NUMBER_BYTES];
		number_plain(step->loss, loss);
		snprintf(measured, sizeof measured, "  loss %.6s  %.0f images/s", loss, step->images_per_second);
	}
	if (progress->epochs_total > 0)
		snprintf(of, sizeof of, "/%" PRId64, progress->epochs_total);
	double seconds_left = progress_seconds_left(progress, step->step);
	if (seconds_left >= 0) {
		char duration[DURATION_BYTES];
		duration_write(seconds_left, duration);
		snprintf(left, sizeof left, "  %s left", duration);
	}
	snprintf(line, LINE_BYTES_MAX, "epoch %" PRId64 "%s [%s] %" PRId64 "/%" PRId64 "%s%s", step->epoch, of, bar,
		step->step_in_epoch, step->steps_in_epoch, measured, left);
}

static void line_draw(struct progress *progress)
{
	if (!progress->live)
		return;
	double now = clock_seconds();
	if (now - progress->seconds_drawn < SECONDS_BETWEEN_DRAWS)
		return;
	progress->seconds_drawn = now;
	struct winsize window;
	int columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col : COLUMNS_DEFAULT;
	char line[LINE_BYTES_MAX], drawn[LINE_BYTES_MAX + sizeof LINE_ERASE];
	line_compose(progress, line);
	/* A line that reaches the last column would wrap and could not be erased. */
	int length = snprintf(drawn, sizeof drawn, LINE_ERASE "%.*s", columns - 1, line);
	/* A terminal that went away is no reason to stop the work. */
	if (write(STDOUT_FILENO, drawn, (size_t)length) < 0)
		progress_close(progress);
}

void progress_tick(struct progress *progress, int64_t epoch, int64_t step, int64_t step_in_epoch, int64_t steps_in_epoch)
{
	progress->last.epoch = epoch;
	progress->last.step = step;
	progress->last.step_in_epoch = step_in_epoch;
	progress->last.steps_in_epoch = steps_in_epoch;
	line_draw(progress);
}

void progress_step(struct progress *progress, const struct report_step *step)
{
	progress->last = *step;
	progress->measured = true;
	line_draw(progress);
}

void progress_close(struct progress *progress)
{
	if (!progress->live)
		return;
	progress->live = false;
	log_erase_set(NULL);
	if (write(STDOUT_FILENO, LINE_ERASE, strlen(LINE_ERASE)) < 0)
		return;
}
