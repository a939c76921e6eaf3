/* job.h: one training job from prepared settings to the model directory: the rooms of train/ in the order data passes them. */
#pragma once

#include "core/base/opt_ml.h"
#include "train/settings/settings.h"

/* Reads the data, trains, writes checkpoints, reports and the model. started_seconds: when the process began (clock_seconds()).
 * ST_OK: finished, the model is written. ST_STOPPED: a stop was requested; if training had begun, checkpoint and model are written.
 * Else what failed, with its sentence. */
enum status job_run(const struct opt_ml *opt_ml, const struct settings *settings, double started_seconds);
