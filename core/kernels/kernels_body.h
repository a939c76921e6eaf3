/* kernels_body.h: the kernels, written once in GCC's vector extension and compiled once an instruction set.
 *
 * The including file defines
 *     LANES         floats of a vector register
 *     TILE_ROWS     rows of the register tile of `product`      (TILE_ROWS × TILE_VECTORS accumulators must leave
 *     TILE_VECTORS  vectors of one row of it                     TILE_VECTORS + 1 registers free)
 *     STRIP_ROWS    rows of a strip: × 2 vectors of accumulators, and 3 more registers
 *     KERNELS       name of the table
 * What a multiply and an add round to (one or two roundings) is the compiler's choice per instruction set. */
#include "core/kernels/kernels.h"

#include <string.h>

typedef float vector __attribute__((vector_size(LANES * 4)));
typedef int32_t mask __attribute__((vector_size(LANES * 4)));
typedef float vector_anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias)); /* in memory */
typedef int32_t mask_anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

enum { VECTORS = TILE_CHANNELS / LANES, TILE_COLUMNS = TILE_VECTORS * LANES };

INLINE vector load(const float *from)
{
	return *(const vector_anywhere *)from;
}

INLINE void store(float *to, vector value)
{
	*(vector_anywhere *)to = value;
}

INLINE vector where(mask condition, vector value)
{
	return (vector)(condition & (mask)value);
}

INLINE vector choose(mask condition, vector yes, vector no)
{
	return (vector)((condition & (mask)yes) | (~condition & (mask)no));
}

/* --- products ------------------------------------------------------------------------------------------------------- */

/* TILE_ROWS × TILE_COLUMNS of C, kept in registers over the whole sum. */
INLINE void product_tile(const struct segment *segments, size_t count, size_t depth, size_t a_row, size_t a_depth, size_t a_offset,
	size_t b_offset, bool accumulate, float *c)
{
	vector sum[TILE_ROWS][TILE_VECTORS];
	UNROLL
	for (size_t m = 0; m < TILE_ROWS; m++) {
		UNROLL
		for (size_t v = 0; v < TILE_VECTORS; v++)
			sum[m][v] = accumulate ? load(c + m * TILE_CHANNELS + v * LANES) : (vector){0};
	}
	for (size_t i = 0; i < count; i++) {
		const float *a = segments[i].a + a_offset, *b = segments[i].b + b_offset;
		for (size_t d = 0; d < depth; d++) {
			vector row[TILE_VECTORS];
			UNROLL
			for (size_t v = 0; v < TILE_VECTORS; v++)
				row[v] = load(b + d * TILE_CHANNELS + v * LANES);
			UNROLL
			for (size_t m = 0; m < TILE_ROWS; m++) {
				float x = a[m * a_row + d * a_depth];
				UNROLL
				for (size_t v = 0; v < TILE_VECTORS; v++)
					sum[m][v] += x * row[v];
			}
		}
	}
	UNROLL
	for (size_t m = 0; m < TILE_ROWS; m++) {
		UNROLL
		for (size_t v = 0; v < TILE_VECTORS; v++)
			store(c + m * TILE_CHANNELS + v * LANES, sum[m][v]);
	}
}

/* a(m, d) = a[m·a_row + d·a_depth]; called with constants where the common case deserves its own code. */
INLINE void product_rows(const struct segment *segments, size_t count, size_t depth, size_t a_row, size_t a_depth, size_t rows,
	bool accumulate, float *c)
{
	size_t m = 0;
	for (; m + TILE_ROWS <= rows; m += TILE_ROWS)
		for (size_t n = 0; n < TILE_CHANNELS; n += TILE_COLUMNS)
			product_tile(segments, count, depth, a_row, a_depth, m * a_row, n, accumulate, c + m * TILE_CHANNELS + n);
	if (m == rows)
		return;
	/* The last rows: a whole tile beside, of which the valid rows are copied. */
	float rest[TILE_ROWS * TILE_CHANNELS] = {0};
	if (accumulate)
		memcpy(rest, c + m * TILE_CHANNELS, (rows - m) * TILE_CHANNELS * sizeof *c);
	for (size_t n = 0; n < TILE_CHANNELS; n += TILE_COLUMNS)
		product_tile(segments, count, depth, a_row, a_depth, m * a_row, n, accumulate, rest + n);
	memcpy(c + m * TILE_CHANNELS, rest, (rows - m) * TILE_CHANNELS * sizeof *c);
}

