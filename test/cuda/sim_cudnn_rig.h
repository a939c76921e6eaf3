/* sim_cudnn_rig.h: what the tests of the simulated cuDNN share: a graph with its values, planned and run by the backend's planner. */
#pragma once

#include "core/backend/cuda/plan.h"
#include "core/base/random.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CUDA_OK(call) assert_int_equal(call, cudaSuccess)
#define STATUS_OK(call) do { if ((call) != ST_OK) fail_msg("%s: %s", #call, status_message()); } while (0)

/* --- elements, in arithmetic ------------------------------------------------------------------------------------------- */

/* The nearest value that has `bits` behind the point, and none below 2^least. */
static inline double rounded(double value, int bits, int least)
{
	int exponent;
	if (value == 0 || !isfinite(value))
		return value;
	frexp(value, &exponent);
	double quantum = ldexp(1, exponent - 1 - bits < least ? least : exponent - 1 - bits);
	return nearbyint(value / quantum) * quantum;
}

static inline double element_rounded(enum element element, double value)
{
	switch (element) {
	case ELEMENT_FP16: return fabs(value) >= 65520 ? copysign((double)INFINITY, value) : rounded(value, 10, -24);
	case ELEMENT_BF16: return rounded(value, 7, -133);
	default: return (double)(float)value;
	}
}

/* Half a unit in the last place, relative. */
static inline double element_epsilon(enum element element)
{
	return element == ELEMENT_FP16 ? 0x1p-11 : element == ELEMENT_BF16 ? 0x1p-8 : 0x1p-24;
}

static inline void element_encode(enum element element, double value, unsigned char *memory, size_t at)
{
	float single = (float)value;
	uint32_t bits;
	memcpy(&bits, &single, sizeof bits);
	if (element == ELEMENT_FP32) {
		memcpy(memory + 4 * at, &single, sizeof single);
	} else if (element == ELEMENT_BF16) {
		uint16_t word = (uint16_t)(bits >> 16);
		memcpy(memory + 2 * at, &word, sizeof word);
	} else if (element == ELEMENT_FP16) {
		int exponent = 0;
		double fraction = fabs(frexp(value, &exponent));
		uint16_t sign = signbit(value) ? 0x8000 : 0, word;
		if (value == 0)
			word = 0;
		else if (exponent - 1 < -14)
			word = (uint16_t)ldexp(fraction, exponent + 24);
		else
			word = (uint16_t)(((exponent + 14) << 10) + (int)ldexp(2 * fraction - 1, 10));
		word |= sign;
		memcpy(memory + 2 * at, &word, sizeof word);
	}
}

static inline double element_decode(enum element element, const unsigned char *memory, size_t at)
{
	uint16_t word = 0;
	uint32_t bits;
	float single;
	if (element == ELEMENT_FP32) {
		memcpy(&single, memory + 4 * at, sizeof single);
		return (double)single;
	}
	memcpy(&word, memory + 2 * at, sizeof word);
	if (element == ELEMENT_BF16) {
		bits = (uint32_t)word << 16;
		memcpy(&single, &bits, sizeof single);
		return (double)single;
	}
	int exponent = word >> 10 & 31, mantissa = word & 1023;
	double value = exponent == 31 ? (mantissa ? (double)NAN : (double)INFINITY)
		: exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
	return word & 0x8000 ? -value : value;
}

/* --- a graph ----------------------------------------------------------------------------------------------------------- */

struct bench {
	struct graph graph;
	double *values[GRAPH_TENSORS_MAX]; /* (N, H, W, C), such as the element can hold */
	void *memory[GRAPH_TENSORS_MAX];
};

static inline size_t values_count(const struct graph_tensor *tensor)
{
	return (size_t)(tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * tensor->dims[3]);
}

static inline int bench_tensor(struct bench *bench, enum element element, int64_t n, int64_t c, int64_t h, int64_t w)
{
	int number = bench->graph.tensors_count++;
	bench->graph.tensors[number] = (struct graph_tensor){.element = element, .dims = {n, c, h, w}};
	bench->values[number] = calloc((size_t)(n * c * h * w), sizeof(double));
	assert_non_null(bench->values[number]);
	return number;
}

static inline int bench_virtual(struct bench *bench, int64_t n, int64_t c, int64_t h, int64_t w)
{
	int number = bench_tensor(bench, ELEMENT_FP32, n, c, h, w);
	bench->graph.tensors[number].is_virtual = true;
	return number;
}

