/* batch.h: what every backend asks of a batch that begins. */
#pragma once

#include "core/backend/backend.h"

/* Whether batch norm's sums are taken over all ranks. */
static inline bool norm_is_shared(const struct backend_config *config)
{
	return config->sync_batch_norm && config->reduction != NULL;
}

/* backend.h's rules for batch_begin's arguments: ST_SETTINGS when a batch norm would have a single value; the impossible aborts. */
enum status batch_check(const struct backend_config *config, int n, int total, bool training, enum which which);
