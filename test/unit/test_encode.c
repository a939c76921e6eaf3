/* Goal: rows of logits become exactly the body that was asked for: right numbers, exact text, one line a row, faults in their places.
 * Method: softmax against one in long double, also where a naive one overflows; whole bodies compared as text; numbers read back bit for
 * bit; every form with faults. */
#include "core/base/json.h"
#include "core/format/npy.h"
#include "serve/encode.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CLASSES = 3 };
static const char *const names[CLASSES] = {"cattle", "tiger, striped", "a \"b\""};

static const struct encode_rules plain = {.media = MEDIA_JSON, .output = OUTPUT_LOGITS, .classes = CLASSES, .class_names = names};

static void expect_code(enum http_code expected, struct encode_rules rules, const float *logits, size_t count, char *const *faults, struct text *body)
{
	float rows[64];
	assert_true(count * CLASSES <= 64);
	memcpy(rows, logits, count * CLASSES * sizeof *rows);
	enum http_code code = encode(&rules, rows, count, faults, body);
	if (code != expected)
		fail_msg("%d \"%s\", expected %d", (int)code, status_message(), (int)expected);
}

static void expect_body(const char *expected, struct encode_rules rules, const float *logits, size_t count, char *const *faults)
{
	struct text body = {0};
	expect_code(HTTP_OK, rules, logits, count, faults, &body);
	assert_string_equal(text_string(&body), expected);
	text_free(&body);
}

static const float two_rows[] = {1, 0.25f, -3, 0.1f, 1e-7f, 20};

static struct encode_rules as(enum media media, int top_k)
{
	struct encode_rules rules = plain;
	rules.media = media;
	rules.top_k = top_k;
	return rules;
}

static void all_classes_are_written(void **state)
{
	(void)state;
	expect_body("[[1,0.25,-3]]", as(MEDIA_JSON, 0), two_rows, 1, NULL);
	expect_body("[[1,0.25,-3],[0.1,1e-7,20]]", as(MEDIA_JSON, 0), two_rows, 2, NULL);
	expect_body("[1,0.25,-3]", as(MEDIA_JSON_LINES, 0), two_rows, 1, NULL);
	expect_body("[1,0.25,-3]\n[0.1,1e-7,20]", as(MEDIA_JSON_LINES, 0), two_rows, 2, NULL);
	expect_body("1,0.25,-3", as(MEDIA_CSV, 0), two_rows, 1, NULL);
	expect_body("1,0.25,-3\n0.1,1e-7,20", as(MEDIA_CSV, 0), two_rows, 2, NULL);
	struct text body = {0};
	expect_code(HTTP_OK, as(MEDIA_NPY, 0), two_rows, 2, NULL, &body);
	struct npy npy;
	assert_int_equal(npy_read("answer", (const uint8_t *)body.data, body.length, &npy), ST_OK);
	assert_true(tensor_same_shape(&npy.view, 2, (const int64_t[]){2, CLASSES}));
	assert_int_equal(npy.view.dtype, DTYPE_F32);
	assert_memory_equal(npy.view.data, two_rows, sizeof two_rows);
	assert_int_equal(npy.bytes_after, 0);
	text_free(&body);
}

static void the_best_are_written(void **state)
{
	(void)state;
	static const float row[] = {1, 2.5f, 1};
	expect_body("{\"predictions\": [{\"label\": \"tiger, striped\", \"index\": 1, \"logit\": 2.5}, {\"label\": \"cattle\", \"index\": 0, \"logit\": 1}]}",
		as(MEDIA_JSON, 2), row, 1, NULL);
	expect_body("{\"predictions\": [[{\"label\": \"cattle\", \"index\": 0, \"logit\": 1}],[{\"label\": \"a \\\"b\\\"\", \"index\": 2, \"logit\": 20}]]}",
		as(MEDIA_JSON, 1), two_rows, 2, NULL);
	expect_body("{\"predictions\": [{\"label\": \"cattle\", \"index\": 0, \"logit\": 1}]}\n"
		"{\"predictions\": [{\"label\": \"a \\\"b\\\"\", \"index\": 2, \"logit\": 20}]}", as(MEDIA_JSON_LINES, 1), two_rows, 2, NULL);
	expect_body("\"tiger, striped\",2.5,cattle,1,\"a \"\"b\"\"\",1", as(MEDIA_CSV, 99), row, 1, NULL);
	struct text body = {0};
	expect_code(HTTP_NOT_ACCEPTABLE, as(MEDIA_NPY, 1), row, 1, NULL, &body);
	assert_non_null(strstr(status_message(), "top_k cannot be given as npy"));
	text_free(&body);
	/* The name follows the number. */
	static const float three[] = {0, 0, -200};
	struct encode_rules rules = as(MEDIA_JSON, 1);
	rules.output = OUTPUT_PROBABILITIES;
	expect_body("{\"predictions\": [{\"label\": \"cattle\", \"index\": 0, \"probability\": 0.5}]}", rules, three, 1, NULL);
	rules.output = OUTPUT_LOG_PROBABILITIES;
	expect_body("{\"predictions\": [{\"label\": \"cattle\", \"index\": 0, \"log_probability\": -0.6931472}]}", rules, three, 1, NULL);
	/* A label that holds a line's end keeps its line. */
	static const char *const lines[] = {"a\nb", "c", "d"};
	rules = as(MEDIA_CSV, 1);
	rules.class_names = lines;
	expect_body("\"a b\",1", rules, two_rows, 1, NULL);
}

