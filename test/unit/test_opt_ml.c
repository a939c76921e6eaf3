/* Goal: every path of SageMaker's tree follows the base directory, and config files are read or refused with their name. Method: a
 * temporary base directory. */
#include "test/unit/base_dir.h"

static char base[64];
static struct opt_ml opt_ml;

static int setup(void **unused)
{
	(void)unused;
	unsetenv("SAGEMAKER_METRICS_DIRECTORY");
	base_dir_make(base, &opt_ml);
	return 0;
}

static int teardown(void **unused)
{
	(void)unused;
	base_dir_remove(base);
	return 0;
}

static void is_below(const char *path, const char *name)
{
	char wanted[256];
	snprintf(wanted, sizeof wanted, "%s/%s", base, name);
	assert_string_equal(path, wanted);
}

static void paths(void **unused)
{
	(void)unused;
	is_below(opt_ml.config, "input/config");
	is_below(opt_ml.data, "input/data");
	is_below(opt_ml.model, "model");
	is_below(opt_ml.output, "output");
	is_below(opt_ml.output_data, "output/data");
	is_below(opt_ml.failure, "output/failure");
	is_below(opt_ml.checkpoints, "checkpoints");
	assert_string_equal(opt_ml.tensorboard, "");
	assert_string_equal(opt_ml.metrics, "");
	assert_int_equal(opt_ml_make(&opt_ml), ST_OK);
	assert_int_equal(opt_ml_make(&opt_ml), ST_OK);
	assert_true(directory_exists(opt_ml.model) && directory_exists(opt_ml.output_data));
	assert_false(directory_exists(opt_ml.checkpoints));
}

static void base_forms(void **unused)
{
	(void)unused;
	struct opt_ml other;
	assert_int_equal(setenv("SAGEMAKER_BASE_DIR", "", 1), 0);
	assert_int_equal(opt_ml_open(&other), ST_OK);
	assert_string_equal(other.model, "/opt/ml/model");
	assert_int_equal(unsetenv("SAGEMAKER_BASE_DIR"), 0);
	assert_int_equal(setenv("SAGEMAKER_METRICS_DIRECTORY", "/m", 1), 0);
	assert_int_equal(opt_ml_open(&other), ST_OK);
	assert_string_equal(other.failure, "/opt/ml/output/failure");
	assert_string_equal(other.metrics, "/m");
	assert_int_equal(setenv("SAGEMAKER_BASE_DIR", "/x//", 1), 0);
	assert_int_equal(opt_ml_open(&other), ST_OK);
	assert_string_equal(other.model, "/x/model");
	/* Relative: from the current directory, as made absolute now. */
	char here[4096];
	assert_non_null(getcwd(here, sizeof here));
	assert_int_equal(chdir(base), 0);
	assert_int_equal(setenv("SAGEMAKER_BASE_DIR", "job", 1), 0);
	assert_int_equal(opt_ml_open(&other), ST_OK);
	is_below(other.model, "job/model");
	assert_int_equal(chdir(here), 0);
	char *large = malloc(6000);
	memset(large, 'x', 5999);
	large[0] = '/';
	large[5999] = '\0';
	assert_int_equal(setenv("SAGEMAKER_BASE_DIR", large, 1), 0);
	assert_int_equal(opt_ml_open(&other), ST_SETTINGS);
	large[OPT_ML_PATH_BYTES - 1] = '\0'; /* fits, but nothing below it does */
	assert_int_equal(setenv("SAGEMAKER_BASE_DIR", large, 1), 0);
	assert_int_equal(opt_ml_open(&other), ST_SETTINGS);
	large[4000] = '\0';
	assert_int_equal(setenv("SAGEMAKER_BASE_DIR", large, 1), 0);
	memset(large, 'x', 5999);
	assert_int_equal(setenv("SAGEMAKER_METRICS_DIRECTORY", large, 1), 0);
	assert_int_equal(opt_ml_open(&other), ST_SETTINGS);
	free(large);
}

