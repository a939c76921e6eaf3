/* cpu_head.c: the stem's max-pool, and the head with its loss.
 *
 * In: a tensor and, for the head, the batch's targets. Out: the pooled tensor; logits, losses, counters; backwards, the gradients. */
#include "core/backend/cpu/cpu_backend.h"

#include <math.h>
#include <string.h>

enum { POOL_SIZE = 3, POOL_STRIDE = 2, POOL_PADDING = 1, TOP_COUNT = 5 };

/* --- stem pool ------------------------------------------------------------------------------------------------------ */

struct pool_work {
	struct backend_state *state;
	bool accumulate;
};

/* Row (block, p) of the pooled tensor. */
static void pool_task(void *context, size_t row)
{
	const struct backend_state *state = ((const struct pool_work *)context)->state;
	const struct stem_pool *pool = &state->config.network->pool;
	struct tensor_shape input = {pool->C, pool->H, pool->W}, output = {pool->C, pool->P, pool->Q};
	size_t block = row / (size_t)pool->P;
	int p = (int)(row % (size_t)pool->P);
	for (int q = 0; q < pool->Q; q++) {
		size_t window[POOL_SIZE * POOL_SIZE], count = 0;
		int32_t tap[POOL_SIZE * POOL_SIZE];
		for (int r = 0; r < POOL_SIZE; r++)
			for (int s = 0; s < POOL_SIZE; s++) {
				int h = p * POOL_STRIDE - POOL_PADDING + r, w = q * POOL_STRIDE - POOL_PADDING + s;
				if (h < 0 || h >= pool->H || w < 0 || w >= pool->W)
					continue;
				window[count] = pixel_offset(&input, block, (size_t)h, (size_t)w);
				tap[count++] = r * POOL_SIZE + s;
			}
		size_t to = pixel_offset(&output, block, (size_t)p, (size_t)q);
		for (size_t at = 0; at < (size_t)pool->C * TILE_IMAGES; at += TILE_FLOATS) {
			const float *x[POOL_SIZE * POOL_SIZE];
			for (size_t i = 0; i < count; i++)
				x[i] = state->y[pool->x] + window[i] + at;
			state->kernels->maximum(x, tap, count, block_rows(state, block), state->y[pool->y] + to + at, state->pool_tap + to + at);
		}
	}
}

enum status cpu_pool_forward(struct backend_state *state)
{
	MUST(state->config.network->pool.present);
	struct pool_work work = {.state = state};
	threads_run(state->config.threads, pool_task, &work, state->blocks * (size_t)state->config.network->pool.P);
	return ST_OK;
}

/* Row (block, h) of the input's gradient: what each window that holds the pixel gives back, in the windows' order. */
static void pool_backward_task(void *context, size_t row)
{
	const struct pool_work *work = context;
	const struct backend_state *state = work->state;
	const struct stem_pool *pool = &state->config.network->pool;
	struct tensor_shape input = {pool->C, pool->H, pool->W}, output = {pool->C, pool->P, pool->Q};
	size_t block = row / (size_t)pool->H, rows = block_rows(state, block), floats = (size_t)pool->C * TILE_IMAGES;
	int h = (int)(row % (size_t)pool->H);
	for (int w = 0; w < pool->W; w++) {
		float *dx = state->dy[pool->x] + pixel_offset(&input, block, (size_t)h, (size_t)w);
		if (!work->accumulate)
			memset(dx, 0, floats * sizeof *dx);
		for (int r = POOL_SIZE - 1; r >= 0; r--)
			for (int s = POOL_SIZE - 1; s >= 0; s--) {
				int p = h + POOL_PADDING - r, q = w + POOL_PADDING - s;
				if (p < 0 || p % POOL_STRIDE != 0 || p / POOL_STRIDE >= pool->P || q < 0 || q % POOL_STRIDE != 0 || q / POOL_STRIDE >= pool->Q)
					continue;
				size_t from = pixel_offset(&output, block, (size_t)(p / POOL_STRIDE), (size_t)(q / POOL_STRIDE));
				for (size_t at = 0; at < floats; at += TILE_FLOATS)
					state->kernels->maximum_backward(state->dy[pool->y] + from + at, state->pool_tap + from + at, r * POOL_SIZE + s, rows, dx + at);
			}
	}
}

enum status cpu_pool_backward(struct backend_state *state, bool accumulate)
{
	MUST(state->training && state->config.network->pool.present);
	struct pool_work work = {state, accumulate};
	threads_run(state->config.threads, pool_backward_task, &work, state->blocks * (size_t)state->config.network->pool.H);
	return ST_OK;
}

/* --- head ----------------------------------------------------------------------------------------------------------- */

/* How image n's features lie in the head's tensor: a run of 32 floats every TILE_FLOATS, a pixel every C·32. */
static size_t image_offset(const struct backend_state *state, size_t n)
{
	const struct head *head = &state->config.network->head;
	struct tensor_shape shape = {head->C, head->H, head->W};
	return pixel_offset(&shape, n / TILE_IMAGES, 0, 0) + n % TILE_IMAGES * TILE_CHANNELS;
}

