/* Any bytes as hyperparameters.json: refused with a sentence that can be shown, or settings inside their ranges whose printed values
 * read back as the same settings. */
#include "train/settings/setting.h"
#include "train/settings/value.h"

#include <stdlib.h>
#include <string.h>

static void check(bool condition)
{
	if (!condition)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct settings settings, again;
	struct json *json = NULL;
	log_level_set(LOG_ERROR);
	if (json_parse("fuzz", bytes, count, &json) != ST_OK || json_kind(json) != JSON_OBJECT) {
		json_free(json);
		return 0;
	}
	enum status status = settings_resolve(json, &settings);
	json_free(json);
	check(text_is_utf8(status_message(), strlen(status_message())));
	if (status != ST_OK) {
		check(status == ST_SETTINGS && status_message()[0] != '\0');
		return 0;
	}
	check(settings.batch_size >= 2 && settings.epochs >= 1 && settings.warmup_epochs < settings.epochs && settings.lr_min <= settings.lr);
	again = settings;
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++) {
		struct text text = {0};
		bool given;
		check(setting_format(row, &settings, &text) == ST_OK);
		/* A text that looks like a quoted one or like "null" means something else when it is read again. */
		if (row->kind != KIND_TEXT)
			check(setting_parse(row, row->name, text_string(&text), &again, &given) == ST_OK);
		text_free(&text);
	}
	check(memcmp(&settings, &again, sizeof settings) == 0);
	return 0;
}
