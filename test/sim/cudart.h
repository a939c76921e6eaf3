/* cudart.h: what the files of the simulated runtime share. cudart.c: state, devices, errors. cudart_memory.c: allocations and copies.
 * cudart_stream.c: items, streams, events, and the order things run in. cudart_graph.c: capture and replay. cudart_kernel.c: our kernels.
 *
 * One lock guards everything: call_begin takes it, call_end gives it back. A function here that does not say otherwise wants it held. */
#pragma once

#include "test/sim/sim.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { DEVICES_MAX = 16 };

/* --- calls (cudart.c) --------------------------------------------------------------------------------------------------- */

/* Takes the lock, opens the simulator the first time. An error: of a dead device, of a fork, or an injected one (SIM_FAIL). */
cudaError_t call_begin(const char *name);
/* The same for calls that CUDA forbids while a capture is going on (which then is invalid). */
cudaError_t call_begin_unsafe(const char *name);
/* Remembers the error for cudaGetLastError, gives the lock back, returns the error. */
cudaError_t call_end(cudaError_t error);
/* The body of a call is one expression of type cudaError_t. */
#define CALL(name, work) \
	cudaError_t error = call_begin(name); \
	return call_end(error == cudaSuccess ? (work) : error)
#define CALL_UNSAFE(name, work) \
	cudaError_t error = call_begin_unsafe(name); \
	return call_end(error == cudaSuccess ? (work) : error)

void lock_take(void);
void lock_give(void);
void lock_pause(void); /* gives the lock back for a moment, so that other threads get on */

/* A handle is a pointer to one of these. What is destroyed is kept, so that a late use of it is told from a good one. */
struct object {
	uint64_t magic;
	struct object *next;
	bool destroyed;
};
enum object_kind { OBJECT_STREAM, OBJECT_EVENT, OBJECT_GRAPH, OBJECT_EXEC, OBJECT_LIBRARY, OBJECT_KERNEL, OBJECT_KINDS };
/* A zeroed object of so many bytes that begins with struct object. */
void *object_make(enum object_kind kind, size_t bytes);
/* Aborts unless the handle is a live object of that kind. */
void object_check(const void *handle, enum object_kind kind, const char *call);
void object_destroy(void *handle, enum object_kind kind, const char *call);

/* Memory for the simulator's own needs; running out of it ends the program. */
void *sim_allocate(size_t count, size_t bytes);
void *sim_grow(void *array, size_t count, size_t bytes); /* one thing more, so that there are `count` */

struct device_model {
	const char *key, *name;
	int sm, multiprocessors, memory_gb;
	int clock_mhz, memory_clock_mhz, bus_bits, l2_mb, shared_optin_kb;
};
struct device {
	const struct device_model *model;
	size_t memory_bytes, used_bytes;
	cudaError_t error; /* sticky: this device is dead */
	unsigned long long items_run;
	struct stream *legacy;
};
struct device *device_current(void);
struct device *device_at(int index);
int devices_count(void);
/* From now on every call on it gives this error. */
void device_kill(struct device *device, cudaError_t error);
uint64_t random_below(uint64_t bound);
bool fault_strikes(const char *variable, const char *name); /* sim_fault, with the lock held */

/* --- memory (cudart_memory.c) --------------------------------------------------------------------------------------------- */

/* Opens device memory to the calling thread; nests. */
void memory_open(void);
void memory_close(void);
/* Aborts, naming who ran last, when something was written beside an allocation. Memory must be open. */
void memory_check(const char *last);
void memory_leaks(void);
bool memory_is_device(const void *pointer);
bool memory_is_pinned(const void *pointer);
/* The fault handler names it. */
void memory_running(const char *name);

/* --- items and streams (cudart_stream.c) ------------------------------------------------------------------------------------- */

extern _Thread_local bool item_runs; /* on this thread */

struct item {
	struct sim_work work;
	void *context;
	uint64_t number, stream_number;
	int device;
	int references;
	int waits;           /* items that must be done before this one */
	struct item **after; /* items that wait for this one; each holds a reference */
	size_t after_count;
	bool started, done, hangs;
	struct timespec when; /* done: at that time */
};

struct stream {
	struct object object;
	uint64_t number;
	int device, priority;
	unsigned flags;
	bool is_legacy;
	struct item *tail; /* the last item; NULL: none */
	struct capture *capture;
	size_t *heads; /* capturing: nodes that the next node comes after */
	size_t heads_count;
};

struct event {
	struct object object;
	int device;
	unsigned flags;
	bool recorded;
	struct item *item;
	uint64_t capture_id; /* recorded in that capture; 0: not in one */
	size_t *nodes;
	size_t nodes_count;
};

/* From a handle, with 0 as the legacy stream; aborts when it is none. */
struct stream *stream_of(cudaStream_t handle, const char *call);
/* A new item behind the stream's last one, not yet in the queue: more dependencies may be added, then it is started. Not for captures. */
struct item *item_new(struct stream *stream, const struct sim_work *work, const void *context, size_t context_bytes);
void item_after(struct item *item, struct item *before); /* before may be NULL or done */
void item_hold(struct item *item);
void item_drop(struct item *item); /* NULL: nothing */
void item_start(struct item *item);
/* The item becomes the stream's last one, and starts. */
void stream_push_item(struct stream *stream, struct item *item);
/* Enqueues, or records when the stream captures. */
cudaError_t stream_push(struct stream *stream, const struct sim_work *work, const void *context, size_t context_bytes);
/* Runs a few items, or none: time goes by. */
void items_run_some(void);
/* Runs items until this one is done (NULL: nothing), or its device is dead. Gives the lock back in between. */
cudaError_t item_wait(struct item *item, int device);
/* Everything on a device. */
cudaError_t device_wait(int device);
void streams_leaks(void);

/* --- capture (cudart_graph.c) ----------------------------------------------------------------------------------------------- */

extern const struct sim_work work_empty;

cudaError_t capture_push(struct stream *stream, const struct sim_work *work, const void *context, size_t context_bytes);
cudaError_t capture_event_record(struct event *event, struct stream *stream);
/* stream waits for an event, where one of them is part of a capture. */
cudaError_t capture_event_wait(struct stream *stream, struct event *event);
/* Invalidates. */
cudaError_t capture_break(struct capture *capture, cudaError_t error);
/* The legacy stream is used while a stream that synchronises with it is captured. */
bool capture_forbids_legacy(int device);
/* Does the calling thread's mode forbid unsafe calls now? Then the captures in question are broken. */
bool capture_forbids_unsafe(void);
