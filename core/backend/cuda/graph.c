/* graph.c: see graph.h. */
#include "core/backend/cuda/graph.h"

#include <inttypes.h>

static enum status numbers_print(const int *numbers, size_t count, struct text *text)
{
	for (size_t i = 0; i < count; i++)
		TRY(text_printf(text, " %d", numbers[i]));
	return ST_OK;
}

enum status graph_print(const struct graph *graph, struct text *text)
{
	for (int i = 0; i < graph->tensors_count; i++) {
		const struct graph_tensor *t = &graph->tensors[i];
		TRY(text_printf(text, "tensor %d: %d, %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "%s%s\n", i, (int)t->element, t->dims[0], t->dims[1], t->dims[2],
			t->dims[3], t->is_virtual ? ", virtual" : "", t->by_value ? ", by value" : ""));
	}
	for (int i = 0; i < graph->operations_count; i++) {
		const struct graph_operation *o = &graph->operations[i];
		TRY(text_printf(text, "operation %d, stride %d, padding %d %d %d %d:", (int)o->kind, o->stride, o->pad_top, o->pad_left, o->pad_bottom, o->pad_right));
		TRY(numbers_print(o->in, sizeof o->in / sizeof o->in[0], text));
		TRY(text_add(text, " ->"));
		TRY(numbers_print(o->out, sizeof o->out / sizeof o->out[0], text));
		TRY(text_add(text, "\n"));
	}
	return ST_OK;
}