static void product(const struct segment *segments, size_t count, size_t depth, size_t a_row, size_t rows, bool accumulate, float *c)
{
	if (depth == TILE_CHANNELS && a_row == TILE_CHANNELS)
		product_rows(segments, count, TILE_CHANNELS, TILE_CHANNELS, 1, rows, accumulate, c);
	else
		product_rows(segments, count, depth, a_row, 1, rows, accumulate, c);
}

static void product_transposed(const struct segment *segments, size_t count, size_t depth, size_t a_depth, size_t rows, bool accumulate,
	float *c)
{
	if (depth == TILE_IMAGES && a_depth == TILE_CHANNELS)
		product_rows(segments, count, TILE_IMAGES, 1, TILE_CHANNELS, rows, accumulate, c);
	else
		product_rows(segments, count, depth, 1, a_depth, rows, accumulate, c);
}

static void transpose(const float *from, float *to)
{
	for (size_t i = 0; i < 32; i += 4)
		for (size_t j = 0; j < 32; j += 4) {
			quad r0 = *(const quad *)(from + i * 32 + j), r1 = *(const quad *)(from + (i + 1) * 32 + j);
			quad r2 = *(const quad *)(from + (i + 2) * 32 + j), r3 = *(const quad *)(from + (i + 3) * 32 + j);
			quad even0 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), odd0 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
			quad even1 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), odd1 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
			*(quad *)(to + j * 32 + i) = __builtin_shufflevector(even0, even1, 0, 1, 4, 5);
			*(quad *)(to + (j + 1) * 32 + i) = __builtin_shufflevector(even0, even1, 2, 3, 6, 7);
			*(quad *)(to + (j + 2) * 32 + i) = __builtin_shufflevector(odd0, odd1, 0, 1, 4, 5);
			*(quad *)(to + (j + 3) * 32 + i) = __builtin_shufflevector(odd0, odd1, 2, 3, 6, 7);
		}
}

/* --- strips --------------------------------------------------------------------------------------------------------- */

enum { STRIP_VECTORS_LEAST = 2, STRIP_VECTORS = 8 };

/* rows × vectors accumulators from channel `column` on; both are constants where this is called. */
INLINE void strip_tile(const struct strip *strip, size_t column, size_t rows, size_t vectors)
{
	vector sum[STRIP_ROWS][STRIP_VECTORS];
	UNROLL
	for (size_t m = 0; m < rows; m++) {
		UNROLL
		for (size_t v = 0; v < vectors; v++)
			sum[m][v] = (vector){0};
	}
	size_t depth = strip->depth, w_step = strip->w_step;
	const float *const *x = strip->x;
	for (size_t t = 0; t < strip->taps; t++, x += rows) {
		const float *w = strip->w[t] + column / TILE_CHANNELS * w_step + column % TILE_CHANNELS, *a[STRIP_ROWS];
		UNROLL
		for (size_t m = 0; m < rows; m++)
			a[m] = x[m];
		for (size_t d = 0; d < depth; d++, w += TILE_CHANNELS) {
			vector row[STRIP_VECTORS];
			UNROLL
			for (size_t v = 0; v < vectors; v++)
				row[v] = load(w + v * LANES / TILE_CHANNELS * w_step + v * LANES % TILE_CHANNELS);
			UNROLL
			for (size_t m = 0; m < rows; m++) {
				float factor = a[m][d];
				UNROLL
				for (size_t v = 0; v < vectors; v++)
					sum[m][v] += factor * row[v];
			}
		}
	}
	vector bias[STRIP_VECTORS];
	UNROLL
	for (size_t v = 0; v < vectors; v++)
		bias[v] = load(strip->bias + column + v * LANES);
	UNROLL
	for (size_t m = 0; m < rows; m++) {
		UNROLL
		for (size_t v = 0; v < vectors; v++)
			sum[m][v] += bias[v];
	}
	if (strip->shortcut != NULL) {
		UNROLL
		for (size_t m = 0; m < rows; m++) {
			UNROLL
			for (size_t v = 0; v < vectors; v++)
				sum[m][v] += load(strip->shortcut[m] + column + v * LANES);
		}
	}
	if (strip->relu) {
		UNROLL
		for (size_t m = 0; m < rows; m++) {
			UNROLL
			for (size_t v = 0; v < vectors; v++)
				sum[m][v] = where(~(mask)(sum[m][v] <= (vector){0}), sum[m][v]);
		}
	}
	UNROLL
	for (size_t m = 0; m < rows; m++) {
		UNROLL
		for (size_t v = 0; v < vectors; v++)
			store(strip->y[m] + column + v * LANES, sum[m][v]);
	}
}

