/* pickle.c: see pickle.h. The opcodes of Python's pickletools, with data in place of every action. */
#include "core/format/pickle.h"

#include "core/format/pickle_literal.h"
#include "core/format/pickle_machine.h"

#include <stdlib.h>
#include <string.h>

static enum status push_kind(struct machine *m, enum pickle_kind kind)
{
	struct pickle_node *node;
	TRY(node_make(m, kind, &node));
	return stack_push(m, node);
}

static enum status push_bool(struct machine *m, bool value)
{
	struct pickle_node *node;
	TRY(node_make(m, PICKLE_BOOL, &node));
	node->boolean = value;
	return stack_push(m, node);
}

static enum status push_int(struct machine *m, int64_t value)
{
	struct pickle_node *node;
	TRY(node_make(m, PICKLE_INT, &node));
	node->integer = value;
	return stack_push(m, node);
}

static enum status push_float(struct machine *m, double value)
{
	struct pickle_node *node;
	TRY(node_make(m, PICKLE_FLOAT, &node));
	node->real = value;
	return stack_push(m, node);
}

static enum status push_bytes(struct machine *m, enum pickle_kind kind, const uint8_t *bytes, size_t count)
{
	struct pickle_node *node;
	TRY(node_make(m, kind, &node));
	node->bytes = bytes;
	node->bytes_count = count;
	return stack_push(m, node);
}

/* A string whose length is the next `length_bytes` bytes. */
static enum status push_counted(struct machine *m, enum pickle_kind kind, size_t length_bytes)
{
	uint64_t count;
	const uint8_t *bytes;
	TRY(operand_unsigned(m, length_bytes, &count));
	TRY(operand(m, count, &bytes));
	return push_bytes(m, kind, bytes, (size_t)count);
}

/* Two's complement, little-endian, any width. */
static enum status push_long(struct machine *m, uint64_t count)
{
	const uint8_t *bytes;
	TRY(operand(m, count, &bytes));
	uint64_t fill = count > 0 && bytes[count - 1] & 0x80 ? UINT64_MAX : 0, value = fill;
	bool fits = true;
	for (uint64_t i = count; i-- > 0;) {
		if (i >= 8)
			fits = fits && bytes[i] == (uint8_t)fill;
		else
			value = value << 8 | bytes[i];
	}
	int64_t integer;
	memcpy(&integer, &value, sizeof integer);
	if (!fits || (count > 8 && (integer < 0) != (fill != 0)))
		return push_bytes(m, PICKLE_BIG, bytes, (size_t)count);
	return push_int(m, integer);
}

static enum status push_sequence(struct machine *m, enum pickle_kind kind, struct pickle_node *const *items, size_t count)
{
	struct pickle_node *node;
	TRY(node_make(m, kind, &node));
	TRY(node_append(m, node, items, count));
	return stack_push(m, node);
}

static enum status push_tuple_of(struct machine *m, size_t count)
{
	if (stack_above_mark(m) < count)
		return machine_fail(m, "takes from an empty stack");
	m->stack_count -= count;
	return push_sequence(m, PICKLE_TUPLE, &m->stack[m->stack_count], count);
}

static enum status push_marked(struct machine *m, enum pickle_kind kind)
{
	struct pickle_node *const *items;
	size_t count;
	TRY(stack_pop_mark(m, &items, &count));
	if (kind == PICKLE_DICT && count % 2 != 0)
		return machine_fail(m, "a key without a value");
	return push_sequence(m, kind, items, count);
}

/* Adds to the container on top; an object that is only described swallows what would be added to it. */
static enum status add_to_top(struct machine *m, enum pickle_kind kind, struct pickle_node *const *items, size_t count)
{
	struct pickle_node *target;
	TRY(stack_top(m, &target));
	if (target->kind == PICKLE_OBJECT || target->kind == PICKLE_GLOBAL)
		return ST_OK;
	if (target->kind != kind)
		return machine_fail(m, "adds to something that cannot hold items");
	if (kind == PICKLE_DICT && count % 2 != 0)
		return machine_fail(m, "a key without a value");
	return node_append(m, target, items, count);
}

