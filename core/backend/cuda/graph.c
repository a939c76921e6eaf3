/* graph.c: see graph.h. */
#include "core/backend/cuda/graph.h"

#include <inttypes.h>

enum status graph_print(const struct graph *graph, struct text *text)
{
	for (int i = 0; i < graph->tensors_count; i++) {
		const struct graph_tensor *t = &graph->tensors[i];
		TRY(text_printf(text, "tensor %d: %d, %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "%s\n", i, (int)t->element, t->dims[0], t->dims[1], t->dims[2],
			t->dims[3], t->is_virtual ? ", virtual" : ""));
	}
	for (int i = 0; i < graph->operations_count; i++) {
		const struct graph_operation *o = &graph->operations[i];
		if (o->kind == GRAPH_IDENTITY)
			TRY(text_printf(text, "operation %d: %d -> %d\n", (int)o->kind, o->in[0], o->out));
		else
			TRY(text_printf(text, "operation %d, stride %d, padding %d %d %d %d: %d %d -> %d\n", (int)o->kind, o->stride, o->pad_top, o->pad_left, o->pad_bottom,
				o->pad_right, o->in[0], o->in[1], o->out));
	}
	return ST_OK;
}
