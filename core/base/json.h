/* json.h: JSON text ↔ values. The one place that knows cJSON.
 *
 * Reading: json_parse checks the whole text first (valid UTF-8, no zero byte, bounded depth, no key twice in one object), so what
 * it hands out is a tree that can be walked without further care. Writing: a json_writer appends to a struct text and places
 * commas and brackets by itself. Any number of threads may parse and write at once (inside, cJSON takes one text at a time: it has a
 * global); a tree may be read by several threads, a writer belongs to one. */
#pragma once

#include "core/base/status.h"
#include "core/base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What we read of a configuration file at most, and how deep it may nest. */
#define JSON_CONFIG_BYTES_MAX ((size_t)1 << 20)
#define JSON_DEPTH_MAX 32

/* A value inside a parsed text. The root owns all of its values; they stay valid until json_free of the root. */
struct json;

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* Parses exactly one value with only white space around it. `name` (a file's path) opens every error sentence, which says
 * "line L, byte B" (both from 1, the byte within its line). ST_DATA when the text is not acceptable, ST_MEMORY. Memory is at most
 * some 40 bytes a byte of text. The caller frees the root. */
enum status json_parse(const char *name, const void *text, size_t count, struct json **json);
void json_free(struct json *json); /* accepts NULL */

enum json_kind json_kind(const struct json *json);
/* "null", "a boolean", "a number", "a string", "a list", "an object". */
const char *json_kind_text(enum json_kind kind);

/* The member of an object with exactly this name, or NULL. NULL also when `json` is NULL or no object. */
const struct json *json_member(const struct json *json, const char *name);
/* The first value of a list or object and the one after it, NULL at the end. json_name: the member's name, NULL in a list. */
const struct json *json_first(const struct json *json);
const struct json *json_next(const struct json *json);
const char *json_name(const struct json *json);
size_t json_count(const struct json *json);

/* The content; the kind must be right (MUST). A string is UTF-8 without a zero byte inside. A number may be infinite if the text
 * said 1e999. */
const char *json_string(const struct json *json);
double json_number(const struct json *json);
bool json_bool(const struct json *json);

/* Text being written. Start with {.text = &text} (and .lines for one member a line, indented by tabs). The first failure sticks
 * and comes out of json_write_end_all; calls after it do nothing. `name` is the member's name inside an object, and NULL in a list or
 * at the top. */
struct json_writer {
	struct text *text;
	bool lines;
	enum status status;
	int depth;
	bool comma;                     /* the next value needs one in front */
	char bracket[JSON_DEPTH_MAX];   /* what closes each open level */
};

void json_write_object(struct json_writer *writer, const char *name);
void json_write_array(struct json_writer *writer, const char *name);
void json_write_end(struct json_writer *writer); /* closes the innermost object or list */
void json_write_null(struct json_writer *writer, const char *name);
void json_write_bool(struct json_writer *writer, const char *name, bool value);
void json_write_integer(struct json_writer *writer, const char *name, int64_t value);
/* The shortest decimal that reads back as the same double; null when it is not finite. */
void json_write_number(struct json_writer *writer, const char *name, double value);
/* Text that is a JSON value already, as it is. */
void json_write_literal(struct json_writer *writer, const char *name, const char *value, size_t count);
/* Escaped; bytes that are not UTF-8 become U+FFFD. NULL writes null. */
void json_write_string(struct json_writer *writer, const char *name, const char *value);
/* Closes what is open and returns the first failure (ST_MEMORY). */
enum status json_write_end_all(struct json_writer *writer);

/* The shortest decimal of a finite double that reads back as the same; at most JSON_NUMBER_BYTES with the ending zero. */
#define JSON_NUMBER_BYTES 32
void json_number_text(double value, char text[JSON_NUMBER_BYTES]);
