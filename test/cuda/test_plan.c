/* Goal: the planner gives what was asked for, keeps it, and says why it cannot. Method: the real cuDNN plans for GPUs that are described to it; each
 * flag is tried on a graph where it changes the choice; kept plans are read back, damaged, and asked for under other flags. */
#include "test/cuda/planning.h"

#include "core/backend/cuda/plan_cache.h"

#include <cudnn.h>
#include <dirent.h>

static struct network cifar, imagenet;

/* --- cuDNN's calls, counted; one of them can fail, plans can want more workspace ---------------------------------------------------------------------- */

static int descriptors, calls, call_that_fails; /* descriptors that are there; call_that_fails 0: none */

static bool fails(void)
{
	return ++calls == call_that_fails;
}

#define WRAP(name, parameters, arguments) \
	cudnnStatus_t __real_cudnnBackend##name parameters; \
	cudnnStatus_t __wrap_cudnnBackend##name parameters; \
	cudnnStatus_t __wrap_cudnnBackend##name parameters \
	{ \
		return fails() ? CUDNN_STATUS_INTERNAL_ERROR : __real_cudnnBackend##name arguments; \
	}
WRAP(SetAttribute, (cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void *values),
	(d, name, type, count, values))
WRAP(Finalize, (cudnnBackendDescriptor_t d), (d))

cudnnStatus_t __real_cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor);
cudnnStatus_t __wrap_cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor);
cudnnStatus_t __wrap_cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor)
{
	cudnnStatus_t status = fails() ? CUDNN_STATUS_INTERNAL_ERROR : __real_cudnnBackendCreateDescriptor(type, descriptor);
	descriptors += status == CUDNN_STATUS_SUCCESS;
	return status;
}

cudnnStatus_t __real_cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor);
cudnnStatus_t __wrap_cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor);
cudnnStatus_t __wrap_cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
	descriptors--;
	return __real_cudnnBackendDestroyDescriptor(descriptor);
}

static int64_t workspace_bytes_more;

cudnnStatus_t __real_cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
	int64_t wanted, int64_t *count, void *values);
cudnnStatus_t __wrap_cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
	int64_t wanted, int64_t *count, void *values);
