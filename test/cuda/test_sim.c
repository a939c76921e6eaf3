/* test_sim.c: the simulated runtime finds what it is there to find, and does right programs no harm. Method: sim_bed.h. */
#include "test/cuda/sim_bed.h"

#include <math.h>

/* --- a kernel ----------------------------------------------------------------------------------------------------------------------- */

/* to[i] = from[i] + by: one value a thread. */
struct plus {
	const float *from;
	float *to;
	int count;
	float by;
};

static void plus_run(const void *arguments, unsigned grid_x, unsigned grid_y, unsigned block_x, const unsigned *order)
{
	const struct plus *a = arguments;
	for (unsigned b = 0; b < grid_x * grid_y; b++)
		for (unsigned thread = 0; thread < block_x; thread++) {
			int i = (int)(order[b] * block_x + thread);
			if (i < a->count)
				a->to[i] = a->from[i] + a->by;
		}
}

static const struct host_kernel kernels[] = {{"plus", sizeof(struct plus), plus_run}, {NULL, 0, NULL}};
static cudaLibrary_t library;
static cudaKernel_t plus;

static void plus_load(void)
{
	sim_kernels_add(kernels);
	GOOD(cudaLibraryLoadData(&library, "code", NULL, NULL, 0, NULL, NULL, 0));
	GOOD(cudaLibraryGetKernel(&plus, library, "plus"));
}

static cudaError_t plus_launch(float *to, const float *from, int count, float by, cudaStream_t stream)
{
	struct plus arguments = {from, to, count, by};
	cudaLaunchConfig_t config = {.gridDim = {(unsigned)(count + 15) / 16, 1, 1}, .blockDim = {16, 1, 1}, .stream = stream};
	return cudaLaunchKernelExC(&config, (const void *)plus, (void *[]){&arguments});
}

static float *device_values(float fill)
{
	float *values, host[VALUES];
	for (int i = 0; i < VALUES; i++)
		host[i] = fill;
	GOOD(cudaMalloc((void **)&values, sizeof host));
	GOOD(cudaMemcpy(values, host, sizeof host, cudaMemcpyHostToDevice));
	return values;
}

/* All values are this one. */
static int judge(const float *device, float expected)
{
	float host[VALUES];
	GOOD(cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost));
	for (int i = 0; i < VALUES; i++)
		if (host[i] != expected)
			return WRONG;
	return RIGHT;
}

/* --- order ---------------------------------------------------------------------------------------------------------------------------- */

static int two_streams(bool with_event)
{
	plus_load();
	float *a = device_values(1), *b = device_values(0), *c = device_values(0);
	cudaStream_t first = stream_make(), second = stream_make();
	cudaEvent_t made = event_make();
	GOOD(plus_launch(b, a, VALUES, 1, first));
	GOOD(cudaEventRecord(made, first));
	if (with_event)
		GOOD(cudaStreamWaitEvent(second, made, 0));
	GOOD(plus_launch(c, b, VALUES, 1, second));
	GOOD(cudaDeviceSynchronize());
	return judge(c, 3);
}
static int two_streams_ordered(void) { return two_streams(true); }
static int two_streams_without_event(void) { return two_streams(false); }

static void a_missing_event_shows(void **state)
{
	(void)state;
	run_right(two_streams_ordered, "");
	run_wrong(two_streams_without_event, "");
}

/* The staging buffer is written again before the copy has run. */
static int staging(bool wait)
{
	float *device = device_values(0), *pinned;
	cudaStream_t stream = stream_make();
	cudaEvent_t copied = event_make();
	GOOD(cudaMallocHost((void **)&pinned, VALUES * sizeof *pinned));
	for (int i = 0; i < VALUES; i++)
		pinned[i] = 1;
	GOOD(cudaMemcpyAsync(device, pinned, VALUES * sizeof *pinned, cudaMemcpyHostToDevice, stream));
	GOOD(cudaEventRecord(copied, stream));
	if (wait)
		GOOD(cudaEventSynchronize(copied));
	for (int i = 0; i < VALUES; i++)
		pinned[i] = 2;
	GOOD(cudaStreamSynchronize(stream));
	return judge(device, 1);
}
static int staging_waited(void) { return staging(true); }
static int staging_reused(void) { return staging(false); }

static void early_reuse_of_host_memory_shows(void **state)
{
	(void)state;
	run_right(staging_waited, "");
	run_wrong(staging_reused, "");
}

