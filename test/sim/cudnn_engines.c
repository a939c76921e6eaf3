/* cudnn_engines.c: which engines play which program where.
 *
 * As cuDNN 9.19 was seen to plan for real devices:
 *   one convolution                            fp16, fp32: every device; bf16: sm_80 and later
 *   half x and dy to fp32 dw, in one operation offered, but no plan
 *   convolution, virtual fp32, pointwise…      sm_75 and later, compiled at run time; no booleans
 *   convolution + sums of y                    sm_80 and later
 *   scale, bias, ReLU + convolution + sums     sm_80 and later
 *   scale, bias, ReLU + weight gradient        sm_80 and later, fp16 only
 *   batch norm [+ add] [+ ReLU [+ mask]]       sm_80 and later; C % 8 == 0 (fp32: 4); the mask of the ReLU's output, which is in memory
 *   [dy · mask, in memory +] batch norm back   the same
 * Anything else has no engine: the heuristics answer with an empty list.
 *
 * Mode A also offers what a caller must know to pass by: an engine that is not deterministic (first, for gradients), one with a large
 * workspace, one whose plan is refused. The fallback is one plain engine. */
#include "test/sim/cudnn_sim.h"

#include <string.h>

enum engine {
	ENGINE_PLAIN = 0,   /* no tensor cores for fp32; a small workspace */
	ENGINE_TENSOR = 17, /* tensor cores: fp32 operands are rounded to TF32 */
	ENGINE_SPLIT = 20,  /* partial sums added as they come */
	ENGINE_WINOGRAD = 25,
	ENGINE_LATE = 31,   /* finds out that it cannot when the plan is made */
	ENGINE_COMPILED = 40,
	ENGINE_NORM = 50,
	ENGINE_SUMS = 55,
};

bool engine_exists(int64_t engine)
{
	static const int engines[] = {ENGINE_PLAIN, ENGINE_TENSOR, ENGINE_SPLIT, ENGINE_WINOGRAD, ENGINE_LATE, ENGINE_COMPILED, ENGINE_NORM, ENGINE_SUMS};
	for (size_t i = 0; i < sizeof engines / sizeof *engines; i++)
		if (engines[i] == engine)
			return true;
	return false;
}

/* --- what kind of program ---------------------------------------------------------------------------------------------- */

enum pattern { PATTERN_NONE, PATTERN_CONVOLUTION, PATTERN_NO_PLAN, PATTERN_FUSED, PATTERN_SUMS, PATTERN_NORM };

static bool is_convolution(const struct program_operation *operation)
{
	return operation->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR
		|| operation->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR
		|| operation->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
}

static bool is_pointwise(const struct program_operation *operation)
{
	return operation->kind == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR;
}

static const struct program_tensor *operand(const struct program *program, int operation, enum operand which)
{
	int32_t tensor = program->operations[operation].operands[which];
	return tensor < 0 ? NULL : &program->tensors[tensor];
}

/* The result of a pointwise operation, forward or backward. */
static const struct program_tensor *pointwise_result(const struct program *program, int operation)
{
	const struct program_tensor *y = operand(program, operation, OPERAND_OUT);
	return y != NULL ? y : operand(program, operation, OPERAND_SECOND);
}

static bool is_packed(const struct program_tensor *tensor)
{
	const int64_t *d = tensor->dims, *s = tensor->strides;
	const int64_t packed[4] = {d[1] * d[2] * d[3], 1, d[3] * d[1], d[1]};
	for (int i = 0; i < 4; i++)
		if (d[i] > 1 && s[i] != packed[i])
			return false;
	return true;
}

static bool is_storage(int32_t type)
{
	return type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_HALF || type == CUDNN_DATA_BFLOAT16;
}

/* Operations [first, last] are a chain of pointwise ones: each continues the virtual fp32 value of the one before, which starts with `value`. */
static bool is_epilogue(const struct program *program, int first, int last, const struct program_tensor *value)
{
	for (int i = first; i <= last; i++) {
		const struct program_operation *operation = &program->operations[i];
		if (!is_pointwise(operation) || !value->is_virtual || value->type != CUDNN_DATA_FLOAT)
			return false;
		if (operand(program, i, OPERAND_X) != value && operand(program, i, OPERAND_B) != value && operand(program, i, OPERAND_DY) != value)
			return false;
		value = pointwise_result(program, i);
	}
	return !value->is_virtual && is_storage(value->type);
}

