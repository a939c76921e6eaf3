/* cpu_convolution.c: convolutions as sums of products of tiles.
 *
 * Forward, an output pixel's tile is Σ over taps that meet a pixel, over channel tiles: x tile · weight block. The input's gradient is
 * the same with weights transposed; the weights' gradient is Σ over pixels of (x tile transposed) · dz tile. Padding is never
 * computed with: a tap that meets it adds no segment. The image has no channel tiles; there a whole kernel row is one segment. */
#include "core/backend/cpu/cpu_backend.h"

#include <string.h>

/* Segments are handed to the kernel in groups whose tiles (4 KB each of A and B) stay in the first-level cache between the passes
 * over a tile's rows. */
enum { GROUP = 4 };

struct sum {
	const struct kernels *kernels;
	struct segment segments[GROUP];
	size_t count, depth, a_step, rows;
	bool transposed, accumulate;
	float *c;
};

static void sum_flush(struct sum *sum)
{
	if (sum->count == 0)
		return;
	if (sum->transposed)
		sum->kernels->product_transposed(sum->segments, sum->count, sum->depth, sum->a_step, sum->rows, sum->accumulate, sum->c);
	else
		sum->kernels->product(sum->segments, sum->count, sum->depth, sum->a_step, sum->rows, sum->accumulate, sum->c);
	sum->accumulate = true;
	sum->count = 0;
}

static inline void sum_add(struct sum *sum, const float *a, const float *b)
{
	sum->segments[sum->count++] = (struct segment){a, b};
	if (sum->count == GROUP)
		sum_flush(sum);
}

/* An empty sum is zero. */
static void sum_close(struct sum *sum)
{
	sum_flush(sum);
	if (!sum->accumulate)
		memset(sum->c, 0, sum->rows * TILE_CHANNELS * sizeof *sum->c);
}

/* Taps of one axis that meet a pixel: r in [first, last) for output `p`, where tap r reads input p·stride − padding + r. */
static void taps_live(int p, int stride, int padding, int taps, int size, int *first, int *last)
{
	int start = p * stride - padding;
	*first = start < 0 ? -start : 0;
	*last = start + taps > size ? size - start : taps;
}

/* --- forward -------------------------------------------------------------------------------------------------------- */

static void image_convolution_row(const struct backend_state *state, const struct unit *unit, const float *weights, size_t kt, size_t block,
	size_t p, float *z)
{
	struct tensor_shape output = unit_output(unit);
	size_t depth = (size_t)unit->S * IMAGE_CHANNELS, step = (size_t)unit->stride * IMAGE_CHANNELS;
	int first, last;
	taps_live((int)p, unit->stride, unit->padding, unit->R, unit->H, &first, &last);
	for (size_t q = 0; q < (size_t)unit->Q; q++) {
		struct sum sum = {.kernels = state->kernels, .depth = depth, .a_step = state->image_row, .rows = block_rows(state, block),
			.c = z + pixel_offset(&output, block, p, q) + kt * TILE_FLOATS};
		for (int r = first; r < last; r++) {
			size_t h = (size_t)((int)p * unit->stride - unit->padding + r);
			sum_add(&sum, state->y[0] + (block * (size_t)unit->H + h) * TILE_IMAGES * state->image_row + q * step,
				weights + (kt * (size_t)unit->R + (size_t)r) * depth * TILE_CHANNELS);
		}
		sum_close(&sum);
	}
}

void convolution_row(const struct backend_state *state, const struct unit *unit, const float *weights, size_t kt, size_t block, size_t p,
	float *z)
{
	if (unit->x == 0) {
		image_convolution_row(state, unit, weights, kt, block, p, z);
		return;
	}
	const struct tensor_shape *input = &state->config.network->tensors[unit->x];
	struct tensor_shape output = unit_output(unit);
	size_t C = (size_t)unit->C, taps = (size_t)(unit->R * unit->S);
	int r_first, r_last, s_first, s_last;
	taps_live((int)p, unit->stride, unit->padding, unit->R, unit->H, &r_first, &r_last);
	for (int q = 0; q < unit->Q; q++) {
		struct sum sum = {.kernels = state->kernels, .depth = TILE_CHANNELS, .a_step = TILE_CHANNELS, .rows = block_rows(state, block),
			.c = z + pixel_offset(&output, block, p, (size_t)q) + kt * TILE_FLOATS};
		taps_live(q, unit->stride, unit->padding, unit->S, unit->W, &s_first, &s_last);
		for (int r = r_first; r < r_last; r++) {
			for (int s = s_first; s < s_last; s++) {
				size_t h = (size_t)((int)p * unit->stride - unit->padding + r), w = (size_t)(q * unit->stride - unit->padding + s);
				const float *x = state->y[unit->x] + pixel_offset(input, block, h, w);
				const float *b = weights + (kt * taps + (size_t)(r * unit->S + s)) * C * TILE_CHANNELS;
				for (size_t at = 0; at < C * TILE_IMAGES; at += TILE_FLOATS)
					sum_add(&sum, x + at, b + at);
			}
		}
		sum_close(&sum);
	}
}

