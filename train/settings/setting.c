/* setting.c: see setting.h. */
#include "train/settings/setting.h"

#include "train/settings/value.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- the rows -------------------------------------------------------------------------------------------------------- */

#define NOTHING(name, ...)
#define WORD_ENTRY(constant, word) {word, constant},
#define WORD_ARRAY(name, value, list, part, aliases, help) static const struct setting_word words_##name[] = {list(WORD_ENTRY)};
SETTINGS_TABLE(NOTHING, NOTHING, NOTHING, NOTHING, WORD_ARRAY, WORD_ARRAY, NOTHING, NOTHING)

#define FIELD(name) .offset = offsetof(struct settings, name)
#define ROW_NUMBER(kind, name, value, least, most, zero, part, aliases, help) \
	{#name, value, aliases, help, kind, part, least, most, zero, NULL, 0, FIELD(name)},
#define ROW_INTEGER(name, value, least, most, zero, part, aliases, help) ROW_NUMBER(KIND_INTEGER, name, value, least, most, zero, part, aliases, help)
#define ROW_LONG(name, value, least, most, zero, part, aliases, help) ROW_NUMBER(KIND_LONG, name, value, least, most, zero, part, aliases, help)
#define ROW_REAL(name, value, least, most, zero, part, aliases, help) ROW_NUMBER(KIND_REAL, name, value, least, most, zero, part, aliases, help)
#define ROW_INTEGERS(name, value, least, most, part, aliases, help) ROW_NUMBER(KIND_INTEGERS, name, value, least, most, NULL, part, aliases, help)
#define ROW_LIST(kind, name, value, part, aliases, help) \
	{#name, value, aliases, help, kind, part, 0, 0, NULL, words_##name, sizeof words_##name / sizeof words_##name[0], FIELD(name)},
#define ROW_WORD(name, value, list, part, aliases, help) ROW_LIST(KIND_WORD, name, value, part, aliases, help)
#define ROW_WORDS(name, value, list, part, aliases, help) ROW_LIST(KIND_WORDS, name, value, part, aliases, help)
#define ROW_FLAG(name, value, part, aliases, help) {#name, value, aliases, help, KIND_FLAG, part, 0, 1, NULL, NULL, 0, FIELD(name)},
#define ROW_TEXT(name, value, part, aliases, help) {#name, value, aliases, help, KIND_TEXT, part, 0, 0, NULL, NULL, 0, FIELD(name)},

const struct setting settings_rows[SETTINGS_COUNT] = {
	SETTINGS_TABLE(ROW_INTEGER, ROW_LONG, ROW_REAL, ROW_FLAG, ROW_WORD, ROW_WORDS, ROW_TEXT, ROW_INTEGERS)};

/* --- finding a row --------------------------------------------------------------------------------------------------- */

enum { KEY_BYTES = 64 }; /* longer than any name */

/* `key` with '_' for '-'; false when it is too long to be one of ours. */
static bool key_plain(const char *key, char plain[KEY_BYTES])
{
	size_t length = strlen(key);
	if (length >= KEY_BYTES)
		return false;
	for (size_t i = 0; i <= length; i++)
		plain[i] = key[i] == '-' ? '_' : key[i];
	return true;
}

/* The next name of a row into `name`: its own, then its aliases. `at` starts as NULL. */
static bool name_next(const struct setting *row, const char **at, char name[KEY_BYTES])
{
	const char *from = *at == NULL ? row->name : *at;
	size_t length = strcspn(from, " ");
	if (length == 0)
		return false;
	MUST(length < KEY_BYTES);
	memcpy(name, from, length);
	name[length] = '\0';
	*at = *at == NULL ? row->aliases : from + length + (from[length] == ' ');
	return true;
}

const struct setting *setting_find(const char *key)
{
	char plain[KEY_BYTES], name[KEY_BYTES];
	if (!key_plain(key, plain))
		return NULL;
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++)
		for (const char *at = NULL; name_next(row, &at, name);)
			if (strcmp(plain, name) == 0)
				return row;
	return NULL;
}

const struct setting *setting_nearest(const char *key)
{
	char plain[KEY_BYTES], name[KEY_BYTES];
	if (!key_plain(key, plain))
		return NULL;
	for (char *c = plain; *c != '\0'; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	size_t length = strlen(plain);
	unsigned best = length < 4 ? 2 : length < 8 ? 3 : 4; /* fewer changes than this */
	const struct setting *nearest = NULL;
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++)
		for (const char *at = NULL; name_next(row, &at, name);) {
			unsigned distance = text_distance(plain, name);
			if (distance < best && distance < length) {
				best = distance;
				nearest = row;
			}
		}
	return nearest;
}

/* --- reading a value ------------------------------------------------------------------------------------------------- */

static void *field(const struct setting *row, struct settings *settings)
{
	return (char *)settings + row->offset;
}

static const void *field_const(const struct setting *row, const struct settings *settings)
{
	return (const char *)settings + row->offset;
}

static enum status refuse(const struct setting *row, const char *source, const char *raw)
{
	struct text range = {0};
	char shown[203];
	text_printable(raw, shown, 200);
	if (strlen(shown) < strlen(raw) && strlen(shown) >= 196)
		strcat(shown, "…");
	enum status status = setting_range(row, &range);
	if (status == ST_OK)
		status = FAIL(ST_SETTINGS, "%s=\"%s\": must be %s", source, shown, text_string(&range));
	text_free(&range);
	return status;
}

static bool in_range(const struct setting *row, double value)
{
	return (value >= row->least && value <= row->most) || (row->zero != NULL && value == 0);
}

static bool word_find(const struct setting *row, const char *word, int *value)
{
	for (size_t i = 0; i < row->words_count; i++)
		if (strcasecmp(word, row->words[i].word) == 0) {
			*value = row->words[i].value;
			return true;
		}
	return false;
}

/* `plain` may be changed: a list is cut in place. */
static bool field_parse(const struct setting *row, char *plain, void *to)
{
	const char *item[SETTING_INTEGERS_MAX];
	size_t count = 0;
	int64_t whole = 0;
	double real = 0;
	int word = 0;
	if (row->zero != NULL && strcasecmp(plain, row->zero) == 0)
		strcpy(plain, "0");
	switch (row->kind) {
	case KIND_INTEGER:
		if (!value_integer(plain, &whole) || !in_range(row, (double)whole))
			return false;
		*(int *)to = (int)whole;
		return true;
	case KIND_LONG:
		if (!value_integer(plain, &whole) || !in_range(row, (double)whole))
			return false;
		*(int64_t *)to = whole;
		return true;
	case KIND_REAL:
		if (!value_real(plain, &real) || !in_range(row, real))
			return false;
		*(double *)to = real + 0.0; /* −0 becomes 0 */
		return true;
	case KIND_FLAG: return value_flag(plain, to);
	case KIND_WORD: return word_find(row, plain, to);
	case KIND_WORDS: {
		unsigned bits = 0;
		if (!value_list(plain, item, SETTING_INTEGERS_MAX, &count) || count == 0)
			return false;
		for (size_t i = 0; i < count; i++) {
			if (!word_find(row, item[i], &word))
				return false;
			bits |= (unsigned)word;
		}
		*(unsigned *)to = bits;
		return true;
	}
	case KIND_TEXT:
		if (strlen(plain) >= SETTING_TEXT_BYTES)
			return false;
		for (const char *c = plain; *c != '\0'; c++)
			if ((unsigned char)*c < 0x20)
				return false;
		strcpy(to, plain);
		return true;
	case KIND_INTEGERS: {
		struct integers integers = {0};
		if (!value_list(plain, item, SETTING_INTEGERS_MAX, &count))
			return false;
		for (size_t i = 0; i < count; i++) {
			if (!value_integer(item[i], &whole) || !in_range(row, (double)whole))
				return false;
			integers.item[integers.count++] = (int)whole;
		}
		*(struct integers *)to = integers;
		return true;
	}
	}
	return false;
}

enum status setting_parse(const struct setting *row, const char *source, const char *raw, struct settings *settings, bool *given)
{
	char plain[VALUE_BYTES_MAX];
	enum status status = value_peel(raw, plain);
	if (status != ST_OK)
		return status_prefix(status, "%s", source);
	*given = !value_is_default(plain);
	if (*given && !field_parse(row, plain, field(row, settings)))
		return refuse(row, source, raw);
	return ST_OK;
}

/* --- writing --------------------------------------------------------------------------------------------------------- */

enum status setting_format(const struct setting *row, const struct settings *settings, struct text *text)
{
	const void *from = field_const(row, settings);
	switch (row->kind) {
	case KIND_INTEGER: return text_printf(text, "%d", *(const int *)from);
	case KIND_LONG: return text_printf(text, "%lld", (long long)*(const int64_t *)from);
	case KIND_FLAG: return text_add(text, *(const bool *)from ? "true" : "false");
	case KIND_TEXT: return text_add(text, from);
	case KIND_REAL: {
		char number[JSON_NUMBER_BYTES];
		json_number_text(*(const double *)from, number);
		return text_add(text, number);
	}
	case KIND_WORD:
		for (size_t i = 0; i < row->words_count; i++)
			if (row->words[i].value == *(const int *)from)
				return text_add(text, row->words[i].word);
		break;
	case KIND_WORDS: {
		const char *comma = "";
		for (size_t i = 0; i < row->words_count; i++)
			if (((unsigned)row->words[i].value & *(const unsigned *)from) != 0) {
				TRY(text_printf(text, "%s%s", comma, row->words[i].word));
				comma = ",";
			}
		return ST_OK;
	}
	case KIND_INTEGERS: {
		const struct integers *integers = from;
		for (int i = 0; i < integers->count; i++)
			TRY(text_printf(text, "%s%d", i > 0 ? "," : "", integers->item[i]));
		return ST_OK;
	}
	}
	return FAIL(ST_INTERNAL, "the setting %s holds a value without a word", row->name);
}

enum status setting_range(const struct setting *row, struct text *text)
{
	char least[JSON_NUMBER_BYTES], most[JSON_NUMBER_BYTES];
	if (row->kind == KIND_REAL) {
		json_number_text(row->least, least);
		json_number_text(row->most, most);
	} else {
		snprintf(least, sizeof least, "%.0f", row->least);
		snprintf(most, sizeof most, "%.0f", row->most);
	}
	if (row->zero != NULL)
		TRY(text_printf(text, "0 (%s) or ", row->zero));
	switch (row->kind) {
	case KIND_INTEGER:
	case KIND_LONG:
		if (row->least == row->most)
			return text_printf(text, "%s", least);
		return text_printf(text, "a whole number from %s to %s", least, most);
	case KIND_REAL: return text_printf(text, "a number from %s to %s", least, most);
	case KIND_INTEGERS: return text_printf(text, "a list of at most %d whole numbers from %s to %s", SETTING_INTEGERS_MAX, least, most);
	case KIND_FLAG: return text_add(text, "true or false");
	case KIND_TEXT: return text_printf(text, "text of at most %d bytes without control characters", SETTING_TEXT_BYTES - 1);
	case KIND_WORD:
	case KIND_WORDS: break;
	}
	TRY(text_add(text, row->kind == KIND_WORDS ? "a list of one or more of " : row->words_count > 1 ? "one of " : ""));
	for (size_t i = 0; i < row->words_count; i++)
		TRY(text_printf(text, "%s%s", i > 0 ? ", " : "", row->words[i].word));
	return ST_OK;
}
