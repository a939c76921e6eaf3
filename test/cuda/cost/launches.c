/* launches.c: a GPU that writes down what it is asked for and does nothing. See launches.h.
 *
 * In: calls of core/backend/cuda/cuda_*.c, to what launch.c, plan.c and communicator.c give them otherwise and to the CUDA runtime. Out: the list.
 * Addresses are made up: nothing is behind them. */
#include "test/cuda/cost/launches.h"

#include "core/backend/cuda/cuda_backend.h"
#include "core/backend/cuda/grids.h"
#include "train/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct backend smelt_backend_cuda;

static struct {
	struct launches *into; /* NULL: nothing is written down */
	bool recording;
	double weights;
	uintptr_t address;
	int streams, events;
} gpu;

static struct launch *note(enum launch_kind kind, const char *name, cudaStream_t stream)
{
	static struct launch nowhere;
	struct launches *into = gpu.into;
	struct launch *launch = &nowhere;
	if (into != NULL) {
		MUST(into->count < LAUNCHES_MAX);
		launch = &into->list[into->count++];
	}
	*launch = (struct launch){.kind = kind, .stream = (int)(uintptr_t)stream, .recorded = gpu.recording, .every = 1};
	snprintf(launch->name, sizeof launch->name, "%s", name);
	return launch;
}

/* --- our kernels ------------------------------------------------------------------------------------------------------ */

