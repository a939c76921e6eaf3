/* report.c: hands each number to every outlet that is open. See report.h. */
#include "train/report/report.h"

#include "core/base/log.h"
#include "core/format/image.h"
#include "train/report/history.h"
#include "train/report/metrics_file.h"
#include "train/report/progress.h"
#include "train/report/sheet.h"
#include "train/report/tensorboard.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct report {
	bool speaks;
	int64_t log_every_steps, steps_total;
	struct progress progress;
	struct history history;
	struct metrics_file metrics_file;
	struct tensorboard *tensorboard; /* NULL: off */
	int64_t epochs_done, steps_done, best_epoch; /* best_epoch 0: none validated */
	double best_accuracy;
};

/* The two outlets that training does without. */
static void metrics_file_off(struct report *report)
{
	log_warning("no more metrics files (SAGEMAKER_METRICS_DIRECTORY): %s", status_message());
	metrics_file_close(&report->metrics_file);
}

static void tensorboard_off(struct report *report)
{
	log_warning("no more TensorBoard events: %s", status_message());
	tensorboard_close(report->tensorboard);
	report->tensorboard = NULL;
}

enum status report_open(const struct report_config *config, struct report **report)
{
	struct report *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for the report");
	made->metrics_file.fd = -1;
	made->speaks = config->rank == 0;
	made->log_every_steps = config->log_every_steps;
	made->steps_total = config->steps_total;
	made->steps_done = config->resumed_step;
	if (made->speaks) {
		enum status status = history_open(&made->history, config->data_directory, config->resumed_step);
		if (status != ST_OK) {
			free(made);
			return status;
		}
		if (config->metrics_directory != NULL && metrics_file_open(&made->metrics_file, config->metrics_directory) != ST_OK)
			metrics_file_off(made);
		if (config->tensorboard_directory != NULL && tensorboard_open(config->tensorboard_directory,
			config->host != NULL ? config->host : "localhost", config->resumed_step, &made->tensorboard) != ST_OK)
			tensorboard_off(made);
		progress_open(&made->progress, config);
	}
	*report = made;
	return ST_OK;
}

/* A line that cannot be composed for want of memory is missed, not fatal: it is told as what it is. */
static void line_print(struct text *line, enum status status)
{
	if (status == ST_OK)
		log_info("%s", text_string(line));
	else
		log_warning("%s", status_message());
	text_free(line);
}

void report_tick(struct report *report, int64_t epoch, int64_t step, int64_t step_in_epoch, int64_t steps_in_epoch)
{
	if (!report->speaks)
		return;
	report->steps_done = step;
	progress_tick(&report->progress, epoch, step, step_in_epoch, steps_in_epoch);
}

void report_step(struct report *report, const struct report_step *step)
{
	if (!report->speaks)
		return;
	report->steps_done = step->step;
	progress_step(&report->progress, step);
	if (report->log_every_steps <= 0 || step->step % report->log_every_steps != 0)
		return;
	/* On a terminal the live line says the same. */
	if (!report->progress.live) {
		struct text line = {0};
		line_print(&line, metrics_step_line(&line, step, report->steps_total, progress_seconds_left(&report->progress, step->step)));
	}
	const struct tensorboard_scalar scalars[] = {
		{"step/loss", (float)step->loss},
		{"step/learning_rate", (float)step->lr},
		{"step/images_per_second", (float)step->images_per_second},
	};
	if (report->tensorboard != NULL && tensorboard_scalars(report->tensorboard, step->step, scalars, sizeof scalars / sizeof *scalars) != ST_OK)
		tensorboard_off(report);
}

static enum status epoch_to_tensorboard(struct tensorboard *tensorboard, const struct report_epoch *epoch)
{
	struct metric_value values[METRIC_COUNT];
	char tags[METRIC_COUNT][64];
	struct tensorboard_scalar scalars[METRIC_COUNT];
	size_t count = 0;
	metrics_of_epoch(epoch, values);
	for (int i = 0; i < METRIC_COUNT; i++) {
		if (!values[i].present)
			continue;
		metric_name_with((enum metric)i, '/', tags[count], sizeof tags[count]);
		scalars[count] = (struct tensorboard_scalar){tags[count], (float)values[i].value};
		count++;
	}
	return tensorboard_scalars(tensorboard, epoch->step, scalars, count);
}

