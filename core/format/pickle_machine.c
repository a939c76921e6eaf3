/* pickle_machine.c: see pickle_machine.h. */
#include "core/format/pickle_machine.h"

#include <stdlib.h>
#include <string.h>

/* The memo: open addressing, linear probing. Picklers number from 0 or 1 upwards, so index & mask hardly ever collides; a file
 * whose numbers are chosen to collide is refused instead of being slow. */
enum { MEMO_PROBES_MAX = 64 };

enum status machine_fail(const struct machine *m, const char *why)
{
	return FAIL(ST_DATA, "%s: not a readable pickle: byte %zu, opcode 0x%02x: %s", m->name, m->opcode_at, m->bytes[m->opcode_at], why);
}

enum status machine_fail_memory(const struct machine *m)
{
	return FAIL(ST_MEMORY, "%s: no memory for its pickled objects", m->name);
}

/* --- memory --- */

void *arena_take(struct machine *m, size_t bytes)
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

enum status node_make(struct machine *m, enum pickle_kind kind, struct pickle_node **node)
{
	if (m->nodes_count >= PICKLE_NODES_MAX)
		return machine_fail(m, "more objects than any file that is read here has");
	struct pickle_node *made = arena_take(m, sizeof *made);
	if (made == NULL)
		return machine_fail_memory(m);
	m->nodes_count++;
	*made = (struct pickle_node){.kind = kind};
	*node = made;
	return ST_OK;
}

enum status node_append(struct machine *m, struct pickle_node *node, struct pickle_node *const *items, size_t count)
{
	if (count > PICKLE_NODES_MAX - node->count)
		return machine_fail(m, "a container with too many items");
	size_t wanted = node->count + count;
	if (wanted > node->capacity) {
		size_t capacity = wanted > (size_t)node->capacity * 2 ? wanted : (size_t)node->capacity * 2;
		const struct pickle_node **larger = arena_take(m, capacity * sizeof(struct pickle_node *));
		if (larger == NULL)
			return machine_fail_memory(m);
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
enum status array_grow(const struct machine *m, void **array, size_t count, size_t *capacity, size_t element_bytes)
{
	if (count < *capacity)
		return ST_OK;
	size_t larger = *capacity == 0 ? 256 : *capacity * 2;
	if (larger > PICKLE_NODES_MAX)
		return machine_fail(m, "a deeper stack than any file that is read here needs");
	void *moved = realloc(*array, larger * element_bytes);
	if (moved == NULL)
		return machine_fail_memory(m);
	*array = moved;
	*capacity = larger;
	return ST_OK;
}

/* --- stack --- */

enum status stack_push(struct machine *m, struct pickle_node *node)
{
	void *stack = m->stack;
	TRY(array_grow(m, &stack, m->stack_count, &m->stack_capacity, sizeof *m->stack));
	m->stack = stack;
	m->stack[m->stack_count++] = node;
	return ST_OK;
}

/* What may be popped: down to the last mark. */
size_t stack_above_mark(const struct machine *m)
{
	return m->stack_count - (m->marks_count > 0 ? m->marks[m->marks_count - 1] : 0);
}

enum status stack_pop(struct machine *m, struct pickle_node **node)
{
	if (stack_above_mark(m) == 0)
		return machine_fail(m, "takes from an empty stack");
	*node = m->stack[--m->stack_count];
	return ST_OK;
}

enum status stack_top(struct machine *m, struct pickle_node **node)
{
	if (stack_above_mark(m) == 0)
		return machine_fail(m, "looks at an empty stack");
	*node = m->stack[m->stack_count - 1];
	return ST_OK;
}

/* Takes all above the last mark, and the mark. `items` stay valid until the next push. */
enum status stack_pop_mark(struct machine *m, struct pickle_node *const **items, size_t *count)
{
	if (m->marks_count == 0)
		return machine_fail(m, "needs a mark that is not there");
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

enum status memo_put(struct machine *m, uint64_t index)
{
	struct pickle_node *node;
	TRY(stack_top(m, &node));
	if (index > UINT32_MAX)
		return machine_fail(m, "a memo number above 2^32 - 1");
	if (m->memo_count * 2 >= m->memo_capacity) {
		size_t capacity = m->memo_capacity == 0 ? 1024 : m->memo_capacity * 2;
		if (capacity > (size_t)PICKLE_NODES_MAX * 2)
			return machine_fail(m, "more memo entries than any file that is read here has");
		struct memo_entry *larger = calloc(capacity, sizeof *larger);
		if (larger == NULL)
			return machine_fail_memory(m);
		for (size_t i = 0; i < m->memo_capacity; i++) {
			if (m->memo[i].node == NULL)
				continue;
			struct memo_entry *slot = memo_slot(larger, capacity, m->memo[i].index);
			if (slot == NULL) {
				free(larger);
				return machine_fail(m, "memo numbers that no pickler writes");
			}
			*slot = m->memo[i];
		}
		free(m->memo);
		m->memo = larger;
		m->memo_capacity = capacity;
	}
	struct memo_entry *slot = memo_slot(m->memo, m->memo_capacity, (uint32_t)index);
	if (slot == NULL)
		return machine_fail(m, "memo numbers that no pickler writes");
	m->memo_count += slot->node == NULL;
	*slot = (struct memo_entry){.index = (uint32_t)index, .node = node};
	return ST_OK;
}

enum status memo_get(struct machine *m, uint64_t index)
{
	struct memo_entry *slot = index <= UINT32_MAX ? memo_slot(m->memo, m->memo_capacity, (uint32_t)index) : NULL;
	if (slot == NULL || slot->node == NULL)
		return machine_fail(m, "a memo number that was never set");
	return stack_push(m, slot->node);
}

/* --- operands --- */

enum status operand(struct machine *m, uint64_t count, const uint8_t **bytes)
{
	if (count > m->count - m->at)
		return machine_fail(m, "cut short: fewer bytes are left than it declares");
	*bytes = m->bytes + m->at;
	m->at += (size_t)count;
	return ST_OK;
}

/* Little-endian, 1 to 8 bytes. */
enum status operand_unsigned(struct machine *m, size_t count, uint64_t *value)
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
enum status operand_line(struct machine *m, const uint8_t **bytes, size_t *count)
{
	const uint8_t *start = m->bytes + m->at;
	const uint8_t *end = m->at < m->count ? memchr(start, '\n', m->count - m->at) : NULL;
	if (end == NULL)
		return machine_fail(m, "cut short: a line without an end");
	*bytes = start;
	*count = (size_t)(end - start);
	m->at += *count + 1;
	return ST_OK;
}