cudnnStatus_t __wrap_cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
	int64_t wanted, int64_t *count, void *values)
{
	cudnnStatus_t status = fails() ? CUDNN_STATUS_INTERNAL_ERROR : __real_cudnnBackendGetAttribute(d, name, type, wanted, count, values);
	if (status == CUDNN_STATUS_SUCCESS && name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
		*(int64_t *)values += workspace_bytes_more;
	return status;
}

/* After each test. */
static int none_left(void **state)
{
	(void)state;
	if (descriptors != 0)
		print_error("%d descriptors are left\n", descriptors);
	return descriptors != 0;
}

/* --- choices ----------------------------------------------------------------------------------------------------------- */

static struct graph graph_for(const struct network *network, int unit, enum unit_work work, int n, enum element element)
{
	struct graph graph;
	unit_graph(&graph, work, &network->units[unit], n, element);
	return graph;
}

static struct plan_facts planned(const struct gpu *gpu, const struct planner_config *flags, const struct graph *graph)
{
	struct planner *planner = planner_for(gpu, flags);
	struct plan *plan;
	struct plan_facts facts;
	OK(plan_build(planner, graph, &plan));
	plan_facts(plan, &facts);
	plan_free(plan);
	planner_close(planner);
	return facts;
}

static void refused(const struct gpu *gpu, const struct planner_config *flags, const struct graph *graph, const char *part)
{
	struct planner *planner = planner_for(gpu, flags);
	struct plan *plan = NULL;
	FAILS(ST_DEVICE, graph->name, plan_build(planner, graph, &plan));
	FAILS(ST_DEVICE, gpu->full_name, plan_build(planner, graph, &plan));
	FAILS(ST_DEVICE, part, plan_build(planner, graph, &plan));
	assert_null(plan);
	planner_close(planner);
}

static void test_a_convolution(void **state)
{
	(void)state;
	const struct graph graph = graph_for(&cifar, 1, UNIT_FORWARD, 128, ELEMENT_FP16);
	struct plan_facts facts = planned(gpu_find("A100"), &(struct planner_config){0}, &graph);
	assert_true(facts.candidates > 1 && facts.engine >= 0 && facts.tensor_cores);
	assert_true(facts.workspace_bytes >= 0 && facts.workspace_bytes <= WORKSPACE_BYTES_MAX);
	assert_true(!facts.cached && !facts.runtime_compiled && facts.microseconds <= 0);
}

/* What only engines that are compiled at run time can do. */
static void test_runtime_compiled(void **state)
{
	(void)state;
	const struct graph graph = graph_for(&imagenet, 35, UNIT_WEIGHT_GRADIENT, 32, ELEMENT_FP16);
	assert_true(planned(gpu_find("A100"), &(struct planner_config){0}, &graph).runtime_compiled);
}

/* On a T4 the first offers for fp32 weight gradients add in any order. */
static void test_deterministic(void **state)
{
	(void)state;
	const struct graph graph = graph_for(&cifar, 1, UNIT_WEIGHT_GRADIENT, 128, ELEMENT_FP32);
	assert_false(planned(gpu_find("T4"), &(struct planner_config){0}, &graph).deterministic);
	assert_true(planned(gpu_find("T4"), &(struct planner_config){.deterministic = true}, &graph).deterministic);
}

static void test_tf32(void **state)
{
	(void)state;
	const struct graph graph = graph_for(&cifar, 1, UNIT_FORWARD, 128, ELEMENT_FP32);
	assert_false(planned(gpu_find("A100"), &(struct planner_config){0}, &graph).tensor_cores);
	assert_true(planned(gpu_find("A100"), &(struct planner_config){.tf32 = true}, &graph).tensor_cores);
}

static void test_workspace(void **state)
{
	(void)state;
	const struct gpu *gpu = gpu_find("A100");
	const struct graph convolution = graph_for(&cifar, 1, UNIT_FORWARD, 128, ELEMENT_FP32);
	const size_t bytes = (size_t)planned(gpu, &(struct planner_config){0}, &convolution).workspace_bytes;
	assert_true(bytes > 0);
	assert_true((size_t)planned(gpu, &(struct planner_config){.workspace_bytes_max = bytes - 1}, &convolution).workspace_bytes < bytes);
	workspace_bytes_more = 2; /* each of these graphs has an engine that wants none */
	refused(gpu, &(struct planner_config){.workspace_bytes_max = 1}, &convolution, "at most 1 are allowed");
	workspace_bytes_more = 0;
}

static void test_what_no_engine_does(void **state)
{
	(void)state;
	const struct graph bf16 = graph_for(&cifar, 1, UNIT_FORWARD, 32, ELEMENT_BF16);
	refused(gpu_find("T4"), &(struct planner_config){0}, &bf16, "cuDNN has no engine for it");
}

static void test_graphs_that_cudnn_refuses(void **state)
{
	(void)state;
	struct planner *planner = planner_for(gpu_find("A100"), &(struct planner_config){0});
	struct plan *plan = NULL;
	struct graph graph = graph_for(&cifar, 1, UNIT_FORWARD, 32, ELEMENT_FP16);
	graph.tensors[0].dims[1] += 8; /* more channels than the filter has */
	FAILS(ST_DEVICE, graph.name, plan_build(planner, &graph, &plan));
	FAILS(ST_DEVICE, "CUDNN_STATUS_BAD_PARAM", plan_build(planner, &graph, &plan));
	assert_null(plan);
	planner_close(planner);
}

static void test_devices_that_are_none(void **state)
{
	(void)state;
	struct planner *planner = NULL;
	assert_int_equal(planner_open(&(struct planner_config){.device_json = "{\"deviceVer\":"}, &planner), ST_DEVICE);
	assert_null(planner);
	planner_close(NULL);
	plan_free(NULL);
}

/* Whichever call fails: a plan of another engine, or a sentence and no plan; and nothing is left behind. */
static void test_each_call_can_fail(void **state)
{
	(void)state;
	const struct graph graph = graph_for(&imagenet, 35, UNIT_FORWARD, 32, ELEMENT_FP32);
	int plans = 0, refusals = 0;
	for (call_that_fails = 1;; call_that_fails++) {
		struct planner *planner = NULL;
		struct plan *plan = NULL;
		struct planner_config config = {.deterministic = true, .workspace_bytes_max = WORKSPACE_BYTES_MAX};
		char json[GPU_JSON_BYTES];
		gpu_json(gpu_find("T4"), json);
		config.device_json = json;
		calls = 0;
		enum status status = planner_open(&config, &planner);
		if (status == ST_OK)
			status = plan_build(planner, &graph, &plan);
		const bool none_failed = calls < call_that_fails;
		assert_true(status == ST_OK ? plan != NULL : status == ST_DEVICE && plan == NULL && status_message()[0] != 0);
		if (status == ST_OK) {
			struct plan_facts facts;
			plan_facts(plan, &facts);
			assert_true(facts.deterministic);
		}
		plans += status == ST_OK;
		refusals += status != ST_OK;
		plan_free(plan);
		planner_close(planner);
		if (descriptors != 0)
			fail_msg("call %d failed, and %d descriptors are left", call_that_fails, descriptors);
		if (none_failed)
			break;
	}
	call_that_fails = 0;
	assert_true(plans > 1 && refusals > 1);
	print_message("%d calls: %d plans, %d refusals\n", calls, plans, refusals);
}

/* --- kept plans -------------------------------------------------------------------------------------------------------- */

/* The only file of the cache. */
static const char *kept_file(void)
{
	static char path[600];
	int count = 0;
	DIR *directory = opendir(scratch_path("cache"));
	assert_non_null(directory);
	for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
		if (entry->d_name[0] != '.') {
			snprintf(path, sizeof path, "%s/cache/%s", scratch, entry->d_name);
			count++;
		}
	closedir(directory);
	assert_int_equal(count, 1);
	return path;
}

static void facts_equal(const struct plan_facts *a, const struct plan_facts *b)
{
	assert_int_equal(a->engine, b->engine);
	assert_int_equal(a->workspace_bytes, b->workspace_bytes);
	assert_int_equal(a->candidates, b->candidates);
	assert_int_equal(a->deterministic, b->deterministic);
	assert_int_equal(a->runtime_compiled, b->runtime_compiled);
	assert_int_equal(a->tensor_cores, b->tensor_cores);
}

static void test_kept(void **state)
{
	(void)state;
	static const struct {
		enum unit_work work;
		enum element element;
	} cases[] = {{UNIT_FORWARD, ELEMENT_FP16}, {UNIT_WEIGHT_GRADIENT, ELEMENT_BF16}};
	const struct gpu *gpu = gpu_find("A100");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct graph graph = graph_for(&imagenet, 35, cases[i].work, 32, cases[i].element);
		const struct planner_config keeping = {.cache_directory = scratch_path("all")};
		struct plan_facts first = planned(gpu, &keeping, &graph), second = planned(gpu, &keeping, &graph);
		assert_false(first.cached);
		assert_true(second.cached);
		facts_equal(&first, &second);
	}
}