static void features_average(const struct backend_state *state, size_t n, float *features)
{
	const struct head *head = &state->config.network->head;
	size_t C = (size_t)head->C, pixels = (size_t)(head->H * head->W);
	const float *x = state->y[head->x] + image_offset(state, n);
	for (size_t c = 0; c < C; c += TILE_CHANNELS) {
		float sum[TILE_CHANNELS] = {0};
		for (size_t i = 0; i < pixels; i++)
			for (size_t k = 0; k < TILE_CHANNELS; k++)
				sum[k] += x[i * C * TILE_IMAGES + c * TILE_IMAGES + k];
		for (size_t k = 0; k < TILE_CHANNELS; k++)
			features[c + k] = sum[k] / (float)pixels;
	}
}

/* How many logits come before that of `label`: larger ones, and equal ones of a lower index. One that is not a number comes first, and is
 * never a hit itself, however few classes there are. */
static int32_t label_rank(const float *logits, size_t classes, size_t label)
{
	int32_t rank = isnan(logits[label]) ? TOP_COUNT : 0;
	for (size_t j = 0; j < classes; j++)
		if (j != label)
			rank += j < label ? !(logits[j] < logits[label]) : !(logits[j] <= logits[label]);
	return rank;
}

/* Loss = Σ target · (log Σ exp(logit) − logit), and its gradient's share of the mean over all ranks: (softmax − target) / total. */
static double image_loss(const struct backend_state *state, const struct target *target, const float *logits, float *gradient)
{
	size_t classes = (size_t)state->config.network->head.classes;
	double maximum = (double)logits[0], sum = 0, loss = 0, smoothing = (double)state->label_smoothing, weight = (double)target->weight;
	for (size_t j = 1; j < classes; j++)
		maximum = (double)logits[j] > maximum ? (double)logits[j] : maximum;
	for (size_t j = 0; j < classes; j++)
		sum += exp((double)logits[j] - maximum);
	double logarithm = maximum + log(sum);
	for (size_t j = 0; j < classes; j++) {
		double hard = (j == target->label ? weight : 0) + (j == target->partner ? 1 - weight : 0);
		double soft = (1 - smoothing) * hard + smoothing / (double)classes, distance = (double)logits[j] - logarithm;
		loss -= soft * distance;
		if (gradient != NULL)
			gradient[j] = (float)((exp(distance) - soft) / (double)state->total);
	}
	return loss;
}

static void head_task(void *context, size_t n)
{
	const struct backend_state *state = context;
	const struct head *head = &state->config.network->head;
	const struct params_layout *layout = state->config.layout;
	size_t C = (size_t)head->C, classes = (size_t)head->classes;
	const float *weight = state->weights_used + layout->all[layout->head_weight].offset;
	const float *bias = state->weights_used + layout->all[layout->head_bias].offset;
	float *features = state->features + n * C, *logits = state->logits + n * classes;
	features_average(state, n, features);
	for (size_t j = 0; j < classes; j++)
		logits[j] = state->kernels->dot(features, weight + j * C, C) + bias[j];
	state->ranks[n] = label_rank(logits, classes, state->targets[n].label);
	state->losses[n] = image_loss(state, &state->targets[n], logits, state->training ? state->logits_gradient + n * classes : NULL);
}

enum status cpu_head_forward(struct backend_state *state)
{
	threads_run(state->config.threads, head_task, state, state->n);
	for (size_t n = 0; n < state->n; n++) {
		state->counters.loss += state->losses[n];
		state->counters.top1 += state->ranks[n] < 1;
		state->counters.top5 += state->ranks[n] < TOP_COUNT;
	}
	state->counters.images += (double)state->n;
	return ST_OK;
}

/* Class j: its row of the weights' gradient, and its bias's. */
static void head_weights_task(void *context, size_t j)
{
	const struct backend_state *state = context;
	const struct head *head = &state->config.network->head;
	const struct params_layout *layout = state->config.layout;
	size_t C = (size_t)head->C, classes = (size_t)head->classes;
	float *dw = state->gradients + state->gradient_at[layout->head_weight] + j * C;
	double dbias = 0;
	memset(dw, 0, C * sizeof *dw);
	for (size_t n = 0; n < state->n; n++) {
		float gradient = state->logits_gradient[n * classes + j];
		state->kernels->axpy(gradient, state->features + n * C, C, dw);
		dbias += (double)gradient;
	}
	state->gradients[state->gradient_at[layout->head_bias] + j] = (float)dbias;
}

/* Image n: its features' gradient, spread evenly over the pixels. */
static void head_input_task(void *context, size_t n)
{
	const struct backend_state *state = context;
	const struct head *head = &state->config.network->head;
	const struct params_layout *layout = state->config.layout;
	size_t C = (size_t)head->C, classes = (size_t)head->classes, pixels = (size_t)(head->H * head->W);
	const float *weight = state->weights + layout->all[layout->head_weight].offset;
	float *gradient = state->features_gradient + n * C, *dx = state->dy[head->x] + image_offset(state, n);
	memset(gradient, 0, C * sizeof *gradient);
	for (size_t j = 0; j < classes; j++)
		state->kernels->axpy(state->logits_gradient[n * classes + j], weight + j * C, C, gradient);
	for (size_t i = 0; i < pixels; i++)
		for (size_t c = 0; c < C; c++)
			dx[i * C * TILE_IMAGES + c / TILE_CHANNELS * TILE_FLOATS + c % TILE_CHANNELS] = gradient[c] / (float)pixels;
}

enum status cpu_head_backward(struct backend_state *state)
{
	MUST(state->training);
	threads_run(state->config.threads, head_weights_task, state, (size_t)state->config.network->head.classes);
	threads_run(state->config.threads, head_input_task, state, state->n);
	return ST_OK;
}
