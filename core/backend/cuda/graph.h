/* graph.h: a small graph of tensor operations, as plain data.
 *
 * What a unit asks of the device is written once, as such a graph (unit_graphs.c makes them from the network table). cudnn_graph.c says it in
 * cuDNN's descriptors, plan.c finds an engine for it. No vendor's type is in here.
 *
 * Activations are NHWC, filters KRSC: dims below are given as (N, C, H, W) and (K, C, R, S), and strides follow from the layout. */
#pragma once

#include "core/base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one value is stored as. */
enum element { ELEMENT_FP32, ELEMENT_FP16, ELEMENT_BF16, ELEMENT_FP64 };

static inline size_t element_bytes(enum element element)
{
	return element == ELEMENT_FP64 ? 8 : element == ELEMENT_FP32 ? 4 : 2;
}

enum { GRAPH_TENSORS_MAX = 4, GRAPH_OPERATIONS_MAX = 2, GRAPH_NAME_BYTES = 96 };

/* A tensor of a graph is known by its number; its unique id for the device is that number + 1. */
struct graph_tensor {
	enum element element;
	int64_t dims[4]; /* (N, C, H, W) or (K, C, R, S) */
	bool is_virtual; /* lives between two operations only, never in memory */
};

/* Operands are numbers of tensors, in this order:
 *   CONVOLUTION       in: x, w                       out: y            y = conv(x, w)
 *   CONVOLUTION_DX    in: dy, w                      out: dx           input gradient
 *   CONVOLUTION_DW    in: x, dy                      out: dw           weight gradient
 *   IDENTITY          in: x                          out: y            stored as another element */
enum graph_operation_kind { GRAPH_CONVOLUTION, GRAPH_CONVOLUTION_DX, GRAPH_CONVOLUTION_DW, GRAPH_IDENTITY };

struct graph_operation {
	enum graph_operation_kind kind;
	int in[2], out; /* in[1] of CONVOLUTIONs only */
	int stride, pad_top, pad_left, pad_bottom, pad_right; /* of convolutions */
};

struct graph {
	char name[GRAPH_NAME_BYTES]; /* "layer1.0.conv1 forward": for people */
	struct graph_tensor tensors[GRAPH_TENSORS_MAX];
	int tensors_count;
	struct graph_operation operations[GRAPH_OPERATIONS_MAX];
	int operations_count;
};

/* Bytes of a tensor in memory. */
static inline size_t graph_tensor_bytes(const struct graph_tensor *tensor)
{
	size_t values = (size_t)(tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * tensor->dims[3]);
	return values * element_bytes(tensor->element);
}

/* Everything but its name, in words: equal texts, equal graphs. ST_MEMORY. */
enum status graph_print(const struct graph *graph, struct text *text);
