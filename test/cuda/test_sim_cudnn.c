/* test_sim_cudnn.c: the simulated cuDNN computes what a graph says.
 *
 * Goal: convolutions, and what passes their sums on, in every element, on every engine, against plain loops in double. Method: graphs as the
 * backend writes them (graph.h), planned by its own planner and run on the simulated device; a tolerance follows from the number of terms and
 * the precision, and results are poisoned before. */
#include "test/cuda/sim_cudnn_rig.h"

static const enum element elements[] = {ELEMENT_FP32, ELEMENT_FP16, ELEMENT_BF16};
static const char *const element_names[] = {"fp32", "fp16", "bf16"};

/* --- convolutions ------------------------------------------------------------------------------------------------------ */

struct shape { int n, c, h, w, k, r, s, stride, top, left, bottom, right; };

static const struct shape shapes[] = {
	{2, 8, 5, 7, 16, 3, 3, 1, 1, 1, 1, 1},   {3, 16, 8, 8, 24, 3, 3, 2, 1, 1, 1, 1},  {2, 8, 9, 6, 8, 3, 3, 2, 1, 1, 1, 1},
	{1, 3, 11, 9, 20, 7, 7, 2, 3, 3, 3, 3},  {4, 24, 6, 6, 40, 1, 1, 2, 0, 0, 0, 0},  {2, 8, 4, 4, 8, 1, 1, 1, 0, 0, 0, 0},
	{2, 8, 5, 5, 16, 2, 3, 1, 0, 1, 1, 1},   {3, 8, 6, 7, 16, 3, 2, 2, 2, 0, 1, 1},   {5, 1024, 1, 1, 32, 1, 1, 1, 0, 0, 0, 0},
	{1, 5, 2, 2, 7, 2, 2, 1, 0, 0, 0, 0},    {7, 8, 10, 10, 9, 3, 3, 1, 1, 1, 1, 1},
};
enum { SHAPES_COUNT = sizeof shapes / sizeof *shapes };

/* What each result should be, and the sum of the terms' sizes. dx, dw: which of the tensors is the result. */
static void convolution_ref(const struct shape *t, int P, int Q, enum graph_operation_kind kind, const double *x, const double *w, const double *y,
	double *want, double *sizes)
{
	for (int n = 0; n < t->n; n++)
		for (int p = 0; p < P; p++)
			for (int q = 0; q < Q; q++)
				for (int r = 0; r < t->r; r++)
					for (int s = 0; s < t->s; s++) {
						int h = p * t->stride - t->top + r, v = q * t->stride - t->left + s;
						if (h < 0 || h >= t->h || v < 0 || v >= t->w)
							continue;
						for (int k = 0; k < t->k; k++)
							for (int c = 0; c < t->c; c++) {
								size_t at_x = (size_t)(((n * t->h + h) * t->w + v) * t->c + c), at_w = (size_t)(((k * t->r + r) * t->s + s) * t->c + c);
								size_t at_y = (size_t)(((n * P + p) * Q + q) * t->k + k);
								size_t at = kind == GRAPH_CONVOLUTION ? at_y : kind == GRAPH_CONVOLUTION_DX ? at_x : at_w;
								double term = kind == GRAPH_CONVOLUTION ? x[at_x] * w[at_w] : kind == GRAPH_CONVOLUTION_DX ? y[at_y] * w[at_w] : x[at_x] * y[at_y];
								want[at] += term;
								sizes[at] += fabs(term);
							}
					}
}

/* The largest share of the tolerance that a difference takes. */
static double share_used(const double *got, const double *want, const double *sizes, size_t count, double of_sum, double of_result)
{
	double most = 0;
	for (size_t i = 0; i < count; i++) {
		double share = fabs(got[i] - want[i]) / (of_sum * sizes[i] + of_result * fabs(want[i]) + 0x1p-25);
		most = share > most || isnan(share) ? (isnan(share) ? (double)INFINITY : share) : most;
	}
	return most;
}

