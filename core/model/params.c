/* params.c: see params.h. */
#include "core/model/params.h"

#include "core/base/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Appends a tensor called prefix + suffix and returns its index in layout->all. */
static int param_add(struct params_layout *layout, enum param_kind kind, int unit, const char *prefix, const char *suffix, int rank, const int64_t *shape)
{
	struct param *param = &layout->all[layout->count];
	*param = (struct param){.kind = kind, .unit = unit, .rank = rank, .count = 1};
	snprintf(param->name, sizeof param->name, "%s%s", prefix, suffix);
	for (int i = 0; i < rank; i++) {
		param->shape[i] = shape[i];
		param->count *= (size_t)shape[i];
	}
	return layout->count++;
}

/* Gives `param` the next place of its arena. */
static void param_place(struct params_layout *layout, int index)
{
	struct param *param = &layout->all[index];
	size_t *end = param_is_buffer(param) ? &layout->buffers_count : &layout->weights_count;
	param->offset = *end;
	*end += param->count;
}

void params_layout_build(struct params_layout *layout, const struct network *network)
{
	*layout = (struct params_layout){0};
	/* The list is in torchvision's order … */
	for (int rank = 0; rank < RESNET_UNITS; rank++) {
		int u = 0;
		while (network->units[u].file_rank != rank)
			u++;
		const struct unit *unit = &network->units[u];
		const int64_t kernel[4] = {unit->K, unit->C, unit->R, unit->S}, channels[1] = {unit->K};
		layout->unit[u].weight = param_add(layout, PARAM_CONVOLUTION, u, unit->convolution, ".weight", 4, kernel);
		layout->unit[u].gamma = param_add(layout, PARAM_NORM_WEIGHT, u, unit->norm, ".weight", 1, channels);
		layout->unit[u].beta = param_add(layout, PARAM_NORM_BIAS, u, unit->norm, ".bias", 1, channels);
		layout->unit[u].running_mean = param_add(layout, PARAM_RUNNING_MEAN, u, unit->norm, ".running_mean", 1, channels);
		layout->unit[u].running_var = param_add(layout, PARAM_RUNNING_VAR, u, unit->norm, ".running_var", 1, channels);
	}
	const int64_t matrix[2] = {network->head.classes, network->head.C}, classes[1] = {network->head.classes};
	layout->head_weight = param_add(layout, PARAM_HEAD_WEIGHT, -1, "fc", ".weight", 2, matrix);
	layout->head_bias = param_add(layout, PARAM_HEAD_BIAS, -1, "fc", ".bias", 1, classes);
	/* … and the arenas are in the order of execution. */
	for (int u = 0; u < RESNET_UNITS; u++) {
		param_place(layout, layout->unit[u].weight);
		param_place(layout, layout->unit[u].gamma);
		param_place(layout, layout->unit[u].beta);
		param_place(layout, layout->unit[u].running_mean);
		param_place(layout, layout->unit[u].running_var);
	}
	param_place(layout, layout->head_weight);
	param_place(layout, layout->head_bias);
}

enum status params_alloc(struct params *params, const struct params_layout *layout)
{
	float *weights = calloc(layout->weights_count, sizeof *weights), *buffers = calloc(layout->buffers_count, sizeof *buffers);
	if (weights == NULL || buffers == NULL) {
		free(weights);
		free(buffers);
		return FAIL(ST_MEMORY, "no memory for %zu parameters", layout->weights_count + layout->buffers_count);
	}
	*params = (struct params){.weights = weights, .buffers = buffers};
	return ST_OK;
}

void params_free(struct params *params)
{
	free(params->weights);
	free(params->buffers);
	*params = (struct params){0};
}

float *params_data(const struct params *params, const struct param *param)
{
	return (param_is_buffer(param) ? params->buffers : params->weights) + param->offset;
}

int params_find(const struct params_layout *layout, const char *name)
{
	for (int i = 0; i < layout->count; i++)
		if (strcmp(layout->all[i].name, name) == 0)
			return i;
	return -1;
}

static void fill(float *data, size_t count, float value)
{
	for (size_t i = 0; i < count; i++)
		data[i] = value;
}

void params_init_head(struct params *params, const struct network *network, const struct params_layout *layout, uint64_t seed)
{
	double bound = 1 / sqrt((double)network->head.C);
	const int heads[2] = {layout->head_weight, layout->head_bias};
	for (int h = 0; h < 2; h++) {
		const struct param *param = &layout->all[heads[h]];
		float *data = params_data(params, param);
		for (size_t i = 0; i < param->count; i++) {
			struct random_stream stream = random_open(seed, RANDOM_INIT, (uint32_t)heads[h], i);
			data[i] = (float)((2 * random_unit(&stream) - 1) * bound);
		}
	}
}

void params_init(struct params *params, const struct network *network, const struct params_layout *layout, uint64_t seed, bool zero_gamma)
{
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network->units[u];
		const struct param *weight = &layout->all[layout->unit[u].weight];
		double deviation = sqrt(2.0 / ((double)unit->K * unit->R * unit->S));
		float *data = params_data(params, weight);
		for (size_t i = 0; i < weight->count; i += 2) { /* counts are even: K is */
			struct random_stream stream = random_open(seed, RANDOM_INIT, (uint32_t)layout->unit[u].weight, i);
			double pair[2];
			random_normal_pair(&stream, pair);
			data[i] = (float)(pair[0] * deviation);
			data[i + 1] = (float)(pair[1] * deviation);
		}
		bool last_of_block = unit->shortcut >= 0;
		const struct param *gamma = &layout->all[layout->unit[u].gamma], *beta = &layout->all[layout->unit[u].beta];
		const struct param *mean = &layout->all[layout->unit[u].running_mean], *var = &layout->all[layout->unit[u].running_var];
		fill(params_data(params, gamma), gamma->count, zero_gamma && last_of_block ? 0.0f : 1.0f);
		fill(params_data(params, beta), beta->count, 0.0f);
		fill(params_data(params, mean), mean->count, 0.0f);
		fill(params_data(params, var), var->count, 1.0f);
	}
	params_init_head(params, network, layout, seed);
	params->batches_tracked = 0;
}