/* Operations [0, 2]: x · scale, + bias, ReLU, all virtual; `value` is the last one's result. */
static bool is_scale_bias_relu(const struct program *program, const struct program_tensor *value)
{
	static const int32_t modes[3] = {CUDNN_POINTWISE_MUL, CUDNN_POINTWISE_ADD, CUDNN_POINTWISE_RELU_FWD};
	for (int i = 0; i < 3; i++) {
		const struct program_tensor *result = operand(program, i, OPERAND_OUT), *b = operand(program, i, OPERAND_B);
		if (!is_pointwise(&program->operations[i]) || program->operations[i].mode != modes[i] || !result->is_virtual)
			return false;
		if (b != NULL && tensor_elements(b) != result->dims[1])
			return false;
		if (i > 0 && operand(program, i, OPERAND_X) != operand(program, i - 1, OPERAND_OUT))
			return false;
	}
	return operand(program, 2, OPERAND_OUT) == value;
}

static enum pattern convolution_pattern(const struct program *program, int at, int sm)
{
	const struct program_operation *operation = &program->operations[at];
	bool is_dw = operation->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
	bool is_forward = operation->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
	const struct program_tensor *a = operand(program, at, operation->operands[OPERAND_X] >= 0 ? OPERAND_X : OPERAND_DY);
	const struct program_tensor *b = operand(program, at, is_dw ? OPERAND_DY : OPERAND_W), *result = operand(program, at, OPERAND_OUT);
	int32_t type = b->type;
	int last = program->operations_count - 1;
	if (operation->compute != CUDNN_DATA_FLOAT || !is_storage(type) || !is_storage(result->type) || b->is_virtual || (type == CUDNN_DATA_BFLOAT16 && sm < 80))
		return PATTERN_NONE;
	if (at == 3) {
		if (sm < 80 || !is_scale_bias_relu(program, a))
			return PATTERN_NONE;
		if (is_dw)
			return last == 3 && type == CUDNN_DATA_HALF && result->type == type ? PATTERN_FUSED : PATTERN_NONE;
	} else if (at != 0 || a->type != type || a->is_virtual) {
		return PATTERN_NONE;
	}
	if (last > at && program->operations[last].kind == CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR)
		return is_forward && last == at + 1 && operand(program, last, OPERAND_X) == result && !result->is_virtual && result->type == type && sm >= 80
			? PATTERN_SUMS : PATTERN_NONE;
	if (at != 0)
		return PATTERN_NONE;
	if (last == 0 && !result->is_virtual)
		return result->type == type ? PATTERN_CONVOLUTION : is_forward ? (sm >= 75 ? PATTERN_FUSED : PATTERN_NONE) : PATTERN_NO_PLAN;
	return sm >= 75 && is_epilogue(program, 1, last, result) ? PATTERN_FUSED : PATTERN_NONE;
}

static bool channels_fit_norm(const struct program_tensor *x)
{
	return x->dims[1] % (x->type == CUDNN_DATA_FLOAT ? 4 : 8) == 0;
}

static bool parameters_are_fp32(const struct program *program, int operation)
{
	for (int i = 0; i < OPERANDS_MAX; i++) {
		const struct program_tensor *tensor = operand(program, operation, (enum operand)i);
		bool activation = i == OPERAND_X || i == OPERAND_DY || i == OPERAND_OUT;
		if (tensor != NULL && !activation && (tensor->type != CUDNN_DATA_FLOAT || tensor->is_virtual))
			return false;
	}
	return true;
}

