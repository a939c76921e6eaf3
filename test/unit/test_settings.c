/* Goal: every way of writing a value that SageMaker's clients use means the same; every key's range is exact; the strongest source
 * wins; what is refused names key, value and rule. Method: hyperparameters as JSON text, variables in the environment; ranges are
 * walked from the table itself, so a new row is tested by being there. */
#include "train/settings/setting.h"
#include "train/settings/value.h"

#include "test/unit/base_dir.h"

#include <fcntl.h>
#include <math.h>

static struct settings settings;

static enum status resolve(const char *text)
{
	struct json *json = NULL;
	assert_int_equal(json_parse("hyperparameters.json", text, strlen(text), &json), ST_OK);
	enum status status = settings_resolve(json, &settings);
	json_free(json);
	return status;
}

static void accepted(const char *text)
{
	if (resolve(text) != ST_OK)
		fail_msg("%s: %s", text, status_message());
}

/* Refused; the sentence has key, value and rule. `settings` stays as it was. */
static void refused(const char *text, const char *key, const char *value, const char *rule)
{
	struct settings before = settings;
	if (resolve(text) != ST_SETTINGS)
		fail_msg("%s was not refused", text);
	sentence_has(key, value, rule, NULL);
	assert_memory_equal(&before, &settings, sizeof before);
}

/* {"key": "text"}, the text as it is. */
static const char *pair(const char *key, const char *text)
{
	static char json[4096];
	struct text made = {0};
	struct json_writer w = {.text = &made};
	json_write_object(&w, NULL);
	json_write_string(&w, key, text);
	assert_int_equal(json_write_end_all(&w), ST_OK);
	assert_true(made.length < sizeof json);
	strcpy(json, text_string(&made));
	text_free(&made);
	return json;
}

/* Runs `call` with stderr in memory; returns what came out. */
static const char *warnings(const char *hyperparameters)
{
	static char out[65536];
	int copy = dup(STDERR_FILENO), fds[2];
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
	close(fds[1]);
	enum status status = resolve(hyperparameters);
	assert_true(dup2(copy, STDERR_FILENO) >= 0);
	close(copy);
	ssize_t used = read(fds[0], out, sizeof out - 1);
	close(fds[0]);
	assert_int_equal(status, ST_OK);
	out[used < 0 ? 0 : used] = '\0';
	return out;
}

static int setup(void **unused)
{
	(void)unused;
	memset(&settings, 0, sizeof settings);
	return 0;
}

static void defaults(void **unused)
{
	(void)unused;
	assert_int_equal(settings_resolve(NULL, &settings), ST_OK);
	assert_int_equal(settings.recipe, RECIPE_NONE);
	assert_int_equal(settings.epochs, 30);
	assert_int_equal(settings.batch_size, 128);
	assert_true(settings.lr == 0.1 && settings.weight_decay == 5e-4);
	assert_int_equal(settings.artifact_formats, ARTIFACT_SAFETENSORS | ARTIFACT_PTH);
	assert_int_equal(settings.lr_step_epochs.count, 0);
	assert_string_equal(settings.pretrained, "");
	for (int i = 0; i < SETTINGS_COUNT; i++)
		assert_int_equal(settings.origin[i], ORIGIN_DEFAULT);
	accepted("{}");
	assert_int_equal(settings.epochs, 30);
}

static void table_is_sound(void **unused)
{
	(void)unused;
	assert_int_equal(settings_resolve(NULL, &settings), ST_OK);
	for (int i = 0; i < SETTINGS_COUNT; i++) {
		const struct setting *row = &settings_rows[i];
		assert_ptr_equal(setting_find(row->name), row);
		assert_true(row->help[0] != '\0' && strchr(row->help, '|') == NULL);
		/* Each alias leads here alone. */
		char aliases[256];
		snprintf(aliases, sizeof aliases, "%s", row->aliases);
		for (char *alias = strtok(aliases, " "); alias != NULL; alias = strtok(NULL, " "))
			assert_ptr_equal(setting_find(alias), row);
		/* What is printed reads back as the same, and the default as the table writes it. */
		struct text text = {0};
		bool given;
		assert_int_equal(setting_format(row, &settings, &text), ST_OK);
		struct settings again = settings;
		assert_int_equal(setting_parse(row, "x", text_string(&text), &again, &given), ST_OK);
		assert_int_equal(given, text.length > 0);
		assert_memory_equal(&again, &settings, sizeof settings);
		text_free(&text);
	}
	/* The constants of artifact_formats are bits. */
	assert_int_equal(ARTIFACT_SAFETENSORS & ARTIFACT_PTH, 0);
}

