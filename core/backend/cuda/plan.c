/* plan.c: see plan.h. */
#include "core/backend/cuda/plan.h"

#include "core/backend/cuda/check.h"
#include "core/backend/cuda/plan_cache.h"
#include "core/backend/cuda/plan_engines.h"
#include "core/backend/cuda/plan_time.h"
#include "core/base/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How many engines are timed. Those that are compiled for the purpose take a second each to be so. */
enum { TIMED_MAX = 6, TIMED_RUNTIME_COMPILED_MAX = 2 };

struct planner {
	struct planner_config config;
	struct plan_target target;
	struct text device;    /* what the choice depends on of the device and cuDNN */
	struct text directory; /* config.cache_directory */
};

struct plan {
	const struct planner *planner;
	cudnnBackendDescriptor_t descriptor;
	struct plan_facts facts;
	char name[GRAPH_NAME_BYTES];
	/* Tensors that it is given: numbers in the graph, and cuDNN's for them. */
	int count, numbers[GRAPH_TENSORS_MAX];
	int64_t uids[GRAPH_TENSORS_MAX];
};

/* --- the planner ------------------------------------------------------------------------------------------------------- */

static enum status target_described(struct planner *planner, const char *json)
{
	cudnnBackendDescriptor_t *properties = &planner->target.properties;
	TRY(descriptor_make(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, properties));
	TRY(descriptor_set(*properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json) + 1, json));
	TRY(descriptor_finish(*properties));
	return text_printf(&planner->device, "cuDNN %zu\n%s\n", cudnnGetVersion(), json);
}

static enum status target_here(struct planner *planner)
{
	int device, driver, runtime;
	struct cudaDeviceProp facts;
	CUDA_TRY(cudaGetDevice(&device));
	CUDA_TRY(cudaDriverGetVersion(&driver));
	CUDA_TRY(cudaRuntimeGetVersion(&runtime));
	CUDA_TRY(cudaGetDeviceProperties(&facts, device));
	CUDNN_TRY(cudnnCreate(&planner->target.handle));
	CUDNN_TRY(cudnnSetStream(planner->target.handle, planner->config.stream));
	return text_printf(&planner->device, "cuDNN %zu\n%s, %d.%d, %d multiprocessors, %zu bytes, driver %d, runtime %d\n", cudnnGetVersion(), facts.name,
		facts.major, facts.minor, facts.multiProcessorCount, facts.totalGlobalMem, driver, runtime);
}

static enum status planner_prepare(struct planner *planner, const struct planner_config *config)
{
	planner->config = *config;
	if (config->cache_directory != NULL) {
		TRY(text_add(&planner->directory, config->cache_directory));
		planner->config.cache_directory = text_string(&planner->directory);
	}
	return config->device_json != NULL ? target_described(planner, config->device_json) : target_here(planner);
}

enum status planner_open(const struct planner_config *config, struct planner **planner)
{
	struct planner *opened = calloc(1, sizeof *opened);
	if (opened == NULL)
		return FAIL(ST_MEMORY, "a planner: out of memory");
	enum status status = planner_prepare(opened, config);
	if (status != ST_OK)
		planner_close(opened);
	else
		*planner = opened;
	return status;
}

void planner_close(struct planner *planner)
{
	if (planner == NULL)
		return;
	if (planner->target.handle != NULL)
		cudnnDestroy(planner->target.handle);
	descriptor_free(planner->target.properties);
	text_free(&planner->device);
	text_free(&planner->directory);
	free(planner);
}

/* --- one plan ---------------------------------------------------------------------------------------------------------- */

static enum status plan_new(const struct planner *planner, const struct graph *graph, struct plan **plan)
{
	struct plan *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "%s: out of memory", graph->name);
	made->planner = planner;
	memcpy(made->name, graph->name, sizeof made->name);
	for (int i = 0; i < graph->tensors_count; i++)
		if (!graph->tensors[i].is_virtual) {
			made->numbers[made->count] = i;
			made->uids[made->count++] = tensor_uid(i);
		}
	*plan = made;
	return ST_OK;
}

void plan_free(struct plan *plan)
{
	if (plan == NULL)
		return;
	descriptor_free(plan->descriptor);
	free(plan);
}

void plan_facts(const struct plan *plan, struct plan_facts *facts)
{
	*facts = plan->facts;
}

/* From an engine's configuration or, that being NULL, from cuDNN's own words of an earlier run. The target is always set: without one
 * cuDNN crashes. */
static enum status plan_finish(struct plan *plan, cudnnBackendDescriptor_t config, const struct text *json)
{
	const struct plan_target *target = &plan->planner->target;
	int64_t count;
	TRY(descriptor_make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan->descriptor));
	if (config != NULL)
		TRY(descriptor_set(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config));
	else
		TRY(descriptor_set(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)json->length, json->data));
	if (target->handle != NULL)
		TRY(descriptor_set(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target->handle));
	else
		TRY(descriptor_set(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->properties));
	TRY(descriptor_finish(plan->descriptor));
	return CUDNN(cudnnBackendGetAttribute(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
		&plan->facts.workspace_bytes));
}

