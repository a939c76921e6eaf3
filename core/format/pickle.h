/* pickle.h: reads Python pickles (protocols 0 to 5) as plain data, and executes nothing.
 *
 * In: the bytes of a pickle. Out: a graph of nodes: numbers, strings, containers, and, for all that Python would import or call,
 * inert descriptions: a global is two words, a call is its callable and its arguments. What such a call means (a tensor, a numpy
 * array) is for the reader of that format to say: pth.c, the CIFAR reader. A graph may share nodes and may be cyclic, so walk it
 * to a known depth only.
 *
 * Strings and byte blobs are not copied: they point into the caller's bytes, which must outlive the pickle (only the escaped
 * literals of protocol 0 are decoded into the pickle's own memory). Memory grows with the opcodes that are present, never with a
 * declared length. No recursion. Opcodes that no data file needs (INST, OBJ, PERSID, EXT, out-of-band buffers) are refused.
 *
 * Every function that reads a node accepts NULL (kind PICKLE_ABSENT, count 0, false), so lookups can be chained and the end
 * result checked once. A parsed pickle is constant: any thread may read it. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pickle_kind {
	PICKLE_ABSENT, /* what accessors answer for what is not there */
	PICKLE_NONE,
	PICKLE_BOOL,
	PICKLE_INT,        /* fits int64 */
	PICKLE_BIG,        /* an integer that does not */
	PICKLE_FLOAT,
	PICKLE_TEXT,       /* str; UTF-8 as found, unchecked */
	PICKLE_BYTES,      /* bytes, bytearray, and the str of Python 2 */
	PICKLE_LIST,
	PICKLE_TUPLE,
	PICKLE_SET,        /* set, frozenset */
	PICKLE_DICT,       /* dict, OrderedDict, defaultdict, Counter; pairs in file order, a repeated key stays twice */
	PICKLE_GLOBAL,     /* module and name, not imported */
	PICKLE_PERSISTENT, /* a persistent id */
	PICKLE_OBJECT,     /* callable(arguments), not called */
};

/* Bounds on nodes, on the stack and on the memo: what a hostile file can cost is some hundred MB. */
enum { PICKLE_NODES_MAX = 1 << 22 };

struct pickle_node;
struct pickle;

/* Parses one pickle from the front of bytes[count]. `name` goes into error sentences only. *pickle is released with pickle_free;
 * *used (may be NULL) is the number of bytes up to and with STOP: files of several pickles go on there.
 * ST_DATA with place and reason when it is cut, malformed or uses what is refused; ST_MEMORY. */
enum status pickle_parse(const char *name, const uint8_t *bytes, size_t count, struct pickle **pickle, size_t *used);
void pickle_free(struct pickle *pickle);

/* The unpickled object. Nodes live as long as the pickle. */
const struct pickle_node *pickle_root(const struct pickle *pickle);

/* The i-th persistent id of the file, in file order; NULL past the last. */
const struct pickle_node *pickle_persistent(const struct pickle *pickle, size_t i);

enum pickle_kind pickle_kind(const struct pickle_node *node);
/* "dict", "text" …, for messages. */
const char *pickle_kind_name(enum pickle_kind kind);

/* False, and *value untouched, when the node is of another kind. */
bool pickle_bool(const struct pickle_node *node, bool *value);
bool pickle_int(const struct pickle_node *node, int64_t *value);
bool pickle_float(const struct pickle_node *node, double *value); /* FLOAT only */

/* TEXT or BYTES: Python 2 wrote what Python 3 calls str as bytes. Not zero-terminated. */
bool pickle_string(const struct pickle_node *node, const uint8_t **bytes, size_t *count);
/* TEXT or BYTES equal to `text`. */
bool pickle_string_is(const struct pickle_node *node, const char *text);

/* Items of a LIST, TUPLE or SET, pairs of a DICT; else 0. */
size_t pickle_count(const struct pickle_node *node);
/* Item i of a LIST, TUPLE or SET; NULL past the end or for another kind. */
const struct pickle_node *pickle_item(const struct pickle_node *node, size_t i);
/* Pair i of a DICT, or NULL. */
const struct pickle_node *pickle_key(const struct pickle_node *node, size_t i);
const struct pickle_node *pickle_value(const struct pickle_node *node, size_t i);
/* The value of a DICT's str or bytes key (the last one when it is repeated, as in Python), or NULL. Linear in the pairs. */
const struct pickle_node *pickle_find(const struct pickle_node *node, const char *key);

/* GLOBAL of this module and name ("torch._utils", "_rebuild_tensor_v2"). */
bool pickle_is_global(const struct pickle_node *node, const char *module, const char *name);
/* GLOBAL: its two words. */
const struct pickle_node *pickle_global_module(const struct pickle_node *node);
const struct pickle_node *pickle_global_name(const struct pickle_node *node);

/* OBJECT: what would be called and with what (REDUCE, NEWOBJ, NEWOBJ_EX; `arguments` is usually a TUPLE). */
const struct pickle_node *pickle_callable(const struct pickle_node *node);
const struct pickle_node *pickle_arguments(const struct pickle_node *node);
/* OBJECT whose callable is that global. */
bool pickle_calls(const struct pickle_node *node, const char *module, const char *name);
/* What BUILD gave the node last (the state of an OBJECT, the attributes of an OrderedDict), or NULL. */
const struct pickle_node *pickle_state(const struct pickle_node *node);
/* PERSISTENT: the id. */
const struct pickle_node *pickle_persistent_id(const struct pickle_node *node);

/* Writes for a message what the node is: "torch.nn.Linear(…)", "os.system", "dict". Printable, zero-terminated, cut to `bytes`. */
void pickle_describe(const struct pickle_node *node, char *text, size_t bytes);
