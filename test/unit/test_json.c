/* Goal: what json_parse accepts is a whole, bounded, unambiguous tree, what it refuses says where; what the writer writes reads back
 * as the same; threads do not disturb each other. Method: small texts, every cut of a larger one, generated deep and long ones. */
#include "core/base/json.h"

#include <float.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct json *parse(const char *text)
{
	struct json *json = NULL;
	assert_int_equal(json_parse("file.json", text, strlen(text), &json), ST_OK);
	assert_non_null(json);
	return json;
}

/* The text is refused; the sentence has `part` in it. From an exact copy, so that the sanitizer sees a read past the end. */
static void refused(const void *text, size_t count, const char *part)
{
	struct json *json = NULL;
	char *copy = malloc(count > 0 ? count : 1);
	memcpy(copy, text, count);
	assert_int_equal(json_parse("file.json", copy, count, &json), ST_DATA);
	free(copy);
	assert_null(json);
	if (strstr(status_message(), part) == NULL || strncmp(status_message(), "file.json: ", 11) != 0)
		fail_msg("\"%s\" lacks \"%s\"", status_message(), part);
}

static void values(void **unused)
{
	(void)unused;
	struct json *root = parse(" {\"a\": \"x\\u00e9\\ud83d\\ude00\\n\", \"A\": [1, -2.5e1, true, false, null, {}], \"\": 1e999}\n");
	assert_int_equal(json_kind(root), JSON_OBJECT);
	assert_int_equal(json_count(root), 3);
	assert_string_equal(json_string(json_member(root, "a")), "xé😀\n");
	assert_null(json_member(root, "b"));
	assert_null(json_member(NULL, "a"));
	const struct json *list = json_member(root, "A"), *item = json_first(list);
	assert_null(json_member(list, "a"));
	assert_int_equal(json_kind(list), JSON_ARRAY);
	assert_string_equal(json_name(list), "A");
	assert_true(json_number(item) == 1);
	assert_null(json_name(item));
	item = json_next(item);
	assert_true(json_number(item) == -25);
	item = json_next(item);
	assert_true(json_bool(item));
	item = json_next(item);
	assert_false(json_bool(item));
	item = json_next(item);
	assert_int_equal(json_kind(item), JSON_NULL);
	item = json_next(item);
	assert_int_equal(json_kind(item), JSON_OBJECT);
	assert_null(json_first(item));
	assert_null(json_next(item));
	assert_true(isinf(json_number(json_member(root, ""))));
	json_free(root);
	json_free(NULL);
}

static void top_level_scalars(void **unused)
{
	(void)unused;
	struct json *root = parse("\"x\"");
	assert_string_equal(json_string(root), "x");
	json_free(root);
	root = parse("\xEF\xBB\xBF {}"); /* a byte-order mark, as Windows editors write */
	assert_int_equal(json_kind(root), JSON_OBJECT);
	json_free(root);
}

static void places(void **unused)
{
	(void)unused;
	refused("", 0, "empty");
	refused("{\n \"a\": 1,\n \"b\" 2}", 18, "line 3, byte 6");
	refused("{} x", 4, "line 1, byte 4: text after the end");
	refused("{}\n[", 4, "line 2, byte 1: text after the end");
	refused("{\"a\":\"\xFF\"}", 9, "line 1, byte 7: is not UTF-8");
	refused("\"\xC3", 2, "byte 2: is not UTF-8");
	refused("{\"a\":1}\0", 8, "byte 8: a zero byte");
	refused("\"a\\u0000b\"", 10, "byte 3: a zero character");
	refused("{\"a\":1,\"b\":[{\"k\":1,\"j\":2,\"k\":3}]}", 33, "the key \"k\" is there twice");
	const char *const wrong[] = {"{", "[", "\"", "{\"a\"", "{\"a\":}", "[1,]", "{,}", "nope", "tru", "-", "1.2.3", "'a'", "{a:1}", "\"\\x\"", "\"\\ud800\"",
		"\"\\udc00\"", "\"\\u12", "0x10", "NaN", "Infinity", "]", "}", "\\"};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		refused(wrong[i], strlen(wrong[i]), "line 1, byte ");
}

