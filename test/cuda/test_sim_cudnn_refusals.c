/* test_sim_cudnn_refusals.c: the simulated cuDNN says no where the real one does, and where that one is lenient or crashes.
 *
 * Goal: descriptors used wrongly, graphs that a device has no engine for, altered plans, wrong variant packs are refused with a status and a
 * sentence; what a program must never do ends it. Method: cuDNN's own calls for one object; the backend's planner for graphs by device; a child
 * process for what aborts. */
#include "core/backend/cuda/plan_engines.h"
#include "test/cuda/sim_cudnn_rig.h"

#include <sys/wait.h>
#include <unistd.h>

static void refused(cudnnStatus_t got, cudnnStatus_t want, const char *words)
{
	char sentence[512] = "";
	cudnnGetLastErrorString(sentence, sizeof sentence);
	if (got != want || strstr(sentence, words) == NULL)
		fail_msg("%s, \"%s\"; expected %s with \"%s\"", cudnnGetErrorString(got), sentence, cudnnGetErrorString(want), words);
}

#define CUDNN_OK(call) assert_int_equal(call, CUDNN_STATUS_SUCCESS)

static cudnnBackendDescriptor_t made(cudnnBackendDescriptorType_t type)
{
	cudnnBackendDescriptor_t descriptor;
	CUDNN_OK(cudnnBackendCreateDescriptor(type, &descriptor));
	return descriptor;
}

static cudnnStatus_t set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
	return cudnnBackendSetAttribute(d, name, type, count, values);
}

/* --- descriptors ------------------------------------------------------------------------------------------------------- */

static cudnnBackendDescriptor_t tensor_made(int64_t uid, int64_t c, bool is_virtual)
{
	cudnnBackendDescriptor_t d = made(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
	const int64_t dims[4] = {2, c, 4, 4}, strides[4] = {16 * c, 1, 4 * c, c}, alignment = 16;
	const cudnnDataType_t type = CUDNN_DATA_FLOAT;
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims));
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides));
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid));
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment));
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual));
	CUDNN_OK(cudnnBackendFinalize(d));
	return d;
}

static void test_attributes(void **state)
{
	(void)state;
	const int64_t number = 1, dims[4] = {2, 8, 4, 4}, zero[4] = {2, 8, 0, 4};
	const cudnnDataType_t types[2] = {CUDNN_DATA_FLOAT, CUDNN_DATA_FLOAT};
	int64_t got, count;
	cudnnBackendDescriptor_t d = made(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
	refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM, "a tensor without TENSOR_DATA_TYPE");
	refused(set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_INT64, 1, &number), CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "TENSOR_DATA_TYPE: type 3, expected 1");
	refused(set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 2, types), CUDNN_STATUS_BAD_PARAM, "2 elements");
	refused(set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, NULL), CUDNN_STATUS_BAD_PARAM, "no elements");
	refused(set(d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, types), CUDNN_STATUS_BAD_PARAM, "a tensor has no attribute 0");
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, types));
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, zero));
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 3, dims));
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &number));
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &number));
	refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM, "4 dimensions, 3 strides");
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, dims));
	refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM, "dimension 2 is 0");
	CUDNN_OK(set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims));
	refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM, "alignment 1");
	refused(cudnnBackendGetAttribute(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &count, &got), CUDNN_STATUS_NOT_INITIALIZED, "not finalised");
	CUDNN_OK(cudnnBackendDestroyDescriptor(d));
	d = tensor_made(7, 8, false);
	refused(cudnnBackendFinalize(d), CUDNN_STATUS_BAD_PARAM, "finalised already");
	refused(set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &number), CUDNN_STATUS_BAD_PARAM, "the tensor is finalised");
	refused(cudnnBackendGetAttribute(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_FLOAT, 1, &count, &got), CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "type 4");
	CUDNN_OK(cudnnBackendGetAttribute(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &count, &got));
	assert_int_equal(got, 7);
	assert_int_equal(count, 1);
	CUDNN_OK(cudnnBackendDestroyDescriptor(d));
}