static void spelled(const char *key, const char *json_value, const char *wanted)
{
	char text[512];
	snprintf(text, sizeof text, "{\"%s\": %s}", key, json_value);
	accepted(text);
	struct text shown = {0};
	const struct setting *row = setting_find(key);
	assert_int_equal(setting_format(row, &settings, &shown), ST_OK);
	if (strcmp(text_string(&shown), wanted) != 0)
		fail_msg("%s means %s, not %s", text, text_string(&shown), wanted);
	text_free(&shown);
}

/* sagemaker-contract §1.3: each producer's way of writing. Conformance tests 15–18. */
static void dialects(void **unused)
{
	(void)unused;
	static const char *const forms[][3] = {
		/* typed by hand, str() of Python, json.dumps, tuner, bare JSON */
		{"epochs", "\"2\"", "2"}, {"epochs", "\"\\\"2\\\"\"", "2"}, {"epochs", "2", "2"}, {"epochs", "\"2.0\"", "2"}, {"epochs", "2.0", "2"},
		{"epochs", "\" 2 \"", "2"}, {"epochs", "\"\\\"2.0\\\"\"", "2"}, {"epochs", "\"2e1\"", "20"}, {"epochs", "\"+2\"", "2"},
		{"epochs", "\"\\\"\\\\\\\"2\\\\\\\"\\\"\"", "2"}, /* two layers */
		{"seed", "\"9007199254740991\"", "9007199254740991"}, {"seed", "9007199254740991", "9007199254740991"},
		{"lr", "\"1e-3\"", "0.001"}, {"lr", "\".1\"", "0.1"}, {"lr", "\"1\"", "1"}, {"lr", "0.25", "0.25"}, {"lr", "\"\\\"0.5\\\"\"", "0.5"}, {"lr", "\"1.\"", "1"},
		{"lr", "\"-0\"", "0"},
		{"nesterov", "\"true\"", "true"}, {"nesterov", "\"True\"", "true"}, {"nesterov", "\"TRUE\"", "true"}, {"nesterov", "\"1\"", "true"},
		{"nesterov", "\"yes\"", "true"}, {"nesterov", "true", "true"}, {"nesterov", "1", "true"}, {"nesterov", "\"\\\"true\\\"\"", "true"},
		{"drop_last", "\"false\"", "false"}, {"drop_last", "\"False\"", "false"}, {"drop_last", "\"FALSE\"", "false"}, {"drop_last", "\"0\"", "false"},
		{"drop_last", "\"no\"", "false"}, {"drop_last", "false", "false"}, {"drop_last", "0", "false"}, {"drop_last", "\"\\\"False\\\"\"", "false"},
		{"flip", "\"none\"", "none"}, {"flip", "\"Alternating\"", "alternating"}, {"flip", "\"\\\"none\\\"\"", "none"},
		{"epochs", "null", "30"}, {"epochs", "\"null\"", "30"}, {"epochs", "\"None\"", "30"}, {"epochs", "\"\"", "30"}, {"epochs", "\"  \"", "30"},
		{"epochs", "\"\\\"null\\\"\"", "30"}, {"epochs", "\"\\\"\\\"\"", "30"}, {"flip", "\"None\"", "random"}, {"pretrained", "\"null\"", ""},
		{"artifact_formats", "\"[\\\"pth\\\", \\\"safetensors\\\"]\"", "safetensors,pth"}, {"artifact_formats", "\"['pth']\"", "pth"},
		{"artifact_formats", "\"pth\"", "pth"}, {"artifact_formats", "\"pth, safetensors\"", "safetensors,pth"}, {"artifact_formats", "[\"pth\"]", "pth"},
		{"artifact_formats", "\"\\\"['pth']\\\"\"", "pth"}, {"artifact_formats", "\"('pth',)\"", "pth"}, {"artifact_formats", "\"[pth,pth,]\"", "pth"},
		{"lr_step_epochs", "\"[30, 60]\"", "30,60"}, {"lr_step_epochs", "\"\\\"[30,60]\\\"\"", "30,60"}, {"lr_step_epochs", "[30, 60]", "30,60"},
		{"lr_step_epochs", "\"30,60\"", "30,60"}, {"lr_step_epochs", "\"(30, 60)\"", "30,60"}, {"lr_step_epochs", "\"['30', '60.0']\"", "30,60"},
		{"lr_step_epochs", "30", "30"}, {"lr_step_epochs", "\"[]\"", ""}, {"lr_step_epochs", "[]", ""},
		{"num_classes", "\"auto\"", "0"}, {"gradient_clip_norm", "\"off\"", "0"},
		{"pretrained", "\"/opt/ml/input/data/w/été.pth\"", "/opt/ml/input/data/w/été.pth"}, {"pretrained", "\"\\\"/w.pth\\\"\"", "/w.pth"},
		{"pretrained", "\"\\\"unclosed\"", "\"unclosed"},
	};
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
		spelled(forms[i][0], forms[i][1], forms[i][2]);
}

