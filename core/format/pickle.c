/* pickle.c: see pickle.h. The stack machine of Python's pickletools, with data in place of every action. */
#include "core/format/pickle.h"

#include "core/base/text.h"
#include "core/format/pickle_literal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pickle_node {
	enum pickle_kind kind;
	/* LIST, TUPLE, SET: items. DICT: key, value, key, value … GLOBAL: module, name. PERSISTENT: id. OBJECT: callable, arguments. */
	uint32_t count, capacity;
	union {
		bool boolean;
		int64_t integer;
		double real;
		struct {
			const uint8_t *bytes;
			size_t bytes_count;
		};
		const struct pickle_node **items;
	};
	const struct pickle_node *state;
};

/* One arena holds nodes and item arrays: graphs may be cyclic, so nothing smaller can be freed. */
enum { CHUNK_BYTES = 1 << 16 };

struct chunk {
	struct chunk *next;
	size_t used, capacity;
	_Alignas(16) uint8_t bytes[];
};

struct pickle {
	struct chunk *chunks;
	const struct pickle_node *root;
};

/* The memo: open addressing, linear probing. Picklers number from 0 or 1 upwards, so index & mask hardly ever collides; a file
 * whose numbers are chosen to collide is refused instead of being slow. */
enum { MEMO_PROBES_MAX = 64 };

struct memo_entry {
	uint32_t index;
	struct pickle_node *node; /* NULL: free */
};

struct machine {
	const char *name;
	const uint8_t *bytes;
	size_t count, at; /* at: of the next byte to read */
	size_t opcode_at;
	struct pickle *pickle;
	size_t nodes_count;
	struct pickle_node **stack;
	size_t stack_count, stack_capacity;
	size_t *marks; /* stack heights */
	size_t marks_count, marks_capacity;
	struct memo_entry *memo;
	size_t memo_count, memo_capacity; /* capacity: 0 or a power of two */
};

static enum status fail(const struct machine *m, const char *why)
{
	return FAIL(ST_DATA, "%s: not a readable pickle: byte %zu, opcode 0x%02x: %s", m->name, m->opcode_at, m->bytes[m->opcode_at], why);
}

static enum status fail_memory(const struct machine *m)
{
	return FAIL(ST_MEMORY, "%s: no memory for its pickled objects", m->name);
}

/* --- memory --- */

static void *arena_take(struct machine *m, size_t bytes)
{
	bytes = (bytes + 15) & ~(size_t)15;
	struct chunk *chunk = m->pickle->chunks;
	if (chunk == NULL || chunk->capacity - chunk->used < bytes) {
		size_t capacity = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
		chunk = malloc(sizeof *chunk + capacity);
		if (chunk == NULL)
			return NULL;
		chunk->next = m->pickle->chunks;
		chunk->used = 0;
		chunk->capacity = capacity;
		m->pickle->chunks = chunk;
	}
	void *place = chunk->bytes + chunk->used;
	chunk->used += bytes;
	return place;
}

static enum status node_make(struct machine *m, enum pickle_kind kind, struct pickle_node **node)
{
	if (m->nodes_count >= PICKLE_NODES_MAX)
		return fail(m, "more objects than any file that is read here has");
	struct pickle_node *made = arena_take(m, sizeof *made);
	if (made == NULL)
		return fail_memory(m);
	m->nodes_count++;
	*made = (struct pickle_node){.kind = kind};
	*node = made;
	return ST_OK;
}

static enum status node_append(struct machine *m, struct pickle_node *node, struct pickle_node *const *items, size_t count)
{
	if (count > PICKLE_NODES_MAX - node->count)
		return fail(m, "a container with too many items");
	size_t wanted = node->count + count;
	if (wanted > node->capacity) {
		size_t capacity = wanted > (size_t)node->capacity * 2 ? wanted : (size_t)node->capacity * 2;
		const struct pickle_node **larger = arena_take(m, capacity * sizeof(struct pickle_node *));
		if (larger == NULL)
			return fail_memory(m);
		if (node->count > 0)
			memcpy(larger, node->items, node->count * sizeof(struct pickle_node *));
		node->items = larger;
		node->capacity = (uint32_t)capacity;
	}
	for (size_t i = 0; i < count; i++)
		node->items[node->count + i] = items[i];
	node->count = (uint32_t)wanted;
	return ST_OK;
}

