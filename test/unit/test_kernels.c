/* test_kernels.c: every table of kernels that this machine can run, against plain loops in double.
 *
 * Method: each output starts as NaN between guard values; each comparison uses a tolerance derived from the length of the sum
 * (t = v·(M·ε + ε) with v the largest term) and the largest share of it that was used is printed. A tolerance as large as the data
 * fails. Copies, masks and choices are compared exactly. A table that this machine cannot run is skipped, with the reason. */
#include "core/base/random.h"
#include "core/kernels/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD = 64, DEPTH_MAX = 32, SEGMENTS_MAX = 5, STEP_MAX = 114 };
static const double EPSILON = 0x1p-24;
static const float GUARD_VALUE = 12345.5f;

/* The table that a test's state names. */
static const struct kernels *table(void **state)
{
	return kernels_find(*(const enum cpu *)*state);
}

/* --- data ----------------------------------------------------------------------------------------------------------- */

static void fill_random(float *values, size_t count, uint64_t index)
{
	struct random_stream stream = random_open(7, RANDOM_TEST, 0, index);
	for (size_t i = 0; i < count; i++)
		values[i] = (float)(2 * random_unit(&stream) - 1);
}

/* `count` NaNs between guards. */
struct output {
	float memory[GUARD + TILE_FLOATS * 2 + GUARD];
	float *at;
	size_t count;
};

static float *output_open(struct output *output, size_t count)
{
	assert_true(count <= TILE_FLOATS * 2);
	for (size_t i = 0; i < sizeof output->memory / sizeof output->memory[0]; i++)
		output->memory[i] = i >= GUARD && i < GUARD + count ? NAN : GUARD_VALUE;
	output->at = output->memory + GUARD;
	output->count = count;
	return output->at;
}

static void output_check_guards(const struct output *output)
{
	for (size_t i = 0; i < GUARD; i++) {
		assert_true(output->memory[i] == GUARD_VALUE);
		assert_true(output->at[output->count + i] == GUARD_VALUE);
	}
}

/* The largest error as a share of its tolerance, over a test; printed when it ends. */
static double used_max;

static void check(float found, double wanted, double tolerance, double data)
{
	assert_true(tolerance < data);
	double used = fabs((double)found - wanted) / tolerance;
	if (!(used <= 1))
		fail_msg("found %.9g, wanted %.9g, tolerance %.3g", (double)found, wanted, tolerance);
	used_max = used > used_max ? used : used_max;
}

static void used_print(const struct kernels *kernels, const char *what)
{
	print_message("%s %s: %.3f of the tolerance used\n", kernels->name, what, used_max);
	used_max = 0;
}

/* --- products ------------------------------------------------------------------------------------------------------- */

static float a_memory[SEGMENTS_MAX][(TILE_IMAGES + PRODUCT_ROWS_SLACK) * STEP_MAX + DEPTH_MAX], b_memory[SEGMENTS_MAX][DEPTH_MAX * TILE_CHANNELS];

static void product_case(const struct kernels *kernels, bool transposed, size_t count, size_t depth, size_t step, size_t rows, bool accumulate)
{
	struct segment segments[SEGMENTS_MAX];
	for (size_t i = 0; i < count; i++) {
		fill_random(a_memory[i], sizeof a_memory[i] / sizeof(float), i);
		fill_random(b_memory[i], sizeof b_memory[i] / sizeof(float), 100 + i);
		segments[i] = (struct segment){a_memory[i], b_memory[i]};
		/* What is read but not used may be anything. */
		if (!transposed)
			for (size_t m = rows; m < TILE_IMAGES; m++)
				for (size_t d = 0; d < depth; d++)
					a_memory[i][m * step + d] = NAN;
	}
	static struct output output;
	float *c = output_open(&output, rows * TILE_CHANNELS);
	if (accumulate)
		fill_random(c, rows * TILE_CHANNELS, 200);
	float before[TILE_FLOATS];
	memcpy(before, c, rows * TILE_CHANNELS * sizeof *c);
	(transposed ? kernels->product_transposed : kernels->product)(segments, count, depth, step, rows, accumulate, c);
	output_check_guards(&output);
	double terms = (double)(count * depth), tolerance = (terms + 1) * EPSILON + EPSILON;
	for (size_t m = 0; m < rows; m++)
		for (size_t n = 0; n < TILE_CHANNELS; n++) {
			double sum = accumulate ? (double)before[m * TILE_CHANNELS + n] : 0;
			for (size_t i = 0; i < count; i++)
				for (size_t d = 0; d < depth; d++)
					sum += (double)a_memory[i][transposed ? d * step + m : m * step + d] * (double)b_memory[i][d * TILE_CHANNELS + n];
			check(c[m * TILE_CHANNELS + n], sum, tolerance, 0.01);
		}
}