static void wrong_values(void **unused)
{
	(void)unused;
	static const char *const forms[][3] = {
		{"epochs", "2.5", "a whole number from 1 to 10000"}, {"epochs", "two", "whole number"}, {"epochs", "0x10", "whole"}, {"epochs", "1e400", "whole"},
		{"epochs", "--2", "whole"}, {"epochs", "2 3", "whole"}, {"epochs", "1_000", "whole"}, {"epochs", "99999999999999999999", "whole"}, {"epochs", "-9e99", "whole"},
		{"epochs", "'2'", "whole"}, {"epochs", "true", "whole"}, {"epochs", "\"\"\"2\"\"\"", "whole"},
		{"lr", "nan", "a number from 0 to 100"}, {"lr", "inf", "number"}, {"lr", "-inf", "number"}, {"lr", "1e999", "number"}, {"lr", "-1", "number"},
		{"lr", "0x1p-3", "number"}, {"lr", "1,5", "number"}, {"lr", "1e", "number"}, {"lr", ".", "number"}, {"lr", "0.1f", "number"},
		{"nesterov", "maybe", "true or false"}, {"nesterov", "2", "true or false"}, {"nesterov", "1.0", "true or false"},
		{"lr_schedule", "cosign", "one of cosine, linear, step, constant"}, {"recipe", "quick", "one of none, seed, accurate, fast10"}, {"optimizer", "adam", "must be sgd"},
		{"artifact_formats", "gguf", "safetensors, pth"}, {"artifact_formats", "['pth'", "list"}, {"artifact_formats", "[]", "list"}, {"artifact_formats", "pth,,pth", "list"},
		{"artifact_formats", "'pth' 'pth'", "list"}, {"artifact_formats", "['pth]", "list"}, {"artifact_formats", "[['pth']]", "list"}, {"artifact_formats", ",", "list"},
		{"lr_step_epochs", "[30, x]", "a list of at most 32 whole numbers from 1 to 10000"}, {"lr_step_epochs", "0", "list"}, {"lr_step_epochs", "10001", "list"},
		{"lr_step_epochs", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33", "list"},
		{"pretrained", "a\nb", "text of at most 1023 bytes"}, {"num_layers", "50", "must be 34"}, {"num_classes", "1", "0 (auto) or a whole number from 2 to 65535"},
	};
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		char start[64];
		snprintf(start, sizeof start, "hyperparameter %s=\"", forms[i][0]);
		refused(pair(forms[i][0], forms[i][1]), start, strpbrk(forms[i][1], "\n") != NULL ? "a b" : forms[i][1], forms[i][2]);
	}
	refused("{\"epochs\": {}}", "hyperparameter epochs", "an object", "string");
	refused("{\"lr_step_epochs\": [[1]]}", "hyperparameter lr_step_epochs", "a list", "string");
	refused("{\"lr\": 1e999}", "hyperparameter lr", "inf", "number");
	refused("{\"epochs\": \"\\\"\\\\\\\"\\\\\\\\\\\\\\\"2\\\\\\\\\\\\\\\"\\\\\\\"\\\"\"}", "epochs", "2", "whole"); /* three layers */
}

/* The least, the most, and one step beyond each; 0 where it has a meaning of its own. */
static void ranges(void **unused)
{
	(void)unused;
	for (int i = 0; i < SETTINGS_COUNT; i++) {
		const struct setting *row = &settings_rows[i];
		bool whole = row->kind == KIND_INTEGER || row->kind == KIND_LONG || row->kind == KIND_INTEGERS;
		if (!whole && row->kind != KIND_REAL)
			continue;
		struct settings to = {0};
		char text[64];
		bool given;
		const double good[] = {row->least, row->most, row->zero != NULL ? 0 : row->least};
		for (int k = 0; k < 3; k++) {
			snprintf(text, sizeof text, whole ? "%.0f" : "%.17g", good[k]);
			if (setting_parse(row, row->name, text, &to, &given) != ST_OK)
				fail_msg("%s", status_message());
		}
		const double bad[] = {whole ? row->least - 1 : nextafter(row->least, (double)-INFINITY), whole ? row->most + 1 : nextafter(row->most, (double)INFINITY), -1};
		for (int k = 0; k < 3; k++) {
			if (bad[k] == 0 && row->zero != NULL)
				continue;
			snprintf(text, sizeof text, whole ? "%.0f" : "%.17g", bad[k]);
			if (setting_parse(row, row->name, text, &to, &given) != ST_SETTINGS)
				fail_msg("%s=%s was not refused", row->name, text);
			sentence_has(row->name, text, "must be", NULL);
		}
	}
}

