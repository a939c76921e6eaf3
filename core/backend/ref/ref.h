/* ref.h: inside the ref backend, and the doubles that tests look at.
 *
 * Layout: an activation is (C, H, W, lanes): the images of a batch lie side by side at each pixel, so every inner loop runs over
 * images and vectorises whatever the map size. lanes is batch_max rounded up to LANE_BLOCK; loops take whole blocks. Lanes
 * beyond the batch hold zeros in the image tensor and in every gradient, so they add nothing to a sum.
 *
 * Everything is computed in double by tasks that own what they write: bits do not depend on the number of threads. Buffers are
 * filled with NaN when a batch begins: what a forgotten call would have written shows. */
#pragma once

#include "core/backend/backend.h"

enum { LANE_BLOCK = 8 };

struct backend_state {
	struct backend_config config;
	size_t lanes, blocks; /* a pixel's doubles; LANE_BLOCKs that this batch uses */

	/* Arenas as params_layout says, in torchvision's layout. gradients and momentum only when training, ema only when asked for. */
	double *weights, *gradients, *momentum, *buffers, *ema_weights, *ema_buffers;
	int64_t batches_tracked;
	double *buffers_before; /* running statistics and counters as batch_begin found them, for batch_abandon */
	struct counters counters_before;

	/* The batch. */
	size_t n, total; /* images here, over all ranks */
	bool training;
	const double *weights_used, *buffers_used; /* of `which` */
	double *tensor[RESNET_TENSORS], *tensor_gradient[RESNET_TENSORS];
	double *normalized[RESNET_UNITS];    /* (K, P, Q, lanes): the convolution's output, then that normalised, before gamma and beta */
	double *inverse_deviation[RESNET_UNITS]; /* (K) of this batch */
	double *channel_sums;                /* (2, K) of the unit in work: batch norm's sums over this rank's values, or all ranks' */
	double *convolution_gradient;        /* (K, P, Q, lanes) of the unit in work */
	double *weights_by_input;            /* (C, K, R, S) of the unit in work */
	float *rendered;                     /* (batch_max, 3, size, size) */
	uint16_t *labels;                    /* (batch_max) */
	double *features;                    /* (batch_max, head.C): the averages */
	double *targets, *logits, *logits_gradient; /* (batch_max, classes) */
	double *losses;                      /* (batch_max) */
	double *norms_squared;               /* a parameter tensor each */
	struct counters counters;

	void *owned[RESNET_TENSORS * 2 + RESNET_UNITS * 2 + 32]; /* every allocation, for close */
	int owned_count;
};

/* The pieces of the table, a file each: ref_unit.c, ref_head.c (with the stem pool), ref_update.c. */
enum status ref_unit_forward(struct backend_state *state, int unit);
enum status ref_unit_backward(struct backend_state *state, int unit, bool accumulate, bool accumulate_shortcut);
enum status ref_pool_forward(struct backend_state *state);
enum status ref_pool_backward(struct backend_state *state, bool accumulate);
enum status ref_head_forward(struct backend_state *state);
enum status ref_head_backward(struct backend_state *state);
enum status ref_reduce_start(struct backend_state *state, int unit);
enum status ref_reduce_finish(struct backend_state *state);
enum status ref_gradient_norm_squared(struct backend_state *state, double *norm_squared);
enum status ref_optimizer_step(struct backend_state *state, const struct update *update);
