/* cuda_backend.c: training on one GPU with cuDNN, NCCL and our own kernels. This file holds the table, the memory and the batch.
 *
 * In: host arenas in torchvision's layout, uint8 images. Out: the same arenas, logits, counters. See cuda_backend.h for the layouts. */
#include "core/backend/cuda/cuda_backend.h"

#include "core/backend/batch.h"
#include "core/backend/cuda/check.h"
#include "core/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No single plan takes more; what exceeds it is another engine's work. */
#define WORKSPACE_BYTES_MAX ((size_t)256 << 20)
#define LOSS_SCALE_BEGIN 4096.0f

/* --- memory ----------------------------------------------------------------------------------------------------------- */

enum status device_alloc(struct backend_state *state, size_t count, size_t bytes, void **memory)
{
	size_t total, free_bytes = 0, all_bytes = 0;
	MUST(state->owned_count < OWNED_MAX);
	if (__builtin_mul_overflow(count, bytes, &total))
		total = SIZE_MAX;
	if (total == 0)
		total = 1;
	cudaError_t error = cudaMalloc(memory, total);
	if (error == cudaErrorMemoryAllocation) {
		(void)cudaGetLastError(); /* it is told here; a later call must not find it */
		(void)cudaMemGetInfo(&free_bytes, &all_bytes);
		return FAIL(ST_MEMORY, "%s: no device memory for %zu more bytes (%zu of %zu are free) with batches of %d images on it; a smaller batch_size takes less",
			state->device_name, total, free_bytes, all_bytes, state->config.batch_max);
	}
	CUDA_TRY(error);
	state->owned[state->owned_count++] = *memory;
	CUDA_TRY(cudaMemsetAsync(*memory, 0, total, state->stream));
	return ST_OK;
}

enum status cuda_sync(struct backend_state *state)
{
	if (state->communicator != NULL)
		return communicator_wait(state->communicator, state->stream);
	CUDA_TRY(cudaStreamSynchronize(state->stream));
	return ST_OK;
}

enum status device_write(struct backend_state *state, const void *from, size_t bytes, void *to)
{
	if (bytes == 0)
		return ST_OK;
	CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, state->stream));
	return cuda_sync(state);
}

enum status device_read(struct backend_state *state, const void *from, size_t bytes, void *to)
{
	if (bytes == 0)
		return ST_OK;
	/* First wait in the way that can fail: a copy behind a sum that never ends would not. */
	TRY(cuda_sync(state));
	CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, state->stream));
	return cuda_sync(state);
}

/* --- open ------------------------------------------------------------------------------------------------------------- */

static enum status config_check(const struct backend_config *config)
{
	if (config->batch_max < 1)
		return FAIL(ST_SETTINGS, "cuda backend: batch_max %d: must be at least 1", config->batch_max);
	if (config->training && !(config->norm_momentum > 0 && config->norm_momentum <= 1))
		return FAIL(ST_SETTINGS, "cuda backend: norm_momentum %g: must be above 0 and at most 1", config->norm_momentum);
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &config->network->units[u];
		if ((unit->x != 0 && unit->C % ALIGNMENT_FLOATS != 0) || unit->K % ALIGNMENT_FLOATS != 0)
			return FAIL(ST_SETTINGS, "cuda backend: %s has %d input and %d output channels: must be multiples of %d", unit->convolution, unit->C, unit->K,
				ALIGNMENT_FLOATS);
	}
	return ST_OK;
}

/* What is computed in, on this device. */
static enum status element_choose(struct backend_state *state)
{
	struct cudaDeviceProp properties;
	const enum precision precision = state->config.precision;
	CUDA_TRY(cudaGetDeviceProperties(&properties, state->config.device));
	snprintf(state->device_name, sizeof state->device_name, "GPU %d (%.48s)", state->config.device, properties.name);
	if ((precision == PRECISION_BF16 || precision == PRECISION_TF32) && properties.major < 8)
		return FAIL(ST_SETTINGS, "precision=%s: %s (sm_%d%d) has no such arithmetic, which came with sm_80; set fp16, fp32 or auto",
			precision == PRECISION_BF16 ? "bf16" : "tf32", state->device_name, properties.major, properties.minor);
	state->element = precision == PRECISION_FP32 || precision == PRECISION_TF32 ? ELEMENT_FP32 : precision == PRECISION_BF16 ? ELEMENT_BF16 : ELEMENT_FP16;
	state->loss_scaled = state->element == ELEMENT_FP16;
	state->weight_gradient = unit_weight_gradient(state->element, properties.major * 10 + properties.minor);
	return ST_OK;
}

