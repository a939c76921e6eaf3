/* settings.c: see settings.h. Where values come from, which source wins, and what only makes sense together. */
#include "train/settings/settings.h"

#include "core/base/file.h"
#include "train/settings/setting.h"
#include "train/settings/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

#define ENVIRONMENT_PREFIX "SMELT_"
enum { VARIABLE_BYTES = 64 }; /* longer than any name */

static const char *const origin_words[] = {"default", "recipe", "environment variable", "hyperparameter"};

/* Under which name a source has given each row already: the key, or the start of "NAME=value". */
struct given {
	const char *as[SETTINGS_COUNT];
};

static size_t row_number(const struct setting *row)
{
	return (size_t)(row - settings_rows);
}

/* --- the four sources ------------------------------------------------------------------------------------------------- */

static enum status put(struct settings *settings, const struct setting *row, enum setting_origin origin, const char *key,
	const char *raw, struct given *given)
{
	int key_length = (int)strcspn(key, "=");
	const char **before = &given->as[row_number(row)];
	if (*before != NULL)
		return FAIL(ST_SETTINGS, "%s is given twice: as %s %.*s and as %.*s; leave one", row->name, origin_words[origin],
			(int)strcspn(*before, "="), *before, key_length, key);
	char source[160];
	snprintf(source, sizeof source, "%s %.*s", origin_words[origin], key_length, key);
	bool said;
	TRY(setting_parse(row, source, raw, settings, &said));
	if (said) {
		*before = key;
		settings->origin[row_number(row)] = origin;
	}
	return ST_OK;
}

static enum status from_table(struct settings *settings)
{
	*settings = (struct settings){0};
	for (const struct setting *row = settings_rows; row < settings_rows + SETTINGS_COUNT; row++) {
		bool said; /* no: an empty text stays the empty text or list */
		TRY(setting_parse(row, row->name, row->value, settings, &said));
	}
	return ST_OK;
}

static enum status from_recipe(struct settings *settings)
{
	struct given given = {{NULL}};
	size_t count;
	const struct recipe_row *rows = recipe_rows(&count);
	for (size_t i = 0; i < count; i++) {
		if ((int)rows[i].recipe != settings->recipe)
			continue;
		const struct setting *row = setting_find(rows[i].key);
		MUST(row != NULL);
		TRY(put(settings, row, ORIGIN_RECIPE, rows[i].key, rows[i].value, &given));
	}
	return ST_OK;
}

/* If "NAME=value" has our prefix: NAME without it, in small letters, into `key`, and its value. */
static const char *variable_split(const char *variable, char key[VARIABLE_BYTES])
{
	size_t prefix = strlen(ENVIRONMENT_PREFIX), length = strcspn(variable, "=");
	if (!text_starts_with(variable, ENVIRONMENT_PREFIX) || variable[length] != '=' || length - prefix >= VARIABLE_BYTES)
		return NULL;
	for (size_t i = prefix; i < length; i++)
		key[i - prefix] = variable[i] >= 'A' && variable[i] <= 'Z' ? (char)(variable[i] - 'A' + 'a') : variable[i];
	key[length - prefix] = '\0';
	return variable + length + 1;
}

/* `only`: the one row to take; NULL: all. */
static enum status from_environment(struct settings *settings, const struct setting *only)
{
	struct given given = {{NULL}};
	for (char **variable = environ; *variable != NULL; variable++) {
		char key[VARIABLE_BYTES];
		const char *value = variable_split(*variable, key);
		const struct setting *row = value != NULL ? setting_find(key) : NULL;
		if (row != NULL && (only == NULL || row == only))
			TRY(put(settings, row, ORIGIN_ENVIRONMENT, *variable, value, &given));
	}
	return ST_OK;
}

static enum status from_hyperparameters(struct settings *settings, const struct json *hyperparameters, const struct setting *only)
{
	if (hyperparameters == NULL)
		return ST_OK;
	struct given given = {{NULL}};
	struct text raw = {0};
	enum status status = ST_OK;
	for (const struct json *item = json_first(hyperparameters); item != NULL && status == ST_OK; item = json_next(item)) {
		const char *key = json_name(item);
		const struct setting *row = setting_find(key);
		if (row == NULL || (only != NULL && row != only))
			continue;
		status = value_from_json(item, &raw);
		status = status == ST_OK ? put(settings, row, ORIGIN_HYPERPARAMETER, key, text_string(&raw), &given)
		                         : status_prefix(status, "hyperparameter %s", key);
	}
	text_free(&raw);
	return status;
}