/* The shapes: twice as many vectors for half as many rows, so that few rows, too, keep the multipliers busy while weights stream by. */
#define STRIP_CASE(ROWS, VECTORS_) \
	case ROWS: \
		if (ROWS <= STRIP_ROWS * STRIP_VECTORS_LEAST / (VECTORS_)) \
			strip_tile(strip, column, ROWS, VECTORS_); \
		break;
#define STRIP_SHAPE(VECTORS_) \
	static void strip_##VECTORS_(const struct strip *strip, size_t column) \
	{ \
		switch (strip->rows) { \
			STRIP_CASE(1, VECTORS_) STRIP_CASE(2, VECTORS_) STRIP_CASE(3, VECTORS_) STRIP_CASE(4, VECTORS_) \
			STRIP_CASE(5, VECTORS_) STRIP_CASE(6, VECTORS_) STRIP_CASE(7, VECTORS_) STRIP_CASE(8, VECTORS_) \
			STRIP_CASE(9, VECTORS_) STRIP_CASE(10, VECTORS_) STRIP_CASE(11, VECTORS_) STRIP_CASE(12, VECTORS_) \
		default: break; \
		} \
	}

STRIP_SHAPE(2)
STRIP_SHAPE(4)
STRIP_SHAPE(8)

static void strip(const struct strip *strip)
{
	static const struct {
		size_t vectors;
		void (*run)(const struct strip *strip, size_t column);
	} shapes[] = {{8, strip_8}, {4, strip_4}, {2, strip_2}};
	size_t columns = strip->blocks * TILE_CHANNELS, column = 0;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		while (strip->rows * shapes[i].vectors <= STRIP_ROWS * STRIP_VECTORS_LEAST && column + shapes[i].vectors * LANES <= columns) {
			shapes[i].run(strip, column);
			column += shapes[i].vectors * LANES;
		}
}

static void maximum_rows(const float *const *x, size_t rows, size_t count, float *y)
{
	for (size_t at = 0; at < count; at += LANES) {
		vector best = load(x[0] + at);
		for (size_t i = 1; i < rows; i++) {
			vector value = load(x[i] + at);
			best = choose((mask)(value > best) | (mask)(value != value), value, best);
		}
		store(y + at, best);
	}
}

/* --- batch norm ----------------------------------------------------------------------------------------------------- */

static void moments(const float *z, size_t rows, float *mean, float *squares)
{
	vector sum[VECTORS] = {0}, square[VECTORS] = {0};
	for (size_t i = 0; i < rows; i++) {
		UNROLL
		for (size_t v = 0; v < VECTORS; v++)
			sum[v] += load(z + i * TILE_CHANNELS + v * LANES);
	}
	UNROLL
	for (size_t v = 0; v < VECTORS; v++)
		sum[v] = sum[v] / (float)rows;
	for (size_t i = 0; i < rows; i++) {
		UNROLL
		for (size_t v = 0; v < VECTORS; v++) {
			vector distance = load(z + i * TILE_CHANNELS + v * LANES) - sum[v];
			square[v] += distance * distance;
		}
	}
	UNROLL
	for (size_t v = 0; v < VECTORS; v++) {
		store(mean + v * LANES, sum[v]);
		store(squares + v * LANES, square[v]);
	}
}

