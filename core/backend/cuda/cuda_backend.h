/* cuda_backend.h: inside the cuda backend.
 *
 * Activations are NHWC in one element type (fp32, fp16, bf16), the image's three channels padded up (channels_padded). Weights, momentum, EMA
 * and gradients are fp32 arenas of one layout: a convolution is (K, R, S, C) of its live taps only (taps that only meet padding get no
 * gradient, see unit_graphs.h), everything else as on the host; tensors in the order of execution, each at a multiple of ALIGNMENT_FLOATS. Any run
 * of units is then one piece of memory, which travels to the other ranks as it is. Dead taps lie in arenas of their own, only ever decayed.
 * With half precision a rounded copy of the weights is what convolutions read; the update writes it.
 *
 * Everything is enqueued on `stream`; sums over ranks on `sums_stream`, ordered by events. Only what says "blocking" in backend.h waits.
 *
 * What a pass enqueues is recorded the second time that a batch of its kind comes, and replayed from then on (cuda_pass.c): between batch_gather
 * and optimizer_step no call may depend on anything but n, total, training and which. */
#pragma once

#include "core/backend/backend.h"
#include "core/backend/cuda/communicator.h"
#include "core/backend/cuda/launch.h"
#include "core/backend/cuda/plan.h"
#include "core/backend/cuda/unit_graphs.h"

#include <cuda_runtime_api.h>

enum {
	IMAGE_CHANNELS = 3,
	ALIGNMENT_FLOATS = 8, /* so that the half copy of a tensor begins at 16 bytes */
	GATHER_SLOTS = 4,     /* batches that the host may be ahead of the device */
	SETS_MAX = 4,         /* image sets on the device: training, validation */
	PLAN_SETS_MAX = 8,    /* batch sizes: training, its last batch, validation, its last */
	PASSES_MAX = 16,
	OWNED_MAX = RESNET_TENSORS * 2 + RESNET_UNITS * 4 + 64,
};

/* The plans of all units for batches of n images. Units of one shape share a plan. */
struct plan_set {
	int n;
	struct plan *plans[UNIT_WORKS][RESNET_UNITS]; /* owned by the first unit that has it; NULL: not needed, or not yet made */
};

/* A recorded pass. */
struct pass_key {
	int n, total;
	bool training;
	enum which which;
};
struct pass {
	struct pass_key key;
	int walked; /* how often it was walked */
	cudaGraphExec_t graph;
};

struct device_set {
	const uint8_t *host;
	uint8_t *pixels;
	uint16_t *labels;
};

struct backend_state {
	struct backend_config config;
	enum element element;
	bool loss_scaled; /* fp16 */
	char device_name[64];
	enum unit_work weight_gradient; /* which of the two */

	cudaStream_t stream, sums_stream;
	cudaEvent_t gradients_ready, sums_done, slot_free[GATHER_SLOTS];
	struct kernels_loaded *kernels;
	struct launcher launch;              /* on stream, of `element` */
	struct planner *planner;
	struct plan_set plan_sets[PLAN_SETS_MAX];
	struct plan_set *plans;              /* of the present batch */
	void *workspace;
	size_t workspace_bytes;
	struct communicator *communicator;   /* NULL: alone */

	/* Arenas on the device. */
	size_t weights_count, weight_at[PARAMS_MAX]; /* live values, padding between tensors included */
	size_t dead_count, dead_at[RESNET_UNITS];
	float *weights, *momentum, *ema, *gradients;
	float *dead_weights, *dead_momentum, *dead_ema;
	void *half, *half_ema;               /* rounded copies; NULL with fp32 */
	bool half_ema_stale;
	float *buffers, *buffers_ema, *buffers_before;
	double *buffers_shared;
	int64_t batches_tracked;
	struct update_range *ranges;         /* on the device */
	int ranges_count;
	struct update_control *control;
	double *squares;                     /* (SQUARES_BLOCKS), and norm² behind them */
	struct device_sgd history[UPDATE_HISTORY_MAX_DEVICE]; /* updates not yet carried out on dead taps */
	uint32_t *history_skipped;
	int history_count;

