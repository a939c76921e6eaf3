/* cuda_update.c: the optimizer: SGD with momentum, weight decay, moving average, loss scale.
 *
 * In: gradients (times the loss scale, with fp16). Out: weights, their rounded copy, momentum, EMA. Whether a step's gradients are finite is
 * found out and obeyed on the device: the host neither waits for that nor knows it. All ranks hold the same sums, so they decide alike.
 * Updates of dead taps are remembered and carried out together, the same operations in the same order: hence the same bits. */
#include "core/backend/cuda/check.h"
#include "core/backend/cuda/cuda_backend.h"

#include <string.h>

/* Steps without an overflow after which the loss scale is doubled; PyTorch's GradScaler. */
enum { GROWTH_STEPS = 2000 };

static struct device_sgd update_constants(const struct update *update, bool decays, bool beta)
{
	return (struct device_sgd){
		.lr = beta ? update->lr * update->norm_bias_lr_scale : update->lr,
		.momentum = update->momentum,
		.decay = decays || update->decay_all ? update->weight_decay : 0,
		.ema_share = 1 - update->ema_decay,
		.nesterov = update->nesterov,
		.first = update->first,
	};
}

static enum status squares_sum(struct backend_state *state)
{
	return launch_squares(&state->launch, &(struct squares){.gradients = state->gradients, .count = (int64_t)state->weights_count, .partials = state->squares});
}

enum status cuda_gradient_norm_squared(struct backend_state *state, double *norm_squared)
{
	double partials[SQUARES_BLOCKS], sum = 0;
	struct update_control control;
	MUST(state->config.training);
	TRY(squares_sum(state));
	TRY(device_read(state, state->squares, sizeof partials, partials));
	TRY(device_read(state, state->control, sizeof control, &control));
	for (int i = 0; i < SQUARES_BLOCKS; i++)
		sum += partials[i];
	*norm_squared = sum / ((double)control.loss_scale * (double)control.loss_scale);
	return ST_OK;
}

enum status dead_finish(struct backend_state *state)
{
	if (state->history_count == 0)
		return ST_OK;
	struct update_dead dead = {.skipped = state->loss_scaled ? state->history_skipped : NULL, .history_count = state->history_count,
		.count = (int64_t)state->dead_count, .weights = state->dead_weights, .momentum = state->dead_momentum, .ema = state->dead_ema};
	memcpy(dead.history, state->history, (size_t)state->history_count * sizeof *dead.history);
	state->history_count = 0;
	return launch_update_dead(&state->launch, &dead);
}

static enum status dead_remember(struct backend_state *state, const struct update *update)
{
	if (state->dead_count == 0)
		return ST_OK;
	if (state->loss_scaled)
		TRY(launch_skip_note(&state->launch, &(struct skip_note){.control = state->control, .skipped = state->history_skipped, .index = state->history_count}));
	state->history[state->history_count++] = update_constants(update, true, false);
	return state->history_count == UPDATE_HISTORY_MAX_DEVICE ? dead_finish(state) : ST_OK;
}

enum status cuda_optimizer_step(struct backend_state *state, const struct update *update)
{
	MUST(state->config.training);
	if (state->loss_scaled || update->gradient_clip_norm > 0) {
		TRY(squares_sum(state));
		TRY(launch_update_prepare(&state->launch, &(struct update_prepare){.partials = state->squares, .dynamic = state->loss_scaled,
			.growth_steps = GROWTH_STEPS, .clip_norm = update->gradient_clip_norm / (double)update->gradient_scale, .control = state->control}));
	}
	const struct update_live live = {
		.ranges = state->ranges,
		.ranges_count = state->ranges_count,
		.kinds = {update_constants(update, true, false), update_constants(update, false, false), update_constants(update, false, true)},
		.gradient_scale = update->gradient_scale,
		.control = state->control,
		.gradients = state->gradients,
		.weights = state->weights,
		.momentum = state->momentum,
		.ema = state->ema,
		.half = state->half,
	};
	TRY(launch_update_live(&state->launch, &live));
	TRY(dead_remember(state, update));
	state->half_ema_stale = true;
	if (!state->config.ema)
		return ST_OK;
	return launch_average(&state->launch, &(struct average){.values = state->buffers, .ema = state->buffers_ema, .ema_share = 1 - update->ema_decay,
		.count = (int64_t)state->config.layout->buffers_count, .control = state->control});
}
