/* cpu_backend.c: fast training on a CPU in fp32. This file holds the table, the memory and the batch.
 *
 * In: host arenas in torchvision's layout, uint8 images. Out: the same arenas, logits, counters. See cpu_backend.h for the layouts. */
#define _DEFAULT_SOURCE /* madvise */
#include "core/backend/batch.h"
#include "core/backend/cpu/cpu_backend.h"

#include "core/base/cpu.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Memory is aligned to this, and has it behind the last float (reading ahead stays inside: PRODUCT_ROWS_SLACK). */
enum { ALIGNMENT = 64 };
#define HUGE_PAGE ((size_t)2 << 20)

/* count elements, zeroed, aligned, released by close; NULL when memory is short. */
static void *own(struct backend_state *state, size_t count, size_t bytes)
{
	MUST(state->owned_count < sizeof state->owned / sizeof state->owned[0]);
	size_t total;
	if (__builtin_mul_overflow(count, bytes, &total) || __builtin_add_overflow(total, HUGE_PAGE, &total))
		total = SIZE_MAX / 2;
	/* calloc leaves pages untouched until they are used: a batch smaller than batch_max costs what it uses. */
	char *memory = calloc(1, total);
	state->owned[state->owned_count++] = memory;
	if (memory == NULL)
		return NULL;
	char *aligned = memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT;
	if (total >= 2 * HUGE_PAGE) {
		/* Large pages spare the address translation; a refusal only costs that. */
		aligned = memory + (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE;
		(void)madvise(aligned, (total - HUGE_PAGE) / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
	}
	return aligned;
}

static float *own_floats(struct backend_state *state, size_t count)
{
	return own(state, count + ALIGNMENT / sizeof(float), sizeof(float));
}

static void cpu_close(struct backend_state *state)
{
	if (state == NULL)
		return;
	for (size_t i = 0; i < state->owned_count; i++)
		free(state->owned[i]);
	free(state);
}

static enum status config_check(const struct backend_config *config)
{
	const struct network *network = config->network;
	if (config->batch_max < 1)
		return FAIL(ST_SETTINGS, "cpu backend: batch_max %d: must be at least 1", config->batch_max);
	if (config->training && !(config->norm_momentum > 0 && config->norm_momentum <= 1))
		return FAIL(ST_SETTINGS, "cpu backend: norm_momentum %g: must be above 0 and at most 1", config->norm_momentum);
	if (config->threads == NULL)
		return FAIL(ST_SETTINGS, "cpu backend: needs a thread pool");
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network->units[u];
		if (unit->x == 0 ? unit->C != IMAGE_CHANNELS : unit->C % TILE_CHANNELS != 0)
			return FAIL(ST_SETTINGS, "cpu backend: %s has %d input channels: must be a multiple of %d, or 3 for the image", unit->convolution,
				unit->C, TILE_CHANNELS);
		if (unit->K % TILE_CHANNELS != 0)
			return FAIL(ST_SETTINGS, "cpu backend: %s has %d output channels: must be a multiple of %d", unit->convolution, unit->K, TILE_CHANNELS);
		if (unit->R > KERNEL_SIZE_MAX || unit->S > KERNEL_SIZE_MAX || (unit->x == 0 && unit->S * IMAGE_CHANNELS > TILE_CHANNELS))
			return FAIL(ST_SETTINGS, "cpu backend: %s has a %dx%d kernel: at most %d a side, %d on the image", unit->convolution, unit->R, unit->S,
				KERNEL_SIZE_MAX, TILE_CHANNELS / IMAGE_CHANNELS);
		if (unit->x == 0 && unit->padding != network->units[0].padding)
			return FAIL(ST_SETTINGS, "cpu backend: %s pads the image by %d, %s by %d: must be the same", unit->convolution, unit->padding,
				network->units[0].convolution, network->units[0].padding);
	}
	return ST_OK;
}

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

static void activations_alloc(struct backend_state *state)
{
	const struct network *network = state->config.network;
	size_t blocks = state->blocks_max, size = (size_t)network->image_size, partials = 0, kernel = 0, channels = 0;
	state->image_padding = (size_t)network->units[0].padding;
	state->image_row = (size + 2 * state->image_padding) * IMAGE_CHANNELS;
	state->y[0] = own_floats(state, blocks * size * TILE_IMAGES * state->image_row);
	for (int t = 1; t < network->tensors_count; t++) {
		state->y[t] = own_floats(state, blocks * tensor_block_floats(&network->tensors[t]));
		if (state->config.training)
			state->dy[t] = own_floats(state, blocks * tensor_block_floats(&network->tensors[t]));
	}
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network->units[u];
		size_t K = (size_t)unit->K;
		partials = max_size(partials, blocks * (size_t)unit->P * 2 * K);
		kernel = max_size(kernel, K * (size_t)(unit->C * unit->R * unit->S));
		channels = max_size(channels, K);
		if (state->config.training) {
			state->z[u] = own_floats(state, blocks * tensor_block_floats(&network->tensors[unit->y]));
			state->norm[u] = own_floats(state, 2 * K);
		}
	}
	if (network->pool.present)
		state->pool_tap = own(state, blocks * tensor_block_floats(&network->tensors[network->pool.y]), sizeof *state->pool_tap);
	state->constants = own_floats(state, 4 * channels);
	if (state->config.training) {
		state->partials = own(state, partials, sizeof *state->partials);
		state->transposed = own_floats(state, kernel);
	}
}

