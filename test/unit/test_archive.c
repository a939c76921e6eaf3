/* Goal: members of archives come out whole and in order, and what could harm is refused. So do the streams below them. Method: tar
 * and gzip files made byte by byte in memory. */
#include "test/unit/scratch.h"

#include "core/format/archive.h"

#include <fcntl.h>

static struct archive_reader *open_reader;
static struct stream open_source;

static struct archive_reader *reader_open(const struct text *bytes, struct archive_limits limits)
{
	stream_open_memory(&open_source, text_string(bytes), bytes->length, "a.tar");
	OK(archive_open(&open_source, limits, &open_reader));
	return open_reader;
}

static void reader_close(void)
{
	archive_close(open_reader);
	stream_close(&open_source);
	open_reader = NULL;
}

static void expect_member(struct archive_reader *reader, const char *name, const char *content)
{
	bool found;
	const char *member_name;
	uint64_t size;
	struct stream *member;
	uint8_t *bytes;
	size_t count;
	OK(archive_next(reader, &found, &member_name, &size, &member));
	assert_true(found);
	assert_string_equal(member_name, name);
	assert_int_equal(size, strlen(content));
	OK(stream_read_all(member, 1 << 20, &bytes, &count));
	assert_int_equal(count, strlen(content));
	assert_memory_equal(bytes, content, count);
	free(bytes);
}

static void expect_end(struct archive_reader *reader)
{
	bool found = true;
	const char *name;
	uint64_t size;
	struct stream *member;
	OK(archive_next(reader, &found, &name, &size, &member));
	assert_false(found);
}

static enum status next_only(struct archive_reader *reader)
{
	bool found;
	const char *name;
	uint64_t size;
	struct stream *member;
	return archive_next(reader, &found, &name, &size, &member);
}

/* Goes through all members and reads them. */
static enum status read_through(struct archive_reader *reader)
{
	for (;;) {
		bool found;
		const char *name;
		uint64_t size;
		struct stream *member;
		TRY(archive_next(reader, &found, &name, &size, &member));
		if (!found)
			return ST_OK;
		TRY(stream_drain(member));
	}
}

static struct text sample_tar(void)
{
	struct text tar = {0};
	add_tar(&tar, '5', "folder/", "", 0);
	add_tar(&tar, '0', "folder/one", "first", 5);
	add_tar(&tar, '0', "./two", "second file", 11);
	add_tar(&tar, '2', "link", "", 0);
	add_tar(&tar, '1', "hard", "", 0);
	add_tar(&tar, '3', "device", "", 0);
	add_tar(&tar, '0', "empty", "", 0);
	add_tar(&tar, '0', "last..", "x", 1);
	add_tar_end(&tar);
	return tar;
}

static void expect_sample(struct archive_reader *reader)
{
	expect_member(reader, "folder/one", "first");
	expect_member(reader, "two", "second file");
	expect_member(reader, "empty", "");
	expect_member(reader, "last..", "x");
	expect_end(reader);
}

static void test_members_in_order_without_links(void **state)
{
	(void)state;
	struct text tar = sample_tar(), gzip = {0};
	add_gzip(&gzip, &tar);
	assert_true(archive_sniff((const uint8_t *)tar.data, 512));
	assert_true(archive_sniff((const uint8_t *)gzip.data, 2));
	assert_false(archive_sniff((const uint8_t *)"hello, this is text", 19));
	expect_sample(reader_open(&tar, ARCHIVE_LIMITS_USUAL));
	reader_close();
	expect_sample(reader_open(&gzip, ARCHIVE_LIMITS_USUAL));
	reader_close();
	text_free(&tar);
	text_free(&gzip);
}

static void test_from_a_file(void **state)
{
	(void)state;
	struct text tar = sample_tar();
	struct stream stream;
	struct archive_reader *reader;
	scratch_write_text("a.tar", &tar);
	OK(stream_open_file(&stream, scratch_path("a.tar")));
	OK(archive_open(&stream, ARCHIVE_LIMITS_USUAL, &reader));
	expect_sample(reader);
	archive_close(reader);
	stream_close(&stream);
	text_free(&tar);
}

static void test_unread_members_are_passed_over(void **state)
{
	(void)state;
	struct text tar = sample_tar();
	struct archive_reader *reader = reader_open(&tar, ARCHIVE_LIMITS_USUAL);
	OK(next_only(reader));
	expect_member(reader, "two", "second file");
	reader_close();
	text_free(&tar);
}