/* --- weights' gradient ---------------------------------------------------------------------------------------------- */

struct work {
	struct backend_state *state;
	const struct unit *unit;
	const float *weights, *dz;
	float *dw;
	size_t tap_numbers[KERNEL_TAPS_MAX], taps_live;
	bool accumulate;
};

/* Output rows that are summed before the next tap takes its turn, so that their x and dz are read from a near cache. */
static size_t rows_together(const struct unit *unit)
{
	return unit->Q >= 16 ? 1 : 16 / (size_t)unit->Q;
}

/* All live taps (r, ·) of the weight block (kt, ct). */
static void weight_gradient_task(void *context, size_t index)
{
	const struct work *work = context;
	const struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	const struct tensor_shape *input = &state->config.network->tensors[unit->x];
	struct tensor_shape output = unit_output(unit);
	size_t C = (size_t)unit->C, P = (size_t)unit->P, R = (size_t)unit->R, S = (size_t)unit->S;
	int r = (int)(index % R);
	size_t ct = index / R % (C / TILE_CHANNELS), kt = index / R / (C / TILE_CHANNELS);
	size_t rows_all = state->blocks * P, together = rows_together(unit);
	float *dw = work->dw + kt * work->taps_live * C * TILE_CHANNELS + ct * TILE_FLOATS;
	bool begun[KERNEL_SIZE_MAX] = {false};
	for (size_t row = 0; row < rows_all; row += together) {
		for (int s = 0; s < unit->S; s++) {
			struct sum sum = {.kernels = state->kernels, .a_step = TILE_CHANNELS, .rows = TILE_CHANNELS, .transposed = true,
				.accumulate = begun[s], .c = dw + work->tap_numbers[(size_t)r * S + (size_t)s] * C * TILE_CHANNELS};
			for (size_t i = row; i < row + together && i < rows_all; i++) {
				size_t block = i / P, p = i % P;
				int h = (int)p * unit->stride - unit->padding + r;
				if (h < 0 || h >= unit->H)
					continue;
				if (sum.depth != block_rows(state, block)) {
					sum_flush(&sum);
					sum.depth = block_rows(state, block);
				}
				for (int q = 0; q < unit->Q; q++) {
					int w = q * unit->stride - unit->padding + s;
					if (w >= 0 && w < unit->W)
						sum_add(&sum, state->y[unit->x] + pixel_offset(input, block, (size_t)h, (size_t)w) + ct * TILE_FLOATS,
							work->dz + pixel_offset(&output, block, p, (size_t)q) + kt * TILE_FLOATS);
				}
			}
			sum_flush(&sum);
			begun[s] = sum.accumulate;
		}
	}
}

/* Up to 32 of the S·3 weight rows of kernel row r. One that meets only padding stays the zero that it was made as. */
static void image_weight_gradient_task(void *context, size_t index)
{
	const struct work *work = context;
	const struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	struct tensor_shape output = unit_output(unit);
	size_t P = (size_t)unit->P, H = (size_t)unit->H, R = (size_t)unit->R, rows = (size_t)unit->S * IMAGE_CHANNELS;
	size_t r = index % R, kt = index / R, step = (size_t)unit->stride * IMAGE_CHANNELS;
	struct sum sum = {.kernels = state->kernels, .a_step = state->image_row, .rows = rows, .transposed = true,
		.c = work->dw + (kt * R + r) * rows * TILE_CHANNELS};
	for (size_t i = 0; i < state->blocks * P; i++) {
		size_t block = i / P, p = i % P;
		int h = (int)(p * (size_t)unit->stride + r) - unit->padding;
		if (h < 0 || h >= unit->H)
			continue;
		if (sum.depth != block_rows(state, block)) {
			sum_flush(&sum);
			sum.depth = block_rows(state, block);
		}
		for (size_t q = 0; q < (size_t)unit->Q; q++)
			sum_add(&sum, state->y[0] + (block * H + (size_t)h) * TILE_IMAGES * state->image_row + q * step,
				work->dz + pixel_offset(&output, block, p, q) + kt * TILE_FLOATS);
	}
	sum_flush(&sum);
}

