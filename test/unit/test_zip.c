/* Goal: the directory of a zip leads to exactly the bytes of its records, or the file is refused; nothing outside it is touched.
 * Method: archives built here field by field, each case spoiling one; torch's own files are read in test_pth.c. */
#include "core/format/zip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

struct archive {
	uint8_t bytes[4096];
	size_t count, directory; /* directory: where the central one starts */
	size_t entries[8], entries_count;
};

static void put(struct archive *archive, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		archive->bytes[archive->count++] = i < 8 ? (uint8_t)(value >> 8 * i) : 0;
}

static void put_text(struct archive *archive, const char *text)
{
	memcpy(archive->bytes + archive->count, text, strlen(text));
	archive->count += strlen(text);
}

static void set(struct archive *archive, size_t at, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		archive->bytes[at + (size_t)i] = (uint8_t)(value >> 8 * i);
}

/* Two records, "a/one" = "hello" and "a/two" = "" behind an extra field; wide: sizes and places in ZIP64 fields. */
static struct archive make(bool wide, const char *first_name, const char *second_name)
{
	struct archive archive = {.count = 0};
	const char *names[2] = {first_name, second_name}, *contents[2] = {"hello", ""};
	size_t places[2];
	for (int i = 0; i < 2; i++) {
		places[i] = archive.count;
		put(&archive, 0x04034B50, 4);
		put(&archive, 0, 22); /* torch leaves sizes and CRC empty here */
		put(&archive, strlen(names[i]), 2);
		put(&archive, i == 1 ? 7 : 0, 2);
		put_text(&archive, names[i]);
		put(&archive, 0, i == 1 ? 7 : 0);
		put_text(&archive, contents[i]);
	}
	archive.directory = archive.count;
	for (int i = 0; i < 2; i++) {
		archive.entries[archive.entries_count++] = archive.count;
		put(&archive, 0x02014B50, 4);
		put(&archive, 0, 12);
		put(&archive, crc32(0, (const uint8_t *)contents[i], (uInt)strlen(contents[i])), 4);
		put(&archive, wide ? UINT32_MAX : strlen(contents[i]), 4);
		put(&archive, wide ? UINT32_MAX : strlen(contents[i]), 4);
		put(&archive, strlen(names[i]), 2);
		put(&archive, wide ? 4 + 3 + 28 : 0, 2);
		put(&archive, 0, 10);
		put(&archive, wide ? UINT32_MAX : places[i], 4);
		put_text(&archive, names[i]);
		if (wide) {
			put(&archive, 0x4646, 2); /* another extra field first */
			put(&archive, 3, 2);
			put(&archive, 0, 3);
			put(&archive, 1, 2);
			put(&archive, 24, 2);
			put(&archive, strlen(contents[i]), 8);
			put(&archive, strlen(contents[i]), 8);
			put(&archive, places[i], 8);
		}
	}
	size_t bytes = archive.count - archive.directory;
	if (wide) {
		size_t end64 = archive.count;
		put(&archive, 0x06064B50, 4);
		put(&archive, 44, 8);
		put(&archive, 0, 12);
		put(&archive, 2, 8);
		put(&archive, 2, 8);
		put(&archive, bytes, 8);
		put(&archive, archive.directory, 8);
		put(&archive, 0x07064B50, 4);
		put(&archive, 0, 4);
		put(&archive, end64, 8);
		put(&archive, 1, 4);
	}
	put(&archive, 0x06054B50, 4);
	put(&archive, 0, 4);
	put(&archive, wide ? 0xFFFF : 2, 2);
	put(&archive, wide ? 0xFFFF : 2, 2);
	put(&archive, wide ? UINT32_MAX : bytes, 4);
	put(&archive, wide ? UINT32_MAX : archive.directory, 4);
	put(&archive, 0, 2);
	return archive;
}