/* A line for each key that nobody knows. */
static void warn_unknown(const struct json *hyperparameters)
{
	for (char **variable = environ; *variable != NULL; variable++) {
		char key[VARIABLE_BYTES];
		/* Other variables with our prefix have other readers, so only a near miss is worth a line. */
		if (variable_split(*variable, key) == NULL || setting_find(key) != NULL || setting_nearest(key) == NULL)
			continue;
		log_warning("environment variable %.*s is not known and ignored; did you mean the setting %s?", (int)strcspn(*variable, "="), *variable,
			setting_nearest(key)->name);
	}
	for (const struct json *item = hyperparameters != NULL ? json_first(hyperparameters) : NULL; item != NULL; item = json_next(item)) {
		const char *key = json_name(item);
		/* What the SDK and the tuner add is for their own use. */
		if (setting_find(key) != NULL || text_starts_with(key, "sagemaker_") || key[0] == '_')
			continue;
		const struct setting *nearest = setting_nearest(key);
		if (nearest != NULL)
			log_warning("hyperparameter %s is not known and ignored; did you mean %s?", key, nearest->name);
		else
			log_warning("hyperparameter %s is not known and ignored; train --help lists the settings", key);
	}
}

/* --- what only makes sense together ------------------------------------------------------------------------------------ */

static enum status check_batch(struct settings *s)
{
	/* Two names for one quantity: the one that was said more expressly counts. */
	enum setting_origin whole = s->origin[SETTING_batch_size], part = s->origin[SETTING_batch_size_per_device];
	if (s->batch_size_per_device == 0)
		return ST_OK;
	if (part == whole)
		return FAIL(ST_SETTINGS, "batch_size=%d and batch_size_per_device=%d are both given; leave one", s->batch_size, s->batch_size_per_device);
	if (part < whole) {
		s->batch_size_per_device = 0;
		return ST_OK;
	}
	s->batch_size = s->batch_size_per_device * (s->devices > 0 ? s->devices : 1);
	s->origin[SETTING_batch_size] = part;
	return ST_OK;
}

static enum status check_schedule(struct settings *s)
{
	const enum setting_origin *origin = s->origin;
	if (s->warmup_epochs >= s->epochs) {
		if (origin[SETTING_warmup_epochs] >= origin[SETTING_epochs] && origin[SETTING_warmup_epochs] != ORIGIN_DEFAULT)
			return FAIL(ST_SETTINGS, "warmup_epochs=%g must be less than epochs=%d", s->warmup_epochs, s->epochs);
		s->warmup_epochs = 0.2 * s->epochs;
		log_info("warmup_epochs=%g, a fifth of epochs=%d", s->warmup_epochs, s->epochs);
	}
	if (s->lr_min > s->lr) {
		if (origin[SETTING_lr_min] >= origin[SETTING_lr])
			return FAIL(ST_SETTINGS, "lr_min=%g must not be more than lr=%g", s->lr_min, s->lr);
		s->lr_min = 0;
		log_info("lr_min=0, because lr=%g", s->lr);
	}
	if (s->lr_schedule == LR_STEP && s->lr_step_epochs.count == 0)
		return FAIL(ST_SETTINGS, "lr_schedule=step needs lr_step_epochs, the epochs after which the learning rate falls, such as 60,120,160");
	for (int i = 1; i < s->lr_step_epochs.count; i++)
		if (s->lr_step_epochs.item[i] <= s->lr_step_epochs.item[i - 1])
			return FAIL(ST_SETTINGS, "lr_step_epochs: %d follows %d; must rise", s->lr_step_epochs.item[i], s->lr_step_epochs.item[i - 1]);
	if (s->lr_schedule != LR_STEP && s->lr_step_epochs.count > 0)
		log_warning("lr_step_epochs has no effect with lr_schedule=%s", settings_word(s, SETTING_lr_schedule));
	return ST_OK;
}

enum status settings_check_precision(const struct settings *settings, const char *backend)
{
	if (settings->precision != PRECISION_AUTO && settings->precision != PRECISION_FP32)
		return FAIL(ST_SETTINGS, "precision=%s: the %s backend computes in %s only; set auto or fp32", settings_word(settings, SETTING_precision), backend,
			strcmp(backend, "ref") == 0 ? "double precision" : "fp32");
	return ST_OK;
}

/* What GPUs can do, train/compute.h knows, when they have been asked. */
static enum status check_machine(const struct settings *s)
{
	bool known = s->backend == BACKEND_CHOICE_CPU || s->backend == BACKEND_CHOICE_REF;
	return known ? settings_check_precision(s, settings_word(s, SETTING_backend)) : ST_OK;
}

