/* tensor.h: a tensor in somebody's bytes: element type, shape, strides, place. The one list of element types.
 *
 * Views do not own data. Elements are little-endian and need not be aligned. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, bytes of an element, word in safetensors, word in torch ("torch.float32"), torch's storage class (NULL: has none). */
#define DTYPE_LIST(X) \
	X(DTYPE_F32, 4, "F32", "float32", "FloatStorage") \
	X(DTYPE_F16, 2, "F16", "float16", "HalfStorage") \
	X(DTYPE_BF16, 2, "BF16", "bfloat16", "BFloat16Storage") \
	X(DTYPE_F64, 8, "F64", "float64", "DoubleStorage") \
	X(DTYPE_I64, 8, "I64", "int64", "LongStorage") \
	X(DTYPE_I32, 4, "I32", "int32", "IntStorage") \
	X(DTYPE_I16, 2, "I16", "int16", "ShortStorage") \
	X(DTYPE_I8, 1, "I8", "int8", "CharStorage") \
	X(DTYPE_U64, 8, "U64", "uint64", NULL) \
	X(DTYPE_U32, 4, "U32", "uint32", NULL) \
	X(DTYPE_U16, 2, "U16", "uint16", NULL) \
	X(DTYPE_U8, 1, "U8", "uint8", "ByteStorage") \
	X(DTYPE_BOOL, 1, "BOOL", "bool", "BoolStorage")

enum dtype {
#define X(name, bytes, word, torch_word, storage) name,
	DTYPE_LIST(X)
#undef X
	DTYPE_COUNT
};

size_t dtype_bytes(enum dtype dtype);
const char *dtype_word(enum dtype dtype);          /* "F32" */
const char *dtype_torch_word(enum dtype dtype);    /* "float32" */
const char *dtype_torch_storage(enum dtype dtype); /* "FloatStorage", or NULL */

enum { TENSOR_RANK_MAX = 8, TENSOR_NAME_BYTES_MAX = 512, TENSORS_MAX = 1 << 16 };

struct tensor_view {
	const char *name;
	enum dtype dtype;
	int rank; /* 0: a scalar */
	int64_t shape[TENSOR_RANK_MAX];
	int64_t stride[TENSOR_RANK_MAX]; /* in elements, ≥ 0; 0 repeats */
	const uint8_t *data;             /* element (0, 0, …); may be NULL when there are none */
};

/* A view of `rank` dimensions in C order over `data`. */
struct tensor_view tensor_view_make(const char *name, enum dtype dtype, int rank, const int64_t *shape, const void *data);

/* Product of the shape. False if a dimension is negative or the bytes would not fit in 63 bits. */
bool tensor_count(const struct tensor_view *view, int64_t *count);
/* True if the elements lie in C order without gaps. */
bool tensor_is_contiguous(const struct tensor_view *view);
bool tensor_same_shape(const struct tensor_view *view, int rank, const int64_t *shape);
/* "[64, 3, 7, 7]", "[]" for a scalar; cut to `bytes`. */
void tensor_shape_text(int rank, const int64_t *shape, char *text, size_t bytes);

/* Writes the elements in C order as floats: F32 bit for bit, F16 and BF16 exactly, F64 rounded to nearest. `floats` has room for
 * tensor_count. ST_DATA for other element types. */
enum status tensor_read_floats(const struct tensor_view *view, float *floats);
/* The one element of a whole-number type. ST_DATA if there is more than one or it is of another type or too large. */
enum status tensor_read_integer(const struct tensor_view *view, int64_t *value);

float float_from_f16(uint16_t bits);
float float_from_bf16(uint16_t bits);

/* Named tensors of one file, in file order. Names are the list's own, distinct and printable UTF-8 without control characters. */
struct tensor_list {
	struct tensor_view *views;
	size_t count, capacity;
	void **blocks; /* memory that views point into when it is not the file's bytes: see tensor_list_own */
	size_t blocks_count;
};

/* Appends `view` under the name bytes[name_count]. `file` goes into sentences. ST_DATA when the name is empty, too long or not
 * printable, or the list is full; ST_MEMORY. */
enum status tensor_list_add(struct tensor_list *list, const char *file, const void *name, size_t name_count, struct tensor_view view);
/* Hands over malloc'ed memory that views point into, to be freed with the list. ST_MEMORY: it is still the caller's. */
enum status tensor_list_own(struct tensor_list *list, void *block);
/* ST_DATA if a name occurs twice. */
enum status tensor_list_check_names(const struct tensor_list *list, const char *file);
/* NULL if there is none of that name. */
const struct tensor_view *tensor_list_find(const struct tensor_list *list, const char *name);
void tensor_list_free(struct tensor_list *list);