static void records_are_found(void **state)
{
	(void)state;
	for (int wide = 0; wide < 2; wide++) {
		struct archive archive = make(wide, "a/one", "a/two");
		put_text(&archive, "bytes after the end");
		struct zip zip;
		if (zip_open("test.zip", archive.bytes, archive.count, &zip) != ST_OK)
			fail_msg("%s", status_message());
		assert_int_equal(zip.count, 2);
		assert_int_equal(zip.first_name_count, 5);
		struct zip_record *one = zip_find(&zip, "a/one"), *two = zip_find(&zip, "a/two");
		assert_non_null(one);
		assert_non_null(two);
		assert_null(zip_find(&zip, "a/on"));
		assert_null(zip_find(&zip, "a/onee"));
		assert_int_equal(one->count, 5);
		assert_memory_equal(one->data, "hello", 5);
		assert_int_equal(two->count, 0);
		assert_int_equal(zip_check(&zip, one), ST_OK);
		assert_int_equal(zip_check(&zip, two), ST_OK);
		zip_close(&zip);
	}
}

static void refuse(const char *what, const struct archive *archive, const char *sentence)
{
	struct zip zip = {0};
	uint8_t *copy = malloc(archive->count > 0 ? archive->count : 1);
	assert_non_null(copy);
	memcpy(copy, archive->bytes, archive->count);
	if (zip_open("test.zip", copy, archive->count, &zip) != ST_DATA || strstr(status_message(), sentence) == NULL)
		fail_msg("%s: \"%s\", expected \"%s\"", what, status_message(), sentence);
	free(copy);
}

enum { CRC = 16, STORED = 20, SIZE = 24, PLACE = 42, FLAGS = 8, METHOD = 10, NAME_COUNT = 28 };

static void refuse_entry(const char *what, size_t field, uint64_t value, int bytes, const char *sentence)
{
	struct archive archive = make(false, "a/one", "a/two");
	set(&archive, archive.entries[0] + field, value, bytes);
	refuse(what, &archive, sentence);
}

static void bad_directories_are_refused(void **state)
{
	(void)state;
	refuse_entry("encrypted", FLAGS, 1, 2, "encrypted");
	refuse_entry("two sizes", SIZE, 6, 4, "two different sizes");
	refuse_entry("a record behind the data", PLACE, 3000, 4, "not where the directory says");
	refuse_entry("a record at another place", PLACE, 1, 4, "not where the directory says");
	refuse_entry("a name longer than the directory", NAME_COUNT, 5000, 2, "damaged");
	refuse_entry("ZIP64 without its field", STORED, UINT32_MAX, 4, "ZIP64");
	refuse_entry("no signature", 0, 0, 4, "damaged");

	struct archive archive = make(false, "a/one", "a/two");
	set(&archive, archive.entries[0] + STORED, 2000, 4);
	set(&archive, archive.entries[0] + SIZE, 2000, 4);
	refuse("a record past the data", &archive, "past the end");
	archive = make(false, "a/one", "a/two");
	set(&archive, archive.entries[1] + PLACE, 0, 4);
	set(&archive, archive.entries[1] + STORED, 5, 4);
	set(&archive, archive.entries[1] + SIZE, 5, 4);
	refuse("records that overlap", &archive, "overlap");
	archive = make(false, "a/one", "a/one");
	refuse("one name twice", &archive, "same name");

	static const char *const names[] = {"/one", "../x", "a/../x", "a/..", "a\\b", ""};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		archive = make(false, names[i], "a/two");
		refuse(names[i], &archive, "name");
	}
}

