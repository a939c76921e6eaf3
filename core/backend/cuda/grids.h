/* grids.h: how a kernel's work is cut into blocks of KERNEL_THREADS threads. The launcher asks here, and so do the tests; kernels.cu has the
 * other end. Sizes decide alone, so that sums are the same bits on every device. x = 0: there is nothing to do. */
#pragma once

#include "core/backend/cuda/kernels.h"

struct grid {
	unsigned x, y;
};

/* A tile: this many channels (8 threads of 8) of this many pixels. */
enum { TILE_CHANNELS = 64, TILE_PIXELS = 32 };
/* Pixels that a thread does, one tile below the other. */
enum { APPLY_PIXELS = 4, BACKWARD_APPLY_PIXELS = 4 };
/* Channels of one block of norm_fold, norm_constants, norm_backward_constants. */
enum { FOLD_CHANNELS = 8 };
/* Products of the head: rows and columns of a block. */
enum { PRODUCT_TILE = 16 };
/* Values that a thread does of plain arrays. */
enum { ARRAY_VALUES = 8 };

static inline int64_t blocks_for(int64_t count, int64_t of_a_block)
{
	return (count + of_a_block - 1) / of_a_block;
}

static inline struct grid grid_line(int64_t blocks)
{
	struct grid grid = {(unsigned)blocks, 1};
	return grid;
}

static inline struct grid grid_tiles(int64_t pixels, int32_t C, int pixels_of_thread)
{
	return grid_line(blocks_for(pixels, TILE_PIXELS * pixels_of_thread) * blocks_for(C, TILE_CHANNELS));
}

static inline struct grid grid_product(int32_t rows, int32_t columns)
{
	struct grid grid = {(unsigned)blocks_for(rows, PRODUCT_TILE), (unsigned)blocks_for(columns, PRODUCT_TILE)};
	return grid;
}

static inline struct grid grid_array(int64_t count)
{
	return grid_line(blocks_for(count, KERNEL_THREADS * ARRAY_VALUES));
}

/* grid_NAME(arguments) of each kernel */
#define GRID(name, arguments, value) \
	static inline struct grid grid_##name(const struct arguments *a) \
	{ \
		return value; \
	}
GRID(gather, gather, grid_line(a->n * blocks_for((int64_t)a->size * a->size, KERNEL_THREADS)))
GRID(norm_sums, norm_sums, grid_line(a->rows * blocks_for(a->C, TILE_CHANNELS)))
GRID(norm_fold, norm_fold, grid_line(blocks_for(a->C, FOLD_CHANNELS)))
GRID(norm_constants, norm_constants, grid_line(blocks_for(a->C, FOLD_CHANNELS)))
GRID(norm_constants_running, norm_constants_running, grid_line(blocks_for(a->C, KERNEL_THREADS)))
GRID(norm_apply, norm_apply, grid_tiles(a->pixels, a->C, APPLY_PIXELS))
GRID(norm_backward_sums, norm_backward_sums, grid_line(a->rows * blocks_for(a->C, TILE_CHANNELS)))
GRID(norm_backward_constants, norm_backward_constants, grid_line(blocks_for(a->C, FOLD_CHANNELS)))
GRID(norm_backward_apply, norm_backward_apply, grid_tiles(a->pixels, a->C, BACKWARD_APPLY_PIXELS))
GRID(add, add, grid_array(a->count))
GRID(pool_forward, pool_forward, grid_tiles((int64_t)a->n * a->P * a->Q, a->C, 1))
GRID(pool_backward, pool_backward, grid_tiles((int64_t)a->n * a->H * a->W, a->C, 1))
GRID(features, features, grid_tiles(a->n, a->C, 1))
GRID(logits, logits, grid_product(a->n, a->classes))
GRID(loss, loss, grid_line(a->n))
GRID(counters_add, counters_add, grid_line(a->n > 0))
GRID(head_weight_gradient, head_weight_gradient, grid_product(a->classes, a->C + 1)) /* the last column: dbias */
GRID(head_input_gradient, head_input_gradient, grid_product(a->n, a->C))
GRID(squares, squares, ((void)a, grid_line(SQUARES_BLOCKS)))
GRID(update_prepare, update_prepare, ((void)a, grid_line(1)))
GRID(update_live, update_live, grid_line(a->ranges_count))
GRID(update_dead, update_dead, grid_array(a->count))
GRID(skip_note, skip_note, ((void)a, grid_line(1)))
GRID(average, average, grid_array(a->count))
GRID(from_float, convert, grid_array(a->count))
GRID(to_float, convert, grid_array(a->count))
GRID(share_out, share, grid_array(a->count))
GRID(share_back, share, grid_array(a->count))
#undef GRID
