/* body_json.c: one JSON value; see bodies.h. */
#include "core/format/base64.h"
#include "core/format/tensor.h"
#include "serve/decode/bodies.h"
#include "serve/decode/json_scan.h"

#include <stdlib.h>
#include <string.h>

/* The clients' words: TensorFlow Serving, KServe and Vertex say instances, Hugging Face inputs, SageMaker's own formats data, features and values. */
const char *const body_names[] = {"instances", "inputs", "input", "data", "image", "images", "image_bytes", "b64", "bytes", "pixels", "array", "tensor",
	"features", "values", "x", NULL};

bool body_is_name(const char *name, size_t count)
{
	for (size_t i = 0; body_names[i] != NULL; i++)
		if (strlen(body_names[i]) == count && memcmp(body_names[i], name, count) == 0)
			return true;
	return false;
}

/* An open list or object. */
struct level {
	bool is_object;
	bool found;      /* a member of a known name */
	size_t others;   /* lists of numbers under other names */
	size_t other_at; /* where the first of them is */
	size_t end_at;   /* behind the object, while that one is read: else 0 */
};

enum { LEVELS_MAX = 16 };

/* --- values ---------------------------------------------------------------------------------------------------------- */

static enum http_code numbers_take(struct json_scan *scan, struct images *images)
{
	int rank;
	int64_t shape[TENSOR_RANK_MAX];
	bool whole;
	ALLOW(json_scan_numbers(scan, images, &rank, shape, &whole));
	return images_take_numbers(images, whole, rank, shape);
}

/* Base64 of a file's bytes, perhaps as a browser writes it: "data:image/png;base64,…". */
static enum http_code text_take(struct json_scan *scan, struct images *images)
{
	struct json_span span;
	size_t start = scan->at;
	ALLOW(json_scan_string(scan, &span));
	char *text = malloc(span.count + BASE64_BYTES_MAX(0)); /* the resolved text first, then in the same place the bytes */
	if (text == NULL)
		return REFUSE(HTTP_NO_MEMORY, "no memory for a text of %zu bytes", span.count);
	size_t count = span.count;
	if (span.escaped)
		count = json_span_resolve_ascii(&span, text);
	const char *from = span.escaped ? text : span.text;
	if (count >= 5 && memcmp(from, "data:", 5) == 0) {
		const char *comma = memchr(from, ',', count);
		size_t head = comma != NULL ? (size_t)(comma - from) + 1 : 0;
		from += head;
		count -= head;
	}
	enum http_code code = http_of_status(base64_decode("text", from, count, (uint8_t *)text, &count));
	if (code == HTTP_OK)
		code = body_take_bytes(images, (const uint8_t *)text, count);
	if (code == HTTP_BAD_REQUEST)
		status_prefix(ST_DATA, "byte %zu", start + 1);
	free(text);
	return code;
}

/* --- objects --------------------------------------------------------------------------------------------------------- */

/* At the object's end: without a known name, its only list of numbers is what is meant. */
static enum http_code object_end(struct json_scan *scan, struct level *level, bool *value_next)
{
	if (level->found)
		return HTTP_OK;
	if (level->others > 1)
		return REFUSE(HTTP_BAD_REQUEST, "byte %zu: an object with several lists of numbers; name one of them %s", scan->at, BODY_NAMES_TEXT);
	if (level->others == 0)
		return REFUSE(HTTP_BAD_REQUEST, "byte %zu: an object without a member called %s", scan->at, BODY_NAMES_TEXT);
	level->end_at = scan->at;
	scan->at = level->other_at;
	*value_next = true;
	return HTTP_OK;
}

/* Goes on in an object: to the value of a known member (*value_next), or to behind its end. */
static enum http_code object_go_on(struct json_scan *scan, struct level *level, bool first, bool *value_next)
{
	struct json_span name;
	for (;; first = false) {
		if (json_scan_peek(scan) == '}') {
			scan->at++;
			return object_end(scan, level, value_next);
		}
		if (!first)
			ALLOW(json_scan_take(scan, ',', "a comma or }"));
		ALLOW(json_scan_string(scan, &name));
		ALLOW(json_scan_take(scan, ':', "a colon"));
		json_scan_peek(scan);
		if (body_is_name(name.text, name.count)) {
			if (level->found)
				return REFUSE(HTTP_BAD_REQUEST, "byte %zu: a second member that holds images (\"%.*s\"); expected one", scan->at + 1, (int)name.count,
					name.text);
			level->found = true;
			*value_next = true;
			return HTTP_OK;
		}
		if (json_scan_is_numbers(scan) && level->others++ == 0)
			level->other_at = scan->at;
		ALLOW(json_scan_skip(scan));
	}
}

/* A value of the innermost level has ended: goes to the next one to be read (*value_next), or closes the level. */
static enum http_code level_go_on(struct json_scan *scan, struct level *level, bool *value_next)
{
	if (level->is_object && level->end_at == 0)
		return object_go_on(scan, level, false, value_next);
	if (level->is_object) {
		scan->at = level->end_at;
		return HTTP_OK;
	}
	*value_next = json_scan_peek(scan) == ',';
	if (!*value_next)
		return json_scan_take(scan, ']', "a comma or ]");
	scan->at++;
	return HTTP_OK;
}

enum http_code body_take_json(struct images *images, const char *text, size_t count)
{
	struct json_scan scan = {.text = text, .count = count};
	struct level levels[LEVELS_MAX];
	int depth = 0;
	do {
		char c = json_scan_peek(&scan);
		bool value_next = false;
		if (c == '{' || (c == '[' && !json_scan_is_numbers(&scan))) {
			if (depth == LEVELS_MAX)
				return REFUSE(HTTP_BAD_REQUEST, "byte %zu: nested deeper than %d levels", scan.at + 1, LEVELS_MAX);
			levels[depth++] = (struct level){.is_object = c == '{'};
			scan.at++;
			value_next = c == '[';
			if (c == '{')
				ALLOW(object_go_on(&scan, &levels[depth - 1], true, &value_next));
			if (!value_next)
				depth--;
		} else if (c == '[') {
			ALLOW(numbers_take(&scan, images));
		} else if (c == '"') {
			ALLOW(text_take(&scan, images));
		} else {
			return json_scan_refuse(&scan, "a list, an object or base64 text");
		}
		while (depth > 0 && !value_next) {
			ALLOW(level_go_on(&scan, &levels[depth - 1], &value_next));
			if (!value_next)
				depth--;
		}
	} while (depth > 0);
	json_scan_peek(&scan);
	return scan.at == count ? HTTP_OK : json_scan_refuse(&scan, "nothing after the value");
}
