/* cudnn_graph.c: see cudnn_graph.h. */
#include "core/backend/cuda/cudnn_graph.h"

#include "core/backend/cuda/check.h"

enum { ALIGNMENT_BYTES = 16 };

/* --- one descriptor ---------------------------------------------------------------------------------------------------- */

enum status descriptor_make(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor)
{
	return CUDNN(cudnnBackendCreateDescriptor(type, descriptor));
}

enum status descriptor_set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, int64_t count,
	const void *values)
{
	enum status status = CUDNN(cudnnBackendSetAttribute(descriptor, attribute, type, count, values));
	return status == ST_OK ? ST_OK : status_prefix(status, "attribute %d", (int)attribute);
}

enum status descriptor_finish(cudnnBackendDescriptor_t descriptor)
{
	return CUDNN(cudnnBackendFinalize(descriptor));
}

void descriptor_free(cudnnBackendDescriptor_t descriptor)
{
	if (descriptor != NULL)
		cudnnBackendDestroyDescriptor(descriptor);
}

static enum status set_numbers(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute, int64_t count, const int64_t *values)
{
	return descriptor_set(descriptor, attribute, CUDNN_TYPE_INT64, count, values);
}

static enum status set_true(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute)
{
	const bool yes = true;
	return descriptor_set(descriptor, attribute, CUDNN_TYPE_BOOLEAN, 1, &yes);
}

static enum status set_float(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute, float value)
{
	return descriptor_set(descriptor, attribute, CUDNN_TYPE_FLOAT, 1, &value);
}

static enum status set_data_type(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute, cudnnDataType_t type)
{
	return descriptor_set(descriptor, attribute, CUDNN_TYPE_DATA_TYPE, 1, &type);
}