/* Makes room for one more element in a malloc'ed array. */
static enum status grow(const struct machine *m, void **array, size_t count, size_t *capacity, size_t element_bytes)
{
	if (count < *capacity)
		return ST_OK;
	size_t larger = *capacity == 0 ? 256 : *capacity * 2;
	if (larger > PICKLE_NODES_MAX)
		return fail(m, "a deeper stack than any file that is read here needs");
	void *moved = realloc(*array, larger * element_bytes);
	if (moved == NULL)
		return fail_memory(m);
	*array = moved;
	*capacity = larger;
	return ST_OK;
}

/* --- stack --- */

static enum status push(struct machine *m, struct pickle_node *node)
{
	void *stack = m->stack;
	TRY(grow(m, &stack, m->stack_count, &m->stack_capacity, sizeof *m->stack));
	m->stack = stack;
	m->stack[m->stack_count++] = node;
	return ST_OK;
}

/* What may be popped: down to the last mark. */
static size_t stack_above_mark(const struct machine *m)
{
	return m->stack_count - (m->marks_count > 0 ? m->marks[m->marks_count - 1] : 0);
}

static enum status pop(struct machine *m, struct pickle_node **node)
{
	if (stack_above_mark(m) == 0)
		return fail(m, "takes from an empty stack");
	*node = m->stack[--m->stack_count];
	return ST_OK;
}

static enum status top(struct machine *m, struct pickle_node **node)
{
	if (stack_above_mark(m) == 0)
		return fail(m, "looks at an empty stack");
	*node = m->stack[m->stack_count - 1];
	return ST_OK;
}

/* Takes all above the last mark, and the mark. `items` stay valid until the next push. */
static enum status pop_mark(struct machine *m, struct pickle_node *const **items, size_t *count)
{
	if (m->marks_count == 0)
		return fail(m, "needs a mark that is not there");
	size_t mark = m->marks[--m->marks_count];
	*count = m->stack_count - mark;
	*items = m->stack_count > mark ? &m->stack[mark] : NULL;
	m->stack_count = mark;
	return ST_OK;
}

/* --- memo --- */

static struct memo_entry *memo_slot(struct memo_entry *entries, size_t capacity, uint32_t index)
{
	for (size_t probe = 0; probe < MEMO_PROBES_MAX && probe < capacity; probe++) {
		struct memo_entry *entry = &entries[(index + probe) & (capacity - 1)];
		if (entry->node == NULL || entry->index == index)
			return entry;
	}
	return NULL;
}

static enum status memo_put(struct machine *m, uint64_t index)
{
	struct pickle_node *node;
	TRY(top(m, &node));
	if (index > UINT32_MAX)
		return fail(m, "a memo number above 2^32 - 1");
	if (m->memo_count * 2 >= m->memo_capacity) {
		size_t capacity = m->memo_capacity == 0 ? 1024 : m->memo_capacity * 2;
		if (capacity > (size_t)PICKLE_NODES_MAX * 2)
			return fail(m, "more memo entries than any file that is read here has");
		struct memo_entry *larger = calloc(capacity, sizeof *larger);
		if (larger == NULL)
			return fail_memory(m);
		for (size_t i = 0; i < m->memo_capacity; i++) {
			if (m->memo[i].node == NULL)
				continue;
			struct memo_entry *slot = memo_slot(larger, capacity, m->memo[i].index);
			if (slot == NULL) {
				free(larger);
				return fail(m, "memo numbers that no pickler writes");
			}
			*slot = m->memo[i];
		}
		free(m->memo);
		m->memo = larger;
		m->memo_capacity = capacity;
	}
	struct memo_entry *slot = memo_slot(m->memo, m->memo_capacity, (uint32_t)index);
	if (slot == NULL)
		return fail(m, "memo numbers that no pickler writes");
	m->memo_count += slot->node == NULL;
	*slot = (struct memo_entry){.index = (uint32_t)index, .node = node};
	return ST_OK;
}

static enum status memo_get(struct machine *m, uint64_t index)
{
	struct memo_entry *slot = index <= UINT32_MAX ? memo_slot(m->memo, m->memo_capacity, (uint32_t)index) : NULL;
	if (slot == NULL || slot->node == NULL)
		return fail(m, "a memo number that was never set");
	return push(m, slot->node);
}

/* --- operands --- */

static enum status operand(struct machine *m, uint64_t count, const uint8_t **bytes)
{
	if (count > m->count - m->at)
		return fail(m, "cut short: fewer bytes are left than it declares");
	*bytes = m->bytes + m->at;
	m->at += (size_t)count;
	return ST_OK;
}