static double convolution_share(const struct shape *t, enum graph_operation_kind kind, enum element element, const struct runner *runner,
	struct plan_facts *facts, bool *rounding_shows)
{
	struct bench bench = {0};
	int P = (t->h + t->top + t->bottom - t->r) / t->stride + 1, Q = (t->w + t->left + t->right - t->s) / t->stride + 1;
	int x = bench_random(&bench, element, t->n, t->c, t->h, t->w), w = bench_random(&bench, element, t->k, t->c, t->r, t->s);
	int y = bench_random(&bench, element, t->n, t->k, P, Q);
	int result = kind == GRAPH_CONVOLUTION ? y : kind == GRAPH_CONVOLUTION_DX ? x : w;
	struct graph_operation *operation = bench_operation(&bench, kind);
	*operation = (struct graph_operation){.kind = kind, .in = {result == x ? y : x, result == w ? y : w}, .out = result, .stride = t->stride,
		.pad_top = t->top, .pad_left = t->left, .pad_bottom = t->bottom, .pad_right = t->right};
	size_t count = values_count(&bench.graph.tensors[result]);
	double *want = calloc(count, sizeof *want), *sizes = calloc(count, sizeof *sizes);
	assert_non_null(want);
	assert_non_null(sizes);
	convolution_ref(t, P, Q, kind, bench.values[x], bench.values[w], bench.values[y], want, sizes);
	bench_run(&bench, runner, facts);
	/* Terms of one result: each sum of at most `terms` rounds by half a unit; TF32 rounds both operands. */
	double terms = kind == GRAPH_CONVOLUTION_DW ? t->n * P * Q : (double)(t->r * t->s) * (kind == GRAPH_CONVOLUTION ? t->c : t->k);
	bool rounds = facts->tensor_cores && element == ELEMENT_FP32;
	double share = share_used(bench.values[result], want, sizes, count, terms * 0x1p-24 + (rounds ? 0x1p-10 : 0), element_epsilon(element));
	*rounding_shows |= rounds && share_used(bench.values[result], want, sizes, count, terms * 0x1p-24, 0) > 1;
	free(want);
	free(sizes);
	bench_close(&bench);
	return share;
}

static void test_convolutions(void **state)
{
	(void)state;
	struct plan_facts facts;
	bool met_tensor_cores = false, met_exact = false, met_nondeterministic = false, met_workspace = false, rounding_shows = false;
	for (int deterministic = 0; deterministic < 2; deterministic++)
		for (int tf32 = 0; tf32 < 2; tf32++) {
			struct runner runner;
			runner_open(&runner, deterministic, tf32);
			for (int e = 0; e < 3; e++) {
				double most = 0;
				for (int i = 0; i < SHAPES_COUNT; i++)
					for (int kind = GRAPH_CONVOLUTION; kind <= GRAPH_CONVOLUTION_DW; kind++) {
						double share = convolution_share(&shapes[i], (enum graph_operation_kind)kind, elements[e], &runner, &facts, &rounding_shows);
						if (share > 1)
							fail_msg("shape %d, operation %d, %s, engine %d: %.3g of the tolerance", i, kind, element_names[e], (int)facts.engine, share);
						most = share > most ? share : most;
						met_tensor_cores |= facts.tensor_cores;
						met_exact |= !facts.tensor_cores;
						met_nondeterministic |= !facts.deterministic;
						met_workspace |= facts.workspace_bytes > 0;
						assert_true(facts.deterministic || !deterministic);
						assert_true(elements[e] != ELEMENT_FP32 || tf32 || !facts.tensor_cores);
					}
				print_message("convolutions, %s%s%s: at most %.3f of the tolerance\n", element_names[e], deterministic ? ", deterministic" : "",
					tf32 ? ", TF32" : "", most);
			}
			runner_close(&runner);
		}
	assert_true(met_tensor_cores && met_exact && met_nondeterministic && met_workspace && rounding_shows);
}

