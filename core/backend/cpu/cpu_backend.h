/* cpu_backend.h: inside the cpu backend.
 *
 * Activations are image-blocked: (N/32, H, W, C/32, 32 images, 32 channels), so at each pixel the images and channels form whole
 * tiles of core/kernels. The image itself (3 channels) is (N/32, H, 32 images, (W + 2·padding)·3), its rows zero left and right, so
 * that a row of a kernel meets one contiguous piece.
 *
 * Convolution weights, their momentum and EMA are kept packed as (K/32, R·S, C, 32), at the offsets of params_layout: a permutation within
 * each tensor. Gradients likewise, but of live taps only, one tensor behind another: any run of units is then one piece of memory without
 * holes, which travels to the other ranks as it is (cpu_reduce.c). cpu_arena.c converts at the edge.
 *
 * Threads: each task owns what it writes, and every sum has one fixed order, so bits do not depend on the number of threads. */
#pragma once

#include "core/backend/backend.h"
#include "core/kernels/kernels.h"

enum { IMAGE_CHANNELS = 3, KERNEL_SIZE_MAX = 16, KERNEL_TAPS_MAX = KERNEL_SIZE_MAX * KERNEL_SIZE_MAX, UPDATE_HISTORY_MAX = 64 };

/* A run of the arenas that the optimizer treats alike. */
struct range {
	size_t offset, count;
	size_t gradient; /* its place in the gradients, unless dead */
	bool decays; /* weight decay touches it even unless decay_all */
	bool beta;
	bool dead;   /* taps that meet only padding: their gradient is exactly zero */
};

/* What the head keeps of an image's target: two labels and the first one's weight. */
struct target {
	uint16_t label, partner;
	float weight;
};

struct backend_state {
	struct backend_config config;
	const struct kernels *kernels;
	size_t blocks_max; /* of 32 images */

	/* Arenas, packed. gradients and momentum only when training, ema_* only when asked for. */
	float *weights, *momentum, *ema_weights;
	float *buffers, *ema_buffers;
	float *gradients;               /* gradients_count, in the order of execution */
	size_t gradients_count, gradient_at[PARAMS_MAX]; /* where each parameter tensor has its own */
	size_t gradients_left;          /* how many of this batch's, from the first on, have not been handed over to the sum */
	double *buffers_shared;         /* (buffers_count) running statistics on their way to the sum; when there is one */
	int64_t batches_tracked;
	float *buffers_before; /* running statistics and counters as batch_begin found them, for batch_abandon */
	struct counters counters_before;

	/* The batch. */
	size_t n, total, blocks;         /* images here, over all ranks; blocks of 32 here */
	bool training;
	const float *weights_used, *buffers_used; /* of `which` */
	float *y[RESNET_TENSORS], *dy[RESNET_TENSORS];
	float *z[RESNET_UNITS];          /* the convolution's output; when training, until its gradient takes its place */
	float *norm[RESNET_UNITS];       /* (2, K): mean and 1/√(variance + ε) of the batch */
	int32_t *pool_tap;               /* which tap of its window each pooled value came from */
	struct target *targets;          /* (batch_max) */
	float label_smoothing;
	float *features, *features_gradient; /* (batch_max, head.C) */
	float *logits, *logits_gradient; /* (batch_max, classes) */
	double *losses;                  /* (batch_max) */
	int32_t *ranks;                  /* (batch_max): how many logits are before the label's */
	struct counters counters;

	/* Work space. */
	size_t image_padding, image_row; /* of the image tensor: columns left and right; floats of a row */
	float *rendered;                 /* images planar, before they are laid out: one a gather task */
	size_t gather_tasks;
	double *partials;                /* (rows of the batch, K, 2) sums of one row each, combined in order */
	float *constants;                /* (4, K) per-channel constants of a pass */
	float *transposed;               /* weights of the unit in work, (C/32, R·S, K, 32) */

	struct range *ranges;
	size_t ranges_count;
	double *squares;                 /* (ranges_count) */
	/* Updates not yet carried out on the dead ranges (see cpu_update.c). */
	struct sgd history[UPDATE_HISTORY_MAX];
	size_t history_count;

	void *owned[RESNET_TENSORS * 2 + RESNET_UNITS * 2 + 32]; /* every allocation, for close */
	size_t owned_count;
};

/* --- taps ----------------------------------------------------------------------------------------------------------- */

