/* cpu_reduce.c: gradients and running statistics on their way to the sum over ranks.
 *
 * In: a unit whose gradients are ready, last unit first. Out: runs of the gradients, handed over as they lie; after the finish, the sums in
 * their place. Right before the first unit's gradients is room for the running statistics, so the last run takes them along. */
#include "core/backend/cpu/cpu_backend.h"

#include <string.h>

static enum status hand_over(struct backend_state *state, float *begin)
{
	const struct reduction *reduction = state->config.reduction;
	size_t count = (size_t)(state->travel_end - begin);
	state->travel_end = begin;
	return reduction->start(reduction->context, begin, count);
}

enum status cpu_reduce_start(struct backend_state *state, int unit)
{
	const struct reduction *reduction = state->config.reduction;
	const struct params_layout *layout = state->config.layout;
	if (reduction == NULL)
		return ST_OK;
	MUST(state->training && unit >= 0 && unit <= RESNET_UNITS);
	float *begin = state->gradients + state->gradient_at[unit == RESNET_UNITS ? layout->head_weight : layout->unit[unit].weight];
	MUST(begin < state->travel_end);
	bool full = (size_t)(state->travel_end - begin) >= reduction->bucket_bytes / sizeof *begin;
	return full ? hand_over(state, begin) : ST_OK;
}

enum status cpu_reduce_finish(struct backend_state *state)
{
	const struct reduction *reduction = state->config.reduction;
	size_t buffers = state->config.layout->buffers_count;
	if (reduction == NULL)
		return ST_OK;
	MUST(state->training);
	double share = (double)state->n / (double)state->total;
	for (size_t i = 0; i < buffers; i++)
		state->travel[i] = (float)(share * (double)state->buffers[i]);
	TRY(hand_over(state, state->travel));
	TRY(reduction->finish(reduction->context));
	memcpy(state->buffers, state->travel, buffers * sizeof *state->buffers);
	state->travel_end = state->gradients + state->gradients_count;
	return ST_OK;
}
