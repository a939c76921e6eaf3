/* layer.h: one convolution, or the head, as the engine computes it: y = relu(w · x + bias + shortcut).
 *
 * Activations are NHWC; a pixel's channels are padded to whole blocks of 32 in the output. Weights are packed (K/32, live taps, depth, 32).
 * Knows no order of layers. */
#pragma once

#include "core/base/threads.h"
#include "core/engine/map.h"
#include "core/kernels/kernels.h"

#include <stdbool.h>

struct layer {
	struct map *map;             /* may be other layers' too */
	size_t depth, blocks;        /* floats that a tap reads; K in blocks of 32 */
	float *weights, *bias;
	int x, y, shortcut;          /* buffers; shortcut −1: none */
	bool relu;
};

/* Where packed numbers come from: k-th output's weight of channel c, tap (r, s) is w[((k·C + c)·R + r)·S + s] · scale[k]. */
struct layer_source {
	const float *w;
	size_t K, C, R, S;
	const double *scale, *bias; /* K each */
	bool rows_as_taps;          /* a tap is a whole kernel row: depth is S·C, column before channel */
};

static inline size_t layer_block_floats(const struct layer *layer)
{
	return layer->map->taps * layer->depth * TILE_CHANNELS;
}

/* Fills weights and bias; outputs beyond K are zero. */
void layer_pack(const struct layer *layer, const struct layer_source *source, struct threads *threads);

/* What the runs of an engine's layers share. */
struct layer_work {
	const struct kernels *kernels;
	float *const *buffers;
	const float *zeros; /* as many as any layer's depth */
	size_t threads;
};

/* A run in work: task i does blocks from i / chunks · blocks_together on, for the tiles of chunk i % chunks. */
struct layer_run {
	const struct layer *layer;
	const struct layer_work *work;
	size_t blocks_together, chunks;
};

/* How the layer is computed on the n images that its map is cut for: `run` is filled and the step made of it, to be run by threads_run_steps. */
struct threads_step layer_step(const struct layer *layer, const struct layer_work *work, struct layer_run *run);
