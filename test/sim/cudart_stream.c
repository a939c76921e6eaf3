/* cudart_stream.c: items, streams and events: what may run, and in which order it does.
 *
 * Items form a graph of dependencies: behind the last item of their stream, behind events that the stream waits for, behind a captured graph's
 * edges. An item without open dependencies is ready. Somebody who waits runs ready items, chosen at random, until what he waits for is done;
 * the rest stays. Some waits choose uniformly, others favour one stream as far as it goes, so that a stream that is far ahead of another, or far
 * behind, is common. */
#include "test/sim/cudart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

_Thread_local bool item_runs;

static struct {
	struct item **ready;
	size_t ready_count;
	struct stream **streams;
	size_t streams_count;
	uint64_t items_count;
	int eager_percent; /* of items: after them a few items run at once; −1: not chosen yet */
} queue = {.eager_percent = -1};

/* --- items ---------------------------------------------------------------------------------------------------------------------- */

void item_hold(struct item *item)
{
	item->references++;
}

void item_drop(struct item *item)
{
	if (!item || --item->references)
		return;
	free(item->after);
	free(item->context);
	free(item);
}

struct item *item_new(struct stream *stream, const struct sim_work *work, const void *context, size_t context_bytes)
{
	struct item *item = sim_allocate(1, sizeof *item);
	item->work = *work;
	item->number = ++queue.items_count;
	item->stream_number = stream->number;
	item->device = stream->device;
	item->references = 1;
	item->waits = 1; /* for item_start */
	if (context_bytes) {
		item->context = sim_allocate(1, context_bytes);
		memcpy(item->context, context, context_bytes);
	}
	if (work->retain)
		work->retain(item->context, false);
	item_after(item, stream->tail);
	/* The legacy stream and all others that are not "non-blocking" follow each other. */
	for (size_t i = 0; i < queue.streams_count && !(stream->flags & cudaStreamNonBlocking); i++) {
		struct stream *other = queue.streams[i];
		if (other != stream && other->device == stream->device && (stream->is_legacy || other->is_legacy) && !(other->flags & cudaStreamNonBlocking))
			item_after(item, other->tail);
	}
	return item;
}

void item_after(struct item *item, struct item *before)
{
	if (!before || before->done)
		return;
	before->after = sim_grow(before->after, before->after_count + 1, sizeof(struct item *));
	before->after[before->after_count++] = item;
	item_hold(item);
	item->waits++;
}

static void item_ready(struct item *item)
{
	if (--item->waits)
		return;
	item_hold(item);
	queue.ready = sim_grow(queue.ready, queue.ready_count + 1, sizeof(struct item *));
	queue.ready[queue.ready_count++] = item;
}

static void item_finish(struct item *item)
{
	item->done = true;
	clock_gettime(CLOCK_MONOTONIC, &item->when);
	if (item->work.release)
		item->work.release(item->context, false);
	for (size_t i = 0; i < item->after_count; i++) {
		item_ready(item->after[i]);
		item_drop(item->after[i]);
	}
	item->after_count = 0;
}

/* Faults that SIM_FAIL asks for: the device dies while it runs this, or this never ends. */
static bool item_fault(struct item *item)
{
	if (!getenv("SIM_FAIL"))
		return false;
	char key[80];
	snprintf(key, sizeof key, "kernel/%s", item->work.name);
	if (fault_strikes("SIM_FAIL", key))
		device_kill(device_at(item->device), cudaErrorIllegalAddress);
	if (fault_strikes("SIM_FAIL", "device"))
		device_kill(device_at(item->device), cudaErrorECCUncorrectable);
	snprintf(key, sizeof key, "hang/%s", item->work.name);
	item->hangs = fault_strikes("SIM_FAIL", key);
	return item->hangs || device_at(item->device)->error;
}