static enum status streams_open(struct backend_state *state)
{
	int least, greatest;
	CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
	CUDA_TRY(cudaStreamCreateWithPriority(&state->stream, cudaStreamNonBlocking, least));
	/* Sums go first: what waits for them waits on all ranks. */
	CUDA_TRY(cudaStreamCreateWithPriority(&state->sums_stream, cudaStreamNonBlocking, greatest));
	CUDA_TRY(cudaEventCreateWithFlags(&state->gradients_ready, cudaEventDisableTiming));
	CUDA_TRY(cudaEventCreateWithFlags(&state->sums_done, cudaEventDisableTiming));
	for (int i = 0; i < GATHER_SLOTS; i++) {
		CUDA_TRY(cudaEventCreateWithFlags(&state->slot_free[i], cudaEventDisableTiming));
		CUDA_TRY(cudaMallocHost((void **)&state->samples_host[i], (size_t)state->config.batch_max * sizeof *state->samples));
	}
	return ST_OK;
}

#define ALLOC(count, pointer) TRY(device_alloc(state, (count), sizeof *(pointer), (void **)&(pointer)))
#define ALLOC_ELEMENTS(count, pointer) TRY(device_alloc(state, (count), element_bytes(state->element), &(pointer)))

static enum status arenas_alloc(struct backend_state *state)
{
	const struct backend_config *config = &state->config;
	const size_t buffers = config->layout->buffers_count;
	arena_lay_out(state);
	ALLOC(state->weights_count, state->weights);
	ALLOC(state->dead_count, state->dead_weights);
	ALLOC(buffers, state->buffers);
	if (state->element != ELEMENT_FP32)
		ALLOC_ELEMENTS(state->weights_count, state->half);
	if (config->ema) {
		ALLOC(state->weights_count, state->ema);
		ALLOC(state->dead_count, state->dead_ema);
		ALLOC(buffers, state->buffers_ema);
		if (state->element != ELEMENT_FP32)
			ALLOC_ELEMENTS(state->weights_count, state->half_ema);
	}
	ALLOC((size_t)1, state->control);
	const struct update_control control = {.loss_scale = state->loss_scaled ? LOSS_SCALE_BEGIN : 1, .step_scale = 1};
	TRY(device_write(state, &control, sizeof control, state->control));
	if (!config->training)
		return ST_OK;
	ALLOC(state->weights_count, state->momentum);
	ALLOC(state->dead_count, state->dead_momentum);
	ALLOC(state->weights_count, state->gradients);
	ALLOC(buffers, state->buffers_before);
	ALLOC((size_t)SQUARES_BLOCKS, state->squares);
	ALLOC((size_t)UPDATE_HISTORY_MAX_DEVICE, state->history_skipped);
	if (config->reduction != NULL) {
		ALLOC(buffers, state->buffers_shared);
		if (config->reduction->bf16)
			ALLOC(state->weights_count, state->gradients_rounded);
	}
	return arena_ranges(state);
}

static size_t size_max(size_t a, size_t b)
{
	return a > b ? a : b;
}

static enum status activations_alloc(struct backend_state *state)
{
	const struct network *network = state->config.network;
	const size_t batch = (size_t)state->config.batch_max;
	const bool training = state->config.training;
	size_t largest = 0, partials = 0, channels = 0, values;
	for (int t = 0; t < network->tensors_count; t++) {
		const struct tensor_shape *shape = &network->tensors[t];
		size_t C = (size_t)(t == 0 ? channels_padded(shape->C, state->element) : shape->C), count = batch * (size_t)(shape->H * shape->W) * C;
		largest = size_max(largest, count);
		ALLOC_ELEMENTS(count, state->y[t]);
		if (training && t != 0)
			ALLOC_ELEMENTS(count, state->dy[t]);
	}
	values = largest;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network->units[u];
		size_t K = (size_t)unit->K, pixels = batch * (size_t)(unit->P * unit->Q);
		channels = size_max(channels, K);
		values = size_max(values, unit_live_weights(state, u));
		for (int n = 1; n <= state->config.batch_max; n++)
			partials = size_max(partials, 2 * K * (size_t)norm_partial_rows((int64_t)n * unit->P * unit->Q, unit->K));
		ALLOC(4 * K, state->norm[u]);
		if (training || u == 0)
			ALLOC_ELEMENTS(pixels * K, state->z[u]);
	}
	/* Nothing reads a unit's z again when there is no backward half: one serves all. */
	for (int u = 1; u < RESNET_UNITS && !training; u++)
		state->z[u] = state->z[0];
	ALLOC(values, state->values);
	if (!training)
		return ST_OK;
	if (network->pool.present)
		ALLOC(batch * (size_t)(network->pool.P * network->pool.Q * network->pool.C), state->pool_tap);
	ALLOC_ELEMENTS(largest, state->dz);
	ALLOC_ELEMENTS(largest, state->dx);
	ALLOC(3 * channels, state->norm_backward);
	ALLOC(partials, state->partials);
	ALLOC(2 * channels, state->partials_shared);
	return ST_OK;
}

