/* tensor.c: see tensor.h. */
#include "core/format/tensor.h"

#include "core/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	size_t bytes;
	const char *word, *torch_word, *torch_storage;
} dtypes[DTYPE_COUNT] = {
#define X(name, bytes, word, torch_word, storage) [name] = {bytes, word, torch_word, storage},
	DTYPE_LIST(X)
#undef X
};

size_t dtype_bytes(enum dtype dtype)
{
	return dtypes[dtype].bytes;
}

const char *dtype_word(enum dtype dtype)
{
	return dtypes[dtype].word;
}

const char *dtype_torch_word(enum dtype dtype)
{
	return dtypes[dtype].torch_word;
}

const char *dtype_torch_storage(enum dtype dtype)
{
	return dtypes[dtype].torch_storage;
}

/* The stride of dimension k in C order: the product of the dimensions after it, counting empty ones as 1 as torch does. */
static void strides_fill(const int64_t *shape, int rank, int64_t *stride)
{
	int64_t product = 1;
	for (int k = rank - 1; k >= 0; k--) {
		stride[k] = product;
		product *= shape[k] > 1 ? shape[k] : 1;
	}
}

struct tensor_view tensor_view_make(const char *name, enum dtype dtype, int rank, const int64_t *shape, const void *data)
{
	MUST(rank >= 0 && rank <= TENSOR_RANK_MAX);
	struct tensor_view view = {.name = name, .dtype = dtype, .rank = rank, .data = data};
	for (int k = 0; k < rank; k++)
		view.shape[k] = shape[k];
	strides_fill(shape, rank, view.stride);
	return view;
}

bool tensor_count(const struct tensor_view *view, int64_t *count)
{
	/* Empty dimensions count as 1 first: [0, 2^62, 2^62] must not pass where its strides would wrap. */
	int64_t product = (int64_t)dtype_bytes(view->dtype);
	bool empty = false;
	for (int k = 0; k < view->rank; k++) {
		if (view->shape[k] < 0 || __builtin_mul_overflow(product, view->shape[k] > 1 ? view->shape[k] : 1, &product))
			return false;
		empty = empty || view->shape[k] == 0;
	}
	*count = empty ? 0 : product / (int64_t)dtype_bytes(view->dtype);
	return true;
}

bool tensor_is_contiguous(const struct tensor_view *view)
{
	int64_t wanted[TENSOR_RANK_MAX];
	strides_fill(view->shape, view->rank, wanted);
	for (int k = 0; k < view->rank; k++)
		if (view->shape[k] > 1 && view->stride[k] != wanted[k])
			return false;
	return true;
}

bool tensor_same_shape(const struct tensor_view *view, int rank, const int64_t *shape)
{
	if (view->rank != rank)
		return false;
	for (int k = 0; k < rank; k++)
		if (view->shape[k] != shape[k])
			return false;
	return true;
}

void tensor_shape_text(int rank, const int64_t *shape, char *text, size_t bytes)
{
	char line[TENSOR_RANK_MAX * 24 + 4];
	size_t length = (size_t)snprintf(line, sizeof line, "[");
	for (int k = 0; k < rank; k++)
		length += (size_t)snprintf(line + length, sizeof line - length, "%s%lld", k > 0 ? ", " : "", (long long)shape[k]);
	snprintf(text, bytes, "%s]", line);
}

float float_from_bf16(uint16_t bits)
{
	uint32_t wide = (uint32_t)bits << 16;
	float value;
	memcpy(&value, &wide, sizeof value);
	return value;
}

float float_from_f16(uint16_t bits)
{
	uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3FF, wide;
	if (exponent == 31) {
		wide = sign | 0x7F800000 | fraction << 13;
	} else if (exponent > 0) {
		wide = sign | (exponent + 112) << 23 | fraction << 13;
	} else {
		/* Zero or subnormal: fraction · 2^-24, exact in fp32. */
		float small = (float)fraction * 0x1p-24f;
		memcpy(&wide, &small, sizeof wide);
		wide |= sign;
	}
	float value;
	memcpy(&value, &wide, sizeof value);
	return value;
}

static float element_float(enum dtype dtype, const uint8_t *data)
{
	float value;
	double wide;
	uint16_t half;
	switch (dtype) {
	case DTYPE_F32:
		memcpy(&value, data, sizeof value);
		return value;
	case DTYPE_F64:
		memcpy(&wide, data, sizeof wide);
		return (float)wide;
	case DTYPE_F16:
		memcpy(&half, data, sizeof half);
		return float_from_f16(half);
	default:
		MUST(dtype == DTYPE_BF16);
		memcpy(&half, data, sizeof half);
		return float_from_bf16(half);
	}
}