enum status report_epoch(struct report *report, const struct report_epoch *epoch)
{
	if (!report->speaks)
		return ST_OK;
	report->epochs_done = epoch->epoch;
	report->steps_done = epoch->step;
	double accuracy = epoch->ema ? fmax(epoch->ema_accuracy, epoch->validation.accuracy) : epoch->validation.accuracy;
	if (epoch->validated && (report->best_epoch == 0 || accuracy > report->best_accuracy)) {
		report->best_epoch = epoch->epoch;
		report->best_accuracy = accuracy;
	}
	struct text line = {0};
	line_print(&line, metrics_line(&line, epoch));
	if (report->metrics_file.fd >= 0 && metrics_file_add(&report->metrics_file, epoch) != ST_OK)
		metrics_file_off(report);
	if (report->tensorboard != NULL && epoch_to_tensorboard(report->tensorboard, epoch) != ST_OK)
		tensorboard_off(report);
	return history_add(&report->history, epoch);
}

bool report_wants_images(const struct report *report)
{
	return report->tensorboard != NULL;
}

bool report_wants_histograms(const struct report *report)
{
	return report->tensorboard != NULL;
}

static enum status images_to_tensorboard(struct tensorboard *tensorboard, int64_t step, const char *tag, const uint8_t *images, size_t count,
	int size)
{
	enum { SCALE = 2 };
	struct sheet sheet = {0};
	uint8_t *png = NULL;
	size_t png_bytes = 0;
	enum status status = sheet_build(images, count, size, 0, SCALE, &sheet);
	if (status == ST_OK)
		status = image_png_write(sheet.planes, sheet.width, sheet.height, &png, &png_bytes);
	if (status == ST_OK)
		status = tensorboard_image(tensorboard, step, tag, png, png_bytes, sheet.width, sheet.height);
	free(png);
	free(sheet.planes);
	return status;
}

void report_images(struct report *report, const char *tag, int64_t step, const uint8_t *images, size_t count, int size)
{
	if (report->tensorboard != NULL && count > 0 && images_to_tensorboard(report->tensorboard, step, tag, images, count, size) != ST_OK)
		tensorboard_off(report);
}

void report_histogram(struct report *report, const char *name, int64_t step, const float *values, size_t count)
{
	char tag[128];
	snprintf(tag, sizeof tag, "weights/%s", name);
	if (report->tensorboard != NULL && tensorboard_histogram(report->tensorboard, step, tag, values, count) != ST_OK)
		tensorboard_off(report);
}

void report_note(struct report *report, const char *format, ...)
{
	if (!report->speaks)
		return;
	char line[LOG_LINE_BYTES_MAX];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	log_info("%s", line);
}

static void end_print(const struct report *report, enum status final)
{
	char took[DURATION_BYTES], number[NUMBER_BYTES];
	struct text line = {0};
	duration_write(progress_seconds(&report->progress), took);
	enum status status = text_printf(&line, "%s at step %" PRId64 ", %" PRId64 " whole epochs, after %s",
		final == ST_OK ? "finished" : final == ST_STOPPED ? "stopped" : "failed", report->steps_done, report->epochs_done, took);
	if (status == ST_OK && report->best_epoch > 0) {
		number_plain(100 * report->best_accuracy, number);
		status = text_printf(&line, "; best validation accuracy %s %% (epoch %" PRId64 ")", number, report->best_epoch);
	}
	line_print(&line, status);
}

void report_close(struct report *report, enum status final)
{
	if (report == NULL)
		return;
	if (report->speaks) {
		progress_close(&report->progress);
		end_print(report, final);
		if (tensorboard_close(report->tensorboard) != ST_OK)
			log_warning("the last TensorBoard events may be lost: %s", status_message());
		metrics_file_close(&report->metrics_file);
		history_close(&report->history);
	}
	free(report);
}
