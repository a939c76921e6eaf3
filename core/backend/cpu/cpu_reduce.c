/* cpu_reduce.c: the sums over ranks of gradients and running statistics.
 *
 * In: a unit whose gradients are ready, last unit first. Out: runs of the gradients, handed over as they lie; after the finish, the sums in
 * their place. Running statistics follow as doubles: they are never rounded to what gradients may travel as. */
#include "core/backend/cpu/cpu_backend.h"

/* All gradients from `first` on that have not been handed over yet. */
static enum status hand_over(struct backend_state *state, size_t first)
{
	const struct reduction *reduction = state->config.reduction;
	size_t count = state->gradients_left - first;
	state->gradients_left = first;
	return count > 0 ? reduction->start(reduction->context, state->gradients + first, count) : ST_OK;
}

enum status cpu_reduce_start(struct backend_state *state, int unit)
{
	const struct reduction *reduction = state->config.reduction;
	const struct params_layout *layout = state->config.layout;
	if (reduction == NULL)
		return ST_OK;
	MUST(state->training && unit >= 0 && unit <= RESNET_UNITS);
	size_t first = state->gradient_at[unit == RESNET_UNITS ? layout->head_weight : layout->unit[unit].weight];
	MUST(first < state->gradients_left);
	bool full = (state->gradients_left - first) * sizeof *state->gradients >= reduction->bucket_bytes;
	return full ? hand_over(state, first) : ST_OK;
}

enum status cpu_reduce_finish(struct backend_state *state)
{
	const struct reduction *reduction = state->config.reduction;
	size_t buffers = state->config.layout->buffers_count;
	if (reduction == NULL)
		return ST_OK;
	MUST(state->training);
	TRY(hand_over(state, 0));
	double share = (double)state->n / (double)state->total;
	for (size_t i = 0; i < buffers; i++)
		state->buffers_shared[i] = share * (double)state->buffers[i];
	TRY(reduction->sum(reduction->context, state->buffers_shared, buffers));
	for (size_t i = 0; i < buffers; i++)
		state->buffers[i] = (float)state->buffers_shared[i];
	TRY(reduction->finish(reduction->context));
	state->gradients_left = state->gradients_count;
	return ST_OK;
}
