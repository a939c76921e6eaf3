/* cpu_update.c: the optimizer: SGD with momentum, weight decay and an exponential moving average, as loops over ranges.
 *
 * The weights of a dead tap (one that meets only padding; more than half of all weights with the 7×7 stem at 32×32) have a gradient of
 * exactly zero: they only decay. Their updates are remembered and carried out together, up to UPDATE_HISTORY_MAX at a time: the same
 * operations on each weight in the same order, hence the same bits, without fetching them in every step. Nothing reads them between. */
#include "core/backend/batch.h"
#include "core/backend/cpu/cpu_backend.h"

/* A range is cut into tasks no longer than this. */
enum { RANGE_FLOATS_MAX = 16384 };

/* --- ranges --------------------------------------------------------------------------------------------------------- */

/* Appends [offset, offset + count) in pieces. */
static size_t ranges_add(struct range *ranges, size_t at, struct range whole)
{
	while (whole.count > 0) {
		struct range piece = whole;
		if (piece.count > RANGE_FLOATS_MAX)
			piece.count = RANGE_FLOATS_MAX;
		if (ranges != NULL)
			ranges[at] = piece;
		at++;
		whole.offset += piece.count;
		whole.gradient += piece.count;
		whole.count -= piece.count;
	}
	return at;
}

size_t ranges_build(const struct backend_state *state, struct range *ranges)
{
	const struct params_layout *layout = state->config.layout;
	size_t count = 0;
	for (int i = 0; i < layout->count; i++) {
		const struct param *param = &layout->all[i];
		if (param_is_buffer(param))
			continue;
		struct range whole = {.offset = param->offset, .count = param->count, .gradient = state->gradient_at[i], .decays = param_decays(param),
			.beta = param->kind == PARAM_NORM_BIAS};
		if (param->kind != PARAM_CONVOLUTION) {
			count = ranges_add(ranges, count, whole);
			continue;
		}
		/* Packed (K/32, R·S, C, 32): a tap of a channel tile is one run; neighbours of the same kind are joined. */
		const struct unit *unit = &state->config.network->units[param->unit];
		size_t run = (size_t)unit->C * TILE_CHANNELS, runs = param->count / run, taps = (size_t)(unit->R * unit->S);
		whole.count = 0;
		for (size_t j = 0; j < runs; j++) {
			bool dead = !tap_is_live(unit, j % taps);
			if (dead != whole.dead) {
				count = ranges_add(ranges, count, whole);
				whole.offset += whole.count;
				whole.gradient += whole.dead ? 0 : whole.count;
				whole.count = 0;
				whole.dead = dead;
			}
			whole.count += run;
		}
		count = ranges_add(ranges, count, whole);
	}
	return count;
}

/* --- gradient norm -------------------------------------------------------------------------------------------------- */

static void squares_task(void *context, size_t index)
{
	struct backend_state *state = context;
	const struct range *range = &state->ranges[index];
	state->squares[index] = range->dead ? 0 : state->kernels->squares(state->gradients + range->gradient, range->count);
}

enum status cpu_gradient_norm_squared(struct backend_state *state, double *norm_squared)
{
	MUST(state->config.training);
	double sum = 0;
	threads_run(state->config.threads, squares_task, state, state->ranges_count);
	for (size_t i = 0; i < state->ranges_count; i++)
		sum += state->squares[i];
	*norm_squared = sum;
	return ST_OK;
}

/* --- updates -------------------------------------------------------------------------------------------------------- */

struct work {
	struct backend_state *state;
	const struct update *update;
};

/* The constants of one update for a kind of range. */
static struct sgd update_constants(const struct update *update, bool decays, bool beta)
{
	return (struct sgd){
		.lr = beta ? update->lr * update->norm_bias_lr_scale : update->lr,
		.momentum = update->momentum,
		.decay = decays || update->decay_all ? update->weight_decay : 0,
		.scale = update->gradient_scale,
		.ema_share = 1 - update->ema_decay,
		.nesterov = update->nesterov,
		.first = update->first,
	};
}

static void update_live_task(void *context, size_t index)
{
	const struct work *work = context;
	struct backend_state *state = work->state;
	const struct range *range = &state->ranges[index];
	if (range->dead)
		return;
	struct sgd step = update_constants(work->update, range->decays, range->beta);
	state->kernels->update(&step, 1, range->count, state->gradients + range->gradient, state->weights + range->offset,
		state->momentum + range->offset, state->ema_weights != NULL ? state->ema_weights + range->offset : NULL);
}

static void update_dead_task(void *context, size_t index)
{
	struct backend_state *state = context;
	const struct range *range = &state->ranges[index];
	if (!range->dead)
		return;
	state->kernels->update(state->history, state->history_count, range->count, NULL, state->weights + range->offset,
		state->momentum + range->offset, state->ema_weights != NULL ? state->ema_weights + range->offset : NULL);
}

void updates_finish(struct backend_state *state)
{
	if (state->history_count == 0)
		return;
	threads_run(state->config.threads, update_dead_task, state, state->ranges_count);
	state->history_count = 0;
}

enum status cpu_optimizer_step(struct backend_state *state, const struct update *update)
{
	MUST(state->config.training);
	struct update scaled = *update;
	if (update->gradient_clip_norm > 0) {
		double norm_squared;
		TRY(cpu_gradient_norm_squared(state, &norm_squared));
		scaled.gradient_scale *= clip_scale(update, norm_squared);
	}
	struct work work = {state, &scaled};
	threads_run(state->config.threads, update_live_task, &work, state->ranges_count);
	state->history[state->history_count++] = update_constants(update, true, false);
	if (state->history_count == UPDATE_HISTORY_MAX)
		updates_finish(state);
	if (state->ema_buffers != NULL)
		for (size_t i = 0; i < state->config.layout->buffers_count; i++)
			state->ema_buffers[i] += (1 - update->ema_decay) * (state->buffers[i] - state->ema_buffers[i]);
	return ST_OK;
}
