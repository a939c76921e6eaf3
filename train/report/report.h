/* report.h: who watches a training run, and what they are told. The one interface that the training loop calls.
 *
 * In go numbers of a step or an epoch; out go
 *   stdout            a "[step]" line every log_every_steps steps, a "[metric]" line an epoch (metrics.h), a live line on a terminal
 *   output/data       history.jsonl and history.csv, a line an epoch
 *   metrics directory <pid>.json, one JSON line a metric (SAGEMAKER_METRICS_DIRECTORY)
 *   TensorBoard       one event file a process: scalars, pictures, histograms
 * Only rank 0 speaks: on any other rank every call returns at once.
 *
 * A history that cannot be written is ST_DISK, for it is part of the job's result. Trouble with the metrics directory or with
 * TensorBoard is told once as a warning and then that outlet is off. One thread calls; the library keeps no global state but
 * the live line. A value that is not finite is printed as "undefined", written as null (JSON) or left empty (CSV). */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct report;

struct report_config {
	int rank;                          /* over all hosts; 0 speaks */
	const char *host;                  /* name in the event file's name; NULL: "localhost" */
	const char *data_directory;        /* /opt/ml/output/data; made if missing */
	const char *metrics_directory;     /* SAGEMAKER_METRICS_DIRECTORY, or NULL */
	const char *tensorboard_directory; /* or NULL */
	bool terminal;                     /* a live line is wanted: pass report_terminal() */
	int64_t log_every_steps;           /* a [step] line whenever step is a multiple; 0: none */
	int64_t steps_total;               /* of the whole run (the last step's number), for the estimate of the time left; 0: unknown */
	int64_t epochs_total;              /* 0: unknown */
	int64_t resumed_step;              /* steps done before this process started; 0: a fresh run */
};

/* Steps and epochs count from 1; `step` runs through all epochs. */
struct report_step {
	int64_t epoch;
	int64_t step;
	int64_t step_in_epoch, steps_in_epoch;
	double loss;              /* mean over the batch */
	double lr;
	double images_per_second; /* over the steps since the last report, all ranks together */
};

struct report_scores {
	double loss;
	double accuracy, top5_accuracy; /* 0 to 1 */
};

struct report_epoch {
	int64_t epoch;
	int64_t step; /* the last one of the epoch (or the last one done, when it was cut short) */
	struct report_scores train;
	bool validated; /* `validation` holds numbers */
	struct report_scores validation;
	bool ema; /* `ema_accuracy` holds a number: validation accuracy with the averaged weights */
	double ema_accuracy;
	double lr;
	double images_per_second; /* of training, all ranks together */
	double epoch_seconds;     /* training and validation */
};

/* True if a person sits in front of stdout: it is a terminal, TERM names one that can move its cursor, this is not process 1 and
 * TRAINING_JOB_NAME is not set. SDK local mode gives the container a terminal too, but what it prints is a log, and a log holds
 * no control characters. */
bool report_terminal(void);

/* Opens every outlet. After a resume, history lines of this run up to resumed_step are kept if the files are still there (on
 * SageMaker they are not: output/ starts empty), and TensorBoard is told to drop what lies after that step. The strings are
 * copied. ST_DISK, ST_MEMORY. report_close releases. */
enum status report_open(const struct report_config *config, struct report **report);

/* After every step, its loss at hand or not: moves the live line. */
void report_tick(struct report *report, int64_t epoch, int64_t step, int64_t step_in_epoch, int64_t steps_in_epoch);

/* After a step whose loss is at hand; every few steps. Cheap: what is not due is not written. */
void report_step(struct report *report, const struct report_step *step);

/* After each epoch's validation. ST_DISK when the history cannot be written. */
enum status report_epoch(struct report *report, const struct report_epoch *epoch);

/* `count` augmented pictures as TensorBoard shows them, in one sheet; `images` is (count, 3, size, size) uint8 RGB. */
void report_images(struct report *report, const char *tag, int64_t step, const uint8_t *images, size_t count, int size);

/* Distribution of the `count` floats of the weight tensor `name` at `step`, for TensorBoard (tag "weights/NAME"). */
void report_histogram(struct report *report, const char *name, int64_t step, const float *values, size_t count);
/* Whether the two calls above do anything; to save the work of preparing them. */
bool report_wants_images(const struct report *report);
bool report_wants_histograms(const struct report *report);

/* One line on stdout that the live line does not garble. */
void report_note(struct report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends the live line, prints how the run ended (`final`: ST_OK, ST_STOPPED or the failure), syncs and closes. Accepts NULL. */
void report_close(struct report *report, enum status final);