static enum status head_alloc(struct backend_state *state)
{
	const struct head *head = &state->config.network->head;
	const size_t batch = (size_t)state->config.batch_max;
	ALLOC(batch, state->samples);
	ALLOC(batch, state->targets);
	ALLOC(batch * (size_t)head->C, state->features);
	ALLOC(batch * (size_t)head->classes, state->logits);
	ALLOC(3 * batch, state->loss_rows);
	ALLOC((size_t)4, state->counters);
	ALLOC((size_t)4, state->counters_before);
	if (state->config.training)
		ALLOC(batch * (size_t)head->classes, state->dlogits);
	return ST_OK;
}

static enum status libraries_open(struct backend_state *state)
{
	const struct planner_config planner = {
		.stream = state->stream,
		.deterministic = state->config.deterministic,
		.tf32 = state->config.precision == PRECISION_TF32,
		.timing = true,
		.workspace_bytes_max = WORKSPACE_BYTES_MAX,
		.cache_directory = state->config.cache_directory,
	};
	TRY(kernels_load(&state->kernels));
	state->launch = (struct launcher){.kernels = state->kernels, .element = state->element, .stream = state->stream};
	TRY(planner_open(&planner, &state->planner));
	return state->config.reduction != NULL ? communicator_open(state->config.reduction, &state->communicator) : ST_OK;
}

static enum status state_open(struct backend_state *state)
{
	cuda_status_device(state->config.device);
	CUDA_TRY(cudaSetDevice(state->config.device));
	TRY(element_choose(state));
	TRY(streams_open(state));
	TRY(libraries_open(state));
	TRY(arenas_alloc(state));
	TRY(activations_alloc(state));
	TRY(head_alloc(state));
	return cuda_sync(state);
}

/* Errors are not looked at: it may be what failed that is being closed. */
static void cuda_close(struct backend_state *state)
{
	if (state == NULL)
		return;
	(void)cudaSetDevice(state->config.device);
	if (state->stream != NULL && state->communicator == NULL)
		(void)cudaStreamSynchronize(state->stream);
	passes_forget(state); /* before the communicator, whose sums they hold */
	communicator_close(state->communicator);
	plans_free(state);
	planner_close(state->planner);
	kernels_unload(state->kernels);
	for (size_t i = 0; i < state->owned_count; i++)
		(void)cudaFree(state->owned[i]);
	(void)cudaFree(state->workspace);
	for (int i = 0; i < GATHER_SLOTS; i++) {
		if (state->slot_free[i] != NULL)
			(void)cudaEventDestroy(state->slot_free[i]);
		if (state->samples_host[i] != NULL)
			(void)cudaFreeHost(state->samples_host[i]);
	}
	if (state->gradients_ready != NULL)
		(void)cudaEventDestroy(state->gradients_ready);
	if (state->sums_done != NULL)
		(void)cudaEventDestroy(state->sums_done);
	if (state->sums_stream != NULL)
		(void)cudaStreamDestroy(state->sums_stream);
	if (state->stream != NULL)
		(void)cudaStreamDestroy(state->stream);
	free(state);
}

static enum status cuda_open(const struct backend_config *config, struct backend_state **result)
{
	TRY(config_check(config));
	struct backend_state *state = calloc(1, sizeof *state);
	if (state == NULL)
		return FAIL(ST_MEMORY, "cuda backend: no memory");
	state->config = *config;
	enum status status = state_open(state);
	if (status != ST_OK) {
		cuda_close(state);
		return status;
	}
	*result = state;
	return ST_OK;
}

