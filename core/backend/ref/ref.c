/* ref.c: the definition of training compute: plain loops in double. This file holds the table, the memory and the batch.
 *
 * In: float arenas, uint8 images. Out: float arenas, logits, counters. The arithmetic is in ref_unit.c, ref_head.c and
 * ref_update.c; what an augmented image is, in augment.c. See ref.h for the layout. */
#include "core/backend/ref/ref.h"

#include "core/backend/augment.h"
#include "core/backend/batch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void fill(double *values, size_t count, double value)
{
	for (size_t i = 0; values != NULL && i < count; i++)
		values[i] = value;
}

/* count × bytes, zeroed, released by close; NULL when memory is short or the product does not fit. */
static void *own(struct backend_state *state, size_t count, size_t bytes)
{
	MUST((size_t)state->owned_count < sizeof state->owned / sizeof state->owned[0]);
	void *memory = calloc(count, bytes);
	state->owned[state->owned_count++] = memory;
	return memory;
}

static double *own_doubles(struct backend_state *state, size_t count)
{
	return own(state, count, sizeof(double));
}

static size_t tensor_doubles(const struct backend_state *state, int tensor)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	return (size_t)shape->C * (size_t)shape->H * (size_t)shape->W * state->lanes;
}

/* The largest of the units' outputs, kernels and channels: the work spaces. */
static void workspace_sizes(const struct backend_state *state, size_t *output, size_t *kernel, size_t *channels)
{
	*output = *kernel = *channels = 0;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &state->config.network->units[u];
		size_t outputs = tensor_doubles(state, unit->y), kernels = (size_t)unit->K * (size_t)(unit->C * unit->R * unit->S);
		*output = outputs > *output ? outputs : *output;
		*kernel = kernels > *kernel ? kernels : *kernel;
		*channels = (size_t)unit->K > *channels ? (size_t)unit->K : *channels;
	}
}

static void ref_close(struct backend_state *state)
{
	if (state == NULL)
		return;
	for (int i = 0; i < state->owned_count; i++)
		free(state->owned[i]);
	free(state);
}

static enum status ref_open(const struct backend_config *config, struct backend_state **result)
{
	const struct network *network = config->network;
	if (config->batch_max < 1)
		return FAIL(ST_SETTINGS, "batch of %d images: must be at least 1", config->batch_max);
	if (config->training && !(config->norm_momentum > 0 && config->norm_momentum <= 1))
		return FAIL(ST_SETTINGS, "norm_momentum %g: must be above 0 and at most 1", config->norm_momentum);
	struct backend_state *state = calloc(1, sizeof *state);
	if (state == NULL)
		return FAIL(ST_MEMORY, "ref: no memory");
	state->config = *config;
	size_t batch = (size_t)config->batch_max, size = (size_t)network->image_size, classes = (size_t)network->head.classes;
	size_t weights = config->layout->weights_count, buffers = config->layout->buffers_count, output, kernel, channels;
	state->lanes = (batch + LANE_BLOCK - 1) / LANE_BLOCK * LANE_BLOCK;
	workspace_sizes(state, &output, &kernel, &channels);

	state->weights = own_doubles(state, weights);
	state->buffers = own_doubles(state, buffers);
	if (config->training) {
		state->gradients = own_doubles(state, weights);
		state->momentum = own_doubles(state, weights);
		state->buffers_before = own_doubles(state, buffers);
		state->channel_sums = own_doubles(state, 2 * channels);
		state->convolution_gradient = own_doubles(state, output);
		state->weights_by_input = own_doubles(state, kernel);
		state->norms_squared = own_doubles(state, (size_t)config->layout->count);
	}
	if (config->ema) {
		state->ema_weights = own_doubles(state, weights);
		state->ema_buffers = own_doubles(state, buffers);
	}
	for (int t = 0; t < network->tensors_count; t++) {
		state->tensor[t] = own_doubles(state, tensor_doubles(state, t));
		if (config->training && t != 0)
			state->tensor_gradient[t] = own_doubles(state, tensor_doubles(state, t));
	}
	for (int u = 0; u < RESNET_UNITS; u++) {
		state->normalized[u] = own_doubles(state, tensor_doubles(state, network->units[u].y));
		state->inverse_deviation[u] = own_doubles(state, (size_t)network->units[u].K);
	}
	state->rendered = own(state, batch * 3 * size * size, sizeof *state->rendered);
	state->labels = own(state, batch, sizeof *state->labels);
	state->features = own_doubles(state, batch * (size_t)network->head.C);
	state->targets = own_doubles(state, batch * classes);
	state->logits = own_doubles(state, batch * classes);
	state->logits_gradient = own_doubles(state, batch * classes);
	state->losses = own_doubles(state, batch);
	for (int i = 0; i < state->owned_count; i++) {
		if (state->owned[i] == NULL) {
			ref_close(state);
			return FAIL(ST_MEMORY, "ref: no memory for batches of %d images; a smaller batch_size takes less", config->batch_max);
		}
	}
	*result = state;
	return ST_OK;
}