static void names(void **unused)
{
	(void)unused;
	accepted("{\"batch-size\":\"24\"}");
	assert_int_equal(settings.batch_size, 24);
	accepted("{\"mini_batch_size\":\"25\",\"learning-rate\":\"0.25\"}");
	assert_int_equal(settings.batch_size, 25);
	assert_true(settings.lr == 0.25);
	refused("{\"batch_size\":\"16\",\"mini_batch_size\":\"32\"}", "batch_size", "mini_batch_size", "twice");
	refused("{\"lr\":\"1\",\"l-r\":\"1\",\"learning-rate\":\"1\"}", "lr", "learning-rate", "twice");
	/* Twice, but one of them says nothing. */
	accepted("{\"mini_batch_size\":null,\"batch_size\":\"16\"}");
	assert_int_equal(settings.batch_size, 16);
}

static void unknown_keys(void **unused)
{
	(void)unused;
	assert_string_equal(warnings("{\"sagemaker_program\":\"x.py\",\"_tuning_objective_metric\":\"y\",\"epochs\":\"1\",\"warmup_epochs\":\"0\"}"), "");
	const char *out = warnings("{\"epoch\":\"3\",\"foo\":\"secret\",\"Learning_Rate\":\"1\",\"wieght_decay\":\"1\"}");
	assert_non_null(strstr(out, "hyperparameter epoch is not known and ignored; did you mean epochs?\n"));
	assert_non_null(strstr(out, "hyperparameter foo is not known and ignored; train --help lists the settings\n"));
	assert_non_null(strstr(out, "did you mean lr?\n"));
	assert_non_null(strstr(out, "did you mean weight_decay?\n"));
	assert_null(strstr(out, "secret"));
	assert_int_equal(settings.epochs, 30);
	/* Ours and other programs' variables. */
	assert_int_equal(setenv("SMELT_EPOCH", "3", 1), 0);
	assert_int_equal(setenv("SMELT_CPU", "generic", 1), 0);
	assert_int_equal(setenv("AWS_SECRET_ACCESS_KEY", "secret", 1), 0);
	out = warnings("{}");
	assert_non_null(strstr(out, "SMELT_EPOCH is not known and ignored; did you mean the setting epochs?\n"));
	assert_null(strstr(out, "SMELT_CPU"));
	assert_null(strstr(out, "secret"));
	unsetenv("SMELT_EPOCH");
	unsetenv("SMELT_CPU");
	assert_null(setting_nearest(""));
	assert_null(setting_nearest("zz"));
	assert_ptr_equal(setting_nearest("LR"), &settings_rows[SETTING_lr]);
}

static void precedence(void **unused)
{
	(void)unused;
	accepted("{\"recipe\":\"fast20\"}");
	assert_true(settings.lr == 0.4 && settings.epochs == 20 && settings.nesterov && settings.cutout == 8);
	assert_int_equal(settings.origin[SETTING_lr], ORIGIN_RECIPE);
	assert_int_equal(settings.origin[SETTING_recipe], ORIGIN_HYPERPARAMETER);
	assert_int_equal(settings.origin[SETTING_seed], ORIGIN_DEFAULT);
	setenv("SMELT_LR", "0.3", 1);
	setenv("SMELT_MINI_BATCH_SIZE", "64", 1);
	accepted("{\"recipe\":\"fast20\"}");
	assert_true(settings.lr == 0.3);
	assert_int_equal(settings.batch_size, 64);
	assert_int_equal(settings.origin[SETTING_lr], ORIGIN_ENVIRONMENT);
	accepted("{\"recipe\":\"fast20\",\"lr\":\"0.2\",\"epochs\":\"21\"}");
	assert_true(settings.lr == 0.2);
	assert_int_equal(settings.origin[SETTING_lr], ORIGIN_HYPERPARAMETER);
	/* "The default" leaves it to the next source. */
	accepted("{\"recipe\":\"fast20\",\"lr\":\"None\"}");
	assert_true(settings.lr == 0.3);
	setenv("SMELT_LR", "", 1);
	accepted("{\"recipe\":\"fast20\"}");
	assert_true(settings.lr == 0.4);
	/* The recipe itself from either source. */
	setenv("SMELT_RECIPE", "fast50", 1);
	accepted("{}");
	assert_int_equal(settings.epochs, 50);
	accepted("{\"recipe\":\"\\\"fast10\\\"\"}");
	assert_int_equal(settings.epochs, 10);
	assert_int_equal(settings.recipe, RECIPE_FAST10);
	setenv("SMELT_LR", "-1", 1);
	refused("{}", "environment variable SMELT_LR=\"-1\"", "-1", "a number from 0 to 100");
	setenv("SMELT_LR", "1", 1);
	setenv("SMELT_LEARNING_RATE", "1", 1);
	refused("{}", "SMELT_LR", "SMELT_LEARNING_RATE", "twice");
	unsetenv("SMELT_LR");
	unsetenv("SMELT_LEARNING_RATE");
	unsetenv("SMELT_MINI_BATCH_SIZE");
	unsetenv("SMELT_RECIPE");
}

