/* backend.h: training compute behind one contract.
 *
 * A backend is one constant table of functions. `ref` (plain loops in double) is the definition: where another disagrees, ref is
 * right or is fixed first. The training pass itself is written out once, in train/step.c, over the network table; a backend
 * supplies the pieces. Calls only enqueue work: results are on the host after `sync`, `counters_read` or `snapshot`.
 *
 * Activations are opaque: a backend names them by tensor number (struct network) and chooses layout and type. It owns one
 * activation and one gradient a tensor, for up to batch_max images at a time.
 *
 * Order of calls of one training step, all on one thread:
 *     batch_begin   batch_gather
 *     unit_forward / pool_forward in table order   head_forward (loss and its gradient)
 *     head_backward   unit_backward / pool_backward in reverse, reduce_start after each but the pool
 *     reduce_finish   optimizer_step
 * and of evaluation: the same without the backward half, with training = false. Between batch_gather and what follows, pass_begin may say that
 * the backend does it all by itself. */
#pragma once

#include "core/base/status.h"
#include "core/base/threads.h"
#include "core/model/normalization.h"
#include "core/model/params.h"
#include "core/model/resnet.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is done to one image on its way into a batch. Drawn by train/batch.c from (seed, epoch, index); carried out by the
 * backend exactly in this order: pad and shift (crop), flip, rotate, erase; then normalise; then mix with a partner. */
struct augment {
	uint32_t index;      /* image of the data set */
	int16_t shift_x, shift_y; /* the crop's displacement in pixels: output(x, y) = input(x + shift_x, y + shift_y) */
	bool flip;           /* mirror left–right, after the crop */
	float rotation_radians; /* counter-clockwise about the centre, bilinear, outside = padding; 0: none */
	int16_t erase_x, erase_y, erase_width, erase_height; /* rectangle set to the mean (0 after normalisation); width 0: none */
};

enum padding_mode { PADDING_REFLECT, PADDING_ZERO }; /* what lies outside the image; zero is black, as torchvision's RandomCrop */

/* One image of a batch: itself, its partner, and how they are mixed. */
struct sample {
	struct augment image, partner;
	/* mixup: pixel = weight·image + (1 − weight)·partner, and the targets likewise (Zhang et al., 2017).
	 * cutmix: the rectangle comes from the partner; weight is the share of the image's own pixels (Yun et al., 2019).
	 * weight 1: no partner. */
	float weight;
	int16_t cut_x, cut_y, cut_width, cut_height; /* width 0: mixup */
};

/* A set of images in memory: uint8, planar (C, H, W) one after another; labels beside them. Not owned by the backend, which may
 * copy it to its device at open; it stays unchanged and valid until close. */
struct images {
	const uint8_t *pixels;  /* count × 3 × size × size */
	const uint16_t *labels; /* count; each < classes */
	size_t count;
	int size;
};

/* How a backend reaches the other ranks, when several train one network. It calls these on the training thread only, on all ranks in the same
 * order with the same counts, and takes for granted that a sum has the same bits on every rank; a failure is final. */
struct reduction {
	int rank, world;
	size_t bucket_bytes; /* gradients are handed over in pieces of at least this, but for the last */
	void *context;
	/* Sums values over all ranks meanwhile, in place; the caller neither reads nor writes them until finish. For gradients: they may be rounded
	 * on the way. */
	enum status (*start)(void *context, float *values, size_t count);
	enum status (*finish)(void *context);
	/* Blocking, in place, as precise as doubles are: for statistics. Also between start and finish: synchronised batch norm's backward half
	 * does that, once a unit. */
	enum status (*sum)(void *context, double *values, size_t count);
	/* For a backend that sums on its devices instead (NCCL): what it needs to meet the others and to hear that all must end. */
	enum status (*broadcast)(void *context, void *bytes, size_t count, int root); /* blocking */
	enum status (*check)(void *context); /* any thread; ST_OK, or the sentence why the training must end */
	int64_t timeout_us; /* how long the slowest rank may let the others wait */
	int hosts;          /* on how many machines the ranks are */
	const char *interface_name; /* network interface towards the other hosts; NULL or "": unknown */
	bool bf16;          /* gradients travel rounded to bfloat16 */
};