static enum status workspace_check(const struct plan *plan)
{
	const size_t bytes_max = plan->planner->config.workspace_bytes_max;
	if (plan->facts.workspace_bytes < 0 || (size_t)plan->facts.workspace_bytes > bytes_max)
		return FAIL(ST_DEVICE, "it wants %" PRId64 " bytes of workspace, at most %zu are allowed", plan->facts.workspace_bytes, bytes_max);
	return ST_OK;
}

enum status plan_run(struct plan *plan, void *const pointers[], void *workspace)
{
	void *given[GRAPH_TENSORS_MAX];
	cudnnBackendDescriptor_t pack;
	for (int i = 0; i < plan->count; i++)
		given[i] = pointers[plan->numbers[i]];
	TRY(descriptor_make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
	enum status status = descriptor_set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, plan->count, plan->uids);
	if (status == ST_OK)
		status = descriptor_set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, plan->count, given);
	if (status == ST_OK)
		status = descriptor_set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
	if (status == ST_OK)
		status = descriptor_finish(pack);
	if (status == ST_OK)
		status = CUDNN(cudnnBackendExecute(plan->planner->target.handle, plan->descriptor, pack));
	descriptor_free(pack);
	return status == ST_OK ? ST_OK : status_prefix(status, "%s, engine %" PRId64, plan->name, plan->facts.engine);
}

/* --- the choice -------------------------------------------------------------------------------------------------------- */

/* Plans that would do, the most promising first; and how the search for them goes. */
struct search {
	const struct planner *planner;
	const struct graph *graph;
	struct plan *plans[TIMED_MAX];
	int count, wanted, runtime_compiled, offered;
	char refused[STATUS_MESSAGE_BYTES_MAX / 2]; /* why the last one that would not do would not */
};

static bool is_timed(const struct planner *planner)
{
	return planner->config.timing && !planner->config.deterministic && planner->target.handle != NULL;
}

static bool has_fp32_convolution(const struct graph *graph)
{
	for (int i = 0; i < graph->operations_count; i++)
		if (graph->operations[i].kind <= GRAPH_CONVOLUTION_DW && graph->tensors[graph->operations[i].in[0]].element == ELEMENT_FP32)
			return true;
	return false;
}

/* NULL when the engine's arithmetic is what is asked for. */
static const char *engine_refused(const struct search *search, const struct engine *engine)
{
	const struct planner_config *config = &search->planner->config;
	const bool fp32 = has_fp32_convolution(search->graph);
	if (config->deterministic && engine->nondeterministic)
		return "it is not deterministic";
	if (engine->inputs_rounded && !(fp32 && config->tf32))
		return "it rounds its operands";
	if (fp32 && !config->tf32 && engine->tensor_cores)
		return "it uses tensor cores, which round fp32 to TF32";
	if (engine->sums_rounded)
		return "its sums have less than fp32's precision";
	if (engine->winograd_13x13)
		return "it loses too much precision (Winograd on 13x13 tiles)";
	return NULL;
}

static void engine_try(struct search *search, const struct engine *engine)
{
	struct plan *plan = NULL;
	const char *refused = engine_refused(search, engine);
	if (refused == NULL && search->wanted > 1 && engine->runtime_compiled && search->runtime_compiled == TIMED_RUNTIME_COMPILED_MAX)
		return;
	enum status status = refused != NULL ? FAIL(ST_DEVICE, "%s", refused) : plan_new(search->planner, search->graph, &plan);
	if (status == ST_OK)
		status = plan_finish(plan, engine->config, NULL);
	if (status == ST_OK)
		status = workspace_check(plan);
	if (status != ST_OK) {
		snprintf(search->refused, sizeof search->refused, "engine %" PRId64 ": %s", engine->index, status_message());
		plan_free(plan);
		return;
	}
	plan->facts.engine = engine->index;
	plan->facts.deterministic = !engine->nondeterministic;
	plan->facts.runtime_compiled = engine->runtime_compiled;
	plan->facts.tensor_cores = engine->tensor_cores;
	search->runtime_compiled += engine->runtime_compiled;
	search->plans[search->count++] = plan;
}

static void mode_try(struct search *search, const struct cudnn_graph *graph, cudnnBackendHeurMode_t mode)
{
	struct engines engines;
	if (engines_ask(&search->planner->target, graph, mode, &engines) != ST_OK) {
		snprintf(search->refused, sizeof search->refused, "%s", status_message());
		return;
	}
	search->offered += engines.count;
	for (int i = 0; i < engines.count && search->count < search->wanted; i++)
		engine_try(search, &engines.engines[i]);
	engines_free(&engines);
}

/* Keeps the fastest of the search's plans. */
static enum status fastest_choose(struct search *search)
{
	double microseconds[TIMED_MAX];
	int best = 0;
	TRY(plans_time(search->graph, search->plans, search->count, search->planner->config.stream, microseconds));
	for (int i = 1; i < search->count; i++)
		if (microseconds[i] < microseconds[best])
			best = i;
	if (isinf(microseconds[best]))
		return FAIL(ST_DEVICE, "%s: none of %d engines ran; the last: %s", search->graph->name, search->count, status_message());
	struct plan *chosen = search->plans[best];
	search->plans[best] = search->plans[0];
	search->plans[0] = chosen;
	chosen->facts.microseconds = microseconds[best];
	return ST_OK;
}

