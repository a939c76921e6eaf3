/* cuda_unit.c: a unit of the network on the device: convolution (a cuDNN plan), then batch norm, shortcut and ReLU (kernels).
 *
 * In: the activation x, weights. Out: y; backwards: from dy the gradients of weights, gamma, beta, x and the shortcut. */
#include "core/backend/batch.h"
#include "core/backend/cuda/check.h"
#include "core/backend/cuda/cuda_backend.h"

/* mean, 1/√(variance + ε), scale, bias of a unit's norm. */
static float *norm_row(const struct backend_state *state, int u, int row)
{
	return state->norm[u] + (size_t)row * (size_t)state->config.network->units[u].K;
}

static int64_t unit_pixels(const struct backend_state *state, const struct unit *unit)
{
	return (int64_t)state->n * unit->P * unit->Q;
}

/* Sums of one row over all ranks, in place. */
static enum status sums_share(struct backend_state *state, int K, double *sums)
{
	return communicator_sum(state->communicator, sums, 2 * (size_t)K, ELEMENT_FP64, state->stream);
}

/* Statistics of z over the batch: norm rows, running statistics. */
static enum status norm_measure(struct backend_state *state, int u)
{
	const struct unit *unit = &state->config.network->units[u];
	const struct params_layout *layout = state->config.layout;
	const bool shared = norm_is_shared(&state->config);
	const int64_t pixels = unit_pixels(state, unit);
	const int rows = norm_partial_rows(pixels, unit->K);
	if (state->n > 0)
		TRY(launch_norm_sums(&state->launch, &(struct norm_sums){.z = state->z[u], .pixels = pixels, .C = unit->K, .rows = rows, .partials = state->partials}));
	if (shared && state->n > 0)
		TRY(launch_norm_fold(&state->launch, &(struct norm_fold){state->partials, unit->K, rows, state->partials_shared}));
	else if (shared)
		CUDA_TRY(cudaMemsetAsync(state->partials_shared, 0, 2 * (size_t)unit->K * sizeof(double), state->stream));
	if (shared)
		TRY(sums_share(state, unit->K, state->partials_shared));
	const struct norm_constants constants = {
		.partials = shared ? state->partials_shared : state->partials,
		.C = unit->K,
		.rows = shared ? 1 : rows,
		.count = (double)(shared ? state->total : state->n) * unit->P * unit->Q,
		.epsilon = NORM_EPSILON,
		.share = state->config.norm_momentum,
		.gamma = weight_exact(state, layout->unit[u].gamma),
		.beta = weight_exact(state, layout->unit[u].beta),
		.running_mean = buffer_of(state, layout->unit[u].running_mean),
		.running_var = buffer_of(state, layout->unit[u].running_var),
		.mean = norm_row(state, u, 0),
		.inverse_deviation = norm_row(state, u, 1),
		.scale = norm_row(state, u, 2),
		.bias = norm_row(state, u, 3),
	};
	return constants.count > 0 ? launch_norm_constants(&state->launch, &constants) : ST_OK;
}

static enum status norm_recall(struct backend_state *state, int u)
{
	const struct params_layout *layout = state->config.layout;
	const struct norm_constants_running constants = {
		.C = state->config.network->units[u].K,
		.epsilon = NORM_EPSILON,
		.gamma = weight_exact(state, layout->unit[u].gamma),
		.beta = weight_exact(state, layout->unit[u].beta),
		.running_mean = buffer_of(state, layout->unit[u].running_mean),
		.running_var = buffer_of(state, layout->unit[u].running_var),
		.scale = norm_row(state, u, 2),
		.bias = norm_row(state, u, 3),
	};
	return launch_norm_constants_running(&state->launch, &constants);
}

static enum status convolution_run(struct backend_state *state, int u, enum unit_work work, const struct unit_memory *memory)
{
	void *pointers[GRAPH_TENSORS_MAX] = {0};
	unit_graph_bind(work, state->element, memory, pointers);
	return plan_run(state->plans->plans[work][u], pointers, state->workspace);
}

enum status cuda_unit_forward(struct backend_state *state, int u)
{
	const struct unit *unit = &state->config.network->units[u];
	if (state->n > 0)
		TRY(convolution_run(state, u, UNIT_FORWARD, &(struct unit_memory){.x = state->y[unit->x], .w = weight_read(state, state->config.layout->unit[u].weight),
			.z = state->z[u]}));
	TRY(state->training ? norm_measure(state, u) : norm_recall(state, u));
	if (state->n == 0)
		return ST_OK;
	const struct norm_apply apply = {
		.z = state->z[u],
		.shortcut = unit->shortcut >= 0 ? state->y[unit->shortcut] : NULL,
		.scale = norm_row(state, u, 2),
		.bias = norm_row(state, u, 3),
		.pixels = unit_pixels(state, unit),
		.C = unit->K,
		.relu = unit->relu,
		.y = state->y[unit->y],
	};
	return launch_norm_apply(&state->launch, &apply);
}

