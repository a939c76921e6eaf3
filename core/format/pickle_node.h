/* pickle_node.h: how pickle.h's nodes lie in memory. For pickle.c, pickle_machine.c and pickle_node.c only. */
#pragma once

#include "core/format/pickle.h"

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
	struct pickle_node **persistent; /* in file order */
	size_t persistent_count, persistent_capacity;
};