static void recipes(void **unused)
{
	(void)unused;
	size_t count;
	const struct recipe_row *rows = recipe_rows(&count);
	for (int recipe = 1; recipe < RECIPE_COUNT; recipe++) {
		accepted(pair("recipe", recipe_word((enum recipe)recipe)));
		assert_int_equal(settings.recipe, recipe);
		assert_true(recipe_purpose((enum recipe)recipe)[0] != '\0');
		int own = 0;
		for (size_t i = 0; i < count; i++)
			if ((int)rows[i].recipe == recipe) {
				own++;
				assert_int_equal(settings.origin[setting_find(rows[i].key) - settings_rows], ORIGIN_RECIPE);
				/* Every key of a bundle can be said otherwise; the rest of it stays. */
				char text[256];
				const struct setting *row = setting_find(rows[i].key);
				snprintf(text, sizeof text, "{\"recipe\":\"%s\",\"%s\":\"%s\"}", recipe_word((enum recipe)recipe), rows[i].key, row->value);
				accepted(text);
				assert_int_equal(settings.origin[row - settings_rows], ORIGIN_HYPERPARAMETER);
				accepted(pair("recipe", recipe_word((enum recipe)recipe)));
			}
		assert_true(own > 5);
	}
	accepted("{\"recipe\":\"seed\"}");
	assert_int_equal(settings.batch_size, 32);
	assert_int_equal(settings.stem, STEM_CHOICE_IMAGENET);
	assert_int_equal(settings.lr_schedule, LR_CONSTANT);
	assert_int_equal(settings.padding_mode, PADDING_ZERO);
	assert_true(settings.lr == 2e-4 && settings.rotation_degrees == 15 && settings.validation_split == 0.1 && settings.warmup_epochs == 0);
	assert_true(settings.decay_norm_and_bias && !settings.nesterov && !settings.drop_last);
	assert_int_equal(settings.early_stopping_patience, 20);
	accepted("{\"recipe\":\"accurate\"}");
	assert_true(settings.epochs == 200 && settings.lr_min == 1e-6 && settings.ema_decay == 0.999 && settings.mix_probability == 0.5);
	assert_int_equal(settings.flip, FLIP_ALTERNATING);
	accepted("{\"bn_momentum\":\"0.3\"}");
	assert_true(settings.norm_momentum == 0.3);
	accepted("{\"recipe\":\"fast10\"}");
	assert_true(settings.lr_schedule == LR_LINEAR && settings.warmup_epochs == 2 && settings.norm_bias_lr_scale == 16 && settings.zero_gamma);
}

static void batch_sizes(void **unused)
{
	(void)unused;
	accepted("{\"batch_size_per_device\":\"48\"}");
	assert_int_equal(settings.batch_size, 48);
	accepted("{\"recipe\":\"seed\",\"batch_size\":\"64\"}");
	assert_int_equal(settings.batch_size, 64);
	assert_int_equal(settings.batch_size_per_device, 0);
	accepted("{\"recipe\":\"fast10\",\"batch_size_per_device\":\"20\"}");
	assert_int_equal(settings.batch_size, 20);
	refused("{\"batch_size\":\"64\",\"batch_size_per_device\":\"32\"}", "batch_size=64", "batch_size_per_device=32", "leave one");
	refused("{\"batch_size\":\"1\"}", "batch_size", "1", "2 to 65536");
	refused("{\"batch_size\":\"1000000000\"}", "batch_size", "1000000000", "2 to 65536");
}