/* dz, the shortcut's gradient, dgamma and dbeta. */
static enum status norm_backward(struct backend_state *state, int u, bool accumulate_shortcut)
{
	const struct unit *unit = &state->config.network->units[u];
	const struct params_layout *layout = state->config.layout;
	const bool shared = norm_is_shared(&state->config);
	const int64_t pixels = unit_pixels(state, unit);
	const int rows = norm_partial_rows(pixels, unit->K);
	const size_t K = (size_t)unit->K;
	const struct norm_backward_sums sums = {.dy = state->dy[unit->y], .y = state->y[unit->y], .z = state->z[u], .mean = norm_row(state, u, 0),
		.pixels = pixels, .C = unit->K, .rows = rows, .relu = unit->relu, .partials = state->partials};
	if (state->n > 0)
		TRY(launch_norm_backward_sums(&state->launch, &sums));
	else
		CUDA_TRY(cudaMemsetAsync(state->partials, 0, 2 * K * (size_t)rows * sizeof(double), state->stream));
	if (shared) {
		TRY(launch_norm_fold(&state->launch, &(struct norm_fold){state->partials, unit->K, rows, state->partials_shared}));
		TRY(sums_share(state, unit->K, state->partials_shared));
	}
	const struct norm_backward_constants constants = {
		.own = state->partials,
		.own_rows = rows,
		.shared = shared ? state->partials_shared : state->partials,
		.shared_rows = shared ? 1 : rows,
		.C = unit->K,
		.count = (double)(shared ? state->total : state->n) * unit->P * unit->Q,
		.gradient_scale = 1,
		.gamma = weight_exact(state, layout->unit[u].gamma),
		.mean = norm_row(state, u, 0),
		.inverse_deviation = norm_row(state, u, 1),
		.dgamma = state->gradients + state->weight_at[layout->unit[u].gamma],
		.dbeta = state->gradients + state->weight_at[layout->unit[u].beta],
		.by_g = state->norm_backward,
		.by_z = state->norm_backward + K,
		.constant = state->norm_backward + 2 * K,
	};
	TRY(launch_norm_backward_constants(&state->launch, &constants));
	if (state->n == 0)
		return ST_OK;
	const struct norm_backward_apply apply = {
		.dy = state->dy[unit->y],
		.y = state->y[unit->y],
		.z = state->z[u],
		.by_g = constants.by_g,
		.by_z = constants.by_z,
		.constant = constants.constant,
		.pixels = pixels,
		.C = unit->K,
		.relu = unit->relu,
		.accumulate = accumulate_shortcut,
		.dz = state->dz,
		.dshortcut = unit->shortcut >= 0 ? state->dy[unit->shortcut] : NULL,
	};
	return launch_norm_backward_apply(&state->launch, &apply);
}

static enum status weight_gradient(struct backend_state *state, int u)
{
	const struct unit *unit = &state->config.network->units[u];
	float *dw = state->gradients + state->weight_at[state->config.layout->unit[u].weight];
	const bool narrow = state->weight_gradient == UNIT_WEIGHT_GRADIENT_NARROW;
	void *to = narrow ? state->values : dw;
	TRY(convolution_run(state, u, state->weight_gradient, &(struct unit_memory){.x = state->y[unit->x], .dz = state->dz, .dw = to}));
	if (!narrow)
		return ST_OK;
	return launch_to_float(&state->launch, &(struct convert){.from = to, .to = dw, .count = (int64_t)unit_live_weights(state, u)});
}

enum status cuda_unit_backward(struct backend_state *state, int u, bool accumulate, bool accumulate_shortcut)
{
	const struct unit *unit = &state->config.network->units[u];
	const int weight = state->config.layout->unit[u].weight;
	MUST(state->training);
	TRY(norm_backward(state, u, accumulate_shortcut));
	if (state->n == 0)
		return ST_OK; /* the weights' gradients are zeros since batch_begin */
	TRY(weight_gradient(state, u));
	if (unit->x == 0)
		return ST_OK; /* the image gets none */
	void *dx = accumulate ? state->dx : state->dy[unit->x];
	TRY(convolution_run(state, u, UNIT_INPUT_GRADIENT, &(struct unit_memory){.dz = state->dz, .w = weight_read(state, weight), .dx = dx}));
	if (!accumulate)
		return ST_OK;
	return launch_add(&state->launch, &(struct add){.from = dx, .to = state->dy[unit->x], .count = (int64_t)state->n * unit->C * unit->H * unit->W});
}
