/* plan_engines.c: see plan_engines.h. */
#include "core/backend/cuda/plan_engines.h"

#include "core/backend/cuda/check.h"

enum { NOTES_MAX = 32 };

static enum status numerical_notes(cudnnBackendDescriptor_t engine, struct engine *facts)
{
	cudnnBackendNumericalNote_t notes[NOTES_MAX];
	int64_t count = 0;
	CUDNN_TRY(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, NOTES_MAX, &count, notes));
	for (int64_t i = 0; i < count && i < NOTES_MAX; i++) {
		facts->nondeterministic |= notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
		facts->tensor_cores |= notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
		facts->inputs_rounded |= notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
		facts->sums_rounded |= notes[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
		facts->winograd_13x13 |= notes[i] == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13;
	}
	return ST_OK;
}

static enum status behavior_notes(cudnnBackendDescriptor_t engine, struct engine *facts)
{
	cudnnBackendBehaviorNote_t notes[NOTES_MAX];
	int64_t count = 0;
	CUDNN_TRY(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, NOTES_MAX, &count, notes));
	for (int64_t i = 0; i < count && i < NOTES_MAX; i++)
		facts->runtime_compiled |= notes[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
	return ST_OK;
}

/* Asks a configuration whose engine it is and what is noted of that. */
static enum status engine_describe(struct engine *facts)
{
	cudnnBackendDescriptor_t engine;
	int64_t count = 0;
	TRY(descriptor_make(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
	enum status status = CUDNN(cudnnBackendGetAttribute(facts->config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine));
	if (status == ST_OK)
		status = CUDNN(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count, &facts->index));
	if (status == ST_OK)
		status = numerical_notes(engine, facts);
	if (status == ST_OK)
		status = behavior_notes(engine, facts);
	descriptor_free(engine);
	return status;
}

/* The results are written into descriptors that are there already. */
static enum status results_take(cudnnBackendDescriptor_t heuristics, struct engines *engines)
{
	cudnnBackendDescriptor_t configs[ENGINES_MAX];
	int64_t offered = 0, taken = 0;
	CUDNN_TRY(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &offered, NULL));
	const int wanted = offered < ENGINES_MAX ? (int)offered : ENGINES_MAX;
	while (engines->count < wanted) {
		struct engine *engine = &engines->engines[engines->count];
		*engine = (struct engine){.config = NULL};
		TRY(descriptor_make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &engine->config));
		configs[engines->count++] = engine->config;
	}
	if (wanted == 0)
		return ST_OK;
	CUDNN_TRY(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, wanted, &taken, configs));
	while (engines->count > taken)
		descriptor_free(engines->engines[--engines->count].config);
	for (int i = 0; i < engines->count; i++)
		TRY(engine_describe(&engines->engines[i]));
	return ST_OK;
}

enum status engines_ask(const struct plan_target *target, const struct cudnn_graph *graph, cudnnBackendHeurMode_t mode, struct engines *engines)
{
	cudnnBackendDescriptor_t h;
	engines->count = 0;
	TRY(descriptor_make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &h));
	enum status status = descriptor_set(h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph->operations);
	if (status == ST_OK)
		status = descriptor_set(h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
	if (status == ST_OK && target->properties != NULL)
		status = descriptor_set(h, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->properties);
	if (status == ST_OK)
		status = descriptor_finish(h);
	if (status == ST_OK)
		status = results_take(h, engines);
	descriptor_free(h);
	if (status != ST_OK)
		engines_free(engines);
	return status;
}

void engines_free(struct engines *engines)
{
	while (engines->count > 0)
		descriptor_free(engines->engines[--engines->count].config);
}
