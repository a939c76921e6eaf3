/* sim.h: what the simulated libraries share. libcudart.so.13 exports it; the simulated cuDNN and NCCL, and tests, use it.
 *
 * A piece of work is an item: a function and a copy of its context. An item is enqueued on a stream and runs when somebody waits for it, in a
 * random order that streams and events allow. While an item runs, device memory can be touched like host memory; at any other time a touch
 * ends the program with a message. Items run one at a time, on whichever thread waits; they must call no CUDA function. */
#pragma once

#include "core/backend/cuda/kernels_host.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* SIM_WAIT: cannot finish yet (a peer's values are missing): others go on, and run is called again with the same context. */
enum sim_progress { SIM_DONE, SIM_WAIT };

/* What kind of work: for static tables. */
struct sim_work {
	const char *name; /* for messages and for SIM_FAIL */
	enum sim_progress (*run)(void *context);
	/* A copy of the context was made, or goes away (run or not): a graph's, or one that waits to run. Both may be NULL. */
	void (*retain)(void *context, bool in_graph);
	void (*release)(void *context, bool in_graph);
};

/* Enqueues work on the stream, or records it when the stream is being captured; each replay gets a fresh copy of the context.
 * Returns what a kernel launch there would (invalid stream: abort with a message). */
cudaError_t sim_stream_push_work(cudaStream_t stream, const struct sim_work *work, const void *context, size_t context_bytes);
/* The short form, for contexts that own nothing. */
cudaError_t sim_stream_push(cudaStream_t stream, enum sim_progress (*run)(void *context), const void *context, size_t context_bytes);

struct sim_device_info {
	char name[64];
	int sm; /* 80: compute capability 8.0 */
	int multiprocessors;
	size_t memory_bytes;
};

/* The calling thread's current device, and what it is. */
int sim_device(void);
void sim_device_info(struct sim_device_info *info);
/* Why that device is dead; cudaSuccess: it is not. */
cudaError_t sim_device_error(int device);

/* Aborts, naming `what`, unless [pointer, pointer + bytes) lies inside one live allocation of the current device. 0 bytes: nothing is checked. */
void sim_pointer_check(const void *pointer, size_t bytes, const char *what);

/* Ends the program with a sentence on stderr that names the seed. */
_Noreturn void sim_abort(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Which capture the stream is part of; 0: none. */
cudaError_t sim_capture_id(cudaStream_t stream, unsigned long long *id);

/* Uniform 64 random bits from SIM_SEED. */
uint64_t sim_random(void);

/* Is the k-th (from 1) occurrence of this name marked for failure in the environment variable? Each call with a name counts as one. The
 * variable holds rules "NAME:K" or "NAME:K@DEVICE", comma-separated. */
bool sim_fault(const char *variable, const char *name);

/* Runs a few items, or none: time goes by. */
void sim_tick(void);

/* Adds kernels that cudaLibraryGetKernel finds; the table ends with a NULL name and must stay. Those of the program's own are there already. */
void sim_kernels_add(const struct host_kernel *kernels);
