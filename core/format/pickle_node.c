/* pickle_node.c: looking at an unpickled graph; see pickle.h. */
#include "core/format/pickle_node.h"

#include "core/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pickle_free(struct pickle *pickle)
{
	if (pickle == NULL)
		return;
	while (pickle->chunks != NULL) {
		struct chunk *next = pickle->chunks->next;
		free(pickle->chunks);
		pickle->chunks = next;
	}
	free(pickle->persistent);
	free(pickle);
}

const struct pickle_node *pickle_root(const struct pickle *pickle)
{
	return pickle->root;
}

const struct pickle_node *pickle_persistent(const struct pickle *pickle, size_t i)
{
	return i < pickle->persistent_count ? pickle->persistent[i] : NULL;
}

enum pickle_kind pickle_kind(const struct pickle_node *node)
{
	return node == NULL ? PICKLE_ABSENT : node->kind;
}

const char *pickle_kind_name(enum pickle_kind kind)
{
	static const char *const names[] = {
		"nothing", "None", "bool", "int", "a very wide int", "float", "text", "bytes", "list", "tuple", "set", "dict", "a global", "a persistent id", "an object",
	};
	return names[kind];
}

bool pickle_bool(const struct pickle_node *node, bool *value)
{
	if (pickle_kind(node) != PICKLE_BOOL)
		return false;
	*value = node->boolean;
	return true;
}

bool pickle_int(const struct pickle_node *node, int64_t *value)
{
	if (pickle_kind(node) != PICKLE_INT)
		return false;
	*value = node->integer;
	return true;
}

bool pickle_float(const struct pickle_node *node, double *value)
{
	if (pickle_kind(node) != PICKLE_FLOAT)
		return false;
	*value = node->real;
	return true;
}

bool pickle_string(const struct pickle_node *node, const uint8_t **bytes, size_t *count)
{
	if (pickle_kind(node) != PICKLE_TEXT && pickle_kind(node) != PICKLE_BYTES)
		return false;
	*bytes = node->bytes;
	*count = node->bytes_count;
	return true;
}

bool pickle_string_is(const struct pickle_node *node, const char *text)
{
	const uint8_t *bytes;
	size_t count;
	return pickle_string(node, &bytes, &count) && count == strlen(text) && memcmp(bytes, text, count) == 0;
}

static bool is_sequence(const struct pickle_node *node)
{
	enum pickle_kind kind = pickle_kind(node);
	return kind == PICKLE_LIST || kind == PICKLE_TUPLE || kind == PICKLE_SET;
}

size_t pickle_count(const struct pickle_node *node)
{
	if (pickle_kind(node) == PICKLE_DICT)
		return node->count / 2;
	return is_sequence(node) ? node->count : 0;
}

const struct pickle_node *pickle_item(const struct pickle_node *node, size_t i)
{
	return is_sequence(node) && i < node->count ? node->items[i] : NULL;
}

const struct pickle_node *pickle_key(const struct pickle_node *node, size_t i)
{
	return pickle_kind(node) == PICKLE_DICT && i < node->count / 2 ? node->items[2 * i] : NULL;
}

const struct pickle_node *pickle_value(const struct pickle_node *node, size_t i)
{
	return pickle_kind(node) == PICKLE_DICT && i < node->count / 2 ? node->items[2 * i + 1] : NULL;
}

const struct pickle_node *pickle_find(const struct pickle_node *node, const char *key)
{
	for (size_t i = pickle_count(node); i-- > 0;)
		if (pickle_string_is(pickle_key(node, i), key))
			return pickle_value(node, i);
	return NULL;
}

/* Part `i` of a node of that kind. */
static const struct pickle_node *part(const struct pickle_node *node, enum pickle_kind kind, size_t i)
{
	return pickle_kind(node) == kind ? node->items[i] : NULL;
}

const struct pickle_node *pickle_global_module(const struct pickle_node *node)
{
	return part(node, PICKLE_GLOBAL, 0);
}

const struct pickle_node *pickle_global_name(const struct pickle_node *node)
{
	return part(node, PICKLE_GLOBAL, 1);
}

bool pickle_is_global(const struct pickle_node *node, const char *module, const char *name)
{
	return pickle_string_is(pickle_global_module(node), module) && pickle_string_is(pickle_global_name(node), name);
}

const struct pickle_node *pickle_callable(const struct pickle_node *node)
{
	return part(node, PICKLE_OBJECT, 0);
}

const struct pickle_node *pickle_arguments(const struct pickle_node *node)
{
	return part(node, PICKLE_OBJECT, 1);
}

bool pickle_calls(const struct pickle_node *node, const char *module, const char *name)
{
	return pickle_is_global(pickle_callable(node), module, name);
}

const struct pickle_node *pickle_state(const struct pickle_node *node)
{
	return node == NULL ? NULL : node->state;
}

const struct pickle_node *pickle_persistent_id(const struct pickle_node *node)
{
	return part(node, PICKLE_PERSISTENT, 0);
}

void pickle_describe(const struct pickle_node *node, char *text, size_t bytes)
{
	bool called = pickle_kind(node) == PICKLE_OBJECT;
	const struct pickle_node *global = called ? pickle_callable(node) : node;
	const uint8_t *module, *name;
	size_t module_count, name_count;
	char line[256];
	if (pickle_string(pickle_global_module(global), &module, &module_count) && pickle_string(pickle_global_name(global), &name, &name_count))
		snprintf(line, sizeof line, "%.*s.%.*s%s", (int)(module_count < 100 ? module_count : 100), (const char *)module,
			(int)(name_count < 100 ? name_count : 100), (const char *)name, called ? "(…)" : "");
	else
		snprintf(line, sizeof line, "%s", pickle_kind_name(pickle_kind(node)));
	text_printable(line, text, bytes);
}
