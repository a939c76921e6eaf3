/* unit_graphs.h: what one unit of the network asks of cuDNN: its graphs, made from the network table.
 *
 * In memory: activations (n, H, W, C), filters (K, R', S', C) of live taps alone (R' = r1 − r0, S' = s1 − s0), C as channels_padded says. */
#pragma once

#include "core/backend/cuda/graph.h"
#include "core/model/resnet.h"

/* Taps r0 ≤ r < r1, s0 ≤ s < s1: the smallest rectangle with all taps that meet a pixel. The rest of a kernel sees padding only and is left out:
 * the convolution is exactly the same without it, and the gradient of what is left out is zero. */
struct live {
	int r0, r1, s0, s1;
};
struct live unit_live(const struct unit *unit);

/* Channels of an activation in memory: the image's 3 become 8 (16-bit) or 4 (fp32), so that a pixel fills whole vectors; others are as they are. */
int channels_padded(int C, enum element element);

/* The convolution as the device is asked for it: live taps only, paddings to match. Where they cover the whole input and give one pixel, it is a
 * matrix product over all of it: 1×1 taps on C·H·W channels, which are the same bytes in memory. */
struct convolution {
	int C, H, W, K, P, Q, R, S, stride;
	int pad_top, pad_left, pad_bottom, pad_right;
};
void unit_convolution(const struct unit *unit, enum element element, struct convolution *convolution);

/* One graph each. z: what the convolution gives and batch norm takes. */
enum unit_work {
	UNIT_FORWARD,                /* z = conv(x, w) */
	UNIT_INPUT_GRADIENT,         /* dx, of dz and w */
	UNIT_WEIGHT_GRADIENT,        /* dw in fp32, of x and dz */
	UNIT_WEIGHT_GRADIENT_NARROW, /* dw as the activations are stored: half precision on a V100 has no engine for the other */
	UNIT_WORKS,
};

/* Whether the two units' graphs are the same, so that one plan does for both. */
bool units_alike(const struct unit *a, const struct unit *b);

/* Which of the two weight gradients a GPU of that compute capability × 10 has engines for. */
enum unit_work unit_weight_gradient(enum element element, int capability);

/* The graph for n ≥ 1 images. */
void unit_graph(struct graph *graph, enum unit_work work, const struct unit *unit, int n, enum element element);

/* Everything that a unit's graphs read and write; a graph looks only at its own. Device memory, aligned to 16 bytes. */
struct unit_memory {
	const void *x, *w;
	void *z, *dz, *dx, *dw; /* dw: as the work says */
};

/* pointers[tensor of the graph] for plan_run. */
void unit_graph_bind(enum unit_work work, enum element element, const struct unit_memory *memory, void *pointers[GRAPH_TENSORS_MAX]);