/* Little-endian, 1 to 8 bytes. */
static enum status operand_unsigned(struct machine *m, size_t count, uint64_t *value)
{
	const uint8_t *bytes;
	TRY(operand(m, count, &bytes));
	uint64_t sum = 0;
	for (size_t i = count; i-- > 0;)
		sum = sum << 8 | bytes[i];
	*value = sum;
	return ST_OK;
}

/* Up to a newline, which is taken and not returned. */
static enum status operand_line(struct machine *m, const uint8_t **bytes, size_t *count)
{
	const uint8_t *start = m->bytes + m->at;
	const uint8_t *end = m->at < m->count ? memchr(start, '\n', m->count - m->at) : NULL;
	if (end == NULL)
		return fail(m, "cut short: a line without an end");
	*bytes = start;
	*count = (size_t)(end - start);
	m->at += *count + 1;
	return ST_OK;
}

/* --- opcodes in groups --- */

static enum status push_kind(struct machine *m, enum pickle_kind kind)
{
	struct pickle_node *node;
	TRY(node_make(m, kind, &node));
	return push(m, node);
}

static enum status push_bool(struct machine *m, bool value)
{
	struct pickle_node *node;
	TRY(node_make(m, PICKLE_BOOL, &node));
	node->boolean = value;
	return push(m, node);
}

static enum status push_int(struct machine *m, int64_t value)
{
	struct pickle_node *node;
	TRY(node_make(m, PICKLE_INT, &node));
	node->integer = value;
	return push(m, node);
}

static enum status push_float(struct machine *m, double value)
{
	struct pickle_node *node;
	TRY(node_make(m, PICKLE_FLOAT, &node));
	node->real = value;
	return push(m, node);
}

static enum status push_bytes(struct machine *m, enum pickle_kind kind, const uint8_t *bytes, size_t count)
{
	struct pickle_node *node;
	TRY(node_make(m, kind, &node));
	node->bytes = bytes;
	node->bytes_count = count;
	return push(m, node);
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
	return push(m, node);
}

static enum status push_tuple_of(struct machine *m, size_t count)
{
	if (stack_above_mark(m) < count)
		return fail(m, "takes from an empty stack");
	m->stack_count -= count;
	return push_sequence(m, PICKLE_TUPLE, &m->stack[m->stack_count], count);
}

static enum status push_marked(struct machine *m, enum pickle_kind kind)
{
	struct pickle_node *const *items;
	size_t count;
	TRY(pop_mark(m, &items, &count));
	if (kind == PICKLE_DICT && count % 2 != 0)
		return fail(m, "a key without a value");
	return push_sequence(m, kind, items, count);
}

/* Adds to the container on top; an object that is only described swallows what would be added to it. */
static enum status add_to_top(struct machine *m, enum pickle_kind kind, struct pickle_node *const *items, size_t count)
{
	struct pickle_node *target;
	TRY(top(m, &target));
	if (target->kind == PICKLE_OBJECT || target->kind == PICKLE_GLOBAL)
		return ST_OK;
	if (target->kind != kind)
		return fail(m, "adds to something that cannot hold items");
	if (kind == PICKLE_DICT && count % 2 != 0)
		return fail(m, "a key without a value");
	return node_append(m, target, items, count);
}

static enum status add_last(struct machine *m, enum pickle_kind kind, size_t count)
{
	if (stack_above_mark(m) < count)
		return fail(m, "takes from an empty stack");
	m->stack_count -= count;
	return add_to_top(m, kind, &m->stack[m->stack_count], count);
}

static enum status add_marked(struct machine *m, enum pickle_kind kind)
{
	struct pickle_node *const *items;
	size_t count;
	TRY(pop_mark(m, &items, &count));
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
	TRY(pop(m, &words[1]));
	TRY(pop(m, &words[0]));
	if (words[0]->kind != PICKLE_TEXT || words[1]->kind != PICKLE_TEXT)
		return fail(m, "a global whose module and name are not text");
	return push_sequence(m, PICKLE_GLOBAL, words, 2);
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
				return fail(m, "an OrderedDict of something else than pairs");
			/* The pairs are charged as nodes: one short opcode may name a long list again and again. */
			m->nodes_count++;
			if (m->nodes_count > PICKLE_NODES_MAX)
				return fail(m, "more objects than any file that is read here has");
			struct pickle_node *both[2];
			memcpy(both, pair->items, sizeof both);
			TRY(node_append(m, dict, both, 2));
		}
	}
	return push(m, dict);
}

