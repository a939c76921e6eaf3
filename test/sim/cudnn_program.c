/* cudnn_program.c: from descriptors to a program.
 *
 * A tensor, a convolution and an operation are checked when they are finalised: shapes that fit each other, operands that the mode has. An
 * operation graph becomes struct program: operations in an order that can run, tensors known by number. */
#include "test/sim/cudnn_sim.h"

#include <string.h>

size_t tensor_bytes(const struct program_tensor *tensor)
{
	size_t count = (size_t)tensor_elements(tensor);
	switch (tensor->type) {
	case CUDNN_DATA_HALF: case CUDNN_DATA_BFLOAT16: return 2 * count;
	default: return 4 * count;
	}
}

cudnnStatus_t tensor_check(const struct body *tensor)
{
	const struct value *dims = body_value(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS), *strides = body_value(tensor, CUDNN_ATTR_TENSOR_STRIDES);
	long long uid = body_integer(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
	if (dims->count != strides->count)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld: %lld dimensions, %lld strides", uid, (long long)dims->count, (long long)strides->count);
	if (dims->count != 4)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "tensor %lld: %lld dimensions; only 4 are played", uid, (long long)dims->count);
	for (int i = 0; i < 4; i++)
		if (((int64_t *)dims->data)[i] < 1 || ((int64_t *)strides->data)[i] < 1)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld: dimension %d is %lld with stride %lld; both must be positive", uid, i,
				(long long)((int64_t *)dims->data)[i], (long long)((int64_t *)strides->data)[i]);
	int64_t type = body_integer(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, -1), alignment = body_integer(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 0);
	if (type != CUDNN_DATA_FLOAT && type != CUDNN_DATA_HALF && type != CUDNN_DATA_BFLOAT16)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "tensor %lld: data type %lld is not played", uid, (long long)type);
	int64_t bytes = type == CUDNN_DATA_FLOAT ? 4 : 2;
	if (alignment < 1 || alignment % bytes != 0)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld: alignment %lld is no multiple of its element", uid, (long long)alignment);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t convolution_check(const struct body *convolution)
{
	static const cudnnBackendAttributeName_t pairs[] = {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES,
		CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS};
	static const int64_t least[] = {1, 1, 0, 0};
	if (body_integer(convolution, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 0) != 2)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "convolution: only 2 spatial dimensions are played");
	for (int i = 0; i < 4; i++) {
		const struct value *value = body_value(convolution, pairs[i]);
		if (value->count != 2)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "convolution: attribute %d has %lld elements, expected 2", pairs[i], (long long)value->count);
		for (int side = 0; side < 2; side++)
			if (((int64_t *)value->data)[side] < least[i] || ((int64_t *)value->data)[side] > 64)
				return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "convolution: attribute %d is %lld", pairs[i], (long long)((int64_t *)value->data)[side]);
	}
	const int64_t *dilations = body_value(convolution, CUDNN_ATTR_CONVOLUTION_DILATIONS)->data;
	if (dilations[0] != 1 || dilations[1] != 1)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "convolution: dilations are not played");
	if (body_integer(convolution, CUDNN_ATTR_CONVOLUTION_CONV_MODE, -1) != CUDNN_CROSS_CORRELATION)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "convolution: only cross-correlation is played");
	return CUDNN_STATUS_SUCCESS;
}

/* --- one operation ----------------------------------------------------------------------------------------------------- */

static const int64_t *dims_of(const struct body *operation, cudnnBackendAttributeName_t name)
{
	return body_value(body_of(operation, name), CUDNN_ATTR_TENSOR_DIMENSIONS)->data;
}

struct convolution_names { cudnnBackendAttributeName_t x, w, y, descriptor, alpha, beta; };

