/* launches.h: everything that a training step enqueues on a GPU, in order, each with what it computes and moves.
 *
 * The list is not a second description of the step: train/step.c's own step runs on the backend's own files, over a launcher, planner, communicator and
 * runtime that only write down what they are asked for (launches.c). So it is what a GPU would be asked for, and changes with it. */
#pragma once

#include "core/backend/backend.h"
#include "core/backend/cuda/graph.h"
#include "core/backend/cuda/kernels.h"

enum launch_kind {
	LAUNCH_KERNEL, /* one of ours */
	LAUNCH_PLAN,   /* cuDNN's, of a graph */
	LAUNCH_COPY,   /* between the device's memories, from the host, or zeros */
	LAUNCH_SUM,    /* over ranks */
	LAUNCH_MARK,   /* `event` is when the stream has come here; no work */
	LAUNCH_WAIT,   /* the stream goes on at `event`; no work */
};

/* A matrix product of (rows, depth) and (depth, columns); a convolution is one, too. 0: not a product. */
struct product {
	double rows, columns, depth;
};

struct launch {
	enum launch_kind kind;
	char name[GRAPH_NAME_BYTES]; /* of the kernel; "input gradient" of a plan */
	int stream, event;
	bool recorded;        /* part of the recorded pass: started with all of it, by one call */
	enum element element; /* that its arithmetic takes */
	double flops;         /* a multiply-add is two */
	double bytes;         /* read and written, everything once; of a sum: its values */
	double blocks;        /* of a kernel's grid */
	struct product product;
	int every;            /* only every so many steps; 1 usually */
};

enum { LAUNCHES_MAX = 1024 };
struct launches {
	struct launch list[LAUNCHES_MAX];
	int count;
};

/* A job, as far as its cost depends on it. The rest is as settings' defaults have it. */
struct job {
	enum stem stem;
	int n; /* images a rank and step */
	enum precision precision;
	int world;           /* 1: alone, no sums */
	size_t bucket_bytes; /* of sums */
	bool sums_in_bf16;
};

/* A later step of that job on 32×32 images of 100 classes, when its pass has been recorded. */
enum status launches_of(const struct job *job, struct launches *launches);

/* What a kernel costs: flops, bytes, product of `launch`, from its arguments. T: activations' element; weights: live values of the network, which
 * update_live's arguments only point to. Of `gather`: a batch without mixing. */
struct kernel_sizes {
	enum element element;
	double weights;
};
#define COST_DECLARE(name, arguments) void cost_##name(const struct arguments *a, const struct kernel_sizes *sizes, struct launch *launch);
KERNELS_PLAIN(COST_DECLARE)
KERNELS_ELEMENT(COST_DECLARE)
#undef COST_DECLARE

/* The same of a graph: a tensor that is not virtual is moved once. */
void cost_graph(const struct graph *graph, struct launch *launch);
