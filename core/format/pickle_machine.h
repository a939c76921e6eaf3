/* pickle_machine.h: what pickle's opcodes work on: the bytes left, a stack with marks, a memo, an arena. For pickle.c only.
 *
 * Everything that can fail says why with the place of the opcode. */
#pragma once

#include "core/format/pickle_node.h"

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

/* ST_DATA: "byte 12, opcode 0x52: why". */
enum status machine_fail(const struct machine *m, const char *why);
enum status machine_fail_memory(const struct machine *m);

/* Memory that lives as long as the pickle; NULL when there is none. */
void *arena_take(struct machine *m, size_t bytes);
/* A node of that kind, all else zero. */
enum status node_make(struct machine *m, enum pickle_kind kind, struct pickle_node **node);
enum status node_append(struct machine *m, struct pickle_node *node, struct pickle_node *const *items, size_t count);
/* Makes room for one more element in a malloc'ed array. */
enum status array_grow(const struct machine *m, void **array, size_t count, size_t *capacity, size_t element_bytes);

enum status stack_push(struct machine *m, struct pickle_node *node);
/* How many can be popped: down to the last mark. */
size_t stack_above_mark(const struct machine *m);
enum status stack_pop(struct machine *m, struct pickle_node **node);
enum status stack_top(struct machine *m, struct pickle_node **node);
/* Takes all above the last mark, and the mark. `items` stay valid until the next push. */
enum status stack_pop_mark(struct machine *m, struct pickle_node *const **items, size_t *count);

/* memo[index] ← top of the stack. */
enum status memo_put(struct machine *m, uint64_t index);
/* Pushes memo[index]. */
enum status memo_get(struct machine *m, uint64_t index);

/* The next `count` bytes of the file. */
enum status operand(struct machine *m, uint64_t count, const uint8_t **bytes);
/* Little-endian, 1 to 8 bytes. */
enum status operand_unsigned(struct machine *m, size_t count, uint64_t *value);
/* Up to a newline, which is taken and not returned. */
enum status operand_line(struct machine *m, const uint8_t **bytes, size_t *count);