/* Pops `extra` operands that are not kept, the arguments and the callable; pushes the description of the call. */
static enum status push_call(struct machine *m, size_t extra)
{
	struct pickle_node *parts[2], *dropped;
	for (size_t i = 0; i < extra; i++)
		TRY(pop(m, &dropped));
	TRY(pop(m, &parts[1]));
	TRY(pop(m, &parts[0]));
	if (is_dict_class(parts[0]))
		return push_dict_from_pairs(m, parts[1]);
	return push_sequence(m, PICKLE_OBJECT, parts, 2);
}

static enum status build(struct machine *m)
{
	struct pickle_node *state, *target;
	TRY(pop(m, &state));
	TRY(top(m, &target));
	switch (target->kind) {
	case PICKLE_LIST: case PICKLE_SET: case PICKLE_DICT: case PICKLE_GLOBAL: case PICKLE_OBJECT:
		target->state = state;
		return ST_OK;
	default:
		return fail(m, "gives a state to something that has none");
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
		return fail(m, "not an integer");
	}
	if (opcode == 'F') {
		double value;
		return literal_float(line, count, &value) ? push_float(m, value) : fail(m, "not a number");
	}
	/* Escapes only ever shrink a byte string; UTF-8 needs at most two bytes for one. */
	uint8_t *decoded = arena_take(m, count * 2);
	if (decoded == NULL)
		return fail_memory(m);
	size_t length;
	bool good = opcode == 'S' ? literal_bytes(line, count, decoded, &length) : literal_unicode(line, count, decoded, &length);
	if (!good)
		return fail(m, "a string with a bad quote or escape");
	return push_bytes(m, opcode == 'S' ? PICKLE_BYTES : PICKLE_TEXT, decoded, length);
}

static enum status memo_line(struct machine *m, bool put)
{
	const uint8_t *line;
	size_t count;
	int64_t index;
	TRY(operand_line(m, &line, &count));
	if (literal_int(line, count, &index) != LITERAL_GOOD || index < 0)
		return fail(m, "not a memo number");
	return put ? memo_put(m, (uint64_t)index) : memo_get(m, (uint64_t)index);
}

static enum status push_mark(struct machine *m)
{
	void *marks = m->marks;
	TRY(grow(m, &marks, m->marks_count, &m->marks_capacity, sizeof *m->marks));
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
		return value <= 5 ? ST_OK : fail(m, "a pickle protocol above 5");
	case 0x95: /* FRAME: only a promise about what follows */
		TRY(operand_unsigned(m, 8, &value));
		return value <= m->count - m->at ? ST_OK : fail(m, "cut short: a frame longer than the file");
	case '(': return push_mark(m);
	case '0': /* POP, which also removes a mark that has nothing above it */
		if (stack_above_mark(m) > 0 || m->marks_count == 0)
			return pop(m, &node);
		m->marks_count--;
		return ST_OK;
	case '1': return pop_mark(m, &items, &count);
	case '2': TRY(top(m, &node)); return push(m, node);
	case 'N': return push_kind(m, PICKLE_NONE);
	case 0x88: return push_bool(m, true);
	case 0x89: return push_bool(m, false);
	case 'K': TRY(operand_unsigned(m, 1, &value)); return push_int(m, (int64_t)value);
	case 'M': TRY(operand_unsigned(m, 2, &value)); return push_int(m, (int64_t)value);
	case 'J': return push_long(m, 4);
	case 0x8A: TRY(operand_unsigned(m, 1, &value)); return push_long(m, value);
	case 0x8B:
		TRY(operand_unsigned(m, 4, &value));
		return value <= 256 ? push_long(m, value) : fail(m, "an integer of more than 256 bytes");
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
	case 'Q': TRY(pop(m, &node)); return push_sequence(m, PICKLE_PERSISTENT, &node, 1);
	case 'R': case 0x81: return push_call(m, 0);
	case 0x92: return push_call(m, 1);
	case 'b': return build(m);
	case 'I': case 'L': case 'F': case 'S': case 'V': return push_literal(m, opcode);
	default: return fail(m, "an opcode that is not accepted here");
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
		TRY(pop(m, &root));
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
		return fail_memory(&machine);
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

void pickle_free(struct pickle *pickle)
{
	if (pickle == NULL)
		return;
	while (pickle->chunks != NULL) {
		struct chunk *next = pickle->chunks->next;
		free(pickle->chunks);
		pickle->chunks = next;
	}
	free(pickle);
}

/* --- accessors --- */

const struct pickle_node *pickle_root(const struct pickle *pickle)
{
	return pickle->root;
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