static void test_kept_for_the_same_alone(void **state)
{
	(void)state;
	const struct gpu *gpu = gpu_find("A100");
	const struct graph graph = graph_for(&cifar, 1, UNIT_FORWARD, 32, ELEMENT_FP32), other = graph_for(&cifar, 1, UNIT_FORWARD, 64, ELEMENT_FP32);
	struct graph renamed = graph;
	const struct planner_config keeping = {.cache_directory = scratch_path("cache")};
	struct planner_config flags = keeping;
	assert_false(planned(gpu, &keeping, &graph).cached);
	assert_false(planned(gpu, &keeping, &other).cached);
	assert_false(planned(gpu_find("H100"), &keeping, &graph).cached);
	flags.deterministic = true;
	assert_false(planned(gpu, &flags, &graph).cached);
	flags = keeping;
	flags.tf32 = true;
	assert_false(planned(gpu, &flags, &graph).cached);
	flags = keeping;
	flags.workspace_bytes_max = 1 << 20;
	assert_false(planned(gpu, &flags, &graph).cached);
	strcpy(renamed.name, "another unit of the same shape");
	assert_true(planned(gpu, &keeping, &renamed).cached);
}

static void test_damage_is_mended(void **state)
{
	(void)state;
	const struct gpu *gpu = gpu_find("A100");
	const struct graph graph = graph_for(&imagenet, 35, UNIT_FORWARD, 32, ELEMENT_FP16);
	const struct planner_config keeping = {.cache_directory = scratch_path("cache")};
	uint8_t *bytes;
	size_t count;
	planned(gpu, &keeping, &graph);
	OK(file_read(kept_file(), 1 << 24, &bytes, &count));
	for (size_t cut = 0; cut < count; cut += count / 3) {
		OK(file_write(kept_file(), bytes, cut));
		assert_false(planned(gpu, &keeping, &graph).cached);
		assert_true(planned(gpu, &keeping, &graph).cached);
	}
	bytes[count - 3] ^= 1;
	OK(file_write(kept_file(), bytes, count));
	assert_false(planned(gpu, &keeping, &graph).cached);
	assert_true(planned(gpu, &keeping, &graph).cached);
	free(bytes);
}