/* Whether a tap is computed with. The others meet only padding: their gradient is exactly zero. The image's kernel rows are taken whole. */
static inline bool tap_is_live(const struct unit *unit, size_t tap)
{
	return unit->x == 0 || unit_tap_uses(unit, (int)tap / unit->S, (int)tap % unit->S) > 0;
}

/* Each tap's number among the live ones (a dead tap: the next live one's), and how many there are. */
static inline size_t taps_number(const struct unit *unit, size_t numbers[KERNEL_TAPS_MAX])
{
	size_t live = 0;
	for (size_t tap = 0; tap < (size_t)(unit->R * unit->S); tap++) {
		numbers[tap] = live;
		live += tap_is_live(unit, tap);
	}
	return live;
}

/* --- layout --------------------------------------------------------------------------------------------------------- */

/* Floats of one block of 32 images of a tensor (not the image). */
static inline size_t tensor_block_floats(const struct tensor_shape *shape)
{
	return (size_t)shape->H * (size_t)shape->W * (size_t)shape->C * TILE_IMAGES;
}

/* The first tile of pixel (h, w) of a block. */
static inline size_t pixel_offset(const struct tensor_shape *shape, size_t block, size_t h, size_t w)
{
	return ((block * (size_t)shape->H + h) * (size_t)shape->W + w) * (size_t)shape->C * TILE_IMAGES;
}

/* Valid images of a block of the present batch. */
static inline size_t block_rows(const struct backend_state *state, size_t block)
{
	size_t rest = state->n - block * TILE_IMAGES;
	return rest < TILE_IMAGES ? rest : TILE_IMAGES;
}

/* The output's shape of a unit. */
static inline struct tensor_shape unit_output(const struct unit *unit)
{
	return (struct tensor_shape){unit->K, unit->P, unit->Q};
}

/* --- the pieces, a file each ---------------------------------------------------------------------------------------- */

/* cpu_arena.c: params_layout's host arenas to packed ones and back. Either may hold any tensor kind. */
void arena_pack(struct backend_state *state, const float *host, float *packed);
void arena_unpack(struct backend_state *state, const float *packed, float *host);
/* Where the gradients of each parameter tensor lie; returns floats of all. */
size_t gradients_lay_out(const struct backend_config *config, size_t at[PARAMS_MAX]);
/* The gradients in params_layout's host layout, dead taps' zeros among them. */
void gradients_unpack(struct backend_state *state, float *host);
/* A tensor of the present batch as (n, C, H, W). */
void tensor_unpack(const struct backend_state *state, int tensor, const float *from, float *values);

/* cpu_gather.c */
enum status cpu_batch_gather(struct backend_state *state, const struct images *images, const struct sample *samples, float label_smoothing);

/* cpu_convolution.c: one output row of the convolution: all pixels (block, p, ·) of channel tile kt into `z`, laid out as the
 * unit's output. `weights` is the unit's packed tensor. */
void convolution_row(const struct backend_state *state, const struct unit *unit, const float *weights, size_t kt, size_t block, size_t p,
	float *z);
/* dw = …, packed, live taps only; dz laid out as the unit's output. */
void convolution_weight_gradient(struct backend_state *state, const struct unit *unit, const float *dz, float *dw);
/* dx (+)= …; the unit's input is not the image. */
void convolution_input_gradient(struct backend_state *state, const struct unit *unit, const float *weights, const float *dz, bool accumulate);

/* cpu_unit.c */
enum status cpu_unit_forward(struct backend_state *state, int unit);
enum status cpu_unit_backward(struct backend_state *state, int unit, bool accumulate, bool accumulate_shortcut);

/* cpu_head.c */
enum status cpu_pool_forward(struct backend_state *state);
enum status cpu_pool_backward(struct backend_state *state, bool accumulate);
enum status cpu_head_forward(struct backend_state *state);
enum status cpu_head_backward(struct backend_state *state);

/* cpu_reduce.c */
enum status cpu_reduce_start(struct backend_state *state, int unit);
enum status cpu_reduce_finish(struct backend_state *state);

/* cpu_update.c. ranges_build: `ranges` NULL counts only. */
size_t ranges_build(const struct backend_state *state, struct range *ranges);
enum status cpu_gradient_norm_squared(struct backend_state *state, double *norm_squared);
enum status cpu_optimizer_step(struct backend_state *state, const struct update *update);
/* Carries out what is still open on the dead ranges. */
void updates_finish(struct backend_state *state);
