/* Goal: the strongest source of a setting wins; settings that cannot be together, or not with the data, are refused by name. Method:
 * hyperparameters as JSON text, variables in the environment. */
#include "test/unit/settings_rig.h"

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
	refused("{\"precision\":\"bf16\",\"backend\":\"cpu\"}", "precision=bf16", "cpu", "fp32 only");
	accepted("{\"precision\":\"bf16\"}"); /* there may be a GPU */
	accepted("{\"precision\":\"tf32\",\"backend\":\"cuda\"}");
	refused("{\"precision\":\"fp16\",\"backend\":\"ref\"}", "precision=fp16", "ref", "double");
	accepted("{\"precision\":\"fp32\"}");
	accepted("{\"devices\":\"2\"}");
	accepted("{\"accelerator\":\"gpu\"}");
	assert_string_equal(settings_word(&settings, SETTING_backend), "cuda");
	refused("{\"backend\":\"tpu\"}", "backend", "tpu", "one of auto, cpu, cuda, gpu, ref");
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
	assert_string_equal(settings_word(&settings, SETTING_lr_schedule), "cosine");
	accepted("{\"stem\":\"cifar\",\"backend\":\"ref\"}");
	assert_int_equal(settings_stem(&settings, true), STEM_CIFAR);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(defaults),
		TEST(file),
		TEST(precedence),
		TEST(recipes),
		TEST(batch_sizes),
		TEST(schedules),
		TEST(impossible),
		TEST(data_checks),
		TEST(choices),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