void convolution_weight_gradient(struct backend_state *state, const struct unit *unit, const float *dz, float *dw)
{
	struct work work = {.state = state, .unit = unit, .dz = dz, .dw = dw};
	work.taps_live = taps_number(unit, work.tap_numbers);
	size_t tiles = (size_t)(unit->K / TILE_CHANNELS * unit->R);
	if (unit->x == 0)
		threads_run(state->config.threads, image_weight_gradient_task, &work, tiles);
	else
		threads_run(state->config.threads, weight_gradient_task, &work, tiles * (size_t)(unit->C / TILE_CHANNELS));
}

/* --- input's gradient ----------------------------------------------------------------------------------------------- */

/* One tap of one output channel tile: (C, 32 k) → (C/32, ·, K, 32 c). */
static void transpose_task(void *context, size_t index)
{
	const struct work *work = context;
	const struct unit *unit = work->unit;
	size_t taps = (size_t)(unit->R * unit->S), C = (size_t)unit->C, K = (size_t)unit->K, tap = index % taps, kt = index / taps;
	if (unit_tap_uses(unit, (int)tap / unit->S, (int)tap % unit->S) == 0)
		return;
	for (size_t ct = 0; ct < C / TILE_CHANNELS; ct++)
		work->state->kernels->transpose(work->weights + (kt * taps + tap) * C * TILE_CHANNELS + ct * TILE_FLOATS,
			work->state->transposed + (ct * taps + tap) * K * TILE_CHANNELS + kt * TILE_FLOATS);
}

/* Row h of input channel tile ct. */
static void input_gradient_task(void *context, size_t index)
{
	const struct work *work = context;
	const struct backend_state *state = work->state;
	const struct unit *unit = work->unit;
	const struct tensor_shape *input = &state->config.network->tensors[unit->x];
	struct tensor_shape output = unit_output(unit);
	size_t K = (size_t)unit->K, H = (size_t)unit->H, taps = (size_t)(unit->R * unit->S);
	size_t h = index % H, block = index / H % state->blocks, ct = index / H / state->blocks;
	for (size_t w = 0; w < (size_t)unit->W; w++) {
		struct sum sum = {.kernels = state->kernels, .depth = TILE_CHANNELS, .a_step = TILE_CHANNELS, .rows = block_rows(state, block),
			.accumulate = work->accumulate, .c = state->dy[unit->x] + pixel_offset(input, block, h, w) + ct * TILE_FLOATS};
		for (int r = 0; r < unit->R; r++) {
			int p = (int)h + unit->padding - r;
			if (p < 0 || p % unit->stride != 0 || p / unit->stride >= unit->P)
				continue;
			for (int s = 0; s < unit->S; s++) {
				int q = (int)w + unit->padding - s;
				if (q < 0 || q % unit->stride != 0 || q / unit->stride >= unit->Q)
					continue;
				const float *dz = work->dz + pixel_offset(&output, block, (size_t)(p / unit->stride), (size_t)(q / unit->stride));
				const float *b = state->transposed + (ct * taps + (size_t)(r * unit->S + s)) * K * TILE_CHANNELS;
				for (size_t at = 0; at < K * TILE_IMAGES; at += TILE_FLOATS)
					sum_add(&sum, dz + at, b + at);
			}
		}
		sum_close(&sum);
	}
}

void convolution_input_gradient(struct backend_state *state, const struct unit *unit, const float *weights, const float *dz, bool accumulate)
{
	struct work work = {.state = state, .unit = unit, .weights = weights, .dz = dz, .accumulate = accumulate};
	threads_run(state->config.threads, transpose_task, &work, (size_t)(unit->K / TILE_CHANNELS * unit->R * unit->S));
	threads_run(state->config.threads, input_gradient_task, &work, (size_t)(unit->C / TILE_CHANNELS) * state->blocks * (size_t)unit->H);
}
