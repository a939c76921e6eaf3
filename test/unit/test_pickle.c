/* Goal: pickles become plain data whatever the protocol, nothing is ever executed, and no bytes whatever can hurt.
 * Method: one object that Python wrote in all six protocols (test/golden/weights/make_pickle.py); small programs written by hand
 * for each refusal; every truncation and every single bit flip of the golden files. */
#include "core/base/file.h"
#include "core/format/pickle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void parse_golden(int protocol, uint8_t **bytes, size_t *count)
{
	char path[64];
	snprintf(path, sizeof path, "test/golden/weights/protocol_%d.pkl", protocol);
	assert_int_equal(file_read(path, 1 << 20, bytes, count), ST_OK);
}

static void check_thing(const struct pickle_node *thing, int protocol)
{
	assert_int_equal(pickle_kind(thing), PICKLE_DICT);
	assert_int_equal(pickle_count(thing), 10);
	assert_true(pickle_string_is(pickle_key(thing, 0), "a"));

	static const int64_t expected[] = {1, -2, 300, 70000, -70000, (int64_t)1 << 40, INT64_MIN};
	const struct pickle_node *numbers = pickle_find(thing, "a");
	assert_int_equal(pickle_kind(numbers), PICKLE_LIST);
	for (size_t i = 0; i < 7; i++) {
		int64_t value = 0;
		assert_true(pickle_int(pickle_item(numbers, i), &value));
		assert_true(value == expected[i]);
	}
	assert_int_equal(pickle_kind(pickle_item(numbers, 7)), PICKLE_BIG);
	assert_null(pickle_item(numbers, 8));

	/* Before protocol 3 Python 3 spells bytes as a call, which is described, not made. */
	const struct pickle_node *b = pickle_find(thing, "b");
	if (protocol < 3) {
		assert_null(b);
		assert_true(pickle_calls(pickle_key(thing, 1), "_codecs", "encode"));
		assert_true(pickle_string_is(pickle_item(pickle_arguments(pickle_key(thing, 1)), 1), "latin1"));
		b = pickle_value(thing, 1);
	}
	double real = 0;
	bool yes = false, no = true;
	assert_int_equal(pickle_kind(b), PICKLE_TUPLE);
	assert_true(pickle_float(pickle_item(b, 0), &real) && real == 1.5);
	assert_int_equal(pickle_kind(pickle_item(b, 1)), PICKLE_NONE);
	assert_true(pickle_bool(pickle_item(b, 2), &yes) && yes);
	assert_true(pickle_bool(pickle_item(b, 3), &no) && !no);

	assert_true(pickle_string_is(pickle_find(thing, "text"), "caf\xc3\xa9 \xe4\xb8\xad"));
	assert_true(pickle_string_is(pickle_find(thing, "s"), "quote' \"\n\\"));
	const struct pickle_node *ordered = pickle_find(thing, "d");
	assert_int_equal(pickle_kind(ordered), PICKLE_DICT);
	assert_int_equal(pickle_count(ordered), 2);
	assert_true(pickle_string_is(pickle_key(ordered, 1), "y"));
	assert_int_equal(pickle_count(pickle_value(ordered, 1)), 1);
	assert_int_equal(pickle_kind(pickle_find(thing, "e")), PICKLE_TUPLE);
	assert_int_equal(pickle_count(pickle_find(thing, "e")), 0);
	assert_ptr_equal(pickle_find(thing, "p"), pickle_find(thing, "q"));

	const struct pickle_node *call = pickle_find(thing, "call");
	assert_true(pickle_calls(call, protocol < 3 ? "__builtin__" : "builtins", "complex"));
	assert_int_equal(pickle_count(pickle_arguments(call)), 2);
	char text[64];
	pickle_describe(call, text, sizeof text);
	assert_string_equal(text, protocol < 3 ? "__builtin__.complex(…)" : "builtins.complex(…)");

	const struct pickle_node *set = pickle_find(thing, "set");
	if (protocol < 4)
		set = pickle_item(pickle_arguments(set), 0); /* set([5]) */
	int64_t five = 0;
	assert_true(pickle_int(pickle_item(set, 0), &five) && five == 5);
	assert_null(pickle_find(thing, "missing"));
}