static void widen(double *to, const float *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		to[i] = (double)from[i];
}

/* Skips what the caller does not want. */
static void narrow(float *to, const double *from, size_t count)
{
	for (size_t i = 0; to != NULL && i < count; i++)
		to[i] = (float)from[i];
}

static enum status ref_state_write(struct backend_state *state, const struct training_state *from)
{
	size_t weights = state->config.layout->weights_count, buffers = state->config.layout->buffers_count;
	widen(state->weights, from->params.weights, weights);
	widen(state->buffers, from->params.buffers, buffers);
	state->batches_tracked = from->params.batches_tracked;
	if (state->config.training && from->momentum != NULL)
		widen(state->momentum, from->momentum, weights);
	else
		fill(state->momentum, weights, 0);
	if (state->config.ema) {
		const struct params *ema = from->ema.weights != NULL ? &from->ema : &from->params;
		widen(state->ema_weights, ema->weights, weights);
		widen(state->ema_buffers, ema->buffers, buffers);
	}
	return ST_OK;
}

static enum status ref_snapshot(struct backend_state *state, struct training_state *to)
{
	size_t weights = state->config.layout->weights_count, buffers = state->config.layout->buffers_count;
	MUST(to->momentum == NULL || state->config.training);
	MUST(to->ema.weights == NULL || state->config.ema);
	narrow(to->params.weights, state->weights, weights);
	narrow(to->params.buffers, state->buffers, buffers);
	narrow(to->momentum, state->momentum, weights);
	narrow(to->ema.weights, state->ema_weights, weights);
	narrow(to->ema.buffers, state->ema_buffers, buffers);
	to->params.batches_tracked = to->ema.batches_tracked = state->batches_tracked;
	return ST_OK;
}

static enum status ref_batch_begin(struct backend_state *state, int n, int total, bool training, enum which which)
{
	const struct network *network = state->config.network;
	TRY(batch_check(&state->config, n, total, training, which));
	state->n = (size_t)n;
	state->total = (size_t)total;
	state->blocks = ((size_t)n + LANE_BLOCK - 1) / LANE_BLOCK;
	state->training = training;
	state->weights_used = which == WHICH_EMA ? state->ema_weights : state->weights;
	state->buffers_used = which == WHICH_EMA ? state->ema_buffers : state->buffers;
	state->batches_tracked += training;
	if (training) {
		memcpy(state->buffers_before, state->buffers, state->config.layout->buffers_count * sizeof *state->buffers);
		state->counters_before = state->counters;
	}

	for (int t = 0; t < network->tensors_count; t++) {
		fill(state->tensor[t], tensor_doubles(state, t), (double)NAN);
		fill(state->tensor_gradient[t], tensor_doubles(state, t), (double)NAN);
	}
	fill(state->logits, state->n * (size_t)network->head.classes, (double)NAN);
	if (training)
		fill(state->gradients, state->config.layout->weights_count, (double)NAN);
	return ST_OK;
}

struct gather {
	struct backend_state *state;
	const struct images *images;
	const struct sample *samples;
	double label_smoothing;
};

static void target_add(double *targets, size_t classes, size_t label, double weight, double smoothing)
{
	MUST(label < classes);
	for (size_t j = 0; j < classes; j++)
		targets[j] += weight * smoothing / (double)classes;
	targets[label] += weight * (1 - smoothing);
}

