/* Any bytes as a pickle: parsed or refused, and every node that comes out can be looked at. Seeds: one object in all six protocols. */
#include "core/format/pickle.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* Looks at a node with every accessor; returns its children one level down by turns. */
static const struct pickle_node *look(const struct pickle_node *node, unsigned turn)
{
	bool flag;
	int64_t integer;
	double real;
	const uint8_t *string;
	size_t string_count;
	char text[64];
	static volatile uint8_t sink;
	pickle_describe(node, text, sizeof text);
	(void)pickle_kind_name(pickle_kind(node));
	(void)pickle_bool(node, &flag);
	(void)pickle_int(node, &integer);
	(void)pickle_float(node, &real);
	if (pickle_string(node, &string, &string_count))
		for (size_t i = 0; i < string_count; i++)
			sink = (uint8_t)(sink ^ string[i]);
	(void)pickle_find(node, "a");
	(void)pickle_calls(node, "collections", "OrderedDict");
	size_t i = pickle_count(node) > 0 ? turn % pickle_count(node) : 0;
	const struct pickle_node *next[] = {pickle_item(node, i), pickle_value(node, i), pickle_key(node, i), pickle_arguments(node), pickle_callable(node),
		pickle_state(node), pickle_persistent_id(node), pickle_global_name(node)};
	for (size_t k = 0; k < sizeof next / sizeof *next; k++)
		if (next[(k + turn) % (sizeof next / sizeof *next)] != NULL)
			return next[(k + turn) % (sizeof next / sizeof *next)];
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct pickle *pickle;
	size_t used;
	if (pickle_parse("input", bytes, count, &pickle, &used) != ST_OK)
		return 0;
	if (used > count)
		abort();
	/* A graph may be cyclic: walk a few paths to a known depth. */
	for (unsigned path = 0; path < 16; path++) {
		const struct pickle_node *node = pickle_root(pickle);
		for (unsigned depth = 0; depth < 32 && node != NULL; depth++)
			node = look(node, path * 7 + depth);
	}
	for (size_t i = 0; pickle_persistent(pickle, i) != NULL; i++)
		(void)look(pickle_persistent(pickle, i), 0);
	pickle_free(pickle);
	return 0;
}
