/* ref_update.c: the sums over ranks, and the optimiser: SGD with momentum, weight decay and an exponential moving average.
 *
 * In: gradients. Out: weights, momentum, EMA. One task owns one parameter tensor. */
#include "core/backend/batch.h"
#include "core/backend/ref/ref.h"

/* Nothing is handed over early: sums are doubles here, and those are summed while one waits. */
enum status ref_reduce_start(struct backend_state *state, int unit)
{
	(void)state;
	MUST(unit >= 0 && unit <= RESNET_UNITS);
	return ST_OK;
}

enum status ref_reduce_finish(struct backend_state *state)
{
	const struct reduction *reduction = state->config.reduction;
	if (reduction == NULL)
		return ST_OK;
	MUST(state->training);
	for (size_t i = 0; i < state->config.layout->buffers_count; i++)
		state->buffers[i] *= (double)state->n / (double)state->total;
	TRY(reduction->sum(reduction->context, state->gradients, state->config.layout->weights_count));
	return reduction->sum(reduction->context, state->buffers, state->config.layout->buffers_count);
}

struct work {
	struct backend_state *state;
	const struct update *update;
};

static void average_move(double *average, const double *value, size_t count, double decay)
{
	for (size_t i = 0; i < count; i++)
		average[i] += (1 - decay) * (value[i] - average[i]);
}

static void update_param(void *context, size_t index)
{
	struct work *work = context;
	struct backend_state *state = work->state;
	const struct update *update = work->update;
	const struct param *param = &state->config.layout->all[index];
	if (param_is_buffer(param)) {
		if (state->config.ema)
			average_move(state->ema_buffers + param->offset, state->buffers + param->offset, param->count, (double)update->ema_decay);
		return;
	}
	double lr = (double)update->lr * (param->kind == PARAM_NORM_BIAS ? (double)update->norm_bias_lr_scale : 1);
	double decay = update->decay_all || param_decays(param) ? (double)update->weight_decay : 0, momentum = (double)update->momentum;
	double *w = state->weights + param->offset, *v = state->momentum + param->offset, *g = state->gradients + param->offset;
	for (size_t i = 0; i < param->count; i++) {
		double d = g[i] * (double)update->gradient_scale + decay * w[i];
		v[i] = update->first ? d : momentum * v[i] + d;
		w[i] -= lr * (update->nesterov ? d + momentum * v[i] : v[i]);
	}
	if (state->config.ema)
		average_move(state->ema_weights + param->offset, w, param->count, (double)update->ema_decay);
}

static void param_norm_squared(void *context, size_t index)
{
	struct backend_state *state = context;
	const struct param *param = &state->config.layout->all[index];
	double sum = 0;
	for (size_t i = 0; i < param->count && !param_is_buffer(param); i++)
		sum += state->gradients[param->offset + i] * state->gradients[param->offset + i];
	state->norms_squared[index] = sum;
}

enum status ref_gradient_norm_squared(struct backend_state *state, double *norm_squared)
{
	double sum = 0;
	threads_run(state->config.threads, param_norm_squared, state, (size_t)state->config.layout->count);
	for (int i = 0; i < state->config.layout->count; i++)
		sum += state->norms_squared[i];
	*norm_squared = sum;
	return ST_OK;
}

enum status ref_optimizer_step(struct backend_state *state, const struct update *update)
{
	struct update scaled = *update;
	if (update->gradient_clip_norm > 0) {
		double norm_squared;
		TRY(ref_gradient_norm_squared(state, &norm_squared));
		scaled.gradient_scale *= clip_scale(update, norm_squared);
	}
	struct work work = {state, &scaled};
	threads_run(state->config.threads, update_param, &work, (size_t)state->config.layout->count);
	return ST_OK;
}