static cudnnStatus_t identity_finalise(cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t y, cudnnBackendDescriptor_t *operation)
{
	cudnnBackendDescriptor_t mode = made(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
	const cudnnPointwiseMode_t identity = CUDNN_POINTWISE_IDENTITY;
	const cudnnDataType_t type = CUDNN_DATA_FLOAT;
	CUDNN_OK(set(mode, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &identity));
	CUDNN_OK(set(mode, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type));
	CUDNN_OK(cudnnBackendFinalize(mode));
	*operation = made(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
	CUDNN_OK(set(*operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &mode));
	CUDNN_OK(set(*operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x));
	CUDNN_OK(set(*operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y));
	CUDNN_OK(cudnnBackendDestroyDescriptor(mode)); /* the operation has its own copy */
	return cudnnBackendFinalize(*operation);
}

static void test_operations(void **state)
{
	(void)state;
	cudnnBackendDescriptor_t x = tensor_made(1, 8, false), y = tensor_made(2, 8, false), other = tensor_made(3, 16, false), same = tensor_made(1, 16, false);
	cudnnBackendDescriptor_t lost = tensor_made(4, 8, true), raw = made(CUDNN_BACKEND_TENSOR_DESCRIPTOR), operation, graph;
	cudnnBackendDescriptor_t empty = made(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
	refused(set(empty, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw), CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "not finalised");
	refused(set(empty, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x), CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "a tensor");
	refused(cudnnBackendFinalize(empty), CUDNN_STATUS_BAD_PARAM, "without OPERATION_POINTWISE_PW_DESCRIPTOR");
	refused(identity_finalise(x, other, &operation), CUDNN_STATUS_BAD_PARAM, "dimension 1");
	CUDNN_OK(cudnnBackendDestroyDescriptor(operation));

	graph = made(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
	refused(cudnnBackendFinalize(graph), CUDNN_STATUS_BAD_PARAM, "without OPERATIONGRAPH_OPS");
	refused(set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &empty), CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "not finalised");
	refused(set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x), CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "does not belong");
	cudnnBackendDescriptor_t two[2];
	CUDNN_OK(identity_finalise(x, y, &two[0]));
	CUDNN_OK(identity_finalise(same, other, &two[1]));
	CUDNN_OK(set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 2, two));
	refused(cudnnBackendFinalize(graph), CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "unique id 1");
	CUDNN_OK(cudnnBackendDestroyDescriptor(two[1]));
	CUDNN_OK(identity_finalise(lost, y, &two[1]));
	CUDNN_OK(set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &two[1]));
	refused(cudnnBackendFinalize(graph), CUDNN_STATUS_BAD_PARAM, "nobody writes the virtual tensor 4");
	CUDNN_OK(set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 2, two));
	refused(cudnnBackendFinalize(graph), CUDNN_STATUS_BAD_PARAM, "tensor 2 is written twice");
	cudnnBackendDescriptor_t all[] = {x, y, other, same, lost, raw, empty, graph, two[0], two[1]};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		CUDNN_OK(cudnnBackendDestroyDescriptor(all[i]));
}

/* --- what plans where -------------------------------------------------------------------------------------------------- */

enum kind { LONE, LONE_FP32_DW, WIDENED_DW, NARROWED };

/* A convolution of the element with what is behind it. */
static void graph_fill(struct bench *b, enum kind kind, enum element element)
{
	const bool dw = kind == LONE_FP32_DW || kind == WIDENED_DW, passes_on = kind == WIDENED_DW || kind == NARROWED;
	const int n = dw ? 16 : 4, side = dw ? 3 : 8;
	int x = bench_tensor(b, element, 4, 16, 8, 8), second = dw ? bench_tensor(b, element, 4, 16, 8, 8) : bench_tensor(b, element, 16, 16, 3, 3);
	int result = passes_on ? bench_virtual(b, n, 16, side, side) : bench_tensor(b, dw ? ELEMENT_FP32 : element, n, 16, side, side);
	const enum graph_operation_kind first = dw ? GRAPH_CONVOLUTION_DW : GRAPH_CONVOLUTION;
	*bench_operation(b, first) = (struct graph_operation){.kind = first, .in = {x, second}, .out = result, .stride = 1, .pad_top = 1, .pad_left = 1,
		.pad_bottom = 1, .pad_right = 1};
	if (!passes_on)
		return;
	int y = bench_tensor(b, dw ? ELEMENT_FP32 : element, n, 16, side, side);
	*bench_operation(b, GRAPH_IDENTITY) = (struct graph_operation){.kind = GRAPH_IDENTITY, .in = {result}, .out = y};
}

