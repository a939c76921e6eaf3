/* cuda_reduce.c: the sums over ranks, beside the backward half.
 *
 * In: a unit whose gradients are enqueued, last unit first. Runs of the gradient arena of at least bucket_bytes go to sums_stream behind an
 * event; the update waits for the last one's event. In a recorded pass these events are edges. Running statistics follow as doubles, each
 * rank's weighted by its share of the batch: they are never rounded to what gradients may travel as. */
#include "core/backend/cuda/check.h"
#include "core/backend/cuda/cuda_backend.h"

/* sums_stream goes on when all that is on stream now has run. */
static enum status sums_follow(struct backend_state *state)
{
	CUDA_TRY(cudaEventRecord(state->gradients_ready, state->stream));
	CUDA_TRY(cudaStreamWaitEvent(state->sums_stream, state->gradients_ready, 0));
	return ST_OK;
}

static enum status hand_over(struct backend_state *state, size_t first)
{
	size_t count = state->gradients_left - first;
	float *gradients = state->gradients + first;
	state->gradients_left = first;
	if (count == 0)
		return ST_OK;
	TRY(sums_follow(state));
	if (!state->config.reduction->bf16)
		return communicator_sum(state->communicator, gradients, count, ELEMENT_FP32, state->sums_stream);
	const struct launcher launch = {.kernels = state->kernels, .element = ELEMENT_BF16, .stream = state->sums_stream};
	uint16_t *rounded = state->gradients_rounded + first;
	TRY(launch_from_float(&launch, &(struct convert){gradients, rounded, (int64_t)count}));
	TRY(communicator_sum(state->communicator, rounded, count, ELEMENT_BF16, state->sums_stream));
	return launch_to_float(&launch, &(struct convert){rounded, gradients, (int64_t)count});
}

enum status cuda_reduce_start(struct backend_state *state, int unit)
{
	const struct params_layout *layout = state->config.layout;
	if (state->communicator == NULL)
		return ST_OK;
	MUST(state->training && unit >= 0 && unit <= RESNET_UNITS);
	size_t first = state->weight_at[unit == RESNET_UNITS ? layout->head_weight : layout->unit[unit].weight];
	MUST(first < state->gradients_left);
	bool full = (state->gradients_left - first) * sizeof *state->gradients >= state->config.reduction->bucket_bytes;
	return full ? hand_over(state, first) : ST_OK;
}

enum status cuda_reduce_finish(struct backend_state *state)
{
	if (state->communicator == NULL)
		return ST_OK;
	MUST(state->training);
	TRY(hand_over(state, 0));
	size_t buffers = state->config.layout->buffers_count;
	const struct share share = {.values = state->buffers, .shared = state->buffers_shared, .factor = (double)state->n / (double)state->total,
		.count = (int64_t)buffers};
	const struct launcher launch = {.kernels = state->kernels, .element = state->element, .stream = state->sums_stream};
	TRY(sums_follow(state));
	TRY(launch_share_out(&launch, &share));
	TRY(communicator_sum(state->communicator, state->buffers_shared, buffers, ELEMENT_FP64, state->sums_stream));
	TRY(launch_share_back(&launch, &share));
	CUDA_TRY(cudaEventRecord(state->sums_done, state->sums_stream));
	CUDA_TRY(cudaStreamWaitEvent(state->stream, state->sums_done, 0));
	state->gradients_left = state->weights_count;
	return ST_OK;
}
