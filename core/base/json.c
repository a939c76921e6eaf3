/* json.c: see json.h. A struct json is a cJSON under another name. */
#include "core/base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTE_AGAIN(x) #x
#define QUOTE(x) QUOTE_AGAIN(x)

static const cJSON *peer(const struct json *json)
{
	return (const cJSON *)(const void *)json;
}

static const struct json *own(const cJSON *item)
{
	return (const struct json *)(const void *)item;
}

/* --- reading --------------------------------------------------------------------------------------------------------- */

static enum status fail_at(const char *name, const char *text, size_t at, const char *what)
{
	size_t line = 1, start = 0;
	for (size_t i = 0; i < at; i++)
		if (text[i] == '\n') {
			line++;
			start = i + 1;
		}
	return FAIL(ST_DATA, "%s: line %zu, byte %zu: %s", name, line, at - start + 1, what);
}

/* What cJSON would let pass, cut short, or walk into too deep. */
static enum status text_check(const char *name, const char *text, size_t count)
{
	if (!text_is_utf8(text, count)) {
		/* The first bad byte: the longest valid beginning, but for a character cut in two. */
		size_t valid = 0, step = count;
		while (step > 0) {
			if (step <= count - valid && text_is_utf8(text + valid, step))
				valid += step;
			else
				step /= 2;
		}
		return fail_at(name, text, valid, "is not UTF-8");
	}
	int depth = 0;
	bool inside = false; /* a string */
	for (size_t i = 0; i < count; i++) {
		char c = text[i];
		if (c == '\0')
			return fail_at(name, text, i, "a zero byte is not JSON");
		if (inside) {
			if (c == '\\') {
				if (count - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
					return fail_at(name, text, i, "a zero character (\\u0000) is not accepted");
				i++;
			} else if (c == '"') {
				inside = false;
			}
		} else if (c == '"') {
			inside = true;
		} else if (c == '[' || c == '{') {
			if (++depth > JSON_DEPTH_MAX)
				return fail_at(name, text, i, "nested deeper than " QUOTE(JSON_DEPTH_MAX) " levels");
		} else if (c == ']' || c == '}') {
			depth--;
		}
	}
	return ST_OK;
}

static int name_order(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum status object_check(const char *name, const cJSON *object)
{
	size_t count = 0;
	for (const cJSON *item = object->child; item != NULL; item = item->next)
		count++;
	if (count < 2)
		return ST_OK;
	const char **names = malloc(count * sizeof *names);
	if (names == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for %zu names", name, count);
	size_t used = 0;
	for (const cJSON *item = object->child; item != NULL; item = item->next)
		names[used++] = item->string;
	qsort(names, count, sizeof *names, name_order);
	enum status status = ST_OK;
	for (size_t i = 1; i < count && status == ST_OK; i++)
		if (strcmp(names[i - 1], names[i]) == 0)
			status = FAIL(ST_DATA, "%s: the key \"%.200s\" is there twice in one object", name, names[i]);
	free(names);
	return status;
}

/* Every object of the tree. The stack holds one level each; text_check has bounded them. */
static enum status tree_check(const char *name, const cJSON *root)
{
	const cJSON *stack[JSON_DEPTH_MAX + 1];
	int depth = 0;
	for (const cJSON *item = root; item != NULL;) {
		if (cJSON_IsObject(item))
			TRY(object_check(name, item));
		if (item->child != NULL) {
			MUST(depth <= JSON_DEPTH_MAX);
			stack[depth++] = item;
			item = item->child;
			continue;
		}
		while (item->next == NULL && depth > 0)
			item = stack[--depth];
		item = depth > 0 ? item->next : NULL;
	}
	return ST_OK;
}

/* Every parse writes cJSON's global_error (which nothing here reads: `end` is the call's own) and calls localeconv, whose result is one for
 * the process. Of cJSON's calls only this one does. */
static cJSON *parse_alone(const char *text, size_t count, const char **end)
{
	static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
	MUST(pthread_mutex_lock(&turn) == 0);
	cJSON *root = cJSON_ParseWithLengthOpts(text, count, end, false);
	MUST(pthread_mutex_unlock(&turn) == 0);
	return root;
}

enum status json_parse(const char *name, const void *text, size_t count, struct json **json)
{
	const char *bytes = text;
	TRY(text_check(name, bytes, count));
	if (count == 0)
		return FAIL(ST_DATA, "%s: empty, expected JSON", name);
	const char *end = NULL;
	cJSON *root = parse_alone(bytes, count, &end);
	if (root == NULL)
		return fail_at(name, bytes, end >= bytes && end <= bytes + count ? (size_t)(end - bytes) : 0, "is not JSON");
	enum status status = ST_OK;
	size_t at = (size_t)(end - bytes);
	while (at < count && strchr(" \t\r\n", bytes[at]) != NULL)
		at++;
	if (at < count)
		status = fail_at(name, bytes, at, "text after the end of the JSON value");
	if (status == ST_OK)
		status = tree_check(name, root);
	if (status != ST_OK) {
		cJSON_Delete(root);
		return status;
	}
	*json = (struct json *)(void *)root;
	return ST_OK;
}

void json_free(struct json *json)
{
	cJSON_Delete((cJSON *)(void *)json);
}

enum json_kind json_kind(const struct json *json)
{
	switch (peer(json)->type & 0xFF) {
	case cJSON_False:
	case cJSON_True: return JSON_BOOL;
	case cJSON_Number: return JSON_NUMBER;
	case cJSON_String: return JSON_STRING;
	case cJSON_Array: return JSON_ARRAY;
	case cJSON_Object: return JSON_OBJECT;
	default: return JSON_NULL;
	}
}

const char *json_kind_text(enum json_kind kind)
{
	static const char *const texts[] = {"null", "a boolean", "a number", "a string", "a list", "an object"};
	return texts[kind];
}

const struct json *json_member(const struct json *json, const char *name)
{
	if (json == NULL || json_kind(json) != JSON_OBJECT)
		return NULL;
	return own(cJSON_GetObjectItemCaseSensitive(peer(json), name));
}

const struct json *json_first(const struct json *json)
{
	return own(peer(json)->child);
}

const struct json *json_next(const struct json *json)
{
	return own(peer(json)->next);
}

const char *json_name(const struct json *json)
{
	return peer(json)->string;
}

size_t json_count(const struct json *json)
{
	size_t count = 0;
	for (const struct json *item = json_first(json); item != NULL; item = json_next(item))
		count++;
	return count;
}

const char *json_string(const struct json *json)
{
	MUST(json_kind(json) == JSON_STRING);
	return peer(json)->valuestring;
}

double json_number(const struct json *json)
{
	MUST(json_kind(json) == JSON_NUMBER);
	return peer(json)->valuedouble;
}

bool json_bool(const struct json *json)
{
	MUST(json_kind(json) == JSON_BOOL);
	return cJSON_IsTrue(peer(json));
}

/* --- writing --------------------------------------------------------------------------------------------------------- */

static void add(struct json_writer *writer, const char *text)
{
	if (writer->status == ST_OK)
		writer->status = text_add(writer->text, text);
}

static void add_line(struct json_writer *writer)
{
	if (!writer->lines)
		return;
	add(writer, "\n");
	for (int i = 0; i < writer->depth; i++)
		add(writer, "\t");
}

static void add_quoted(struct json_writer *writer, const char *string)
{
	add(writer, "\"");
	size_t left = strlen(string);
	for (const char *s = string; left > 0 && writer->status == ST_OK;) {
		size_t length = 1;
		while (length < 4 && length < left && !text_is_utf8(s, length))
			length++;
		unsigned char c = (unsigned char)*s;
		if (!text_is_utf8(s, length)) {
			length = 1;
			add(writer, "\xEF\xBF\xBD");
		} else if (c == '"' || c == '\\') {
			writer->status = text_printf(writer->text, "\\%c", c);
		} else if (c == '\n' || c == '\t' || c == '\r') {
			add(writer, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
		} else if (c < 0x20 || c == 0x7F) {
			writer->status = text_printf(writer->text, "\\u%04x", c);
		} else {
			writer->status = text_add_bytes(writer->text, s, length);
		}
		s += length;
		left -= length;
	}
	add(writer, "\"");
}

/* Comma, line and name in front of a value. */
static void value_begin(struct json_writer *writer, const char *name)
{
	MUST((name != NULL) == (writer->depth > 0 && writer->bracket[writer->depth - 1] == '}'));
	MUST(writer->depth > 0 || !writer->comma); /* one value at the top */
	if (writer->comma)
		add(writer, writer->lines ? "," : ", ");
	if (writer->depth > 0)
		add_line(writer);
	if (name != NULL) {
		add_quoted(writer, name);
		add(writer, ": ");
	}
	writer->comma = true;
}

static void level_begin(struct json_writer *writer, const char *name, char open, char close)
{
	MUST(writer->depth < JSON_DEPTH_MAX);
	value_begin(writer, name);
	add(writer, (const char[]){open, '\0'});
	writer->bracket[writer->depth++] = close;
	writer->comma = false;
}

void json_write_object(struct json_writer *writer, const char *name)
{
	level_begin(writer, name, '{', '}');
}

void json_write_array(struct json_writer *writer, const char *name)
{
	level_begin(writer, name, '[', ']');
}

void json_write_end(struct json_writer *writer)
{
	MUST(writer->depth > 0);
	bool empty = !writer->comma;
	writer->depth--;
	if (!empty)
		add_line(writer);
	add(writer, (const char[]){writer->bracket[writer->depth], '\0'});
	writer->comma = true;
}

void json_write_null(struct json_writer *writer, const char *name)
{
	value_begin(writer, name);
	add(writer, "null");
}

void json_write_bool(struct json_writer *writer, const char *name, bool value)
{
	value_begin(writer, name);
	add(writer, value ? "true" : "false");
}

void json_write_integer(struct json_writer *writer, const char *name, int64_t value)
{
	value_begin(writer, name);
	if (writer->status == ST_OK)
		writer->status = text_printf(writer->text, "%lld", (long long)value);
}

void json_write_number(struct json_writer *writer, const char *name, double value)
{
	char text[JSON_NUMBER_BYTES] = "null";
	if (isfinite(value))
		json_number_text(value, text);
	value_begin(writer, name);
	add(writer, text);
}

void json_write_literal(struct json_writer *writer, const char *name, const char *value, size_t count)
{
	value_begin(writer, name);
	if (writer->status == ST_OK)
		writer->status = text_add_bytes(writer->text, value, count);
}

void json_write_string(struct json_writer *writer, const char *name, const char *value)
{
	value_begin(writer, name);
	if (value == NULL)
		add(writer, "null");
	else
		add_quoted(writer, value);
}

enum status json_write_end_all(struct json_writer *writer)
{
	while (writer->depth > 0)
		json_write_end(writer);
	return writer->status;
}

void json_number_text(double value, char text[JSON_NUMBER_BYTES])
{
	if (value == floor(value) && fabs(value) < 1e15) {
		snprintf(text, JSON_NUMBER_BYTES, "%.0f", value); /* 1000000, not 1e+06 */
		return;
	}
	for (int digits = 1; digits <= 17; digits++) {
		snprintf(text, JSON_NUMBER_BYTES, "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			return;
	}
}
