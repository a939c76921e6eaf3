/* metrics_file.h: the file that SageMaker's agent for experiments reads: $SAGEMAKER_METRICS_DIRECTORY/<pid>.json.
 *
 * One JSON object a line and a metric: {"MetricName":"validation:accuracy","Value":0.51,"Timestamp":1700000000.5,"IterationNumber":3};
 * the iteration is the epoch. What is not finite is left out, for JSON has no word for it. */
#pragma once

#include "train/report/metrics.h"

struct metrics_file {
	int fd; /* -1: not open */
	char path[4096];
};

/* Makes `directory` if missing and opens (or continues) this process's file in it. ST_DISK. */
enum status metrics_file_open(struct metrics_file *file, const char *directory);
/* Appends an epoch's lines in one write. ST_DISK, ST_MEMORY. */
enum status metrics_file_add(struct metrics_file *file, const struct report_epoch *epoch);
void metrics_file_close(struct metrics_file *file);
