/* cudnn_engines.c: which engines play which program where.
 *
 * As cuDNN 9.19 was seen to plan for real devices:
 *   one convolution                            fp16, fp32: every device; bf16: sm_80 and later
 *   half x and dy to fp32 dw, in one operation offered, but no plan
 *   convolution, virtual fp32, identity       sm_75 and later, compiled at run time
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
};

bool engine_exists(int64_t engine)
{
	static const int engines[] = {ENGINE_PLAIN, ENGINE_TENSOR, ENGINE_SPLIT, ENGINE_WINOGRAD, ENGINE_LATE, ENGINE_COMPILED};
	for (size_t i = 0; i < sizeof engines / sizeof *engines; i++)
		if (engines[i] == engine)
			return true;
	return false;
}

/* --- what kind of program ---------------------------------------------------------------------------------------------- */

enum pattern { PATTERN_NONE, PATTERN_CONVOLUTION, PATTERN_NO_PLAN, PATTERN_FUSED };

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

/* Operation 1 passes on the virtual fp32 value that operation 0 makes. */
static bool passes_on(const struct program *program, const struct program_tensor *value)
{
	const struct program_tensor *y = operand(program, 1, OPERAND_OUT);
	return is_pointwise(&program->operations[1]) && value->is_virtual && value->type == CUDNN_DATA_FLOAT && operand(program, 1, OPERAND_X) == value
		&& !y->is_virtual && is_storage(y->type);
}

static enum pattern convolution_pattern(const struct program *program, int sm)
{
	const struct program_operation *operation = &program->operations[0];
	bool is_dw = operation->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
	bool is_forward = operation->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
	const struct program_tensor *a = operand(program, 0, operation->operands[OPERAND_X] >= 0 ? OPERAND_X : OPERAND_DY);
	const struct program_tensor *b = operand(program, 0, is_dw ? OPERAND_DY : OPERAND_W), *result = operand(program, 0, OPERAND_OUT);
	int32_t type = b->type;
	if (!is_storage(type) || !is_storage(result->type) || a->type != type || a->is_virtual || b->is_virtual)
		return PATTERN_NONE;
	if (program->operations_count == 1)
		return result->type == type ? PATTERN_CONVOLUTION : is_forward ? (sm >= 75 ? PATTERN_FUSED : PATTERN_NONE) : PATTERN_NO_PLAN;
	return sm >= 75 && program->operations_count == 2 && passes_on(program, result) ? PATTERN_FUSED : PATTERN_NONE;
}

static enum pattern program_pattern(const struct program *program, int sm)
{
	for (int i = 0; i < program->tensors_count; i++)
		if (!is_packed(&program->tensors[i]) || (program->tensors[i].type == CUDNN_DATA_BFLOAT16 && sm < 80))
			return PATTERN_NONE;
	for (int i = 0; i < program->operations_count; i++)
		if (program->operations[i].compute != CUDNN_DATA_FLOAT)
			return PATTERN_NONE;
	if (is_convolution(&program->operations[0]))
		return convolution_pattern(program, sm);
	return sm >= 75 && program->operations_count == 1 ? PATTERN_FUSED : PATTERN_NONE;
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
	if (choice->engine == ENGINE_WINOGRAD || the_convolution(&choice->program) == NULL)
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
	if (choice->engine == ENGINE_COMPILED) {
		notes[count++] = CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
		notes[count++] = CUDNN_BEHAVIOR_NOTE_SUPPORTS_CUDA_GRAPH_NATIVE_API;
	}
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
	default: choice->workspace_bytes = 0; break;
	}
	return CUDNN_STATUS_SUCCESS;
}
