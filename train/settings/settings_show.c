/* settings_show.c: the texts made from the table of settings (settings.h): resolved values, help, README table, fingerprint. */
#include "train/settings/setting.h"

#include <string.h>


/* As SETTING_… and enum setting_origin count. */
static const char *const origins[] = {"default", "recipe", "environment", "hyperparameter"};

enum status settings_print(const struct settings *settings, struct text *text)
{
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++) {
		enum setting_origin origin = settings->origin[row - settings_rows];
		size_t start = text->length;
		TRY(text_printf(text, "%s=", row->name));
		TRY(setting_format(row, settings, text));
		int width = (int)(text->length - start);
		TRY(text_printf(text, "%*s  # %s", width < 34 ? 34 - width : 0, "", origins[origin]));
		TRY(text_printf(text, "%s%s\n", origin == ORIGIN_RECIPE ? " " : "", origin == ORIGIN_RECIPE ? recipe_word((enum recipe)settings->recipe) : ""));
	}
	return ST_OK;
}

enum status settings_help(struct text *text)
{
	TRY(text_add(text, "Settings: keys of hyperparameters.json, or environment variables SMELT_<KEY>; a hyperparameter wins.\n\n"));
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++) {
		TRY(text_printf(text, "  %-24s %s\n%27s", row->name, row->help, ""));
		TRY(setting_range(row, text));
		TRY(text_printf(text, "; default %s\n", row->value[0] != '\0' ? row->value : "empty"));
		if (row->aliases[0] != '\0')
			TRY(text_printf(text, "%27salso: %s\n", "", row->aliases));
	}
	TRY(text_add(text, "\nRecipes:\n"));
	size_t count;
	const struct recipe_row *rows = recipe_rows(&count);
	for (int recipe = 0; recipe < RECIPE_COUNT; recipe++) {
		TRY(text_printf(text, "  %-24s %s", recipe_word((enum recipe)recipe), recipe_purpose((enum recipe)recipe)));
		int written = 0;
		for (size_t i = 0; i < count; i++)
			if ((int)rows[i].recipe == recipe)
				TRY(text_printf(text, written++ % 4 == 0 ? "\n%27s%s=%s" : "%s %s=%s", "", rows[i].key, rows[i].value));
		TRY(text_add(text, "\n"));
	}
	return ST_OK;
}

enum status settings_markdown(struct text *text)
{
	TRY(text_add(text, "| setting | default | values | what it does | also called |\n|---|---|---|---|---|\n"));
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++) {
		TRY(text_printf(text, "| `%s` | %s | ", row->name, row->value));
		TRY(setting_range(row, text));
		TRY(text_printf(text, " | %s | %s |\n", row->help, row->aliases));
	}
	TRY(text_add(text, "\n| recipe | what it is for | what it sets |\n|---|---|---|\n"));
	size_t count;
	const struct recipe_row *rows = recipe_rows(&count);
	for (int recipe = 0; recipe < RECIPE_COUNT; recipe++) {
		TRY(text_printf(text, "| `%s` | %s |", recipe_word((enum recipe)recipe), recipe_purpose((enum recipe)recipe)));
		for (size_t i = 0; i < count; i++)
			if ((int)rows[i].recipe == recipe)
				TRY(text_printf(text, " %s=%s", rows[i].key, rows[i].value));
		TRY(text_add(text, " |\n"));
	}
	return ST_OK;
}

static enum status line_add(const struct setting *row, const struct settings *settings, struct text *text)
{
	TRY(text_printf(text, "%s=", row->name));
	TRY(setting_format(row, settings, text));
	return text_add(text, "\n");
}

enum status settings_fingerprint(const struct settings *settings, struct text *text)
{
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++)
		if (row->part == MATHS)
			TRY(line_add(row, settings, text));
	return ST_OK;
}

enum status settings_common(const struct settings *settings, struct text *text)
{
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++) {
		/* A batch that is told by device depends on the devices of all hosts. */
		bool own = row == &settings_rows[SETTING_devices] || row == &settings_rows[SETTING_threads]
			|| (row == &settings_rows[SETTING_batch_size] && settings->batch_size_per_device != 0);
		if (!own)
			TRY(line_add(row, settings, text));
	}
	return ST_OK;
}

/* The value of `key` in a fingerprint: *length bytes, or NULL when it is not there. */
static const char *fingerprint_value(const char *fingerprint, const char *key, size_t key_length, size_t *length)
{
	for (const char *line = fingerprint; *line != '\0';) {
		size_t line_length = strcspn(line, "\n");
		if (line_length > key_length && memcmp(line, key, key_length) == 0 && line[key_length] == '=') {
			*length = line_length - key_length - 1;
			return line + key_length + 1;
		}
		line += line_length + (line[line_length] == '\n');
	}
	*length = 0;
	return NULL;
}

enum status settings_differences(const char *now, const char *before, struct text *text)
{
	for (const char *line = now; *line != '\0';) {
		size_t line_length = strcspn(line, "\n"), key_length = strcspn(line, "=\n"), length, old_length;
		const char *value = fingerprint_value(now, line, key_length, &length);
		const char *old = fingerprint_value(before, line, key_length, &old_length);
		if (value != NULL && (old == NULL || length != old_length || memcmp(value, old, length) != 0))
			TRY(text_printf(text, "%s%.*s (was %.*s)", text->length > 0 ? ", " : "", (int)line_length, line,
				old != NULL ? (int)old_length : 7, old != NULL ? old : "unknown"));
		line += line_length + (line[line_length] == '\n');
	}
	return ST_OK;
}
