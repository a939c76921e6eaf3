/* Goal: the lines on stdout are the contract with MetricDefinitions: each published expression finds its own number, in the metric
 * line only, and no number is ever a word or has an exponent. Method: POSIX regexes, searched unanchored over composed lines. */
#include "train/report/metrics.h"

#include "core/base/file.h"

#include <math.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct report_epoch epoch_full = {
	.epoch = 3,
	.step = 1170,
	.train = {1.25, 0.5, 0.75},
	.validated = true,
	.validation = {1.5, 0.4375, 0.6875},
	.ema = true,
	.ema_accuracy = 0.46875,
	.lr = 0.0125,
	.images_per_second = 812.5,
	.epoch_seconds = 61.5,
};
static const double values_full[METRIC_COUNT] = {1.25, 0.5, 0.75, 1.5, 0.4375, 0.6875, 0.46875, 0.0125, 812.5, 61.5};

/* How often the metric's published expression matches in `line`; the first group of the last match goes to `value`. */
static int matches(enum metric metric, const char *line, double *value)
{
	char expression[128];
	regex_t regex;
	regmatch_t at[2];
	int count = 0;
	snprintf(expression, sizeof expression, "%s=([0-9.]+)", metric_name(metric));
	assert_int_equal(regcomp(&regex, expression, REG_EXTENDED), 0);
	while (regexec(&regex, line, 2, at, 0) == 0) {
		*value = strtod(line + at[1].rm_so, NULL);
		line += at[0].rm_eo;
		count++;
	}
	regfree(&regex);
	return count;
}

static void test_each_expression_finds_its_own_number_once(void **state)
{
	(void)state;
	struct text line = {0};
	assert_int_equal(metrics_line(&line, &epoch_full), ST_OK);
	assert_true(text_starts_with(text_string(&line), "[metric] epoch=3 step=1170 train:loss=1.25 train:accuracy=0.5 "));
	for (int i = 0; i < METRIC_COUNT; i++) {
		double value = (double)NAN;
		assert_int_equal(matches((enum metric)i, text_string(&line), &value), 1);
		assert_true(value == values_full[i]);
	}
	text_free(&line);
}

static void test_no_expression_matches_in_a_step_line(void **state)
{
	(void)state;
	struct text line = {0};
	const struct report_step step = {.epoch = 1, .step = 20, .loss = 4.5, .lr = 0.1, .images_per_second = 812.5};
	assert_int_equal(metrics_step_line(&line, &step, 1950, 61), ST_OK);
	assert_string_equal(text_string(&line), "[step] epoch=1 step=20 of=1950 loss_now=4.5 lr=0.1 images/s=812.5 seconds_left=61");
	for (int i = 0; i < METRIC_COUNT; i++) {
		double value;
		assert_int_equal(matches((enum metric)i, text_string(&line), &value), 0);
	}
	text_clear(&line);
	assert_int_equal(metrics_step_line(&line, &step, 0, -1), ST_OK);
	assert_string_equal(text_string(&line), "[step] epoch=1 step=20 loss_now=4.5 lr=0.1 images/s=812.5");
	text_free(&line);
}

static void test_what_was_not_measured_is_not_mentioned(void **state)
{
	(void)state;
	struct text line = {0};
	struct report_epoch epoch = epoch_full;
	epoch.validated = epoch.ema = false;
	assert_int_equal(metrics_line(&line, &epoch), ST_OK);
	assert_string_equal(text_string(&line), "[metric] epoch=3 step=1170 train:loss=1.25 train:accuracy=0.5 train:top5_accuracy=0.75 "
		"learning_rate=0.0125 images_per_second=812.5 epoch_seconds=61.5");
	text_free(&line);
}

static void test_nan_and_infinity_never_look_like_numbers(void **state)
{
	(void)state;
	struct text line = {0};
	struct report_epoch epoch = epoch_full;
	epoch.train.loss = (double)NAN;
	epoch.validation.loss = (double)INFINITY;
	assert_int_equal(metrics_line(&line, &epoch), ST_OK);
	double value;
	assert_int_equal(matches(METRIC_TRAIN_LOSS, text_string(&line), &value), 0);
	assert_int_equal(matches(METRIC_VALIDATION_LOSS, text_string(&line), &value), 0);
	assert_non_null(strstr(text_string(&line), " train:loss=undefined "));
	text_free(&line);
}

static void test_numbers_are_plain_decimals(void **state)
{
	(void)state;
	static const struct {
		double value;
		const char *text;
	} cases[] = {
		{0, "0"}, {1, "1"}, {0.1, "0.1"}, {4.605170186, "4.60517"}, {0.0002, "0.0002"}, {1.5e-7, "0.00000015"}, {1e-15, "0"}, {812.3456, "812.346"},
		{1234567.8, "1234568"}, {100, "100"}, {0.99999999, "1"}, {-0.5, "-0.5"}, {1e20, "100000000000000000000"}, {(double)NAN, "undefined"},
		{-(double)INFINITY, "undefined"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[NUMBER_BYTES];
		number_plain(cases[i].value, text);
		assert_string_equal(text, cases[i].text);
	}
	char largest[NUMBER_BYTES];
	number_plain(-1.7976931348623157e308, largest);
	assert_int_equal(strlen(largest), 310);
}

static void test_definitions_stay_inside_the_platforms_limits(void **state)
{
	(void)state;
	struct text json = {0};
	assert_int_equal(metrics_definitions(&json), ST_OK);
	assert_true(METRIC_COUNT <= 40);
	assert_true(text_starts_with(text_string(&json), "[\n  {\"Name\": \"train:loss\", \"Regex\": \"train:loss=([0-9.]+)\"},\n"));
	assert_true(text_ends_with(text_string(&json), "{\"Name\": \"epoch_seconds\", \"Regex\": \"epoch_seconds=([0-9.]+)\"}\n]\n"));
	text_free(&json);
}

static void test_the_guide_publishes_exactly_this_table(void **state)
{
	(void)state;
	struct text table = {0};
	uint8_t *guide;
	size_t bytes;
	assert_int_equal(metrics_markdown(&table), ST_OK);
	assert_int_equal(file_read("train/report/README.md", 1 << 20, &guide, &bytes), ST_OK);
	bool published = strstr((const char *)guide, text_string(&table)) != NULL;
	if (!published)
		printf("train/report/README.md lacks this table:\n%s", text_string(&table));
	assert_true(published);
	free(guide);
	text_free(&table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_expression_finds_its_own_number_once),
		cmocka_unit_test(test_no_expression_matches_in_a_step_line),
		cmocka_unit_test(test_what_was_not_measured_is_not_mentioned),
		cmocka_unit_test(test_nan_and_infinity_never_look_like_numbers),
		cmocka_unit_test(test_numbers_are_plain_decimals),
		cmocka_unit_test(test_definitions_stay_inside_the_platforms_limits),
		cmocka_unit_test(test_the_guide_publishes_exactly_this_table),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
