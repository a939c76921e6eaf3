/* cudnn_execute.c: handles, and the execution of a plan: a variant pack is checked against the plan, and an item that holds a copy of all that
 * it needs goes to the handle's stream, where it runs when the simulated device pleases. */
#include "test/sim/cudnn_sim.h"
#include "test/sim/sim.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the library ------------------------------------------------------------------------------------------------------- */

size_t cudnnGetVersion(void)
{
	return CUDNN_VERSION;
}

size_t cudnnGetCudartVersion(void)
{
	return CUDART_VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
#define NAME(status) case status: return #status;
	switch ((int)status) {
	NAME(CUDNN_STATUS_SUCCESS) NAME(CUDNN_STATUS_NOT_INITIALIZED) NAME(CUDNN_STATUS_SERIALIZATION_VERSION_MISMATCH) NAME(CUDNN_STATUS_BAD_PARAM)
	NAME(CUDNN_STATUS_BAD_PARAM_NULL_POINTER) NAME(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER) NAME(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED)
	NAME(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND) NAME(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES) NAME(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE)
	NAME(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE) NAME(CUDNN_STATUS_NOT_SUPPORTED) NAME(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE)
	NAME(CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH) NAME(CUDNN_STATUS_EXECUTION_FAILED) NAME(CUDNN_STATUS_EXECUTION_FAILED_CUDART)
	NAME(CUDNN_STATUS_INTERNAL_ERROR)
	default: return "CUDNN_UNKNOWN_STATUS";
	}
#undef NAME
}

/* --- handles ----------------------------------------------------------------------------------------------------------- */

enum { HANDLE_LIVES = 0x5d77a11e, HANDLE_DEAD = 0x0ddba11 };

/* Never given back, so that the use of a destroyed one is noticed. */
struct cudnnContext {
	struct cudnnContext *next;
	int32_t state, device, sm;
	cudaStream_t stream;
};

static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;
static struct cudnnContext *handles;

static struct cudnnContext *handle_living(cudnnHandle_t handle, const char *call)
{
	if (handle == NULL || handle->state != HANDLE_LIVES)
		cudnn_misuse("%s: the handle %p is none, or was destroyed", call, (void *)handle);
	return handle;
}

int handle_sm(cudnnHandle_t handle)
{
	return handle_living(handle, "a descriptor that was given it")->sm;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
	if (handle == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "cudnnCreate: no place for the handle");
	if (sim_fault("SIM_FAIL", "cudnnCreate"))
		return cudnn_refuse(CUDNN_STATUS_NOT_INITIALIZED, "cudnnCreate: a failure that was asked for");
	struct cudnnContext *made = calloc(1, sizeof *made);
	int device = 0, count = 0;
	if (made == NULL)
		cudnn_misuse("no memory for a handle");
	if (cudaGetDeviceCount(&count) != cudaSuccess || cudaGetDevice(&device) != cudaSuccess || device_sm(device) == 0) {
		free(made);
		return cudnn_refuse(CUDNN_STATUS_NOT_INITIALIZED, "cudnnCreate: cudaGetDeviceCount(&count) != cudaSuccess");
	}
	pthread_mutex_lock(&handles_lock);
	*made = (struct cudnnContext){.next = handles, .state = HANDLE_LIVES, .device = device, .sm = device_sm(device)};
	handles = made;
	pthread_mutex_unlock(&handles_lock);
	*handle = made;
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
	handle_living(handle, "cudnnDestroy")->state = HANDLE_DEAD;
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
	handle_living(handle, "cudnnSetStream")->stream = stream;
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t *stream)
{
	*stream = handle_living(handle, "cudnnGetStream")->stream;
	return CUDNN_STATUS_SUCCESS;
}

/* --- the interpreter --------------------------------------------------------------------------------------------------- */

/* All that a run needs: plain data, copied with the item. */
struct run {
	struct choice choice;
	cudnnBackendDescriptor_t plan; /* must still be there when it runs: its kernels are */
	void *pointers[PROGRAM_TENSORS_MAX];
	void *workspace;
	bool wrong; /* as asked for: it computes something else */
};

