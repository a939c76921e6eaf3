/* ref_unit.c: convolution, batch norm, shortcut, ReLU, and their derivatives.
 *
 * In: a unit's input tensor and parameters. Out: its output tensor; backwards, the gradients of both. One task owns one output
 * channel (forward, and the parameters' gradients) or one input channel (the input's gradient). Where batch norm needs a sum over a whole
 * channel, the tasks end: with sync_batch_norm the sum goes over all ranks there. */
#include "core/backend/batch.h"
#include "core/backend/ref/ref.h"

#include <math.h>
#include <string.h>

enum { TAPS_MAX = 7 * 7 };

struct work {
	struct backend_state *state;
	const struct unit *unit;
	int index;
	bool accumulate, accumulate_shortcut;
};

/* One product of a sum: which tap of the kernel meets which pixel of a channel (in doubles from the channel's start). */
struct tap {
	size_t weight, pixel;
};

/* The taps that meet a pixel of the input at output (p, q); padding adds nothing. */
static int taps_of_output(const struct unit *unit, int p, int q, size_t lanes, struct tap *taps)
{
	int count = 0;
	for (int r = 0; r < unit->R; r++) {
		for (int s = 0; s < unit->S; s++) {
			int h = p * unit->stride + r - unit->padding, w = q * unit->stride + s - unit->padding;
			if (h >= 0 && h < unit->H && w >= 0 && w < unit->W)
				taps[count++] = (struct tap){(size_t)(r * unit->S + s), (size_t)(h * unit->W + w) * lanes};
		}
	}
	return count;
}

/* The taps through which input (h, w) reaches an output pixel. */
static int taps_of_input(const struct unit *unit, int h, int w, size_t lanes, struct tap *taps)
{
	int count = 0;
	for (int r = 0; r < unit->R; r++) {
		for (int s = 0; s < unit->S; s++) {
			int y = h + unit->padding - r, x = w + unit->padding - s;
			if (y < 0 || x < 0 || y % unit->stride != 0 || x % unit->stride != 0 || y / unit->stride >= unit->P || x / unit->stride >= unit->Q)
				continue;
			taps[count++] = (struct tap){(size_t)(r * unit->S + s), (size_t)(y / unit->stride * unit->Q + x / unit->stride) * lanes};
		}
	}
	return count;
}

/* sum(lane) over channels and taps of weight · value: weights (channels, tap_count_all), values (channels, pixels, lanes). */
static void taps_sum(const struct tap *taps, int count, const double *weights, size_t weights_step, const double *values, size_t values_step,
	size_t channels, double sum[LANE_BLOCK])
{
	for (int i = 0; i < LANE_BLOCK; i++)
		sum[i] = 0;
	for (size_t c = 0; c < channels; c++) {
		for (int t = 0; t < count; t++) {
			double weight = weights[c * weights_step + taps[t].weight];
			const double *value = values + c * values_step + taps[t].pixel;
			for (int i = 0; i < LANE_BLOCK; i++)
				sum[i] += weight * value[i];
		}
	}
}

/* z(k, p, q) = Σ over c, r, s of w(k, c, r, s) · x(c, p·stride + r − padding, q·stride + s − padding). */
static void convolution_channel(const struct backend_state *state, const struct unit *unit, const double *w, const double *x, double *z)
{
	struct tap taps[TAPS_MAX];
	for (int p = 0; p < unit->P; p++) {
		for (int q = 0; q < unit->Q; q++, z += state->lanes) {
			int count = taps_of_output(unit, p, q, state->lanes, taps);
			for (size_t b = 0; b < state->blocks; b++)
				taps_sum(taps, count, w, (size_t)(unit->R * unit->S), x + b * LANE_BLOCK, (size_t)(unit->H * unit->W) * state->lanes,
					(size_t)unit->C, z + b * LANE_BLOCK);
		}
	}
}

/* Values of a channel that batch norm's sums are over. */
static double values_count(const struct backend_state *state, const struct unit *unit)
{
	return (double)(norm_is_shared(&state->config) ? state->total : state->n) * unit->P * unit->Q;
}

static enum status sums_share(const struct backend_state *state, double *sums, int count)
{
	const struct reduction *reduction = state->config.reduction;
	return norm_is_shared(&state->config) ? reduction->sum(reduction->context, sums, (size_t)count) : ST_OK;
}

/* The task of output channel k: z = conv(x), and when training its sum. */
static void convolution_task(void *context, size_t k)
{
	struct work *work = context;
	struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	size_t pixels = (size_t)(unit->P * unit->Q), kernel = (size_t)(unit->C * unit->R * unit->S);
	double *z = state->normalized[work->index] + k * pixels * state->lanes, sum = 0;
	const struct param *weight = &state->config.layout->all[state->config.layout->unit[work->index].weight];
	convolution_channel(state, unit, state->weights_used + weight->offset + k * kernel, state->tensor[unit->x], z);
	if (!state->training)
		return;
	for (size_t i = 0; i < pixels; i++)
		for (size_t n = 0; n < state->n; n++)
			sum += z[i * state->lanes + n];
	state->channel_sums[k] = sum;
}