/* True: it is done. */
static bool item_run(struct item *item)
{
	if (item->hangs || device_at(item->device)->error)
		return false;
	if (item->work.run && !item->started) {
		item->started = true;
		if (item_fault(item))
			return false;
	}
	enum sim_progress progress = SIM_DONE;
	if (item->work.run) {
		memory_running(item->work.name);
		item_runs = true;
		progress = item->work.run(item->context);
		item_runs = false;
		memory_running(NULL);
		memory_check(item->work.name);
	}
	if (progress == SIM_DONE)
		item_finish(item);
	return progress == SIM_DONE;
}

/* Tries ready items from a place on until one gets done. False: none did. favourite: order by a hash of their streams, else uniform. */
static bool items_run_one(uint64_t favourite)
{
	size_t count = queue.ready_count, first = count ? random_below(count) : 0;
	if (favourite) {
		uint64_t best = 0;
		for (size_t i = 0; i < count; i++) {
			uint64_t hash = (queue.ready[i]->stream_number * favourite) >> 20;
			if (hash >= best)
				best = hash, first = i;
		}
	}
	bool done = false;
	memory_open();
	for (size_t i = 0; i < count && !done; i++) {
		size_t at = (first + i) % count;
		struct item *item = queue.ready[at];
		if ((done = item_run(item))) {
			/* What became ready stands behind `count`. */
			queue.ready[at] = queue.ready[--queue.ready_count];
			item_drop(item);
		}
	}
	memory_close();
	return done;
}

static uint64_t favourite_draw(void)
{
	return random_below(2) ? sim_random() | 1 : 0;
}

cudaError_t item_wait(struct item *item, int device)
{
	uint64_t favourite = favourite_draw();
	if (item)
		item_hold(item);
	/* Open once for all items: where there are no protection keys, each opening is a system call an allocation. */
	memory_open();
	while (item && !item->done && !device_at(device)->error)
		if (!items_run_one(favourite)) {
			memory_close();
			lock_pause();
			memory_open();
		}
	memory_close();
	item_drop(item);
	return device_at(device)->error;
}

void items_run_some(void)
{
	uint64_t favourite = favourite_draw();
	for (uint64_t i = random_below(4); i > 0 && items_run_one(favourite); i--)
		;
}

cudaError_t sim_device_error(int device)
{
	lock_take();
	cudaError_t error = device_at(device)->error;
	lock_give();
	return error;
}

void sim_tick(void)
{
	lock_take();
	items_run_some();
	lock_give();
}

void item_start(struct item *item)
{
	static const int eager_percents[] = {0, 0, 0, 5, 40};
	item_ready(item);
	item_drop(item);
	if (queue.eager_percent < 0) {
		const char *text = getenv("SIM_EAGER");
		queue.eager_percent = text ? atoi(text) : eager_percents[random_below(sizeof eager_percents / sizeof *eager_percents)];
	}
	if (queue.eager_percent && random_below(100) < (uint64_t)queue.eager_percent)
		items_run_some();
}

/* --- streams -------------------------------------------------------------------------------------------------------------------- */

/* The legacy stream is nobody's to destroy. */
static struct stream *stream_make(int device, unsigned flags, int priority, bool is_legacy)
{
	struct stream *stream = is_legacy ? sim_allocate(1, sizeof *stream) : object_make(OBJECT_STREAM, sizeof *stream);
	stream->is_legacy = is_legacy;
	stream->device = device;
	stream->flags = flags;
	stream->priority = priority;
	queue.streams = sim_grow(queue.streams, queue.streams_count + 1, sizeof(struct stream *));
	queue.streams[queue.streams_count++] = stream;
	stream->number = queue.streams_count;
	return stream;
}

struct stream *stream_of(cudaStream_t handle, const char *call)
{
	struct device *device = device_current();
	if (handle == NULL || handle == cudaStreamLegacy) {
		if (!device->legacy)
			device->legacy = stream_make(sim_device(), 0, 0, true);
		return device->legacy;
	}
	object_check(handle, OBJECT_STREAM, call);
	return (struct stream *)handle;
}

void stream_push_item(struct stream *stream, struct item *item)
{
	item_drop(stream->tail);
	stream->tail = item;
	item_hold(item);
	item_start(item);
}

