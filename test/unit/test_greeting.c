/* What hosts tell each other when they meet, as bytes: read back the same, cut short at every byte, and wrong in each part. */
#include "core/comm/greeting.h"

#include "test/unit/scratch.h"

static void test_greeting_bytes(void **state)
{
	(void)state;
	struct greeting greeting = {.protocol = GREETING_PROTOCOL, .job = "", .host = "a", .version = "v", .hosts_count = 2, .devices = 4, .settings = "x=1\n"}, read;
	struct text text = {0};
	OK(greeting_write(&greeting, &text));
	OK(greeting_read((const uint8_t *)text.data, text.length, &read));
	assert_string_equal(read.job, "");
	assert_string_equal(read.host, "a");
	assert_string_equal(read.version, "v");
	assert_string_equal(read.settings, "x=1\n");
	assert_int_equal(read.hosts_count, 2);
	assert_int_equal(read.devices, 4);
	for (size_t count = 0; count < text.length; count++) {
		uint8_t *cut = malloc(count + 1); /* exact, so that a sanitizer sees what is read beyond */
		assert_non_null(cut);
		uint8_t *exact = realloc(cut, count > 0 ? count : 1);
		assert_non_null(exact);
		memcpy(exact, text.data, count);
		FAILS(ST_DATA, "introduce", greeting_read(exact, count, &read));
		free(exact);
	}
	OK(text_add_bytes(&text, "", 1));
	FAILS(ST_DATA, "form that smelt does not have", greeting_read((const uint8_t *)text.data, text.length, &read));
	text_clear(&text);
	greeting.devices = 0;
	OK(greeting_write(&greeting, &text));
	FAILS(ST_DATA, "form that smelt does not have", greeting_read((const uint8_t *)text.data, text.length, &read));
	text_clear(&text);
	greeting.devices = 1;
	greeting.host = "a\xff";
	OK(greeting_write(&greeting, &text));
	FAILS(ST_DATA, "form that smelt does not have", greeting_read((const uint8_t *)text.data, text.length, &read));
	text_clear(&text);
	greeting.host = "a";
	greeting.settings = "x=1\ny=2\nx=3\n"; /* found by fuzz_frame: what has one name twice differs from itself */
	OK(greeting_write(&greeting, &text));
	FAILS(ST_DATA, "form that smelt does not have", greeting_read((const uint8_t *)text.data, text.length, &read));
	text_clear(&text);
	char *large = malloc(GREETING_BYTES_MAX + 1);
	assert_non_null(large);
	memset(large, 'x', GREETING_BYTES_MAX);
	large[GREETING_BYTES_MAX] = '\0';
	greeting.settings = large;
	FAILS(ST_SETTINGS, "at most 131072", greeting_write(&greeting, &text));
	free(large);
	text_free(&text);
}

static void test_welcome_bytes(void **state)
{
	(void)state;
	int devices[3] = {1, 8, 4096}, read[3] = {0};
	struct text text = {0};
	OK(welcome_write(devices, 3, &text));
	OK(welcome_read((const uint8_t *)text.data, text.length, 3, read));
	assert_memory_equal(read, devices, sizeof devices);
	FAILS(ST_DATA, "another number of hosts than 2", welcome_read((const uint8_t *)text.data, text.length, 2, read));
	for (size_t count = 0; count < text.length; count++)
		FAILS(ST_DATA, "another number of hosts", welcome_read((const uint8_t *)text.data, count, 3, read));
	text.data[4] = 0;
	FAILS(ST_DATA, "host 0 has 0 devices", welcome_read((const uint8_t *)text.data, text.length, 3, read));
	text_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greeting_bytes),
		cmocka_unit_test(test_welcome_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