static enum pattern norm_forward_pattern(const struct program *program, int sm)
{
	const struct program_tensor *x = operand(program, 0, OPERAND_X), *value = operand(program, 0, OPERAND_OUT);
	int count = program->operations_count, at = 1;
	if (sm < 80 || x->is_virtual || !is_storage(x->type) || !channels_fit_norm(x) || !parameters_are_fp32(program, 0))
		return PATTERN_NONE;
	if (!operand(program, 0, OPERAND_EPSILON)->by_value || !operand(program, 0, OPERAND_SHARE)->by_value)
		return PATTERN_NONE;
	if (at < count && program->operations[at].mode == CUDNN_POINTWISE_ADD) {
		const struct program_tensor *added = operand(program, at, OPERAND_X) == value ? operand(program, at, OPERAND_B) : operand(program, at, OPERAND_X);
		if (!value->is_virtual || added == value || added->is_virtual || memcmp(added->dims, value->dims, sizeof value->dims) != 0)
			return PATTERN_NONE;
		value = operand(program, at++, OPERAND_OUT);
	}
	if (at < count) {
		if (program->operations[at].mode != CUDNN_POINTWISE_RELU_FWD || operand(program, at, OPERAND_X) != value || !value->is_virtual)
			return PATTERN_NONE;
		value = operand(program, at++, OPERAND_OUT);
	}
	if (value->is_virtual || value->type != x->type)
		return PATTERN_NONE;
	if (at < count) {
		const struct program_tensor *mask = operand(program, at, OPERAND_OUT);
		if (program->operations[at].mode != CUDNN_POINTWISE_CMP_GT || operand(program, at, OPERAND_X) != value || mask->type != CUDNN_DATA_BOOLEAN
		    || mask->is_virtual || tensor_elements(operand(program, at, OPERAND_B)) != 1)
			return PATTERN_NONE;
		at++;
	}
	return at == count ? PATTERN_NORM : PATTERN_NONE;
}

static enum pattern norm_backward_pattern(const struct program *program, int sm)
{
	int at = program->operations_count - 1;
	const struct program_tensor *x = operand(program, at, OPERAND_X), *dy = operand(program, at, OPERAND_DY);
	if (sm < 80 || at > 1 || x->is_virtual || !is_storage(x->type) || !channels_fit_norm(x) || !parameters_are_fp32(program, at))
		return PATTERN_NONE;
	if (dy->is_virtual || dy->type != x->type || operand(program, at, OPERAND_OUT)->type != x->type || operand(program, at, OPERAND_OUT)->is_virtual)
		return PATTERN_NONE;
	if (at == 1) {
		const struct program_tensor *given = operand(program, 0, OPERAND_X), *mask = operand(program, 0, OPERAND_B);
		if (program->operations[0].mode != CUDNN_POINTWISE_MUL || operand(program, 0, OPERAND_OUT) != dy || mask->type != CUDNN_DATA_BOOLEAN
		    || given->type != x->type || tensor_elements(mask) != tensor_elements(x))
			return PATTERN_NONE;
	}
	return PATTERN_NORM;
}

static enum pattern program_pattern(const struct program *program, int sm)
{
	int convolutions = 0, forwards = 0, backwards = 0, pointwise = 0, at = 0;
	for (int i = 0; i < program->tensors_count; i++)
		if (!is_packed(&program->tensors[i]) || (program->tensors[i].type == CUDNN_DATA_BFLOAT16 && sm < 80))
			return PATTERN_NONE;
	for (int i = 0; i < program->operations_count; i++) {
		const struct program_operation *operation = &program->operations[i];
		if (operation->compute != CUDNN_DATA_FLOAT)
			return PATTERN_NONE;
		if (is_convolution(operation))
			convolutions++, at = i;
		forwards += operation->kind == CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR;
		backwards += operation->kind == CUDNN_BACKEND_OPERATION_NORM_BACKWARD_DESCRIPTOR;
		pointwise += is_pointwise(operation);
	}
	if (convolutions == 1 && forwards + backwards == 0)
		return convolution_pattern(program, at, sm);
	int rest = program->operations_count - pointwise;
	if (forwards == 1 && rest == 1 && program->operations[0].kind == CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR)
		return norm_forward_pattern(program, sm);
	if (backwards == 1 && rest == 1 && program->operations[program->operations_count - 1].kind == CUDNN_BACKEND_OPERATION_NORM_BACKWARD_DESCRIPTOR)
		return norm_backward_pattern(program, sm);
	if (rest == 0 && sm >= 75 && program->operations_count == 1)
		return PATTERN_FUSED;
	return PATTERN_NONE;
}

/* --- engines ----------------------------------------------------------------------------------------------------------- */

static const struct program_operation *the_convolution(const struct program *program)
{
	for (int i = 0; i < program->operations_count; i++)
		if (is_convolution(&program->operations[i]))
			return &program->operations[i];
	return NULL;
}

/* The element that products are made of; half precision always runs on tensor cores. */
static int32_t product_type(const struct program *program)
{
	const struct program_operation *operation = the_convolution(program);
	return program->tensors[operation->operands[operation->operands[OPERAND_W] >= 0 ? OPERAND_W : OPERAND_DY]].type;
}

