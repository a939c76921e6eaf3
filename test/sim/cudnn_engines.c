/* cudnn_engines.c: which engines play which program where; plans.
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

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
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

/* --- finalisation of what follows from a graph -------------------------------------------------------------------------- */

/* The device of a descriptor: told by device properties, or by the handle of a plan or a graph. */
static cudnnStatus_t told_sm(const struct body *body, cudnnBackendAttributeName_t properties, const struct value *handle, int *sm)
{
	if (body_value(body, properties) != NULL)
		*sm = body_sm(body_of(body, properties));
	else if (handle != NULL)
		*sm = handle_sm(*(cudnnHandle_t *)handle->data);
	else
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "a %s knows no device: neither properties nor a handle", descriptor_name(body->type));
	return CUDNN_STATUS_SUCCESS;
}

static void *made_copy(const void *from, size_t bytes)
{
	void *made = malloc(bytes);
	if (made == NULL)
		cudnn_misuse("no memory for %zu bytes", bytes);
	return memcpy(made, from, bytes);
}

static void engine_fill(struct body *engine, const struct choice *choice)
{
	cudnnBackendNumericalNote_t notes[4];
	cudnnBackendBehaviorNote_t behaviour[4];
	int notes_count = engine_notes(choice, notes), behaviour_count = engine_behaviour(choice, behaviour);
	body_store(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, notes_count, notes);
	body_store(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, behaviour_count, behaviour);
	engine->made = made_copy(choice, sizeof *choice);
	engine->finalised = true;
}

static cudnnStatus_t engine_finalise(struct body *engine)
{
	struct body *graph = body_of(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
	struct choice choice = {.program = *(struct program *)graph->made};
	int64_t index = body_integer(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, -1);
	if (!engine_exists(index))
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND, "there is no engine %lld", (long long)index);
	choice.engine = (int32_t)index;
	CUDNN_TRY(told_sm(engine, CUDNN_ATTR_ENGINE_DEVICEPROP, body_value(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE), &choice.sm));
	CUDNN_TRY(engine_prepare(&choice));
	engine_fill(engine, &choice);
	return CUDNN_STATUS_SUCCESS;
}

static struct body *config_make(struct body *graph, const struct program *program, int32_t engine_index, int sm)
{
	struct choice choice = {.program = *program, .engine = engine_index, .sm = sm};
	struct body *engine = body_create(CUDNN_BACKEND_ENGINE_DESCRIPTOR), *config = body_create(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
	int64_t index = engine_index;
	body_retain(graph);
	body_store(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
	body_store(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index);
	engine_fill(engine, &choice);
	body_store(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
	config->finalised = true;
	return config;
}

static cudnnStatus_t heuristics_finalise(struct body *heuristics)
{
	struct body *graph = body_of(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
	int64_t mode = body_integer(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, -1);
	int sm = 0;
	if (mode != CUDNN_HEUR_MODE_A && mode != CUDNN_HEUR_MODE_FALLBACK && mode != CUDNN_HEUR_MODE_INSTANT && mode != CUDNN_HEUR_MODE_B)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "engine heuristics: mode %lld", (long long)mode);
	CUDNN_TRY(told_sm(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, body_value(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE), &sm));
	int32_t engines[4];
	struct body *configs[4];
	int count = engines_offered(graph->made, sm, (cudnnBackendHeurMode_t)mode, engines);
	for (int i = 0; i < count; i++)
		configs[i] = config_make(graph, graph->made, engines[i], sm);
	body_store(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, configs);
	return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t plan_finalise(struct body *plan)
{
	const struct value *handle = body_value(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE), *json = body_value(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION);
	const struct body *config = body_of(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
	struct choice choice;
	int sm = 0;
	/* The real library dereferences NULL here. */
	if (handle == NULL && body_value(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP) == NULL)
		cudnn_misuse("an execution plan is finalised with neither a handle nor device properties");
	CUDNN_TRY(told_sm(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, handle, &sm));
	if ((config == NULL) == (json == NULL))
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "an execution plan needs an engine config or a text, and not both");
	if (config != NULL)
		choice = *(struct choice *)body_of(config, CUDNN_ATTR_ENGINECFG_ENGINE)->made;
	else
		CUDNN_TRY(choice_from_json(json->data, (size_t)json->count, sm, &choice));
	if (choice.sm != sm)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH, "the engine was chosen for sm_%d, the plan is for sm_%d", choice.sm, sm);
	CUDNN_TRY(engine_prepare(&choice));
	char *text = choice_to_json(&choice);
	body_store(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(text), text);
	free(text);
	body_store(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &choice.workspace_bytes);
	plan->made = made_copy(&choice, sizeof choice);
	return CUDNN_STATUS_SUCCESS;
}

/* --- devices ----------------------------------------------------------------------------------------------------------- */

int device_sm(int device)
{
	int major = 0, minor = 0;
	if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess
	    || cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
		return 0;
	return 10 * major + minor;
}

/* The number behind a key of a text of device properties: 10 times the architecture. */
static int json_device_version(const struct value *json)
{
	static const char key[] = "\"deviceVer\":";
	char text[4096];
	size_t bytes = (size_t)json->count < sizeof text ? (size_t)json->count : sizeof text - 1;
	memcpy(text, json->data, bytes);
	text[bytes] = '\0';
	const char *found = strstr(text, key);
	return found == NULL ? 0 : atoi(found + sizeof key - 1);
}

int body_sm(const struct body *deviceprop)
{
	return json_device_version(body_value(deviceprop, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION)) / 10;
}

static cudnnStatus_t deviceprop_finalise(struct body *body)
{
	const struct value *json = body_value(body, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION), *handle = body_value(body, CUDNN_ATTR_DEVICEPROP_HANDLE);
	const struct value *device = body_value(body, CUDNN_ATTR_DEVICEPROP_DEVICE_ID);
	if ((json != NULL) + (handle != NULL) + (device != NULL) != 1)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "device properties: of one of a device's number, a handle, a text");
	if (json != NULL)
		return json_device_version(json) >= 500 ? CUDNN_STATUS_SUCCESS
			: cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "device properties: the text has no usable deviceVer");
	int sm = device != NULL ? device_sm(*(int32_t *)device->data) : handle_sm(*(cudnnHandle_t *)handle->data);
	if (sm == 0)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "device properties: there is no such device");
	char text[64];
	snprintf(text, sizeof text, "{\"deviceVer\":%d,\"deviceName\":\"simulated sm_%d\"}", 10 * sm, sm);
	body_store(body, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(text) + 1, text);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t body_finalise(struct body *body)
{
	switch ((int)body->type) {
	case CUDNN_BACKEND_TENSOR_DESCRIPTOR: return tensor_check(body);
	case CUDNN_BACKEND_POINTWISE_DESCRIPTOR: return CUDNN_STATUS_SUCCESS;
	case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR: return convolution_check(body);
	case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: return heuristics_finalise(body);
	case CUDNN_BACKEND_ENGINE_DESCRIPTOR: return engine_finalise(body);
	case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR: return CUDNN_STATUS_SUCCESS;
	case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: return plan_finalise(body);
	case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR: return deviceprop_finalise(body);
	case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
		if (body_value(body, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS)->count != body_value(body, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)->count)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "a variant pack with %lld unique ids and %lld pointers",
				(long long)body_value(body, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS)->count,
				(long long)body_value(body, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)->count);
		return CUDNN_STATUS_SUCCESS;
	case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: {
		struct program program;
		CUDNN_TRY(program_make(body, &program));
		body->made = made_copy(&program, sizeof program);
		return CUDNN_STATUS_SUCCESS;
	}
	default: return operation_check(body);
	}
}