static void head_alloc(struct backend_state *state)
{
	const struct head *head = &state->config.network->head;
	size_t batch = (size_t)state->config.batch_max, C = (size_t)head->C, classes = (size_t)head->classes;
	state->targets = own(state, batch, sizeof *state->targets);
	state->features = own_floats(state, batch * C);
	state->logits = own_floats(state, batch * classes);
	state->losses = own(state, batch, sizeof *state->losses);
	state->ranks = own(state, batch, sizeof *state->ranks);
	if (state->config.training) {
		state->features_gradient = own_floats(state, batch * C);
		state->logits_gradient = own_floats(state, batch * classes);
	}
}

static enum status cpu_open(const struct backend_config *config, struct backend_state **result)
{
	TRY(config_check(config));
	enum cpu cpu;
	TRY(cpu_choose(&cpu));
	struct backend_state *state = calloc(1, sizeof *state);
	if (state == NULL)
		return FAIL(ST_MEMORY, "cpu backend: no memory");
	state->config = *config;
	state->kernels = kernels_find(cpu);
	state->blocks_max = ((size_t)config->batch_max + TILE_IMAGES - 1) / TILE_IMAGES;
	size_t weights = config->layout->weights_count, buffers = config->layout->buffers_count;
	state->weights = own_floats(state, weights);
	state->buffers = own_floats(state, buffers);
	if (config->training) {
		state->gradients_count = gradients_lay_out(config, state->gradient_at);
		state->gradients = own_floats(state, state->gradients_count);
		state->momentum = own_floats(state, weights);
		state->buffers_before = own_floats(state, buffers);
		if (config->reduction != NULL)
			state->buffers_shared = own(state, buffers, sizeof *state->buffers_shared);
		state->ranges_count = ranges_build(state, NULL);
		state->ranges = own(state, state->ranges_count, sizeof *state->ranges);
		state->squares = own(state, state->ranges_count, sizeof *state->squares);
	}
	if (config->ema) {
		state->ema_weights = own_floats(state, weights);
		state->ema_buffers = own_floats(state, buffers);
	}
	activations_alloc(state);
	head_alloc(state);
	state->gather_tasks = 4 * threads_count(config->threads);
	state->rendered = own_floats(state, state->gather_tasks * IMAGE_CHANNELS * (size_t)config->network->image_size * (size_t)config->network->image_size);
	for (size_t i = 0; i < state->owned_count; i++)
		if (state->owned[i] == NULL) {
			cpu_close(state);
			return FAIL(ST_MEMORY, "cpu backend: no memory for batches of %d images; a smaller batch_size takes less", config->batch_max);
		}
	if (config->training)
		ranges_build(state, state->ranges);
	*result = state;
	return ST_OK;
}

/* --- state ---------------------------------------------------------------------------------------------------------- */

static enum status cpu_state_write(struct backend_state *state, const struct training_state *from)
{
	size_t weights = state->config.layout->weights_count, buffers = state->config.layout->buffers_count;
	state->history_count = 0;
	arena_pack(state, from->params.weights, state->weights);
	memcpy(state->buffers, from->params.buffers, buffers * sizeof *state->buffers);
	state->batches_tracked = from->params.batches_tracked;
	if (state->momentum != NULL && from->momentum != NULL)
		arena_pack(state, from->momentum, state->momentum);
	else if (state->momentum != NULL)
		memset(state->momentum, 0, weights * sizeof *state->momentum);
	if (state->config.ema) {
		const struct params *ema = from->ema.weights != NULL ? &from->ema : &from->params;
		arena_pack(state, ema->weights, state->ema_weights);
		memcpy(state->ema_buffers, ema->buffers, buffers * sizeof *state->ema_buffers);
	}
	return ST_OK;
}