static void bad_ends_are_refused(void **state)
{
	(void)state;
	struct archive archive = make(false, "a/one", "a/two");
	size_t end = archive.count - 22;
	for (size_t cut = 0; cut < archive.count; cut++) {
		struct archive cut_archive = archive;
		cut_archive.count = cut;
		refuse("a cut file", &cut_archive, "not a usable zip file");
	}
	set(&archive, end + 10, 3, 2);
	set(&archive, end + 8, 3, 2);
	refuse("more records than the directory holds", &archive, "cannot hold");
	archive = make(false, "a/one", "a/two");
	set(&archive, end + 10, 0, 2);
	set(&archive, end + 8, 0, 2);
	refuse("no records", &archive, "no records");
	archive = make(false, "a/one", "a/two");
	set(&archive, end + 4, 1, 2);
	refuse("a second disk", &archive, "disks");
	archive = make(false, "a/one", "a/two");
	set(&archive, end + 16, 3000, 4);
	refuse("a directory past the end", &archive, "past its end");
	archive = make(true, "a/one", "a/two");
	set(&archive, archive.count - 22 - 20 + 8, UINT64_MAX - 10, 8);
	refuse("ZIP64's end far outside", &archive, "ZIP64");
	archive = make(true, "a/one", "a/two");
	set(&archive, archive.count - 22 - 20 - 56 + 48, UINT64_MAX, 8);
	refuse("ZIP64's directory far outside", &archive, "past its end");
	archive = make(true, "a/one", "a/two");
	set(&archive, archive.entries[0] + 46 + 5 + 7 + 4, UINT64_MAX - 3, 8);
	set(&archive, archive.entries[0] + 46 + 5 + 7 + 12, UINT64_MAX - 3, 8);
	refuse("a record of 2^64 bytes", &archive, "past the end");
}

static void records_are_checked_before_use(void **state)
{
	(void)state;
	struct archive archive = make(false, "a/one", "a/two");
	struct zip zip;
	archive.bytes[30 + 5] ^= 1; /* the h of hello */
	assert_int_equal(zip_open("test.zip", archive.bytes, archive.count, &zip), ST_OK);
	assert_int_equal(zip_check(&zip, zip_find(&zip, "a/one")), ST_DATA);
	assert_non_null(strstr(status_message(), "a/one is damaged"));
	zip_close(&zip);
	set(&archive, archive.entries[0] + CRC, 0, 4); /* no CRC was made */
	assert_int_equal(zip_open("test.zip", archive.bytes, archive.count, &zip), ST_OK);
	assert_int_equal(zip_check(&zip, zip_find(&zip, "a/one")), ST_OK);
	zip_close(&zip);
	static const struct {
		int method;
		const char *sentence;
	} methods[] = {{8, "does not inflate to the size"}, {12, "compressed in a way that is not read"}};
	for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
		set(&archive, archive.entries[0] + METHOD, (uint64_t)methods[i].method, 2);
		assert_int_equal(zip_open("test.zip", archive.bytes, archive.count, &zip), ST_OK);
		assert_int_equal(zip_check(&zip, zip_find(&zip, "a/one")), ST_DATA);
		assert_non_null(strstr(status_message(), methods[i].sentence));
		zip_close(&zip);
	}
}

/* One record "a" of `stored_count` deflated bytes that claims `size` bytes; and "b", the same again when `twice`. */
static struct archive make_deflated(const uint8_t *stored, size_t stored_count, uint32_t crc, uint64_t size, bool twice)
{
	struct archive archive = {.count = 0};
	size_t places[2];
	int records = twice ? 2 : 1;
	for (int i = 0; i < records; i++) {
		places[i] = archive.count;
		put(&archive, 0x04034B50, 4);
		put(&archive, 0, 22);
		put(&archive, 1, 2);
		put(&archive, 0, 2);
		put_text(&archive, i == 0 ? "a" : "b");
		memcpy(archive.bytes + archive.count, stored, stored_count);
		archive.count += stored_count;
	}
	archive.directory = archive.count;
	for (int i = 0; i < records; i++) {
		put(&archive, 0x02014B50, 4);
		put(&archive, 0, 6);
		put(&archive, 8, 2);
		put(&archive, 0, 4);
		put(&archive, crc, 4);
		put(&archive, stored_count, 4);
		put(&archive, size, 4);
		put(&archive, 1, 2);
		put(&archive, 0, 12);
		put(&archive, places[i], 4);
		put_text(&archive, i == 0 ? "a" : "b");
	}
	size_t bytes = archive.count - archive.directory;
	put(&archive, 0x06054B50, 4);
	put(&archive, 0, 4);
	put(&archive, (uint64_t)records, 2);
	put(&archive, (uint64_t)records, 2);
	put(&archive, bytes, 4);
	put(&archive, archive.directory, 4);
	put(&archive, 0, 2);
	return archive;
}

