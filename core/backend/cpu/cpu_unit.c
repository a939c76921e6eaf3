/* cpu_unit.c: a unit: convolution, batch norm, shortcut, ReLU, and their derivatives.
 *
 * A task is one row (block, p) of the batch, or one channel tile of it: it computes, then sums its row while that is still in a near
 * cache. Rows' sums are combined in their order, in double (Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
 * computing sample variances", 1979). */
#include "core/backend/batch.h"
#include "core/backend/cpu/cpu_backend.h"

#include <math.h>
#include <string.h>

/* Weights of a unit up to this size stay in a core's second-level cache while all of them pass over each row; larger ones are taken a
 * channel tile at a time over all rows. */
enum { WEIGHTS_NEAR_BYTES = 640 << 10 };

struct work {
	struct backend_state *state;
	const struct unit *unit;
	int index;
	bool accumulate_shortcut;
	/* Per channel. */
	const float *mean, *scale, *bias, *mean_g, *slope;
};

static float *weight_of(const struct backend_state *state, float *arena, int param)
{
	return arena + state->config.layout->all[param].offset;
}

static float *gradient_of(const struct backend_state *state, int param)
{
	return state->gradients + state->gradient_at[param];
}

static const float *used_weight(const struct backend_state *state, int param)
{
	return state->weights_used + state->config.layout->all[param].offset;
}

/* --- forward -------------------------------------------------------------------------------------------------------- */

/* Mean and squared distances of one row and channel tile into its place of the partial sums: (rows, 2, K). */
static void row_moments(const struct backend_state *state, const struct unit *unit, const float *z, size_t kt, size_t block, size_t p)
{
	struct tensor_shape output = unit_output(unit);
	size_t K = (size_t)unit->K, rows = block_rows(state, block);
	double *mean = state->partials + (block * (size_t)unit->P + p) * 2 * K + kt * TILE_CHANNELS, *squares = mean + K;
	for (size_t q = 0; q < (size_t)unit->Q; q++) {
		float pixel_mean[TILE_CHANNELS], pixel_squares[TILE_CHANNELS];
		state->kernels->moments(z + pixel_offset(&output, block, p, q) + kt * TILE_FLOATS, rows, pixel_mean, pixel_squares);
		double share = 1 / (double)(q + 1), weight = (double)(rows * q) * share; /* n_b / n, n_a·n_b / n */
		for (size_t k = 0; k < TILE_CHANNELS; k++) {
			double before = q == 0 ? 0 : mean[k], distance = (double)pixel_mean[k] - before;
			mean[k] = before + distance * share;
			squares[k] = (q == 0 ? 0 : squares[k]) + (double)pixel_squares[k] + distance * distance * weight;
		}
	}
}

static void unit_forward_task(void *context, size_t index)
{
	const struct work *work = context;
	const struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	struct tensor_shape output = unit_output(unit);
	size_t P = (size_t)unit->P, tiles = (size_t)unit->K / TILE_CHANNELS, rows_all = state->blocks * P;
	size_t weights_bytes = (size_t)(unit->K * unit->C * unit->R * unit->S) * sizeof(float);
	bool near = weights_bytes <= WEIGHTS_NEAR_BYTES;
	size_t kt = near ? index % tiles : index / rows_all, row = near ? index / tiles : index % rows_all, block = row / P, p = row % P;
	const float *weights = used_weight(state, state->config.layout->unit[work->index].weight);
	float *z = state->training ? state->z[work->index] : state->y[unit->y];
	convolution_row(state, unit, weights, kt, block, p, z);
	if (state->training) {
		row_moments(state, unit, z, kt, block, p);
		return;
	}
	size_t channel = kt * TILE_CHANNELS;
	for (size_t q = 0; q < (size_t)unit->Q; q++) {
		size_t at = pixel_offset(&output, block, p, q) + kt * TILE_FLOATS;
		state->kernels->normalize(z + at, block_rows(state, block), work->mean + channel, work->scale + channel, work->bias + channel,
			unit->shortcut >= 0 ? state->y[unit->shortcut] + at : NULL, unit->relu, z + at);
	}
}

/* Row (block, p), all channels: y from z. */
static void normalize_task(void *context, size_t row)
{
	const struct work *work = context;
	const struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	struct tensor_shape output = unit_output(unit);
	size_t block = row / (size_t)unit->P, p = row % (size_t)unit->P, rows = block_rows(state, block);
	for (size_t q = 0; q < (size_t)unit->Q; q++)
		for (size_t channel = 0; channel < (size_t)unit->K; channel += TILE_CHANNELS) {
			size_t at = pixel_offset(&output, block, p, q) + channel * TILE_IMAGES;
			state->kernels->normalize(state->z[work->index] + at, rows, work->mean + channel, work->scale + channel, work->bias + channel,
				unit->shortcut >= 0 ? state->y[unit->shortcut] + at : NULL, unit->relu, state->y[unit->y] + at);
		}
}

