/* pretrained.c: see pretrained.h. */
#include "train/pretrained.h"

#include "core/base/log.h"
#include "core/format/weights.h"
#include "core/model/state_dict.h"

#include <stdlib.h>

static bool is_wanted(const struct state_dict_match *match, const struct param *param)
{
	return match->head || param->unit >= 0;
}

/* Checks all numbers before it writes any. */
static enum status numbers_copy(const char *file, const struct state_dict_match *match, const struct params_layout *layout, struct params *params)
{
	size_t largest = 0;
	for (int i = 0; i < layout->count; i++)
		largest = layout->all[i].count > largest ? layout->all[i].count : largest;
	float *scratch = malloc(largest * sizeof *scratch);
	if (scratch == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for a tensor of %zu numbers", file, largest);
	enum status status = ST_OK;
	for (int i = 0; i < layout->count && status == ST_OK; i++) {
		const struct param *param = &layout->all[i];
		if (!is_wanted(match, param))
			continue;
		status = tensor_read_floats(match->views[i], scratch);
		status = status != ST_OK ? status_prefix(status, "%s", file) : state_dict_numbers_check(file, param, scratch);
	}
	free(scratch);
	for (int i = 0; i < layout->count && status == ST_OK; i++)
		if (is_wanted(match, &layout->all[i]))
			status = tensor_read_floats(match->views[i], params_data(params, &layout->all[i]));
	return status;
}

enum status pretrained_load(const char *path, const struct network *network, const struct params_layout *layout, struct params *params, bool *head_loaded)
{
	struct weights weights = {0};
	struct state_dict_match match;
	TRY(weights_open(path, &weights));
	enum status status = state_dict_match(weights.name, &weights.tensors, network, layout, &match);
	if (status == ST_OK)
		status = numbers_copy(weights.name, &match, layout, params);
	if (status == ST_OK) {
		params->batches_tracked = match.batches_tracked;
		if (!match.head)
			log_info("pretrained weights: the head in %s is for %lld classes, this run has %d: the head starts anew", weights.name,
				(long long)match.views[layout->head_bias]->shape[0], network->head.classes);
		*head_loaded = match.head;
	}
	weights_close(&weights);
	return status;
}
