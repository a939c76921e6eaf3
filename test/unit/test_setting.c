/* Goal: every way of writing a value that SageMaker's clients use means the same; every key's range is exact; what is refused names key, value
 * and rule. Method: hyperparameters as JSON text; ranges are walked from the table itself, so a new row is tested by being there. */
#include "test/unit/settings_rig.h"

#include <math.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(table_is_sound),
		TEST(dialects),
		TEST(wrong_values),
		TEST(ranges),
		TEST(names),
		TEST(unknown_keys),
		TEST(large_input),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
