/* Any bytes as JSON: refused with a sentence, or a tree that can be walked and that the writer writes so that it reads back the same. */
#include "core/base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void check(bool condition)
{
	if (!condition)
		abort();
}

/* Writes the tree; the parser has bounded its depth. */
static void copy(const struct json *json, const char *name, struct json_writer *writer)
{
	switch (json_kind(json)) {
	case JSON_NULL: json_write_null(writer, name); return;
	case JSON_BOOL: json_write_bool(writer, name, json_bool(json)); return;
	case JSON_NUMBER: json_write_number(writer, name, json_number(json)); return;
	case JSON_STRING: json_write_string(writer, name, json_string(json)); return;
	case JSON_ARRAY: json_write_array(writer, name); break;
	case JSON_OBJECT: json_write_object(writer, name); break;
	}
	size_t count = 0;
	for (const struct json *item = json_first(json); item != NULL; item = json_next(item), count++) {
		copy(item, json_name(item), writer);
		check(json_kind(json) != JSON_OBJECT || json_member(json, json_name(item)) == item); /* no other of its name */
	}
	check(json_count(json) == count);
	json_write_end(writer);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct json *json = NULL;
	enum status status = json_parse("fuzz", bytes, count, &json);
	if (status != ST_OK) {
		check(status == ST_DATA && json == NULL && strncmp(status_message(), "fuzz: ", 6) == 0);
		return 0;
	}
	struct text once = {0}, twice = {0};
	struct json_writer writer = {.text = &once, .lines = count % 2 == 0};
	copy(json, NULL, &writer);
	check(json_write_end_all(&writer) == ST_OK);
	json_free(json);
	check(json_parse("fuzz", once.data, once.length, &json) == ST_OK);
	writer = (struct json_writer){.text = &twice, .lines = count % 2 == 0};
	copy(json, NULL, &writer);
	check(json_write_end_all(&writer) == ST_OK && once.length == twice.length && memcmp(once.data, twice.data, once.length) == 0);
	json_free(json);
	text_free(&once);
	text_free(&twice);
	return 0;
}