static struct convolution_names convolution_names(cudnnBackendDescriptorType_t type)
{
	if (type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
		return (struct convolution_names){CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
			CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
			CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
	if (type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)
		return (struct convolution_names){CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
			CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
			CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
	return (struct convolution_names){CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
		CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
		CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
}

static float factor_of(const struct body *operation, cudnnBackendAttributeName_t name, float otherwise)
{
	const struct value *value = body_value(operation, name);
	return value == NULL ? otherwise : *(float *)value->data;
}

static cudnnStatus_t check_convolution(const struct body *operation)
{
	struct convolution_names names = convolution_names(operation->type);
	const int64_t *x = dims_of(operation, names.x), *w = dims_of(operation, names.w), *y = dims_of(operation, names.y);
	const struct body *descriptor = body_of(operation, names.descriptor);
	const int64_t *stride = body_value(descriptor, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES)->data;
	const int64_t *pre = body_value(descriptor, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS)->data;
	const int64_t *post = body_value(descriptor, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS)->data;
	if (x[0] != y[0] || x[1] != w[1] || w[0] != y[1])
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "%s: x (%lld, %lld, …), w (%lld, %lld, …), y (%lld, %lld, …) do not fit", descriptor_name(operation->type),
			(long long)x[0], (long long)x[1], (long long)w[0], (long long)w[1], (long long)y[0], (long long)y[1]);
	for (int side = 0; side < 2; side++) {
		int64_t room = x[2 + side] + pre[side] + post[side] - w[2 + side];
		if (room < 0 || room / stride[side] + 1 != y[2 + side])
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "%s: side %d of y is %lld; x %lld, w %lld, padding %lld and %lld, stride %lld make another",
				descriptor_name(operation->type), side, (long long)y[2 + side], (long long)x[2 + side], (long long)w[2 + side],
				(long long)pre[side], (long long)post[side], (long long)stride[side]);
	}
	if (factor_of(operation, names.alpha, 1) != 1 || factor_of(operation, names.beta, 0) != 0)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "%s: only alpha 1 and beta 0 are played", descriptor_name(operation->type));
	return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_identity(const struct body *operation)
{
	int64_t mode = body_integer(body_of(operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR), CUDNN_ATTR_POINTWISE_MODE, -1);
	if (mode != CUDNN_POINTWISE_IDENTITY)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "pointwise: mode %lld is not played", (long long)mode);
	if (factor_of(operation, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, 1) != 1 || factor_of(operation, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1) != 1)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "pointwise: only factors of 1 are played");
	const int64_t *x = dims_of(operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC), *y = dims_of(operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
	for (int i = 0; i < 4; i++)
		if (x[i] != y[i])
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "pointwise: dimension %d: %lld does not make %lld", i, (long long)x[i], (long long)y[i]);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t operation_check(const struct body *operation)
{
	return operation->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR ? check_identity(operation) : check_convolution(operation);
}

/* --- the graph --------------------------------------------------------------------------------------------------------- */

static struct program_tensor tensor_of(const struct body *body)
{
	struct program_tensor tensor;
	memset(&tensor, 0, sizeof tensor); /* padding too: equal tensors are equal bytes */
	tensor.uid = body_integer(body, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
	memcpy(tensor.dims, body_value(body, CUDNN_ATTR_TENSOR_DIMENSIONS)->data, sizeof tensor.dims);
	memcpy(tensor.strides, body_value(body, CUDNN_ATTR_TENSOR_STRIDES)->data, sizeof tensor.strides);
	tensor.alignment = body_integer(body, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 0);
	tensor.type = (int32_t)body_integer(body, CUDNN_ATTR_TENSOR_DATA_TYPE, 0);
	tensor.is_virtual = body_flag(body, CUDNN_ATTR_TENSOR_IS_VIRTUAL);
	tensor.producer = -1;
	return tensor;
}

static cudnnStatus_t tensor_add(struct program *program, const struct body *body, int32_t *number)
{
	struct program_tensor tensor = tensor_of(body);
	for (int i = 0; i < program->tensors_count; i++) {
		struct program_tensor *other = &program->tensors[i];
		if (other->uid != tensor.uid)
			continue;
		tensor.producer = other->producer;
		if (memcmp(other, &tensor, sizeof tensor) != 0)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "operation graph: two different tensors have the unique id %lld", (long long)tensor.uid);
		*number = i;
		return CUDNN_STATUS_SUCCESS;
	}
	if (program->tensors_count == PROGRAM_TENSORS_MAX)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "operation graph: more than %d tensors", PROGRAM_TENSORS_MAX);
	*number = program->tensors_count++;
	program->tensors[*number] = tensor;
	return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t operation_make(struct program *program, const struct body *body, struct program_operation *operation)
{
	memset(operation, 0, sizeof *operation);
	operation->kind = (int32_t)body->type;
	for (int i = 0; i < OPERANDS_MAX; i++)
		operation->operands[i] = -1;
	for (const struct attribute_rule *rule = attribute_next(body->type, NULL); rule != NULL; rule = attribute_next(body->type, rule))
		if (rule->operand >= 0 && body_value(body, rule->name) != NULL)
			CUDNN_TRY(tensor_add(program, body_of(body, rule->name), &operation->operands[rule->operand]));
	operation->compute = CUDNN_DATA_FLOAT;
	if (body->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR) {
		const struct body *descriptor = body_of(body, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
		operation->compute = (int32_t)body_integer(descriptor, CUDNN_ATTR_POINTWISE_MATH_PREC, 0);
	} else {
		const struct body *descriptor = body_of(body, convolution_names(body->type).descriptor);
		operation->compute = (int32_t)body_integer(descriptor, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, 0);
		for (int side = 0; side < 2; side++) {
			operation->stride[side] = (int32_t)((int64_t *)body_value(descriptor, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES)->data)[side];
			operation->pre[side] = (int32_t)((int64_t *)body_value(descriptor, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS)->data)[side];
			operation->post[side] = (int32_t)((int64_t *)body_value(descriptor, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS)->data)[side];
		}
	}
	return CUDNN_STATUS_SUCCESS;
}

/* Whether everything that it reads is there, when `placed` operations come first. */
static bool operation_ready(const struct program *program, const struct program_operation *operation, const bool *placed)
{
	for (int i = 0; i < OPERAND_OUT; i++) {
		int32_t tensor = operation->operands[i];
		if (tensor >= 0 && program->tensors[tensor].producer >= 0 && !placed[program->tensors[tensor].producer])
			return false;
	}
	return true;
}

/* Operations may be given in any order. */
static cudnnStatus_t operations_sort(struct program *program)
{
	struct program_operation sorted[PROGRAM_OPERATIONS_MAX];
	bool placed[PROGRAM_OPERATIONS_MAX] = {false};
	int count = 0;
	while (count < program->operations_count) {
		int next = 0;
		while (next < program->operations_count && (placed[next] || !operation_ready(program, &program->operations[next], placed)))
			next++;
		if (next == program->operations_count)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "operation graph: operations wait for each other in a circle");
		placed[next] = true;
		sorted[count++] = program->operations[next];
	}
	memcpy(program->operations, sorted, sizeof *sorted * (size_t)count);
	for (int i = 0; i < count; i++)
		for (int k = OPERAND_OUT; k < OPERANDS_MAX; k++)
			if (sorted[i].operands[k] >= 0)
				program->tensors[sorted[i].operands[k]].producer = (int16_t)i;
	return CUDNN_STATUS_SUCCESS;
}

static bool tensor_is_read(const struct program *program, int tensor)
{
	for (int i = 0; i < program->operations_count; i++)
		for (int k = 0; k < OPERAND_OUT; k++)
			if (program->operations[i].operands[k] == tensor)
				return true;
	return false;
}

cudnnStatus_t program_make(const struct body *graph, struct program *program)
{
	memset(program, 0, sizeof *program);
	const struct value *operations = body_value(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
	program->operations_count = (int32_t)operations->count;
	for (int i = 0; i < program->operations_count; i++)
		CUDNN_TRY(operation_make(program, ((struct body **)operations->data)[i], &program->operations[i]));
	for (int i = 0; i < program->operations_count; i++)
		for (int k = OPERAND_OUT; k < OPERANDS_MAX; k++) {
			int32_t number = program->operations[i].operands[k];
			if (number < 0)
				continue;
			struct program_tensor *tensor = &program->tensors[number];
			if (tensor->producer >= 0)
				return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "operation graph: tensor %lld is written twice", (long long)tensor->uid);
			tensor->producer = (int16_t)i;
		}
	for (int i = 0; i < program->tensors_count; i++) {
		const struct program_tensor *tensor = &program->tensors[i];
		if (tensor->is_virtual && (tensor->producer < 0 || !tensor_is_read(program, i)))
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "operation graph: nobody %s the virtual tensor %lld", tensor->producer < 0 ? "writes" : "reads",
				(long long)tensor->uid);
	}
	return operations_sort(program);
}
