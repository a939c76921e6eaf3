/* json_scan.h: JSON text read once from front to back, without a tree: 25 MB of numbers cost four bytes each, not a node each.
 *
 * Checks what it passes over: RFC 8259's grammar, UTF-8 and escapes in strings, no lone surrogates, bounded depth. Sentences say at which
 * byte. core/base/json.h is for texts that are small; this is for bodies. */
#pragma once

#include "serve/decode/images.h"

struct json_scan {
	const char *text;
	size_t count, at;
};

/* A string's characters between the quotes, escapes not yet resolved. */
struct json_span {
	const char *text;
	size_t count;
	bool escaped;
};

enum { JSON_SCAN_DEPTH_MAX = 64 };

/* The next character that is no white space, without taking it; '\0' at the end. */
char json_scan_peek(struct json_scan *scan);
/* HTTP_BAD_REQUEST: "byte N: expected …, found …". */
enum http_code json_scan_refuse(struct json_scan *scan, const char *expected);
/* Takes `c`, named `expected` in the refusal. */
enum http_code json_scan_take(struct json_scan *scan, char c, const char *expected);
enum http_code json_scan_string(struct json_scan *scan, struct json_span *span);
/* Passes over any one value. */
enum http_code json_scan_skip(struct json_scan *scan);
/* True if the value that comes is a list and the first thing in its innermost first list is no string and no object. */
bool json_scan_is_numbers(struct json_scan *scan);
/* Takes nested lists of numbers: puts the numbers to `images` and says their shape and whether all are written as whole numbers. Lists
 * of unequal length are refused. */
enum http_code json_scan_numbers(struct json_scan *scan, struct images *images, int *rank, int64_t *shape, bool *whole);

/* Resolves escapes; characters outside ASCII become 0x80. `resolved` has room for span->count bytes and may be where it came from. Returns
 * the length. For text that is known to be ASCII when it is sound, like base64. */
size_t json_span_resolve_ascii(const struct json_span *span, char *resolved);