static void faults_keep_their_places(void **state)
{
	(void)state;
	char why[] = "line 2: is \"empty\"";
	char *const faults[] = {NULL, why};
	expect_body("[[1,0.25,-3],{\"error\": \"line 2: is \\\"empty\\\"\"}]", as(MEDIA_JSON, 0), two_rows, 2, faults);
	expect_body("[1,0.25,-3]\n{\"error\": \"line 2: is \\\"empty\\\"\"}", as(MEDIA_JSON_LINES, 0), two_rows, 2, faults);
	expect_body("{\"predictions\": [[{\"label\": \"cattle\", \"index\": 0, \"logit\": 1}],{\"error\": \"line 2: is \\\"empty\\\"\"}]}", as(MEDIA_JSON, 1), two_rows,
		2, faults);
	expect_body("1,0.25,-3\n", as(MEDIA_CSV, 0), two_rows, 2, faults);
	expect_body("cattle,1\n", as(MEDIA_CSV, 1), two_rows, 2, faults);
	char *const first[] = {why, NULL};
	expect_body("\n0.1,1e-7,20", as(MEDIA_CSV, 0), two_rows, 2, first);
	struct text body = {0};
	expect_code(HTTP_OK, as(MEDIA_NPY, 0), two_rows, 2, faults, &body);
	struct npy npy;
	float floats[2 * CLASSES];
	assert_int_equal(npy_read("answer", (const uint8_t *)body.data, body.length, &npy), ST_OK);
	npy_read_floats(&npy, floats);
	assert_memory_equal(floats, two_rows, CLASSES * sizeof *floats);
	for (int k = CLASSES; k < 2 * CLASSES; k++)
		assert_true(isnan(floats[k]));
	text_free(&body);
}

static void what_is_not_finite_is_no_answer(void **state)
{
	(void)state;
	static const float bad[] = {1, 0.25f, -3, 1, NAN, 2}, worse[] = {INFINITY, 0, 0};
	struct text body = {0};
	expect_code(HTTP_BAD_REQUEST, as(MEDIA_JSON, 0), bad, 2, NULL, &body);
	assert_non_null(strstr(status_message(), "image 2: the network's answer is not finite"));
	expect_code(HTTP_BAD_REQUEST, as(MEDIA_NPY, 0), worse, 1, NULL, &body);
	static const float far[] = {3e38f, 0, -3e38f};
	struct encode_rules log = as(MEDIA_JSON, 0);
	log.output = OUTPUT_LOG_PROBABILITIES;
	expect_code(HTTP_BAD_REQUEST, log, far, 1, NULL, &body);
	log.output = OUTPUT_PROBABILITIES;
	expect_code(HTTP_OK, log, far, 1, NULL, &body);
	assert_string_equal(text_string(&body), "[[1,0,0]]");
	text_free(&body);
	/* Where lines have their own faults, one row's does not spoil the others. */
	char *const none[] = {NULL, NULL};
	expect_code(HTTP_OK, as(MEDIA_JSON, 0), bad, 2, none, &body);
	assert_non_null(strstr(text_string(&body), "[[1,0.25,-3],{\"error\": \"the network's answer is not finite"));
	text_free(&body);
	expect_body("1,0.25,-3\n", as(MEDIA_CSV, 0), bad, 2, none);
}