static void every_protocol_reads_the_same(void **state)
{
	(void)state;
	for (int protocol = 0; protocol <= 5; protocol++) {
		uint8_t *bytes;
		size_t count, used = 0;
		struct pickle *pickle = NULL;
		parse_golden(protocol, &bytes, &count);
		assert_int_equal(pickle_parse("golden", bytes, count, &pickle, &used), ST_OK);
		assert_int_equal(used, count);
		check_thing(pickle_root(pickle), protocol);
		pickle_free(pickle);
		free(bytes);
	}
}

/* A copy without a spare byte behind it, so that a sanitizer sees any read past the end. */
static enum status parse_copy(const uint8_t *bytes, size_t count, struct pickle **pickle)
{
	uint8_t *copy = malloc(count > 0 ? count : 1);
	assert_non_null(copy);
	memcpy(copy, bytes, count);
	enum status status = pickle_parse("copy", copy, count, pickle, NULL);
	free(copy);
	return status;
}

static void every_truncation_fails(void **state)
{
	(void)state;
	for (int protocol = 0; protocol <= 5; protocol++) {
		uint8_t *bytes;
		size_t count;
		parse_golden(protocol, &bytes, &count);
		for (size_t cut = 0; cut < count; cut++) {
			struct pickle *pickle = NULL;
			assert_int_equal(parse_copy(bytes, cut, &pickle), ST_DATA);
			assert_null(pickle);
			assert_non_null(strstr(status_message(), "not a readable pickle"));
		}
		free(bytes);
	}
}