static enum status search_run(struct search *search)
{
	struct cudnn_graph graph;
	TRY(cudnn_graph_make(search->graph, search->planner->target.handle, &graph));
	mode_try(search, &graph, CUDNN_HEUR_MODE_A);
	if (search->count == 0)
		mode_try(search, &graph, CUDNN_HEUR_MODE_FALLBACK);
	cudnn_graph_free(&graph);
	if (search->count == 0)
		return FAIL(ST_DEVICE, "%s: cuDNN has no engine for it on this device (%s); %d offered, the last refused: %s", search->graph->name,
			text_string(&search->planner->device), search->offered, search->refused[0] ? search->refused : "none");
	return is_timed(search->planner) ? fastest_choose(search) : ST_OK;
}

static enum status plan_choose(const struct planner *planner, const struct graph *graph, struct plan **plan)
{
	struct search search = {.planner = planner, .graph = graph, .wanted = is_timed(planner) ? TIMED_MAX : 1};
	enum status status = search_run(&search);
	if (status == ST_OK) {
		*plan = search.plans[0];
		(*plan)->facts.candidates = search.offered;
	}
	for (int i = status == ST_OK; i < search.count; i++)
		plan_free(search.plans[i]);
	return status;
}

/* --- kept plans -------------------------------------------------------------------------------------------------------- */

/* All that the choice depends on. */
static enum status key_print(const struct planner *planner, const struct graph *graph, struct text *key)
{
	const struct planner_config *config = &planner->config;
	TRY(text_printf(key, "%sdeterministic %d tf32 %d timed %d workspace %zu\n", text_string(&planner->device), config->deterministic, config->tf32,
		is_timed(planner), config->workspace_bytes_max));
	return graph_print(graph, key);
}

/* Whether a plan was kept under that key, and cuDNN still takes it. */
static bool plan_recall(const struct planner *planner, const struct graph *graph, const char *key, struct plan **plan)
{
	struct plan_record record;
	struct plan *made = NULL;
	if (!plan_cache_read(planner->config.cache_directory, key, &record))
		return false;
	enum status status = plan_new(planner, graph, &made);
	if (status == ST_OK)
		status = plan_finish(made, NULL, &record.json);
	if (status == ST_OK)
		status = workspace_check(made);
	text_free(&record.json);
	if (status != ST_OK) {
		log_debug("plan cache: %s: %s; planned anew", graph->name, status_message());
		plan_free(made);
		return false;
	}
	made->facts.engine = record.engine;
	made->facts.candidates = (int)record.candidates;
	made->facts.microseconds = (double)record.nanoseconds / 1000;
	made->facts.deterministic = record.deterministic;
	made->facts.runtime_compiled = record.runtime_compiled;
	made->facts.tensor_cores = record.tensor_cores;
	made->facts.cached = true;
	*plan = made;
	return true;
}

static enum status json_read(const struct plan *plan, struct text *json)
{
	int64_t bytes = 0, count;
	CUDNN_TRY(cudnnBackendGetAttribute(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &bytes, NULL));
	char *buffer = malloc((size_t)bytes + 1);
	if (buffer == NULL)
		return FAIL(ST_MEMORY, "%" PRId64 " bytes of a plan: out of memory", bytes);
	enum status status = CUDNN(cudnnBackendGetAttribute(plan->descriptor, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, bytes, &count,
		buffer));
	if (status == ST_OK)
		status = text_add_bytes(json, buffer, (size_t)count);
	free(buffer);
	return status;
}

static enum status plan_keep(const struct plan *plan, const char *key)
{
	const struct plan_facts *facts = &plan->facts;
	struct plan_record record = {
		.engine = facts->engine,
		.candidates = facts->candidates,
		.nanoseconds = (int64_t)(facts->microseconds * 1000),
		.deterministic = facts->deterministic,
		.runtime_compiled = facts->runtime_compiled,
		.tensor_cores = facts->tensor_cores,
	};
	enum status status = json_read(plan, &record.json);
	if (status == ST_OK)
		status = plan_cache_write(plan->planner->config.cache_directory, key, &record);
	text_free(&record.json);
	return status;
}

static enum status build_with_key(struct planner *planner, const struct graph *graph, const char *key, struct plan **plan)
{
	if (plan_recall(planner, graph, key, plan))
		return ST_OK;
	TRY(plan_choose(planner, graph, plan));
	if (plan_keep(*plan, key) != ST_OK) {
		log_warning("plans are not kept for the next run: %s", status_message());
		planner->config.cache_directory = NULL;
	}
	return ST_OK;
}

enum status plan_build(struct planner *planner, const struct graph *graph, struct plan **plan)
{
	struct text key = {0};
	if (planner->config.cache_directory == NULL)
		return plan_choose(planner, graph, plan);
	enum status status = key_print(planner, graph, &key);
	if (status == ST_OK)
		status = build_with_key(planner, graph, text_string(&key), plan);
	text_free(&key);
	return status;
}
