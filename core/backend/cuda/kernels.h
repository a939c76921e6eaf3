/* kernels.h: our own kernels: what each takes and does. Plain data, read by C, by the device compiler and by the tests' host build.
 *
 * A kernel takes one struct by value. Pointers are device memory, arrays begin at multiples of 16 bytes. T: activations' element (fp32, fp16,
 * bf16), always handed over as void; arithmetic is fp32, sums over a batch are double, in an order that depends on sizes alone: the same bits
 * each time. Activations are NHWC; `pixels` is N·H·W, so an activation is (pixels, C). C is a multiple of 8 but for the image. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { KERNEL_THREADS = 256 }; /* of every block */

/* --- the batch -------------------------------------------------------------------------------------------------------- */

/* struct sample of core/backend/backend.h as the device reads it; the same fields, with the angle as what is computed from it. */
struct device_augment {
	uint32_t index;
	int16_t shift_x, shift_y;
	uint8_t flip;
	float cosine, sine; /* of the rotation, rounded from double on the host as augment.c does */
	uint8_t rotated;
	int16_t erase_x, erase_y, erase_width, erase_height;
};

struct device_sample {
	struct device_augment image, partner;
	float weight;
	int16_t cut_x, cut_y, cut_width, cut_height;
};

/* y[n] = the image that samples[n] says, as core/backend/augment.c renders it, bit for bit in fp32 (then rounded to T); channels 3.. of C are
 * zero. targets[n] = labels and weight of the soft target. */
struct gather {
	const uint8_t *pixels;   /* (count, 3, size, size) */
	const uint16_t *labels;
	const struct device_sample *samples; /* (n) */
	int32_t n, size, C;      /* C: channels of y, 4 or 8 */
	int32_t reflect;         /* padding: 1 reflect, 0 black */
	float label_smoothing;
	float mean[3], std[3];
	void *y;                 /* T (n, size, size, C) */
	struct device_target *targets; /* (n) */
};

struct device_target {
	uint16_t label, partner;
	float weight; /* of label; partner has 1 − weight */
	float smoothing;
};

/* --- batch norm: z = conv(x); y = relu(norm(z) + shortcut) ------------------------------------------------------------- */

/* Rows of partial sums that norm_sums and norm_backward_sums write; never fewer for more pixels. */
static inline int32_t norm_partial_rows(int64_t pixels, int32_t C)
{
	/* A block does 64 channels of a row's pixels, 32 at a time. As many blocks as keep a large device busy, but at least 4 pixels a thread, so
	 * that the second pass stays short; and at most 256, as a thread adds them in fp32. */
	int64_t rows = (pixels + 127) / 128, busy = 512 / ((C + 63) / 64), fewest = (pixels + 8191) / 8192;
	busy = busy < 32 ? 32 : busy;
	rows = rows < busy ? rows : busy;
	rows = rows > fewest ? rows : fewest;
	return (int32_t)(rows < 1 ? 1 : rows);
}

/* partials (rows, 2, C): Σ z and Σ z² of each row's share of the pixels. */
struct norm_sums {
	const void *z; /* T (pixels, C) */
	int64_t pixels;
	int32_t C, rows;
	double *partials;
};

/* rows → one row. For synchronised batch norm, which sums that row over ranks. */
struct norm_fold {
	const double *partials; /* (rows, 2, C) */
	int32_t C, rows;
	double *sums; /* (2, C) */
};

/* From the sums, over `count` values a channel: mean, 1/√(var + ε), and scale and bias such that norm(z) = z·scale + bias.
 * Running statistics: r += share·(batch − r), the variance unbiased (× count/(count − 1)); one value has no variance: running_var stays. */
struct norm_constants {
	const double *partials; /* (rows, 2, C) */
	int32_t C, rows;
	double count, epsilon, share;
	const float *gamma, *beta;
	float *running_mean, *running_var; /* NULL: not kept (nothing is) */
	float *mean, *inverse_deviation, *scale, *bias; /* (C) each */
};

/* The same constants from running statistics, for evaluation. */
struct norm_constants_running {
	int32_t C;
	double epsilon;
	const float *gamma, *beta, *running_mean, *running_var;
	float *scale, *bias;
};

/* y = z·scale + bias (+ shortcut), then 0 for what is below if relu (NaN stays). y may be z. */
struct norm_apply {
	const void *z, *shortcut; /* T (pixels, C); shortcut may be NULL */
	const float *scale, *bias;
	int64_t pixels;
	int32_t C, relu;
	void *y;
};