static enum status add_last(struct machine *m, enum pickle_kind kind, size_t count)
{
	if (stack_above_mark(m) < count)
		return machine_fail(m, "takes from an empty stack");
	m->stack_count -= count;
	return add_to_top(m, kind, &m->stack[m->stack_count], count);
}

static enum status add_marked(struct machine *m, enum pickle_kind kind)
{
	struct pickle_node *const *items;
	size_t count;
	TRY(stack_pop_mark(m, &items, &count));
	return add_to_top(m, kind, items, count);
}

static enum status push_global(struct machine *m)
{
	const uint8_t *module, *name;
	size_t module_count, name_count;
	TRY(operand_line(m, &module, &module_count));
	TRY(operand_line(m, &name, &name_count));
	struct pickle_node *words[2];
	TRY(node_make(m, PICKLE_TEXT, &words[0]));
	TRY(node_make(m, PICKLE_TEXT, &words[1]));
	words[0]->bytes = module;
	words[0]->bytes_count = module_count;
	words[1]->bytes = name;
	words[1]->bytes_count = name_count;
	return push_sequence(m, PICKLE_GLOBAL, words, 2);
}

static enum status push_stack_global(struct machine *m)
{
	struct pickle_node *words[2];
	TRY(stack_pop(m, &words[1]));
	TRY(stack_pop(m, &words[0]));
	if (words[0]->kind != PICKLE_TEXT || words[1]->kind != PICKLE_TEXT)
		return machine_fail(m, "a global whose module and name are not text");
	return push_sequence(m, PICKLE_GLOBAL, words, 2);
}

static enum status push_persistent(struct machine *m)
{
	struct pickle_node *id;
	TRY(stack_pop(m, &id));
	TRY(push_sequence(m, PICKLE_PERSISTENT, &id, 1));
	void *listed = m->pickle->persistent;
	TRY(array_grow(m, &listed, m->pickle->persistent_count, &m->pickle->persistent_capacity, sizeof *m->pickle->persistent));
	m->pickle->persistent = listed;
	return stack_top(m, &m->pickle->persistent[m->pickle->persistent_count++]);
}

/* Python's dict classes are data, not calls. Their one argument may be a list of [key, value] (Python 2's OrderedDict). */
static bool is_dict_class(const struct pickle_node *callable)
{
	return pickle_is_global(callable, "collections", "OrderedDict") || pickle_is_global(callable, "collections", "defaultdict") ||
		pickle_is_global(callable, "collections", "Counter");
}

static enum status push_dict_from_pairs(struct machine *m, const struct pickle_node *arguments)
{
	struct pickle_node *dict;
	TRY(node_make(m, PICKLE_DICT, &dict));
	const struct pickle_node *pairs = pickle_item(arguments, 0);
	if (pickle_kind(pairs) == PICKLE_LIST) {
		for (size_t i = 0; i < pairs->count; i++) {
			const struct pickle_node *pair = pairs->items[i];
			if (pickle_count(pair) != 2 || pair->kind == PICKLE_DICT)
				return machine_fail(m, "an OrderedDict of something else than pairs");
			/* The pairs are charged as nodes: one short opcode may name a long list again and again. */
			m->nodes_count++;
			if (m->nodes_count > PICKLE_NODES_MAX)
				return machine_fail(m, "more objects than any file that is read here has");
			struct pickle_node *both[2];
			memcpy(both, pair->items, sizeof both);
			TRY(node_append(m, dict, both, 2));
		}
	}
	return stack_push(m, dict);
}

/* Pops `extra` operands that are not kept, the arguments and the callable; pushes the description of the call. */
static enum status push_call(struct machine *m, size_t extra)
{
	struct pickle_node *parts[2], *dropped;
	for (size_t i = 0; i < extra; i++)
		TRY(stack_pop(m, &dropped));
	TRY(stack_pop(m, &parts[1]));
	TRY(stack_pop(m, &parts[0]));
	if (is_dict_class(parts[0]))
		return push_dict_from_pairs(m, parts[1]);
	return push_sequence(m, PICKLE_OBJECT, parts, 2);
}

