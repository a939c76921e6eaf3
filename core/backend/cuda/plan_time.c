/* plan_time.c: see plan_time.h. */
#include "core/backend/cuda/plan_time.h"

#include "core/backend/cuda/check.h"
#include "core/base/log.h"

#include <math.h>

enum { RUNS = 3, ALIGNMENT_BYTES = 256 };

struct bench {
	char *memory;
	size_t bytes;
	void *pointers[GRAPH_TENSORS_MAX], *workspace;
	cudaEvent_t start, end;
	cudaStream_t stream;
};

/* A place of that size; in a first pass, without memory, only counted. */
static void *place(struct bench *bench, size_t bytes)
{
	void *here = bench->memory == NULL ? NULL : bench->memory + bench->bytes;
	bench->bytes += (bytes + ALIGNMENT_BYTES - 1) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
	return here;
}

static void places(struct bench *bench, const struct graph *graph, size_t workspace_bytes)
{
	bench->bytes = 0;
	for (int i = 0; i < graph->tensors_count; i++) {
		const struct graph_tensor *tensor = &graph->tensors[i];
		if (!tensor->is_virtual)
			bench->pointers[i] = place(bench, graph_tensor_bytes(tensor));
	}
	bench->workspace = place(bench, workspace_bytes);
}

static enum status bench_open(struct bench *bench, const struct graph *graph, struct plan *const plans[], int count)
{
	size_t workspace_bytes = 0;
	for (int i = 0; i < count; i++) {
		struct plan_facts facts;
		plan_facts(plans[i], &facts);
		if ((size_t)facts.workspace_bytes > workspace_bytes)
			workspace_bytes = (size_t)facts.workspace_bytes;
	}
	places(bench, graph, workspace_bytes);
	enum status status = CUDA(cudaMalloc((void **)&bench->memory, bench->bytes));
	if (status != ST_OK)
		return status_prefix(status, "%s, %zu bytes to time it on", graph->name, bench->bytes);
	places(bench, graph, workspace_bytes);
	CUDA_TRY(cudaMemsetAsync(bench->memory, 0, bench->bytes, bench->stream));
	CUDA_TRY(cudaEventCreate(&bench->start));
	return CUDA(cudaEventCreate(&bench->end));
}

static void bench_close(struct bench *bench)
{
	if (bench->end != NULL)
		cudaEventDestroy(bench->end);
	if (bench->start != NULL)
		cudaEventDestroy(bench->start);
	cudaFree(bench->memory);
}

static enum status run_time(struct bench *bench, struct plan *plan, double *microseconds)
{
	float milliseconds = 0;
	CUDA_TRY(cudaEventRecord(bench->start, bench->stream));
	TRY(plan_run(plan, bench->pointers, bench->workspace));
	CUDA_TRY(cudaEventRecord(bench->end, bench->stream));
	CUDA_TRY(cudaEventSynchronize(bench->end));
	CUDA_TRY(cudaEventElapsedTime(&milliseconds, bench->start, bench->end));
	*microseconds = (double)milliseconds * 1000;
	return ST_OK;
}

/* The first run, which loads code, does not count. */
static enum status plan_time(struct bench *bench, struct plan *plan, double *microseconds)
{
	double fastest = (double)INFINITY;
	for (int run = 0; run <= RUNS; run++) {
		double took;
		TRY(run_time(bench, plan, &took));
		if (run > 0 && took < fastest)
			fastest = took;
	}
	*microseconds = fastest;
	return ST_OK;
}

enum status plans_time(const struct graph *graph, struct plan *const plans[], int count, cudaStream_t stream, double microseconds[])
{
	struct bench bench = {.stream = stream};
	enum status status = bench_open(&bench, graph, plans, count);
	for (int i = 0; i < count && status == ST_OK; i++) {
		microseconds[i] = (double)INFINITY;
		if (plan_time(&bench, plans[i], &microseconds[i]) == ST_OK)
			continue;
		log_debug("%s", status_message());
		status = CUDA(cudaStreamSynchronize(stream)); /* an error that stays ends it */
	}
	bench_close(&bench);
	return status;
}