cudaError_t stream_push(struct stream *stream, const struct sim_work *work, const void *context, size_t context_bytes)
{
	if (stream->capture)
		return capture_push(stream, work, context, context_bytes);
	if (stream->is_legacy && capture_forbids_legacy(stream->device))
		return cudaErrorStreamCaptureImplicit;
	if (stream->device != sim_device())
		return cudaErrorInvalidResourceHandle;
	stream_push_item(stream, item_new(stream, work, context, context_bytes));
	return cudaSuccess;
}

cudaError_t sim_stream_push_work(cudaStream_t stream, const struct sim_work *work, const void *context, size_t context_bytes)
{
	CALL(work->name, stream_push(stream_of(stream, work->name), work, context, context_bytes));
}

cudaError_t sim_stream_push(cudaStream_t stream, enum sim_progress (*run)(void *context), const void *context, size_t context_bytes)
{
	struct sim_work work = {.name = "item", .run = run};
	return sim_stream_push_work(stream, &work, context, context_bytes);
}

static cudaError_t stream_create(cudaStream_t *handle, unsigned flags, int priority)
{
	if (flags & ~(unsigned)cudaStreamNonBlocking)
		return cudaErrorInvalidValue;
	*handle = (cudaStream_t)stream_make(sim_device(), flags, priority < -5 ? -5 : priority > 0 ? 0 : priority, false);
	return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
	CALL("cudaStreamCreate", stream_create(stream, 0, 0));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
	CALL("cudaStreamCreateWithFlags", stream_create(stream, flags, 0));
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
	CALL("cudaStreamCreateWithPriority", stream_create(stream, flags, priority));
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
	CALL("cudaDeviceGetStreamPriorityRange", (*least = 0, *greatest = -5, cudaSuccess));
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned *flags)
{
	CALL("cudaStreamGetFlags", (*flags = stream_of(stream, "cudaStreamGetFlags")->flags, cudaSuccess));
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
	CALL("cudaStreamGetPriority", (*priority = stream_of(stream, "cudaStreamGetPriority")->priority, cudaSuccess));
}

