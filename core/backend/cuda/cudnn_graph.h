/* cudnn_graph.h: a graph (graph.h) in cuDNN's words.
 *
 * cuDNN takes a graph as a set of descriptors, each made, given attributes and finalized. */
#pragma once

#include "core/backend/cuda/graph.h"
#include "core/base/status.h"

#include <cudnn.h>

/* One descriptor. */
enum status descriptor_make(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor);
enum status descriptor_set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t count,
	const void *values);
enum status descriptor_finish(cudnnBackendDescriptor_t descriptor);
void descriptor_free(cudnnBackendDescriptor_t descriptor); /* accepts NULL */

/* All descriptors of one graph: tensors, operations and what these need, the graph of operations itself. */
enum { CUDNN_GRAPH_DESCRIPTORS_MAX = GRAPH_TENSORS_MAX + 2 * GRAPH_OPERATIONS_MAX + 1 };
struct cudnn_graph {
	cudnnBackendDescriptor_t made[CUDNN_GRAPH_DESCRIPTORS_MAX], operations;
	int made_count;
};

/* handle: NULL when the device is not here. ST_DEVICE with cuDNN's words when it does not accept the graph: nothing is then left to free. */
enum status cudnn_graph_make(const struct graph *graph, cudnnHandle_t handle, struct cudnn_graph *made);
void cudnn_graph_free(struct cudnn_graph *made);

/* Unique id of a graph's tensor. */
static inline int64_t tensor_uid(int tensor)
{
	return tensor + 1;
}