/* A file that is whole, and holds what cuDNN does not take. */
static void test_a_plan_that_cudnn_does_not_take(void **state)
{
	(void)state;
	const struct gpu *gpu = gpu_find("A100");
	const struct graph graph = graph_for(&imagenet, 35, UNIT_FORWARD, 32, ELEMENT_FP16);
	const struct planner_config keeping = {.cache_directory = scratch_path("cache")};
	struct text key = {0};
	struct plan_record record = {.engine = 1};
	char json[GPU_JSON_BYTES];
	gpu_json(gpu, json);
	OK(text_printf(&key, "cuDNN %zu\n%s\ndeterministic 0 tf32 0 timed 0 workspace %zu\n", cudnnGetVersion(), json, (size_t)WORKSPACE_BYTES_MAX));
	OK(graph_print(&graph, &key));
	OK(text_add(&record.json, "{\"not\": \"a plan\"}"));
	OK(plan_cache_write(keeping.cache_directory, text_string(&key), &record));
	assert_false(planned(gpu, &keeping, &graph).cached);
	kept_file(); /* it was replaced: the key above is the planner's */
	assert_true(planned(gpu, &keeping, &graph).cached);
	text_free(&record.json);
	text_free(&key);
}

static void test_nowhere_to_keep(void **state)
{
	(void)state;
	const struct graph graph = graph_for(&cifar, 1, UNIT_FORWARD, 32, ELEMENT_FP16);
	scratch_write("file", "x", 1);
	assert_false(planned(gpu_find("A100"), &(struct planner_config){.cache_directory = scratch_path("file/cache")}, &graph).cached);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_a_convolution, none_left),
		cmocka_unit_test_teardown(test_runtime_compiled, none_left),
		cmocka_unit_test_teardown(test_deterministic, none_left),
		cmocka_unit_test_teardown(test_tf32, none_left),
		cmocka_unit_test_teardown(test_workspace, none_left),
		cmocka_unit_test_teardown(test_what_no_engine_does, none_left),
		cmocka_unit_test_teardown(test_graphs_that_cudnn_refuses, none_left),
		cmocka_unit_test_teardown(test_devices_that_are_none, none_left),
		cmocka_unit_test_teardown(test_each_call_can_fail, none_left),
		SCRATCH_TEST(test_kept),
		SCRATCH_TEST(test_kept_for_the_same_alone),
		SCRATCH_TEST(test_damage_is_mended),
		SCRATCH_TEST(test_a_plan_that_cudnn_does_not_take),
		SCRATCH_TEST(test_nowhere_to_keep),
	};
	libcuda_stub_load();
	if (network_build(&cifar, STEM_CIFAR, 32, 100) != ST_OK || network_build(&imagenet, STEM_IMAGENET, 32, 100) != ST_OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, none_left);
}
