/* metrics.c: see metrics.h. In: a step's or an epoch's numbers. Out: text. It writes nothing by itself. */
#include "train/report/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define NUMBER_REGEX "=([0-9.]+)"

static const struct {
	const char *name, *help;
} metrics[METRIC_COUNT] = {
#define X(id, name, help) {name, help},
	METRIC_LIST(X)
#undef X
};

const char *metric_name(enum metric metric)
{
	MUST((unsigned)metric < METRIC_COUNT);
	return metrics[metric].name;
}

void metric_name_with(enum metric metric, char separator, char *to, size_t to_bytes)
{
	int length = snprintf(to, to_bytes, "%s", metric_name(metric));
	MUST(length > 0 && (size_t)length < to_bytes);
	for (; *to != '\0'; to++)
		if (*to == ':')
			*to = separator;
}

void metrics_of_epoch(const struct report_epoch *epoch, struct metric_value values[METRIC_COUNT])
{
	values[METRIC_TRAIN_LOSS] = (struct metric_value){true, epoch->train.loss};
	values[METRIC_TRAIN_ACCURACY] = (struct metric_value){true, epoch->train.accuracy};
	values[METRIC_TRAIN_TOP5_ACCURACY] = (struct metric_value){true, epoch->train.top5_accuracy};
	values[METRIC_VALIDATION_LOSS] = (struct metric_value){epoch->validated, epoch->validation.loss};
	values[METRIC_VALIDATION_ACCURACY] = (struct metric_value){epoch->validated, epoch->validation.accuracy};
	values[METRIC_VALIDATION_TOP5_ACCURACY] = (struct metric_value){epoch->validated, epoch->validation.top5_accuracy};
	values[METRIC_VALIDATION_EMA_ACCURACY] = (struct metric_value){epoch->ema, epoch->ema_accuracy};
	values[METRIC_LEARNING_RATE] = (struct metric_value){true, epoch->lr};
	values[METRIC_IMAGES_PER_SECOND] = (struct metric_value){true, epoch->images_per_second};
	values[METRIC_EPOCH_SECONDS] = (struct metric_value){true, epoch->epoch_seconds};
}

void number_plain(double value, char to[NUMBER_BYTES])
{
	/* A word that no expression for a number matches, not even one that looks for digits and signs. */
	if (!isfinite(value)) {
		snprintf(to, NUMBER_BYTES, "undefined");
		return;
	}
	enum { SIGNIFICANT_DIGITS = 6, DECIMALS_MAX = 12 };
	int decimals = value == 0 ? 0 : SIGNIFICANT_DIGITS - 1 - (int)floor(log10(fabs(value)));
	decimals = decimals < 0 ? 0 : decimals > DECIMALS_MAX ? DECIMALS_MAX : decimals;
	snprintf(to, NUMBER_BYTES, "%.*f", decimals, value);
	if (decimals > 0) {
		char *end = to + strlen(to);
		while (end[-1] == '0')
			*--end = '\0';
		if (end[-1] == '.')
			*--end = '\0';
	}
}

static enum status pair_add(struct text *text, const char *name, double value)
{
	char number[NUMBER_BYTES];
	number_plain(value, number);
	return text_printf(text, " %s=%s", name, number);
}

enum status metrics_line(struct text *text, const struct report_epoch *epoch)
{
	struct metric_value values[METRIC_COUNT];
	metrics_of_epoch(epoch, values);
	TRY(text_printf(text, "[metric] epoch=%" PRId64 " step=%" PRId64, epoch->epoch, epoch->step));
	for (int i = 0; i < METRIC_COUNT; i++)
		if (values[i].present)
			TRY(pair_add(text, metrics[i].name, values[i].value));
	return ST_OK;
}

enum status metrics_step_line(struct text *text, const struct report_step *step, int64_t steps_total, double seconds_left)
{
	TRY(text_printf(text, "[step] epoch=%" PRId64 " step=%" PRId64, step->epoch, step->step));
	if (steps_total > 0)
		TRY(text_printf(text, " of=%" PRId64, steps_total));
	TRY(pair_add(text, "loss_now", step->loss));
	TRY(pair_add(text, "lr", step->lr));
	TRY(pair_add(text, "images/s", step->images_per_second));
	if (seconds_left >= 0)
		TRY(text_printf(text, " seconds_left=%.0f", seconds_left));
	return ST_OK;
}

enum status metrics_definitions(struct text *text)
{
	TRY(text_add(text, "["));
	for (int i = 0; i < METRIC_COUNT; i++)
		TRY(text_printf(text, "%s\n  {\"Name\": \"%s\", \"Regex\": \"%s" NUMBER_REGEX "\"}", i == 0 ? "" : ",", metrics[i].name, metrics[i].name));
	return text_add(text, "\n]\n");
}

enum status metrics_markdown(struct text *text)
{
	TRY(text_add(text, "| metric | regular expression | what it is |\n|---|---|---|\n"));
	for (int i = 0; i < METRIC_COUNT; i++)
		TRY(text_printf(text, "| `%s` | `%s" NUMBER_REGEX "` | %s |\n", metrics[i].name, metrics[i].name, metrics[i].help));
	return ST_OK;
}
