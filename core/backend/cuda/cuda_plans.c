/* cuda_plans.c: which plans a batch needs.
 *
 * In: how many images a batch has. Out: a plan for each unit's three convolutions; units of one shape share one. Plans are kept for the batch
 * sizes of a run (training, validation, and the last batch of each), so only the first batch of a size waits. */
#include "core/backend/cuda/check.h"
#include "core/backend/cuda/cuda_backend.h"

#include <string.h>

/* The plan of an earlier unit of the same shape, or NULL. */
static struct plan *plan_shared(const struct backend_state *state, const struct plan_set *set, int work, int u)
{
	const struct unit *units = state->config.network->units;
	for (int v = 0; v < u; v++)
		if (set->plans[work][v] != NULL && units_alike(&units[u], &units[v]))
			return set->plans[work][v];
	return NULL;
}

static bool work_is_done(const struct backend_state *state, const struct unit *unit, enum unit_work work)
{
	if (work == UNIT_INPUT_GRADIENT)
		return unit->x != 0; /* the image gets none */
	return work == UNIT_FORWARD || work == state->weight_gradient;
}

static enum status set_complete(struct backend_state *state, struct plan_set *set)
{
	const struct network *network = state->config.network;
	size_t bytes = state->workspace_bytes;
	for (int work = 0; work < (state->training ? UNIT_WORKS : UNIT_FORWARD + 1); work++)
		for (int u = 0; u < RESNET_UNITS; u++) {
			struct plan **plan = &set->plans[work][u];
			const struct unit *unit = &network->units[u];
			if (*plan == NULL)
				*plan = plan_shared(state, set, work, u);
			if (*plan != NULL || !work_is_done(state, unit, (enum unit_work)work))
				continue;
			struct graph graph;
			unit_graph(&graph, (enum unit_work)work, unit, set->n, state->element);
			TRY(plan_build(state->planner, &graph, plan));
			struct plan_facts facts;
			plan_facts(*plan, &facts);
			if (facts.workspace_bytes > 0 && (size_t)facts.workspace_bytes > bytes)
				bytes = (size_t)facts.workspace_bytes;
		}
	if (bytes == state->workspace_bytes)
		return ST_OK;
	/* A recorded pass points into the old one. */
	TRY(cuda_sync(state));
	passes_forget(state);
	state->workspace_bytes = bytes;
	CUDA_TRY(cudaFree(state->workspace));
	state->workspace = NULL;
	cudaError_t error = cudaMalloc(&state->workspace, bytes);
	if (error == cudaErrorMemoryAllocation)
		return FAIL(ST_MEMORY, "%s: no memory for a workspace of %zu bytes for batches of %d images; a smaller batch_size takes less", state->device_name,
			bytes, set->n);
	CUDA_TRY(error);
	return ST_OK;
}

static void set_free(struct plan_set *set)
{
	for (int work = 0; work < UNIT_WORKS; work++)
		for (int u = 0; u < RESNET_UNITS; u++) {
			struct plan *plan = set->plans[work][u];
			for (int v = u; v < RESNET_UNITS; v++)
				if (set->plans[work][v] == plan)
					set->plans[work][v] = NULL;
			plan_free(plan);
		}
	set->n = 0;
}

enum status plans_choose(struct backend_state *state)
{
	struct plan_set *set = NULL;
	state->plans = NULL;
	if (state->n == 0)
		return ST_OK;
	for (int i = 0; i < PLAN_SETS_MAX && set == NULL; i++)
		if (state->plan_sets[i].n == state->n || state->plan_sets[i].n == 0)
			set = &state->plan_sets[i];
	if (set == NULL) {
		/* More sizes than a run has: begin again with this one. */
		TRY(cuda_sync(state));
		passes_forget(state);
		plans_free(state);
		set = &state->plan_sets[0];
	}
	set->n = state->n;
	TRY(set_complete(state, set));
	state->plans = set;
	return ST_OK;
}

void plans_free(struct backend_state *state)
{
	for (int i = 0; i < PLAN_SETS_MAX; i++)
		set_free(&state->plan_sets[i]);
}