static enum status check_image(const struct settings *s, int image_size)
{
	if (s->padding_mode == PADDING_REFLECT && s->crop_padding >= image_size)
		return FAIL(ST_SETTINGS, "crop_padding=%d must be less than the image size %d with padding_mode=reflect", s->crop_padding, image_size);
	if (s->cutout > image_size)
		return FAIL(ST_SETTINGS, "cutout=%d must not be more than the image size %d", s->cutout, image_size);
	return ST_OK;
}

static enum status check_paths(const struct settings *s)
{
	struct opt_ml nowhere = {.base = ""};
	char path[OPT_ML_PATH_BYTES];
	return settings_tensorboard(s, &nowhere, path);
}

enum status settings_check_data(const struct settings *settings, size_t images, bool sharded, int image_size, int classes)
{
	TRY(check_image(settings, image_size));
	if (settings->num_classes != 0 && settings->num_classes != classes)
		return FAIL(ST_SETTINGS, "num_classes=%d, but the data has %d classes; leave num_classes out to take the data's", settings->num_classes, classes);
	size_t batch = (size_t)settings->batch_size, last = images % batch;
	if (settings->drop_last && images < batch)
		return FAIL(ST_SETTINGS, "batch_size=%zu is more than the %zu training images: no full batch; lower it or set drop_last=false", batch, images);
	if (!sharded && !settings->drop_last && last == 1)
		return FAIL(ST_SETTINGS, "%zu training images leave a last batch of one with batch_size=%zu, and one image has no variance to normalise by; "
			"set drop_last=true or another batch_size", images, batch);
	return ST_OK;
}

/* --- the whole -------------------------------------------------------------------------------------------------------- */

enum status settings_resolve(const struct json *hyperparameters, struct settings *settings)
{
	struct settings made;
	const struct setting *recipe = &settings_rows[SETTING_recipe];
	warn_unknown(hyperparameters);
	TRY(from_table(&made));
	/* The recipe first: the other sources lie over what it says. */
	TRY(from_environment(&made, recipe));
	TRY(from_hyperparameters(&made, hyperparameters, recipe));
	TRY(from_recipe(&made));
	TRY(from_environment(&made, NULL));
	TRY(from_hyperparameters(&made, hyperparameters, NULL));
	TRY(check_batch(&made));
	TRY(check_schedule(&made));
	TRY(check_machine(&made));
	TRY(check_paths(&made));
	if (made.image_size != 0)
		TRY(check_image(&made, made.image_size));
	*settings = made;
	return ST_OK;
}

enum status settings_load(const struct opt_ml *opt_ml, struct settings *settings)
{
	struct json *json = NULL;
	TRY(opt_ml_config(opt_ml, "hyperparameters.json", &json));
	enum status status = settings_resolve(json, settings);
	json_free(json);
	return status;
}

enum stem settings_stem(const struct settings *settings, bool pretrained)
{
	if (settings->stem == STEM_CHOICE_AUTO)
		return pretrained ? STEM_IMAGENET : STEM_CIFAR;
	return settings->stem == STEM_CHOICE_IMAGENET ? STEM_IMAGENET : STEM_CIFAR;
}

enum status settings_tensorboard(const struct settings *settings, const struct opt_ml *opt_ml, char path[OPT_ML_PATH_BYTES])
{
	const char *word = settings->tensorboard;
	bool wanted;
	if (word[0] == '/')
		snprintf(path, OPT_ML_PATH_BYTES, "%s", word);
	else if (strcmp(word, "auto") == 0)
		memcpy(path, opt_ml->tensorboard, sizeof opt_ml->tensorboard);
	else if (!value_flag(word, &wanted))
		return FAIL(ST_SETTINGS, "tensorboard=\"%.200s\": must be auto, true, false or an absolute directory", word);
	else if (!wanted)
		path[0] = '\0';
	else if (opt_ml->tensorboard[0] != '\0')
		memcpy(path, opt_ml->tensorboard, sizeof opt_ml->tensorboard);
	else
		return path_join(path, OPT_ML_PATH_BYTES, opt_ml->output, "tensorboard");
	return ST_OK;
}

const char *settings_word(const struct settings *settings, enum setting_number number)
{
	const struct setting *row = &settings_rows[number];
	const int *value = (const int *)(const void *)((const char *)settings + row->offset);
	for (size_t i = 0; i < row->words_count; i++)
		if (row->words[i].value == *value)
			return row->words[i].word;
	MUST(!"a value that no word of the list stands for");
	return "";
}