static enum status build(struct machine *m)
{
	struct pickle_node *state, *target;
	TRY(stack_pop(m, &state));
	TRY(stack_top(m, &target));
	switch (target->kind) {
	case PICKLE_LIST: case PICKLE_SET: case PICKLE_DICT: case PICKLE_GLOBAL: case PICKLE_OBJECT:
		target->state = state;
		return ST_OK;
	default:
		return machine_fail(m, "gives a state to something that has none");
	}
}

/* The opcodes of protocol 0 that spell values as lines of text. */
static enum status push_literal(struct machine *m, uint8_t opcode)
{
	const uint8_t *line;
	size_t count;
	TRY(operand_line(m, &line, &count));
	if (opcode == 'I' && count == 2 && line[0] == '0' && (line[1] == '0' || line[1] == '1'))
		return push_bool(m, line[1] == '1');
	if (opcode == 'I' || opcode == 'L') {
		int64_t value;
		switch (literal_int(line, count, &value)) {
		case LITERAL_GOOD:
			return push_int(m, value);
		case LITERAL_WIDE:
			return push_bytes(m, PICKLE_BIG, line, count);
		case LITERAL_BAD:
			break;
		}
		return machine_fail(m, "not an integer");
	}
	if (opcode == 'F') {
		double value;
		return literal_float(line, count, &value) ? push_float(m, value) : machine_fail(m, "not a number");
	}
	/* Escapes only ever shrink a byte string; UTF-8 needs at most two bytes for one. */
	uint8_t *decoded = arena_take(m, count * 2);
	if (decoded == NULL)
		return machine_fail_memory(m);
	size_t length;
	bool good = opcode == 'S' ? literal_bytes(line, count, decoded, &length) : literal_unicode(line, count, decoded, &length);
	if (!good)
		return machine_fail(m, "a string with a bad quote or escape");
	return push_bytes(m, opcode == 'S' ? PICKLE_BYTES : PICKLE_TEXT, decoded, length);
}

static enum status memo_line(struct machine *m, bool put)
{
	const uint8_t *line;
	size_t count;
	int64_t index;
	TRY(operand_line(m, &line, &count));
	if (literal_int(line, count, &index) != LITERAL_GOOD || index < 0)
		return machine_fail(m, "not a memo number");
	return put ? memo_put(m, (uint64_t)index) : memo_get(m, (uint64_t)index);
}

static enum status push_mark(struct machine *m)
{
	void *marks = m->marks;
	TRY(array_grow(m, &marks, m->marks_count, &m->marks_capacity, sizeof *m->marks));
	m->marks = marks;
	m->marks[m->marks_count++] = m->stack_count;
	return ST_OK;
}

