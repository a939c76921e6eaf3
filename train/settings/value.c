/* value.c: see value.h. */
#include "train/settings/value.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WHITE " \t\r\n\f\v"

static enum status scalar_add(const struct json *json, struct text *text)
{
	char number[JSON_NUMBER_BYTES] = "inf"; /* refused later, as not a number */
	switch (json_kind(json)) {
	case JSON_STRING: return text_add(text, json_string(json));
	case JSON_BOOL: return text_add(text, json_bool(json) ? "true" : "false");
	case JSON_NULL: return ST_OK;
	case JSON_NUMBER:
		if (isfinite(json_number(json)))
			json_number_text(json_number(json), number);
		return text_add(text, number);
	default: return FAIL(ST_SETTINGS, "must be a string, found %s", json_kind_text(json_kind(json)));
	}
}

enum status value_from_json(const struct json *json, struct text *text)
{
	text_clear(text);
	if (json_kind(json) != JSON_ARRAY) {
		TRY(scalar_add(json, text));
	} else {
		TRY(text_add(text, "["));
		for (const struct json *item = json_first(json); item != NULL; item = json_next(item)) {
			TRY(scalar_add(item, text));
			if (json_next(item) != NULL)
				TRY(text_add(text, ","));
		}
		TRY(text_add(text, "]"));
	}
	if (text->length >= VALUE_BYTES_MAX)
		return FAIL(ST_SETTINGS, "a value of %zu bytes, at most %d are read", text->length, VALUE_BYTES_MAX - 1);
	return ST_OK;
}

/* Without white space at both ends, in place. */
static char *trim(char *text)
{
	text += strspn(text, WHITE);
	size_t length = strlen(text);
	while (length > 0 && strchr(WHITE, text[length - 1]) != NULL)
		text[--length] = '\0';
	return text;
}

enum status value_peel(const char *raw, char plain[VALUE_BYTES_MAX])
{
	size_t length = strlen(raw);
	if (length >= VALUE_BYTES_MAX)
		return FAIL(ST_SETTINGS, "a value of %zu bytes, at most %d are read", length, VALUE_BYTES_MAX - 1);
	memcpy(plain, raw, length + 1);
	for (int layer = 0;; layer++) {
		char *trimmed = trim(plain);
		memmove(plain, trimmed, strlen(trimmed) + 1);
		struct json *json = NULL;
		/* What is not a JSON string is simply not quoted. */
		if (layer == 2 || plain[0] != '"' || json_parse("value", plain, strlen(plain), &json) != ST_OK)
			return ST_OK;
		const char *inner = json_string(json); /* it begins with a quote */
		memcpy(plain, inner, strlen(inner) + 1);
		json_free(json);
	}
}

bool value_is_default(const char *plain)
{
	return plain[0] == '\0' || strcmp(plain, "null") == 0 || strcmp(plain, "None") == 0;
}

bool value_real(const char *plain, double *value)
{
	/* strtod also reads nan, infinity and hexadecimal. */
	if (plain[0] == '\0' || plain[strspn(plain, "+-.0123456789eE")] != '\0')
		return false;
	char *end;
	double read = strtod(plain, &end);
	if (*end != '\0' || end == plain)
		return false;
	*value = read;
	return true;
}

bool value_integer(const char *plain, int64_t *value)
{
	char *end;
	errno = 0;
	long long whole = strtoll(plain, &end, 10);
	if (end != plain && *end == '\0' && errno == 0 && strchr(WHITE, plain[0]) == NULL) {
		*value = whole;
		return true;
	}
	double real;
	if (!value_real(plain, &real) || !(fabs(real) <= 0x1p53) || real != floor(real))
		return false;
	*value = (int64_t)real;
	return true;
}

bool value_flag(const char *plain, bool *value)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {{"true", true}, {"1", true}, {"yes", true}, {"false", false}, {"0", false}, {"no", false}};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcasecmp(plain, words[i].word) == 0) {
			*value = words[i].value;
			return true;
		}
	return false;
}

bool value_list(char *plain, const char **item, size_t item_max, size_t *count)
{
	char *at = trim(plain);
	size_t length = strlen(at), used = 0;
	if (length >= 2 && ((at[0] == '[' && at[length - 1] == ']') || (at[0] == '(' && at[length - 1] == ')'))) {
		at[length - 1] = '\0';
		at = trim(at + 1);
	}
	while (*at != '\0') {
		bool quoted = *at == '\'' || *at == '"';
		char *end = quoted ? strchr(at + 1, *at) : at + strcspn(at, ",");
		if (used == item_max || end == NULL)
			return false;
		char *rest = quoted ? end + 1 : end;
		rest += strspn(rest, WHITE);
		if (*rest != ',' && *rest != '\0')
			return false;
		bool more = *rest == ',';
		*end = '\0';
		item[used] = quoted ? at + 1 : trim(at);
		if (!quoted && (item[used][0] == '\0' || strpbrk(item[used], "[]()'\"") != NULL))
			return false;
		used++;
		at = more ? rest + 1 : rest; /* a comma may end the list: (30,) */
		at += strspn(at, WHITE);
	}
	*count = used;
	return true;
}