/* An engine that is marked so gives other bits from time to time; the others never do. */
static void test_determinism(void **state)
{
	(void)state;
	for (int deterministic = 0; deterministic < 2; deterministic++) {
		struct runner runner;
		struct plan_facts facts;
		double first[8 * 8 * 9];
		bool differed = false;
		runner_open(&runner, deterministic, true);
		for (int run = 0; run < 12; run++) {
			struct bench bench = {0};
			int x = bench_random(&bench, ELEMENT_FP32, 16, 8, 12, 12), dy = bench_random(&bench, ELEMENT_FP32, 16, 8, 12, 12);
			int dw = bench_tensor(&bench, ELEMENT_FP32, 8, 8, 3, 3);
			*bench_operation(&bench, GRAPH_CONVOLUTION_DW) = (struct graph_operation){.kind = GRAPH_CONVOLUTION_DW, .in = {x, dy}, .out = dw,
				.stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
			bench_run(&bench, &runner, &facts);
			if (run == 0)
				memcpy(first, bench.values[dw], sizeof first);
			differed |= memcmp(first, bench.values[dw], sizeof first) != 0;
			bench_close(&bench);
		}
		assert_int_equal(facts.deterministic, deterministic);
		assert_int_equal(differed, !deterministic);
		runner_close(&runner);
	}
}

/* --- what is fused ----------------------------------------------------------------------------------------------------- */

/* Sums in fp32, then stored as they are or rounded. */
static void test_epilogues(void **state)
{
	(void)state;
	static const struct shape t = {3, 16, 6, 5, 24, 3, 3, 1, 1, 1, 1, 1};
	struct runner runner;
	struct plan_facts facts;
	runner_open(&runner, true, false);
	for (int e = 1; e < 3; e++)
		for (int kind = GRAPH_CONVOLUTION; kind <= GRAPH_CONVOLUTION_DW; kind++) {
			struct bench bench = {0};
			enum element element = elements[e];
			const int64_t of_x[4] = {t.n, t.c, t.h, t.w}, of_w[4] = {t.k, t.c, t.r, t.s}, of_y[4] = {t.n, t.k, t.h, t.w};
			const int64_t *a = kind == GRAPH_CONVOLUTION_DX ? of_y : of_x, *b = kind == GRAPH_CONVOLUTION_DW ? of_y : of_w;
			const int64_t *d = kind == GRAPH_CONVOLUTION ? of_y : kind == GRAPH_CONVOLUTION_DX ? of_x : of_w;
			int first = bench_random(&bench, element, a[0], a[1], a[2], a[3]), second = bench_random(&bench, element, b[0], b[1], b[2], b[3]);
			size_t count = (size_t)(d[0] * d[1] * d[2] * d[3]);
			int product = bench_virtual(&bench, d[0], d[1], d[2], d[3]);
			int result = bench_tensor(&bench, kind == GRAPH_CONVOLUTION_DW ? ELEMENT_FP32 : element, d[0], d[1], d[2], d[3]);
			*bench_operation(&bench, (enum graph_operation_kind)kind) = (struct graph_operation){.kind = (enum graph_operation_kind)kind,
				.in = {first, second}, .out = product, .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
			*bench_operation(&bench, GRAPH_IDENTITY) = (struct graph_operation){.kind = GRAPH_IDENTITY, .in = {product}, .out = result};
			double *want = calloc(count, sizeof *want), *sizes = calloc(count, sizeof *sizes);
			assert_non_null(want);
			assert_non_null(sizes);
			convolution_ref(&t, t.h, t.w, (enum graph_operation_kind)kind, bench.values[first],
				bench.values[second], bench.values[kind == GRAPH_CONVOLUTION_DX ? first : second], want, sizes);
			bench_run(&bench, &runner, &facts);
			assert_true(facts.runtime_compiled);
			double share = share_used(bench.values[result], want, sizes, count, 512 * 0x1p-24, element_epsilon(bench.graph.tensors[result].element));
			if (share > 1)
				fail_msg("operation %d with more behind it, %s: %.3g of the tolerance", kind, element_names[e], share);
			free(want);
			free(sizes);
			bench_close(&bench);
		}
	runner_close(&runner);
}

/* --- elements ---------------------------------------------------------------------------------------------------------- */

/* x in each element, over every kind of number: rounding to nearest even, subnormals, overflow. */
static void test_elements(void **state)
{
	(void)state;
	static const double numbers[] = {0, 1, 1.0009765625, 1.00048828125, 1.00146484375, 65504, 32760, 32752, 32751.99, 1e-5, 0x1p-25, 0x1.8p-25, 0x1p-26, 6.1e-5,
		3.05e-5, 0x1p-14, 0x1.ffcp-15, 0x1.ffep-15, 0x1.fffp-15, 0.1, 1.00390625, 1.01171875, 3e38, 1e-40, -2.5, -0x1p-25, -1e-7, -70000};
	enum { COUNT = sizeof numbers / sizeof *numbers };
	struct runner runner;
	struct plan_facts facts;
	runner_open(&runner, true, false);
	for (int e = 0; e < 3; e++) {
		struct bench b = {0};
		/* fp32 in, the element out: the result is rounded once. */
		int x = bench_tensor(&b, ELEMENT_FP32, 1, COUNT, 1, 1), y = bench_tensor(&b, elements[e], 1, COUNT, 1, 1);
		for (int i = 0; i < COUNT; i++)
			b.values[x][i] = (double)(float)(2 * numbers[i]);
		*bench_operation(&b, GRAPH_IDENTITY) = (struct graph_operation){.kind = GRAPH_IDENTITY, .in = {x}, .out = y};
		bench_run(&b, &runner, &facts);
		for (int i = 0; i < COUNT; i++) {
			double want = element_rounded(elements[e], element_rounded(ELEMENT_FP32, b.values[x][i]));
			if (b.values[y][i] != want)
				fail_msg("%s: %.9g gives %.9g, expected %.9g", element_names[e], b.values[x][i], b.values[y][i], want);
		}
		bench_close(&b);
	}
	runner_close(&runner);
}

/* A recorded run is run again at each launch, with the memory's values of then. */
static void test_recorded(void **state)
{
	(void)state;
	struct runner runner;
	struct bench b = {0};
	struct plan *plan;
	cudaGraph_t graph;
	cudaGraphExec_t executable;
	runner_open(&runner, true, false);
	int x = bench_random(&b, ELEMENT_FP32, 1, 8, 2, 2), y = bench_tensor(&b, ELEMENT_FP32, 1, 8, 2, 2);
	*bench_operation(&b, GRAPH_IDENTITY) = (struct graph_operation){.kind = GRAPH_IDENTITY, .in = {x}, .out = y};
	STATUS_OK(plan_build(runner.planner, &b.graph, &plan));
	bench_upload(&b);
	CUDA_OK(cudaStreamBeginCapture(runner.stream, cudaStreamCaptureModeThreadLocal));
	STATUS_OK(plan_run(plan, b.memory, NULL));
	CUDA_OK(cudaStreamEndCapture(runner.stream, &graph));
	CUDA_OK(cudaGraphInstantiate(&executable, graph, 0));
	for (int run = 0; run < 2; run++) {
		if (run == 1)
			CUDA_OK(cudaMemset(b.memory[x], 0, 32 * sizeof(float)));
		CUDA_OK(cudaDeviceSynchronize());
		CUDA_OK(cudaGraphLaunch(executable, runner.stream));
		CUDA_OK(cudaStreamSynchronize(runner.stream));
		bench_download(&b);
		for (int i = 0; i < 32; i++)
			assert_true(b.values[y][i] == (run == 0 ? b.values[x][i] : 0));
	}
	CUDA_OK(cudaGraphExecDestroy(executable));
	CUDA_OK(cudaGraphDestroy(graph));
	plan_free(plan);
	bench_close(&b);
	runner_close(&runner);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_convolutions),
		cmocka_unit_test(test_determinism),
		cmocka_unit_test(test_epilogues),
		cmocka_unit_test(test_elements),
		cmocka_unit_test(test_recorded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