static enum status step(struct machine *m, uint8_t opcode)
{
	uint64_t value;
	struct pickle_node *node;
	struct pickle_node *const *items;
	size_t count;
	switch (opcode) {
	case 0x80: /* PROTO */
		TRY(operand_unsigned(m, 1, &value));
		return value <= 5 ? ST_OK : machine_fail(m, "a pickle protocol above 5");
	case 0x95: /* FRAME: only a promise about what follows */
		TRY(operand_unsigned(m, 8, &value));
		return value <= m->count - m->at ? ST_OK : machine_fail(m, "cut short: a frame longer than the file");
	case '(': return push_mark(m);
	case '0': /* POP, which also removes a mark that has nothing above it */
		if (stack_above_mark(m) > 0 || m->marks_count == 0)
			return stack_pop(m, &node);
		m->marks_count--;
		return ST_OK;
	case '1': return stack_pop_mark(m, &items, &count);
	case '2': TRY(stack_top(m, &node)); return stack_push(m, node);
	case 'N': return push_kind(m, PICKLE_NONE);
	case 0x88: return push_bool(m, true);
	case 0x89: return push_bool(m, false);
	case 'K': TRY(operand_unsigned(m, 1, &value)); return push_int(m, (int64_t)value);
	case 'M': TRY(operand_unsigned(m, 2, &value)); return push_int(m, (int64_t)value);
	case 'J': return push_long(m, 4);
	case 0x8A: TRY(operand_unsigned(m, 1, &value)); return push_long(m, value);
	case 0x8B:
		TRY(operand_unsigned(m, 4, &value));
		return value <= 256 ? push_long(m, value) : machine_fail(m, "an integer of more than 256 bytes");
	case 'G': {
		uint64_t bits = 0;
		const uint8_t *bytes;
		double real;
		TRY(operand(m, 8, &bytes));
		for (int i = 0; i < 8; i++)
			bits = bits << 8 | bytes[i];
		memcpy(&real, &bits, sizeof real);
		return push_float(m, real);
	}
	case 0x8C: return push_counted(m, PICKLE_TEXT, 1);
	case 'X': return push_counted(m, PICKLE_TEXT, 4);
	case 0x8D: return push_counted(m, PICKLE_TEXT, 8);
	case 'U': return push_counted(m, PICKLE_BYTES, 1);
	case 'T': /* its length is signed: a negative one reads as more than 2 GiB, which Python never wrote */
	case 'B': return push_counted(m, PICKLE_BYTES, 4);
	case 'C': return push_counted(m, PICKLE_BYTES, 1);
	case 0x8E: case 0x96: return push_counted(m, PICKLE_BYTES, 8);
	case ')': return push_kind(m, PICKLE_TUPLE);
	case 0x85: return push_tuple_of(m, 1);
	case 0x86: return push_tuple_of(m, 2);
	case 0x87: return push_tuple_of(m, 3);
	case 't': return push_marked(m, PICKLE_TUPLE);
	case ']': return push_kind(m, PICKLE_LIST);
	case 'l': return push_marked(m, PICKLE_LIST);
	case 'a': return add_last(m, PICKLE_LIST, 1);
	case 'e': return add_marked(m, PICKLE_LIST);
	case '}': return push_kind(m, PICKLE_DICT);
	case 'd': return push_marked(m, PICKLE_DICT);
	case 's': return add_last(m, PICKLE_DICT, 2);
	case 'u': return add_marked(m, PICKLE_DICT);
	case 0x8F: return push_kind(m, PICKLE_SET);
	case 0x91: return push_marked(m, PICKLE_SET);
	case 0x90: return add_marked(m, PICKLE_SET);
	case 'q': TRY(operand_unsigned(m, 1, &value)); return memo_put(m, value);
	case 'r': TRY(operand_unsigned(m, 4, &value)); return memo_put(m, value);
	case 'p': return memo_line(m, true);
	case 0x94: return memo_put(m, m->memo_count);
	case 'h': TRY(operand_unsigned(m, 1, &value)); return memo_get(m, value);
	case 'j': TRY(operand_unsigned(m, 4, &value)); return memo_get(m, value);
	case 'g': return memo_line(m, false);
	case 'c': return push_global(m);
	case 0x93: return push_stack_global(m);
	case 'Q': return push_persistent(m);
	case 'R': case 0x81: return push_call(m, 0);
	case 0x92: return push_call(m, 1);
	case 'b': return build(m);
	case 'I': case 'L': case 'F': case 'S': case 'V': return push_literal(m, opcode);
	default: return machine_fail(m, "an opcode that is not accepted here");
	}
}

static enum status run(struct machine *m)
{
	while (m->at < m->count) {
		m->opcode_at = m->at;
		uint8_t opcode = m->bytes[m->at++];
		if (opcode != '.') {
			TRY(step(m, opcode));
			continue;
		}
		struct pickle_node *root;
		TRY(stack_pop(m, &root));
		m->pickle->root = root;
		return ST_OK;
	}
	return FAIL(ST_DATA, "%s: not a readable pickle: it ends after %zu bytes without STOP", m->name, m->count);
}

enum status pickle_parse(const char *name, const uint8_t *bytes, size_t count, struct pickle **pickle, size_t *used)
{
	struct machine machine = {.name = name, .bytes = bytes, .count = count};
	machine.pickle = calloc(1, sizeof *machine.pickle);
	if (machine.pickle == NULL)
		return machine_fail_memory(&machine);
	enum status status = run(&machine);
	free(machine.stack);
	free(machine.marks);
	free(machine.memo);
	if (status != ST_OK) {
		pickle_free(machine.pickle);
		return status;
	}
	*pickle = machine.pickle;
	if (used != NULL)
		*used = machine.at;
	return ST_OK;
}