static void softmax_is_sound(void **state)
{
	(void)state;
	static const float rows[][CLASSES] = {{0, 0, 0}, {1, 2, 3}, {1000, 1001, 999}, {-1000, -1001, -999}, {1.5e38f, 0, -1.5e38f}, {88, 89, -100}, {1e-30f, 0, -1e-30f},
		{-87, 0, -104}};
	for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
		for (int log = 0; log < 2; log++) {
			struct encode_rules rules = as(MEDIA_NPY, 0);
			rules.output = log ? OUTPUT_LOG_PROBABILITIES : OUTPUT_PROBABILITIES;
			struct text body = {0};
			expect_code(HTTP_OK, rules, rows[r], 1, NULL, &body);
			struct npy npy;
			float floats[CLASSES];
			assert_int_equal(npy_read("answer", (const uint8_t *)body.data, body.length, &npy), ST_OK);
			npy_read_floats(&npy, floats);
			long double largest = (long double)fmaxf(fmaxf(rows[r][0], rows[r][1]), rows[r][2]), sum = 0, total = 0;
			for (int k = 0; k < CLASSES; k++)
				sum += expl((long double)rows[r][k] - largest);
			for (int k = 0; k < CLASSES; k++) {
				long double exact = (long double)rows[r][k] - largest - logl(sum);
				long double expected = log ? exact : expl(exact);
				/* Half a unit in the last place for the rounding to float, and a thousandth of one for the double before. */
				long double allowed = 0.501L * ldexpl(1, (fabsl(expected) > 0x1p-126L ? ilogbl(expected) : -126) - 23);
				if (fabsl((long double)floats[k] - expected) > allowed)
					fail_msg("row %zu class %d: %.9g, expected %.12Lg", r, k, (double)floats[k], expected);
				total += (long double)floats[k];
			}
			if (!log && fabsl(total - 1) > CLASSES * 0x1p-25L)
				fail_msg("row %zu sums to %.9Lg", r, total);
			text_free(&body);
		}
	}
}

static void numbers_read_back(void **state)
{
	(void)state;
	enum { ROWS = 50, WIDE = 100 };
	static float logits[ROWS * WIDE], kept[ROWS * WIDE];
	for (int i = 0; i < ROWS * WIDE; i++)
		logits[i] = kept[i] = sinf((float)i) * expf((float)(i % 37) - 20);
	struct encode_rules rules = {.media = MEDIA_JSON, .output = OUTPUT_LOGITS, .classes = WIDE};
	struct text body = {0};
	assert_int_equal(encode(&rules, logits, ROWS, NULL, &body), HTTP_OK);
	struct json *json;
	if (json_parse("answer", body.data, body.length, &json) != ST_OK)
		fail_msg("%s", status_message());
	assert_int_equal(json_count(json), ROWS);
	int i = 0;
	for (const struct json *row = json_first(json); row != NULL; row = json_next(row)) {
		assert_int_equal(json_count(row), WIDE);
		for (const struct json *value = json_first(row); value != NULL; value = json_next(value), i++)
			assert_true((float)json_number(value) == kept[i]);
	}
	json_free(json);
	text_free(&body);
}

static void ten_thousand_lines_stay_in_order(void **state)
{
	(void)state;
	enum { ROWS = 10000 };
	float *logits = calloc(ROWS * CLASSES, sizeof *logits);
	assert_non_null(logits);
	for (int i = 0; i < ROWS; i++)
		logits[i * CLASSES] = (float)i;
	struct encode_rules rules = as(MEDIA_CSV, 0);
	struct text body = {0};
	assert_int_equal(encode(&rules, logits, ROWS, NULL, &body), HTTP_OK);
	const char *at = body.data;
	for (int i = 0; i < ROWS; i++) {
		assert_int_equal(strtol(at, NULL, 10), i);
		at = strchr(at, '\n');
		assert_true((at == NULL) == (i == ROWS - 1)); /* no newline after the last, no blank line between */
		at = at != NULL ? at + 1 : NULL;
	}
	text_free(&body);
	free(logits);
}

static void a_full_body_is_no_memory(void **state)
{
	(void)state;
	struct text body = {.length_max = 20};
	for (enum media media = MEDIA_JSON; media <= MEDIA_NPY; media++) {
		expect_code(HTTP_NO_MEMORY, as(media, 0), two_rows, 2, NULL, &body);
		if (media != MEDIA_NPY)
			expect_code(HTTP_NO_MEMORY, as(media, 2), two_rows, 2, NULL, &body);
		text_clear(&body);
	}
	text_free(&body);
}

static void outputs_have_words(void **state)
{
	(void)state;
	enum output output = (enum output)99;
	assert_true(output_parse("probabilities", &output) && output == OUTPUT_PROBABILITIES);
	assert_true(output_parse("log_probabilities", &output) && output == OUTPUT_LOG_PROBABILITIES);
	assert_true(output_parse("logits", &output) && output == OUTPUT_LOGITS);
	assert_false(output_parse("Logits", &output));
	assert_false(output_parse("", &output));
	assert_int_equal(output, OUTPUT_LOGITS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_classes_are_written),
		cmocka_unit_test(the_best_are_written),
		cmocka_unit_test(faults_keep_their_places),
		cmocka_unit_test(what_is_not_finite_is_no_answer),
		cmocka_unit_test(softmax_is_sound),
		cmocka_unit_test(numbers_read_back),
		cmocka_unit_test(ten_thousand_lines_stay_in_order),
		cmocka_unit_test(a_full_body_is_no_memory),
		cmocka_unit_test(outputs_have_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
