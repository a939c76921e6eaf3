/* batch.c: see batch.h. */
#include "core/backend/batch.h"

enum status batch_check(const struct backend_config *config, int n, int total, bool training, enum which which)
{
	const struct network *network = config->network;
	MUST(n >= (config->reduction == NULL) && n <= config->batch_max && n <= total);
	MUST(!training || (config->training && total >= 1));
	MUST(which == WHICH_WEIGHTS || (config->ema && !training));
	int images = norm_is_shared(config) ? total : n;
	if (training && images * network->head.H * network->head.W == 1)
		return FAIL(ST_SETTINGS, "a training batch of 1 image%s whose last feature map is 1x1 (image_size=%d): batch statistics need at least 2 values",
			total > images ? " on this rank" : "", network->image_size);
	return ST_OK;
}