/* What activations are stored as and products are made of. AUTO: the backend's choice. TF32: stored as fp32, multiplied as TF32. */
enum precision { PRECISION_AUTO, PRECISION_FP32, PRECISION_TF32, PRECISION_BF16, PRECISION_FP16 };

struct backend_config {
	const struct network *network;
	const struct params_layout *layout;
	int batch_max; /* images of the largest batch, training or evaluation */
	struct normalization normalization;
	enum padding_mode padding;
	struct threads *threads; /* lent; may be NULL for a device backend */
	const struct reduction *reduction; /* lent; NULL: alone */
	bool sync_batch_norm;    /* batch statistics over the batch's images of all ranks, not of each rank's own; alone it changes nothing */
	bool ema;                /* keep an exponential moving average of weights and running statistics */
	bool training;           /* false: forward only; gradient memory is not made */
	/* When training: share of a batch's statistics in the running ones, 0 < share ≤ 1; BatchNorm2d's momentum in PyTorch, 0.1 there. */
	double norm_momentum;
	/* Of a device backend; others compute in one precision and are always deterministic. */
	int device;                  /* number among this host's */
	enum precision precision;
	bool deterministic;          /* the same bits each time */
	const char *cache_directory; /* where choices that took time to make are kept from run to run; NULL: nowhere */
};

/* Sums over images since counters_reset. */
struct counters {
	double loss;     /* sum of the images' losses */
	double images;   /* how many */
	double top1, top5; /* images whose (first) label is among the 1 or 5 largest logits */
};

/* One SGD update (Sutskever's form as PyTorch writes it): d = g·scale + weight_decay·w; v = momentum·v + d;
 * w −= lr·(nesterov ? d + momentum·v : v). At the first step v = d. */
struct update {
	float lr, momentum, weight_decay;
	bool nesterov, decay_all; /* decay_all: norms and biases too */
	float norm_bias_lr_scale; /* beta's learning rate is lr × this; 1 usually */
	float gradient_scale;     /* gradients are multiplied by it first; 1 usually */
	double gradient_clip_norm; /* 0: none; else scaled further so that their common L2 norm is at most this (torch.nn.utils.clip_grad_norm_) */
	float ema_decay;          /* when the backend keeps an EMA: ema += (1 − decay)·(value − ema), buffers too */
	bool first;               /* first update of a run: v is undefined before it */
};

/* Everything that a checkpoint must hold besides the position: host arenas in torchvision's layout. */
struct training_state {
	struct params params;
	float *momentum;      /* weights_count */
	struct params ema;    /* arenas NULL when there is no EMA */
};

struct backend_state; /* a backend's own */

enum which { WHICH_WEIGHTS, WHICH_EMA }; /* which set of parameters evaluation runs with */

struct backend {
	const char *name;

	/* ST_SETTINGS if the config cannot be done (the sentence says what), ST_MEMORY, ST_DEVICE. */
	enum status (*open)(const struct backend_config *config, struct backend_state **state);
	void (*close)(struct backend_state *state); /* accepts NULL */

	/* Whole state in and out, host arenas in torchvision's layout. Absent momentum (NULL) means zero; absent EMA means a copy of
	 * the params. snapshot fills arenas that the caller has allocated and skips those that are NULL. Blocking. */
	enum status (*state_write)(struct backend_state *state, const struct training_state *from);
	enum status (*snapshot)(struct backend_state *state, struct training_state *to);