/* The rows' moments combined into the first row's place: of this rank's values. */
static void moments_combine(struct backend_state *state, const struct unit *unit)
{
	size_t K = (size_t)unit->K, P = (size_t)unit->P;
	double *mean = state->partials, *squares = mean + K;
	if (state->n == 0) {
		memset(state->partials, 0, 2 * K * sizeof *state->partials);
		return;
	}
	double count = (double)(block_rows(state, 0) * (size_t)unit->Q);
	for (size_t row = 1; row < state->blocks * P; row++) {
		const double *row_mean = state->partials + row * 2 * K, *row_squares = row_mean + K;
		double row_count = (double)(block_rows(state, row / P) * (size_t)unit->Q);
		double share = row_count / (count + row_count), weight = count * share;
		for (size_t k = 0; k < K; k++) {
			double distance = row_mean[k] - mean[k];
			mean[k] += distance * share;
			squares[k] += row_squares[k] + distance * distance * weight;
		}
		count += row_count;
	}
}

/* Values of a channel that batch norm's sums are over. */
static double values_count(const struct backend_state *state, const struct unit *unit)
{
	return (double)(norm_is_shared(&state->config) ? state->total : state->n) * unit->P * unit->Q;
}

/* Sums a channel's pair of values over the ranks, when statistics are shared. */
static enum status pairs_share(struct backend_state *state, double *pairs, size_t K)
{
	const struct reduction *reduction = state->config.reduction;
	return norm_is_shared(&state->config) ? reduction->sum(reduction->context, pairs, 2 * K) : ST_OK;
}

/* This rank's moments become those of all ranks' values, by one sum of Σ z and Σ z²: a second one would cost another round trip in each of
 * the units. What cancels in Σ z² − (Σ z)²/count is (mean/deviation)² · 2^-53 of the variance; the values are floats, and their own rounding
 * has moved it by (mean/deviation) · 2^-24 before, which is more until mean/deviation reaches 2^29, where nothing is left of it anyway. */
static enum status moments_share(struct backend_state *state, const struct unit *unit)
{
	size_t K = (size_t)unit->K;
	double *mean = state->partials, *squares = mean + K, here = (double)state->n * unit->P * unit->Q, count = values_count(state, unit);
	if (!norm_is_shared(&state->config))
		return ST_OK;
	for (size_t k = 0; k < K; k++) {
		squares[k] += here * mean[k] * mean[k];
		mean[k] *= here;
	}
	TRY(pairs_share(state, mean, K));
	for (size_t k = 0; k < K; k++) {
		mean[k] /= count;
		squares[k] -= count * mean[k] * mean[k];
		squares[k] = squares[k] < 0 ? 0 : squares[k];
	}
	return ST_OK;
}

/* From the rows' moments: the batch's mean and 1/√(variance + ε) into norm; the running statistics move. */
static enum status statistics_finish(struct backend_state *state, const struct unit *unit, int index)
{
	const struct params_layout *layout = state->config.layout;
	size_t K = (size_t)unit->K;
	float *running_mean = weight_of(state, state->buffers, layout->unit[index].running_mean);
	float *running_var = weight_of(state, state->buffers, layout->unit[index].running_var);
	const double *mean = state->partials, *squares = mean + K;
	double momentum = state->config.norm_momentum, count = values_count(state, unit);
	moments_combine(state, unit);
	TRY(moments_share(state, unit));
	for (size_t k = 0; k < K && count > 0; k++) {
		double variance = squares[k] / count, unbiased = squares[k] / (count - 1);
		state->norm[index][k] = (float)mean[k];
		state->norm[index][K + k] = (float)(1 / sqrt(variance + NORM_EPSILON));
		running_mean[k] = (float)((double)running_mean[k] + momentum * (mean[k] - (double)running_mean[k]));
		running_var[k] = (float)((double)running_var[k] + momentum * (unbiased - (double)running_var[k]));
	}
	return ST_OK;
}

enum status cpu_unit_forward(struct backend_state *state, int index)
{
	const struct params_layout *layout = state->config.layout;
	const struct unit *unit = &state->config.network->units[index];
	size_t K = (size_t)unit->K, rows = state->blocks * (size_t)unit->P;
	const float *gamma = used_weight(state, layout->unit[index].gamma);
	float *scale = state->constants, *mean = scale + K;
	struct work work = {.state = state, .unit = unit, .index = index, .scale = scale, .mean = mean,
		.bias = used_weight(state, layout->unit[index].beta)};
	if (!state->training) {
		memcpy(mean, state->buffers_used + layout->all[layout->unit[index].running_mean].offset, K * sizeof *mean);
		const float *variance = state->buffers_used + layout->all[layout->unit[index].running_var].offset;
		for (size_t k = 0; k < K; k++)
			scale[k] = (float)((double)gamma[k] / sqrt((double)variance[k] + NORM_EPSILON));
	}
	threads_run(state->config.threads, unit_forward_task, &work, K / TILE_CHANNELS * rows);
	if (!state->training)
		return ST_OK;
	TRY(statistics_finish(state, unit, index));
	for (size_t k = 0; k < K; k++) {
		mean[k] = state->norm[index][k];
		scale[k] = gamma[k] * state->norm[index][K + k];
	}
	threads_run(state->config.threads, normalize_task, &work, rows);
	return ST_OK;
}

