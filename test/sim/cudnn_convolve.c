/* cudnn_convolve.c: the three convolutions on NHWC fp32 values, fast enough to train on.
 *
 * All are sums of products of rows with a packed panel: 6 rows of `depth` values times a panel (depth, 16) gives a tile of 6 × 16. Rows are
 * pointers into the tensor itself; a tap that meets padding has a row of zeros, and one that does so for a whole tile is passed over.
 * A product is summed in fp32 over at most 256 values at a time, as real kernels do in parts. */
#include "test/sim/cudnn_sim.h"
#include "test/sim/sim.h"

#include <stdlib.h>
#include <string.h>

enum { TILE_ROWS = 6, TILE_COLUMNS = 16, DEPTH_MAX = 256 };

typedef float lanes __attribute__((vector_size(TILE_COLUMNS * sizeof(float))));

/* sums += rows · panel */
__attribute__((target_clones("avx512f", "arch=haswell", "default")))
static void tile_add(const float *const rows[TILE_ROWS], const float *panel, int64_t depth, float sums[TILE_ROWS][TILE_COLUMNS])
{
	lanes sum[TILE_ROWS] = {0};
	for (int64_t d = 0; d < depth; d++) {
		lanes b;
		memcpy(&b, panel + d * TILE_COLUMNS, sizeof b);
		sum[0] += rows[0][d] * b;
		sum[1] += rows[1][d] * b;
		sum[2] += rows[2][d] * b;
		sum[3] += rows[3][d] * b;
		sum[4] += rows[4][d] * b;
		sum[5] += rows[5][d] * b;
	}
	for (int i = 0; i < TILE_ROWS; i++)
		for (int j = 0; j < TILE_COLUMNS; j++)
			sums[i][j] += sum[i][j];
}

static void tile_add_deep(const float *const rows[TILE_ROWS], const float *panel, int64_t depth, float sums[TILE_ROWS][TILE_COLUMNS])
{
	const float *at[TILE_ROWS];
	for (int64_t d = 0; d < depth; d += DEPTH_MAX) {
		for (int i = 0; i < TILE_ROWS; i++)
			at[i] = rows[i] + d;
		tile_add(at, panel + d * TILE_COLUMNS, depth - d < DEPTH_MAX ? depth - d : DEPTH_MAX, sums);
	}
}

static float *floats_make(int64_t count)
{
	return calloc((size_t)(count > 0 ? count : 1), sizeof(float));
}