/* --- batch ------------------------------------------------------------------------------------------------------------ */

static enum status cuda_batch_begin(struct backend_state *state, int n, int total, bool training, enum which which)
{
	const size_t counters_bytes = 4 * sizeof *state->counters, buffers_bytes = state->config.layout->buffers_count * sizeof *state->buffers;
	TRY(batch_check(&state->config, n, total, training, which));
	passes_abandon(state);
	state->n = n;
	state->total = total;
	state->training = training;
	state->which = training ? WHICH_WEIGHTS : which;
	state->batches_tracked += training;
	TRY(plans_choose(state));
	if (state->which == WHICH_EMA && state->half_ema != NULL && state->half_ema_stale) {
		TRY(launch_from_float(&state->launch, &(struct convert){.from = state->ema, .to = state->half_ema, .count = (int64_t)state->weights_count}));
		state->half_ema_stale = false;
	}
	if (!training)
		return ST_OK;
	state->gradients_left = state->weights_count;
	CUDA_TRY(cudaMemcpyAsync(state->buffers_before, state->buffers, buffers_bytes, cudaMemcpyDeviceToDevice, state->stream));
	CUDA_TRY(cudaMemcpyAsync(state->counters_before, state->counters, counters_bytes, cudaMemcpyDeviceToDevice, state->stream));
	if (n == 0)
		CUDA_TRY(cudaMemsetAsync(state->gradients, 0, state->weights_count * sizeof *state->gradients, state->stream));
	return ST_OK;
}

static enum status cuda_batch_abandon(struct backend_state *state)
{
	const size_t counters_bytes = 4 * sizeof *state->counters, buffers_bytes = state->config.layout->buffers_count * sizeof *state->buffers;
	MUST(state->training && state->gradients_left == state->weights_count);
	passes_abandon(state);
	CUDA_TRY(cudaMemcpyAsync(state->buffers, state->buffers_before, buffers_bytes, cudaMemcpyDeviceToDevice, state->stream));
	CUDA_TRY(cudaMemcpyAsync(state->counters, state->counters_before, counters_bytes, cudaMemcpyDeviceToDevice, state->stream));
	state->batches_tracked--;
	return ST_OK;
}

static enum status cuda_counters_reset(struct backend_state *state)
{
	CUDA_TRY(cudaMemsetAsync(state->counters, 0, 4 * sizeof *state->counters, state->stream));
	return ST_OK;
}

static enum status cuda_counters_read(struct backend_state *state, struct counters *counters)
{
	double values[4];
	TRY(device_read(state, state->counters, sizeof values, values));
	*counters = (struct counters){values[0], values[1], values[2], values[3]};
	return ST_OK;
}

static enum status cuda_logits_read(struct backend_state *state, float *logits)
{
	return device_read(state, state->logits, (size_t)state->n * (size_t)state->config.network->head.classes * sizeof *logits, logits);
}

const struct backend smelt_backend_cuda = {
	.name = "cuda",
	.open = cuda_open,
	.close = cuda_close,
	.state_write = cuda_state_write,
	.snapshot = cuda_snapshot,
	.batch_begin = cuda_batch_begin,
	.batch_abandon = cuda_batch_abandon,
	.batch_gather = cuda_batch_gather,
	.pass_begin = cuda_pass_begin,
	.pass_end = cuda_pass_end,
	.unit_forward = cuda_unit_forward,
	.pool_forward = cuda_pool_forward,
	.head_forward = cuda_head_forward,
	.head_backward = cuda_head_backward,
	.unit_backward = cuda_unit_backward,
	.pool_backward = cuda_pool_backward,
	.reduce_start = cuda_reduce_start,
	.reduce_finish = cuda_reduce_finish,
	.gradient_norm_squared = cuda_gradient_norm_squared,
	.optimizer_step = cuda_optimizer_step,
	.counters_reset = cuda_counters_reset,
	.counters_read = cuda_counters_read,
	.logits_read = cuda_logits_read,
	.gradients_read = cuda_gradients_read,
	.tensor_read = cuda_tensor_read,
	.tensor_write = cuda_tensor_write,
	.sync = cuda_sync,
};
