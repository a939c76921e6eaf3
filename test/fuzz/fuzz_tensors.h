/* fuzz_tensors.h: touches every element of every tensor that a reader found. For the fuzzers of weight files. */
#pragma once

#include "core/format/tensor.h"

#include <stdlib.h>

typedef enum status tensors_reader(const char *file, const uint8_t *bytes, size_t count, struct tensor_list *list);

static inline void fuzz_tensors(tensors_reader *reader, const uint8_t *bytes, size_t count)
{
	struct tensor_list list = {0};
	if (reader("input", bytes, count, &list) == ST_OK) {
		for (size_t i = 0; i < list.count; i++) {
			int64_t elements, integer;
			/* A stride of 0 repeats one element without end: such a tensor is only read when its shape is the expected one. */
			if (!tensor_count(&list.views[i], &elements))
				abort();
			float *floats = elements <= 1 << 16 ? malloc(((size_t)elements + 1) * sizeof *floats) : NULL;
			if (floats != NULL)
				(void)tensor_read_floats(&list.views[i], floats);
			free(floats);
			(void)tensor_read_integer(&list.views[i], &integer);
			if (tensor_list_find(&list, list.views[i].name) != &list.views[i])
				abort(); /* names are distinct */
		}
	}
	tensor_list_free(&list);
}