INLINE void normalize_rows(const float *z, size_t rows, const float *mean, const float *scale, const float *bias, const float *shortcut,
	bool relu, float *y)
{
	for (size_t v = 0; v < VECTORS; v++) {
		vector m = load(mean + v * LANES), s = load(scale + v * LANES), b = load(bias + v * LANES);
		for (size_t i = 0; i < rows; i++) {
			size_t at = i * TILE_CHANNELS + v * LANES;
			vector value = (load(z + at) - m) * s + b;
			if (shortcut != NULL)
				value += load(shortcut + at);
			if (relu)
				value = where(~(mask)(value <= (vector){0}), value);
			store(y + at, value);
		}
	}
}

static void normalize(const float *z, size_t rows, const float *mean, const float *scale, const float *bias, const float *shortcut, bool relu,
	float *y)
{
	if (shortcut != NULL)
		normalize_rows(z, rows, mean, scale, bias, shortcut, relu, y);
	else if (relu)
		normalize_rows(z, rows, mean, scale, bias, NULL, true, y);
	else
		normalize_rows(z, rows, mean, scale, bias, NULL, false, y);
}

INLINE vector masked_gradient(const float *dy, const float *y, size_t at)
{
	vector g = load(dy + at);
	return y == NULL ? g : where(~(mask)(load(y + at) <= (vector){0}), g);
}

static void gradient_sums(const float *dy, const float *y, const float *z, size_t rows, const float *mean, float *sum, float *sum_centred,
	float *shortcut_gradient, bool accumulate)
{
	for (size_t v = 0; v < VECTORS; v++) {
		vector m = load(mean + v * LANES), total = {0}, centred = {0};
		for (size_t i = 0; i < rows; i++) {
			size_t at = i * TILE_CHANNELS + v * LANES;
			vector g = masked_gradient(dy, y, at);
			total += g;
			centred += g * (load(z + at) - m);
			if (shortcut_gradient != NULL)
				store(shortcut_gradient + at, accumulate ? load(shortcut_gradient + at) + g : g);
		}
		store(sum + v * LANES, total);
		store(sum_centred + v * LANES, centred);
	}
}

static void normalize_backward(const float *dy, const float *y, size_t rows, const float *mean, const float *mean_g, const float *slope,
	const float *scale, float *z)
{
	for (size_t v = 0; v < VECTORS; v++) {
		vector m = load(mean + v * LANES), mg = load(mean_g + v * LANES), t = load(slope + v * LANES), s = load(scale + v * LANES);
		for (size_t i = 0; i < rows; i++) {
			size_t at = i * TILE_CHANNELS + v * LANES;
			store(z + at, (masked_gradient(dy, y, at) - mg - (load(z + at) - m) * t) * s);
		}
	}
}

/* --- pooling -------------------------------------------------------------------------------------------------------- */

static void maximum(const float *const *x, const int32_t *tap, size_t count, size_t rows, float *y, int32_t *which)
{
	for (size_t at = 0; at < rows * TILE_CHANNELS; at += LANES) {
		vector best = load(x[0] + at);
		mask first = (mask){0} + tap[0];
		for (size_t i = 1; i < count; i++) {
			vector value = load(x[i] + at);
			mask larger = (mask)(value > best) | (mask)(value != value);
			best = choose(larger, value, best);
			first = (larger & tap[i]) | (~larger & first);
		}
		store(y + at, best);
		*(mask_anywhere *)(which + at) = first;
	}
}

static void maximum_backward(const float *dy, const int32_t *which, int32_t tap, size_t rows, float *dx)
{
	for (size_t at = 0; at < rows * TILE_CHANNELS; at += LANES) {
		mask here = *(const mask_anywhere *)(which + at) == tap;
		store(dx + at, load(dx + at) + where(here, load(dy + at)));
	}
}

/* --- vectors -------------------------------------------------------------------------------------------------------- */