/* What is enqueued on it still runs. */
static cudaError_t stream_destroy(cudaStream_t handle)
{
	object_destroy(handle, OBJECT_STREAM, "cudaStreamDestroy");
	struct stream *stream = (struct stream *)handle;
	return stream->capture ? capture_break(stream->capture, cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

/* Works on a dead device, too: what was made is given back. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	CALL("cudaStreamDestroy", stream_destroy(stream));
}

static cudaError_t stream_wait(struct stream *stream)
{
	return stream->capture ? capture_break(stream->capture, cudaErrorStreamCaptureUnsupported) : item_wait(stream->tail, stream->device);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	CALL("cudaStreamSynchronize", stream_wait(stream_of(stream, "cudaStreamSynchronize")));
}

static cudaError_t stream_query(struct stream *stream)
{
	if (stream->capture)
		return capture_break(stream->capture, cudaErrorStreamCaptureUnsupported);
	items_run_some();
	cudaError_t error = device_at(stream->device)->error;
	return error ? error : stream->tail && !stream->tail->done ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
	CALL_UNSAFE("cudaStreamQuery", stream_query(stream_of(stream, "cudaStreamQuery")));
}

cudaError_t device_wait(int device)
{
	cudaError_t error = device_at(device)->error;
	for (size_t i = 0; i < queue.streams_count && !error; i++)
		if (queue.streams[i]->device == device)
			error = item_wait(queue.streams[i]->tail, device);
	return error;
}

cudaError_t cudaDeviceSynchronize(void)
{
	CALL_UNSAFE("cudaDeviceSynchronize", device_wait(sim_device()));
}

void streams_leaks(void)
{
	size_t pending = 0;
	for (size_t i = 0; i < queue.streams_count; i++)
		pending += queue.streams[i]->tail && !queue.streams[i]->tail->done;
	if (!pending)
		return;
	fflush(NULL);
	fprintf(stderr, "simulated GPU: work on %zu streams was never waited for\n", pending);
	_exit(97);
}

static enum sim_progress host_run(void *context)
{
	struct host_function { cudaHostFn_t function; void *data; } *call = context;
	memory_close();
	call->function(call->data);
	memory_open();
	return SIM_DONE;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data)
{
	static const struct sim_work work = {.name = "cudaLaunchHostFunc", .run = host_run};
	struct { cudaHostFn_t function; void *data; } call = {function, data};
	CALL("cudaLaunchHostFunc", stream_push(stream_of(stream, "cudaLaunchHostFunc"), &work, &call, sizeof call));
}

/* --- events ----------------------------------------------------------------------------------------------------------------------- */

static struct event *event_of(cudaEvent_t handle, const char *call)
{
	object_check(handle, OBJECT_EVENT, call);
	return (struct event *)handle;
}

static cudaError_t event_create(cudaEvent_t *handle, unsigned flags)
{
	if (flags & ~(unsigned)(cudaEventBlockingSync | cudaEventDisableTiming))
		return cudaErrorInvalidValue;
	struct event *event = object_make(OBJECT_EVENT, sizeof *event);
	event->device = sim_device();
	event->flags = flags;
	*handle = (cudaEvent_t)event;
	return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
	CALL("cudaEventCreate", event_create(event, 0));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
	CALL("cudaEventCreateWithFlags", event_create(event, flags));
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	CALL("cudaEventDestroy", (object_destroy(event, OBJECT_EVENT, "cudaEventDestroy"), cudaSuccess));
}

static cudaError_t event_record(struct event *event, struct stream *stream)
{
	if (event->device != stream->device)
		return cudaErrorInvalidResourceHandle;
	if (stream->capture)
		return capture_event_record(event, stream);
	cudaError_t error = stream_push(stream, &work_empty, NULL, 0);
	if (error)
		return error;
	item_drop(event->item);
	event->item = stream->tail;
	item_hold(event->item);
	event->recorded = true;
	event->capture_id = 0;
	return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	CALL("cudaEventRecord", event_record(event_of(event, "cudaEventRecord"), stream_of(stream, "cudaEventRecord")));
}

static cudaError_t event_wait(struct stream *stream, struct event *event)
{
	if (stream->capture || event->capture_id)
		return capture_event_wait(stream, event);
	if (!event->item)
		return cudaSuccess;
	if (stream->is_legacy && capture_forbids_legacy(stream->device))
		return cudaErrorStreamCaptureImplicit;
	struct item *item = item_new(stream, &work_empty, NULL, 0);
	item_after(item, event->item);
	stream_push_item(stream, item);
	return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
	CALL("cudaStreamWaitEvent", flags ? cudaErrorInvalidValue : event_wait(stream_of(stream, "cudaStreamWaitEvent"), event_of(event, "cudaStreamWaitEvent")));
}

static cudaError_t event_query(struct event *event)
{
	if (event->capture_id)
		return cudaErrorCapturedEvent;
	items_run_some();
	cudaError_t error = device_at(event->device)->error;
	return error ? error : event->item && !event->item->done ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
	CALL_UNSAFE("cudaEventQuery", event_query(event_of(event, "cudaEventQuery")));
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle)
{
	struct event *event = event_of(handle, "cudaEventSynchronize");
	CALL_UNSAFE("cudaEventSynchronize", event->capture_id ? cudaErrorCapturedEvent : item_wait(event->item, event->device));
}

static cudaError_t event_elapsed(float *ms, const struct event *start, const struct event *end)
{
	if ((start->flags | end->flags) & cudaEventDisableTiming || !start->recorded || !end->recorded)
		return cudaErrorInvalidResourceHandle;
	if (!start->item->done || !end->item->done)
		return cudaErrorNotReady;
	*ms = (float)((double)(end->item->when.tv_sec - start->item->when.tv_sec) * 1e3
		+ (double)(end->item->when.tv_nsec - start->item->when.tv_nsec) / 1e6);
	return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
	CALL("cudaEventElapsedTime", event_elapsed(ms, event_of(start, "cudaEventElapsedTime"), event_of(end, "cudaEventElapsedTime")));
}