static void test_product(void **state)
{
	const struct kernels *kernels = table(state);
	static const size_t depths[] = {32, 32, 9, 21, 1}, steps[] = {32, 114, 102, 114, 32};
	for (int transposed = 0; transposed < 2; transposed++) {
		for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++)
			for (size_t rows = 1; rows <= TILE_IMAGES; rows++)
				for (size_t count = 1; count <= SEGMENTS_MAX; count += 2)
					product_case(kernels, transposed, count, depths[i], steps[i], rows, rows % 2 == count / 2 % 2);
		used_print(kernels, transposed ? "product_transposed" : "product");
	}
}

static void test_transpose(void **state)
{
	const struct kernels *kernels = table(state);
	float from[TILE_FLOATS];
	static struct output output;
	float *to = output_open(&output, TILE_FLOATS);
	fill_random(from, TILE_FLOATS, 1);
	kernels->transpose(from, to);
	output_check_guards(&output);
	for (size_t i = 0; i < 32; i++)
		for (size_t j = 0; j < 32; j++)
			assert_true(to[j * 32 + i] == from[i * 32 + j]);
}

/* --- batch norm ----------------------------------------------------------------------------------------------------- */

static void test_moments(void **state)
{
	const struct kernels *kernels = table(state);
	float z[TILE_FLOATS];
	fill_random(z, TILE_FLOATS, 2);
	for (size_t i = 0; i < TILE_FLOATS; i++)
		z[i] += 3; /* a mean away from zero */
	for (size_t rows = 1; rows <= TILE_IMAGES; rows++) {
		static struct output mean_output, squares_output;
		float *mean = output_open(&mean_output, TILE_CHANNELS), *squares = output_open(&squares_output, TILE_CHANNELS);
		kernels->moments(z, rows, mean, squares);
		output_check_guards(&mean_output);
		output_check_guards(&squares_output);
		for (size_t k = 0; k < TILE_CHANNELS; k++) {
			double sum = 0, square = 0, n = (double)rows;
			for (size_t i = 0; i < rows; i++)
				sum += (double)z[i * TILE_CHANNELS + k];
			for (size_t i = 0; i < rows; i++)
				square += ((double)z[i * TILE_CHANNELS + k] - sum / n) * ((double)z[i * TILE_CHANNELS + k] - sum / n);
			double mean_tolerance = 4 * (n * EPSILON + EPSILON);
			check(mean[k], sum / n, mean_tolerance, 2);
			check(squares[k], square, n * (2 * 2 * mean_tolerance) + 4 * (n * EPSILON + EPSILON), 1);
		}
	}
	used_print(kernels, "moments");
}

static float normal_max(const float *values, size_t count)
{
	float largest = 0;
	for (size_t i = 0; i < count; i++)
		largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
	return largest;
}

