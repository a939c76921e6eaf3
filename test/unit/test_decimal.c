/* Goal: text becomes the float that strtod gives, a float becomes the shortest text that gives it back; the grammars are kept.
 * Method: random numbers of many lengths, numbers made to lie at the edge between two floats, every power of two and ten, subnormals, all
 * compared with the C library; tables of what is and is not a number. */
#include "core/base/random.h"
#include "serve/decimal.h"
#include "test/unit/float_bits.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect_as_strtod(const char *text)
{
	float value = 0;
	size_t length = 0;
	bool whole;
	double wide = strtod(text, NULL);
	enum decimal_fault fault = decimal_parse(text, strlen(text), DECIMAL_CSV, &value, &length, &whole);
	if (!isfinite((float)wide)) {
		assert_int_equal(fault, DECIMAL_TOO_LARGE);
		return;
	}
	if (fault != DECIMAL_FINE || length != strlen(text) || bits_of_float(value) != bits_of_float((float)wide))
		fail_msg("\"%s\" became %.9g (fault %d), expected %.9g", text, (double)value, (int)fault, (double)(float)wide);
}

static void text_becomes_what_strtod_gives(void **state)
{
	(void)state;
	struct random_stream stream = random_open(1, RANDOM_TEST, 0, 0);
	char text[128];
	for (int i = 0; i < 100000; i++) {
		/* Up to 25 digits with a point and an exponent anywhere. */
		size_t used = 0;
		uint32_t digits = 1 + random_below(&stream, 25), point = random_below(&stream, digits + 4);
		if (random_below(&stream, 2) == 0)
			text[used++] = '-';
		for (uint32_t d = 0; d < digits; d++) {
			if (d == point)
				text[used++] = '.';
			text[used++] = (char)('0' + random_below(&stream, 10));
		}
		text[used] = '\0';
		if (random_below(&stream, 2) == 0)
			snprintf(text + used, sizeof text - used, "e%d", (int)random_below(&stream, 120) - 70);
		expect_as_strtod(text);
	}
	stream = random_open(2, RANDOM_TEST, 0, 0);
	for (int i = 0; i < 50000; i++) {
		float value = float_of_bits(random_u32(&stream) & 0x7F7FFFFF);
		/* As Python writes a float32 that went through float64, and a little beside the edge to the next float. */
		snprintf(text, sizeof text, "%.17g", (double)value);
		expect_as_strtod(text);
		double edge = ((double)value + (double)nextafterf(value, INFINITY)) / 2;
		for (int digits = 8; digits < 22; digits += 3) {
			snprintf(text, sizeof text, "%.*e", digits, edge);
			expect_as_strtod(text);
		}
	}
	for (int e = -60; e <= 45; e++) {
		snprintf(text, sizeof text, "1e%d", e);
		expect_as_strtod(text);
		snprintf(text, sizeof text, "18446744073709551615e%d", e);
		expect_as_strtod(text);
		snprintf(text, sizeof text, "99999999999999999999999e%d", e);
		expect_as_strtod(text);
	}
	static const char *const cases[] = {"0", "-0", "0.000", "0e99999999999", "1e-99999999999", "3.4028235e38", "3.40282356e38", "3.4028236e38", "1e39", "1e400",
		"-1e400", "1e99999999999", "1.17549435e-38", "1.1754943e-38", "1e-45", "7e-46", "0.5", "16777217", "16777219", "33554435", "9007199254740993",
		"0.00000000000000000000000000000000000000000000000000000000001e59", "100000000000000000000000000000000000000000000000000e-50"};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect_as_strtod(cases[i]);
}

static void grammars_are_kept(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int json, csv; /* length of the number at the front, 0: none */
		bool whole;
	} cases[] = {
		{"0", 1, 1, true}, {"-0", 2, 2, true}, {"10,", 2, 2, true}, {"255]", 3, 3, true}, {"1.5", 3, 3, false}, {"1e3", 3, 3, false}, {"1E+3", 4, 4, false},
		{"1e-3x", 4, 4, false}, {"0.0", 3, 3, false}, {"+1", 0, 2, true}, {"01", 0, 2, true}, {"00", 0, 2, true}, {"-01", 0, 3, true}, {".5", 0, 2, false},
		{"5.", 0, 2, false}, {"5.e1", 0, 4, false}, {"-.5", 0, 3, false}, {"", 0, 0, false}, {"-", 0, 0, false}, {"+", 0, 0, false}, {".", 0, 0, false},
		{"e5", 0, 0, false}, {"1e", 0, 0, false}, {"1e+", 0, 0, false}, {"1.5e-", 0, 0, false}, {"--1", 0, 0, false}, {"NaN", 0, 0, false},
		{"nan", 0, 0, false}, {"inf", 0, 0, false}, {"Infinity", 0, 0, false}, {"-Infinity", 0, 0, false}, {"0x10", 1, 1, true}, {"1_000", 1, 1, true},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		for (int csv = 0; csv < 2; csv++) {
			float value;
			size_t length = 0, count = strlen(cases[i].text);
			bool whole = false;
			char *copy = malloc(count + 1); /* no byte behind the text */
			assert_non_null(copy);
			memcpy(copy, cases[i].text, count);
			char *exact = realloc(copy, count > 0 ? count : 1);
			assert_non_null(exact);
			enum decimal_fault fault = decimal_parse(exact, count, csv ? DECIMAL_CSV : DECIMAL_JSON, &value, &length, &whole);
			int expected = csv ? cases[i].csv : cases[i].json;
			if ((fault == DECIMAL_FINE) != (expected > 0) || (int)length != expected || (expected > 0 && whole != cases[i].whole))
				fail_msg("\"%s\" (%s): fault %d, length %zu, whole %d", cases[i].text, csv ? "CSV" : "JSON", (int)fault, length, whole);
			free(exact);
		}
	}
	char *text = malloc(DECIMAL_LENGTH_MAX + 1);
	assert_non_null(text);
	memset(text, '1', DECIMAL_LENGTH_MAX + 1);
	text[1] = '.';
	float value = 0;
	size_t length;
	bool whole;
	assert_int_equal(decimal_parse(text, DECIMAL_LENGTH_MAX, DECIMAL_JSON, &value, &length, &whole), DECIMAL_FINE);
	assert_true(value == (float)(10.0 / 9) && length == DECIMAL_LENGTH_MAX);
	assert_int_equal(decimal_parse(text, DECIMAL_LENGTH_MAX + 1, DECIMAL_JSON, &value, &length, &whole), DECIMAL_TOO_LONG);
	free(text);
}

