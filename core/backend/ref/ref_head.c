/* ref_head.c: the stem's max-pool, and the head with its loss.
 *
 * In: a tensor and, for the head, the batch's targets. Out: the pooled tensor; logits, losses, counters; backwards, the gradients. */
#include "core/backend/ref/ref.h"

#include <math.h>

enum { POOL_KERNEL = 3, POOL_STRIDE = 2, POOL_PADDING = 1, TOP = 5 };

struct work {
	struct backend_state *state;
	bool accumulate;
};

/* Where in a channel (in doubles) the window of (p, q) has its maximum for one lane: the first one in reading order. NaN counts as
 * larger than anything, so it is passed on. */
static size_t window_maximum(const struct stem_pool *pool, const double *x, int p, int q, size_t lanes, size_t lane)
{
	size_t best = 0;
	bool found = false;
	for (int r = 0; r < POOL_KERNEL; r++) {
		for (int s = 0; s < POOL_KERNEL; s++) {
			int h = p * POOL_STRIDE + r - POOL_PADDING, w = q * POOL_STRIDE + s - POOL_PADDING;
			if (h < 0 || h >= pool->H || w < 0 || w >= pool->W)
				continue;
			size_t at = (size_t)(h * pool->W + w) * lanes + lane;
			if (!found || x[at] > x[best] || (isnan(x[at]) && !isnan(x[best])))
				best = at;
			found = true;
		}
	}
	return best;
}

static void pool_forward_channel(void *context, size_t c)
{
	struct backend_state *state = context;
	const struct stem_pool *pool = &state->config.network->pool;
	const double *x = state->tensor[pool->x] + c * (size_t)(pool->H * pool->W) * state->lanes;
	double *y = state->tensor[pool->y] + c * (size_t)(pool->P * pool->Q) * state->lanes;
	for (int p = 0; p < pool->P; p++)
		for (int q = 0; q < pool->Q; q++, y += state->lanes)
			for (size_t i = 0; i < state->blocks * LANE_BLOCK; i++)
				y[i] = x[window_maximum(pool, x, p, q, state->lanes, i)];
}

enum status ref_pool_forward(struct backend_state *state)
{
	threads_run(state->config.threads, pool_forward_channel, state, (size_t)state->config.network->pool.C);
	return ST_OK;
}

static void pool_backward_channel(void *context, size_t c)
{
	struct work *work = context;
	struct backend_state *state = work->state;
	const struct stem_pool *pool = &state->config.network->pool;
	size_t pixels = (size_t)(pool->H * pool->W);
	const double *x = state->tensor[pool->x] + c * pixels * state->lanes;
	double *dx = state->tensor_gradient[pool->x] + c * pixels * state->lanes;
	const double *dy = state->tensor_gradient[pool->y] + c * (size_t)(pool->P * pool->Q) * state->lanes;
	for (size_t h = 0; h < pixels && !work->accumulate; h++)
		for (size_t i = 0; i < state->blocks * LANE_BLOCK; i++)
			dx[h * state->lanes + i] = 0;
	for (int p = 0; p < pool->P; p++)
		for (int q = 0; q < pool->Q; q++, dy += state->lanes)
			for (size_t i = 0; i < state->blocks * LANE_BLOCK; i++)
				dx[window_maximum(pool, x, p, q, state->lanes, i)] += dy[i];
}

enum status ref_pool_backward(struct backend_state *state, bool accumulate)
{
	struct work work = {state, accumulate};
	threads_run(state->config.threads, pool_backward_channel, &work, (size_t)state->config.network->pool.C);
	return ST_OK;
}

/* Features, logits, loss and the logits' gradient of image n. loss = −Σ target · log softmax(logits); the gradient is that of
 * its share of the mean loss over all ranks, (softmax · Σ target − target) / total. */