static void names_differ_by_case(void **unused)
{
	(void)unused;
	struct json *root = parse("{\"k\":1,\"K\":2}");
	assert_true(json_number(json_member(root, "K")) == 2);
	json_free(root);
}

static void escaped_zero_is_text(void **unused)
{
	(void)unused;
	struct json *root = parse("\"\\\\u0000\""); /* a backslash, then u0000 */
	assert_string_equal(json_string(root), "\\u0000");
	json_free(root);
}

static void cut_anywhere(void **unused)
{
	(void)unused;
	static const char text[] = "{\"a\": \"x\\u00e9\\ud83d\\ude00é\", \"A\": [1, -2.5e1, true, null, {\"deep\": [[]]}]}";
	for (size_t count = 0; count < sizeof text - 1; count++)
		refused(text, count, "");
}

static void depth(void **unused)
{
	(void)unused;
	char text[2 * JSON_DEPTH_MAX + 3];
	memset(text, '[', JSON_DEPTH_MAX);
	memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	text[2 * JSON_DEPTH_MAX] = '\0';
	json_free(parse(text));
	memset(text, '[', JSON_DEPTH_MAX + 1);
	memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
	refused(text, 2 * JSON_DEPTH_MAX + 2, "byte 33: nested deeper than 32");
	json_free(parse("\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"")); /* brackets in a string do not count */
}

static void large(void **unused)
{
	(void)unused;
	enum { DEEP = 5000000 };
	char *text = malloc(DEEP);
	memset(text, '[', DEEP);
	refused(text, DEEP, "nested deeper");
	/* Many different keys, then one of them again: found without comparing all pairs. */
	size_t used = 1;
	text[0] = '{';
	for (int i = 0; i < 100000; i++)
		used += (size_t)sprintf(text + used, "\"%d\":0,", i);
	memcpy(text + used, "\"777\":0}", 8);
	refused(text, used + 8, "the key \"777\" is there twice");
	free(text);
}

static void writer(void **unused)
{
	(void)unused;
	struct text text = {0};
	struct json_writer w = {.text = &text};
	json_write_object(&w, NULL);
	json_write_string(&w, "s", "q\"b\\n\nt\tc\x01" "d\x7F é😀");
	json_write_string(&w, "bad", "a\xFFz\xC3");
	json_write_string(&w, "none", NULL);
	json_write_array(&w, "list");
	json_write_integer(&w, NULL, INT64_MIN);
	json_write_number(&w, NULL, 0.1);
	json_write_number(&w, NULL, 1e6);
	json_write_number(&w, NULL, (double)NAN);
	json_write_number(&w, NULL, (double)-INFINITY);
	json_write_bool(&w, NULL, true);
	json_write_null(&w, NULL);
	json_write_array(&w, NULL);
	json_write_end(&w);
	json_write_end(&w);
	json_write_object(&w, "o");
	assert_int_equal(json_write_end_all(&w), ST_OK);
	assert_string_equal(text_string(&text),
		"{\"s\": \"q\\\"b\\\\n\\nt\\tc\\u0001d\\u007f é😀\", \"bad\": \"a\xEF\xBF\xBDz\xEF\xBF\xBD\", \"none\": null, "
		"\"list\": [-9223372036854775808, 0.1, 1000000, null, null, true, null, []], \"o\": {}}");
	json_free(parse(text_string(&text)));
	text_free(&text);
}

static void writer_lines(void **unused)
{
	(void)unused;
	struct text text = {0};
	struct json_writer w = {.text = &text, .lines = true};
	json_write_object(&w, NULL);
	json_write_integer(&w, "a", 1);
	json_write_array(&w, "b");
	json_write_integer(&w, NULL, 2);
	assert_int_equal(json_write_end_all(&w), ST_OK);
	assert_string_equal(text_string(&text), "{\n\t\"a\": 1,\n\t\"b\": [\n\t\t2\n\t]\n}");
	text_free(&text);
}

static void writer_full(void **unused)
{
	(void)unused;
	struct text text = {.length_max = 10};
	struct json_writer w = {.text = &text};
	json_write_array(&w, NULL);
	for (int i = 0; i < 10; i++)
		json_write_integer(&w, NULL, 1234);
	assert_int_equal(json_write_end_all(&w), ST_MEMORY);
	assert_true(text.length <= 10);
	text_free(&text);
}

static void numbers_round_trip(void **unused)
{
	(void)unused;
	const double numbers[] = {0, -0.0, 1, -1, 0.1, 1.0 / 3, 1e-6, 5e-4, 123456789.125, 9007199254740993.0, 1e15, 1e22, DBL_MAX, DBL_MIN, 4.9e-324, (double)0.1f};
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
		char text[JSON_NUMBER_BYTES];
		json_number_text(numbers[i], text);
		struct json *root = parse(text);
		double back = json_number(root);
		assert_memory_equal(&back, &numbers[i], sizeof back);
		json_free(root);
	}
}

/* --- several threads at once ------------------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 300 };

static atomic_int inside;   /* threads that are in cJSON's parser */
static atomic_int overlaps; /* how often there were two */

/* The parser allocates, and nothing else in json.c does so through cJSON. Others are let in if they can come in. */
static void *watched_malloc(size_t count)
{
	if (atomic_fetch_add(&inside, 1) > 0)
		atomic_fetch_add(&overlaps, 1);
	sched_yield();
	void *bytes = malloc(count);
	atomic_fetch_sub(&inside, 1);
	return bytes;
}

struct reader {
	pthread_t thread;
	int number, wrong;
	char found[200];
};

static void reader_expect(struct reader *reader, bool right)
{
	if (!right && reader->wrong++ == 0)
		snprintf(reader->found, sizeof reader->found, "%s", status_message());
}

/* A good text of its own, then one that is broken at a place of its own. No cmocka: that belongs to the first thread. */
static void *read_texts(void *context)
{
	struct reader *reader = context;
	for (int round = 0; round < ROUNDS; round++) {
		char text[100], wanted[100], name[20];
		int mine = reader->number * ROUNDS + round, before = 1 + mine % 37;
		struct json *root = NULL;
		snprintf(name, sizeof name, "file %d", reader->number);
		int count = snprintf(text, sizeof text, "{\"mine\": %d.5, \"list\": [\"%d\", true]}", mine, mine);
		reader_expect(reader, json_parse(name, text, (size_t)count, &root) == ST_OK && json_number(json_member(root, "mine")) == mine + 0.5 &&
			atoi(json_string(json_first(json_member(root, "list")))) == mine);
		json_free(root);
		root = NULL;
		count = snprintf(text, sizeof text, "{\"mine\": [%d,%*s?]}", mine % 10, before, "");
		snprintf(wanted, sizeof wanted, "%s: line 1, byte %d: is not JSON", name, 13 + before);
		reader_expect(reader, json_parse(name, text, (size_t)count, &root) == ST_DATA && root == NULL && strcmp(status_message(), wanted) == 0);
	}
	return NULL;
}

static void parsed_by_several_threads(void **unused)
{
	(void)unused;
	struct reader readers[THREADS] = {0};
	cJSON_Hooks watched = {watched_malloc, free};
	cJSON_InitHooks(&watched);
	for (int i = 0; i < THREADS; i++) {
		readers[i].number = i;
		assert_int_equal(pthread_create(&readers[i].thread, NULL, read_texts, &readers[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(readers[i].thread, NULL);
	cJSON_InitHooks(NULL);
	for (int i = 0; i < THREADS; i++)
		if (readers[i].wrong != 0)
			fail_msg("thread %d: %d wrong, the first says \"%s\"", i, readers[i].wrong, readers[i].found);
	assert_int_equal(overlaps, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values),
		cmocka_unit_test(top_level_scalars),
		cmocka_unit_test(places),
		cmocka_unit_test(names_differ_by_case),
		cmocka_unit_test(escaped_zero_is_text),
		cmocka_unit_test(cut_anywhere),
		cmocka_unit_test(depth),
		cmocka_unit_test(large),
		cmocka_unit_test(writer),
		cmocka_unit_test(writer_lines),
		cmocka_unit_test(writer_full),
		cmocka_unit_test(numbers_round_trip),
		cmocka_unit_test(parsed_by_several_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