static size_t digits_of(const char *text)
{
	/* Significant ones: without zeros in front and, in whole numbers, at the end. */
	char digits[64];
	size_t used = 0;
	for (const char *s = text; *s != '\0' && *s != 'e'; s++)
		if (*s >= '0' && *s <= '9' && (used > 0 || *s != '0'))
			digits[used++] = *s;
	while (used > 0 && digits[used - 1] == '0')
		used--;
	return used;
}

static void expect_shortest(float value)
{
	char text[DECIMAL_TEXT_BYTES + 1], other[64];
	memset(text, '#', sizeof text);
	size_t length = decimal_print(value, text), parsed = 0;
	assert_true(length > 0 && length < DECIMAL_TEXT_BYTES);
	assert_int_equal(text[DECIMAL_TEXT_BYTES], '#');
	text[length] = '\0';
	if (bits_of_float(strtof(text, NULL)) != bits_of_float(value) || bits_of_float((float)strtod(text, NULL)) != bits_of_float(value))
		fail_msg("%.9g was printed as %s", (double)value, text);
	float back;
	bool whole;
	if (decimal_parse(text, length, DECIMAL_JSON, &back, &parsed, &whole) != DECIMAL_FINE || parsed != length || back != value)
		fail_msg("%s is no JSON number", text);
	/* No decimal of fewer digits does it: neither the nearest nor the ones beside it. */
	size_t digits = digits_of(text);
	for (int fewer = 1; fewer < (int)digits; fewer++) {
		snprintf(other, sizeof other, "%.*e", fewer - 1, (double)value);
		double step = pow(10, atoi(strchr(other, 'e') + 1) - (fewer - 1));
		for (int beside = -1; beside <= 1; beside++) {
			snprintf(other, sizeof other, "%.*e", fewer - 1, (double)value);
			snprintf(other, sizeof other, "%.*e", fewer - 1, strtod(other, NULL) + beside * step);
			if (strtof(other, NULL) == value)
				fail_msg("%.9g was printed as %s, %s is shorter", (double)value, text, other);
		}
	}
}

static void floats_are_printed_shortest(void **state)
{
	(void)state;
	struct random_stream stream = random_open(3, RANDOM_TEST, 0, 0);
	for (int i = 0; i < 60000; i++) {
		float value = float_of_bits(random_u32(&stream));
		if (isfinite(value))
			expect_shortest(value);
		expect_shortest((float)random_unit(&stream));
		expect_shortest((float)random_below(&stream, 100000) / 1000);
	}
	for (int e = -149; e <= 127; e++) {
		float power = ldexpf(1, e);
		expect_shortest(power);
		expect_shortest(-power);
		expect_shortest(nextafterf(power, 0));
		expect_shortest(nextafterf(power, INFINITY));
	}
	for (int e = -45; e <= 38; e++) {
		char text[16];
		for (int digit = 1; digit <= 9; digit++) {
			snprintf(text, sizeof text, "%de%d", digit, e);
			float value = strtof(text, NULL);
			if (isfinite(value)) {
				expect_shortest(value);
				expect_shortest(nextafterf(value, 0));
			}
		}
	}
	for (uint32_t bits = 0; bits < 2000; bits++)
		expect_shortest(float_of_bits(bits));
	expect_shortest(FLT_MAX);
	expect_shortest(FLT_MIN);
}

static void the_form_is_plain(void **state)
{
	(void)state;
	static const struct {
		float value;
		const char *text;
	} cases[] = {{0, "0"}, {-0.0f, "-0"}, {1, "1"}, {-1, "-1"}, {0.1f, "0.1"}, {0.5f, "0.5"}, {100, "100"}, {123456, "123456"}, {1.5f, "1.5"}, {-12.25f, "-12.25"},
		{0.00123f, "0.00123"}, {0.000123f, "1.23e-4"}, {1e-7f, "1e-7"}, {1.25e-10f, "1.25e-10"}, {1e9f, "1e9"}, {1e8f, "100000000"}, {3e38f, "3e38"},
		{0.33333334f, "0.33333334"}, {16777216, "16777216"}, {1e-45f, "1e-45"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[DECIMAL_TEXT_BYTES];
		text[decimal_print(cases[i].value, text)] = '\0';
		assert_string_equal(text, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_becomes_what_strtod_gives),
		cmocka_unit_test(grammars_are_kept),
		cmocka_unit_test(floats_are_printed_shortest),
		cmocka_unit_test(the_form_is_plain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
