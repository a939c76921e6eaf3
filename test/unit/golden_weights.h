/* golden_weights.h: what the files of test/golden/weights hold; the rule is rule.py's. For the tests that read them. */
#pragma once

#include "core/base/file.h"
#include "core/format/tensor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GOLDEN "test/golden/weights/"

static const struct {
	const char *name;
	int rank;
	int64_t shape[4];
} golden_tensors[] = {{"conv.weight", 4, {4, 2, 3, 3}}, {"norm.weight", 1, {4}}, {"fc.weight", 2, {3, 4}}, {"empty", 2, {0, 5}}, {"scalar", 0, {0}}};
enum { GOLDEN_TENSORS = 5, GOLDEN_COUNTER = 7 };

static inline float golden_value(int k, int64_t i)
{
	return (float)((7 * i + 13 * k) % 61 - 30) / 4;
}

/* All six tensors, with this type, under their plain names. */
static inline void golden_check(const struct tensor_list *list, enum dtype dtype)
{
	assert_int_equal(list->count, GOLDEN_TENSORS + 1);
	for (int k = 0; k < GOLDEN_TENSORS; k++) {
		const struct tensor_view *view = tensor_list_find(list, golden_tensors[k].name);
		assert_non_null(view);
		assert_int_equal(view->dtype, dtype);
		assert_true(tensor_same_shape(view, golden_tensors[k].rank, golden_tensors[k].shape));
		int64_t count = -1;
		float floats[73];
		assert_true(tensor_count(view, &count) && count <= 72);
		floats[count] = 12345.0f;
		assert_int_equal(tensor_read_floats(view, floats), ST_OK);
		for (int64_t i = 0; i < count; i++)
			assert_true(floats[i] == golden_value(k, i));
		assert_true(floats[count] == 12345.0f);
	}
	int64_t counter = 0;
	assert_non_null(tensor_list_find(list, "counter"));
	assert_int_equal(tensor_read_integer(tensor_list_find(list, "counter"), &counter), ST_OK);
	assert_int_equal(counter, GOLDEN_COUNTER);
}

static inline void golden_read(const char *path, uint8_t **bytes, size_t *count)
{
	if (file_read(path, 1 << 20, bytes, count) != ST_OK)
		fail_msg("%s", status_message());
}

typedef enum status tensors_reader(const char *file, const uint8_t *bytes, size_t count, struct tensor_list *list);

/* Reads a copy that has no spare byte behind it, touches every element, and says what came of it. */
static inline enum status read_copy(tensors_reader *reader, const uint8_t *bytes, size_t count)
{
	struct tensor_list list = {0};
	uint8_t *copy = malloc(count > 0 ? count : 1);
	assert_non_null(copy);
	memcpy(copy, bytes, count);
	enum status status = reader("copy", copy, count, &list);
	for (size_t i = 0; i < list.count && status == ST_OK; i++) {
		int64_t elements = 0;
		assert_true(tensor_count(&list.views[i], &elements));
		float *floats = elements <= 1 << 16 ? malloc(((size_t)elements + 1) * sizeof *floats) : NULL;
		if (floats != NULL)
			(void)tensor_read_floats(&list.views[i], floats);
		free(floats);
	}
	tensor_list_free(&list);
	free(copy);
	return status;
}

/* Every shorter file is refused with a sentence (a byte that is padding at the end apart: `slack`). */
static inline void every_truncation_fails_for(tensors_reader *reader, const char *path)
{
	uint8_t *bytes;
	size_t count;
	golden_read(path, &bytes, &count);
	for (size_t cut = 0; cut < count; cut++) {
		if (read_copy(reader, bytes, cut) != ST_DATA)
			fail_msg("%s cut to %zu of %zu bytes was read", path, cut, count);
		assert_true(strlen(status_message()) > 10);
	}
	free(bytes);
}

/* No bit flip hurts; most are noticed. Returns how many were. */
static inline size_t every_bit_flip_is_survived_by(tensors_reader *reader, const char *path, size_t *bits)
{
	uint8_t *bytes;
	size_t count, noticed = 0;
	golden_read(path, &bytes, &count);
	for (size_t bit = 0; bit < count * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		noticed += read_copy(reader, bytes, count) != ST_OK;
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	*bits = count * 8;
	free(bytes);
	return noticed;
}