static void deflated_records_are_inflated_within_bounds(void **state)
{
	(void)state;
	enum { LENGTH = 300000 };
	static uint8_t content[LENGTH], stored[2048];
	for (int i = 0; i < LENGTH; i++)
		content[i] = (uint8_t)(i / 2000); /* about a thousandth of it is left */
	z_stream stream = {.next_in = content, .avail_in = LENGTH, .next_out = stored, .avail_out = sizeof stored};
	assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
	size_t stored_count = stream.total_out;
	deflateEnd(&stream);
	uint32_t crc = (uint32_t)crc32(0, content, LENGTH);
	static const struct {
		const char *what;
		int size_off, stored_off, crc_off;
		uint64_t limit;
		const char *sentence; /* NULL: read */
	} cases[] = {
		{"sound", 0, 0, 0, 2 * LENGTH, NULL},
		{"one byte more declared", 1, 0, 0, 2 * LENGTH, "does not inflate to the size that is declared"},
		{"one byte fewer declared", -1, 0, 0, 2 * LENGTH, "does not inflate to the size that is declared"},
		{"nothing declared", -LENGTH, 0, 0, 2 * LENGTH, "does not inflate to the size that is declared"},
		{"cut off", 0, -1, 0, 2 * LENGTH, "does not inflate to the size that is declared"},
		{"something behind it", 0, 1, 0, 2 * LENGTH, "does not inflate to the size that is declared"},
		{"another CRC", 0, 0, 1, 2 * LENGTH, "its CRC is"},
		{"more declared than can be", 1 << 30, 0, 0, UINT64_MAX, "it cannot inflate to the size that is declared"},
		{"more than is allowed", 0, 0, 0, LENGTH - 1, "has 300000 bytes when inflated; together at most 299999 are"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct archive archive = make_deflated(stored, stored_count + (size_t)cases[i].stored_off, crc + (uint32_t)cases[i].crc_off,
			(uint64_t)(LENGTH + cases[i].size_off), false);
		struct zip zip;
		assert_int_equal(zip_open("test.zip", archive.bytes, archive.count, &zip), ST_OK);
		zip.inflate_bytes_max = cases[i].limit;
		struct zip_record *record = zip_find(&zip, "a");
		assert_non_null(record);
		enum status status = zip_check(&zip, record);
		if (status != (cases[i].sentence == NULL ? ST_OK : ST_DATA) || (cases[i].sentence != NULL && strstr(status_message(), cases[i].sentence) == NULL))
			fail_msg("%s: \"%s\", expected \"%s\"", cases[i].what, status_message(), cases[i].sentence);
		if (status == ST_OK) {
			assert_int_equal(record->count, LENGTH);
			assert_memory_equal(record->data, content, LENGTH);
			assert_int_equal(zip_check(&zip, record), ST_OK); /* again: nothing more to do */
		}
		zip_close(&zip);
	}
	/* The limit is for all records together. */
	struct archive archive = make_deflated(stored, stored_count, crc, LENGTH, true);
	struct zip zip;
	assert_int_equal(zip_open("test.zip", archive.bytes, archive.count, &zip), ST_OK);
	zip.inflate_bytes_max = 2 * LENGTH - 1;
	assert_int_equal(zip_check(&zip, zip_find(&zip, "b")), ST_OK);
	assert_int_equal(zip_check(&zip, zip_find(&zip, "a")), ST_DATA);
	zip_close(&zip);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_are_found),
		cmocka_unit_test(bad_directories_are_refused),
		cmocka_unit_test(bad_ends_are_refused),
		cmocka_unit_test(records_are_checked_before_use),
		cmocka_unit_test(deflated_records_are_inflated_within_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