static void test_normalize(void **state)
{
	const struct kernels *kernels = table(state);
	float z[TILE_FLOATS], shortcut[TILE_FLOATS], mean[TILE_CHANNELS], scale[TILE_CHANNELS], bias[TILE_CHANNELS];
	fill_random(z, TILE_FLOATS, 3);
	fill_random(shortcut, TILE_FLOATS, 4);
	fill_random(mean, TILE_CHANNELS, 5);
	fill_random(scale, TILE_CHANNELS, 6);
	fill_random(bias, TILE_CHANNELS, 7);
	assert_true(normal_max(z, TILE_FLOATS) > 0.9f);
	for (size_t rows = 1; rows <= TILE_IMAGES; rows++)
		for (int kind = 0; kind < 8; kind++) {
			bool added = kind & 1, relu = kind & 2, in_place = kind & 4;
			static struct output output;
			float *y = output_open(&output, rows * TILE_CHANNELS);
			if (in_place)
				memcpy(y, z, rows * TILE_CHANNELS * sizeof *y);
			kernels->normalize(in_place ? y : z, rows, mean, scale, bias, added ? shortcut : NULL, relu, y);
			output_check_guards(&output);
			for (size_t i = 0; i < rows * TILE_CHANNELS; i++) {
				size_t k = i % TILE_CHANNELS;
				double wanted = ((double)z[i] - (double)mean[k]) * (double)scale[k] + (double)bias[k] + (added ? (double)shortcut[i] : 0);
				check(y[i], relu && wanted < 0 ? 0 : wanted, 4 * (4 * EPSILON), 0.01);
				assert_true(!relu || y[i] >= 0);
			}
		}
	/* What is not a number must stay visible. */
	z[5] = NAN;
	float y[TILE_FLOATS];
	kernels->normalize(z, 1, mean, scale, bias, NULL, true, y);
	assert_true(isnan(y[5]) && !isnan(y[4]) && !isnan(y[6]));
	used_print(kernels, "normalize");
}

static void test_norm_gradients(void **state)
{
	const struct kernels *kernels = table(state);
	float dy[TILE_FLOATS], y[TILE_FLOATS], z[TILE_FLOATS], held[TILE_FLOATS], mean[TILE_CHANNELS], mean_g[TILE_CHANNELS], slope[TILE_CHANNELS],
		scale[TILE_CHANNELS];
	fill_random(dy, TILE_FLOATS, 8);
	fill_random(y, TILE_FLOATS, 9);
	fill_random(z, TILE_FLOATS, 10);
	fill_random(held, TILE_FLOATS, 11);
	fill_random(mean, TILE_CHANNELS, 12);
	fill_random(mean_g, TILE_CHANNELS, 13);
	fill_random(slope, TILE_CHANNELS, 14);
	fill_random(scale, TILE_CHANNELS, 15);
	for (size_t i = 0; i < TILE_FLOATS; i += 7)
		y[i] = 0; /* a ReLU's output: no gradient */
	for (size_t rows = 1; rows <= TILE_IMAGES; rows++)
		for (int kind = 0; kind < 6; kind++) {
			bool relu = kind & 1;
			int shortcut = kind / 2; /* none, written, added */
			static struct output sum_output, centred_output, shortcut_output, z_output;
			float *sum = output_open(&sum_output, TILE_CHANNELS), *centred = output_open(&centred_output, TILE_CHANNELS);
			float *given = output_open(&shortcut_output, rows * TILE_CHANNELS), *dz = output_open(&z_output, rows * TILE_CHANNELS);
			if (shortcut == 2)
				memcpy(given, held, rows * TILE_CHANNELS * sizeof *given);
			memcpy(dz, z, rows * TILE_CHANNELS * sizeof *dz);
			kernels->gradient_sums(dy, relu ? y : NULL, z, rows, mean, sum, centred, shortcut != 0 ? given : NULL, shortcut == 2);
			kernels->normalize_backward(dy, relu ? y : NULL, rows, mean, mean_g, slope, scale, dz);
			output_check_guards(&sum_output);
			output_check_guards(&centred_output);
			output_check_guards(&shortcut_output);
			output_check_guards(&z_output);
			for (size_t k = 0; k < TILE_CHANNELS; k++) {
				double total = 0, total_centred = 0;
				for (size_t i = 0; i < rows; i++) {
					size_t at = i * TILE_CHANNELS + k;
					float g = relu && y[at] <= 0 ? 0 : dy[at];
					double distance = (double)z[at] - (double)mean[k];
					total += (double)g;
					total_centred += (double)g * distance;
					if (shortcut != 0)
						assert_true(given[at] == (shortcut == 2 ? held[at] + g : g));
					check(dz[at], ((double)g - (double)mean_g[k] - distance * (double)slope[k]) * (double)scale[k], 4 * (5 * EPSILON), 0.01);
				}
				check(sum[k], total, (double)rows * EPSILON + EPSILON, 0.01);
				check(centred[k], total_centred, 2 * ((double)(rows + 1) * EPSILON + EPSILON), 0.01);
			}
		}
	used_print(kernels, "norm gradients");
}

