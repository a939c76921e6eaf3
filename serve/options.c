/* options.c: see options.h. */
#include "serve/options.h"

#include "serve/media.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum option_kind { OPTION_WHOLE, OPTION_FLAG, OPTION_WORD, OPTION_TEXT, OPTION_TRIPLE };

struct option_word {
	const char *word;
	int value;
};

struct option {
	const char *names, *value, *help;
	enum option_kind kind;
	int64_t least, most;
	const char *zero; /* what 0 means when it is allowed beside the range, else NULL */
	const struct option_word *words;
	size_t words_count, offset, given_offset;
};

#define WORD_ROW(constant, word) {word, constant},
#define WHOLE(...)
#define FLAG(...)
#define TEXT(...)
#define TRIPLE(...)
#define WORD(field, names, value, list, help) static const struct option_word words_##field[] = {list(WORD_ROW)};
OPTIONS_TABLE(WHOLE, FLAG, WORD, TEXT, TRIPLE)
#undef WHOLE
#undef FLAG
#undef WORD
#undef TEXT
#undef TRIPLE

#define COMMON(field) .offset = offsetof(struct options, field)
#define WHOLE(field, names_, value_, least_, most_, zero_, help_) \
	{.names = names_, .value = value_, .help = help_, .kind = OPTION_WHOLE, .least = least_, .most = most_, .zero = zero_, COMMON(field)},