/* Channel k's squared distances from its mean. */
static void deviation_task(void *context, size_t k)
{
	struct work *work = context;
	struct backend_state *state = work->state;
	size_t pixels = (size_t)(work->unit->P * work->unit->Q);
	const double *z = state->normalized[work->index] + k * pixels * state->lanes;
	double mean = state->channel_sums[k] / values_count(state, work->unit), squares = 0;
	for (size_t i = 0; i < pixels; i++)
		for (size_t n = 0; n < state->n; n++)
			squares += (z[i * state->lanes + n] - mean) * (z[i * state->lanes + n] - mean);
	state->channel_sums[(size_t)work->unit->K + k] = squares;
}

/* Channel k: y = relu(gamma · (z − mean) / √(variance + ε) + beta + shortcut). */
static void normalize_task(void *context, size_t k)
{
	struct work *work = context;
	struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	const struct params_layout *layout = state->config.layout;
	int index = work->index;
	size_t pixels = (size_t)(unit->P * unit->Q), channel = pixels * state->lanes;
	double *z = state->normalized[index] + k * channel, *y = state->tensor[unit->y] + k * channel;
	const double *shortcut = unit->shortcut >= 0 ? state->tensor[unit->shortcut] + k * channel : NULL;

	size_t mean_at = layout->all[layout->unit[index].running_mean].offset + k, var_at = layout->all[layout->unit[index].running_var].offset + k;
	double mean = state->buffers_used[mean_at], variance = state->buffers_used[var_at], count = values_count(state, unit);
	if (state->training && count > 0) {
		mean = state->channel_sums[k] / count;
		variance = state->channel_sums[(size_t)unit->K + k] / count;
		state->buffers[mean_at] += state->config.norm_momentum * (mean - state->buffers[mean_at]);
		state->buffers[var_at] += state->config.norm_momentum * (variance * count / (count - 1) - state->buffers[var_at]);
	}
	double inverse_deviation = 1 / sqrt(variance + NORM_EPSILON);
	state->inverse_deviation[index][k] = inverse_deviation;

	double gamma = state->weights_used[layout->all[layout->unit[index].gamma].offset + k];
	double beta = state->weights_used[layout->all[layout->unit[index].beta].offset + k];
	for (size_t i = 0; i < pixels; i++) {
		for (size_t at = i * state->lanes; at < i * state->lanes + state->blocks * LANE_BLOCK; at++) {
			z[at] = (z[at] - mean) * inverse_deviation;
			double sum = gamma * z[at] + beta + (shortcut != NULL ? shortcut[at] : 0);
			y[at] = unit->relu && sum < 0 ? 0 : sum;
		}
	}
}

enum status ref_unit_forward(struct backend_state *state, int unit)
{
	struct work work = {.state = state, .unit = &state->config.network->units[unit], .index = unit};
	size_t K = (size_t)work.unit->K;
	threads_run(state->config.threads, convolution_task, &work, K);
	if (state->training) {
		/* Two passes: the mean of all values first, then their distances from it, so that nothing cancels. */
		TRY(sums_share(state, state->channel_sums, work.unit->K));
		threads_run(state->config.threads, deviation_task, &work, K);
		TRY(sums_share(state, state->channel_sums + K, work.unit->K));
	}
	threads_run(state->config.threads, normalize_task, &work, K);
	return ST_OK;
}

/* dw(k, c, r, s) = Σ over images, p, q of dz(k, p, q) · x(c, p·stride + r − padding, q·stride + s − padding). */
static void kernel_gradient(const struct backend_state *state, const struct unit *unit, const double *dz, const double *x, double *dw)
{
	for (int c = 0; c < unit->C; c++, x += (size_t)(unit->H * unit->W) * state->lanes) {
		for (int r = 0; r < unit->R; r++) {
			for (int s = 0; s < unit->S; s++) {
				double sums[LANE_BLOCK] = {0}, sum = 0;
				for (int p = 0; p < unit->P; p++) {
					int h = p * unit->stride + r - unit->padding;
					for (int q = 0; q < unit->Q && h >= 0 && h < unit->H; q++) {
						int w = q * unit->stride + s - unit->padding;
						if (w < 0 || w >= unit->W)
							continue;
						const double *left = dz + (size_t)(p * unit->Q + q) * state->lanes, *right = x + (size_t)(h * unit->W + w) * state->lanes;
						for (size_t b = 0; b < state->blocks; b++, left += LANE_BLOCK, right += LANE_BLOCK)
							for (int i = 0; i < LANE_BLOCK; i++)
								sums[i] += left[i] * right[i];
					}
				}
				for (int i = 0; i < LANE_BLOCK; i++)
					sum += sums[i];
				*dw++ = sum;
			}
		}
	}
}

/* The task of output channel k: the gradients of shortcut, gamma and beta. With g = dy where y > 0 and h the normalised value: dbeta = Σ g,
 * dgamma = Σ g·h, over this rank's values. */