/* g = dy, or where relu, 0 where y ≤ 0. partials (rows, 2, C): Σ g and Σ g·(z − mean). */
struct norm_backward_sums {
	const void *dy, *y, *z; /* T (pixels, C); y unused without relu */
	const float *mean;
	int64_t pixels;
	int32_t C, rows, relu;
	double *partials;
};

/* dgamma = Σ g·(z − mean)·inverse_deviation and dbeta = Σ g of `own` sums (this rank's); and of `shared` sums (all ranks'; the same pointer
 * when alone) the constants of dz = by_g·g + by_z·z + constant. */
struct norm_backward_constants {
	const double *own; int32_t own_rows;
	const double *shared; int32_t shared_rows;
	int32_t C;
	double count; /* values a channel behind `shared` */
	float gradient_scale; /* dgamma and dbeta are multiplied by it */
	const float *gamma, *mean, *inverse_deviation;
	float *dgamma, *dbeta;
	float *by_g, *by_z, *constant; /* (C) */
};

/* dz as above. dshortcut, when not NULL: = g, or += g when accumulate. dz may be z or dy. */
struct norm_backward_apply {
	const void *dy, *y, *z;
	const float *by_g, *by_z, *constant;
	int64_t pixels;
	int32_t C, relu, accumulate;
	void *dz, *dshortcut;
};

/* to += from, T, count values. */
struct add {
	const void *from;
	void *to;
	int64_t count;
};

/* --- the pool after the stem: 3×3, stride 2, padding 1 ---------------------------------------------------------------- */

/* tap[·]: 0..8, which pixel of the window was the largest (the first of equals, row by row; NaN is the
 * largest, as ref). */
struct pool_forward {
	const void *x; /* T (n, H, W, C) */
	int32_t n, H, W, C, P, Q;
	void *y;       /* T (n, P, Q, C) */
	uint8_t *tap;  /* may be NULL */
};

/* dx = or +=: each input pixel gathers from the windows whose tap it was (no atomics). */
struct pool_backward {
	const void *dy;
	const uint8_t *tap;
	int32_t n, H, W, C, P, Q, accumulate;
	void *dx;
};

/* --- the head --------------------------------------------------------------------------------------------------------- */

/* features[n][c] = mean over the H·W pixels. */
struct features {
	const void *x; /* T (n, pixels_of_image, C) */
	int32_t n, pixels_of_image, C;
	float *features; /* (n, C) */
};

/* logits = features · weightᵀ + bias. */
struct logits {
	const float *features, *weight, *bias; /* (n, C), (classes, C), (classes) */
	int32_t n, C, classes;
	float *logits; /* (n, classes) */
};

/* One block an image: log-softmax, loss against the soft target (smoothing e: (1 − e)·target + e/classes), counters of the image, and
 * dlogits = (softmax − target) · *loss_scale / total. top1, top5: logits before the first label's (larger, or equal with a lower index)
 * are fewer than 1, 5; a NaN is never a hit. */
struct loss {
	const float *logits;
	const struct device_target *targets;
	int32_t n, classes;
	double total;
	const float *loss_scale; /* on the device; NULL: 1 */
	float *dlogits;          /* NULL: evaluation */
	double *rows;            /* (n, 3): loss, top1, top5 */
};

/* counters += sums of rows; images += n. One block. */
struct counters_add {
	const double *rows;
	int32_t n;
	double *counters; /* loss, images, top1, top5 */
};

/* dweight = dlogitsᵀ · features, dbias = Σ dlogits. */
struct head_weight_gradient {
	const float *dlogits, *features;
	int32_t n, C, classes;
	float *dweight, *dbias;
};

/* dx[n][pixel][c] = (dlogits · weight)[n][c] / pixels_of_image. */
struct head_input_gradient {
	const float *dlogits, *weight;
	int32_t n, C, classes, pixels_of_image;
	void *dx; /* T (n, pixels_of_image, C) */
};

/* --- the update ------------------------------------------------------------------------------------------------------- */

/* struct update as the kernel needs it: constants of one step for one kind of range. */
struct device_sgd {
	float lr, momentum, decay, ema_share;
	uint8_t nesterov, first;
};

/* A run of the arenas that is treated alike: `kind` is an index in update.kinds. Ranges are cut so that one block does one;
 * offsets are multiples of 8. */
enum { UPDATE_RANGE_VALUES_MAX = 4096, UPDATE_KINDS = 3 }; /* kinds: decays, does not, beta */
struct update_range {
	uint64_t offset;
	uint32_t count, kind;
};

