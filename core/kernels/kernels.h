/* kernels.h: the inner loops of computing on a CPU, one constant table an instruction set.
 *
 * Training works on *tiles*: 32 images × 32 channels of one pixel, image after image, channels side by side (1024 floats). A
 * convolution is then a sum of products of tiles with 32 × 32 blocks of weights, whatever the map size. `rows` is the number of
 * valid images of a tile (1 … 32); rows beyond it are never used and, but for `product`'s reading, never touched.
 *
 * Inference works on *strips*: any few pixels, each given by its pointer, × whole blocks of 32 channels; a pixel's channels lie side by side.
 *
 * All functions are pure loops: no memory is allocated, no status is needed, any thread. Pointers need only a float's alignment.
 * Within one table the same arguments give the same bits. */
#pragma once

#include "core/base/cpu.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TILE_IMAGES = 32, TILE_CHANNELS = 32, TILE_FLOATS = TILE_IMAGES * TILE_CHANNELS };

/* `product` reads rows of A in groups: up to this many rows after the last valid one must be readable memory (never used). */
enum { PRODUCT_ROWS_SLACK = 7 };

/* The most rows of a strip on any instruction set. */
enum { STRIP_ROWS_MAX = 12 };

/* One term of a sum of products. */
struct segment {
	const float *a, *b;
};

/* One SGD update with its constants; see struct update in core/backend/backend.h for the formula. */
struct sgd {
	float lr, momentum, decay, scale; /* decay: 0 where weight decay does not apply */
	float ema_share;                  /* ema += ema_share·(w − ema) */
	bool nesterov, first;
};

/* A strip of a convolution's output: up to strip_rows pixels, any number of blocks of 32 channels. y[m] = Σ over taps t, over d < depth of
 * x[t·rows + m][d] · w[t][d·32 + n] + bias (+ shortcut), for each block of 32 channels n. */
struct strip {
	size_t rows, taps, depth, blocks;
	const float *const *x;        /* taps × rows */
	const float *const *w;        /* taps: the first block's weights; (depth, 32) each */
	size_t w_step;                /* floats from a block's weights to the next one's */
	const float *bias;            /* blocks × 32 */
	const float *const *shortcut; /* rows, blocks × 32 floats each; NULL: none */
	bool relu;                    /* max(·, 0); NaN stays NaN */
	float *const *y;              /* rows, blocks × 32 floats each; may be the shortcut's */
};

struct kernels {
	const char *name;
	size_t strip_rows; /* 1 … STRIP_ROWS_MAX */

	/* c[m·32 + n] (+)= Σ over segments, Σ over d < depth of a[m·a_row + d] · b[d·32 + n], for m < rows, n < 32. Added to what is there
	 * when accumulate. Writes exactly `rows` rows. */
	void (*product)(const struct segment *segments, size_t count, size_t depth, size_t a_row, size_t rows, bool accumulate, float *c);
	/* The same with A transposed: a[d·a_depth + m]. */
	void (*product_transposed)(const struct segment *segments, size_t count, size_t depth, size_t a_depth, size_t rows, bool accumulate,
		float *c);
	/* to[j·32 + i] = from[i·32 + j], 32 × 32. */
	void (*transpose)(const float *from, float *to);

	/* Each sum runs over taps, then depth, one term after another, whatever rows and blocks are: an output's bits depend on its own
	 * operands only. */
	void (*strip)(const struct strip *strip);
	/* y[i] = the largest of x[0][i] … x[rows − 1][i], i < count, a multiple of 32. NaN wins. */
	void (*maximum_rows)(const float *const *x, size_t rows, size_t count, float *y);

	/* Per channel over the tile's rows: mean, and sum of squared distances from it. */
	void (*moments)(const float *z, size_t rows, float *mean, float *squares);
	/* y = (z − mean)·scale + bias (+ shortcut unless NULL), then max(·, 0) when relu (NaN stays NaN). y may be z. */
	void (*normalize)(const float *z, size_t rows, const float *mean, const float *scale, const float *bias, const float *shortcut, bool relu,
		float *y);
	/* g = dy where y is not ≤ 0 (y NULL: everywhere). Sums over rows, per channel: of g, and of g·(z − mean). Unless
	 * shortcut_gradient is NULL, g is written there, or added when accumulate. */
	void (*gradient_sums)(const float *dy, const float *y, const float *z, size_t rows, const float *mean, float *sum, float *sum_centred,
		float *shortcut_gradient, bool accumulate);
	/* z becomes its own gradient: (g − mean_g − (z − mean)·slope)·scale, with g as above. */
	void (*normalize_backward)(const float *dy, const float *y, size_t rows, const float *mean, const float *mean_g, const float *slope,
		const float *scale, float *z);

	/* y = the largest of the `count` tiles x[·], elementwise; which[·] = tap[i] of the first that holds it. NaN wins. */
	void (*maximum)(const float *const *x, const int32_t *tap, size_t count, size_t rows, float *y, int32_t *which);
	/* dx += dy where which == tap. */
	void (*maximum_backward)(const float *dy, const int32_t *which, int32_t tap, size_t rows, float *dx);

	float (*dot)(const float *a, const float *b, size_t count);
	/* y += a·x. */
	void (*axpy)(float a, const float *x, size_t count, float *y);

	/* The updates steps[0 … steps_count) one after another on weights w and velocity v, and on ema unless NULL. g NULL: the
	 * gradient is zero (in each of the steps); else steps_count is 1. */
	void (*update)(const struct sgd *steps, size_t steps_count, size_t count, const float *g, float *w, float *v, float *ema);
	/* Sum of squares, in double. */
	double (*squares)(const float *x, size_t count);
};

/* The table for an instruction set (those above AVX-512 have none of their own for fp32 and share it). */
const struct kernels *kernels_find(enum cpu cpu);

extern const struct kernels kernels_generic, kernels_avx2, kernels_avx512;