/* Random values in [-1, 1), rounded to the element. */
static inline int bench_random(struct bench *bench, enum element element, int64_t n, int64_t c, int64_t h, int64_t w)
{
	int number = bench_tensor(bench, element, n, c, h, w);
	struct random_stream stream = random_open(2811, RANDOM_TEST, 0, (uint64_t)number);
	for (size_t i = 0; i < values_count(&bench->graph.tensors[number]); i++) {
		double value = 2 * random_unit(&stream) - 1;
		bench->values[number][i] = element_rounded(element, value);
	}
	return number;
}

static inline struct graph_operation *bench_operation(struct bench *bench, enum graph_operation_kind kind)
{
	struct graph_operation *operation = &bench->graph.operations[bench->graph.operations_count++];
	*operation = (struct graph_operation){.kind = kind};
	return operation;
}

static inline bool is_result(const struct graph *graph, int tensor)
{
	for (int i = 0; i < graph->operations_count; i++)
		if (graph->operations[i].out == tensor)
			return true;
	return false;
}

static inline void bench_upload(struct bench *bench)
{
	for (int i = 0; i < bench->graph.tensors_count; i++) {
		const struct graph_tensor *tensor = &bench->graph.tensors[i];
		if (tensor->is_virtual)
			continue;
		size_t bytes = graph_tensor_bytes(tensor);
		unsigned char *host = malloc(bytes);
		assert_non_null(host);
		memset(host, 0xff, bytes);
		for (size_t at = 0; !is_result(&bench->graph, i) && at < values_count(tensor); at++)
			element_encode(tensor->element, bench->values[i][at], host, at);
		CUDA_OK(cudaMalloc(&bench->memory[i], bytes));
		CUDA_OK(cudaMemcpy(bench->memory[i], host, bytes, cudaMemcpyHostToDevice));
		free(host);
	}
	CUDA_OK(cudaDeviceSynchronize()); /* the stream of a run does not wait for copies */
}

static inline void bench_download(struct bench *bench)
{
	for (int i = 0; i < bench->graph.tensors_count; i++) {
		const struct graph_tensor *tensor = &bench->graph.tensors[i];
		if (tensor->is_virtual || !is_result(&bench->graph, i))
			continue;
		unsigned char *host = malloc(graph_tensor_bytes(tensor));
		assert_non_null(host);
		CUDA_OK(cudaMemcpy(host, bench->memory[i], graph_tensor_bytes(tensor), cudaMemcpyDeviceToHost));
		for (size_t at = 0; at < values_count(tensor); at++)
			bench->values[i][at] = element_decode(tensor->element, host, at);
		free(host);
	}
}

static inline void bench_close(struct bench *bench)
{
	for (int i = 0; i < bench->graph.tensors_count; i++) {
		if (bench->memory[i] != NULL)
			CUDA_OK(cudaFree(bench->memory[i]));
		free(bench->values[i]);
	}
}

/* --- planning and running ---------------------------------------------------------------------------------------------- */

struct runner {
	struct planner *planner;
	cudaStream_t stream;
};

static inline void runner_open(struct runner *runner, bool deterministic, bool tf32)
{
	CUDA_OK(cudaStreamCreateWithFlags(&runner->stream, cudaStreamNonBlocking));
	const struct planner_config config = {.stream = runner->stream, .deterministic = deterministic, .tf32 = tf32, .workspace_bytes_max = 1 << 28};
	STATUS_OK(planner_open(&config, &runner->planner));
}

static inline void runner_close(struct runner *runner)
{
	planner_close(runner->planner);
	CUDA_OK(cudaStreamDestroy(runner->stream));
}

/* Plans the graph and runs it, from its given values to its results. */
static inline void bench_run(struct bench *bench, const struct runner *runner, struct plan_facts *facts)
{
	struct plan *plan;
	void *workspace = NULL;
	STATUS_OK(plan_build(runner->planner, &bench->graph, &plan));
	plan_facts(plan, facts);
	bench_upload(bench);
	if (facts->workspace_bytes > 0)
		CUDA_OK(cudaMalloc(&workspace, (size_t)facts->workspace_bytes));
	STATUS_OK(plan_run(plan, bench->memory, workspace));
	CUDA_OK(cudaStreamSynchronize(runner->stream));
	bench_download(bench);
	CUDA_OK(cudaFree(workspace));
	plan_free(plan);
}