static enum status set_descriptor(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute, cudnnBackendDescriptor_t value)
{
	return descriptor_set(descriptor, attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

/* A new descriptor that `graph` owns. */
static enum status own(struct cudnn_graph *graph, cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *descriptor)
{
	MUST(graph->made_count < CUDNN_GRAPH_DESCRIPTORS_MAX);
	TRY(descriptor_make(type, descriptor));
	graph->made[graph->made_count++] = *descriptor;
	return ST_OK;
}

/* --- tensors ----------------------------------------------------------------------------------------------------------- */

static cudnnDataType_t data_type(enum element element)
{
	static const cudnnDataType_t types[] = {
		[ELEMENT_FP32] = CUDNN_DATA_FLOAT,
		[ELEMENT_FP16] = CUDNN_DATA_HALF,
		[ELEMENT_BF16] = CUDNN_DATA_BFLOAT16,
		[ELEMENT_FP64] = CUDNN_DATA_DOUBLE,
	};
	return types[element];
}

static enum status tensor_make(struct cudnn_graph *graph, const struct graph_tensor *tensor, int number)
{
	const int64_t C = tensor->dims[1], H = tensor->dims[2], W = tensor->dims[3];
	const int64_t strides[4] = {H * W * C, 1, W * C, C};
	const int64_t uid = tensor_uid(number), alignment_bytes = ALIGNMENT_BYTES;
	cudnnBackendDescriptor_t d;
	TRY(own(graph, CUDNN_BACKEND_TENSOR_DESCRIPTOR, &d));
	TRY(set_data_type(d, CUDNN_ATTR_TENSOR_DATA_TYPE, data_type(tensor->element)));
	TRY(set_numbers(d, CUDNN_ATTR_TENSOR_DIMENSIONS, 4, tensor->dims));
	TRY(set_numbers(d, CUDNN_ATTR_TENSOR_STRIDES, 4, strides));
	TRY(set_numbers(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &uid));
	TRY(set_numbers(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1, &alignment_bytes));
	if (tensor->is_virtual)
		TRY(set_true(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL));
	return descriptor_finish(d);
}

/* --- operations -------------------------------------------------------------------------------------------------------- */

/* What cuDNN calls an operation and its operands. */
static const struct words {
	cudnnBackendDescriptorType_t type;
	int in_count;
	cudnnBackendAttributeName_t in[2], out;
	cudnnBackendAttributeName_t convolution, alpha, beta; /* of convolutions: y = alpha·conv + beta·y */
} words[] = {
	[GRAPH_CONVOLUTION] = {
		CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, 2,
		{CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W}, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
		.convolution = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
		.alpha = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, .beta = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
	[GRAPH_CONVOLUTION_DX] = {
		CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, 2,
		{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W}, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
		.convolution = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
		.alpha = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, .beta = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
	[GRAPH_CONVOLUTION_DW] = {
		CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, 2,
		{CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY}, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
		.convolution = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
		.alpha = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, .beta = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
	[GRAPH_IDENTITY] = {
		.type = CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, .in_count = 1, .in = {CUDNN_ATTR_OPERATION_POINTWISE_XDESC},
		.out = CUDNN_ATTR_OPERATION_POINTWISE_YDESC},
};

/* Convolutions: alpha 1, beta 0; sums in fp32. */
static enum status convolution_describe(struct cudnn_graph *graph, const struct graph_operation *operation, cudnnBackendDescriptor_t d)
{
	const struct words *word = &words[operation->kind];
	const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
	const int64_t spatial = 2, dilations[2] = {1, 1}, strides[2] = {operation->stride, operation->stride};
	const int64_t before[2] = {operation->pad_top, operation->pad_left}, behind[2] = {operation->pad_bottom, operation->pad_right};
	cudnnBackendDescriptor_t c;
	TRY(own(graph, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, &c));
	TRY(set_data_type(c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT));
	TRY(descriptor_set(c, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode));
	TRY(set_numbers(c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 1, &spatial));
	TRY(set_numbers(c, CUDNN_ATTR_CONVOLUTION_DILATIONS, 2, dilations));
	TRY(set_numbers(c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 2, strides));
	TRY(set_numbers(c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 2, before));
	TRY(set_numbers(c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 2, behind));
	TRY(descriptor_finish(c));
	TRY(set_descriptor(d, word->convolution, c));
	TRY(set_float(d, word->alpha, 1));
	return set_float(d, word->beta, 0);
}

static enum status identity_describe(struct cudnn_graph *graph, cudnnBackendDescriptor_t d)
{
	const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_IDENTITY;
	cudnnBackendDescriptor_t p;
	TRY(own(graph, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &p));
	TRY(descriptor_set(p, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode));
	TRY(set_data_type(p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT));
	TRY(descriptor_finish(p));
	return set_descriptor(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, p);
}

/* The first made of a graph's descriptors are its tensors, in their order. */
static enum status operation_make(struct cudnn_graph *graph, const struct graph_operation *operation, cudnnBackendDescriptor_t *made)
{
	const struct words *word = &words[operation->kind];
	cudnnBackendDescriptor_t d;
	TRY(own(graph, word->type, &d));
	TRY(operation->kind == GRAPH_IDENTITY ? identity_describe(graph, d) : convolution_describe(graph, operation, d));
	for (int i = 0; i < word->in_count; i++)
		TRY(set_descriptor(d, word->in[i], graph->made[operation->in[i]]));
	TRY(set_descriptor(d, word->out, graph->made[operation->out]));
	TRY(descriptor_finish(d));
	*made = d;
	return ST_OK;
}

/* --- the graph --------------------------------------------------------------------------------------------------------- */

static enum status graph_make(const struct graph *graph, cudnnHandle_t handle, struct cudnn_graph *made)
{
	cudnnBackendDescriptor_t operations[GRAPH_OPERATIONS_MAX];
	for (int i = 0; i < graph->tensors_count; i++)
		TRY(tensor_make(made, &graph->tensors[i], i));
	for (int i = 0; i < graph->operations_count; i++)
		TRY(operation_make(made, &graph->operations[i], &operations[i]));
	TRY(own(made, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &made->operations));
	if (handle != NULL)
		TRY(descriptor_set(made->operations, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle));
	TRY(descriptor_set(made->operations, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, graph->operations_count, operations));
	return descriptor_finish(made->operations);
}

enum status cudnn_graph_make(const struct graph *graph, cudnnHandle_t handle, struct cudnn_graph *made)
{
	made->made_count = 0;
	enum status status = graph_make(graph, handle, made);
	if (status == ST_OK)
		return ST_OK;
	cudnn_graph_free(made);
	return status_prefix(status, "%s", graph->name);
}

void cudnn_graph_free(struct cudnn_graph *made)
{
	while (made->made_count > 0)
		descriptor_free(made->made[--made->made_count]);
}
