/* Goal: a plan that was kept comes back whole or not at all. Method: one is written and read back; then the file is cut at each length, changed in each
 * byte, and given to a reader with another key. */
#include "core/backend/cuda/plan_cache.h"
#include "test/unit/scratch.h"

#include <dirent.h>

static const char KEY[] = "cuDNN 91900\nNVIDIA A10G\ntensor 0: 1, 2 3 4 5\n";

static void record_write(const char *directory, const char *key)
{
	struct plan_record record = {.engine = 45, .candidates = 30, .nanoseconds = 12345678901, .deterministic = true, .tensor_cores = true};
	OK(text_add(&record.json, "{\"plan\": \"words\"}"));
	OK(plan_cache_write(directory, key, &record));
	text_free(&record.json);
}

/* The one file of a directory. */
static void only_file(const char *directory, char path[512])
{
	DIR *entries = opendir(directory);
	assert_non_null(entries);
	int count = 0;
	for (struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries))
		if (entry->d_name[0] != '.') {
			snprintf(path, 512, "%s/%s", directory, entry->d_name);
			count++;
		}
	closedir(entries);
	assert_int_equal(count, 1);
}

static void test_comes_back(void **state)
{
	(void)state;
	const char *directory = scratch_path("made/here");
	struct plan_record record;
	assert_false(plan_cache_read(directory, KEY, &record));
	record_write(directory, KEY);
	assert_true(plan_cache_read(directory, KEY, &record));
	assert_int_equal(record.engine, 45);
	assert_int_equal(record.candidates, 30);
	assert_true(record.nanoseconds == 12345678901);
	assert_true(record.deterministic && record.tensor_cores && !record.runtime_compiled);
	assert_string_equal(text_string(&record.json), "{\"plan\": \"words\"}");
	text_free(&record.json);
	assert_false(plan_cache_read(directory, "another key", &record));
}

static void test_damage_is_seen(void **state)
{
	(void)state;
	const char *directory = scratch_path("plans");
	char path[512];
	uint8_t *bytes;
	size_t count;
	struct plan_record record;
	record_write(directory, KEY);
	only_file(directory, path);
	OK(file_read(path, 1 << 20, &bytes, &count));
	for (size_t i = 0; i < count; i++) {
		bytes[i] ^= 1;
		OK(file_write(path, bytes, count));
		if (plan_cache_read(directory, KEY, &record))
			fail_msg("byte %zu changed, and read all the same", i);
		bytes[i] ^= 1;
		OK(file_write(path, bytes, i));
		if (plan_cache_read(directory, KEY, &record))
			fail_msg("cut at %zu bytes, and read all the same", i);
	}
	free(bytes);
	record_write(directory, KEY);
	assert_true(plan_cache_read(directory, KEY, &record));
	text_free(&record.json);
}

/* Two keys whose hash is the same cannot be had; a file under the wrong name is what they would look like. */
static void test_another_key_under_the_name(void **state)
{
	(void)state;
	const char *here = scratch_path("here"), *other = scratch_path("other");
	char path[512], other_path[512];
	struct plan_record record;
	record_write(here, KEY);
	only_file(here, path);
	record_write(other, "another key");
	only_file(other, other_path);
	assert_int_equal(rename(other_path, path), 0);
	assert_false(plan_cache_read(here, KEY, &record));
}

static void test_a_place_that_cannot_be_written(void **state)
{
	(void)state;
	struct plan_record record = {.engine = 1};
	scratch_write("file", "x", 1);
	FAILS(ST_DISK, "file", plan_cache_write(scratch_path("file"), KEY, &record));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_comes_back),
		SCRATCH_TEST(test_damage_is_seen),
		SCRATCH_TEST(test_another_key_under_the_name),
		SCRATCH_TEST(test_a_place_that_cannot_be_written),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
