/* batch.h: what every backend asks of a batch that begins. */
#pragma once

#include "core/backend/backend.h"

#include <math.h>

/* Whether batch norm's sums are taken over all ranks. */
static inline bool norm_is_shared(const struct backend_config *config)
{
	return config->sync_batch_norm && config->reduction != NULL;
}

/* backend.h's rules for batch_begin's arguments: ST_SETTINGS when a batch norm would have a single value; the impossible aborts. */
enum status batch_check(const struct backend_config *config, int n, int total, bool training, enum which which);

/* What clipping multiplies gradients by, when the sum of their squares is this; 1 without clipping. */
static inline float clip_scale(const struct update *update, double norm_squared)
{
	double scale = update->gradient_clip_norm > 0 ? update->gradient_clip_norm / (sqrt(norm_squared) * (double)update->gradient_scale + 1e-6) : 1;
	return scale < 1 ? (float)scale : 1;
}
