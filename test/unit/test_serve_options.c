/* Goal: the environment becomes options, aliases and factors included; a wrong value is one sentence that names the variable; what no row
 * knows is ignored; the help shows every row. Method: the environment is set before each reading. */
#include "serve/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

extern char **environ;

static struct options options;

/* Starts from an empty environment. */
static enum status read_with(const char *const *pairs)
{
	static char *nothing[] = {NULL};
	environ = nothing;
	for (; pairs != NULL && pairs[0] != NULL; pairs += 2)
		assert_int_equal(setenv(pairs[0], pairs[1], 1), 0);
	return options_read(&options);
}
#define READ(...) read_with((const char *const[]){__VA_ARGS__, NULL})

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(read_with(NULL), ST_OK);
	assert_int_equal(options.port, 8080);
	assert_int_equal(payload_bytes_max(&options), 25 << 20);
	assert_int_equal(options.timeout_s, 60);
	assert_string_equal(options.default_accept, "application/json");
	assert_false(options.batch_transform || options.multi_model || options.mean_given || options.std_given);
	assert_true(options.access_log);
	assert_int_equal(options.floats, RANGE_AUTO);
	assert_int_equal(options.output, OUTPUT_PROBABILITIES);
	assert_int_equal(options.page, PAGE_AUTO);
}

