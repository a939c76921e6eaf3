/* plan_time.h: how long plans take on the device that is here. */
#pragma once

#include "core/backend/cuda/plan.h"

/* Runs each plan of one graph a few times, on memory allocated for it: microseconds[i] of its fastest run, INFINITY for one that does not run.
 * Waits for the stream. ST_MEMORY when the graph's tensors do not fit beside what is there; ST_DEVICE. */
enum status plans_time(const struct graph *graph, struct plan *const plans[], int count, cudaStream_t stream, double microseconds[]);
