/* plan.h: from a graph to something that runs: cuDNN's execution plans.
 *
 * A planner asks cuDNN's heuristics (mode A, then fallback) for engines, drops those that do not fit (workspace over the cap; not
 * deterministic, when that is asked for; TF32 or other lesser arithmetic, when exact fp32 is asked for), times the first few once on a real
 * device, and remembers the choice on disk. Without a device it plans for one that a JSON text describes, and can only not run.
 * One thread. */
#pragma once

#include "core/backend/cuda/graph.h"
#include "core/base/status.h"

#include <cuda_runtime_api.h>

struct planner_config {
	const char *device_json;     /* cuDNN's description of a device that is not here; NULL: the current device */
	cudaStream_t stream;         /* that plans will run on; also used for timing */
	bool deterministic;          /* only engines that give the same bits each time, and the first of them: a choice by time may differ from run to run */
	bool tf32;                   /* fp32 convolutions may round their operands to TF32 */
	bool timing;                 /* the fastest of the first few; memory for their tensors must still be free. false: the first that fits */
	size_t workspace_bytes_max;  /* of one plan */
	const char *cache_directory; /* made if it is not there; NULL: nothing is kept. What is in it that does not fit is planned anew */
};

struct planner;
struct plan;

/* ST_DEVICE with cuDNN's own words; ST_MEMORY. */
enum status planner_open(const struct planner_config *config, struct planner **planner);
void planner_close(struct planner *planner); /* after its plans; accepts NULL */

/* ST_DEVICE when no engine does it: the sentence names the graph, the device, and why the last candidate failed. */
enum status plan_build(struct planner *planner, const struct graph *graph, struct plan **plan);
void plan_free(struct plan *plan); /* accepts NULL */

/* What was chosen, for reports. */
struct plan_facts {
	int64_t engine, workspace_bytes;
	bool deterministic, runtime_compiled, tensor_cores, cached; /* cached: read from disk */
	int candidates;       /* engine configurations that were offered */
	double microseconds;  /* as timed; 0: not timed */
};
void plan_facts(const struct plan *plan, struct plan_facts *facts);

/* Enqueues it on the planner's stream. pointers[i]: device memory of tensor i (unused for virtual ones). workspace: at least workspace_bytes, aligned to 256. May be captured in a CUDA graph. */
enum status plan_run(struct plan *plan, void *const pointers[], void *workspace);