enum status tensor_read_floats(const struct tensor_view *view, float *floats)
{
	int64_t count;
	if (view->dtype != DTYPE_F32 && view->dtype != DTYPE_F16 && view->dtype != DTYPE_BF16 && view->dtype != DTYPE_F64)
		return FAIL(ST_DATA, "tensor \"%s\" has elements of type %s; weights must be F32, F16, BF16 or F64", view->name, dtype_word(view->dtype));
	MUST(tensor_count(view, &count));
	if (view->dtype == DTYPE_F32 && tensor_is_contiguous(view)) {
		if (count > 0)
			memcpy(floats, view->data, (size_t)count * sizeof *floats);
		return ST_OK;
	}
	int64_t index[TENSOR_RANK_MAX] = {0}, place = 0;
	for (int64_t i = 0; i < count; i++) {
		floats[i] = element_float(view->dtype, view->data + (size_t)place * dtype_bytes(view->dtype));
		/* The next index in C order, last dimension fastest. */
		for (int k = view->rank - 1; k >= 0; k--) {
			place += view->stride[k];
			if (++index[k] < view->shape[k])
				break;
			place -= index[k] * view->stride[k];
			index[k] = 0;
		}
	}
	return ST_OK;
}

enum status tensor_read_integer(const struct tensor_view *view, int64_t *value)
{
	int64_t count;
	bool is_signed = view->dtype == DTYPE_I64 || view->dtype == DTYPE_I32 || view->dtype == DTYPE_I16 || view->dtype == DTYPE_I8;
	bool is_unsigned = view->dtype == DTYPE_U64 || view->dtype == DTYPE_U32 || view->dtype == DTYPE_U16 || view->dtype == DTYPE_U8;
	MUST(tensor_count(view, &count));
	if (count != 1 || (!is_signed && !is_unsigned)) {
		char shape[200];
		tensor_shape_text(view->rank, view->shape, shape, sizeof shape);
		return FAIL(ST_DATA, "tensor \"%s\" is %s of type %s, expected one whole number", view->name, shape, dtype_word(view->dtype));
	}
	size_t bytes = dtype_bytes(view->dtype);
	uint64_t bits = 0;
	memcpy(&bits, view->data, bytes);
	if (is_signed && bytes < 8 && bits >> (8 * bytes - 1) != 0)
		bits |= UINT64_MAX << 8 * bytes;
	int64_t integer;
	memcpy(&integer, &bits, sizeof integer);
	if (is_unsigned && integer < 0)
		return FAIL(ST_DATA, "tensor \"%s\" holds %llu, a whole number that is too large", view->name, (unsigned long long)bits);
	*value = integer;
	return ST_OK;
}

enum status tensor_list_add(struct tensor_list *list, const char *file, const void *name, size_t name_count, struct tensor_view view)
{
	if (name_count == 0 || name_count > TENSOR_NAME_BYTES_MAX)
		return FAIL(ST_DATA, "%s: a tensor's name has %zu bytes, expected 1 to %d", file, name_count, TENSOR_NAME_BYTES_MAX);
	if (list->count >= TENSORS_MAX)
		return FAIL(ST_DATA, "%s: more than %d tensors", file, TENSORS_MAX);
	if (list->count == list->capacity) {
		size_t capacity = list->capacity == 0 ? 256 : list->capacity * 2;
		struct tensor_view *larger = realloc(list->views, capacity * sizeof *larger);
		if (larger == NULL)
			return FAIL(ST_MEMORY, "%s: no memory for %zu tensors", file, capacity);
		list->views = larger;
		list->capacity = capacity;
	}
	char *copy = malloc(name_count + 1), printable[TENSOR_NAME_BYTES_MAX + 1];
	if (copy == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for a tensor's name", file);
	memcpy(copy, name, name_count);
	copy[name_count] = '\0';
	text_printable(copy, printable, sizeof printable);
	if (strlen(copy) != name_count || strcmp(copy, printable) != 0) {
		free(copy);
		return FAIL(ST_DATA, "%s: the tensor name \"%s\" holds control characters or bytes that are not UTF-8", file, printable);
	}
	view.name = copy;
	list->views[list->count++] = view;
	return ST_OK;
}

enum status tensor_list_own(struct tensor_list *list, void *block)
{
	void **larger = realloc(list->blocks, (list->blocks_count + 1) * sizeof *larger);
	if (larger == NULL)
		return FAIL(ST_MEMORY, "no memory for %zu tensors' places", list->blocks_count + 1);
	larger[list->blocks_count++] = block;
	list->blocks = larger;
	return ST_OK;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

enum status tensor_list_check_names(const struct tensor_list *list, const char *file)
{
	if (list->count == 0)
		return ST_OK;
	const char **names = malloc(list->count * sizeof *names);
	if (names == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for %zu names", file, list->count);
	for (size_t i = 0; i < list->count; i++)
		names[i] = list->views[i].name;
	qsort(names, list->count, sizeof *names, compare_names);
	enum status status = ST_OK;
	for (size_t i = 1; i < list->count && status == ST_OK; i++)
		if (strcmp(names[i - 1], names[i]) == 0)
			status = FAIL(ST_DATA, "%s: two tensors are called \"%s\"", file, names[i]);
	free(names);
	return status;
}

const struct tensor_view *tensor_list_find(const struct tensor_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->views[i].name, name) == 0)
			return &list->views[i];
	return NULL;
}

void tensor_list_free(struct tensor_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free((char *)(uintptr_t)list->views[i].name);
	for (size_t i = 0; i < list->blocks_count; i++)
		free(list->blocks[i]);
	free(list->blocks);
	free(list->views);
	*list = (struct tensor_list){0};
}