#define FLAG(field, names_, value_, help_) {.names = names_, .value = value_, .help = help_, .kind = OPTION_FLAG, COMMON(field)},
#define WORD(field, names_, value_, list, help_) \
	{.names = names_, .value = value_, .help = help_, .kind = OPTION_WORD, .words = words_##field, \
		.words_count = sizeof words_##field / sizeof words_##field[0], COMMON(field)},
#define TEXT(field, names_, value_, help_) {.names = names_, .value = value_, .help = help_, .kind = OPTION_TEXT, COMMON(field)},
#define TRIPLE(field, names_, value_, help_) \
	{.names = names_, .value = value_, .help = help_, .kind = OPTION_TRIPLE, .given_offset = offsetof(struct options, field##_given), COMMON(field)},
static const struct option rows[] = {OPTIONS_TABLE(WHOLE, FLAG, WORD, TEXT, TRIPLE)};

enum { NAME_BYTES_MAX = 64 };

/* The next of a row's names: *names moves behind it, NULL at the end. */
static bool name_next(const char **names, char name[NAME_BYTES_MAX], int64_t *factor)
{
	if (*names == NULL || **names == '\0')
		return false;
	size_t whole = strcspn(*names, " "), length = strcspn(*names, " *");
	MUST(length < NAME_BYTES_MAX);
	memcpy(name, *names, length);
	name[length] = '\0';
	*factor = length < whole ? strtoll(*names + length + 1, NULL, 10) : 1;
	*names += whole;
	*names += strspn(*names, " ");
	return true;
}

/* "a whole number from 1 to 1024, or 0 (no limit)", in the unit of a name with this factor. */
static enum status range_text(const struct option *row, int64_t factor, struct text *text)
{
	switch (row->kind) {
	case OPTION_WHOLE:
		TRY(text_printf(text, "a whole number from %lld to %lld", (long long)((row->least + factor - 1) / factor), (long long)(row->most / factor)));
		return row->zero != NULL ? text_printf(text, ", or 0 (%s)", row->zero) : ST_OK;
	case OPTION_FLAG:
		return text_add(text, "true or false");
	case OPTION_WORD:
		TRY(text_add(text, "one of "));
		for (size_t i = 0; i < row->words_count; i++)
			TRY(text_printf(text, "%s%s", i == 0 ? "" : ", ", row->words[i].word));
		return ST_OK;
	case OPTION_TEXT:
		return text_printf(text, "at most %d characters", OPTION_TEXT_BYTES - 1);
	case OPTION_TRIPLE:
		return text_add(text, "three numbers between commas");
	}
	return ST_INTERNAL;
}

static enum status refuse(const struct option *row, const char *name, int64_t factor, const char *value)
{
	struct text range = {0};
	TRY(range_text(row, factor, &range));
	enum status status = FAIL(ST_SETTINGS, "%s=%.100s: must be %s", name, value, text_string(&range));
	text_free(&range);
	return status;
}

static bool whole_parse(const struct option *row, int64_t factor, const char *value, int64_t *number)
{
	char *end;
	errno = 0;
	long long made = strtoll(value, &end, 10);
	if (end == value || errno != 0 || end[strspn(end, " \t")] != '\0' || made < 0 || made > INT64_MAX / factor)
		return false;
	made *= factor;
	if (made == 0 ? row->least > 0 && row->zero == NULL : made < row->least || made > row->most)
		return false;
	*number = made;
	return true;
}

static bool flag_parse(const char *value, bool *flag)
{
	static const char *const words[2][4] = {{"false", "0", "no", "off"}, {"true", "1", "yes", "on"}};
	for (int f = 0; f < 2; f++)
		for (int i = 0; i < 4; i++)
			if (strcasecmp(value, words[f][i]) == 0) {
				*flag = f == 1;
				return true;
			}
	return false;
}

static bool triple_parse(const char *value, float triple[3])
{
	float made[3];
	for (int i = 0; i < 3; i++) {
		char *end;
		made[i] = strtof(value, &end);
		if (end == value || !isfinite(made[i]))
			return false;
		end += strspn(end, " \t");
		if (*end != (i < 2 ? ',' : '\0'))
			return false;
		value = end + 1;
	}
	memcpy(triple, made, sizeof made);
	return true;
}

static bool word_parse(const struct option *row, const char *value, int *word)
{
	for (size_t i = 0; i < row->words_count; i++)
		if (strcasecmp(value, row->words[i].word) == 0) {
			*word = row->words[i].value;
			return true;
		}
	return false;
}

static enum status row_parse(const struct option *row, const char *name, int64_t factor, const char *value, struct options *options)
{
	char *field = (char *)options + row->offset;
	bool good = false;
	switch (row->kind) {
	case OPTION_WHOLE:
		good = whole_parse(row, factor, value, (int64_t *)(void *)field);
		break;
	case OPTION_FLAG:
		good = flag_parse(value, (bool *)field);
		break;
	case OPTION_WORD:
		good = word_parse(row, value, (int *)(void *)field);
		break;
	case OPTION_TEXT:
		good = strlen(value) < OPTION_TEXT_BYTES;
		if (good)
			memcpy(field, value, strlen(value) + 1);
		break;
	case OPTION_TRIPLE:
		good = value[0] == '\0' || triple_parse(value, (float *)(void *)field);
		*((bool *)options + row->given_offset) = good && value[0] != '\0';
		break;
	}
	return good ? ST_OK : refuse(row, name, factor, value);
}

static enum status row_read(const struct option *row, struct options *options)
{
	char name[NAME_BYTES_MAX];
	int64_t factor;
	for (const char *names = row->names; name_next(&names, name, &factor);) {
		const char *value = getenv(name);
		if (value != NULL && value[0] != '\0')
			return row_parse(row, name, factor, value, options);
	}
	return ST_OK;
}

enum status options_read(struct options *options)
{
	struct options made = {0};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		TRY(row_parse(&rows[i], "default", 1, rows[i].value, &made));
		TRY(row_read(&rows[i], &made));
	}
	enum media media;
	const char *type;
	if (media_of_accept(made.default_accept, MEDIA_JSON, &media, &type) != HTTP_OK)
		return status_prefix(ST_SETTINGS, "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT=%.100s", made.default_accept);
	for (int i = 0; made.std_given && i < 3; i++)
		if (made.std[i] <= 0)
			return FAIL(ST_SETTINGS, "SMELT_STD: %g is not above 0", (double)made.std[i]);
	*options = made;
	return ST_OK;
}

static enum status default_text(const struct option *row, int64_t factor, struct text *text)
{
	if (row->kind == OPTION_WHOLE)
		return text_printf(text, "%lld", strtoll(row->value, NULL, 10) / (long long)factor);
	return text_add(text, row->value[0] != '\0' ? row->value : "none");
}

/* The names in the rest of a list. */
static enum status others_text(const char *names, const char *between, struct text *text)
{
	char name[NAME_BYTES_MAX];
	int64_t factor;
	for (const char *before = ""; name_next(&names, name, &factor); before = between)
		TRY(text_printf(text, "%s%s", before, name));
	return ST_OK;
}

static enum status row_help(const struct option *row, struct text *text)
{
	char name[NAME_BYTES_MAX];
	int64_t factor;
	const char *names = row->names;
	MUST(name_next(&names, name, &factor));
	TRY(text_printf(text, "  %s\n      %s\n      ", name, row->help));
	TRY(range_text(row, factor, text));
	TRY(text_add(text, "; default "));
	TRY(default_text(row, factor, text));
	TRY(text_add(text, names[0] != '\0' ? "\n      also " : ""));
	TRY(others_text(names, ", ", text));
	return text_add(text, "\n");
}

static enum status row_markdown(const struct option *row, struct text *text)
{
	char name[NAME_BYTES_MAX];
	int64_t factor;
	const char *names = row->names;
	MUST(name_next(&names, name, &factor));
	TRY(text_printf(text, "| `%s` | ", name));
	TRY(default_text(row, factor, text));
	TRY(text_add(text, " | "));
	TRY(range_text(row, factor, text));
	TRY(text_printf(text, " | %s | ", row->help));
	TRY(others_text(names, " ", text));
	return text_add(text, " |\n");
}

enum status options_help(struct text *text)
{
	TRY(text_add(text, "  SAGEMAKER_BASE_DIR\n      another place than /opt/ml; the model is in its folder model\n"));
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		TRY(row_help(&rows[i], text));
	return ST_OK;
}

enum status options_markdown(struct text *text)
{
	TRY(text_add(text, "| variable | default | values | what it is | other names |\n|---|---|---|---|---|\n"));
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		TRY(row_markdown(&rows[i], text));
	return ST_OK;
}

size_t payload_bytes_max(const struct options *options)
{
	if (options->payload_bytes_max != 0)
		return (size_t)options->payload_bytes_max;
	return options->batch_transform ? SIZE_MAX : (size_t)1 << 30;
}

bool options_platform(void)
{
	static const char *const signs[] = {
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "SAGEMAKER_SAFE_PORT_RANGE", "SAGEMAKER_BATCH", "SAGEMAKER_MULTI_MODEL", "SAGEMAKER_REGION",
	};
	for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++)
		if (getenv(signs[i]) != NULL)
			return true;
	return false;
}