	/* The batch. */
	int n, total;
	bool training;
	enum which which;
	struct device_set sets[SETS_MAX];
	struct device_sample *samples_host[GATHER_SLOTS], *samples; /* pinned; on the device */
	int slot;
	struct device_target *targets;
	void *y[RESNET_TENSORS], *dy[RESNET_TENSORS], *z[RESNET_UNITS];
	void *dz, *dx;                       /* one unit's, as large as the largest */
	float *norm[RESNET_UNITS];           /* (4, K): mean, 1/√(variance + ε), scale, bias */
	float *norm_backward;                /* (3, K): by_g, by_z, constant */
	double *partials, *partials_shared;
	uint8_t *pool_tap;
	float *features, *logits, *dlogits;
	double *loss_rows, *counters, *counters_before;
	float *values;                       /* as large as the largest tensor: its fp32 view, for reading; a narrow dw, on its way to the gradients */
	size_t gradients_left;               /* of this batch's, from the first on: not handed over yet */
	uint16_t *gradients_rounded;         /* as they travel in bf16; NULL: they travel as they are */

	struct pass passes[PASSES_MAX], *recording;
	int passes_count;

	void *owned[OWNED_MAX];              /* device memory, for close */
	size_t owned_count;
};

/* cuda_backend.c. What cuda_plugin.c exports. */
extern const struct backend smelt_backend_cuda;

/* Zeroed device memory, released by close. ST_MEMORY names the device, the bytes and the batch. */
enum status device_alloc(struct backend_state *state, size_t count, size_t bytes, void **memory);
/* Waits for all that is enqueued. */
enum status cuda_sync(struct backend_state *state);
/* bytes to the device, in its order; the host may go on using them. */
enum status device_write(struct backend_state *state, const void *from, size_t bytes, void *to);
/* bytes from the device, after all that is enqueued; blocking. */
enum status device_read(struct backend_state *state, const void *from, size_t bytes, void *to);

/* cuda_arena.c */
/* Values of a unit's convolution that lie on the device: live taps, the image's channels padded. */
size_t unit_live_weights(const struct backend_state *state, int unit);
void arena_lay_out(struct backend_state *state);
enum status arena_ranges(struct backend_state *state);
enum status cuda_state_write(struct backend_state *state, const struct training_state *from);
enum status cuda_snapshot(struct backend_state *state, struct training_state *to);
enum status cuda_gradients_read(struct backend_state *state, float *gradients);
enum status cuda_tensor_read(struct backend_state *state, int tensor, bool gradient, float *values);
enum status cuda_tensor_write(struct backend_state *state, int tensor, bool gradient, const float *values);

/* cuda_gather.c */
enum status cuda_batch_gather(struct backend_state *state, const struct images *images, const struct sample *samples, float label_smoothing);

/* cuda_plans.c: finds or makes the plans for batches of state->n images. */
enum status plans_choose(struct backend_state *state);
void plans_free(struct backend_state *state);

/* cuda_unit.c */
enum status cuda_unit_forward(struct backend_state *state, int unit);
enum status cuda_unit_backward(struct backend_state *state, int unit, bool accumulate, bool accumulate_shortcut);

/* cuda_head.c */
enum status cuda_pool_forward(struct backend_state *state);
enum status cuda_pool_backward(struct backend_state *state, bool accumulate);
enum status cuda_head_forward(struct backend_state *state);
enum status cuda_head_backward(struct backend_state *state);

/* cuda_reduce.c */
enum status cuda_reduce_start(struct backend_state *state, int unit);
enum status cuda_reduce_finish(struct backend_state *state);

/* cuda_update.c */
enum status cuda_gradient_norm_squared(struct backend_state *state, double *norm_squared);
enum status cuda_optimizer_step(struct backend_state *state, const struct update *update);
/* Carries out what is still open on the dead taps. */
enum status dead_finish(struct backend_state *state);

/* cuda_pass.c */
enum status cuda_pass_begin(struct backend_state *state, bool *again);
enum status cuda_pass_end(struct backend_state *state);
/* Ends a recording that was not finished; nothing of it runs. */
void passes_abandon(struct backend_state *state);
/* Forgets all recorded passes: something that they point to has moved. */
void passes_forget(struct backend_state *state);

/* --- small facts ------------------------------------------------------------------------------------------------------ */

/* The present weights of a tensor as convolutions read them. */
static inline const void *weight_read(const struct backend_state *state, int param)
{
	size_t at = state->weight_at[param];
	if (state->half == NULL)
		return (state->which == WHICH_EMA ? state->ema : state->weights) + at;
	return (const char *)(state->which == WHICH_EMA ? state->half_ema : state->half) + at * element_bytes(state->element);
}

/* The present fp32 values of a tensor: norms and the head read these. */
static inline const float *weight_exact(const struct backend_state *state, int param)
{
	return (state->which == WHICH_EMA ? state->ema : state->weights) + state->weight_at[param];
}

static inline float *buffer_of(const struct backend_state *state, int param)
{
	return (state->which == WHICH_EMA ? state->buffers_ema : state->buffers) + state->config.layout->all[param].offset;
}
