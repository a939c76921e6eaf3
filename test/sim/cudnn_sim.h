/* cudnn_sim.h: the rooms of the simulated cuDNN among themselves.
 *
 * cudnn_descriptors.c  objects, attributes with their types (cudnn_attributes.c is the table), finalisation
 * cudnn_program.c      operation descriptors → struct program: plain data, checked
 * cudnn_engines.c      which engines play a program on which device, as cuDNN 9.19 answers for real devices
 * cudnn_plans.c        engines, heuristics, plans and devices as descriptors; a plan as text
 * cudnn_execute.c      variant pack → an item on a stream; the interpreter
 * cudnn_arithmetic.c   elements in memory ↔ fp32, the operation that passes them on
 * cudnn_convolve.c     the three convolutions
 *
 * Only packed NHWC tensors of four dimensions are played. What the real library forbids is refused with the same status and a sentence; where
 * the real one crashes, or its manual leaves a thing open, the simulator refuses or aborts. */
#pragma once

#include <cudnn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- words ------------------------------------------------------------------------------------------------------------ */

/* Keeps the sentence for cudnnGetLastErrorString, per thread, and returns `status`. */
cudnnStatus_t cudnn_refuse(cudnnStatus_t status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* For what a program must never do: prints the sentence and aborts. */
void cudnn_misuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
#define CUDNN_TRY(call) do { cudnnStatus_t try_status = (call); if (try_status != CUDNN_STATUS_SUCCESS) return try_status; } while (0)

/* --- a graph as plain data --------------------------------------------------------------------------------------------- */

enum { PROGRAM_TENSORS_MAX = 24, PROGRAM_OPERATIONS_MAX = 10 };

struct program_tensor {
	int64_t uid, dims[4], strides[4], alignment; /* (N, C, H, W) */
	int32_t type;                                /* cudnnDataType_t */
	int8_t is_virtual;
	int16_t producer;                            /* the operation that writes it; -1: none */
};

/* Which operand is which: a place in struct program_operation's `operands`. */
enum operand {
	OPERAND_X, OPERAND_W, OPERAND_DY,
	OPERAND_OUT, /* the result: y or dx or dw */
	OPERANDS_MAX,
};

struct program_operation {
	int32_t kind;                      /* cudnnBackendDescriptorType_t */
	int32_t compute;                   /* cudnnDataType_t of its arithmetic */
	int32_t operands[OPERANDS_MAX];    /* numbers of tensors; -1: none */
	int32_t stride[2], pre[2], post[2]; /* of a convolution; dilation is 1 */
};

struct program {
	int32_t tensors_count, operations_count;
	struct program_tensor tensors[PROGRAM_TENSORS_MAX];
	struct program_operation operations[PROGRAM_OPERATIONS_MAX]; /* each after those whose results it reads */
};

static inline int64_t tensor_elements(const struct program_tensor *t)
{
	return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
}
size_t tensor_bytes(const struct program_tensor *tensor);

/* --- engines ----------------------------------------------------------------------------------------------------------- */

struct choice {
	struct program program;
	int32_t engine, sm; /* sm: 80 for compute capability 8.0 */
	int64_t workspace_bytes;
};

/* The engines, in the order of preference, that a heuristic mode offers; none is a valid answer. */
int engines_offered(const struct program *program, int sm, cudnnBackendHeurMode_t mode, int32_t engines[4]);
bool engine_exists(int64_t engine);
int engine_notes(const struct choice *choice, cudnnBackendNumericalNote_t notes[4]);
int engine_behaviour(const struct choice *choice, cudnnBackendBehaviorNote_t notes[4]);
/* Says whether the engine really does it (heuristics promise more than that), and the workspace. */
cudnnStatus_t engine_prepare(struct choice *choice);
bool engine_rounds_to_tf32(const struct choice *choice);
bool engine_is_nondeterministic(const struct choice *choice);

/* Text of a plan, with its ending zero, to be freed; and back: refused when it was altered or is for another device or version. */
char *choice_to_json(const struct choice *choice);
cudnnStatus_t choice_from_json(const char *json, size_t json_bytes, int sm, struct choice *choice);

/* --- descriptors ------------------------------------------------------------------------------------------------------- */

enum { VALUES_MAX = 24 };

struct value {
	int32_t name, type;
	int64_t count;
	void *data; /* count elements; of a descriptor: pointers to struct body, each holding a reference */
};

/* What a descriptor says. Shared by all that were given it, as cuDNN copies on setting; never changed once finalised. */
struct body {
	int references;
	cudnnBackendDescriptorType_t type;
	bool finalised;
	struct value values[VALUES_MAX];
	int values_count;
	void *made; /* at finalisation: struct program of a graph, struct choice of an engine and a plan */
};

struct attribute_rule {
	cudnnBackendDescriptorType_t descriptor;
	cudnnBackendAttributeName_t name;
	cudnnBackendAttributeType_t type;
	int count_max; /* elements; 0: any number, of text */
	enum { OPTIONAL, NEEDED, READ_ONLY } use;
	int of;        /* what descriptor it is; -1 */
	int operand;   /* of an operation; -1 */
	const char *text;
};

const struct attribute_rule *attribute_find(cudnnBackendDescriptorType_t descriptor, cudnnBackendAttributeName_t name);
/* The rules of one descriptor, one after the other; NULL at the end. Start with NULL. */
const struct attribute_rule *attribute_next(cudnnBackendDescriptorType_t descriptor, const struct attribute_rule *rule);
size_t attribute_type_bytes(cudnnBackendAttributeType_t type);
const char *descriptor_name(cudnnBackendDescriptorType_t type);

const struct value *body_value(const struct body *body, cudnnBackendAttributeName_t name); /* NULL: not set */
struct body *body_of(const struct body *body, cudnnBackendAttributeName_t name);           /* the first descriptor of it; NULL */
int64_t body_integer(const struct body *body, cudnnBackendAttributeName_t name, int64_t otherwise);
bool body_flag(const struct body *body, cudnnBackendAttributeName_t name);
struct body *body_create(cudnnBackendDescriptorType_t type);
struct body *body_retain(struct body *body);
void body_release(struct body *body);
/* Copies the elements; of descriptors their references are taken over. */
void body_store(struct body *body, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void *elements);

bool descriptor_lives(cudnnBackendDescriptor_t descriptor);
/* Of a living descriptor of that type that is finalised. Aborts when it was destroyed. */
cudnnStatus_t descriptor_body(cudnnBackendDescriptor_t descriptor, cudnnBackendDescriptorType_t type, struct body **body);

/* The body is complete: computes what follows from it. */
cudnnStatus_t body_finalise(struct body *body);
cudnnStatus_t tensor_check(const struct body *tensor);
cudnnStatus_t convolution_check(const struct body *convolution);
cudnnStatus_t operation_check(const struct body *operation);
cudnnStatus_t program_make(const struct body *graph, struct program *program);

/* 80 for 8.0; 0: no device. */
int device_sm(int device);
/* The architecture that a finalised DEVICEPROP descriptor tells. */
int body_sm(const struct body *deviceprop);
int handle_sm(cudnnHandle_t handle);

/* --- arithmetic -------------------------------------------------------------------------------------------------------- */

void elements_load(int32_t type, const void *from, int64_t count, float *to);
void elements_store(int32_t type, const float *from, int64_t count, void *to); /* rounded to nearest even */
void elements_round(int32_t type, float *values, int64_t count);               /* as storing and loading would */
void elements_round_tf32(float *values, int64_t count);

/* values[i]: of tensor i. */
void identity_run(const struct program *program, const struct program_operation *operation, float *const values[]);

struct convolution {
	int64_t N, H, W, C, K, R, S, P, Q;
	int32_t stride[2], pre[2];
	bool any_order; /* partial sums are added in a random order: another one each time */
};
/* x (N, H, W, C), w (K, R, S, C), y (N, P, Q, K); sums in fp32. False: no memory. */
bool convolve_forward(const struct convolution *convolution, const float *x, const float *w, float *y);
bool convolve_dx(const struct convolution *convolution, const float *dy, const float *w, float *dx);
bool convolve_dw(const struct convolution *convolution, const float *x, const float *dy, float *dw);