static bool convolution_run(const struct choice *choice, const struct program_operation *operation, float *const values[])
{
	const struct program *program = &choice->program;
	const int32_t *o = operation->operands;
	bool is_dx = operation->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR;
	bool is_dw = operation->kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
	int32_t x = o[is_dx ? OPERAND_OUT : OPERAND_X], w = o[is_dw ? OPERAND_OUT : OPERAND_W], y = o[is_dx || is_dw ? OPERAND_DY : OPERAND_OUT];
	const int64_t *of_x = program->tensors[x].dims, *of_w = program->tensors[w].dims, *of_y = program->tensors[y].dims;
	struct convolution convolution = {.N = of_x[0], .C = of_x[1], .H = of_x[2], .W = of_x[3], .K = of_w[0], .R = of_w[2], .S = of_w[3],
		.P = of_y[2], .Q = of_y[3], .stride = {operation->stride[0], operation->stride[1]}, .pre = {operation->pre[0], operation->pre[1]},
		.any_order = engine_is_nondeterministic(choice)};
	if (engine_rounds_to_tf32(choice)) {
		/* Only the product sees the rounded operands; nobody else reads them on such engines. */
		if (!is_dx)
			elements_round_tf32(values[x], tensor_elements(&program->tensors[x]));
		if (!is_dw)
			elements_round_tf32(values[w], tensor_elements(&program->tensors[w]));
		if (is_dx || is_dw)
			elements_round_tf32(values[y], tensor_elements(&program->tensors[y]));
	}
	return is_dx ? convolve_dx(&convolution, values[y], values[w], values[x])
		: is_dw ? convolve_dw(&convolution, values[x], values[y], values[w]) : convolve_forward(&convolution, values[x], values[w], values[y]);
}