static void gather_image(void *context, size_t n)
{
	struct gather *gather = context;
	struct backend_state *state = gather->state;
	const struct sample *sample = &gather->samples[n];
	size_t pixels = 3 * (size_t)gather->images->size * (size_t)gather->images->size, classes = (size_t)state->config.network->head.classes;
	float *rendered = state->rendered + n * pixels;
	sample_render(gather->images, sample, &state->config.normalization, state->config.padding, rendered);
	for (size_t i = 0; i < pixels; i++)
		state->tensor[0][i * state->lanes + n] = (double)rendered[i];

	double weight = (double)sample->weight, *targets = state->targets + n * classes;
	state->labels[n] = gather->images->labels[sample->image.index];
	fill(targets, classes, 0);
	target_add(targets, classes, state->labels[n], weight, gather->label_smoothing);
	if (sample->weight != 1.0f)
		target_add(targets, classes, gather->images->labels[sample->partner.index], 1 - weight, gather->label_smoothing);
}

static enum status ref_batch_gather(struct backend_state *state, const struct images *images, const struct sample *samples, float label_smoothing)
{
	struct gather gather = {state, images, samples, (double)label_smoothing};
	MUST(images->size == state->config.network->image_size);
	fill(state->tensor[0], tensor_doubles(state, 0), 0); /* unused lanes are zero */
	threads_run(state->config.threads, gather_image, &gather, state->n);
	return ST_OK;
}

static enum status ref_batch_abandon(struct backend_state *state)
{
	MUST(state->training);
	memcpy(state->buffers, state->buffers_before, state->config.layout->buffers_count * sizeof *state->buffers);
	state->counters = state->counters_before;
	state->batches_tracked--;
	return ST_OK;
}

static enum status ref_counters_reset(struct backend_state *state)
{
	state->counters = (struct counters){0};
	return ST_OK;
}

static enum status ref_counters_read(struct backend_state *state, struct counters *counters)
{
	*counters = state->counters;
	return ST_OK;
}

static enum status ref_logits_read(struct backend_state *state, float *logits)
{
	narrow(logits, state->logits, state->n * (size_t)state->config.network->head.classes);
	return ST_OK;
}

static enum status ref_gradients_read(struct backend_state *state, float *gradients)
{
	narrow(gradients, state->gradients, state->config.layout->weights_count);
	return ST_OK;
}

static enum status ref_tensor_read(struct backend_state *state, int tensor, bool gradient, float *values)
{
	const double *from = gradient ? state->tensor_gradient[tensor] : state->tensor[tensor];
	MUST(from != NULL);
	size_t pixels = tensor_doubles(state, tensor) / state->lanes;
	for (size_t n = 0; n < state->n; n++)
		for (size_t i = 0; i < pixels; i++)
			values[n * pixels + i] = (float)from[i * state->lanes + n];
	return ST_OK;
}

static enum status ref_sync(struct backend_state *state)
{
	(void)state; /* every call has done its work when it returns */
	return ST_OK;
}

const struct backend backend_ref = {
	.name = "ref",
	.open = ref_open,
	.close = ref_close,
	.state_write = ref_state_write,
	.snapshot = ref_snapshot,
	.batch_begin = ref_batch_begin,
	.batch_abandon = ref_batch_abandon,
	.batch_gather = ref_batch_gather,
	.unit_forward = ref_unit_forward,
	.pool_forward = ref_pool_forward,
	.head_forward = ref_head_forward,
	.head_backward = ref_head_backward,
	.unit_backward = ref_unit_backward,
	.pool_backward = ref_pool_backward,
	.reduce_start = ref_reduce_start,
	.reduce_finish = ref_reduce_finish,
	.gradient_norm_squared = ref_gradient_norm_squared,
	.optimizer_step = ref_optimizer_step,
	.counters_reset = ref_counters_reset,
	.counters_read = ref_counters_read,
	.logits_read = ref_logits_read,
	.gradients_read = ref_gradients_read,
	.tensor_read = ref_tensor_read,
	.sync = ref_sync,
};
