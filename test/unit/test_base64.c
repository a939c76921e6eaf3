/* Goal: base64 in every form that clients write becomes the bytes it stands for; damaged text is refused.
 * Method: RFC 4648's vectors, both alphabets, white space and padding left out, each refusal; random bytes encoded here. */
#include "core/base/random.h"
#include "core/format/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect(const char *text, const void *bytes, size_t count)
{
	uint8_t decoded[64];
	size_t decoded_count = 99;
	assert_true(BASE64_BYTES_MAX(strlen(text)) <= sizeof decoded);
	if (base64_decode("x", text, strlen(text), decoded, &decoded_count) != ST_OK)
		fail_msg("\"%s\": %s", text, status_message());
	assert_int_equal(decoded_count, count);
	assert_memory_equal(decoded, bytes, count);
}

static void every_form_is_read(void **state)
{
	(void)state;
	expect("", "", 0);
	expect("Zg==", "f", 1);
	expect("Zm8=", "fo", 2);
	expect("Zm9v", "foo", 3);
	expect("Zm9vYg==", "foob", 4);
	expect("Zm9vYmE=", "fooba", 5);
	expect("Zm9vYmFy", "foobar", 6);
	expect("Zm9vYmE", "fooba", 5);
	expect("Zg", "f", 1);
	expect(" Zm9v\r\nYm\tFy \n", "foobar", 6);
	expect("Zg=\n=\n", "f", 1);
	expect("+/+/", "\xfb\xff\xbf", 3);
	expect("-_-_", "\xfb\xff\xbf", 3);
}

static void damaged_text_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *sentence;
	} cases[] = {{"Zm9v!", "character 5 is not base64"}, {"Z", "cut off"}, {"Zm9vY", "cut off"}, {"Zg=", "wrongly padded"}, {"Zg===", "wrongly padded"},
		{"Zm9v=", "wrongly padded"}, {"=", "wrongly padded"}, {"Zg==Zg==", "goes on after its padding (character 5)"}, {"Zh==", "bits are left over"},
		{"Zm9=", "bits are left over"}, {"Zm\x80v", "character 3 is not"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint8_t bytes[64];
		size_t count = 99;
		if (base64_decode("x", cases[i].text, strlen(cases[i].text), bytes, &count) != ST_DATA || strstr(status_message(), cases[i].sentence) == NULL)
			fail_msg("\"%s\": \"%s\", expected \"%s\"", cases[i].text, status_message(), cases[i].sentence);
		assert_int_equal(count, 99);
	}
}

static void random_bytes_come_back(void **state)
{
	(void)state;
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	struct random_stream stream = random_open(1, RANDOM_TEST, 0, 0);
	for (size_t count = 0; count < 300; count++) {
		uint8_t bytes[300 + 2] = {0};
		char *text = malloc(count / 3 * 4 + 4);
		assert_non_null(text);
		for (size_t i = 0; i < count; i++)
			bytes[i] = (uint8_t)random_u32(&stream);
		size_t used = 0;
		for (size_t i = 0; i < count; i += 3) {
			unsigned bits = (unsigned)bytes[i] << 16 | (unsigned)bytes[i + 1] << 8 | bytes[i + 2];
			for (size_t k = 0; k < 4; k++)
				text[used++] = i + k <= count ? digits[bits >> (18 - 6 * k) & 63] : '=';
		}
		/* In place, as a body is decoded. */
		size_t decoded_count = 0;
		assert_int_equal(base64_decode("x", text, used, (uint8_t *)text, &decoded_count), ST_OK);
		assert_int_equal(decoded_count, count);
		assert_memory_equal(text, bytes, count);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_form_is_read),
		cmocka_unit_test(damaged_text_is_refused),
		cmocka_unit_test(random_bytes_come_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
