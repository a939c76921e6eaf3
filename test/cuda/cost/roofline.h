/* roofline.h: how long a step's launches take on a GPU, on paper: a model, not a measurement.
 *
 * A launch takes as long as its arithmetic or its memory traffic, whichever is longer. The bound: at the data sheet's rates, with nothing between
 * launches. The expectation: at the shares of these rates that such work is known to reach, with whole waves of blocks, and the time from one launch to
 * the next. Sums over ranks run beside the rest, as the step's own events order them. */
#pragma once

#include "test/cuda/cost/launches.h"

struct gpu {
	const char *name;
	int multiprocessors;
	double flops[3];          /* a second, dense, by precision: see gpu_flops */
	double bytes;             /* a second, its memory */
	double flops_share[3], bytes_share; /* expected of these */
	const char *basis;        /* of the shares */
};

/* Rows of gpu.flops. */
enum { RATE_FP32, RATE_TF32, RATE_HALF };

enum gpu_name { GPU_V100, GPU_T4, GPU_A10G, GPU_L4, GPU_A100, GPU_H100, GPU_B200, GPUS };
extern const struct gpu gpus[GPUS];

/* What carries sums over ranks. */
struct link {
	const char *name;
	double bytes;   /* a second that each rank sends and receives at the same time: NCCL's bus bandwidth */
	double latency; /* of one sum, seconds */
};

enum link_name { LINK_NVLINK_V100, LINK_NVLINK_A100, LINK_PCIE, LINK_10, LINK_25, LINK_100, LINKS };
extern const struct link links[LINKS];

/* 0: the GPU cannot do that precision. */
double gpu_flops(const struct gpu *gpu, enum precision precision);

/* Seconds of one step. link: not looked at when alone. */
double step_bound(const struct launches *launches, const struct job *job, const struct gpu *gpu);
double step_expected(const struct launches *launches, const struct job *job, const struct gpu *gpu, const struct link *link);
