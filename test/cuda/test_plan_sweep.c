/* Goal: whatever GPU of SageMaker's a job gets, every graph of both networks has a plan. Method: the real cuDNN plans all units' graphs for each GPU
 * of gpus.h, element and batch size: one is found within the workspace, a deterministic one too, and each comes back from the cache. A table says
 * what was found.
 *
 *     test_plan_sweep         batches of 128; of graphs whose engines are compiled at run time, one of each kind on two GPUs (seconds)
 *     test_plan_sweep whole   batches of 32, 128 and 512; compiled ones of 128 (five minutes). The table is the one in the backend's README, or with
 *                             SMELT_README=write (make plans) becomes it: one for each flavour of CUDA
 *     test_plan_sweep whole A100 */
#include "test/cuda/planning.h"
#include "test/unit/readme_section.h"

static bool whole;
static struct text table;

/* What was found for one GPU and element. */
struct tally {
	int graphs, compiled, nondeterministic, reloaded;
	int64_t workspace_bytes_max;
	char largest[GRAPH_NAME_BYTES];
};

struct sweep {
	const struct gpu *gpu;
	enum element element;
	struct planner *planner, *deterministic;
	struct tally tally;
	bool compiles;         /* when not whole: whether compiled ones are planned at all */
	bool done[UNIT_WORKS]; /* a compiled one of that work was planned */
};

/* Works that need an engine compiled at run time: more than a second each. */
static bool is_compiled(enum unit_work work, enum element element)
{
	return work == UNIT_WEIGHT_GRADIENT && element != ELEMENT_FP32;
}

static struct plan_facts plan_one(struct planner *planner, const struct gpu *gpu, const struct graph *graph)
{
	struct plan *plan;
	struct plan_facts facts;
	if (plan_build(planner, graph, &plan) != ST_OK)
		fail_msg("%s: %s", gpu->name, status_message());
	plan_facts(plan, &facts);
	plan_free(plan);
	if (facts.workspace_bytes > WORKSPACE_BYTES_MAX)
		fail_msg("%s: %s: %lld bytes of workspace", gpu->name, graph->name, (long long)facts.workspace_bytes);
	return facts;
}

static void graph_plan(struct sweep *sweep, const struct graph *graph)
{
	struct tally *tally = &sweep->tally;
	const struct plan_facts facts = plan_one(sweep->planner, sweep->gpu, graph), again = plan_one(sweep->planner, sweep->gpu, graph);
	if (!facts.deterministic && !plan_one(sweep->deterministic, sweep->gpu, graph).deterministic)
		fail_msg("%s: %s: not deterministic", sweep->gpu->name, graph->name);
	if (!again.cached || again.engine != facts.engine || again.workspace_bytes != facts.workspace_bytes)
		fail_msg("%s: %s: another plan came back from the cache", sweep->gpu->name, graph->name);
	tally->graphs++;
	tally->compiled += facts.runtime_compiled;
	tally->nondeterministic += !facts.deterministic;
	if (facts.workspace_bytes > tally->workspace_bytes_max) {
		tally->workspace_bytes_max = facts.workspace_bytes;
		memcpy(tally->largest, graph->name, sizeof tally->largest);
	}
}

static bool is_first_of_its_kind(const struct network *network, int u)
{
	for (int v = 0; v < u; v++)
		if (units_alike(&network->units[v], &network->units[u]))
			return false;
	return true;
}

static void network_plan(struct sweep *sweep, const struct network *network, int n)
{
	for (int work = 0; work < UNIT_WORKS; work++)
		for (int u = 0; u < RESNET_UNITS; u++) {
			const bool compiled = is_compiled((enum unit_work)work, sweep->element);
			struct graph graph;
			if ((work == UNIT_INPUT_GRADIENT && network->units[u].x == 0) || !is_first_of_its_kind(network, u))
				continue;
			if (work >= UNIT_WEIGHT_GRADIENT && (enum unit_work)work != unit_weight_gradient(sweep->element, sweep->gpu->capability))
				continue;
			if (compiled && (whole ? n != 128 : sweep->done[work] || !sweep->compiles))
				continue;
			sweep->done[work] |= compiled;
			unit_graph(&graph, (enum unit_work)work, &network->units[u], n, sweep->element);
			graph_plan(sweep, &graph);
		}
}