static bool uses_tensor_cores(const struct choice *choice)
{
	if (choice->engine == ENGINE_NORM || choice->engine == ENGINE_WINOGRAD || the_convolution(&choice->program) == NULL)
		return false;
	return product_type(&choice->program) != CUDNN_DATA_FLOAT || (choice->engine != ENGINE_PLAIN && choice->sm >= 80);
}

bool engine_rounds_to_tf32(const struct choice *choice)
{
	return uses_tensor_cores(choice) && product_type(&choice->program) == CUDNN_DATA_FLOAT;
}

bool engine_is_nondeterministic(const struct choice *choice)
{
	return choice->engine == ENGINE_SPLIT;
}

int engines_offered(const struct program *program, int sm, cudnnBackendHeurMode_t mode, int32_t engines[4])
{
	bool fallback = mode == CUDNN_HEUR_MODE_FALLBACK;
	int count = 0;
	switch (program_pattern(program, sm)) {
	case PATTERN_NONE: break;
	case PATTERN_NO_PLAN:
		engines[count++] = ENGINE_LATE;
		break;
	case PATTERN_CONVOLUTION: {
		bool is_forward = the_convolution(program)->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
		bool has_tensor_cores = product_type(program) != CUDNN_DATA_FLOAT || sm >= 80;
		if (fallback) {
			engines[count++] = ENGINE_PLAIN;
			break;
		}
		if (!is_forward)
			engines[count++] = ENGINE_SPLIT;
		engines[count++] = ENGINE_LATE;
		engines[count++] = has_tensor_cores ? ENGINE_TENSOR : ENGINE_WINOGRAD;
		break;
	}
	case PATTERN_FUSED:
		if (!fallback)
			engines[count++] = ENGINE_LATE;
		engines[count++] = ENGINE_COMPILED;
		break;
	case PATTERN_SUMS:
		if (!fallback)
			engines[count++] = ENGINE_LATE;
		engines[count++] = product_type(program) == CUDNN_DATA_HALF ? ENGINE_SUMS : ENGINE_COMPILED;
		break;
	case PATTERN_NORM:
		if (!fallback)
			engines[count++] = ENGINE_LATE;
		engines[count++] = ENGINE_NORM;
		break;
	}
	return count;
}

int engine_notes(const struct choice *choice, cudnnBackendNumericalNote_t notes[4])
{
	int count = 0;
	if (uses_tensor_cores(choice))
		notes[count++] = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
	if (choice->engine == ENGINE_SPLIT)
		notes[count++] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
	if (choice->engine == ENGINE_WINOGRAD) {
		notes[count++] = CUDNN_NUMERICAL_NOTE_WINOGRAD;
		notes[count++] = CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4;
	}
	return count;
}

int engine_behaviour(const struct choice *choice, cudnnBackendBehaviorNote_t notes[4])
{
	int count = 0;
	if (choice->engine == ENGINE_COMPILED || choice->engine == ENGINE_NORM)
		notes[count++] = CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
	if (choice->engine == ENGINE_COMPILED)
		notes[count++] = CUDNN_BEHAVIOR_NOTE_SUPPORTS_CUDA_GRAPH_NATIVE_API;
	return count;
}

cudnnStatus_t engine_prepare(struct choice *choice)
{
	const struct program *program = &choice->program;
	int32_t engines[4];
	bool offered = false;
	for (int fallback = 0; fallback < 2; fallback++)
		for (int i = 0, count = engines_offered(program, choice->sm, fallback ? CUDNN_HEUR_MODE_FALLBACK : CUDNN_HEUR_MODE_A, engines); i < count; i++)
			offered = offered || engines[i] == choice->engine;
	if (!offered || choice->engine == ENGINE_LATE)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED, "engine %d does not play this graph on sm_%d", choice->engine, choice->sm);
	size_t largest = 0;
	for (int i = 0; i < program->tensors_count; i++)
		if (tensor_bytes(&program->tensors[i]) > largest)
			largest = tensor_bytes(&program->tensors[i]);
	switch (choice->engine) {
	case ENGINE_PLAIN: choice->workspace_bytes = 128; break;
	case ENGINE_SPLIT: choice->workspace_bytes = 2571; break;
	case ENGINE_WINOGRAD: choice->workspace_bytes = (int64_t)(largest * 9 / 4); break;
	case ENGINE_NORM: choice->workspace_bytes = 55780; break;
	case ENGINE_SUMS: choice->workspace_bytes = 262656; break;
	default: choice->workspace_bytes = 0; break;
	}
	return CUDNN_STATUS_SUCCESS;
}