static void schedules(void **unused)
{
	(void)unused;
	refused("{\"epochs\":\"5\",\"warmup_epochs\":\"5\"}", "warmup_epochs=5", "epochs=5", "less");
	refused("{\"warmup_epochs\":\"30\"}", "warmup_epochs=30", "epochs=30", "less");
	accepted("{\"epochs\":\"5\",\"warmup_epochs\":\"4.5\"}");
	accepted("{\"epochs\":\"1\"}"); /* the default warm-up of one epoch shrinks */
	assert_true(settings.warmup_epochs > 0 && settings.warmup_epochs < 1);
	accepted("{\"recipe\":\"fast20\",\"epochs\":\"3\"}");
	assert_true(settings.warmup_epochs < 3);
	refused("{\"lr\":\"0.1\",\"lr_min\":\"0.2\"}", "lr_min=0.2", "lr=0.1", "more");
	accepted("{\"recipe\":\"accurate\",\"lr\":\"1e-7\"}");
	assert_true(settings.lr_min == 0);
	refused("{\"lr_schedule\":\"step\"}", "lr_schedule=step", "lr_step_epochs", "needs");
	accepted("{\"lr_schedule\":\"step\",\"lr_step_epochs\":\"10,20\",\"lr_step_factor\":\"0.2\"}");
	assert_int_equal(settings.lr_step_epochs.item[1], 20);
	refused("{\"lr_schedule\":\"step\",\"lr_step_epochs\":\"20,20\"}", "lr_step_epochs", "20", "rise");
	assert_non_null(strstr(warnings("{\"lr_step_epochs\":\"10\"}"), "no effect"));
}

static void impossible(void **unused)
{
	(void)unused;
	refused("{\"precision\":\"bf16\"}", "precision=bf16", "cpu", "fp32 only");
	refused("{\"precision\":\"fp16\",\"backend\":\"ref\"}", "precision=fp16", "ref", "double");
	accepted("{\"precision\":\"fp32\"}");
	accepted("{\"devices\":\"2\"}");
	refused("{\"backend\":\"cuda\"}", "backend", "cuda", "one of auto, cpu, ref");
	refused("{\"image_size\":\"8\",\"crop_padding\":\"8\"}", "crop_padding=8", "8", "reflect");
	accepted("{\"image_size\":\"8\",\"crop_padding\":\"8\",\"padding_mode\":\"zero\"}");
	refused("{\"image_size\":\"32\",\"cutout\":\"33\"}", "cutout=33", "32", "more");
	refused("{\"tensorboard\":\"relative\"}", "tensorboard", "relative", "absolute");
}

static void data_checks(void **unused)
{
	(void)unused;
	accepted("{\"batch_size\":\"100\",\"num_classes\":\"10\",\"crop_padding\":\"20\"}");
	assert_int_equal(settings_check_data(&settings, 1000, false, 32, 10), ST_OK);
	assert_int_equal(settings_check_data(&settings, 1000, false, 20, 10), ST_SETTINGS);
	sentence_has("crop_padding=20", "image size 20", NULL);
	assert_int_equal(settings_check_data(&settings, 1000, false, 32, 100), ST_SETTINGS);
	sentence_has("num_classes=10", "100", NULL);
	assert_int_equal(settings_check_data(&settings, 99, false, 32, 10), ST_SETTINGS);
	sentence_has("batch_size=100", "99", "drop_last=false", NULL);
	accepted("{\"batch_size\":\"100\",\"drop_last\":\"false\"}");
	assert_int_equal(settings_check_data(&settings, 99, false, 32, 10), ST_OK);
	assert_int_equal(settings_check_data(&settings, 201, false, 32, 10), ST_SETTINGS);
	assert_int_equal(settings_check_data(&settings, 201, true, 32, 10), ST_OK); /* hosts leave no image alone: train/share.h */
	sentence_has("201", "batch_size=100", "drop_last=true", NULL);
}

