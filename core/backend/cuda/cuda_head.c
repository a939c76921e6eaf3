/* cuda_head.c: the pool behind the stem and the head: mean over the map, linear layer, loss. All own kernels: they are small, and their fp32
 * results (logits, loss) decide what is reported. */
#include "core/backend/cuda/check.h"
#include "core/backend/cuda/cuda_backend.h"

enum status cuda_pool_forward(struct backend_state *state)
{
	const struct stem_pool *pool = &state->config.network->pool;
	if (state->n == 0)
		return ST_OK;
	return launch_pool_forward(&state->launch, &(struct pool_forward){.x = state->y[pool->x], .n = state->n, .H = pool->H, .W = pool->W, .C = pool->C,
		.P = pool->P, .Q = pool->Q, .y = state->y[pool->y], .tap = state->training ? state->pool_tap : NULL});
}

enum status cuda_pool_backward(struct backend_state *state, bool accumulate)
{
	const struct stem_pool *pool = &state->config.network->pool;
	if (state->n == 0)
		return ST_OK;
	return launch_pool_backward(&state->launch, &(struct pool_backward){.dy = state->dy[pool->y], .tap = state->pool_tap, .n = state->n, .H = pool->H,
		.W = pool->W, .C = pool->C, .P = pool->P, .Q = pool->Q, .accumulate = accumulate, .dx = state->dy[pool->x]});
}

enum status cuda_head_forward(struct backend_state *state)
{
	const struct head *head = &state->config.network->head;
	const struct params_layout *layout = state->config.layout;
	if (state->n == 0)
		return ST_OK;
	TRY(launch_features(&state->launch, &(struct features){.x = state->y[head->x], .n = state->n, .pixels_of_image = head->H * head->W, .C = head->C,
		.features = state->features}));
	TRY(launch_logits(&state->launch, &(struct logits){.features = state->features, .weight = weight_exact(state, layout->head_weight),
		.bias = weight_exact(state, layout->head_bias), .n = state->n, .C = head->C, .classes = head->classes, .logits = state->logits}));
	TRY(launch_loss(&state->launch, &(struct loss){.logits = state->logits, .targets = state->targets, .n = state->n, .classes = head->classes,
		.total = state->total, .loss_scale = state->loss_scaled ? &state->control->loss_scale : NULL,
		.dlogits = state->training ? state->dlogits : NULL, .rows = state->loss_rows}));
	return launch_counters_add(&state->launch, &(struct counters_add){.rows = state->loss_rows, .n = state->n, .counters = state->counters});
}

enum status cuda_head_backward(struct backend_state *state)
{
	const struct head *head = &state->config.network->head;
	const struct params_layout *layout = state->config.layout;
	MUST(state->training);
	if (state->n == 0)
		return ST_OK;
	TRY(launch_head_weight_gradient(&state->launch, &(struct head_weight_gradient){.dlogits = state->dlogits, .features = state->features, .n = state->n,
		.C = head->C, .classes = head->classes, .dweight = state->gradients + state->weight_at[layout->head_weight],
		.dbias = state->gradients + state->weight_at[layout->head_bias]}));
	return launch_head_input_gradient(&state->launch, &(struct head_input_gradient){.dlogits = state->dlogits,
		.weight = weight_exact(state, layout->head_weight), .n = state->n, .C = head->C, .classes = head->classes,
		.pixels_of_image = head->H * head->W, .dx = state->dy[head->x]});
}