static int64_t blocks_of(int64_t columns)
{
	return (columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
}

/* The order of `count` parts: their own, or a random one. */
static void order_fill(int32_t *order, int64_t count, bool any_order)
{
	for (int64_t i = 0; i < count; i++)
		order[i] = (int32_t)i;
	for (int64_t i = count - 1; any_order && i > 0; i--) {
		int64_t other = (int64_t)(sim_random() % (uint64_t)(i + 1));
		int32_t kept = order[i];
		order[i] = order[other];
		order[other] = kept;
	}
}

/* --- forward and input gradient: results gather rows -------------------------------------------------------------------- */

/* out (N, OH, OW, columns) = Σ over taps of row(in (N, IH, IW, depth)) · weights[tap] (depth, columns) */
struct gather_sum {
	int64_t N, IH, IW, OH, OW, depth, columns, R, S;
	int32_t stride[2], pre[2];
	bool backward; /* of results at x's pixels, of dy's rows */
	bool any_order;
	const float *in;
	float *panels; /* (blocks, taps, depth, 16) */
	float *out;
};

/* Which side of the input a result at `at` meets with tap `tap`; -1: padding. */
static int64_t side_of(const struct gather_sum *g, int side, int64_t at, int64_t tap)
{
	int64_t limit = side == 0 ? g->IH : g->IW, found;
	if (g->backward) {
		found = at + g->pre[side] - tap;
		if (found < 0 || found % g->stride[side] != 0)
			return -1;
		found /= g->stride[side];
	} else {
		found = at * g->stride[side] - g->pre[side] + tap;
	}
	return found >= 0 && found < limit ? found : -1;
}

/* Results in an order in which neighbours meet the same taps: those of equal remainder by the stride together. */
static void positions_fill(const struct gather_sum *g, int32_t *positions)
{
	int64_t step_h = g->backward ? g->stride[0] : 1, step_w = g->backward ? g->stride[1] : 1, count = 0;
	for (int64_t h0 = 0; h0 < step_h; h0++)
		for (int64_t w0 = 0; w0 < step_w; w0++)
			for (int64_t n = 0; n < g->N; n++)
				for (int64_t h = h0; h < g->OH; h += step_h)
					for (int64_t w = w0; w < g->OW; w += step_w)
						positions[count++] = (int32_t)((n * g->OH + h) * g->OW + w);
}

/* The rows that tap (r, s) needs for six results; false when all are padding. */
static bool rows_find(const struct gather_sum *g, const int32_t *positions, int64_t count, int64_t r, int64_t s, const float *zeros,
	const float *rows[TILE_ROWS])
{
	bool any = false;
	for (int i = 0; i < TILE_ROWS; i++) {
		rows[i] = zeros;
		if (i >= count)
			continue;
		int64_t w = positions[i] % g->OW, h = positions[i] / g->OW % g->OH, n = positions[i] / (g->OW * g->OH);
		int64_t from_h = side_of(g, 0, h, r), from_w = side_of(g, 1, w, s);
		if (from_h < 0 || from_w < 0)
			continue;
		rows[i] = g->in + ((n * g->IH + from_h) * g->IW + from_w) * g->depth;
		any = true;
	}
	return any;
}

static bool gather_sum_run(const struct gather_sum *g)
{
	int64_t results = g->N * g->OH * g->OW, taps = g->R * g->S, blocks = blocks_of(g->columns);
	int32_t *positions = malloc(sizeof *positions * (size_t)results), *order = malloc(sizeof *order * (size_t)taps);
	float *zeros = floats_make(g->depth);
	bool done = false;
	if (positions == NULL || order == NULL || zeros == NULL)
		goto end;
	positions_fill(g, positions);
	order_fill(order, taps, g->any_order);
	for (int64_t block = 0; block < blocks; block++) {
		int64_t first = block * TILE_COLUMNS, width = g->columns - first < TILE_COLUMNS ? g->columns - first : TILE_COLUMNS;
		for (int64_t at = 0; at < results; at += TILE_ROWS) {
			int64_t count = results - at < TILE_ROWS ? results - at : TILE_ROWS;
			float sums[TILE_ROWS][TILE_COLUMNS] = {{0}};
			for (int64_t i = 0; i < taps; i++) {
				const float *rows[TILE_ROWS];
				if (rows_find(g, positions + at, count, order[i] / g->S, order[i] % g->S, zeros, rows))
					tile_add_deep(rows, g->panels + (block * taps + order[i]) * g->depth * TILE_COLUMNS, g->depth, sums);
			}
			for (int64_t i = 0; i < count; i++)
				memcpy(g->out + positions[at + i] * g->columns + first, sums[i], sizeof(float) * (size_t)width);
		}
	}
	done = true;
end:
	free(positions);
	free(order);
	free(zeros);
	return done;
}

bool convolve_forward(const struct convolution *c, const float *x, const float *w, float *y)
{
	int64_t taps = c->R * c->S, blocks = blocks_of(c->K);
	float *panels = floats_make(blocks * taps * c->C * TILE_COLUMNS);
	if (panels == NULL)
		return false;
	for (int64_t k = 0; k < c->K; k++)
		for (int64_t tap = 0; tap < taps; tap++)
			for (int64_t i = 0; i < c->C; i++)
				panels[((k / TILE_COLUMNS * taps + tap) * c->C + i) * TILE_COLUMNS + k % TILE_COLUMNS] = w[(k * taps + tap) * c->C + i];
	struct gather_sum g = {.N = c->N, .IH = c->H, .IW = c->W, .OH = c->P, .OW = c->Q, .depth = c->C, .columns = c->K, .R = c->R, .S = c->S,
		.stride = {c->stride[0], c->stride[1]}, .pre = {c->pre[0], c->pre[1]}, .any_order = c->any_order, .in = x, .panels = panels, .out = y};
	bool done = gather_sum_run(&g);
	free(panels);
	return done;
}

bool convolve_dx(const struct convolution *c, const float *dy, const float *w, float *dx)
{
	int64_t taps = c->R * c->S, blocks = blocks_of(c->C);
	float *panels = floats_make(blocks * taps * c->K * TILE_COLUMNS);
	if (panels == NULL)
		return false;
	for (int64_t k = 0; k < c->K; k++)
		for (int64_t tap = 0; tap < taps; tap++)
			for (int64_t i = 0; i < c->C; i++)
				panels[((i / TILE_COLUMNS * taps + tap) * c->K + k) * TILE_COLUMNS + i % TILE_COLUMNS] = w[(k * taps + tap) * c->C + i];
	struct gather_sum g = {.N = c->N, .IH = c->P, .IW = c->Q, .OH = c->H, .OW = c->W, .depth = c->K, .columns = c->C, .R = c->R, .S = c->S,
		.stride = {c->stride[0], c->stride[1]}, .pre = {c->pre[0], c->pre[1]}, .backward = true, .any_order = c->any_order, .in = dy,
		.panels = panels, .out = dx};
	bool done = gather_sum_run(&g);
	free(panels);
	return done;
}

/* --- weight gradient: rows of dy transposed, panels of x ---------------------------------------------------------------- */

/* The 16 channels from `first` of x where tap (r, s) meets results [from, from + count): (count, 16). */
static void panel_fill(const struct convolution *c, const float *x, int64_t r, int64_t s, int64_t first, int64_t from, int64_t count, float *panel)
{
	int64_t width = c->C - first < TILE_COLUMNS ? c->C - first : TILE_COLUMNS;
	memset(panel, 0, sizeof(float) * TILE_COLUMNS * (size_t)count);
	for (int64_t i = 0; i < count; i++) {
		int64_t at = from + i, q = at % c->Q, p = at / c->Q % c->P, n = at / (c->Q * c->P);
		int64_t h = p * c->stride[0] - c->pre[0] + r, w = q * c->stride[1] - c->pre[1] + s;
		if (h >= 0 && h < c->H && w >= 0 && w < c->W)
			memcpy(panel + i * TILE_COLUMNS, x + ((n * c->H + h) * c->W + w) * c->C + first, sizeof(float) * (size_t)width);
	}
}

bool convolve_dw(const struct convolution *c, const float *x, const float *dy, float *dw)
{
	int64_t results = c->N * c->P * c->Q, taps = c->R * c->S, parts = (results + DEPTH_MAX - 1) / DEPTH_MAX;
	float *across = floats_make(c->K * results), *panel = floats_make(DEPTH_MAX * TILE_COLUMNS), *zeros = floats_make(DEPTH_MAX);
	int32_t *order = malloc(sizeof *order * (size_t)parts);
	bool done = false;
	if (across == NULL || panel == NULL || zeros == NULL || order == NULL)
		goto end;
	for (int64_t at = 0; at < results; at++)
		for (int64_t k = 0; k < c->K; k++)
			across[k * results + at] = dy[at * c->K + k];
	order_fill(order, parts, c->any_order);
	memset(dw, 0, sizeof(float) * (size_t)(c->K * taps * c->C));
	for (int64_t tap = 0; tap < taps; tap++)
		for (int64_t first = 0; first < c->C; first += TILE_COLUMNS) {
			int64_t width = c->C - first < TILE_COLUMNS ? c->C - first : TILE_COLUMNS;
			for (int64_t part = 0; part < parts; part++) {
				int64_t from = order[part] * (int64_t)DEPTH_MAX, count = results - from < DEPTH_MAX ? results - from : DEPTH_MAX;
				panel_fill(c, x, tap / c->S, tap % c->S, first, from, count, panel);
				for (int64_t k = 0; k < c->K; k += TILE_ROWS) {
					const float *rows[TILE_ROWS];
					float sums[TILE_ROWS][TILE_COLUMNS] = {{0}};
					for (int64_t i = 0; i < TILE_ROWS; i++)
						rows[i] = k + i < c->K ? across + (k + i) * results + from : zeros;
					tile_add(rows, panel, count, sums);
					for (int64_t i = 0; i < TILE_ROWS && k + i < c->K; i++)
						for (int64_t j = 0; j < width; j++)
							dw[((k + i) * taps + tap) * c->C + first + j] += sums[i][j];
				}
			}
		}
	done = true;
end:
	free(across);
	free(panel);
	free(zeros);
	free(order);
	return done;
}