static float dot(const float *a, const float *b, size_t count)
{
	vector sum[4] = {0};
	size_t i = 0;
	for (; i + 4 * LANES <= count; i += 4 * LANES) {
		UNROLL
		for (size_t v = 0; v < 4; v++)
			sum[v] += load(a + i + v * LANES) * load(b + i + v * LANES);
	}
	vector all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
	float total = 0;
	for (size_t lane = 0; lane < LANES; lane++)
		total += all[lane];
	for (; i < count; i++)
		total += a[i] * b[i];
	return total;
}

static void axpy(float a, const float *x, size_t count, float *y)
{
	size_t i = 0;
	for (; i + LANES <= count; i += LANES)
		store(y + i, load(y + i) + a * load(x + i));
	for (; i < count; i++)
		y[i] += a * x[i];
}

/* One update of `width` vectors, or of single floats: the same operations in the same order. */
#define UPDATE_ONCE(step, g, w, v, ema) \
	do { \
		__typeof__(w) d = (g) * (step)->scale + (step)->decay * (w); \
		if ((step)->first) \
			(v) = d; \
		else \
			(v) = (step)->momentum * (v) + d; \
		if ((step)->nesterov) \
			(w) -= (step)->lr * (d + (step)->momentum * (v)); \
		else \
			(w) -= (step)->lr * (v); \
		(ema) += (step)->ema_share * ((w) - (ema)); \
	} while (0)

enum { UPDATE_VECTORS = TILE_CHANNELS / LANES };

static void update(const struct sgd *steps, size_t steps_count, size_t count, const float *g, float *w, float *v, float *ema)
{
	size_t i = 0;
	for (; i + TILE_CHANNELS <= count; i += TILE_CHANNELS) {
		vector weight[UPDATE_VECTORS], velocity[UPDATE_VECTORS], average[UPDATE_VECTORS], gradient[UPDATE_VECTORS];
		UNROLL
		for (size_t k = 0; k < UPDATE_VECTORS; k++) {
			weight[k] = load(w + i + k * LANES);
			velocity[k] = load(v + i + k * LANES);
			average[k] = ema != NULL ? load(ema + i + k * LANES) : (vector){0};
			gradient[k] = g != NULL ? load(g + i + k * LANES) : (vector){0};
		}
		for (size_t s = 0; s < steps_count; s++) {
			const struct sgd *step = &steps[s];
			UNROLL
			for (size_t k = 0; k < UPDATE_VECTORS; k++)
				UPDATE_ONCE(step, gradient[k], weight[k], velocity[k], average[k]);
		}
		UNROLL
		for (size_t k = 0; k < UPDATE_VECTORS; k++) {
			store(w + i + k * LANES, weight[k]);
			store(v + i + k * LANES, velocity[k]);
			if (ema != NULL)
				store(ema + i + k * LANES, average[k]);
		}
	}
	for (; i < count; i++) {
		float gradient = g != NULL ? g[i] : 0, average = ema != NULL ? ema[i] : 0;
		for (size_t s = 0; s < steps_count; s++)
			UPDATE_ONCE(&steps[s], gradient, w[i], v[i], average);
		if (ema != NULL)
			ema[i] = average;
	}
}

static double squares(const float *x, size_t count)
{
	double sum[TILE_CHANNELS] = {0};
	size_t i = 0;
	for (; i + TILE_CHANNELS <= count; i += TILE_CHANNELS)
		for (size_t lane = 0; lane < TILE_CHANNELS; lane++)
			sum[lane] += (double)x[i + lane] * (double)x[i + lane];
	double total = 0;
	for (size_t lane = 0; lane < TILE_CHANNELS; lane++)
		total += sum[lane];
	for (; i < count; i++)
		total += (double)x[i] * (double)x[i];
	return total;
}

const struct kernels KERNELS = {
	.name = KERNELS_NAME,
	.strip_rows = STRIP_ROWS,
	.product = product,
	.product_transposed = product_transposed,
	.transpose = transpose,
	.strip = strip,
	.maximum_rows = maximum_rows,
	.moments = moments,
	.normalize = normalize,
	.gradient_sums = gradient_sums,
	.normalize_backward = normalize_backward,
	.maximum = maximum,
	.maximum_backward = maximum_backward,
	.dot = dot,
	.axpy = axpy,
	.update = update,
	.squares = squares,
};