/* Results are read before they are there. */
static int unsynchronised_read(void)
{
	float *device = device_values(5), *pinned;
	cudaStream_t stream = stream_make();
	GOOD(cudaMallocHost((void **)&pinned, VALUES * sizeof *pinned));
	GOOD(cudaMemcpyAsync(pinned, device, VALUES * sizeof *pinned, cudaMemcpyDeviceToHost, stream));
	return pinned[0] == 5 ? RIGHT : WRONG;
}

static void a_result_read_too_early_shows(void **state)
{
	(void)state;
	run_wrong(unsynchronised_read, "");
}

static int legacy_stream(void)
{
	plus_load();
	float *a = device_values(1);
	cudaStream_t blocking;
	GOOD(cudaStreamCreate(&blocking));
	for (int i = 0; i < 10; i++)
		GOOD(plus_launch(a, a, VALUES, 1, i % 2 ? blocking : NULL));
	GOOD(cudaDeviceSynchronize());
	return judge(a, 11);
}

static void the_legacy_stream_orders_blocking_ones(void **state)
{
	(void)state;
	run_right(legacy_stream, "");
}

static int polled(void)
{
	plus_load();
	float *a = device_values(1);
	cudaStream_t stream = stream_make();
	cudaEvent_t done = event_make();
	GOOD(plus_launch(a, a, VALUES, 1, stream));
	GOOD(cudaEventRecord(done, stream));
	cudaError_t error;
	while ((error = cudaEventQuery(done)) == cudaErrorNotReady)
		;
	GOOD(error);
	GOOD(cudaStreamQuery(stream));
	return judge(a, 2);
}

static void polling_gets_there(void **state)
{
	(void)state;
	run_right(polled, "");
}

/* --- memory ------------------------------------------------------------------------------------------------------------------------------ */

static int fresh_memory(void)
{
	float *device, host[VALUES];
	GOOD(cudaMalloc((void **)&device, sizeof host));
	GOOD(cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost));
	for (int i = 0; i < VALUES; i++)
		if (!isnan(host[i]))
			return WRONG;
	SAME((uintptr_t)device % 256, 0);
	GOOD(cudaMemset(device, 0, sizeof host));
	return judge(device, 0);
}

static int host_reads(void) { return device_values(1)[0] == 1 ? RIGHT : WRONG; }

static int host_writes_beyond(void)
{
	float *device = device_values(1);
	device[VALUES] = 1;
	return RIGHT;
}

static int freed_is_used(void)
{
	plus_load();
	float *a = device_values(1), *b = device_values(0);
	GOOD(cudaFree(b));
	GOOD(plus_launch(b, a, VALUES, 1, NULL));
	GOOD(cudaDeviceSynchronize());
	return RIGHT;
}

static int freed_is_copied(void)
{
	float *a = device_values(1);
	GOOD(cudaFree(a));
	return judge(a, 1);
}

static int freed_twice(void)
{
	float *a = device_values(1);
	GOOD(cudaFree(a));
	GOOD(cudaFree(a));
	return RIGHT;
}

static int overrun(int by)
{
	plus_load();
	float *a, *b;
	GOOD(cudaMalloc((void **)&a, (VALUES + 3) * sizeof *a));
	GOOD(cudaMalloc((void **)&b, 4096 * sizeof *b));
	GOOD(plus_launch(a, b, VALUES + 3 + by, 1, NULL));
	GOOD(cudaDeviceSynchronize());
	return RIGHT;
}
static int overrun_small(void) { return overrun(1); }
static int overrun_large(void) { return overrun(64); }

static int copy_too_long(void)
{
	float *a = device_values(1), host[VALUES + 1];
	GOOD(cudaMemcpy(host, a, sizeof host, cudaMemcpyDeviceToHost));
	return RIGHT;
}

static int pinned_overrun(void)
{
	char *pinned;
	GOOD(cudaMallocHost((void **)&pinned, 1000));
	pinned[1000] = 0;
	GOOD(cudaFreeHost(pinned));
	return RIGHT;
}

static void memory_mistakes_are_caught(void **state)
{
	(void)state;
	static const char *const ways[] = {"", "SIM_PKEYS=0"};
	for (int way = 0; way < 2; way++) {
		run_right(fresh_memory, ways[way]);
		run_caught(host_reads, ways[way], "host code touched");
		run_caught(host_writes_beyond, ways[way], "host code touched");
		run_caught(freed_is_used, ways[way], "item plus touched");
		run_caught(freed_is_copied, ways[way], "not inside one live allocation");
		run_caught(freed_twice, ways[way], "no live allocation");
		run_caught(overrun_small, ways[way], "plus wrote beside device memory");
		run_caught(overrun_large, ways[way], "item plus touched");
		run_caught(copy_too_long, ways[way], "not inside one live allocation");
		run_caught(pinned_overrun, ways[way], "wrote beside");
	}
}