/* --- backward ------------------------------------------------------------------------------------------------------- */

/* Row (block, p): the shortcut's gradient, and the row's sums of g and g·(z − mean) into the partial sums. */
static void gradient_sums_task(void *context, size_t row)
{
	const struct work *work = context;
	const struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	struct tensor_shape output = unit_output(unit);
	size_t K = (size_t)unit->K, block = row / (size_t)unit->P, p = row % (size_t)unit->P;
	double *total = state->partials + row * 2 * K;
	memset(total, 0, 2 * K * sizeof *total);
	for (size_t q = 0; q < (size_t)unit->Q; q++)
		for (size_t channel = 0; channel < K; channel += TILE_CHANNELS) {
			size_t at = pixel_offset(&output, block, p, q) + channel * TILE_IMAGES;
			float sum[TILE_CHANNELS], centred[TILE_CHANNELS];
			state->kernels->gradient_sums(state->dy[unit->y] + at, unit->relu ? state->y[unit->y] + at : NULL, state->z[work->index] + at,
				block_rows(state, block), work->mean + channel, sum, centred,
				unit->shortcut >= 0 ? state->dy[unit->shortcut] + at : NULL, work->accumulate_shortcut);
			for (size_t k = 0; k < TILE_CHANNELS; k++) {
				total[channel + k] += (double)sum[k];
				total[K + channel + k] += (double)centred[k];
			}
		}
}

/* Row (block, p): z becomes dz. */
static void normalize_backward_task(void *context, size_t row)
{
	const struct work *work = context;
	const struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	struct tensor_shape output = unit_output(unit);
	size_t block = row / (size_t)unit->P, p = row % (size_t)unit->P;
	for (size_t q = 0; q < (size_t)unit->Q; q++)
		for (size_t channel = 0; channel < (size_t)unit->K; channel += TILE_CHANNELS) {
			size_t at = pixel_offset(&output, block, p, q) + channel * TILE_IMAGES;
			state->kernels->normalize_backward(state->dy[unit->y] + at, unit->relu ? state->y[unit->y] + at : NULL, block_rows(state, block),
				work->mean + channel, work->mean_g + channel, work->slope + channel, work->scale + channel, state->z[work->index] + at);
		}
}

enum status cpu_unit_backward(struct backend_state *state, int index, bool accumulate, bool accumulate_shortcut)
{
	MUST(state->training);
	const struct params_layout *layout = state->config.layout;
	const struct unit *unit = &state->config.network->units[index];
	size_t K = (size_t)unit->K, rows = state->blocks * (size_t)unit->P;
	const float *mean = state->norm[index], *inverse_deviation = mean + K, *gamma = weight_of(state, state->weights, layout->unit[index].gamma);
	float *dw = gradient_of(state, layout->unit[index].weight), *dgamma = gradient_of(state, layout->unit[index].gamma);
	float *dbeta = gradient_of(state, layout->unit[index].beta);
	float *scale = state->constants, *mean_g = scale + K, *slope = mean_g + K;
	struct work work = {.state = state, .unit = unit, .index = index, .accumulate_shortcut = accumulate_shortcut, .mean = mean, .scale = scale,
		.mean_g = mean_g, .slope = slope};
	threads_run(state->config.threads, gradient_sums_task, &work, rows);

	double *sum = state->partials, *centred = sum + K, count = values_count(state, unit);
	if (rows == 0)
		memset(sum, 0, 2 * K * sizeof *sum);
	for (size_t row = 1; row < rows; row++)
		for (size_t k = 0; k < 2 * K; k++)
			sum[k] += state->partials[row * 2 * K + k];
	for (size_t k = 0; k < K; k++) {
		dbeta[k] = (float)sum[k];
		dgamma[k] = (float)(centred[k] * (double)inverse_deviation[k]);
	}
	TRY(pairs_share(state, sum, K));
	for (size_t k = 0; k < K && count > 0; k++) {
		double inverse = (double)inverse_deviation[k];
		scale[k] = gamma[k] * inverse_deviation[k];
		mean_g[k] = (float)(sum[k] / count);
		slope[k] = (float)(centred[k] * inverse * inverse / count);
	}
	threads_run(state->config.threads, normalize_backward_task, &work, rows);

	if (rows == 0)
		memset(dw, 0, (size_t)(dgamma - dw) * sizeof *dw);
	else
		convolution_weight_gradient(state, unit, state->z[index], dw);
	if (unit->x != 0)
		convolution_input_gradient(state, unit, weight_of(state, state->weights, layout->unit[index].weight), state->z[index], accumulate);
	return ST_OK;
}