static void head_forward_image(void *context, size_t n)
{
	struct backend_state *state = context;
	const struct head *head = &state->config.network->head;
	const struct params_layout *layout = state->config.layout;
	const double *weight = state->weights_used + layout->all[layout->head_weight].offset;
	const double *bias = state->weights_used + layout->all[layout->head_bias].offset;
	size_t pixels = (size_t)(head->H * head->W), C = (size_t)head->C, classes = (size_t)head->classes;
	double *features = state->features + n * C, *logits = state->logits + n * classes, *gradient = state->logits_gradient + n * classes;
	const double *targets = state->targets + n * classes;

	for (size_t c = 0; c < C; c++) {
		double sum = 0;
		for (size_t i = 0; i < pixels; i++)
			sum += state->tensor[head->x][(c * pixels + i) * state->lanes + n];
		features[c] = sum / (double)pixels;
	}
	double largest = -(double)INFINITY, exponentials = 0, loss = 0, targets_sum = 0;
	for (size_t j = 0; j < classes; j++) {
		double sum = bias[j];
		for (size_t c = 0; c < C; c++)
			sum += weight[j * C + c] * features[c];
		logits[j] = sum;
		largest = sum > largest ? sum : largest;
	}
	for (size_t j = 0; j < classes; j++)
		exponentials += exp(logits[j] - largest);
	double log_sum = largest + log(exponentials);
	for (size_t j = 0; j < classes; j++) {
		loss += targets[j] * (log_sum - logits[j]);
		targets_sum += targets[j];
	}
	for (size_t j = 0; j < classes; j++)
		gradient[j] = (exp(logits[j] - log_sum) * targets_sum - targets[j]) / (double)state->total;
	state->losses[n] = loss;
}

/* How many logits come before the label's: larger ones, and equal ones of lower index. A NaN is never a hit. */
static size_t label_rank(const double *logits, size_t classes, size_t label)
{
	size_t rank = isnan(logits[label]) ? TOP : 0;
	for (size_t j = 0; j < classes; j++)
		rank += logits[j] > logits[label] || (logits[j] == logits[label] && j < label);
	return rank;
}

enum status ref_head_forward(struct backend_state *state)
{
	size_t classes = (size_t)state->config.network->head.classes;
	threads_run(state->config.threads, head_forward_image, state, state->n);
	for (size_t n = 0; n < state->n; n++) {
		size_t rank = label_rank(state->logits + n * classes, classes, state->labels[n]);
		state->counters.loss += state->losses[n];
		state->counters.images += 1;
		state->counters.top1 += rank == 0;
		state->counters.top5 += rank < TOP;
	}
	return ST_OK;
}

static void head_backward_class(void *context, size_t j)
{
	struct backend_state *state = context;
	const struct params_layout *layout = state->config.layout;
	size_t C = (size_t)state->config.network->head.C, classes = (size_t)state->config.network->head.classes;
	double *dw = state->gradients + layout->all[layout->head_weight].offset + j * C, dbias = 0;
	for (size_t c = 0; c < C; c++)
		dw[c] = 0;
	for (size_t n = 0; n < state->n; n++) {
		double gradient = state->logits_gradient[n * classes + j];
		dbias += gradient;
		for (size_t c = 0; c < C; c++)
			dw[c] += gradient * state->features[n * C + c];
	}
	state->gradients[layout->all[layout->head_bias].offset + j] = dbias;
}

static void head_backward_channel(void *context, size_t c)
{
	struct backend_state *state = context;
	const struct head *head = &state->config.network->head;
	const double *weight = state->weights + state->config.layout->all[state->config.layout->head_weight].offset;
	size_t pixels = (size_t)(head->H * head->W), C = (size_t)head->C, classes = (size_t)head->classes;
	double *dx = state->tensor_gradient[head->x] + c * pixels * state->lanes;
	for (size_t n = 0; n < state->blocks * LANE_BLOCK; n++) {
		double sum = 0;
		for (size_t j = 0; n < state->n && j < classes; j++)
			sum += weight[j * C + c] * state->logits_gradient[n * classes + j];
		for (size_t i = 0; i < pixels; i++)
			dx[i * state->lanes + n] = sum / (double)pixels;
	}
}

enum status ref_head_backward(struct backend_state *state)
{
	const struct head *head = &state->config.network->head;
	threads_run(state->config.threads, head_backward_class, state, (size_t)head->classes);
	threads_run(state->config.threads, head_backward_channel, state, (size_t)head->C);
	return ST_OK;
}
