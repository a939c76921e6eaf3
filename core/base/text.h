/* text.h: text that grows up to a stated maximum, and the few string helpers that both programs need. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* Bytes that grow on demand, always followed by a zero. Start with {0} or text_init; text_free releases. */
struct text {
	char *data; /* NULL while empty */
	size_t length;
	size_t capacity;
	size_t length_max; /* 0: TEXT_LENGTH_MAX_DEFAULT */
};

#define TEXT_LENGTH_MAX_DEFAULT ((size_t)64 << 20)

/* Append. ST_MEMORY when memory is short or the maximum is passed; the text is then unchanged. */
enum status text_add(struct text *text, const char *string);
enum status text_add_bytes(struct text *text, const void *bytes, size_t count);
enum status text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The text as a string, never NULL. Owned by `text`, valid until the next append. */
const char *text_string(const struct text *text);

/* Ends a command line's answer: prints the text on stdout when `made` is ST_OK, releases it, and returns `made`, or ST_DISK when stdout
 * does not take it. */
enum status text_print(struct text *text, enum status made);
void text_clear(struct text *text);
void text_free(struct text *text);

/* Copies `from` to `to` (at most `to_bytes` with the ending zero), replacing control characters and invalid UTF-8 by '?' and
 * never cutting a character in two. `from` and `to` must not overlap. */
void text_printable(const char *from, char *to, size_t to_bytes);

/* True if the `count` bytes are valid UTF-8 (no overlong forms, no surrogates). */
bool text_is_utf8(const void *bytes, size_t count);

/* Number of single-character insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`
 * (optimal string alignment); strings longer than 64 bytes count as far apart (64). */
unsigned text_distance(const char *a, const char *b);

bool text_starts_with(const char *string, const char *prefix);
bool text_ends_with(const char *string, const char *suffix);
