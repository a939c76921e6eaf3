/* state_dict.c: see state_dict.h. */
#include "core/model/state_dict.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void state_dict_counter_name(const struct param *running_var, char *name, size_t bytes)
{
	const char *dot = strrchr(running_var->name, '.');
	MUST(dot != NULL);
	snprintf(name, bytes, "%.*s.num_batches_tracked", (int)(dot - running_var->name), running_var->name);
}

void state_dict_make(struct state_dict *state, const struct params_layout *layout, const struct params *params)
{
	int counters = 0;
	*state = (struct state_dict){.batches_tracked = params->batches_tracked};
	for (int i = 0; i < layout->count; i++) {
		const struct param *param = &layout->all[i];
		state->views[state->count++] = tensor_view_make(param->name, DTYPE_F32, param->rank, param->shape, params_data(params, param));
		if (param->kind != PARAM_RUNNING_VAR)
			continue;
		char *name = state->counter_names[counters++];
		state_dict_counter_name(param, name, sizeof state->counter_names[0]);
		state->views[state->count++] = tensor_view_make(name, DTYPE_I64, 0, NULL, &state->batches_tracked);
	}
}

/* --- reading -------------------------------------------------------------------------------------------------------- */

#define STEM_NAME "conv1.weight"
#define HEAD_NAME "fc.weight"

/* The kernel's size tells the stem. */
static bool stem_from_shape(const struct tensor_view *view, enum stem *stem)
{
	if (view->rank != 4 || view->shape[2] != view->shape[3] || (view->shape[2] != 3 && view->shape[2] != 7))
		return false;
	*stem = view->shape[2] == 7 ? STEM_IMAGENET : STEM_CIFAR;
	return true;
}

static enum status fail_missing(const char *file, const struct tensor_list *tensors, const char *name)
{
	return FAIL(ST_DATA, "%s: tensor \"%s\" is missing; the file has %zu tensors and begins with \"%s\": not a resnet34 with torchvision's names", file, name,
		tensors->count, tensors->views[0].name);
}

enum status state_dict_network(const char *file, const struct tensor_list *tensors, int image_size, struct network *network)
{
	const struct tensor_view *first = tensor_list_find(tensors, STEM_NAME), *head = tensor_list_find(tensors, HEAD_NAME);
	enum stem stem;
	char text[200];
	if (first == NULL || head == NULL)
		return fail_missing(file, tensors, first == NULL ? STEM_NAME : HEAD_NAME);
	if (!stem_from_shape(first, &stem)) {
		tensor_shape_text(first->rank, first->shape, text, sizeof text);
		return FAIL(ST_DATA, "%s: tensor \"" STEM_NAME "\" has shape %s, a resnet34's is [64, 3, 7, 7] or [64, 3, 3, 3]", file, text);
	}
	if (head->rank != 2 || head->shape[0] < 2 || head->shape[0] > RESNET_CLASSES_MAX) {
		tensor_shape_text(head->rank, head->shape, text, sizeof text);
		return FAIL(ST_DATA, "%s: tensor \"" HEAD_NAME "\" has shape %s, expected [classes, 512] with 2 to %d classes", file, text, RESNET_CLASSES_MAX);
	}
	return network_build(network, stem, image_size, (int)head->shape[0]);
}

static bool is_head(const struct param *param)
{
	return param->unit < 0;
}

/* True if weight and bias of the file's head agree on another number of classes than ours, all else being equal. */
static bool head_is_for_other_classes(const struct tensor_list *tensors, const struct network *network, const struct params_layout *layout)
{
	const struct tensor_view *weight = tensor_list_find(tensors, layout->all[layout->head_weight].name);
	const struct tensor_view *bias = tensor_list_find(tensors, layout->all[layout->head_bias].name);
	return weight != NULL && bias != NULL && weight->rank == 2 && bias->rank == 1 && weight->shape[0] == bias->shape[0] &&
		weight->shape[1] == network->head.C && weight->shape[0] != network->head.classes;
}

/* Every tensor of the network is there with its shape. */
static enum status shapes_check(const char *file, const struct tensor_list *tensors, const struct network *network, const struct params_layout *layout,
	struct state_dict_match *match)
{
	for (int i = 0; i < layout->count; i++) {
		const struct param *param = &layout->all[i];
		const struct tensor_view *view = tensor_list_find(tensors, param->name);
		if (view == NULL)
			return fail_missing(file, tensors, param->name);
		match->views[i] = view;
		if (tensor_same_shape(view, param->rank, param->shape) || (is_head(param) && !match->head))
			continue;
		char found[200], wanted[200];
		tensor_shape_text(view->rank, view->shape, found, sizeof found);
		tensor_shape_text(param->rank, param->shape, wanted, sizeof wanted);
		enum stem stem;
		bool other_stem = i == layout->unit[0].weight && stem_from_shape(view, &stem) && stem != network->stem;
		return FAIL(ST_DATA, "%s: tensor \"%s\" has shape %s, this network needs %s%s%s", file, param->name, found, wanted,
			other_stem ? "; the file is for stem=" : "", other_stem ? stem_name(stem) : "");
	}
	return ST_OK;
}

/* Nothing is there that the network does not have. All norms of one file have counted the same batches: the first's count is taken. */
static enum status names_check(const char *file, const struct tensor_list *tensors, const struct network *network, const struct params_layout *layout,
	struct state_dict_match *match)
{
	for (size_t i = 0; i < tensors->count; i++) {
		const struct tensor_view *view = &tensors->views[i];
		bool known = params_find(layout, view->name) >= 0;
		for (int u = 0; u < RESNET_UNITS && !known; u++) {
			char name[sizeof((struct state_dict *)NULL)->counter_names[0]];
			state_dict_counter_name(&layout->all[layout->unit[u].running_var], name, sizeof name);
			known = strcmp(view->name, name) == 0;
			if (!known)
				continue;
			int64_t counter;
			enum status status = tensor_read_integer(view, &counter);
			if (status != ST_OK)
				return status_prefix(status, "%s", file);
			if (counter < 0)
				return FAIL(ST_DATA, "%s: tensor \"%s\" is %lld, expected a count of batches", file, view->name, (long long)counter);
			if (u == 0)
				match->batches_tracked = counter;
		}
		if (!known)
			return FAIL(ST_DATA, "%s: tensor \"%s\" is not in this network (resnet34 with stem=%s)", file, view->name, stem_name(network->stem));
	}
	return ST_OK;
}

enum status state_dict_match(const char *file, const struct tensor_list *tensors, const struct network *network, const struct params_layout *layout,
	struct state_dict_match *match)
{
	struct state_dict_match found = {.head = !head_is_for_other_classes(tensors, network, layout)};
	TRY(shapes_check(file, tensors, network, layout, &found));
	TRY(names_check(file, tensors, network, layout, &found));
	*match = found;
	return ST_OK;
}

enum status state_dict_numbers_check(const char *file, const struct param *param, const float *numbers)
{
	bool no_negative = param->kind == PARAM_RUNNING_VAR;
	size_t wrong = 0; /* counted first: that needs no branch a number */
	for (size_t i = 0; i < param->count; i++)
		wrong += (size_t)(!isfinite(numbers[i])) + (size_t)(no_negative & (numbers[i] < 0));
	for (size_t i = 0; i < param->count && wrong > 0; i++)
		if (!isfinite(numbers[i]) || (no_negative && numbers[i] < 0))
			return FAIL(ST_DATA, "%s: tensor \"%s\" holds %g, expected %s", file, param->name, (double)numbers[i],
				isfinite(numbers[i]) ? "no negative variance" : "finite numbers");
	return ST_OK;
}
