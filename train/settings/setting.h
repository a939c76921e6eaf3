/* setting.h: one row of the table of settings: how its value is read, checked, written and described.
 *
 * In: the text of a value and where it came from. Out: the field of a struct settings. Which source wins, and what only makes sense
 * together, is train/settings/settings.c's matter. */
#pragma once

#include "core/base/status.h"
#include "core/base/text.h"
#include "train/settings/settings.h"

#include <stdbool.h>
#include <stddef.h>

enum setting_kind { KIND_INTEGER, KIND_LONG, KIND_REAL, KIND_FLAG, KIND_WORD, KIND_WORDS, KIND_TEXT, KIND_INTEGERS };
enum setting_part { MATHS, RUNNING };

struct setting_word {
	const char *word;
	int value;
};

struct setting {
	const char *name;
	const char *value;   /* the default, as a user would write it */
	const char *aliases; /* separated by blanks */
	const char *help;
	enum setting_kind kind;
	enum setting_part part;
	double least, most;
	const char *zero;    /* what 0 means when it is allowed beside the range, else NULL */
	const struct setting_word *words;
	size_t words_count;
	size_t offset;       /* of the field in struct settings */
};

/* Row number n describes SETTING_…(n). */
extern const struct setting settings_rows[SETTINGS_COUNT];

/* The row with this name or alias, '-' meaning '_'; or NULL. */
const struct setting *setting_find(const char *key);
/* The row whose name or alias is so close to `key` that it was probably meant; or NULL. */
const struct setting *setting_nearest(const char *key);

/* Reads `raw` into the row's field. *given is false, and the field untouched, when the text means "the default". `source` opens the
 * error sentence ("hyperparameter lr"). ST_SETTINGS. */
enum status setting_parse(const struct setting *row, const char *source, const char *raw, struct settings *settings, bool *given);

/* Appends the field's value as text that setting_parse reads back, or "" . ST_MEMORY. */
enum status setting_format(const struct setting *row, const struct settings *settings, struct text *text);

/* "a whole number from 2 to 65536", "one of cosine, linear, step, constant". ST_MEMORY. */
enum status setting_range(const struct setting *row, struct text *text);