/* d = g·gradient_scale·control->step_scale + decay·w; v = first ? d : momentum·v + d; w −= lr·(nesterov ? d + momentum·v : v);
 * ema += ema_share·(w − ema); half = w rounded. Nothing is done where control->skip. */
struct update_live {
	const struct update_range *ranges;
	int32_t ranges_count;
	struct device_sgd kinds[UPDATE_KINDS];
	float gradient_scale;
	const struct update_control *control;
	const float *gradients;
	float *weights, *momentum, *ema; /* ema may be NULL */
	void *half;                      /* T copy of the weights; NULL with fp32 */
};

/* Lives on the device; written by update_prepare, read by the update. */
struct update_control {
	float loss_scale;       /* in force: what dlogits are multiplied by */
	float step_scale;       /* 1/loss_scale × what clipping asks for */
	uint32_t skip;          /* this step's gradients are not finite: it changes nothing but the scale */
	uint32_t clean_steps;   /* since the scale last changed */
	uint64_t skipped_steps; /* since the start */
};

/* partials[block] = Σ g² of its share (inf or NaN if one g is). blocks fixed at SQUARES_BLOCKS. */
enum { SQUARES_BLOCKS = 256 };
struct squares {
	const float *gradients;
	int64_t count;
	double *partials; /* (SQUARES_BLOCKS) */
};

/* One block. norm² = Σ partials / loss_scale². skip = dynamic && not finite. step_scale = 1/loss_scale × min(1, clip_norm/(norm + 1e-6)) (clip_norm
 * 0: not clipped). dynamic loss scale: × 2 after growth_steps clean steps (≤ 2^24), ÷ 2 on a skip (≥ 1); applies from the next step on. */
struct update_prepare {
	const double *partials;
	int32_t dynamic, growth_steps;
	double clip_norm;
	double *norm_squared; /* may be NULL */
	struct update_control *control;
};

/* Several updates with gradient 0, one after the other on each value: dead taps. history[i] constants, skipped[i]: whether that step was. */
enum { UPDATE_HISTORY_MAX_DEVICE = 64 };
struct update_dead {
	struct device_sgd history[UPDATE_HISTORY_MAX_DEVICE];
	const uint32_t *skipped; /* (history_count) on the device; NULL: none was */
	int32_t history_count;
	int64_t count;
	float *weights, *momentum, *ema; /* ema may be NULL */
};

/* skipped[index] = control->skip. One thread. */
struct skip_note {
	const struct update_control *control;
	uint32_t *skipped;
	int32_t index;
};

/* ema += ema_share·(value − ema), unless control->skip. Running statistics. */
struct average {
	const float *values;
	float *ema;
	float ema_share;
	int64_t count;
	const struct update_control *control;
};

/* --- conversions ------------------------------------------------------------------------------------------------------ */

struct convert { /* to T from float (round to nearest even), or to float from T: two kernels */
	const void *from;
	void *to;
	int64_t count;
};

/* shared[i] = factor·values[i] as double; and back: values[i] = (float)shared[i]. Running statistics on their way over ranks. */
struct share {
	float *values;
	double *shared;
	double factor;
	int64_t count;
};

/* --- the list ---------------------------------------------------------------------------------------------------------- */

/* X(kernel, its struct). Kernels of fp32 and integers only; and those made for each T, named name_fp32, name_fp16, name_bf16. */
#define KERNELS_PLAIN(X) \
	X(norm_fold, norm_fold) \
	X(norm_constants, norm_constants) \
	X(norm_constants_running, norm_constants_running) \
	X(norm_backward_constants, norm_backward_constants) \
	X(logits, logits) \
	X(loss, loss) \
	X(counters_add, counters_add) \
	X(head_weight_gradient, head_weight_gradient) \
	X(squares, squares) \
	X(update_prepare, update_prepare) \
	X(update_dead, update_dead) \
	X(skip_note, skip_note) \
	X(average, average) \
	X(share_out, share) \
	X(share_back, share)
#define KERNELS_ELEMENT(X) \
	X(gather, gather) \
	X(norm_sums, norm_sums) \
	X(norm_apply, norm_apply) \
	X(norm_backward_sums, norm_backward_sums) \
	X(norm_backward_apply, norm_backward_apply) \
	X(add, add) \
	X(pool_forward, pool_forward) \
	X(pool_backward, pool_backward) \
	X(features, features) \
	X(head_input_gradient, head_input_gradient) \
	X(update_live, update_live) \
	X(from_float, convert) \
	X(to_float, convert)