static void choices(void **unused)
{
	(void)unused;
	accepted("{}");
	assert_int_equal(settings_stem(&settings, false), STEM_CIFAR);
	assert_int_equal(settings_stem(&settings, true), STEM_IMAGENET);
	assert_string_equal(settings_backend(&settings), "cpu");
	assert_string_equal(settings_word(&settings, SETTING_lr_schedule), "cosine");
	accepted("{\"stem\":\"cifar\",\"backend\":\"ref\"}");
	assert_int_equal(settings_stem(&settings, true), STEM_CIFAR);
	assert_string_equal(settings_backend(&settings), "ref");
	struct opt_ml opt_ml = {.output = "/b/output"};
	char path[OPT_ML_PATH_BYTES];
	static const char *const forms[][3] = {/* setting, what the config file says, where */
		{"auto", "", ""}, {"auto", "/tb", "/tb"}, {"true", "", "/b/output/tensorboard"}, {"1", "/tb", "/tb"}, {"False", "/tb", ""}, {"/my/dir", "/tb", "/my/dir"}};
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		accepted(pair("tensorboard", forms[i][0]));
		strcpy(opt_ml.tensorboard, forms[i][1]);
		assert_int_equal(settings_tensorboard(&settings, &opt_ml, path), ST_OK);
		assert_string_equal(path, forms[i][2]);
	}
}

/* Conformance tests 22, 24, 25. */
static void large_input(void **unused)
{
	(void)unused;
	struct text text = {0};
	struct json_writer w = {.text = &text};
	char key[257], value[2501];
	memset(value, 'v', 2500);
	value[2500] = '\0';
	json_write_object(&w, NULL);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof key, "%03d_%0252d", i, 0);
		json_write_string(&w, key, value);
	}
	assert_int_equal(json_write_end_all(&w), ST_OK);
	assert_int_equal(strlen(key), 256);
	assert_non_null(strstr(warnings(text_string(&text)), "hyperparameter 000_0"));
	text_free(&text);
	/* A known key with the longest value: 2500 characters of 4 bytes. */
	for (int bytes = 1000; bytes <= 20000; bytes *= 2) {
		text_clear(&text);
		w = (struct json_writer){.text = &text};
		json_write_object(&w, NULL);
		char *smileys = calloc(1, (size_t)bytes + 5);
		for (int i = 0; i < bytes; i += 4)
			memcpy(smileys + i, "😀", 4);
		json_write_string(&w, "recipe", smileys);
		json_write_end_all(&w);
		refused(text_string(&text), "recipe", bytes <= 10000 ? "😀…" : "bytes, at most", "");
		assert_true(text_is_utf8(status_message(), strlen(status_message())));
		free(smileys);
	}
	text_free(&text);
	refused("{\"recipe\":\"caf\\u00e9\\u001b[31m\"}", "recipe", "café?[31m", "one of");
}

static void file(void **unused)
{
	(void)unused;
	char base[64];
	struct opt_ml opt_ml;
	base_dir_make(base, &opt_ml);
	assert_int_equal(settings_load(&opt_ml, &settings), ST_OK);
	assert_int_equal(settings.epochs, 30);
	base_dir_config(base, "hyperparameters.json", "");
	assert_int_equal(settings_load(&opt_ml, &settings), ST_OK);
	base_dir_config(base, "hyperparameters.json", "{\"epochs\":\"7\"}");
	assert_int_equal(settings_load(&opt_ml, &settings), ST_OK);
	assert_int_equal(settings.epochs, 7);
	base_dir_config(base, "hyperparameters.json", "{\"epochs\":\"7\",\n\"epochs\":\"8\"}");
	assert_int_equal(settings_load(&opt_ml, &settings), ST_SETTINGS);
	sentence_has("hyperparameters.json", "epochs", "twice", NULL);
	assert_int_equal(settings.epochs, 7);
	base_dir_remove(base);
}

static void print(void **unused)
{
	(void)unused;
	struct text text = {0};
	setenv("SMELT_SEED", "7", 1);
	accepted("{\"recipe\":\"fast10\",\"epochs\":\"3\"}");
	unsetenv("SMELT_SEED");
	assert_int_equal(settings_print(&settings, &text), ST_OK);
	int lines = 0;
	for (const char *c = text_string(&text); *c != '\0'; c++)
		lines += *c == '\n';
	assert_int_equal(lines, SETTINGS_COUNT);
	assert_non_null(strstr(text_string(&text), "epochs=3 "));
	assert_non_null(strstr(text_string(&text), "# hyperparameter\n"));
	assert_non_null(strstr(text_string(&text), "# recipe fast10\n"));
	assert_non_null(strstr(text_string(&text), "# environment\n"));
	assert_non_null(strstr(text_string(&text), "# default\n"));
	text_clear(&text);
	assert_int_equal(settings_help(&text), ST_OK);
	for (int i = 0; i < SETTINGS_COUNT; i++)
		if (strstr(text_string(&text), settings_rows[i].help) == NULL)
			fail_msg("--help lacks %s", settings_rows[i].name);
	text_free(&text);
}

