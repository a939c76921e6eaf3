/* pretrained.c: see pretrained.h. */
#include "train/pretrained.h"

#include "core/base/log.h"
#include "core/format/weights.h"
#include "train/state_dict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct source {
	const char *name;
	const struct tensor_list *tensors;
	const struct network *network;
	const struct params_layout *layout;
	bool head; /* its head has our number of classes */
};

static bool is_head(const struct param *param)
{
	return param->unit < 0;
}

/* True if weight and bias of the file's head agree on another number of classes than ours, all else being equal. */
static bool head_is_for_other_classes(const struct source *source)
{
	const struct tensor_view *weight = tensor_list_find(source->tensors, source->layout->all[source->layout->head_weight].name);
	const struct tensor_view *bias = tensor_list_find(source->tensors, source->layout->all[source->layout->head_bias].name);
	return weight != NULL && bias != NULL && weight->rank == 2 && bias->rank == 1 && weight->shape[0] == bias->shape[0] &&
		weight->shape[1] == source->network->head.C && weight->shape[0] != source->network->head.classes;
}

/* Every tensor of the network is there with its shape. */
static enum status shapes_check(const struct source *source)
{
	for (int i = 0; i < source->layout->count; i++) {
		const struct param *param = &source->layout->all[i];
		const struct tensor_view *view = tensor_list_find(source->tensors, param->name);
		if (view == NULL)
			return FAIL(ST_DATA, "%s: tensor \"%s\" is missing; the file has %zu tensors and begins with \"%s\": not a resnet34 with torchvision's names",
				source->name, param->name, source->tensors->count, source->tensors->views[0].name);
		if (tensor_same_shape(view, param->rank, param->shape) || (is_head(param) && !source->head))
			continue;
		char found[200], wanted[200];
		tensor_shape_text(view->rank, view->shape, found, sizeof found);
		tensor_shape_text(param->rank, param->shape, wanted, sizeof wanted);
		bool other_stem = i == source->layout->unit[0].weight && view->rank == 4 && view->shape[2] == (source->network->stem == STEM_IMAGENET ? 3 : 7);
		return FAIL(ST_DATA, "%s: tensor \"%s\" has shape %s, this network needs %s%s%s", source->name, param->name, found, wanted,
			other_stem ? "; the file is for stem=" : "", !other_stem ? "" : stem_name(source->network->stem == STEM_IMAGENET ? STEM_CIFAR : STEM_IMAGENET));
	}
	return ST_OK;
}

/* Nothing is there that the network does not have. Sums up the counters: all norms of one file have counted the same batches. */
static enum status names_check(const struct source *source, int64_t *batches_tracked)
{
	for (size_t i = 0; i < source->tensors->count; i++) {
		const struct tensor_view *view = &source->tensors->views[i];
		bool known = params_find(source->layout, view->name) >= 0;
		for (int u = 0; u < RESNET_UNITS && !known; u++) {
			char name[sizeof((struct state_dict *)NULL)->counter_names[0]];
			state_dict_counter_name(&source->layout->all[source->layout->unit[u].running_var], name, sizeof name);
			known = strcmp(view->name, name) == 0;
			if (!known)
				continue;
			int64_t counter;
			enum status status = tensor_read_integer(view, &counter);
			if (status != ST_OK)
				return status_prefix(status, "%s", source->name);
			if (counter < 0)
				return FAIL(ST_DATA, "%s: tensor \"%s\" is %lld, expected a count of batches", source->name, view->name, (long long)counter);
			if (u == 0)
				*batches_tracked = counter;
		}
		if (!known)
			return FAIL(ST_DATA, "%s: tensor \"%s\" is not in this network (resnet34 with stem=%s)", source->name, view->name,
				stem_name(source->network->stem));
	}
	return ST_OK;
}

static bool is_wanted(const struct source *source, const struct param *param)
{
	return source->head || !is_head(param);
}

/* Every number is one that a network can have. `scratch` has room for the largest tensor. */
static enum status numbers_check(const struct source *source, float *scratch)
{
	for (int i = 0; i < source->layout->count; i++) {
		const struct param *param = &source->layout->all[i];
		if (!is_wanted(source, param))
			continue;
		enum status status = tensor_read_floats(tensor_list_find(source->tensors, param->name), scratch);
		if (status != ST_OK)
			return status_prefix(status, "%s", source->name);
		for (size_t k = 0; k < param->count; k++)
			if (!isfinite(scratch[k]) || (param->kind == PARAM_RUNNING_VAR && scratch[k] < 0))
				return FAIL(ST_DATA, "%s: tensor \"%s\" holds %g, expected %s", source->name, param->name, (double)scratch[k],
					isfinite(scratch[k]) ? "no negative variance" : "finite numbers");
	}
	return ST_OK;
}

static enum status source_copy(const struct source *source, struct params *params)
{
	int64_t batches_tracked = 0;
	size_t largest = 0;
	TRY(shapes_check(source));
	TRY(names_check(source, &batches_tracked));
	for (int i = 0; i < source->layout->count; i++)
		largest = source->layout->all[i].count > largest ? source->layout->all[i].count : largest;
	float *scratch = malloc(largest * sizeof *scratch);
	if (scratch == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for a tensor of %zu numbers", source->name, largest);
	enum status status = numbers_check(source, scratch);
	free(scratch);
	TRY(status);
	for (int i = 0; i < source->layout->count; i++) {
		const struct param *param = &source->layout->all[i];
		if (is_wanted(source, param))
			TRY(tensor_read_floats(tensor_list_find(source->tensors, param->name), params_data(params, param)));
	}
	params->batches_tracked = batches_tracked;
	return ST_OK;
}

enum status pretrained_load(const char *path, const struct network *network, const struct params_layout *layout, struct params *params, bool *head_loaded)
{
	struct weights weights = {0};
	TRY(weights_open(path, &weights));
	struct source source = {.name = weights.name, .tensors = &weights.tensors, .network = network, .layout = layout};
	source.head = !head_is_for_other_classes(&source);
	enum status status = source_copy(&source, params);
	if (status == ST_OK) {
		if (!source.head)
			log_info("pretrained weights: the head in %s is for %lld classes, this run has %d: the head starts anew", weights.name,
				(long long)tensor_list_find(&weights.tensors, layout->all[layout->head_bias].name)->shape[0], network->head.classes);
		*head_loaded = source.head;
	}
	weights_close(&weights);
	return status;
}