static enum status cpu_snapshot(struct backend_state *state, struct training_state *to)
{
	size_t buffers_bytes = state->config.layout->buffers_count * sizeof(float);
	MUST(to->momentum == NULL || state->config.training);
	MUST(to->ema.weights == NULL || state->config.ema);
	updates_finish(state);
	if (to->params.weights != NULL)
		arena_unpack(state, state->weights, to->params.weights);
	if (to->params.buffers != NULL)
		memcpy(to->params.buffers, state->buffers, buffers_bytes);
	if (to->momentum != NULL)
		arena_unpack(state, state->momentum, to->momentum);
	if (to->ema.weights != NULL)
		arena_unpack(state, state->ema_weights, to->ema.weights);
	if (to->ema.buffers != NULL)
		memcpy(to->ema.buffers, state->ema_buffers, buffers_bytes);
	to->params.batches_tracked = to->ema.batches_tracked = state->batches_tracked;
	return ST_OK;
}

/* --- batch ---------------------------------------------------------------------------------------------------------- */

static enum status cpu_batch_begin(struct backend_state *state, int n, int total, bool training, enum which which)
{
	TRY(batch_check(&state->config, n, total, training, which));
	state->n = (size_t)n;
	state->total = (size_t)total;
	state->blocks = (state->n + TILE_IMAGES - 1) / TILE_IMAGES;
	state->training = training;
	state->weights_used = which == WHICH_EMA ? state->ema_weights : state->weights;
	state->buffers_used = which == WHICH_EMA ? state->ema_buffers : state->buffers;
	state->batches_tracked += training;
	if (training) {
		memcpy(state->buffers_before, state->buffers, state->config.layout->buffers_count * sizeof *state->buffers);
		state->counters_before = state->counters;
		state->gradients_left = state->gradients_count;
	}
	return ST_OK;
}

static enum status cpu_batch_abandon(struct backend_state *state)
{
	MUST(state->training && state->gradients_left == state->gradients_count);
	memcpy(state->buffers, state->buffers_before, state->config.layout->buffers_count * sizeof *state->buffers);
	state->counters = state->counters_before;
	state->batches_tracked--;
	return ST_OK;
}

static enum status cpu_counters_reset(struct backend_state *state)
{
	state->counters = (struct counters){0};
	return ST_OK;
}

static enum status cpu_counters_read(struct backend_state *state, struct counters *counters)
{
	*counters = state->counters;
	return ST_OK;
}

static enum status cpu_logits_read(struct backend_state *state, float *logits)
{
	memcpy(logits, state->logits, state->n * (size_t)state->config.network->head.classes * sizeof *logits);
	return ST_OK;
}

static enum status cpu_gradients_read(struct backend_state *state, float *gradients)
{
	MUST(state->config.training);
	gradients_unpack(state, gradients);
	return ST_OK;
}

static enum status cpu_tensor_read(struct backend_state *state, int tensor, bool gradient, float *values)
{
	const float *from = gradient ? state->dy[tensor] : state->y[tensor];
	MUST(from != NULL);
	tensor_unpack(state, tensor, from, values);
	return ST_OK;
}

static enum status cpu_sync(struct backend_state *state)
{
	(void)state; /* every call has done its work when it returns */
	return ST_OK;
}

const struct backend backend_cpu = {
	.name = "cpu",
	.open = cpu_open,
	.close = cpu_close,
	.state_write = cpu_state_write,
	.snapshot = cpu_snapshot,
	.batch_begin = cpu_batch_begin,
	.batch_abandon = cpu_batch_abandon,
	.batch_gather = cpu_batch_gather,
	.unit_forward = cpu_unit_forward,
	.pool_forward = cpu_pool_forward,
	.head_forward = cpu_head_forward,
	.head_backward = cpu_head_backward,
	.unit_backward = cpu_unit_backward,
	.pool_backward = cpu_pool_backward,
	.reduce_start = cpu_reduce_start,
	.reduce_finish = cpu_reduce_finish,
	.gradient_norm_squared = cpu_gradient_norm_squared,
	.optimizer_step = cpu_optimizer_step,
	.counters_reset = cpu_counters_reset,
	.counters_read = cpu_counters_read,
	.logits_read = cpu_logits_read,
	.gradients_read = cpu_gradients_read,
	.tensor_read = cpu_tensor_read,
	.sync = cpu_sync,
};