static void test_devices(void **state)
{
	(void)state;
	static const int versions[] = {700, 750, 800, 900};
	enum { V100 = 1, T4 = 2, A100 = 4, H100 = 8, LATER = A100 | H100, ALL = V100 | T4 | LATER };
	/* fp32, fp16, bf16 */
	static const struct { enum kind kind; const char *name; int where[3]; } rows[] = {
		{LONE, "a convolution", {ALL, ALL, LATER}},
		{LONE_FP32_DW, "a weight gradient in fp32 at once", {ALL, 0, 0}},
		{WIDENED_DW, "a weight gradient, its sums passed on", {T4 | LATER, T4 | LATER, LATER}},
		{NARROWED, "a convolution, its sums passed on", {T4 | LATER, T4 | LATER, LATER}},
	};
	static const enum element elements[] = {ELEMENT_FP32, ELEMENT_FP16, ELEMENT_BF16};
	for (int v = 0; v < 4; v++) {
		char json[64];
		struct planner *planner;
		snprintf(json, sizeof json, "{\"deviceVer\":%d}", versions[v]);
		const struct planner_config config = {.device_json = json, .deterministic = true, .tf32 = true, .workspace_bytes_max = 1 << 28};
		STATUS_OK(planner_open(&config, &planner));
		for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
			for (int e = 0; e < 3; e++) {
				struct bench b = {0};
				struct plan *plan = NULL;
				graph_fill(&b, rows[i].kind, elements[e]);
				bool planned = plan_build(planner, &b.graph, &plan) == ST_OK, expected = rows[i].where[e] & 1 << v;
				if (planned != expected)
					fail_msg("%s, element %d, version %d: %s", rows[i].name, e, versions[v], planned ? "planned" : status_message());
				plan_free(plan);
				bench_close(&b);
			}
		planner_close(planner);
	}
}

/* --- a plan and its packs ---------------------------------------------------------------------------------------------- */

struct rig {
	struct bench bench;
	struct runner runner;
	cudnnHandle_t handle;
	cudnnBackendDescriptor_t plan;
	int64_t workspace_bytes;
};

/* A plan of the fallback's engine for dx = conv_dx(dy, w): it needs a workspace. */
static void rig_open(struct rig *rig)
{
	*rig = (struct rig){.handle = NULL};
	struct cudnn_graph graph;
	struct engines engines;
	int64_t count;
	struct bench *b = &rig->bench;
	int dy = bench_random(b, ELEMENT_FP16, 4, 16, 8, 8), w = bench_random(b, ELEMENT_FP16, 16, 16, 3, 3), dx = bench_tensor(b, ELEMENT_FP16, 4, 16, 8, 8);
	*bench_operation(b, GRAPH_CONVOLUTION_DX) = (struct graph_operation){.kind = GRAPH_CONVOLUTION_DX, .in = {dy, w}, .out = dx, .stride = 1,
		.pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
	CUDNN_OK(cudnnCreate(&rig->handle));
	STATUS_OK(cudnn_graph_make(&b->graph, rig->handle, &graph));
	const struct plan_target target = {.handle = rig->handle};
	STATUS_OK(engines_ask(&target, &graph, CUDNN_HEUR_MODE_FALLBACK, &engines));
	assert_int_equal(engines.count, 1);
	rig->plan = made(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
	CUDNN_OK(set(rig->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engines.engines[0].config));
	CUDNN_OK(set(rig->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &rig->handle));
	CUDNN_OK(cudnnBackendFinalize(rig->plan));
	CUDNN_OK(cudnnBackendGetAttribute(rig->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &rig->workspace_bytes));
	assert_true(rig->workspace_bytes > 0);
	engines_free(&engines);
	cudnn_graph_free(&graph);
	bench_upload(b);
}

static void rig_close(struct rig *rig)
{
	CUDNN_OK(cudnnBackendDestroyDescriptor(rig->plan));
	CUDNN_OK(cudnnDestroy(rig->handle));
	bench_close(&rig->bench);
}

static cudnnStatus_t execute(const struct rig *rig, int count, const int64_t *uids, void *const *pointers, void *workspace)
{
	cudnnBackendDescriptor_t pack = made(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
	CUDNN_OK(set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids));
	CUDNN_OK(set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers));
	CUDNN_OK(set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace));
	CUDNN_OK(cudnnBackendFinalize(pack));
	cudnnStatus_t status = cudnnBackendExecute(rig->handle, rig->plan, pack);
	CUDNN_OK(cudnnBackendDestroyDescriptor(pack));
	return status;
}