static void values_are_read(void **state)
{
	(void)state;
	assert_int_equal(READ("SAGEMAKER_BIND_TO_PORT", "9000", "SAGEMAKER_MAX_PAYLOAD_IN_MB", "100", "SAGEMAKER_BATCH", "True", "SMELT_FLOATS", "pixels",
		"SMELT_OUTPUT", "logits", "SMELT_MEAN", "0.5, 0.25,0.125", "SMELT_STD", "1,2,3", "SMELT_LABELS", "/labels.txt", "SMELT_PAGE", "off",
		"SAGEMAKER_BATCH_STRATEGY", "SINGLE_RECORD", "SMELT_ACCESS_LOG", "off", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv"), ST_OK);
	assert_int_equal(options.port, 9000);
	assert_int_equal(payload_bytes_max(&options), 100 << 20);
	assert_true(options.batch_transform);
	assert_int_equal(options.floats, RANGE_PIXELS);
	assert_int_equal(options.output, OUTPUT_LOGITS);
	assert_true(options.mean_given && options.std_given);
	assert_true(options.mean[0] == 0.5f && options.mean[1] == 0.25f && options.mean[2] == 0.125f && options.std[2] == 3.0f);
	assert_string_equal(options.labels_path, "/labels.txt");
	assert_int_equal(options.page, PAGE_OFF);
	assert_int_equal(options.batch_strategy, BATCH_SINGLE_RECORD);
	assert_false(options.access_log);
	assert_string_equal(options.default_accept, "text/csv");
}

static void aliases_of_other_servers(void **state)
{
	(void)state;
	assert_int_equal(READ("TS_DEFAULT_RESPONSE_TIMEOUT", "120", "SAGEMAKER_TS_MAX_BATCH_DELAY", "100", "SAGEMAKER_TS_BATCH_SIZE", "16", "MMS_JOB_QUEUE_SIZE", "50",
		"MAX_CONTENT_LENGTH", "6291456"), ST_OK);
	assert_int_equal(options.timeout_s, 120);
	assert_int_equal(options.wait_us_max, 100000); /* milliseconds there */
	assert_int_equal(options.batch_max, 16);
	assert_int_equal(options.queue_max, 50);
	assert_int_equal(payload_bytes_max(&options), 6291456); /* bytes there */
	/* The row's first name wins; an empty value is none. */
	assert_int_equal(READ("MODEL_SERVER_TIMEOUT", "5", "SAGEMAKER_MODEL_SERVER_TIMEOUT", "7", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", ""), ST_OK);
	assert_int_equal(options.timeout_s, 7);
}

static void no_limit_of_bodies(void **state)
{
	(void)state;
	assert_int_equal(READ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "0"), ST_OK);
	assert_int_equal(payload_bytes_max(&options), 1 << 30);
	assert_int_equal(READ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "0", "SAGEMAKER_BATCH", "true"), ST_OK);
	assert_true(payload_bytes_max(&options) == SIZE_MAX);
}

static void unknown_ones_are_ignored(void **state)
{
	(void)state;
	assert_int_equal(READ("SAGEMAKER_PROGRAM", "inference.py", "MMS_FOO", "x", "TS_BAR", "-1", "SMELT_NOTHING", "?"), ST_OK);
}

static void wrong_values_are_named(void **state)
{
	(void)state;
	static const struct {
		const char *name, *value, *says;
	} cases[] = {
		{"SAGEMAKER_BIND_TO_PORT", "0", "from 1 to 65535"},
		{"SAGEMAKER_BIND_TO_PORT", "65536", "from 1 to 65535"},
		{"SAGEMAKER_BIND_TO_PORT", "80a", "a whole number"},
		{"SAGEMAKER_BIND_TO_PORT", "-1", "a whole number"},
		{"SAGEMAKER_BIND_TO_PORT", "99999999999999999999", "a whole number"},
		{"SAGEMAKER_MAX_PAYLOAD_IN_MB", "1025", "from 1 to 1024, or 0 (no limit"},
		{"SAGEMAKER_MAX_PAYLOAD_IN_MB", "9223372036854775807", "from 1 to 1024"},
		{"SAGEMAKER_BATCH", "maybe", "true or false"},
		{"SMELT_FLOATS", "bytes", "one of auto, pixels, unit, normalized"},
		{"SMELT_MEAN", "1,2", "three numbers"},
		{"SMELT_MEAN", "1,2,3,4", "three numbers"},
		{"SMELT_MEAN", "1,2,inf", "three numbers"},
		{"SMELT_STD", "1,0,1", "not above 0"},
		{"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "image/png", "image/png"},
		{"SAGEMAKER_MODEL_SERVER_TIMEOUT", "soon", "soon"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(READ("SMELT_THREADS", "3"), ST_OK);
		struct options before = options;
		assert_int_equal(READ(cases[i].name, cases[i].value), ST_SETTINGS);
		if (strstr(status_message(), cases[i].name) == NULL || strstr(status_message(), cases[i].says) == NULL)
			fail_msg("%s=%s: %s", cases[i].name, cases[i].value, status_message());
		assert_memory_equal(&options, &before, sizeof before);
	}
}

static void help_shows_every_row(void **state)
{
	(void)state;
	struct text text = {0};
	assert_int_equal(options_help(&text), ST_OK);
#define FIRST(field, names, ...) \
	{ \
		char name[512] = names; \
		name[strcspn(name, " *")] = '\0'; \
		assert_non_null(strstr(text_string(&text), name)); \
	}
	OPTIONS_TABLE(FIRST, FIRST, FIRST, FIRST, FIRST)
	assert_non_null(strstr(text_string(&text), "TS_DEFAULT_RESPONSE_TIMEOUT"));
	assert_non_null(strstr(text_string(&text), "default 25\n"));
	text_free(&text);
}

static void the_platform_is_known_by_its_signs(void **state)
{
	(void)state;
	assert_int_equal(READ("AWS_REGION", "eu-west-1"), ST_OK);
	assert_false(options_platform());
	assert_int_equal(READ("SAGEMAKER_SAFE_PORT_RANGE", "9000-9099"), ST_OK);
	assert_true(options_platform());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(values_are_read),
		cmocka_unit_test(aliases_of_other_servers),
		cmocka_unit_test(no_limit_of_bodies),
		cmocka_unit_test(unknown_ones_are_ignored),
		cmocka_unit_test(wrong_values_are_named),
		cmocka_unit_test(help_shows_every_row),
		cmocka_unit_test(the_platform_is_known_by_its_signs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
