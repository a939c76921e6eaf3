/* test_sim_cudnn.c: the simulated cuDNN computes what a graph says.
 *
 * Goal: convolutions, pointwise operations and norms in every element, on every engine, against plain loops in double. Method: graphs as the
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
	*operation = (struct graph_operation){.kind = kind, .in = {result == x ? y : x, result == w ? y : w}, .out = {result}, .stride = t->stride,
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
			*bench_operation(&bench, GRAPH_CONVOLUTION_DW) = (struct graph_operation){.kind = GRAPH_CONVOLUTION_DW, .in = {x, dy}, .out = {dw},
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

/* relu(conv(x, w) + bias) in half precision; conv_dx(dy, w) + given, written over `given`; half x and dy to fp32 dw. */
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
			int product = bench_virtual(&bench, d[0], d[1], d[2], d[3]), sum = -1, added = -1;
			int result = bench_tensor(&bench, kind == GRAPH_CONVOLUTION_DW ? ELEMENT_FP32 : element, d[0], d[1], d[2], d[3]);
			*bench_operation(&bench, (enum graph_operation_kind)kind) = (struct graph_operation){.kind = (enum graph_operation_kind)kind,
				.in = {first, second}, .out = {product}, .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
			if (kind == GRAPH_CONVOLUTION) {
				added = bench_random(&bench, ELEMENT_FP32, 1, t.k, 1, 1);
				sum = bench_virtual(&bench, d[0], d[1], d[2], d[3]);
				*bench_operation(&bench, GRAPH_ADD) = (struct graph_operation){.kind = GRAPH_ADD, .in = {product, added}, .out = {sum}};
				*bench_operation(&bench, GRAPH_RELU) = (struct graph_operation){.kind = GRAPH_RELU, .in = {sum}, .out = {result}};
			} else if (kind == GRAPH_CONVOLUTION_DX) {
				added = bench_random(&bench, element, d[0], d[1], d[2], d[3]);
				*bench_operation(&bench, GRAPH_ADD) = (struct graph_operation){.kind = GRAPH_ADD, .in = {product, added}, .out = {result}};
			} else {
				*bench_operation(&bench, GRAPH_IDENTITY) = (struct graph_operation){.kind = GRAPH_IDENTITY, .in = {product}, .out = {result}};
			}
			double *want = calloc(count, sizeof *want), *sizes = calloc(count, sizeof *sizes);
			assert_non_null(want);
			assert_non_null(sizes);
			convolution_ref(&t, t.h, t.w, (enum graph_operation_kind)kind, bench.values[first],
				bench.values[second], bench.values[kind == GRAPH_CONVOLUTION_DX ? first : second], want, sizes);
			for (size_t i = 0; i < count && added >= 0; i++) {
				want[i] += bench.values[added][kind == GRAPH_CONVOLUTION ? i % (size_t)t.k : i];
				sizes[i] += 1;
				if (kind == GRAPH_CONVOLUTION && want[i] < 0)
					want[i] = 0;
			}
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

/* --- batch norm -------------------------------------------------------------------------------------------------------- */

enum { NORM_N = 6, NORM_C = 16, NORM_H = 3, NORM_W = 4, NORM_PIXELS = NORM_N * NORM_H * NORM_W };

static int channel(struct bench *bench, bool given)
{
	return given ? bench_random(bench, ELEMENT_FP32, 1, NORM_C, 1, 1) : bench_tensor(bench, ELEMENT_FP32, 1, NORM_C, 1, 1);
}

static void near(double got, double want, double tolerance, const char *what)
{
	if (!(fabs(got - want) <= tolerance))
		fail_msg("%s: %.9g, expected %.9g within %.3g", what, got, want, tolerance);
}

static void channel_moments(const double *x, int c, double *mean, double *squares)
{
	*mean = *squares = 0;
	for (int i = 0; i < NORM_PIXELS; i++)
		*mean += x[i * NORM_C + c] / NORM_PIXELS;
	for (int i = 0; i < NORM_PIXELS; i++)
		*squares += (x[i * NORM_C + c] - *mean) * (x[i * NORM_C + c] - *mean);
}

/* y = relu(norm(x) + shortcut) and the mask y > 0. */
static void test_norm_forward(void **state)
{
	(void)state;
	struct runner runner;
	struct plan_facts facts;
	runner_open(&runner, true, false);
	for (int e = 0; e < 3; e++) {
		struct bench b = {0};
		enum element element = elements[e];
		int x = bench_random(&b, element, NORM_N, NORM_C, NORM_H, NORM_W), shortcut = bench_random(&b, element, NORM_N, NORM_C, NORM_H, NORM_W);
		int gamma = channel(&b, true), beta = channel(&b, true), mean = channel(&b, true), var = channel(&b, true);
		int epsilon = bench_scalar(&b, 1e-3), share = bench_scalar(&b, 0.25), zero = bench_scalar(&b, 0);
		int saved_mean = channel(&b, false), inverse = channel(&b, false), new_mean = channel(&b, false), new_var = channel(&b, false);
		int normed = bench_virtual(&b, NORM_N, NORM_C, NORM_H, NORM_W), sum = bench_virtual(&b, NORM_N, NORM_C, NORM_H, NORM_W);
		int y = bench_tensor(&b, element, NORM_N, NORM_C, NORM_H, NORM_W), mask = bench_tensor(&b, ELEMENT_BOOL, NORM_N, NORM_C, NORM_H, NORM_W);
		*bench_operation(&b, GRAPH_NORM_FORWARD) = (struct graph_operation){.kind = GRAPH_NORM_FORWARD,
			.in = {x, gamma, beta, epsilon, share, mean, var}, .out = {normed, saved_mean, inverse, new_mean, new_var}};
		*bench_operation(&b, GRAPH_ADD) = (struct graph_operation){.kind = GRAPH_ADD, .in = {normed, shortcut}, .out = {sum}};
		*bench_operation(&b, GRAPH_RELU) = (struct graph_operation){.kind = GRAPH_RELU, .in = {sum}, .out = {y}};
		*bench_operation(&b, GRAPH_GREATER) = (struct graph_operation){.kind = GRAPH_GREATER, .in = {y, zero}, .out = {mask}};
		bench_run(&b, &runner, &facts);
		assert_true(facts.runtime_compiled && facts.workspace_bytes > 0);
		int positive = 0;
		for (int c = 0; c < NORM_C; c++) {
			double m, squares;
			channel_moments(b.values[x], c, &m, &squares);
			double factor = 1 / sqrt(squares / NORM_PIXELS + 1e-3);
			near(b.values[saved_mean][c], m, 0x1p-22, "mean");
			near(b.values[inverse][c], factor, 0x1p-20, "inverse deviation");
			near(b.values[new_mean][c], 0.75 * b.values[mean][c] + 0.25 * m, 0x1p-22, "running mean");
			near(b.values[new_var][c], 0.75 * b.values[var][c] + 0.25 * squares / (NORM_PIXELS - 1), 0x1p-22, "running variance");
			for (int i = c; i < NORM_PIXELS * NORM_C; i += NORM_C) {
				double want = (b.values[x][i] - m) * factor * b.values[gamma][c] + b.values[beta][c] + b.values[shortcut][i];
				near(b.values[y][i], want > 0 ? want : 0, 0x1p-20 + fabs(want) * element_epsilon(element), "y");
				assert_true(b.values[mask][i] == (b.values[y][i] > 0));
				positive += b.values[y][i] > 0;
			}
		}
		assert_in_range(positive, 100, NORM_PIXELS * NORM_C - 100);
		bench_close(&b);
	}
	runner_close(&runner);
}

/* g = dy · mask, in memory; then the norm's gradients of g. */
static void test_norm_backward(void **state)
{
	(void)state;
	struct runner runner;
	struct plan_facts facts;
	runner_open(&runner, true, false);
	for (int e = 0; e < 3; e++) {
		struct bench b = {0};
		enum element element = elements[e];
		int x = bench_random(&b, element, NORM_N, NORM_C, NORM_H, NORM_W), dy = bench_random(&b, element, NORM_N, NORM_C, NORM_H, NORM_W);
		int mask = bench_random(&b, ELEMENT_BOOL, NORM_N, NORM_C, NORM_H, NORM_W), g = bench_tensor(&b, element, NORM_N, NORM_C, NORM_H, NORM_W);
		int mean = channel(&b, true), inverse = channel(&b, true), gamma = channel(&b, true), dgamma = channel(&b, false), dbeta = channel(&b, false);
		int dx = bench_tensor(&b, element, NORM_N, NORM_C, NORM_H, NORM_W);
		for (int c = 0; c < NORM_C; c++) {
			double m, squares;
			channel_moments(b.values[x], c, &m, &squares);
			b.values[mean][c] = element_rounded(ELEMENT_FP32, m);
			b.values[inverse][c] = element_rounded(ELEMENT_FP32, 1 / sqrt(squares / NORM_PIXELS + 1e-5));
		}
		*bench_operation(&b, GRAPH_MUL) = (struct graph_operation){.kind = GRAPH_MUL, .in = {dy, mask}, .out = {g}};
		*bench_operation(&b, GRAPH_NORM_BACKWARD) = (struct graph_operation){.kind = GRAPH_NORM_BACKWARD, .in = {g, x, mean, inverse, gamma},
			.out = {dx, dgamma, dbeta}};
		bench_run(&b, &runner, &facts);
		for (int c = 0; c < NORM_C; c++) {
			double sum = 0, product = 0, m = b.values[mean][c], factor = b.values[inverse][c];
			for (int i = c; i < NORM_PIXELS * NORM_C; i += NORM_C) {
				assert_true(b.values[g][i] == (b.values[mask][i] != 0 ? b.values[dy][i] : 0));
				sum += b.values[g][i];
				product += b.values[g][i] * (b.values[x][i] - m) * factor;
			}
			near(b.values[dbeta][c], sum, 0x1p-18, "dbeta");
			near(b.values[dgamma][c], product, 0x1p-18, "dgamma");
			for (int i = c; i < NORM_PIXELS * NORM_C; i += NORM_C) {
				double want = b.values[gamma][c] * factor
					* (b.values[g][i] - sum / NORM_PIXELS - (b.values[x][i] - m) * factor * product / NORM_PIXELS);
				near(b.values[dx][i], want, 0x1p-20 + fabs(want) * element_epsilon(element), "dx");
			}
		}
		bench_close(&b);
	}
	runner_close(&runner);
}

/* --- elements ---------------------------------------------------------------------------------------------------------- */

/* x + x in each element, over every kind of number: rounding to nearest even, subnormals, overflow. */
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
			b.values[x][i] = (double)(float)numbers[i];
		*bench_operation(&b, GRAPH_ADD) = (struct graph_operation){.kind = GRAPH_ADD, .in = {x, x}, .out = {y}};
		bench_run(&b, &runner, &facts);
		for (int i = 0; i < COUNT; i++) {
			double want = element_rounded(elements[e], element_rounded(ELEMENT_FP32, 2 * b.values[x][i]));
			if (b.values[y][i] != want)
				fail_msg("%s: 2 · %.9g gives %.9g, expected %.9g", element_names[e], b.values[x][i], b.values[y][i], want);
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
	int x = bench_random(&b, ELEMENT_FP32, 1, 8, 2, 2), y = bench_tensor(&b, ELEMENT_FP32, 1, 8, 2, 2), scale = bench_scalar(&b, 3);
	*bench_operation(&b, GRAPH_MUL) = (struct graph_operation){.kind = GRAPH_MUL, .in = {x, scale}, .out = {y}};
	STATUS_OK(plan_build(runner.planner, &b.graph, &plan));
	bench_upload(&b);
	CUDA_OK(cudaStreamBeginCapture(runner.stream, cudaStreamCaptureModeThreadLocal));
	STATUS_OK(plan_run(plan, b.memory, NULL));
	CUDA_OK(cudaStreamEndCapture(runner.stream, &graph));
	CUDA_OK(cudaGraphInstantiate(&executable, graph, 0));
	b.scalars[scale] = 1000; /* was read when it was recorded */
	for (int run = 0; run < 2; run++) {
		if (run == 1)
			CUDA_OK(cudaMemset(b.memory[x], 0, 32 * sizeof(float)));
		CUDA_OK(cudaDeviceSynchronize());
		CUDA_OK(cudaGraphLaunch(executable, runner.stream));
		CUDA_OK(cudaStreamSynchronize(runner.stream));
		bench_download(&b);
		for (int i = 0; i < 32; i++)
			assert_true(b.values[y][i] == (run == 0 ? (double)(float)(3 * b.values[x][i]) : 0));
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
		cmocka_unit_test(test_norm_forward),
		cmocka_unit_test(test_norm_backward),
		cmocka_unit_test(test_elements),
		cmocka_unit_test(test_recorded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