/* --- pooling -------------------------------------------------------------------------------------------------------- */

static void test_maximum(void **state)
{
	const struct kernels *kernels = table(state);
	static float x[9][TILE_FLOATS], dy[TILE_FLOATS];
	const float *pointers[9];
	int32_t taps[9], which[TILE_FLOATS];
	fill_random(dy, TILE_FLOATS, 50);
	for (size_t i = 0; i < 9; i++) {
		fill_random(x[i], TILE_FLOATS, 20 + i);
		for (size_t at = 0; at < TILE_FLOATS; at += 3)
			x[i][at] = roundf(x[i][at]); /* many ties */
		pointers[i] = x[i];
		taps[i] = (int32_t)(8 - i);
	}
	x[3][8] = NAN;
	for (size_t count = 1; count <= 9; count++) {
		static struct output output, gradient;
		size_t rows = 32 - count;
		float *y = output_open(&output, rows * TILE_CHANNELS), *dx = output_open(&gradient, rows * TILE_CHANNELS);
		kernels->maximum(pointers, taps, count, rows, y, which);
		output_check_guards(&output);
		for (size_t at = 0; at < rows * TILE_CHANNELS; at++) {
			size_t best = 0;
			for (size_t i = 1; i < count; i++)
				if (x[i][at] > x[best][at] || isnan(x[i][at]))
					best = i;
			assert_true(which[at] == taps[best]);
			assert_memory_equal(&y[at], &x[best][at], sizeof *y);
			dx[at] = 1;
		}
		kernels->maximum_backward(dy, which, taps[0], rows, dx);
		output_check_guards(&gradient);
		for (size_t at = 0; at < rows * TILE_CHANNELS; at++)
			assert_true(dx[at] == (which[at] == taps[0] ? 1 + dy[at] : 1));
	}
}

/* --- vectors -------------------------------------------------------------------------------------------------------- */

static void test_vectors(void **state)
{
	const struct kernels *kernels = table(state);
	float a[515], b[515];
	fill_random(a, 515, 30);
	fill_random(b, 515, 31);
	for (size_t count = 1; count <= 515; count += count < 70 ? 1 : 89) {
		double dot = 0, squares = 0, terms = (double)count;
		for (size_t i = 0; i < count; i++) {
			dot += (double)a[i] * (double)b[i];
			squares += (double)a[i] * (double)a[i];
		}
		check(kernels->dot(a, b, count), dot, terms * EPSILON + EPSILON, 0.01);
		assert_true(fabs(kernels->squares(a, count) - squares) <= terms * terms * 0x1p-53);
		static struct output output;
		float *y = output_open(&output, count);
		memcpy(y, b, count * sizeof *y);
		kernels->axpy(0.75f, a, count, y);
		output_check_guards(&output);
		for (size_t i = 0; i < count; i++)
			check(y[i], (double)b[i] + 0.75 * (double)a[i], 2 * (2 * EPSILON), 0.01);
	}
	used_print(kernels, "vectors");
}