static void element_sweep(const struct gpu *gpu, enum element element)
{
	static const int batches[] = {128, 32, 512};
	struct sweep sweep = {.gpu = gpu, .element = element};
	sweep.compiles = element == ELEMENT_FP16 && (gpu->capability == 75 || gpu->capability == 80);
	sweep.planner = planner_for(gpu, &(struct planner_config){.cache_directory = scratch_path("plans")});
	sweep.deterministic = planner_for(gpu, &(struct planner_config){.deterministic = true});
	for (int stem = STEM_IMAGENET; stem <= STEM_CIFAR; stem++)
		for (size_t i = 0; i < (whole ? sizeof batches / sizeof batches[0] : 1); i++) {
			struct network network;
			OK(network_build(&network, (enum stem)stem, 32, 100));
			network_plan(&sweep, &network, batches[i]);
		}
	planner_close(sweep.deterministic);
	planner_close(sweep.planner);
	const struct tally *tally = &sweep.tally;
	const size_t before = table.length;
	OK(text_printf(&table, "| %s | %s | %d | %d | %d | ", gpu->name, element_name(element), tally->graphs, tally->compiled, tally->nondeterministic));
	if (tally->workspace_bytes_max > 0)
		OK(text_printf(&table, "%.1f (%s) |\n", (double)tally->workspace_bytes_max / 1e6, tally->largest));
	else
		OK(text_add(&table, "none |\n"));
	print_message("%s", text_string(&table) + before);
	fflush(stdout);
}

static void test_gpu(void **state)
{
	const struct gpu *gpu = *state;
	for (int element = ELEMENT_FP32; element <= ELEMENT_BF16; element++)
		if (element != ELEMENT_BF16 || gpu->capability >= 80)
			element_sweep(gpu, (enum element)element);
}

static void test_the_readme_is_true(void **state)
{
	(void)state;
	char name[32];
	snprintf(name, sizeof name, "plans of CUDA %d", CUDA_FLAVOUR);
	readme_section_check("core/backend/cuda/README.md", name, CUDA_FLAVOUR == 12 ? "make plans12" : "make plans", text_string(&table));
}

int main(int count, char **arguments)
{
	static const char heading[] = "| GPU | element | graphs | compiled at run time | first choice not deterministic | largest workspace, MB |\n"
		"|---|---|---|---|---|---|\n";
	struct CMUnitTest tests[GPUS + 1];
	size_t tests_count = 0;
	static char names[GPUS][32];
	whole = count > 1 && strcmp(arguments[1], "whole") == 0;
	for (int i = 0; i < GPUS; i++) {
		if (count > 2 && strcmp(gpus[i].name, arguments[2]) != 0)
			continue;
		/* What CUDA 12 is for. Its cuDNN crashes when it is asked about an H100 or a B200 that is not there. */
		if (CUDA_FLAVOUR == 12 && count <= 2 && gpus[i].capability != 70)
			continue;
		snprintf(names[i], sizeof names[i], "test_%s", gpus[i].name);
		tests[tests_count] = (struct CMUnitTest)cmocka_unit_test_setup_teardown(test_gpu, scratch_open, scratch_close);
		tests[tests_count].name = names[i];
		tests[tests_count++].initial_state = (void *)(uintptr_t)&gpus[i];
	}
	if (whole && count == 2)
		tests[tests_count++] = (struct CMUnitTest)cmocka_unit_test(test_the_readme_is_true);
	libcuda_stub_load();
	if (text_add(&table, heading) != ST_OK)
		return 1;
	print_message("%s", heading);
	return _cmocka_run_group_tests("sweep", tests, tests_count, NULL, NULL);
}
