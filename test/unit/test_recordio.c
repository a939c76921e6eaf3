/* Goal: records come out whole, joined parts among them, and what is not RecordIO is refused. Method: the byte sequences of the
 * format's description, and streams made record by record. */
#include "test/unit/scratch.h"

#include "core/format/recordio.h"

static struct recordio reader;
static struct stream source;

static void reader_open(const void *bytes, size_t count)
{
	stream_open_memory(&source, bytes, count, "r");
	recordio_open(&reader, &source);
}

static void reader_close(void)
{
	recordio_close(&reader);
	stream_close(&source);
}

static void expect_record(const void *content, size_t length)
{
	bool found;
	struct stream *record;
	uint8_t *bytes;
	size_t count;
	OK(recordio_next(&reader, &found, &record));
	assert_true(found);
	OK(stream_read_all(record, 1 << 20, &bytes, &count));
	assert_int_equal(count, length);
	assert_memory_equal(bytes, content, length);
	free(bytes);
}

static void expect_end(void)
{
	bool found = true;
	struct stream *record;
	OK(recordio_next(&reader, &found, &record));
	assert_false(found);
}

static enum status read_through(const void *bytes, size_t count)
{
	enum status status;
	bool found = true;
	struct stream *record;
	reader_open(bytes, count);
	do {
		status = recordio_next(&reader, &found, &record);
		if (status == ST_OK && found)
			status = stream_drain(record);
	} while (status == ST_OK && found);
	reader_close();
	return status;
}

/* The two examples of the format's description. */
static void test_known_bytes(void **state)
{
	(void)state;
	static const uint8_t one[] = {0x0a, 0x23, 0xd7, 0xce, 1, 0, 0, 0, 0x31, 0, 0, 0};
	static const uint8_t split[] = {0x0a, 0x23, 0xd7, 0xce, 4, 0, 0, 0x20, 'A', 'A', 'A', 'A', 0x0a, 0x23, 0xd7, 0xce, 2, 0, 0, 0x60, 'B', 'B', 0, 0};
	assert_true(recordio_sniff(one, 4));
	assert_false(recordio_sniff(one, 3));
	assert_false(recordio_sniff(one + 1, 4));
	reader_open(one, sizeof one);
	expect_record("1", 1);
	expect_end();
	reader_close();
	reader_open(split, sizeof split);
	expect_record("AAAA\x0a\x23\xd7\xce" "BB", 10);
	expect_end();
	reader_close();
	OK(read_through("", 0));
}

static struct text sample(void)
{
	struct text bytes = {0};
	add_record(&bytes, 0, "abcde", 5);
	add_record(&bytes, 0, "", 0);
	add_record(&bytes, 1, "1234", 4);
	add_record(&bytes, 2, "", 0);
	add_record(&bytes, 2, "5678", 4);
	add_record(&bytes, 3, "9", 1);
	add_record(&bytes, 0, "fghi", 4);
	return bytes;
}

static void test_records_and_parts(void **state)
{
	(void)state;
	struct text bytes = sample();
	reader_open(bytes.data, bytes.length);
	expect_record("abcde", 5);
	expect_record("", 0);
	expect_record("1234\x0a\x23\xd7\xce\x0a\x23\xd7\xce" "5678\x0a\x23\xd7\xce" "9", 21);
	expect_record("fghi", 4);
	expect_end();
	reader_close();
	text_free(&bytes);
}

static void test_unread_records_are_passed_over(void **state)
{
	(void)state;
	struct text bytes = sample();
	bool found;
	struct stream *record;
	uint8_t two[2];
	size_t n;
	reader_open(bytes.data, bytes.length);
	for (int i = 0; i < 3; i++) {
		OK(recordio_next(&reader, &found, &record));
		OK(stream_read(record, two, sizeof two, &n));
	}
	assert_memory_equal(two, "12", 2);
	expect_record("fghi", 4);
	reader_close();
	text_free(&bytes);
}

/* Wherever the stream is cut, either it is between two records or that is said. */
static void test_cut_anywhere(void **state)
{
	(void)state;
	struct text bytes = sample();
	size_t clean = 0;
	for (size_t count = 0; count <= bytes.length; count++)
		if (read_through(bytes.data, count) == ST_OK)
			clean++;
	assert_int_equal(clean, 5); /* before the first record and after each of the four */
	FAILS(ST_DATA, "cut off", read_through(bytes.data, 10));
	text_free(&bytes);
}

static void test_refusals(void **state)
{
	(void)state;
	static const struct {
		uint32_t magic, word;
		const char *says;
	} cases[] = {
		{0x3ed7230a, 4, "no RecordIO magic at byte 0"}, /* the ancient one */
		{0xced7230b, 4, "no RecordIO magic"},
		{0xced7230a, 2u << 29 | 4, "starts with part 2"},
		{0xced7230a, 3u << 29 | 4, "starts with part 3"},
		{0xced7230a, 4u << 29 | 4, "part number 4"},
		{0xced7230a, 7u << 29 | 4, "part number 7"},
		{0xced7230a, 1u << 29 | 4, "cut off"}, /* a first part alone */
		{0xced7230a, 0x1fffffff, "cut off"},   /* a length that is not there */
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct text bytes = {0};
		add_u32(&bytes, cases[i].magic);
		add_u32(&bytes, cases[i].word);
		add_bytes(&bytes, "data", 4);
		FAILS(ST_DATA, cases[i].says, read_through(bytes.data, bytes.length));
		text_free(&bytes);
	}
	struct text bytes = {0};
	add_record(&bytes, 1, "abcd", 4);
	add_record(&bytes, 0, "abcd", 4);
	FAILS(ST_DATA, "without its last part", read_through(bytes.data, bytes.length));
	bytes.length = 0;
	add_record(&bytes, 0, "abcd", 4);
	add_bytes(&bytes, "junk", 4);
	FAILS(ST_DATA, "no RecordIO magic at byte 12 (record 1): 6a 75 6e 6b", read_through(bytes.data, bytes.length));
	text_free(&bytes);
}

static void test_image_records(void **state)
{
	(void)state;
	struct recordio_image image;
	/* Class 14, number 7: the example of the format's description. */
	static const uint8_t one[] = {0, 0, 0, 0, 0, 0, 0x60, 0x41, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd8, 0xff, 0xd9};
	assert_true(recordio_image_parse(one, sizeof one, &image));
	assert_true(image.label == 14);
	assert_int_equal(image.count, 4);
	assert_ptr_equal(image.bytes, one + 24);
	for (size_t n = 0; n < 24; n++)
		assert_false(recordio_image_parse(one, n, &image));
	/* Two labels, 3 and 1, follow the header. */
	uint8_t two[] = {2, 0, 0, 0, 0, 0, 0x60, 0x41, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x40, 0, 0, 0x80, 0x3f, 'x'};
	assert_true(recordio_image_parse(two, sizeof two, &image));
	assert_true(image.label == 3);
	assert_int_equal(image.count, 1);
	assert_false(recordio_image_parse(two, 31, &image));
	two[3] = 0x80; /* two thousand million labels */
	assert_false(recordio_image_parse(two, sizeof two, &image));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_bytes),
		cmocka_unit_test(test_records_and_parts),
		cmocka_unit_test(test_unread_records_are_passed_over),
		cmocka_unit_test(test_cut_anywhere),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_image_records),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
