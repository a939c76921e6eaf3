/* communicator.h: sums over all ranks on their devices, by NCCL.
 *
 * Collective: every rank makes the same calls with the same counts in the same order. Calls enqueue on the stream given and may be captured in a
 * CUDA graph after one sum has run outside of one. A thread of its own watches: a broken connection (NCCL's asynchronous error), an abort of the training
 * (reduction->check) or a step that makes no progress within the reduction's timeout ends all waiting: NCCL's communicator is aborted, what is
 * enqueued ends with garbage, and every call from then on gives ST_DEVICE with the sentence of the cause. Time in which the whole process
 * stood still (Ctrl-Z) does not count. */
#pragma once

#include "core/backend/backend.h"
#include "core/backend/cuda/graph.h"

#include <cuda_runtime_api.h>

struct communicator;

/* On the current device. The id travels through reduction->broadcast. ST_DEVICE with NCCL's own words or after the timeout, ST_STOPPED. */
enum status communicator_open(const struct reduction *reduction, struct communicator **communicator);
/* Destroy graphs that captured sums before. Accepts NULL. */
void communicator_close(struct communicator *communicator);

/* values, in place, on device memory; FP32, FP64, FP16 or BF16. */
enum status communicator_sum(struct communicator *communicator, void *values, size_t count, enum element element, cudaStream_t stream);

/* Waits until all that is enqueued on the stream has run, or the communicator has failed. The one way to wait for work with sums in it. */
enum status communicator_wait(struct communicator *communicator, cudaStream_t stream);

/* NCCL_* variables that this process lacks and that the machine asks for (network interface, fabric); before communicator_open. Those that the
 * user has set stay as they are. See sagemaker-contract §1.6 for which. */
void communicator_environment(const char *interface_name);