static void test_names_that_leave_the_archive(void **state)
{
	(void)state;
	static const char *const names[] = {"/etc/passwd", "../up", "a/../../b", "a/..", "./../c", ".//etc/passwd"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct text tar = {0};
		add_tar(&tar, '0', names[i], "x", 1);
		add_tar_end(&tar);
		FAILS(ST_DATA, "points outside", next_only(reader_open(&tar, ARCHIVE_LIMITS_USUAL)));
		reader_close();
		text_free(&tar);
	}
}

/* A pax header may carry a name that the C locale cannot spell. */
static void test_name_that_is_not_ascii(void **state)
{
	(void)state;
	struct text tar = {0};
	static const char pax[] = "16 path=gr\xc3\xbc\xc3\x9f" "e\n";
	add_tar(&tar, 'x', "pax", pax, sizeof pax - 1);
	add_tar(&tar, '0', "plain", "x", 1);
	add_tar_end(&tar);
	expect_member(reader_open(&tar, ARCHIVE_LIMITS_USUAL), "gr\xc3\xbc\xc3\x9f" "e", "x");
	reader_close();
	text_free(&tar);
}

static void test_damage(void **state)
{
	(void)state;
	struct text tar = {0}, gzip = {0}, no_archive = {0};
	char big[3000];
	for (size_t i = 0; i < sizeof big; i++)
		big[i] = (char)(i * 7919 >> 3);
	add_tar(&tar, '0', "big", big, sizeof big);
	add_gzip(&gzip, &tar);
	tar.length = 2000;
	FAILS(ST_DATA, "damaged archive, or cut off", read_through(reader_open(&tar, ARCHIVE_LIMITS_USUAL)));
	reader_close();
	gzip.length /= 2;
	FAILS(ST_DATA, "damaged archive, or cut off", read_through(reader_open(&gzip, ARCHIVE_LIMITS_USUAL)));
	reader_close();
	OK(text_add(&no_archive, "this is not an archive at all, whatever its name may say"));
	FAILS(ST_DATA, "damaged archive", read_through(reader_open(&no_archive, ARCHIVE_LIMITS_USUAL)));
	reader_close();
	text_free(&tar);
	text_free(&gzip);
	text_free(&no_archive);
}

static void test_limits(void **state)
{
	(void)state;
	struct text tar = sample_tar();
	struct archive_limits limits = ARCHIVE_LIMITS_USUAL;
	limits.bytes_max = 16; /* "first" and "second file" fit, one more does not */
	FAILS(ST_DATA, "more than 16 bytes", read_through(reader_open(&tar, limits)));
	reader_close();
	limits.bytes_max = 17;
	OK(read_through(reader_open(&tar, limits)));
	reader_close();
	limits.members_max = 7;
	FAILS(ST_DATA, "more than 7 members", read_through(reader_open(&tar, limits)));
	reader_close();
	text_free(&tar);
}

/* Zeros compress a thousandfold. The bomb is refused also when its member is not read but passed over. */
static void test_expansion(void **state)
{
	(void)state;
	struct text tar = {.length_max = (size_t)128 << 20}, gzip = {0};
	size_t count = (size_t)80 << 20;
	char *zeros = calloc(1, count);
	assert_non_null(zeros);
	add_tar(&tar, '0', "zeros", zeros, count);
	add_tar_end(&tar);
	free(zeros);
	add_gzip(&gzip, &tar);
	FAILS(ST_DATA, "more than 100 times", read_through(reader_open(&gzip, ARCHIVE_LIMITS_USUAL)));
	reader_close();
	OK(next_only(reader_open(&gzip, ARCHIVE_LIMITS_USUAL)));
	FAILS(ST_DATA, "more than 100 times", next_only(open_reader));
	reader_close();
	OK(read_through(reader_open(&tar, ARCHIVE_LIMITS_USUAL)));
	reader_close();
	text_free(&tar);
	text_free(&gzip);
}

static enum status fill_failing(void *context, uint8_t *bytes, size_t bytes_max, size_t *count)
{
	int *calls = context;
	if ((*calls)++ > 0)
		return FAIL(ST_STOPPED, "enough");
	memset(bytes, 0, bytes_max);
	memcpy(bytes, "\x1f\x8b\x08\x00", 4);
	*count = bytes_max < 100 ? bytes_max : 100;
	return ST_OK;
}