static void test_update(void **state)
{
	const struct kernels *kernels = table(state);
	enum { COUNT = 101 };
	float g[COUNT];
	fill_random(g, COUNT, 40);
	for (int kind = 0; kind < 16; kind++) {
		struct sgd step = {.lr = 0.125f, .momentum = 0.75f, .decay = 0.01f, .scale = 0.5f, .ema_share = 0.1f, .nesterov = kind & 1, .first = kind & 2};
		bool average = kind & 4, gradient = kind & 8;
		static struct output weights, velocities, averages;
		float *w = output_open(&weights, COUNT), *v = output_open(&velocities, COUNT), *ema = output_open(&averages, COUNT);
		fill_random(w, COUNT, 41);
		fill_random(v, COUNT, 42);
		fill_random(ema, COUNT, 43);
		float w0[COUNT], v0[COUNT], ema0[COUNT];
		memcpy(w0, w, sizeof w0);
		memcpy(v0, v, sizeof v0);
		memcpy(ema0, ema, sizeof ema0);
		if (step.first)
			for (size_t i = 0; i < COUNT; i++)
				v[i] = NAN; /* undefined before the first update */
		kernels->update(&step, 1, COUNT, gradient ? g : NULL, w, v, average ? ema : NULL);
		output_check_guards(&weights);
		output_check_guards(&velocities);
		output_check_guards(&averages);
		for (size_t i = 0; i < COUNT; i++) {
			double d = (gradient ? (double)g[i] * 0.5 : 0) + (double)step.decay * (double)w0[i];
			double velocity = step.first ? d : 0.75 * (double)v0[i] + d, weight = (double)w0[i] - 0.125 * (step.nesterov ? d + 0.75 * velocity : velocity);
			check(v[i], velocity, 2 * (4 * EPSILON), 0.001);
			check(w[i], weight, 2 * (6 * EPSILON), 0.01);
			check(ema[i], (double)ema0[i] + (average ? (double)step.ema_share * (weight - (double)ema0[i]) : 0), 2 * (8 * EPSILON), 0.01);
		}
	}
	used_print(kernels, "update");
	/* Updates without gradient, one after another or at once: the same bits. */
	struct sgd steps[7];
	float w[2][COUNT], v[2][COUNT], ema[2][COUNT];
	for (size_t s = 0; s < 7; s++)
		steps[s] = (struct sgd){.lr = 0.1f + 0.01f * (float)s, .momentum = 0.9f, .decay = 5e-4f, .scale = 1, .ema_share = 0.01f, .nesterov = s % 2, .first = s == 0};
	for (size_t i = 0; i < 2; i++) {
		fill_random(w[i], COUNT, 44);
		fill_random(v[i], COUNT, 45);
		fill_random(ema[i], COUNT, 46);
	}
	kernels->update(steps, 7, COUNT, NULL, w[0], v[0], ema[0]);
	for (size_t s = 0; s < 7; s++)
		kernels->update(&steps[s], 1, COUNT, NULL, w[1], v[1], ema[1]);
	assert_memory_equal(w[0], w[1], sizeof w[0]);
	assert_memory_equal(v[0], v[1], sizeof v[0]);
	assert_memory_equal(ema[0], ema[1], sizeof ema[0]);
}

/* --- strips --------------------------------------------------------------------------------------------------------- */

enum { STRIP_TAPS = 3, STRIP_BLOCKS = 7, STRIP_STEP = STRIP_BLOCKS * TILE_CHANNELS };

