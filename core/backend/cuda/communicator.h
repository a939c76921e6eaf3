/* communicator.h: sums over all ranks on their devices, by NCCL.
 *
 * Collective: every rank makes the same calls with the same counts in the same order. Calls enqueue on the stream given and may be captured in a
 * CUDA graph after one sum has run outside of one (in cudaStreamCaptureModeThreadLocal: the watch asks for events meanwhile).
 *
 * A thread of its own watches: a broken connection (NCCL's asynchronous error), an abort of the training (reduction->check) or a step that makes no
 * progress within the reduction's timeout ends all waiting: NCCL's communicator is aborted, what is enqueued ends with garbage, and every call from
 * then on gives ST_DEVICE with the sentence of the cause. Time in which the whole process stood still (Ctrl-Z) does not count. */
#pragma once

#include "core/backend/backend.h"
#include "core/backend/cuda/graph.h"

#include <cuda_runtime_api.h>

struct communicator;

/* On the current device. Sets NCCL's environment first (nccl_environment.h); the id travels through reduction->broadcast; all ranks then
 * sum known numbers. ST_DEVICE with NCCL's own words, or after the timeout; what reduction->broadcast and check say. */
enum status communicator_open(const struct reduction *reduction, struct communicator **communicator);
/* Destroy graphs that captured sums before. Accepts NULL. */
void communicator_close(struct communicator *communicator);

/* values, in place, on device memory; FP32, FP64, FP16 or BF16. */
enum status communicator_sum(struct communicator *communicator, void *values, size_t count, enum element element, cudaStream_t stream);

/* Work with sums in it has just been enqueued on the stream: the watch for progress includes it. communicator_sum does this by itself outside of a
 * capture; after starting a recorded graph, call it. */
enum status communicator_mark(struct communicator *communicator, cudaStream_t stream);

/* Waits until all that is enqueued on the stream has run, or the communicator has failed. The one way to wait for work with sums in it. */
enum status communicator_wait(struct communicator *communicator, cudaStream_t stream);