static void norm_gradient_task(void *context, size_t k)
{
	struct work *work = context;
	struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	const struct params_layout *layout = state->config.layout;
	int index = work->index;
	size_t pixels = (size_t)(unit->P * unit->Q), channel = pixels * state->lanes;
	const double *y = state->tensor[unit->y] + k * channel, *dy = state->tensor_gradient[unit->y] + k * channel;
	const double *normalized = state->normalized[index] + k * channel;
	double *dz = state->convolution_gradient + k * channel;
	double *shortcut = unit->shortcut >= 0 ? state->tensor_gradient[unit->shortcut] + k * channel : NULL;

	double dbeta = 0, dgamma = 0;
	for (size_t i = 0; i < pixels; i++) {
		for (size_t at = i * state->lanes; at < i * state->lanes + state->blocks * LANE_BLOCK; at++) {
			double g = unit->relu && y[at] <= 0 ? 0 : dy[at];
			if (shortcut != NULL)
				shortcut[at] = work->accumulate_shortcut ? shortcut[at] + g : g;
			dbeta += g;
			dgamma += g * normalized[at];
			dz[at] = g;
		}
	}
	state->gradients[layout->all[layout->unit[index].gamma].offset + k] = state->channel_sums[(size_t)unit->K + k] = dgamma;
	state->gradients[layout->all[layout->unit[index].beta].offset + k] = state->channel_sums[k] = dbeta;
}

/* Channel k: dz = gamma / √(variance + ε) · (g − dbeta / m − h · dgamma / m), the sums being over all m values of the statistics; from it the
 * kernel's gradient. */
static void kernel_gradient_task(void *context, size_t k)
{
	struct work *work = context;
	struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	const struct params_layout *layout = state->config.layout;
	int index = work->index;
	size_t pixels = (size_t)(unit->P * unit->Q), channel = pixels * state->lanes, kernel = (size_t)(unit->C * unit->R * unit->S);
	const double *normalized = state->normalized[index] + k * channel;
	double *dz = state->convolution_gradient + k * channel;
	double dbeta = state->channel_sums[k], dgamma = state->channel_sums[(size_t)unit->K + k], count = values_count(state, unit);
	double scale = state->weights[layout->all[layout->unit[index].gamma].offset + k] * state->inverse_deviation[index][k];
	for (size_t i = 0; i < pixels; i++) {
		for (size_t n = 0; n < state->blocks * LANE_BLOCK; n++) {
			size_t at = i * state->lanes + n;
			dz[at] = n < state->n ? scale * (dz[at] - dbeta / count - normalized[at] * dgamma / count) : 0;
		}
	}
	kernel_gradient(state, unit, dz, state->tensor[unit->x], state->gradients + layout->all[layout->unit[index].weight].offset + k * kernel);
}

/* The task of input channel c: dx(c, h, w) = Σ over k and the taps that reach (h, w) of w(k, c, r, s) · dz(k, p, q). */
static void input_gradient_channel(void *context, size_t c)
{
	struct work *work = context;
	struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	size_t taps_all = (size_t)(unit->R * unit->S), K = (size_t)unit->K, C = (size_t)unit->C;
	const double *weights = state->weights + state->config.layout->all[state->config.layout->unit[work->index].weight].offset;
	/* This channel's kernels side by side: they lie C·R·S apart in the arena. */
	double *w = state->weights_by_input + c * K * taps_all;
	for (size_t k = 0; k < K; k++)
		memcpy(w + k * taps_all, weights + (k * C + c) * taps_all, taps_all * sizeof *w);

	struct tap taps[TAPS_MAX];
	double *dx = state->tensor_gradient[unit->x] + c * (size_t)(unit->H * unit->W) * state->lanes;
	for (int h = 0; h < unit->H; h++) {
		for (int x = 0; x < unit->W; x++, dx += state->lanes) {
			int count = taps_of_input(unit, h, x, state->lanes, taps);
			for (size_t b = 0; b < state->blocks; b++) {
				double sum[LANE_BLOCK], *to = dx + b * LANE_BLOCK;
				taps_sum(taps, count, w, taps_all, state->convolution_gradient + b * LANE_BLOCK, (size_t)(unit->P * unit->Q) * state->lanes, K, sum);
				for (int i = 0; i < LANE_BLOCK; i++)
					to[i] = work->accumulate ? to[i] + sum[i] : sum[i];
			}
		}
	}
}

enum status ref_unit_backward(struct backend_state *state, int unit, bool accumulate, bool accumulate_shortcut)
{
	struct work work = {.state = state, .unit = &state->config.network->units[unit], .index = unit, .accumulate = accumulate,
		.accumulate_shortcut = accumulate_shortcut};
	threads_run(state->config.threads, norm_gradient_task, &work, (size_t)work.unit->K);
	TRY(sums_share(state, state->channel_sums, 2 * work.unit->K));
	threads_run(state->config.threads, kernel_gradient_task, &work, (size_t)work.unit->K);
	if (work.unit->x != 0) /* the image gets no gradient */
		threads_run(state->config.threads, input_gradient_channel, &work, (size_t)work.unit->C);
	return ST_OK;
}
