/* settings_show.c: the texts made from the table of settings (settings.h): resolved values, help, README table, fingerprint. */
#include "train/setting.h"


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

enum status settings_fingerprint(const struct settings *settings, uint64_t *fingerprint)
{
	struct text text = {0};
	enum status status = ST_OK;
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++)
		if (row->part == MATHS) {
			TRY_DONE(text_printf(&text, "%s=", row->name));
			TRY_DONE(setting_format(row, settings, &text));
			TRY_DONE(text_add(&text, "\n"));
		}
	uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a, 64 bits */
	for (size_t i = 0; i < text.length; i++)
		hash = (hash ^ (unsigned char)text.data[i]) * 0x100000001B3u;
	*fingerprint = hash;
done:
	text_free(&text);
	return status;
}