	/* Announces the next batch: n images here of `total` over all ranks, n ≤ batch_max, n ≤ total. Alone 1 ≤ n; with a reduction n may be 0:
	 * gradients are then zeros, counters gain nothing. training: batch statistics are used and running ones updated; otherwise the
	 * running ones of `which` are used and `total` is not. ST_SETTINGS when a batch norm of training has a single value, which has no variance:
	 * one image (here; in total with sync_batch_norm) whose last map is one pixel. */
	enum status (*batch_begin)(struct backend_state *state, int n, int total, bool training, enum which which);
	/* Forgets a training batch begun and not yet updated with: running statistics, their count and the counters are again as they were
	 * before batch_begin, so that the same batch can be done anew to the same bits. For a stop in the middle of a long step. With a
	 * reduction all ranks do it alike, and not between the first reduce_start and reduce_finish. */
	enum status (*batch_abandon)(struct backend_state *state);
	/* Fills the image tensor and the targets from samples[0..n). label_smoothing e: target = (1 − e)·onehot + e/classes. */
	enum status (*batch_gather)(struct backend_state *state, const struct images *images, const struct sample *samples, float label_smoothing);

	/* A backend that can record what a pass enqueues and enqueue it again as a whole (a CUDA graph) has these two; else they are NULL. pass_begin,
	 * after batch_gather: *again: a pass over a batch like this one (n, total, training, which) was recorded and is now enqueued; the caller goes on
	 * after reduce_finish, or after head_forward in evaluation. Otherwise the caller makes the calls, and pass_end behind the last of them. */
	enum status (*pass_begin)(struct backend_state *state, bool *again);
	enum status (*pass_end)(struct backend_state *state);

	enum status (*unit_forward)(struct backend_state *state, int unit);
	enum status (*pool_forward)(struct backend_state *state);
	/* Logits, softmax cross-entropy with the soft targets, counters of the n images; when training also the logits' gradient of (the sum of
	 * the n losses) / total. */
	enum status (*head_forward)(struct backend_state *state);

	/* Each takes its output's gradient, writes its parameters' gradients (=, not +=) and its input's gradient: added to what is
	 * there when accumulate, else written. unit_backward also hands the gradient to the shortcut tensor (added when
	 * accumulate_shortcut). The image tensor gets none. */
	enum status (*head_backward)(struct backend_state *state);
	enum status (*unit_backward)(struct backend_state *state, int unit, bool accumulate, bool accumulate_shortcut);
	enum status (*pool_backward)(struct backend_state *state, bool accumulate);

	/* Sums over ranks; nothing happens when alone. reduce_start(unit), right after unit_backward(unit) and, with unit = RESNET_UNITS, after
	 * head_backward: that unit's gradients may be handed over. reduce_finish hands over the rest, waits, and leaves on every rank the same
	 * bits: gradients are the sums over ranks, that is of the whole batch's mean loss; running statistics are the ranks' own, weighted by
	 * their images, Σ n/total · updated. */
	enum status (*reduce_start)(struct backend_state *state, int unit);
	enum status (*reduce_finish)(struct backend_state *state);

	/* Sum of squares of all gradients. Blocking; for tests and tools. */
	enum status (*gradient_norm_squared)(struct backend_state *state, double *norm_squared);
	enum status (*optimizer_step)(struct backend_state *state, const struct update *update);

	enum status (*counters_reset)(struct backend_state *state);
	enum status (*counters_read)(struct backend_state *state, struct counters *counters); /* blocking */

	/* For tests and tools; blocking. Logits (n, classes) of the last head_forward; gradients in the layout of params.weights; an
	 * activation or its gradient as (n, C, H, W). */
	enum status (*logits_read)(struct backend_state *state, float *logits);
	enum status (*gradients_read)(struct backend_state *state, float *gradients);
	enum status (*tensor_read)(struct backend_state *state, int tensor, bool gradient, float *values);
	/* Puts values into an activation of the batch begun, or into its gradient. NULL where the backend is no device's: it is how a device's units are
	 * judged one by one (train/selftest). */
	enum status (*tensor_write)(struct backend_state *state, int tensor, bool gradient, const float *values);

	enum status (*sync)(struct backend_state *state);
};

extern const struct backend backend_ref;
extern const struct backend backend_cpu;

/* "cpu", "ref", or "cuda", which is opened (core/backend/plugin.h) and may start threads: not before a fork. ST_SETTINGS when there is none of that
 * name; ST_DEVICE. */
enum status backend_find(const char *name, const struct backend **backend);