/* Every number of rows with numbers of blocks that need every shape; each output's bits are those of its pixel alone, one block at a time. */
static void test_strip(void **state)
{
	const struct kernels *kernels = table(state);
	static const size_t depths[] = {1, 9, 32, 77}, blocks_tried[] = {1, 2, 3, 4, 7};
	static float x[STRIP_TAPS * STRIP_ROWS_MAX][80], w[STRIP_BLOCKS][STRIP_TAPS * 80 * TILE_CHANNELS], bias[STRIP_STEP], shortcut[STRIP_ROWS_MAX][STRIP_STEP];
	assert_true(kernels->strip_rows >= 1 && kernels->strip_rows <= STRIP_ROWS_MAX);
	fill_random(&x[0][0], sizeof x / sizeof(float), 50);
	fill_random(&w[0][0], sizeof w / sizeof(float), 51);
	fill_random(bias, STRIP_STEP, 52);
	fill_random(&shortcut[0][0], sizeof shortcut / sizeof(float), 53);
	for (size_t rows = 1; rows <= kernels->strip_rows; rows++)
		for (size_t i = 0; i < sizeof blocks_tried / sizeof *blocks_tried; i++)
			for (int kind = 0; kind < 4; kind++) {
				size_t blocks = blocks_tried[i], depth = depths[(i + rows) % 4], taps = 1 + (rows + i) % STRIP_TAPS;
				bool added = kind & 1, relu = kind & 2;
				const float *xs[STRIP_TAPS * STRIP_ROWS_MAX], *ws[STRIP_TAPS], *shortcuts[STRIP_ROWS_MAX];
				static float found[STRIP_ROWS_MAX][GUARD + STRIP_STEP + GUARD];
				float *ys[STRIP_ROWS_MAX];
				for (size_t t = 0; t < taps; t++) {
					ws[t] = w[0] + t * depth * TILE_CHANNELS;
					for (size_t m = 0; m < rows; m++)
						xs[t * rows + m] = x[(t * 7 + m * 5) % (STRIP_TAPS * STRIP_ROWS_MAX)];
				}
				for (size_t m = 0; m < rows; m++) {
					for (size_t n = 0; n < sizeof found[0] / sizeof(float); n++)
						found[m][n] = n >= GUARD && n < GUARD + blocks * TILE_CHANNELS ? NAN : GUARD_VALUE;
					ys[m] = found[m] + GUARD;
					shortcuts[m] = shortcut[m];
				}
				struct strip strip = {.rows = rows, .taps = taps, .depth = depth, .blocks = blocks, .x = xs, .w = ws, .w_step = sizeof w[0] / sizeof(float),
					.bias = bias, .shortcut = added ? shortcuts : NULL, .relu = relu, .y = ys};
				kernels->strip(&strip);
				for (size_t m = 0; m < rows; m++) {
					for (size_t n = 0; n < blocks * TILE_CHANNELS; n++) {
						double sum = (double)bias[n] + (added ? (double)shortcut[m][n] : 0);
						for (size_t t = 0; t < taps; t++)
							for (size_t d = 0; d < depth; d++)
								sum += (double)xs[t * rows + m][d] * (double)w[n / TILE_CHANNELS][(t * depth + d) * TILE_CHANNELS + n % TILE_CHANNELS];
						check(ys[m][n], relu && sum < 0 ? 0 : sum, (double)(taps * depth + 2) * (2 + sqrt((double)(taps * depth))) * EPSILON, 0.01);
					}
					for (size_t n = 0; n < GUARD; n++)
						assert_true(found[m][n] == GUARD_VALUE && found[m][GUARD + blocks * TILE_CHANNELS + n] == GUARD_VALUE);
					/* Alone. */
					const float *x_alone[STRIP_TAPS], *shortcut_alone[1];
					float y_alone[TILE_CHANNELS], *y_pointer = y_alone;
					size_t block = (m + i) % blocks;
					for (size_t t = 0; t < taps; t++) {
						x_alone[t] = xs[t * rows + m];
						ws[t] = w[block] + t * depth * TILE_CHANNELS;
					}
					shortcut_alone[0] = shortcut[m] + block * TILE_CHANNELS;
					const struct strip alone = {.rows = 1, .taps = taps, .depth = depth, .blocks = 1, .x = x_alone, .w = ws, .bias = bias + block * TILE_CHANNELS,
						.shortcut = added ? shortcut_alone : NULL, .relu = relu, .y = &y_pointer};
					kernels->strip(&alone);
					assert_memory_equal(y_alone, ys[m] + block * TILE_CHANNELS, sizeof y_alone);
				}
			}
	used_print(kernels, "strip");
}