static int memory_ends(void)
{
	void *most, *more;
	size_t left, total;
	GOOD(cudaMemGetInfo(&left, &total));
	SAME(total, 64 << 20);
	GOOD(cudaMalloc(&most, left - 1000));
	SAME(cudaMalloc(&more, 4000), cudaErrorMemoryAllocation);
	SAME(cudaGetLastError(), cudaErrorMemoryAllocation);
	SAME(cudaGetLastError(), cudaSuccess);
	GOOD(cudaFree(most));
	GOOD(cudaMalloc(&more, 4000));
	GOOD(cudaFree(more));
	GOOD(cudaFree(NULL));
	return RIGHT;
}

static void memory_has_an_end(void **state)
{
	(void)state;
	run_right(memory_ends, "SIM_MEMORY_MB=64");
}

/* --- capture -------------------------------------------------------------------------------------------------------------------------------- */

/* b = a + 1 and c = a + 2 on two streams, then a = b + 3, d = c + 4 (joined or not by the event). */
static int replays(bool fork)
{
	plus_load();
	float *a = device_values(0), *b = device_values(0), *c = device_values(0);
	cudaStream_t first = stream_make(), second = stream_make();
	cudaEvent_t forked = event_make(), joined = event_make();
	GOOD(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
	GOOD(plus_launch(b, a, VALUES, 1, first));
	GOOD(cudaEventRecord(forked, first));
	GOOD(cudaStreamWaitEvent(second, forked, 0));
	GOOD(plus_launch(c, fork ? b : a, VALUES, 1, second));
	GOOD(plus_launch(b, b, VALUES, fork ? 0 : 7, first)); /* while the second stream reads b */
	GOOD(cudaEventRecord(joined, second));
	GOOD(cudaStreamWaitEvent(first, joined, 0));
	GOOD(plus_launch(a, c, VALUES, 1, first));
	cudaGraphExec_t executable = graph_make(first);
	if (judge(a, 0) != RIGHT) /* nothing ran yet */
		return BROKEN;
	for (int i = 0; i < 3; i++)
		GOOD(cudaGraphLaunch(executable, first));
	GOOD(cudaStreamSynchronize(first));
	GOOD(cudaGraphExecDestroy(executable));
	return judge(a, fork ? 9 : 6);
}
static int replays_ordered(void) { return replays(true); }
static int replays_apart(void) { return replays(false); }

/* The captured side reads what the main stream writes without an edge between. */
static int replay_race(void)
{
	plus_load();
	float *a = device_values(0), *b = device_values(0);
	cudaStream_t first = stream_make(), second = stream_make();
	cudaEvent_t forked = event_make(), joined = event_make();
	GOOD(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
	GOOD(cudaEventRecord(forked, first));
	GOOD(plus_launch(a, a, VALUES, 1, first));
	GOOD(cudaStreamWaitEvent(second, forked, 0));
	GOOD(plus_launch(b, a, VALUES, 1, second));
	GOOD(cudaEventRecord(joined, second));
	GOOD(cudaStreamWaitEvent(first, joined, 0));
	cudaGraphExec_t executable = graph_make(first);
	GOOD(cudaGraphLaunch(executable, first));
	GOOD(cudaStreamSynchronize(first));
	return judge(b, 2);
}

static void graphs_are_replayed_by_their_edges(void **state)
{
	(void)state;
	run_right(replays_ordered, "");
	run_right(replays_apart, "");
	run_wrong(replay_race, "");
}

static int capture_mistakes(void)
{
	plus_load();
	float *a = device_values(0);
	void *memory;
	cudaGraph_t graph;
	cudaStream_t first = stream_make(), second = stream_make();
	cudaEvent_t outside = event_make(), inside = event_make();
	GOOD(cudaEventRecord(outside, second));
	enum cudaStreamCaptureStatus status;

#define BEGIN() GOOD(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal)); GOOD(plus_launch(a, a, VALUES, 1, first))
#define BROKEN_BY(call, error) \
	BEGIN(); \
	SAME(call, error); \
	GOOD(cudaStreamIsCapturing(first, &status)); \
	SAME(status, cudaStreamCaptureStatusInvalidated); \
	SAME(plus_launch(a, a, VALUES, 1, first), cudaErrorStreamCaptureInvalidated); \
	SAME(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated); \
	SAME(graph == NULL, true)
	BROKEN_BY(cudaStreamSynchronize(first), cudaErrorStreamCaptureUnsupported);
	BROKEN_BY(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported);
	BROKEN_BY(cudaMalloc(&memory, 4), cudaErrorStreamCaptureUnsupported);
	BROKEN_BY(cudaFree(a), cudaErrorStreamCaptureUnsupported);
	BROKEN_BY(cudaMemcpy(a, a, 4, cudaMemcpyDeviceToDevice), cudaErrorStreamCaptureUnsupported);
	BROKEN_BY(cudaMemcpyAsync(&status, a, 4, cudaMemcpyDeviceToHost, first), cudaErrorStreamCaptureUnsupported);
	BROKEN_BY(cudaEventQuery(outside), cudaErrorStreamCaptureUnsupported);
	BROKEN_BY(cudaStreamWaitEvent(first, outside, 0), cudaErrorStreamCaptureIsolation);

	/* Work on another stream that does not lead back. */
	BEGIN();
	GOOD(cudaEventRecord(inside, first));
	GOOD(cudaStreamWaitEvent(second, inside, 0));
	GOOD(plus_launch(a, a, VALUES, 1, second));
	SAME(cudaStreamEndCapture(second, &graph), cudaErrorStreamCaptureUnmatched);
	SAME(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated);
	BEGIN();
	GOOD(cudaEventRecord(inside, first));
	GOOD(cudaStreamWaitEvent(second, inside, 0));
	GOOD(plus_launch(a, a, VALUES, 1, second));
	SAME(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureUnjoined);
	SAME(cudaEventSynchronize(inside), cudaErrorCapturedEvent);
	SAME(cudaStreamEndCapture(first, &graph), cudaErrorInvalidValue);

	/* Capture of one thread alone does not mind another stream; and nothing of all this has run. */
	GOOD(cudaStreamBeginCapture(first, cudaStreamCaptureModeRelaxed));
	GOOD(cudaEventQuery(outside));
	GOOD(cudaStreamEndCapture(first, &graph));
	GOOD(cudaGraphDestroy(graph));
	return judge(a, 0);
}

static void capture_mistakes_are_errors(void **state)
{
	(void)state;
	run(capture_mistakes, "", -1);
	if (outcome.exit != RIGHT)
		fail_msg("exit %d, signal %d: %s", outcome.exit, outcome.signal, outcome.text);
}

/* --- handles, devices, faults ------------------------------------------------------------------------------------------------------------------ */

static int destroyed_stream(void)
{
	cudaStream_t stream = stream_make();
	GOOD(cudaStreamDestroy(stream));
	cudaStreamSynchronize(stream);
	return RIGHT;
}

static int destroyed_event(void)
{
	cudaEvent_t event = event_make();
	GOOD(cudaEventDestroy(event));
	cudaEventDestroy(event);
	return RIGHT;
}

static int unloaded_library(void)
{
	plus_load();
	float *a = device_values(0);
	GOOD(cudaLibraryUnload(library));
	plus_launch(a, a, VALUES, 1, NULL);
	return RIGHT;
}

static int bad_launch(void)
{
	plus_load();
	struct plus arguments = {NULL, NULL, 0, 0};
	cudaLaunchConfig_t config = {.gridDim = {1, 1, 1}, .blockDim = {1025, 1, 1}};
	SAME(cudaLaunchKernelExC(&config, (const void *)plus, (void *[]){&arguments}), cudaErrorInvalidConfiguration);
	config.blockDim.x = 256, config.gridDim.x = 0;
	SAME(cudaLaunchKernelExC(&config, (const void *)plus, (void *[]){&arguments}), cudaErrorInvalidConfiguration);
	cudaKernel_t other;
	SAME(cudaLibraryGetKernel(&other, library, "minus"), cudaErrorSymbolNotFound);
	return RIGHT;
}

static int leaks(void)
{
	device_values(1);
	return RIGHT;
}

static int no_leaks(void)
{
	plus_load();
	float *a = device_values(1);
	cudaStream_t stream = stream_make();
	cudaEvent_t event = event_make();
	GOOD(plus_launch(a, a, VALUES, 1, stream));
	GOOD(cudaStreamSynchronize(stream));
	GOOD(cudaEventDestroy(event));
	GOOD(cudaStreamDestroy(stream));
	GOOD(cudaFree(a));
	GOOD(cudaLibraryUnload(library));
	return RIGHT;
}

static void handles_have_lifetimes(void **state)
{
	(void)state;
	run_caught(destroyed_stream, "", "was destroyed before");
	run_caught(destroyed_event, "", "was destroyed before");
	run_caught(unloaded_library, "", "was destroyed before");
	run_right(bad_launch, "");
	run_right(no_leaks, "SIM_LEAKS=1");
	run_caught(leaks, "SIM_LEAKS=1", "1 allocations of 256 bytes together were not freed");
}

static int four_devices(void)
{
	int count;
	struct cudaDeviceProp properties;
	GOOD(cudaGetDeviceCount(&count));
	SAME(count, 4);
	GOOD(cudaGetDeviceProperties(&properties, 0));
	SAME(properties.major * 10 + properties.minor, 75);
	GOOD(cudaGetDeviceProperties(&properties, 3));
	SAME(properties.major * 10 + properties.minor, 90);
	SAME(cudaSetDevice(4), cudaErrorInvalidDevice);
	GOOD(cudaSetDevice(3));
	struct sim_device_info info;
	sim_device_info(&info);
	SAME(info.sm, 90);
	return RIGHT;
}

static int no_device(void)
{
	int count = 7;
	SAME(cudaGetDeviceCount(&count), cudaErrorNoDevice);
	SAME(count, 0);
	return RIGHT;
}

static int old_driver(void)
{
	int count, version;
	SAME(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
	GOOD(cudaDriverGetVersion(&version));
	SAME(version, 12080);
	return RIGHT;
}

static int forked_too_late(void)
{
	int count, status;
	GOOD(cudaGetDeviceCount(&count));
	pid_t child = fork();
	if (child == 0)
		_exit(cudaGetDeviceCount(&count) == cudaErrorInitializationError ? RIGHT : WRONG);
	return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : BROKEN;
}

static void devices_are_what_the_environment_says(void **state)
{
	(void)state;
	run_right(four_devices, "SIM_DEVICES=4 SIM_GPU=t4,h100");
	run_right(no_device, "SIM_DEVICES=0");
	run_right(old_driver, "SIM_DRIVER=12080");
	run_right(forked_too_late, "");
	run_caught(no_device, "SIM_GPU=abacus", "abacus");
}

static int second_malloc_fails(void)
{
	void *memory;
	GOOD(cudaMalloc(&memory, 4));
	SAME(cudaMalloc(&memory, 4), cudaErrorMemoryAllocation);
	GOOD(cudaMalloc(&memory, 4));
	return RIGHT;
}

static int device_dies(void)
{
	plus_load();
	float *a = device_values(0);
	cudaStream_t stream = stream_make();
	for (int i = 0; i < 3; i++)
		GOOD(plus_launch(a, a, VALUES, 1, stream));
	SAME(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
	SAME(cudaFree(a), cudaErrorIllegalAddress);
	SAME(cudaGetLastError(), cudaErrorIllegalAddress);
	SAME(cudaGetLastError(), cudaErrorIllegalAddress);
	return RIGHT;
}

static int kernel_hangs(void)
{
	plus_load();
	float *a = device_values(0);
	cudaStream_t stream = stream_make();
	GOOD(plus_launch(a, a, VALUES, 1, stream));
	GOOD(plus_launch(a, a, VALUES, 1, stream));
	for (int i = 0; i < 100; i++)
		SAME(cudaStreamQuery(stream), cudaErrorNotReady);
	return RIGHT;
}

static void faults_are_injected(void **state)
{
	(void)state;
	run_right(second_malloc_fails, "SIM_FAIL=cudaFree:1,cudaMalloc:2");
	run_right(device_dies, "SIM_FAIL=kernel/plus:2 SIM_EAGER=0");
	run_right(kernel_hangs, "SIM_FAIL=hang/plus:1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_missing_event_shows),
		cmocka_unit_test(early_reuse_of_host_memory_shows),
		cmocka_unit_test(a_result_read_too_early_shows),
		cmocka_unit_test(the_legacy_stream_orders_blocking_ones),
		cmocka_unit_test(polling_gets_there),
		cmocka_unit_test(memory_mistakes_are_caught),
		cmocka_unit_test(memory_has_an_end),
		cmocka_unit_test(graphs_are_replayed_by_their_edges),
		cmocka_unit_test(capture_mistakes_are_errors),
		cmocka_unit_test(handles_have_lifetimes),
		cmocka_unit_test(devices_are_what_the_environment_says),
		cmocka_unit_test(faults_are_injected),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
