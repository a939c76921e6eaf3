/* history.c: see history.h. In: an epoch's numbers. Out: two files that appear whole. */
#include "train/report/history.h"

#include "core/base/file.h"
#include "core/base/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HISTORY_BYTES_MAX = 64 << 20 };

static enum status number_add(struct text *text, struct metric_value value, const char *nothing)
{
	return value.present && isfinite(value.value) ? text_printf(text, "%.9g", value.value) : text_add(text, nothing);
}

static enum status csv_header_add(struct text *text)
{
	TRY(text_add(text, "epoch,step"));
	for (int i = 0; i < METRIC_COUNT; i++) {
		char column[64];
		metric_name_with((enum metric)i, '_', column, sizeof column);
		TRY(text_printf(text, ",%s", column));
	}
	return text_add(text, "\n");
}

static bool line_json_step(const char *line, int64_t *step)
{
	int64_t epoch;
	return sscanf(line, "{\"epoch\":%" SCNd64 ",\"step\":%" SCNd64 ",", &epoch, step) == 2;
}

static bool line_csv_step(const char *line, int64_t *step)
{
	int64_t epoch;
	return sscanf(line, "%" SCNd64 ",%" SCNd64 ",", &epoch, step) == 2;
}

/* Copies the lines of an earlier process of this run up to `resumed_step` from `path` to `text`; skips `header` where there is one. */
static enum status lines_keep(struct text *text, const char *path, const char *header, bool (*line_step)(const char *, int64_t *),
	int64_t resumed_step)
{
	uint8_t *bytes = NULL;
	size_t count = 0;
	if (!file_exists(path))
		return ST_OK;
	if (file_read(path, HISTORY_BYTES_MAX, &bytes, &count) != ST_OK) {
		log_warning("the history starts anew: %s", status_message());
		return ST_OK;
	}
	enum status status = ST_OK;
	size_t foreign = 0;
	for (char *line = (char *)bytes, *end; status == ST_OK && (end = strchr(line, '\n')) != NULL; line = end + 1) {
		int64_t step;
		*end = '\0';
		if (header != NULL && line == (char *)bytes && strncmp(line, header, strlen(header) - 1) == 0)
			continue;
		if (!line_step(line, &step))
			foreign++;
		else if (step <= resumed_step)
			status = text_printf(text, "%s\n", line);
	}
	if (foreign > 0)
		log_warning("%s: %zu lines are not of this program and were left out", path, foreign);
	free(bytes);
	return status;
}

enum status history_open(struct history *history, const char *directory, int64_t resumed_step)
{
	struct history made = {0};
	enum status status = directory_make(directory);
	if (status == ST_OK)
		status = path_join(made.json_path, sizeof made.json_path, directory, HISTORY_JSON_NAME);
	if (status == ST_OK)
		status = path_join(made.csv_path, sizeof made.csv_path, directory, HISTORY_CSV_NAME);
	if (status == ST_OK)
		status = csv_header_add(&made.csv);
	if (status == ST_OK && resumed_step > 0) {
		char header[1024];
		snprintf(header, sizeof header, "%s", text_string(&made.csv));
		status = lines_keep(&made.json, made.json_path, NULL, line_json_step, resumed_step);
		if (status == ST_OK)
			status = lines_keep(&made.csv, made.csv_path, header, line_csv_step, resumed_step);
	}
	if (status == ST_OK)
		*history = made;
	else
		history_close(&made);
	return status;
}

enum status history_add(struct history *history, const struct report_epoch *epoch)
{
	struct metric_value values[METRIC_COUNT];
	metrics_of_epoch(epoch, values);
	TRY(text_printf(&history->json, "{\"epoch\":%" PRId64 ",\"step\":%" PRId64, epoch->epoch, epoch->step));
	TRY(text_printf(&history->csv, "%" PRId64 ",%" PRId64, epoch->epoch, epoch->step));
	for (int i = 0; i < METRIC_COUNT; i++) {
		char column[64];
		metric_name_with((enum metric)i, '_', column, sizeof column);
		TRY(text_printf(&history->json, ",\"%s\":", column));
		TRY(number_add(&history->json, values[i], "null"));
		TRY(text_add(&history->csv, ","));
		TRY(number_add(&history->csv, values[i], ""));
	}
	TRY(text_add(&history->json, "}\n"));
	TRY(text_add(&history->csv, "\n"));
	TRY(file_write(history->json_path, history->json.data, history->json.length));
	return file_write(history->csv_path, history->csv.data, history->csv.length);
}

void history_close(struct history *history)
{
	text_free(&history->json);
	text_free(&history->csv);
}