static void every_bit_flip_is_survived(void **state)
{
	(void)state;
	size_t refused = 0, read = 0;
	for (int protocol = 0; protocol <= 5; protocol++) {
		uint8_t *bytes;
		size_t count;
		parse_golden(protocol, &bytes, &count);
		for (size_t bit = 0; bit < count * 8; bit++) {
			struct pickle *pickle = NULL;
			bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
			if (parse_copy(bytes, count, &pickle) == ST_OK)
				read++;
			else
				refused++;
			pickle_free(pickle);
			bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		free(bytes);
	}
	assert_true(refused > 0 && read > 0);
}

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

static void refuse(const char *what, const uint8_t *bytes, size_t count, const char *sentence)
{
	struct pickle *pickle = NULL;
	if (parse_copy(bytes, count, &pickle) != ST_DATA || strstr(status_message(), sentence) == NULL)
		fail_msg("%s: \"%s\", expected \"%s\"", what, status_message(), sentence);
	assert_null(pickle);
}

static void bad_programs_are_refused(void **state)
{
	(void)state;
	refuse("empty", BYTES(""), "ends after 0 bytes");
	refuse("nothing on the stack", BYTES("\x80\x02."), "empty stack");
	refuse("protocol 6", BYTES("\x80\x06N."), "protocol above 5");
	refuse("PERSID", BYTES("Pkey\n."), "not accepted");
	refuse("INST", BYTES("(i__main__\nA\n."), "not accepted");
	refuse("EXT1", BYTES("\x82\x01."), "not accepted");
	refuse("NEXT_BUFFER", BYTES("\x97."), "not accepted");
	refuse("BINUNICODE longer than the file", BYTES("X\xff\xff\xff\xff" "a."), "cut short");
	refuse("BINUNICODE8 of 2^64 - 1", BYTES("\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), "cut short");
	refuse("BINSTRING of -1", BYTES("T\xff\xff\xff\xff" "a."), "cut short");
	refuse("FRAME longer than the file", BYTES("\x95\xff\xff\xff\xff\xff\xff\xff\xff."), "cut short");
	refuse("LONG4 of 2^31", BYTES("\x8b\x00\x00\x00\x80."), "256 bytes");
	refuse("TUPLE without a mark", BYTES("NNt."), "mark");
	refuse("TUPLE2 through a mark", BYTES("N(N\x86."), "empty stack");
	refuse("odd SETITEMS", BYTES("}(NNNu."), "without a value");
	refuse("odd DICT", BYTES("(NNNd."), "without a value");
	refuse("APPEND to an int", BYTES("K\x01Na."), "cannot hold items");
	refuse("SETITEM on a list", BYTES("]NNs."), "cannot hold items");
	refuse("BUILD on an int", BYTES("K\x01Nb."), "has none");
	refuse("GET of what was never put", BYTES("h\x05."), "never set");
	refuse("PUT without an object", BYTES("q\x05."), "empty stack");
	refuse("GLOBAL without an end", BYTES("cos\nsystem"), "without an end");
	refuse("STACK_GLOBAL of numbers", BYTES("K\x01K\x02\x93."), "not text");
	refuse("INT that is none", BYTES("Ix\n."), "not an integer");
	refuse("FLOAT that is none", BYTES("F1.5.2\n."), "not a number");
	refuse("STRING without quotes", BYTES("Sabc\n."), "quote");
	refuse("STRING with half an escape", BYTES("S'\\x4'\n."), "escape");
	refuse("UNICODE with half an escape", BYTES("V\\u12\n."), "escape");
	refuse("OrderedDict of numbers", BYTES("ccollections\nOrderedDict\n](K\x01" "e\x85R."), "pairs");
}

static void nothing_is_executed(void **state)
{
	(void)state;
	static const char program[] = "\x80\x02" "cposix\nsystem\nX\x0d\x00\x00\x00touch /tmp/pwn\x85R.";
	struct pickle *pickle = NULL;
	assert_int_equal(pickle_parse("evil", (const uint8_t *)program, sizeof program - 1, &pickle, NULL), ST_DATA); /* "n" is no opcode */
	static const char whole[] = "\x80\x02" "cposix\nsystem\nX\x0e\x00\x00\x00touch /tmp/pwn\x85R.";
	assert_int_equal(pickle_parse("evil", (const uint8_t *)whole, sizeof whole - 1, &pickle, NULL), ST_OK);
	assert_true(pickle_calls(pickle_root(pickle), "posix", "system"));
	assert_true(pickle_string_is(pickle_item(pickle_arguments(pickle_root(pickle)), 0), "touch /tmp/pwn"));
	assert_false(file_exists("/tmp/pwn"));
	pickle_free(pickle);
}

static void odd_but_legal_programs_are_read(void **state)
{
	(void)state;
	struct pickle *pickle = NULL;
	int64_t value = 0;

	/* A list that contains itself. */
	assert_int_equal(pickle_parse("cycle", BYTES("]q\x01h\x01" "a."), &pickle, NULL), ST_OK);
	assert_ptr_equal(pickle_item(pickle_root(pickle), 0), pickle_root(pickle));
	pickle_free(pickle);

	/* The highest memo number; a mark removed by POP; DUP. */
	assert_int_equal(pickle_parse("memo", BYTES("K\x07r\xff\xff\xff\xff" "0(0j\xff\xff\xff\xff" "2\x86."), &pickle, NULL), ST_OK);
	assert_true(pickle_int(pickle_item(pickle_root(pickle), 1), &value) && value == 7);
	pickle_free(pickle);

	/* Python 2's OrderedDict([[b'k', 5]]); what is added to an unknown object is dropped, its state is kept. */
	size_t used = 0;
	static const char two[] = "ccollections\nOrderedDict\n](](U\x01kK\x05" "ee\x85R.cm\nC\n)\x81K\x01" "aK\x01K\x02sK\x03" "b.";
	assert_int_equal(pickle_parse("first", BYTES(two), &pickle, &used), ST_OK);
	assert_true(pickle_int(pickle_find(pickle_root(pickle), "k"), &value) && value == 5);
	pickle_free(pickle);
	assert_int_equal(pickle_parse("second", (const uint8_t *)two + used, sizeof two - 1 - used, &pickle, NULL), ST_OK);
	assert_int_equal(pickle_kind(pickle_root(pickle)), PICKLE_OBJECT);
	assert_true(pickle_int(pickle_state(pickle_root(pickle)), &value) && value == 3);
	pickle_free(pickle);

	/* A persistent id; a repeated key, of which Python keeps the last. */
	assert_int_equal(pickle_parse("id", BYTES("}(U\x01kK\x01U\x01k(U\x07storage" "tQu."), &pickle, NULL), ST_OK);
	assert_int_equal(pickle_count(pickle_root(pickle)), 2);
	const struct pickle_node *id = pickle_persistent_id(pickle_find(pickle_root(pickle), "k"));
	assert_true(pickle_string_is(pickle_item(id, 0), "storage"));
	pickle_free(pickle);
}

static void integers_of_every_width_are_right(void **state)
{
	(void)state;
	static const struct {
		const char *bytes;
		size_t count;
		bool fits;
		int64_t value;
	} cases[] = {
#define CASE(text, fits, value) {text, sizeof(text) - 1, fits, value}
		CASE("\x8a\x00.", true, 0), CASE("\x8a\x01\xff.", true, -1), CASE("\x8a\x02\xff\x00.", true, 255),
		CASE("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", true, INT64_MAX), CASE("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\x00.", true, INT64_MAX),
		CASE("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.", false, 0), CASE("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\xff.", true, INT64_MIN),
		CASE("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x80.", false, 0), CASE("\x8b\x02\x00\x00\x00\x00\x80.", true, -32768),
		CASE("J\xff\xff\xff\xff.", true, -1), CASE("M\xff\xff.", true, 65535), CASE("L9223372036854775808L\n.", false, 0),
		CASE("I-9223372036854775808\n.", true, INT64_MIN),
#undef CASE
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct pickle *pickle = NULL;
		int64_t value = 0;
		assert_int_equal(pickle_parse("int", (const uint8_t *)cases[i].bytes, cases[i].count, &pickle, NULL), ST_OK);
		assert_int_equal(pickle_kind(pickle_root(pickle)), cases[i].fits ? PICKLE_INT : PICKLE_BIG);
		assert_true(pickle_int(pickle_root(pickle), &value) == cases[i].fits && value == cases[i].value);
		pickle_free(pickle);
	}
}

static void cost_is_bounded(void **state)
{
	(void)state;
	/* More objects than the bound; memo numbers chosen to collide; marks without end. */
	size_t count = (size_t)PICKLE_NODES_MAX + 10;
	uint8_t *bytes = malloc(count);
	assert_non_null(bytes);
	struct pickle *pickle = NULL;
	memset(bytes, ']', count);
	assert_int_equal(pickle_parse("lists", bytes, count, &pickle, NULL), ST_DATA);
	memset(bytes, '(', count);
	assert_int_equal(pickle_parse("marks", bytes, count, &pickle, NULL), ST_DATA);
	bytes[0] = 'N';
	for (size_t i = 0; i < 1000; i++)
		memcpy(bytes + 1 + 5 * i, (const uint8_t[]){'r', 0, 0, (uint8_t)(i & 0xFF), (uint8_t)(i >> 8)}, 5);
	assert_int_equal(pickle_parse("memo", bytes, 5001, &pickle, NULL), ST_DATA);
	assert_non_null(strstr(status_message(), "no pickler writes"));
	assert_null(pickle);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_protocol_reads_the_same),
		cmocka_unit_test(every_truncation_fails),
		cmocka_unit_test(every_bit_flip_is_survived),
		cmocka_unit_test(bad_programs_are_refused),
		cmocka_unit_test(nothing_is_executed),
		cmocka_unit_test(odd_but_legal_programs_are_read),
		cmocka_unit_test(integers_of_every_width_are_right),
		cmocka_unit_test(cost_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
