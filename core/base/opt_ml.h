/* opt_ml.h: where SageMaker puts things, and the files of input/config.
 *
 * Comes in: the environment (SAGEMAKER_BASE_DIR, SAGEMAKER_METRICS_DIRECTORY) and two small config files. Goes out: absolute paths.
 * Leaves to others: what the other config files mean (train/settings, train/ranks/resource, train/data/channels). */
#pragma once

#include "core/base/json.h"
#include "core/base/status.h"

#include <stdbool.h>

#define OPT_ML_PATH_BYTES 4096

struct opt_ml {
	char base[OPT_ML_PATH_BYTES];        /* SAGEMAKER_BASE_DIR, else /opt/ml; absolute */
	char config[OPT_ML_PATH_BYTES];      /* base/input/config */
	char data[OPT_ML_PATH_BYTES];        /* base/input/data */
	char model[OPT_ML_PATH_BYTES];       /* base/model */
	char output[OPT_ML_PATH_BYTES];      /* base/output */
	char output_data[OPT_ML_PATH_BYTES]; /* base/output/data */
	char failure[OPT_ML_PATH_BYTES];     /* base/output/failure */
	char checkpoints[OPT_ML_PATH_BYTES]; /* LocalPath of checkpointconfig.json, else base/checkpoints */
	char tensorboard[OPT_ML_PATH_BYTES]; /* LocalPath of tensorboardoutputconfig.json, else "" (see settings_tensorboard) */
	char metrics[OPT_ML_PATH_BYTES];     /* SAGEMAKER_METRICS_DIRECTORY, else "" */
	bool checkpoints_synced;             /* checkpointconfig.json is there: the platform copies the directory to S3 */
};

/* The paths that need no file: all but LocalPaths. ST_SETTINGS when a path is too long. Touches no disk. */
enum status opt_ml_open(struct opt_ml *opt_ml);

/* Reads checkpointconfig.json and tensorboardoutputconfig.json if they are there. A LocalPath must be absolute; one below
 * /opt/ml is taken below base, so that a copied layout works elsewhere. ST_SETTINGS. */
enum status opt_ml_configure(struct opt_ml *opt_ml);

/* Makes output, output/data and model if they are missing. ST_DISK. */
enum status opt_ml_make(const struct opt_ml *opt_ml);

/* Reads input/config/<file>, an object of at most JSON_CONFIG_BYTES_MAX bytes. *json is NULL when the file is missing or holds
 * only white space; the caller frees it. ST_SETTINGS, with the file's path, when it is anything else. */
enum status opt_ml_config(const struct opt_ml *opt_ml, const char *file, struct json **json);