/* What differs between the run of {} and the one of `text`. */
static const char *differences(const char *text)
{
	static char out[2048];
	struct text first = {0}, other = {0}, told = {0};
	accepted("{}");
	assert_int_equal(settings_fingerprint(&settings, &first), ST_OK);
	accepted(text);
	assert_int_equal(settings_fingerprint(&settings, &other), ST_OK);
	assert_int_equal(settings_differences(text_string(&other), text_string(&first), &told), ST_OK);
	assert_int_equal(told.length == 0, strcmp(text_string(&first), text_string(&other)) == 0);
	snprintf(out, sizeof out, "%s", text_string(&told));
	text_free(&first);
	text_free(&other);
	text_free(&told);
	return out;
}

static void fingerprint(void **unused)
{
	(void)unused;
	/* What does not touch the mathematics, or says the same in other words. */
	static const char *const same[] = {"{\"lr\":\"0.10\"}", "{\"threads\":\"3\"}", "{\"batch_size_per_device\":\"128\"}", "{\"keep_checkpoints\":\"5\",\"max_steps\":\"9\"}"};
	for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
		assert_string_equal(differences(same[i]), "");
	assert_string_equal(differences("{\"epochs\":\"5\",\"lr\":\"0.2\",\"pretrained\":\"/w\"}"), "epochs=5 (was 30), lr=0.2 (was 0.1), pretrained=/w (was )");
	static const char *const different[] = {"{\"seed\":\"1\"}", "{\"flip\":\"none\"}", "{\"batch_size\":\"64\"}", "{\"recipe\":\"fast10\"}", "{\"stem\":\"cifar\"}"};
	for (size_t i = 0; i < sizeof different / sizeof different[0]; i++)
		assert_string_not_equal(differences(different[i]), "");
	struct text told = {0};
	assert_int_equal(settings_differences("a=1\nab=2\nc=3\n", "ab=2\nc=\n", &told), ST_OK);
	assert_string_equal(text_string(&told), "a=1 (was unknown), c=3 (was )");
	text_free(&told);
}

/* Whether two hosts with these hyperparameters may train together. */
static bool together(const char *first, const char *second)
{
	struct text texts[2] = {{0}};
	accepted(first);
	assert_int_equal(settings_common(&settings, &texts[0]), ST_OK);
	accepted(second);
	assert_int_equal(settings_common(&settings, &texts[1]), ST_OK);
	bool equal = strcmp(text_string(&texts[0]), text_string(&texts[1])) == 0;
	text_free(&texts[0]);
	text_free(&texts[1]);
	return equal;
}

static void hosts_together(void **unused)
{
	(void)unused;
	assert_true(together("{}", "{\"devices\":\"4\",\"threads\":\"3\"}"));
	assert_true(together("{\"batch_size_per_device\":\"32\"}", "{\"batch_size_per_device\":\"32\",\"devices\":\"4\"}"));
	static const char *const apart[] = {"{\"lr\":\"0.2\"}", "{\"batch_size\":\"64\"}", "{\"batch_size_per_device\":\"32\"}", "{\"max_steps\":\"9\"}",
		"{\"reduce_bucket_mb\":\"8\"}", "{\"peer_timeout_seconds\":\"60\"}"};
	for (size_t i = 0; i < sizeof apart / sizeof apart[0]; i++)
		assert_false(together("{}", apart[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(defaults, setup),
		cmocka_unit_test_setup(table_is_sound, setup),
		cmocka_unit_test_setup(dialects, setup),
		cmocka_unit_test_setup(wrong_values, setup),
		cmocka_unit_test_setup(ranges, setup),
		cmocka_unit_test_setup(names, setup),
		cmocka_unit_test_setup(unknown_keys, setup),
		cmocka_unit_test_setup(precedence, setup),
		cmocka_unit_test_setup(recipes, setup),
		cmocka_unit_test_setup(batch_sizes, setup),
		cmocka_unit_test_setup(schedules, setup),
		cmocka_unit_test_setup(impossible, setup),
		cmocka_unit_test_setup(data_checks, setup),
		cmocka_unit_test_setup(choices, setup),
		cmocka_unit_test_setup(large_input, setup),
		cmocka_unit_test_setup(file, setup),
		cmocka_unit_test_setup(print, setup),
		cmocka_unit_test_setup(fingerprint, setup),
		cmocka_unit_test_setup(hosts_together, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
