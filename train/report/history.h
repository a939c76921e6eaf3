/* history.h: the run's numbers as files a person opens afterwards: history.jsonl and history.csv in output/data, a line an epoch.
 *
 * JSON lines: {"epoch":3,"step":1170,"train_loss":1.23,…}, what was not measured or is not finite is null. CSV: a header line, then
 * the same columns, empty for null. Each file is replaced as a whole each epoch, so a reader (or the upload after a kill) never sees
 * half of one. */
#pragma once

#include "core/base/text.h"
#include "train/report/metrics.h"

struct history {
	char json_path[4096], csv_path[4096];
	struct text json, csv; /* what the files hold */
};

#define HISTORY_JSON_NAME "history.jsonl"
#define HISTORY_CSV_NAME "history.csv"

/* Starts the history in `directory`, which is made if missing. With resumed_step > 0, lines of both files up to that step are taken
 * over if the files exist; a line that is not this program's is dropped with a warning. ST_DISK, ST_MEMORY. */
enum status history_open(struct history *history, const char *directory, int64_t resumed_step);

/* Adds an epoch's line to both files. ST_DISK when one cannot be written. */
enum status history_add(struct history *history, const struct report_epoch *epoch);

void history_close(struct history *history);
