/* cudnn_plans.c: what follows from a graph when a descriptor is finalised: engines with their notes, what heuristics offer, plans, devices; and a
 * plan as text. */
#include "test/sim/cudnn_sim.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- engines and plans ------------------------------------------------------------------------------------------------- */

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