#define LAUNCH(name, arguments) \
	enum status launch_##name(const struct launcher *launcher, const struct arguments *a) \
	{ \
		struct launch *launch = note(LAUNCH_KERNEL, #name, launcher->stream); \
		const struct kernel_sizes sizes = {launcher->element, gpu.weights}; \
		const struct grid grid = grid_##name(a); \
		launch->blocks = (double)grid.x * grid.y; \
		launch->element = ELEMENT_FP32; \
		cost_##name(a, &sizes, launch); \
		return ST_OK; \
	}
KERNELS_PLAIN(LAUNCH)
KERNELS_ELEMENT(LAUNCH)

enum status kernels_load(struct kernels_loaded **kernels)
{
	*kernels = NULL;
	return ST_OK;
}

void kernels_unload(struct kernels_loaded *kernels)
{
	(void)kernels;
}

/* --- plans ------------------------------------------------------------------------------------------------------------ */

struct plan {
	struct graph graph;
	cudaStream_t stream;
};

struct planner {
	cudaStream_t stream;
};

enum status planner_open(const struct planner_config *config, struct planner **planner)
{
	struct planner *made = malloc(sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "planner: no memory");
	made->stream = config->stream;
	*planner = made;
	return ST_OK;
}

void planner_close(struct planner *planner)
{
	free(planner);
}

enum status plan_build(struct planner *planner, const struct graph *graph, struct plan **plan)
{
	struct plan *made = malloc(sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "plan: no memory");
	*made = (struct plan){*graph, planner->stream};
	*plan = made;
	return ST_OK;
}

void plan_free(struct plan *plan)
{
	free(plan);
}

void plan_facts(const struct plan *plan, struct plan_facts *facts)
{
	(void)plan;
	*facts = (struct plan_facts){0};
}

enum status plan_run(struct plan *plan, void *const pointers[], void *workspace)
{
	static const char *const names[] = {[GRAPH_CONVOLUTION] = "convolution", [GRAPH_CONVOLUTION_DX] = "input gradient",
		[GRAPH_CONVOLUTION_DW] = "weight gradient"};
	(void)pointers;
	(void)workspace;
	cost_graph(&plan->graph, note(LAUNCH_PLAN, names[plan->graph.operations[0].kind], plan->stream));
	return ST_OK;
}

/* --- sums ------------------------------------------------------------------------------------------------------------- */

struct communicator {
	int world;
};

enum status communicator_open(const struct reduction *reduction, struct communicator **communicator)
{
	static struct communicator all;
	all.world = reduction->world;
	*communicator = &all;
	return ST_OK;
}

void communicator_close(struct communicator *communicator)
{
	(void)communicator;
}

enum status communicator_sum(struct communicator *communicator, void *values, size_t count, enum element element, cudaStream_t stream)
{
	struct launch *launch = note(LAUNCH_SUM, "sum over ranks", stream);
	(void)communicator;
	(void)values;
	launch->element = element;
	launch->bytes = (double)(count * element_bytes(element));
	return ST_OK;
}

enum status communicator_mark(struct communicator *communicator, cudaStream_t stream)
{
	(void)communicator;
	(void)stream;
	return ST_OK;
}

enum status communicator_wait(struct communicator *communicator, cudaStream_t stream)
{
	(void)communicator;
	(void)stream;
	return ST_OK;
}

/* --- the CUDA runtime ------------------------------------------------------------------------------------------------- */

cudaError_t cudaSetDevice(int device)
{
	return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

enum { ALIGNMENT = 256 };

/* Of a kind that has every precision. */
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
	(void)device;
	memset(properties, 0, sizeof *properties);
	snprintf(properties->name, sizeof properties->name, "paper");
	properties->major = 9;
	return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
	*memory = (void *)gpu.address;
	gpu.address += (bytes / ALIGNMENT + 1) * ALIGNMENT;
	return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
	(void)memory;
	return cudaSuccess;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
	*memory = malloc(bytes);
	return *memory != NULL ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
	free(memory);
	return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
	(void)memory;
	(void)value;
	note(LAUNCH_COPY, "zeros", stream)->bytes = (double)bytes;
	return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
	(void)from;
	if (kind == cudaMemcpyDeviceToHost)
		memset(to, 0, bytes);
	note(LAUNCH_COPY, kind == cudaMemcpyHostToDevice ? "copy from host" : kind == cudaMemcpyDeviceToHost ? "copy to host" : "copy", stream)->bytes =
		(double)bytes * (kind == cudaMemcpyDeviceToDevice ? 2 : 1);
	return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
	*least = 0;
	*greatest = -1;
	return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
	(void)flags;
	(void)priority;
	*stream = (cudaStream_t)(uintptr_t)++gpu.streams;
	return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	(void)stream;
	return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	(void)stream;
	return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
	(void)flags;
	*event = (cudaEvent_t)(uintptr_t)++gpu.events;
	return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	(void)event;
	return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
	(void)event;
	return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	note(LAUNCH_MARK, "mark", stream)->event = (int)(uintptr_t)event;
	return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
	(void)flags;
	note(LAUNCH_WAIT, "wait", stream)->event = (int)(uintptr_t)event;
	return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
	(void)stream;
	(void)mode;
	gpu.recording = true;
	return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
	(void)stream;
	gpu.recording = false;
	*graph = (cudaGraph_t)(gpu.address += ALIGNMENT);
	return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
	(void)graph;
	(void)flags;
	*exec = (cudaGraphExec_t)(gpu.address += ALIGNMENT);
	return cudaSuccess;
}

/* What it holds was written down when it was recorded. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
	(void)exec;
	(void)stream;
	return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
	(void)graph;
	return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
	(void)exec;
	return cudaSuccess;
}

/* --- a step ----------------------------------------------------------------------------------------------------------- */

enum { IMAGE_SIZE = 32, CLASSES = 100 };

struct steps {
	const struct job *job;
	const struct machine *machine;
	const struct sample *samples;
};

/* One step; what it enqueues is added to `into`. */
static enum status step_run(const struct steps *steps, struct launches *into)
{
	static const uint8_t pixels[1];
	static const uint16_t labels[1];
	const struct images images = {.pixels = pixels, .labels = labels, .count = 1, .size = IMAGE_SIZE};
	const struct update update = {.lr = 0.1f, .momentum = 0.9f, .weight_decay = 5e-4f, .nesterov = true, .norm_bias_lr_scale = 1, .gradient_scale = 1};
	const int n = steps->job->n;
	gpu.into = into;
	enum status status = step_train(steps->machine, &images, steps->samples, n, n * steps->job->world, 0, &update);
	gpu.into = NULL;
	return status;
}

/* The second step of a kind is the one that is recorded: it says all that later ones enqueue, but for the updates of dead taps, which come together
 * after as many steps as fit. */
static enum status steps_run(const struct steps *steps, struct launches *launches)
{
	struct launches later;
	TRY(step_run(steps, NULL));
	TRY(step_run(steps, launches));
	for (int i = 3; i <= UPDATE_HISTORY_MAX_DEVICE; i++) {
		later.count = 0;
		TRY(step_run(steps, &later));
		for (int j = 0; j < later.count; j++)
			if (strcmp(later.list[j].name, "update_dead") == 0) {
				MUST(launches->count < LAUNCHES_MAX);
				launches->list[launches->count] = later.list[j];
				launches->list[launches->count++].every = UPDATE_HISTORY_MAX_DEVICE;
			}
	}
	return ST_OK;
}

enum status launches_of(const struct job *job, struct launches *launches)
{
	const struct reduction reduction = {.world = job->world, .bucket_bytes = job->bucket_bytes, .bf16 = job->sums_in_bf16};
	struct network network;
	struct params_layout layout;
	struct machine machine = {.backend = &smelt_backend_cuda, .network = &network, .shared = job->world > 1};
	TRY(network_build(&network, job->stem, IMAGE_SIZE, CLASSES));
	params_layout_build(&layout, &network);
	const struct backend_config config = {.network = &network, .layout = &layout, .batch_max = job->n, .reduction = job->world > 1 ? &reduction : NULL,
		.training = true, .norm_momentum = 0.1, .precision = job->precision};
	memset(&gpu, 0, sizeof gpu);
	gpu.address = ALIGNMENT;
	struct sample *samples = calloc((size_t)job->n, sizeof *samples);
	if (samples == NULL)
		return FAIL(ST_MEMORY, "no memory for %d samples", job->n);
	for (int i = 0; i < job->n; i++)
		samples[i].weight = 1;
	enum status status;
	TRY_DONE(machine.backend->open(&config, &machine.state));
	gpu.weights = (double)machine.state->weights_count;
	launches->count = 0;
	status = steps_run(&(struct steps){job, &machine, samples}, launches);
	machine.backend->close(machine.state);
done:
	free(samples);
	return status;
}