static void checkpoint_path(void **unused)
{
	(void)unused;
	assert_int_equal(opt_ml_configure(&opt_ml), ST_OK);
	assert_false(opt_ml.checkpoints_synced);
	is_below(opt_ml.checkpoints, "checkpoints");
	base_dir_config(base, "checkpointconfig.json", "{\"S3Uri\": \"s3://b/\", \"LocalPath\": \"/opt/ml/my/checkpoints\"}");
	assert_int_equal(opt_ml_configure(&opt_ml), ST_OK);
	assert_true(opt_ml.checkpoints_synced);
	is_below(opt_ml.checkpoints, "my/checkpoints");
	base_dir_config(base, "checkpointconfig.json", "{\"LocalPath\": \"/opt/mlx/c\"}");
	assert_int_equal(opt_ml_configure(&opt_ml), ST_OK);
	assert_string_equal(opt_ml.checkpoints, "/opt/mlx/c");
	assert_int_equal(opt_ml_open(&opt_ml), ST_OK);
	base_dir_config(base, "checkpointconfig.json", "{\"LocalPath\": null}");
	assert_int_equal(opt_ml_configure(&opt_ml), ST_OK);
	is_below(opt_ml.checkpoints, "checkpoints");
	const char *const wrong[] = {"{\"LocalPath\": \"here\"}", "{\"LocalPath\": 3}", "{\"LocalPath\": \"\"}"};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		base_dir_config(base, "checkpointconfig.json", wrong[i]);
		assert_int_equal(opt_ml_configure(&opt_ml), ST_SETTINGS);
		sentence_has("checkpointconfig.json", "LocalPath", "absolute", NULL);
	}
}

static void tensorboard_path(void **unused)
{
	(void)unused;
	base_dir_config(base, "tensorboardoutputconfig.json", "{\"LocalPath\": \"/opt/ml/output/tb\"}");
	assert_int_equal(opt_ml_configure(&opt_ml), ST_OK);
	is_below(opt_ml.tensorboard, "output/tb");
	assert_int_equal(opt_ml_open(&opt_ml), ST_OK);
	base_dir_config(base, "tensorboardoutputconfig.json", "{\"S3OutputPath\": \"s3://b\"}");
	assert_int_equal(opt_ml_configure(&opt_ml), ST_OK);
	is_below(opt_ml.tensorboard, "output/tensorboard");
}

static void config_files(void **unused)
{
	(void)unused;
	struct json *json = (struct json *)(void *)base;
	assert_int_equal(opt_ml_config(&opt_ml, "x.json", &json), ST_OK);
	assert_null(json);
	base_dir_config(base, "x.json", " \n");
	assert_int_equal(opt_ml_config(&opt_ml, "x.json", &json), ST_OK);
	assert_null(json);
	base_dir_config(base, "x.json", "{\"a\":1}");
	assert_int_equal(opt_ml_config(&opt_ml, "x.json", &json), ST_OK);
	assert_non_null(json_member(json, "a"));
	json_free(json);
	json = NULL;
	base_dir_config(base, "x.json", "{\"a\":1,}");
	assert_int_equal(opt_ml_config(&opt_ml, "x.json", &json), ST_SETTINGS);
	sentence_has(base, "/input/config/x.json", "line 1, byte ", NULL);
	base_dir_config(base, "x.json", "[1]");
	assert_int_equal(opt_ml_config(&opt_ml, "x.json", &json), ST_SETTINGS);
	sentence_has("x.json", "object", "a list", NULL);
	char *large = malloc(JSON_CONFIG_BYTES_MAX + 2);
	memset(large, ' ', JSON_CONFIG_BYTES_MAX + 1);
	large[JSON_CONFIG_BYTES_MAX + 1] = '\0';
	base_dir_config(base, "x.json", large);
	assert_int_equal(opt_ml_config(&opt_ml, "x.json", &json), ST_SETTINGS);
	sentence_has("x.json", "1048576", NULL);
	large[JSON_CONFIG_BYTES_MAX] = '\0';
	base_dir_config(base, "x.json", large);
	assert_int_equal(opt_ml_config(&opt_ml, "x.json", &json), ST_OK);
	free(large);
	/* What is there but cannot be read is not the same as missing. */
	char path[256];
	snprintf(path, sizeof path, "%s/input/config/d.json", base);
	assert_int_equal(directory_make(path), ST_OK);
	assert_int_equal(opt_ml_config(&opt_ml, "d.json", &json), ST_SETTINGS);
	sentence_has("d.json", NULL);
	assert_null(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(paths, setup, teardown),
		cmocka_unit_test_setup_teardown(base_forms, setup, teardown),
		cmocka_unit_test_setup_teardown(checkpoint_path, setup, teardown),
		cmocka_unit_test_setup_teardown(tensorboard_path, setup, teardown),
		cmocka_unit_test_setup_teardown(config_files, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