static bool operation_run(const struct choice *choice, const struct program_operation *operation, float *const values[])
{
	if (operation->kind != CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
		return convolution_run(choice, operation, values);
	identity_run(&choice->program, operation, values);
	return true;
}

/* As a broken engine might: every second value with the wrong sign. */
static float *values_spoil(float *values, int64_t count)
{
	for (int64_t i = 0; i < count; i += 2)
		values[i] = -values[i];
	return values;
}

static enum sim_progress run_item(void *context)
{
	const struct run *run = context;
	const struct program *program = &run->choice.program;
	float *values[PROGRAM_TENSORS_MAX] = {NULL};
	if (!descriptor_lives(run->plan))
		cudnn_misuse("an execution plan was destroyed before its work had run");
	/* A workspace that is too small, or used by somebody else at the same time, shows. */
	if (run->choice.workspace_bytes > 0)
		memset(run->workspace, 0xff, (size_t)run->choice.workspace_bytes);
	for (int i = 0; i < program->tensors_count; i++) {
		const struct program_tensor *tensor = &program->tensors[i];
		int64_t count = tensor_elements(tensor);
		values[i] = malloc(sizeof(float) * (size_t)count);
		if (values[i] == NULL)
			cudnn_misuse("no memory for the %lld values of a tensor", (long long)count);
		if (tensor->producer < 0)
			elements_load(tensor->type, run->pointers[i], count, values[i]);
	}
	for (int i = 0; i < program->operations_count; i++) {
		if (!operation_run(&run->choice, &program->operations[i], values))
			cudnn_misuse("no memory for an operation");
		for (int k = OPERAND_OUT; k < OPERANDS_MAX; k++) {
			int32_t result = program->operations[i].operands[k];
			if (result >= 0)
				elements_round(program->tensors[result].type, values[result], tensor_elements(&program->tensors[result]));
		}
	}
	for (int i = 0; i < program->tensors_count; i++) {
		const struct program_tensor *tensor = &program->tensors[i];
		if (tensor->producer >= 0 && !tensor->is_virtual)
			elements_store(tensor->type, run->wrong ? values_spoil(values[i], tensor_elements(tensor)) : values[i], tensor_elements(tensor), run->pointers[i]);
		free(values[i]);
	}
	return SIM_DONE;
}

/* --- the variant pack -------------------------------------------------------------------------------------------------- */

static bool overlap(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
	return a < b + b_bytes && b < a + a_bytes;
}

/* A result may not lie over anything, but exactly over an operand that is read at the same place only: of a last pointwise operation. */
static bool may_share(const struct program *program, int result, int given)
{
	const struct program_operation *operation = &program->operations[program->tensors[result].producer];
	if (operation->kind != CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR || tensor_bytes(&program->tensors[result]) != tensor_bytes(&program->tensors[given]))
		return false;
	for (int i = 0; i < program->operations_count; i++)
		for (int k = 0; k < OPERAND_OUT; k++)
			if (program->operations[i].operands[k] == given && program->operations[i].kind != CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
				return false;
	return true;
}

static cudnnStatus_t overlaps_check(const struct run *run)
{
	const struct program *program = &run->choice.program;
	for (int i = 0; i < program->tensors_count; i++) {
		const struct program_tensor *result = &program->tensors[i];
		if (result->producer < 0 || result->is_virtual)
			continue;
		if (overlap(run->pointers[i], tensor_bytes(result), run->workspace, (size_t)run->choice.workspace_bytes))
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld lies over the workspace", (long long)result->uid);
		for (int k = 0; k < program->tensors_count; k++) {
			const struct program_tensor *other = &program->tensors[k];
			if (k == i || other->is_virtual || !overlap(run->pointers[i], tensor_bytes(result), run->pointers[k], tensor_bytes(other)))
				continue;
			if (run->pointers[i] != run->pointers[k] || other->producer >= 0 || !may_share(program, i, k))
				return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld, a result, lies over tensor %lld", (long long)result->uid, (long long)other->uid);
		}
	}
	return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t pointers_take(struct run *run, const struct body *pack)
{
	const struct program *program = &run->choice.program;
	const struct value *uids = body_value(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS), *pointers = body_value(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
	bool found[PROGRAM_TENSORS_MAX] = {false};
	for (int64_t i = 0; i < uids->count; i++) {
		int64_t uid = ((int64_t *)uids->data)[i];
		void *pointer = ((void **)pointers->data)[i];
		int at = 0;
		while (at < program->tensors_count && program->tensors[at].uid != uid)
			at++;
		if (at == program->tensors_count || program->tensors[at].is_virtual)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "variant pack: the plan has no tensor %lld%s", (long long)uid,
				at == program->tensors_count ? "" : " in memory: it is virtual");
		if (found[at])
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "variant pack: tensor %lld twice", (long long)uid);
		if (pointer == NULL)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "variant pack: tensor %lld has no pointer", (long long)uid);
		found[at] = true;
		if ((uintptr_t)pointer % (uintptr_t)program->tensors[at].alignment != 0)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "variant pack: tensor %lld at %p is not aligned to %lld bytes", (long long)uid,
				pointer, (long long)program->tensors[at].alignment);
		char what[64];
		snprintf(what, sizeof what, "cudnnBackendExecute, tensor %lld", (long long)uid);
		sim_pointer_check(pointer, tensor_bytes(&program->tensors[at]), what);
		run->pointers[at] = pointer;
	}
	for (int i = 0; i < program->tensors_count; i++)
		if (!found[i] && !program->tensors[i].is_virtual)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "variant pack: tensor %lld is missing", (long long)program->tensors[i].uid);
	return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_descriptor, cudnnBackendDescriptor_t pack_descriptor)
{
	if (handle == NULL)
		return cudnn_refuse(CUDNN_STATUS_BAD_PARAM, "cudnnBackendExecute: no handle");
	handle_living(handle, "cudnnBackendExecute");
	struct body *plan, *pack;
	CUDNN_TRY(descriptor_body(plan_descriptor, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan));
	CUDNN_TRY(descriptor_body(pack_descriptor, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
	struct run run = {.choice = *(struct choice *)plan->made, .plan = plan_descriptor};
	if (sim_device() != handle->device)
		cudnn_misuse("cudnnBackendExecute: the handle is of device %d, the current one is %d", handle->device, sim_device());
	if (run.choice.sm != handle->sm)
		return cudnn_refuse(CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH, "cudnnBackendExecute: the plan is for sm_%d, the device is sm_%d", run.choice.sm, handle->sm);
	if (sim_fault("SIM_FAIL", "cudnnBackendExecute"))
		return cudnn_refuse(CUDNN_STATUS_EXECUTION_FAILED, "cudnnBackendExecute: a failure that was asked for");
	run.wrong = sim_fault("SIM_WRONG", "cudnnBackendExecute");
	CUDNN_TRY(pointers_take(&run, pack));
	const struct value *workspace = body_value(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
	run.workspace = workspace == NULL ? NULL : *(void **)workspace->data;
	if (run.choice.workspace_bytes > 0) {
		if (run.workspace == NULL)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "cudnnBackendExecute: no workspace where %lld bytes are needed",
				(long long)run.choice.workspace_bytes);
		if ((uintptr_t)run.workspace % 16 != 0)
			return cudnn_refuse(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "cudnnBackendExecute: the workspace %p is not aligned to 16 bytes", run.workspace);
		sim_pointer_check(run.workspace, (size_t)run.choice.workspace_bytes, "cudnnBackendExecute, workspace");
	}
	CUDNN_TRY(overlaps_check(&run));
	cudaError_t error = sim_stream_push(handle->stream, run_item, &run, sizeof run);
	if (error != cudaSuccess)
		return cudnn_refuse(CUDNN_STATUS_EXECUTION_FAILED_CUDART, "cudnnBackendExecute: the stream refused: error %d", (int)error);
	return CUDNN_STATUS_SUCCESS;
}