/* A zero row adds nothing, to the bit; NaN stays NaN behind a ReLU; the output may lie on the shortcut. */
static void test_strip_edges(void **state)
{
	const struct kernels *kernels = table(state);
	enum { DEPTH = 40 };
	static float x[2][DEPTH], w[2][DEPTH * TILE_CHANNELS], bias[TILE_CHANNELS], zeros[DEPTH], one[TILE_CHANNELS], two[TILE_CHANNELS];
	fill_random(x[0], DEPTH, 60);
	fill_random(w[0], 2 * DEPTH * TILE_CHANNELS, 61);
	fill_random(bias, TILE_CHANNELS, 62);
	const float *xs[2] = {zeros, x[0]}, *ws[2] = {w[0], w[1]};
	float *y = one;
	struct strip strip = {.rows = 1, .taps = 2, .depth = DEPTH, .blocks = 1, .x = xs, .w = ws, .bias = bias, .y = &y};
	kernels->strip(&strip);
	y = two;
	strip.taps = 1;
	strip.x = xs + 1;
	strip.w = ws + 1;
	kernels->strip(&strip);
	assert_memory_equal(one, two, sizeof one);
	const float *shortcut = two;
	strip.shortcut = &shortcut;
	kernels->strip(&strip);
	for (size_t n = 0; n < TILE_CHANNELS; n++)
		assert_true(two[n] == one[n] + one[n]);
	x[0][3] = NAN;
	strip.relu = true;
	kernels->strip(&strip);
	for (size_t n = 0; n < TILE_CHANNELS; n++)
		assert_true(isnan(two[n]));
}

static void test_maximum_rows(void **state)
{
	const struct kernels *kernels = table(state);
	enum { COUNT = 3 * TILE_CHANNELS, ROWS = 9 };
	static float x[ROWS][COUNT];
	fill_random(&x[0][0], ROWS * COUNT, 70);
	x[4][5] = NAN;
	x[0][6] = NAN;
	x[ROWS - 1][7] = INFINITY;
	const float *xs[ROWS];
	for (size_t i = 0; i < ROWS; i++)
		xs[i] = x[i];
	for (size_t rows = 1; rows <= ROWS; rows++) {
		struct output output;
		float *y = output_open(&output, COUNT);
		kernels->maximum_rows(xs, rows, COUNT, y);
		output_check_guards(&output);
		for (size_t n = 0; n < COUNT; n++) {
			float wanted = x[0][n];
			for (size_t i = 1; i < rows; i++)
				wanted = x[i][n] > wanted || isnan(x[i][n]) ? x[i][n] : wanted;
			assert_memory_equal(&y[n], &wanted, sizeof wanted);
		}
	}
}

static void test_table(void **state)
{
	(void)state;
	assert_ptr_equal(kernels_find(CPU_GENERIC), &kernels_generic);
	assert_ptr_equal(kernels_find(CPU_AVX2), &kernels_avx2);
	for (int cpu = CPU_AVX512; cpu < CPU_COUNT; cpu++)
		assert_ptr_equal(kernels_find((enum cpu)cpu), &kernels_avx512);
}

/* The tests of one instruction set, by cmocka; or a line for each that this machine cannot run. */
static int run_all(enum cpu *cpu)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_product, cpu),
		cmocka_unit_test_prestate(test_transpose, cpu),
		cmocka_unit_test_prestate(test_moments, cpu),
		cmocka_unit_test_prestate(test_normalize, cpu),
		cmocka_unit_test_prestate(test_norm_gradients, cpu),
		cmocka_unit_test_prestate(test_maximum, cpu),
		cmocka_unit_test_prestate(test_vectors, cpu),
		cmocka_unit_test_prestate(test_update, cpu),
		cmocka_unit_test_prestate(test_strip, cpu),
		cmocka_unit_test_prestate(test_strip_edges, cpu),
		cmocka_unit_test_prestate(test_maximum_rows, cpu),
	};
	if (*cpu <= cpu_detect())
		return cmocka_run_group_tests_name(cpu_word(*cpu), tests, NULL, NULL);
	for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
		printf("[  SKIPPED ] %s %s: this machine lacks %s\n", tests[i].name, cpu_word(*cpu), cpu_needs(*cpu));
	return 0;
}

int main(void)
{
	static enum cpu cpus[] = {CPU_GENERIC, CPU_AVX2, CPU_AVX512};
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_table)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	for (size_t i = 0; i < sizeof cpus / sizeof cpus[0]; i++)
		failed += run_all(&cpus[i]);
	return failed;
}
