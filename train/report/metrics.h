/* metrics.h: the one table of what is measured: name, regular expression, meaning.
 *
 * SageMaker finds a metric by searching each line of the log for a regular expression the user has put in the job's
 * MetricDefinitions; its first group is the number. So the names and the "[metric]" line are a contract. No published expression
 * matches in another metric's "name=value", nor anywhere in a "[step]" line. */
#pragma once

#include "core/base/text.h"
#include "train/report/report.h"

#include <stdbool.h>

/* name in the log, what it is. The expression is NAME=([0-9.]+); TensorBoard's tag has '/' for ':', a history's column '_'. */
#define METRIC_LIST(X) \
	X(TRAIN_LOSS, "train:loss", "mean loss of the epoch's training batches, as trained on (label smoothing, mixed images)") \
	X(TRAIN_ACCURACY, "train:accuracy", "share of those augmented images whose best guess was right, 0 to 1") \
	X(TRAIN_TOP5_ACCURACY, "train:top5_accuracy", "share of those images whose class was among the five best guesses") \
	X(VALIDATION_LOSS, "validation:loss", "mean cross-entropy over every validation image") \
	X(VALIDATION_ACCURACY, "validation:accuracy", "share of validation images whose best guess is right: the objective to tune") \
	X(VALIDATION_TOP5_ACCURACY, "validation:top5_accuracy", "share whose class is among the five best guesses") \
	X(VALIDATION_EMA_ACCURACY, "validation:ema_accuracy", "validation accuracy with the averaged weights (ema_decay)") \
	X(LEARNING_RATE, "learning_rate", "at the epoch's last step") \
	X(IMAGES_PER_SECOND, "images_per_second", "training images a second, all hosts together") \
	X(EPOCH_SECONDS, "epoch_seconds", "training and validation of the epoch, in seconds")

enum metric {
#define X(id, name, help) METRIC_##id,
	METRIC_LIST(X)
#undef X
	METRIC_COUNT
};

struct metric_value {
	bool present; /* false: not measured in this epoch, and not mentioned */
	double value;
};

const char *metric_name(enum metric metric);
/* The metric's name with `separator` instead of ':'. */
void metric_name_with(enum metric metric, char separator, char *to, size_t to_bytes);

/* An epoch's numbers in the table's order. */
void metrics_of_epoch(const struct report_epoch *epoch, struct metric_value values[METRIC_COUNT]);

/* `value` with six significant digits, without exponent and trailing zeros: "0.05", "4.60517", "812.31"; "undefined" when it is not
 * finite. */
enum { NUMBER_BYTES = 330 };
void number_plain(double value, char to[NUMBER_BYTES]);

/* Appends "[metric] epoch=3 step=1170 train:loss=… …", without a line end. */
enum status metrics_line(struct text *text, const struct report_epoch *epoch);
/* Appends "[step] epoch=3 step=800 …". seconds_left < 0: unknown, left out. */
enum status metrics_step_line(struct text *text, const struct report_step *step, int64_t steps_total, double seconds_left);

/* Appends the table as JSON, as the SDK's metric_definitions wants it: [{"Name": …, "Regex": …}, …]. */
enum status metrics_definitions(struct text *text);
/* Appends the table as Markdown, for the README. */
enum status metrics_markdown(struct text *text);