/* --- text of a plan ---------------------------------------------------------------------------------------------------- */

/* {"cudnnVersion":…,"deviceVer":…,"engine":…,"program":"hexadecimal bytes of the struct","checksum":"…"} */

static uint64_t text_sum(const char *text, size_t bytes)
{
	uint64_t sum = 14695981039346656037u;
	for (size_t i = 0; i < bytes; i++)
		sum = (sum ^ (unsigned char)text[i]) * 1099511628211u;
	return sum;
}

char *choice_to_json(const struct choice *choice)
{
	size_t room = 2 * sizeof choice->program + 256;
	char *text = malloc(room);
	if (text == NULL)
		cudnn_misuse("no memory for %zu bytes", room);
	int at = snprintf(text, room, "{\"cudnnVersion\":%d,\"deviceVer\":%d,\"engine\":%d,\"program\":\"", CUDNN_VERSION, 10 * choice->sm, choice->engine);
	const unsigned char *bytes = (const unsigned char *)&choice->program;
	for (size_t i = 0; i < sizeof choice->program; i++)
		at += snprintf(text + at, room - (size_t)at, "%02x", bytes[i]);
	uint64_t sum = text_sum(text, (size_t)at);
	snprintf(text + at, room - (size_t)at, "\",\"checksum\":\"%016llx\"}", (unsigned long long)sum);
	return text;
}

static int hexadecimal(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

cudnnStatus_t choice_from_json(const char *json, size_t json_bytes, int sm, struct choice *choice)
{
	/* What was written is written again, so that nothing but the same text passes. */
	char head[160];
	size_t head_bytes = json_bytes < sizeof head - 1 ? json_bytes : sizeof head - 1;
	memcpy(head, json, head_bytes);
	head[head_bytes] = '\0';
	int version = 0, device_version = 0, engine = 0, start = 0;
	if (sscanf(head, "{\"cudnnVersion\":%d,\"deviceVer\":%d,\"engine\":%d,\"program\":\"%n", &version, &device_version, &engine, &start) != 3 || start == 0
	    || json_bytes < (size_t)start + 2 * sizeof choice->program)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "the text of a plan is none, or is cut short");
	struct choice read = {.engine = engine, .sm = device_version / 10};
	unsigned char *bytes = (unsigned char *)&read.program;
	for (size_t i = 0; i < sizeof read.program; i++) {
		int high = hexadecimal(json[(size_t)start + 2 * i]), low = hexadecimal(json[(size_t)start + 2 * i + 1]);
		if (high < 0 || low < 0)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "the text of a plan was altered");
		bytes[i] = (unsigned char)(16 * high + low);
	}
	char *again = choice_to_json(&read);
	bool same = strlen(again) == json_bytes - (json[json_bytes - 1] == '\0') && memcmp(again, json, strlen(again)) == 0;
	free(again);
	if (version != CUDNN_VERSION)
		return cudnn_refuse(CUDNN_STATUS_SERIALIZATION_VERSION_MISMATCH, "the text of a plan is of cuDNN %d, this is %d", version, CUDNN_VERSION);
	if (!same)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "the text of a plan was altered");
	if (read.sm != sm)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH, "the text of a plan is for sm_%d, the device is sm_%d", read.sm, sm);
	*choice = read;
	return CUDNN_STATUS_SUCCESS;
}