static void test_packs(void **state)
{
	(void)state;
	struct rig rig;
	rig_open(&rig);
	void *const *m = rig.bench.memory;
	char *workspace, *shifted = (char *)m[0] + 2;
	unsigned char bytes[16];
	CUDA_OK(cudaMalloc((void **)&workspace, (size_t)rig.workspace_bytes + 16));
	CUDA_OK(cudaMemset(workspace, 1, (size_t)rig.workspace_bytes + 16));
	refused(execute(&rig, 2, (int64_t[]){1, 2}, m, workspace), CUDNN_STATUS_BAD_PARAM, "tensor 3 is missing");
	refused(execute(&rig, 4, (int64_t[]){1, 2, 3, 4}, (void *[]){m[0], m[1], m[2], m[0]}, workspace), CUDNN_STATUS_BAD_PARAM, "no tensor 4");
	refused(execute(&rig, 4, (int64_t[]){1, 2, 3, 1}, (void *[]){m[0], m[1], m[2], m[0]}, workspace), CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "twice");
	refused(execute(&rig, 3, (int64_t[]){1, 2, 3}, (void *[]){m[0], NULL, m[2]}, workspace), CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no pointer");
	refused(execute(&rig, 3, (int64_t[]){1, 2, 3}, (void *[]){shifted, m[1], m[2]}, workspace), CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "16 bytes");
	refused(execute(&rig, 3, (int64_t[]){1, 2, 3}, m, NULL), CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no workspace");
	refused(execute(&rig, 3, (int64_t[]){1, 2, 3}, m, workspace + 8), CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "the workspace");
	refused(execute(&rig, 3, (int64_t[]){1, 2, 3}, (void *[]){m[0], m[1], m[0]}, workspace), CUDNN_STATUS_BAD_PARAM, "lies over tensor 1");
	refused(execute(&rig, 3, (int64_t[]){1, 2, 3}, m, m[2]), CUDNN_STATUS_BAD_PARAM, "over the workspace");
	CUDNN_OK(execute(&rig, 3, (int64_t[]){3, 1, 2}, (void *[]){m[2], m[0], m[1]}, workspace)); /* in any order */
	CUDA_OK(cudaDeviceSynchronize());
	/* The workspace is used up to its end, and no further. */
	CUDA_OK(cudaMemcpy(bytes, workspace + rig.workspace_bytes - 8, sizeof bytes, cudaMemcpyDeviceToHost));
	assert_true(bytes[0] != 1 && bytes[7] != 1 && bytes[8] == 1 && bytes[15] == 1);
	CUDA_OK(cudaFree(workspace));
	rig_close(&rig);
}

static void test_text(void **state)
{
	(void)state;
	struct rig rig;
	int64_t bytes;
	rig_open(&rig);
	CUDNN_OK(cudnnBackendGetAttribute(rig.plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &bytes, NULL));
	char *text = malloc((size_t)bytes), *altered = malloc((size_t)bytes);
	assert_non_null(text);
	assert_non_null(altered);
	CUDNN_OK(cudnnBackendGetAttribute(rig.plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, bytes, &bytes, text));
	/* -1: as it is; -2: cut; -3: for another device; else this byte is another one. */
	for (int64_t at = -3; at < bytes; at += at < 0 ? 1 : 97) {
		cudnnBackendDescriptor_t plan = made(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR), other = made(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
		static const char h100[] = "{\"deviceVer\":900}";
		memcpy(altered, text, (size_t)bytes);
		if (at >= 0)
			altered[at] ^= 1;
		CUDNN_OK(set(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, at == -2 ? bytes / 2 : bytes, altered));
		CUDNN_OK(set(other, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, sizeof h100, h100));
		CUDNN_OK(cudnnBackendFinalize(other));
		if (at == -3)
			CUDNN_OK(set(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other));
		else
			CUDNN_OK(set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &rig.handle));
		cudnnStatus_t status = cudnnBackendFinalize(plan);
		if (at == -3)
			refused(status, CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH, "for sm_80, the device is sm_90");
		else if (at == -2)
			refused(status, CUDNN_STATUS_BAD_PARAM, "cut short");
		else
			assert_true((status == CUDNN_STATUS_SUCCESS) == (at == -1));
		CUDNN_OK(cudnnBackendDestroyDescriptor(plan));
		CUDNN_OK(cudnnBackendDestroyDescriptor(other));
	}
	free(text);
	free(altered);
	rig_close(&rig);
}

/* --- what ends a program ----------------------------------------------------------------------------------------------- */

static void destroyed_used(void)
{
	cudnnBackendDescriptor_t d = tensor_made(1, 8, false);
	cudnnBackendDestroyDescriptor(d);
	cudnnBackendFinalize(d);
}

static void plan_destroyed_too_early(void)
{
	struct rig rig;
	void *workspace;
	rig_open(&rig);
	CUDA_OK(cudaMalloc(&workspace, (size_t)rig.workspace_bytes));
	CUDNN_OK(execute(&rig, 3, (int64_t[]){1, 2, 3}, rig.bench.memory, workspace));
	CUDNN_OK(cudnnBackendDestroyDescriptor(rig.plan));
	cudaDeviceSynchronize();
}

static void plan_of_no_device(void)
{
	cudnnBackendFinalize(made(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR));
}

static void pointer_of_the_host(void)
{
	struct rig rig;
	_Alignas(16) char host[16 * 1024], *workspace = NULL;
	rig_open(&rig);
	CUDA_OK(cudaMalloc((void **)&workspace, (size_t)rig.workspace_bytes));
	execute(&rig, 3, (int64_t[]){1, 2, 3}, (void *[]){host, rig.bench.memory[1], rig.bench.memory[2]}, workspace);
}

static void memory_too_small(void)
{
	struct rig rig;
	void *workspace;
	rig_open(&rig);
	CUDA_OK(cudaMalloc(&workspace, (size_t)rig.workspace_bytes - 16));
	execute(&rig, 3, (int64_t[]){1, 2, 3}, rig.bench.memory, workspace);
}

static void descriptor_unknown(void)
{
	cudnnBackendDescriptor_t d;
	cudnnBackendCreateDescriptor(CUDNN_BACKEND_MATMUL_DESCRIPTOR, &d);
}

static void test_misuse(void **state)
{
	(void)state;
	static const struct { void (*run)(void); const char *words; } cases[] = {
		{destroyed_used, "was destroyed"}, {plan_destroyed_too_early, "before its work had run"}, {plan_of_no_device, "neither a handle nor device properties"},
		{pointer_of_the_host, "cudnnBackendExecute, tensor 1"}, {memory_too_small, "cudnnBackendExecute, workspace"}, {descriptor_unknown, "is not played"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int ends[2], status;
		char said[4096] = "";
		assert_int_equal(pipe(ends), 0);
		pid_t child = fork();
		if (child == 0) {
			dup2(ends[1], STDERR_FILENO);
			close(ends[0]);
			cases[i].run();
			_exit(0);
		}
		close(ends[1]);
		for (size_t at = 0; at < sizeof said - 1;) {
			ssize_t got = read(ends[0], said + at, sizeof said - 1 - at);
			if (got <= 0)
				break;
			at += (size_t)got;
		}
		close(ends[0]);
		assert_int_equal(waitpid(child, &status, 0), child);
		if (!WIFSIGNALED(status) || strstr(said, cases[i].words) == NULL)
			fail_msg("misuse %zu: ended with %d, said \"%s\", expected \"%s\"", i, status, said, cases[i].words);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_misuse), /* first: its children make the devices that they use */
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_operations),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_packs),
		cmocka_unit_test(test_text),
	};
	setenv("SIM_EAGER", "0", 1); /* work stays queued until somebody waits */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