static void test_failure_of_the_source_comes_through(void **state)
{
	(void)state;
	struct stream stream;
	struct archive_reader *reader;
	int calls = 0;
	stream_open(&stream, fill_failing, &calls, "source");
	OK(archive_open(&stream, ARCHIVE_LIMITS_USUAL, &reader));
	FAILS(ST_STOPPED, "enough", next_only(reader));
	archive_close(reader);
	stream_close(&stream);
}

/* --- streams --------------------------------------------------------------------------------------------------------- */

/* Gives 1, 2, 3 … bytes a call, counting up. */
static enum status fill_by_steps(void *context, uint8_t *bytes, size_t bytes_max, size_t *count)
{
	size_t *state = context; /* [0] next byte, [1] next step, [2] end */
	size_t n = state[1]++ % 5000 + 1;
	if (n > bytes_max)
		n = bytes_max;
	if (n > state[2] - state[0])
		n = state[2] - state[0];
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)(state[0]++ * 31 >> 2);
	*count = n;
	return ST_OK;
}

static void test_stream_reads_and_peeks(void **state)
{
	(void)state;
	struct stream stream;
	size_t source[3] = {0, 0, 1000003}, at = 0;
	static uint8_t bytes[200000];
	stream_open(&stream, fill_by_steps, source, "steps");
	for (size_t round = 0; at < source[2]; round++) {
		size_t wanted = round % 7 == 0 ? 150000 : round * 977 % 9000, n, peeked;
		const uint8_t *head;
		OK(stream_peek(&stream, round * 3001 % STREAM_PEEK_BYTES_MAX, &head, &peeked));
		for (size_t i = 0; i < peeked; i++)
			assert_int_equal(head[i], (uint8_t)((at + i) * 31 >> 2));
		OK(stream_read(&stream, bytes, wanted, &n));
		assert_int_equal(n, wanted < source[2] - at ? wanted : source[2] - at);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(bytes[i], (uint8_t)((at + i) * 31 >> 2));
		at += n;
		assert_int_equal(stream.offset, at);
	}
	size_t n;
	OK(stream_read(&stream, bytes, 1, &n));
	assert_int_equal(n, 0);
	stream_close(&stream);
}

static void test_stream_read_all_is_bounded(void **state)
{
	(void)state;
	struct stream stream;
	uint8_t *bytes;
	size_t count, source[3] = {0, 0, 300000};
	stream_open(&stream, fill_by_steps, source, "steps");
	OK(stream_read_all(&stream, 300000, &bytes, &count));
	assert_int_equal(count, 300000);
	assert_int_equal(bytes[299999], (uint8_t)(299999 * 31 >> 2));
	assert_int_equal(bytes[300000], 0);
	free(bytes);
	stream_close(&stream);
	source[0] = 0;
	stream_open(&stream, fill_by_steps, source, "steps");
	FAILS(ST_DATA, "more than 299999 bytes", stream_read_all(&stream, 299999, &bytes, &count));
	stream_close(&stream);
}

static bool yes(void)
{
	return true;
}

static void test_stream_refusals(void **state)
{
	(void)state;
	struct stream stream;
	const uint8_t *head;
	size_t n;
	FAILS(ST_DATA, "cannot be opened", stream_open_file(&stream, scratch_path("missing")));
	FAILS(ST_DATA, "not a regular file", stream_open_file(&stream, scratch));
	assert_int_equal(mkfifo(scratch_path("fifo"), 0600), 0);
	FAILS(ST_DATA, "not a regular file", stream_open_file(&stream, scratch_path("fifo"))); /* and does not wait for a writer */
	stream_open_memory(&stream, "abc", 3, "memory");
	stream.stopped = yes;
	FAILS(ST_STOPPED, "memory: stopped", stream_peek(&stream, 1, &head, &n));
	stream_close(&stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members_in_order_without_links),
		SCRATCH_TEST(test_from_a_file),
		cmocka_unit_test(test_unread_members_are_passed_over),
		cmocka_unit_test(test_names_that_leave_the_archive),
		cmocka_unit_test(test_name_that_is_not_ascii),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_expansion),
		cmocka_unit_test(test_failure_of_the_source_comes_through),
		cmocka_unit_test(test_stream_reads_and_peeks),
		cmocka_unit_test(test_stream_read_all_is_bounded),
		SCRATCH_TEST(test_stream_refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
