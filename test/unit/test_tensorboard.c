/* Goal: what tensorboard.c writes is what TensorBoard reads. Method: an independent reader here walks the records, checks both sums of
 * each with a bit-by-bit CRC-32C, and takes the protobuf apart by hand (wire types 0, 1, 2, 5), knowing only field numbers. */
#include "train/report/tensorboard.h"

#include "core/base/file.h"
#include "core/base/text.h"
#include "core/format/image.h"
#include "test/unit/scratch.h"
#include "train/report/report.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

static uint32_t crc32c(const uint8_t *bytes, size_t count)
{
	uint32_t crc = UINT32_MAX;
	for (size_t i = 0; i < count * 8; i++) {
		uint32_t bit = (crc ^ (uint32_t)(bytes[i / 8] >> i % 8)) & 1;
		crc = crc >> 1 ^ (bit != 0 ? 0x82F63B78u : 0);
	}
	return ~crc;
}

static uint32_t crc32c_masked(const uint8_t *bytes, size_t count)
{
	uint32_t crc = crc32c(bytes, count);
	return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static uint64_t little_endian(const uint8_t *bytes, int count)
{
	uint64_t value = 0;
	for (int i = 0; i < count; i++)
		value |= (uint64_t)bytes[i] << (8 * i);
	return value;
}

/* The one event file in the directory; *records points past its start. */
static uint8_t *event_file(size_t *bytes)
{
	char path[512] = "";
	DIR *listing = opendir(scratch);
	assert_non_null(listing);
	for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
		if (entry->d_name[0] == '.')
			continue;
		assert_string_equal(path, "");
		assert_true(text_starts_with(entry->d_name, "events.out.tfevents."));
		snprintf(path, sizeof path, "%s/%s", scratch, entry->d_name);
	}
	closedir(listing);
	uint8_t *content;
	assert_int_equal(file_read(path, 1 << 24, &content, bytes), ST_OK);
	return content;
}

struct span {
	const uint8_t *at, *end;
};

/* The next record of the file, its sums checked. */
static struct span record_next(struct span *file)
{
	assert_true(file->end - file->at >= 16);
	uint64_t length = little_endian(file->at, 8);
	assert_true(length <= (uint64_t)(file->end - file->at) - 16);
	assert_int_equal(little_endian(file->at + 8, 4), crc32c_masked(file->at, 8));
	struct span record = {file->at + 12, file->at + 12 + length};
	assert_int_equal(little_endian(record.end, 4), crc32c_masked(record.at, length));
	file->at = record.end + 4;
	return record;
}

static uint64_t varint(struct span *message)
{
	uint64_t value = 0;
	for (int shift = 0;; shift += 7) {
		assert_true(message->at < message->end && shift < 64);
		uint8_t byte = *message->at++;
		value |= (uint64_t)(byte & 127) << shift;
		if (byte < 128)
			return value;
	}
}

/* Finds the index-th occurrence of a field. Length-delimited: its bytes in *found; else its value in *number (raw bits). */
static bool field_find(struct span message, unsigned field, int index, struct span *found, uint64_t *number)
{
	while (message.at < message.end) {
		uint64_t key = varint(&message), value = 0;
		struct span bytes = {NULL, NULL};
		switch (key & 7) {
		case 0:
			value = varint(&message);
			break;
		case 1:
			value = little_endian(message.at, 8);
			message.at += 8;
			break;
		case 5:
			value = little_endian(message.at, 4);
			message.at += 4;
			break;
		case 2: {
			uint64_t length = varint(&message);
			assert_true(length <= (uint64_t)(message.end - message.at));
			bytes = (struct span){message.at, message.at + length};
			message.at = bytes.end;
			break;
		}
		default:
			fail_msg("wire type %d", (int)(key & 7));
		}
		assert_true(message.at <= message.end);
		if (key >> 3 == field && index-- == 0) {
			*found = bytes;
			*number = value;
			return true;
		}
	}
	return false;
}

static struct span field_bytes(struct span message, unsigned field, int index)
{
	struct span found;
	uint64_t number;
	assert_true(field_find(message, field, index, &found, &number));
	assert_non_null(found.at);
	return found;
}

static uint64_t field_number(struct span message, unsigned field)
{
	struct span found;
	uint64_t number;
	return field_find(message, field, 0, &found, &number) ? number : 0;
}

static double field_double(struct span message, unsigned field)
{
	uint64_t bits = field_number(message, field);
	double value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

static double field_float(struct span message, unsigned field)
{
	uint32_t bits = (uint32_t)field_number(message, field);
	float value;
	memcpy(&value, &bits, sizeof value);
	return (double)value;
}

static void assert_text(struct span bytes, const char *text)
{
	assert_int_equal(bytes.end - bytes.at, strlen(text));
	assert_memory_equal(bytes.at, text, strlen(text));
}

/* Field numbers as TensorBoard has them. */
enum { EVENT_WALL_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7, SUMMARY_VALUE = 1 };
enum { VALUE_TAG = 1, VALUE_SIMPLE = 2, VALUE_IMAGE = 4, VALUE_HISTOGRAM = 5 };

static void test_the_checksum_is_castagnolis(void **state)
{
	(void)state;
	assert_int_equal(crc32c((const uint8_t *)"123456789", 9), 0xE3069283u);
	assert_int_equal(crc32c_masked((const uint8_t *)"123456789", 9), 0xC78AB0E5u);
}

static void test_scalars(void **state)
{
	(void)state;
	struct tensorboard *tensorboard;
	assert_int_equal(tensorboard_open(scratch, "algo/1", 0, &tensorboard), ST_OK);
	const struct tensorboard_scalar scalars[] = {{"train/loss", 0.5f}, {"zero", 0.0f}, {"nothing", NAN}};
	assert_int_equal(tensorboard_scalars(tensorboard, 1234567890123, scalars, 3), ST_OK);
	/* Readable while the writer still has it open. */
	size_t bytes;
	uint8_t *content = event_file(&bytes);
	assert_int_equal(tensorboard_close(tensorboard), ST_OK);
	struct span file = {content, content + bytes}, event = record_next(&file);
	assert_text(field_bytes(event, EVENT_VERSION, 0), "brain.Event:2");
	assert_true(field_double(event, EVENT_WALL_TIME) > 1.6e9);
	event = record_next(&file);
	assert_int_equal(field_number(event, EVENT_STEP), 1234567890123);
	struct span summary = field_bytes(event, EVENT_SUMMARY, 0);
	for (int i = 0; i < 3; i++) {
		struct span value = field_bytes(summary, SUMMARY_VALUE, i), ignored;
		uint64_t bits;
		assert_text(field_bytes(value, VALUE_TAG, 0), scalars[i].tag);
		/* Zero must be written, too: it is a value, not an absence. */
		assert_true(field_find(value, VALUE_SIMPLE, 0, &ignored, &bits));
		float wanted = scalars[i].value;
		if (isnan(wanted))
			assert_true(isnan(field_float(value, VALUE_SIMPLE)));
		else
			assert_true(field_float(value, VALUE_SIMPLE) == (double)wanted);
	}
	assert_ptr_equal(file.at, file.end);
	free(content);
}

static void test_a_resumed_run_says_where_it_starts(void **state)
{
	(void)state;
	struct tensorboard *tensorboard;
	assert_int_equal(tensorboard_open(scratch, "algo-1", 300, &tensorboard), ST_OK);
	assert_int_equal(tensorboard_close(tensorboard), ST_OK);
	size_t bytes;
	uint8_t *content = event_file(&bytes);
	struct span file = {content, content + bytes};
	record_next(&file);
	struct span event = record_next(&file);
	assert_int_equal(field_number(event, EVENT_STEP), 301);
	assert_int_equal(field_number(field_bytes(event, EVENT_SESSION, 0), 1), 1);
	assert_ptr_equal(file.at, file.end);
	free(content);
}

static struct span only_value(uint8_t *content, size_t bytes)
{
	struct span file = {content, content + bytes};
	record_next(&file);
	struct span event = record_next(&file);
	assert_ptr_equal(file.at, file.end);
	return field_bytes(field_bytes(event, EVENT_SUMMARY, 0), SUMMARY_VALUE, 0);
}

static void test_histogram_counts_every_finite_value(void **state)
{
	(void)state;
	struct tensorboard *tensorboard;
	float values[1002];
	double sum = 0, squares = 0;
	for (int i = 0; i < 1000; i++) {
		values[i] = (float)(i - 300) / 100;
		sum += (double)values[i];
		squares += (double)values[i] * (double)values[i];
	}
	values[1000] = NAN;
	values[1001] = -INFINITY;
	assert_int_equal(tensorboard_open(scratch, "h", 0, &tensorboard), ST_OK);
	assert_int_equal(tensorboard_histogram(tensorboard, 7, "weights", values, 1002), ST_OK);
	assert_int_equal(tensorboard_close(tensorboard), ST_OK);
	size_t bytes;
	uint8_t *content = event_file(&bytes);
	struct span histogram = field_bytes(only_value(content, bytes), VALUE_HISTOGRAM, 0);
	assert_true(field_double(histogram, 1) == -3.0);
	assert_true(field_double(histogram, 2) == (double)values[999]);
	assert_true(field_double(histogram, 3) == 1000);
	assert_true(fabs(field_double(histogram, 4) - sum) < 1e-9);
	assert_true(fabs(field_double(histogram, 5) - squares) < 1e-9);
	struct span limits = field_bytes(histogram, 6, 0), buckets = field_bytes(histogram, 7, 0);
	long count = (long)(limits.end - limits.at) / 8;
	assert_true(count > 10);
	assert_int_equal((long)(buckets.end - buckets.at) / 8, count);
	double total = 0, edge_before = -3.0;
	for (long i = 0; i < count; i++) {
		double edge, bucket;
		memcpy(&edge, limits.at + 8 * i, 8);
		memcpy(&bucket, buckets.at + 8 * i, 8);
		double inside = 0;
		for (int k = 0; k < 1000; k++)
			inside += (double)values[k] >= edge_before && ((double)values[k] < edge || i == count - 1);
		assert_true(edge > edge_before);
		/* A value on an edge may be counted on either side: it was placed by a division. */
		assert_true(fabs(inside - bucket) <= 1);
		edge_before = edge;
		total += bucket;
	}
	assert_true(edge_before == (double)values[999]);
	assert_true(total == 1000);
	free(content);
}

static void test_histogram_of_one_value_and_of_none(void **state)
{
	(void)state;
	struct tensorboard *tensorboard;
	const float same[3] = {2.5f, 2.5f, 2.5f}, none[2] = {NAN, INFINITY};
	assert_int_equal(tensorboard_open(scratch, "h", 0, &tensorboard), ST_OK);
	assert_int_equal(tensorboard_histogram(tensorboard, 7, "none", none, 2), ST_OK);
	assert_int_equal(tensorboard_histogram(tensorboard, 7, "same", same, 3), ST_OK);
	assert_int_equal(tensorboard_close(tensorboard), ST_OK);
	size_t bytes;
	uint8_t *content = event_file(&bytes);
	struct span value = only_value(content, bytes);
	assert_text(field_bytes(value, VALUE_TAG, 0), "same");
	struct span histogram = field_bytes(value, VALUE_HISTOGRAM, 0);
	assert_true(field_double(histogram, 3) == 3);
	assert_int_equal(field_bytes(histogram, 7, 0).end - field_bytes(histogram, 7, 0).at, 8);
	free(content);
}

static void test_pictures_go_in_as_one_png(void **state)
{
	(void)state;
	struct report *report;
	char data[96];
	uint8_t images[4 * 3 * 8 * 8];
	for (size_t i = 0; i < sizeof images; i++)
		images[i] = (uint8_t)(i * 7);
	snprintf(data, sizeof data, "%s/.data", scratch); /* hidden from event_file */
	const struct report_config config = {.data_directory = data, .tensorboard_directory = scratch};
	assert_int_equal(report_open(&config, &report), ST_OK);
	assert_true(report_wants_images(report) && report_wants_histograms(report));
	report_images(report, "train/augmented", 1, images, 4, 8);
	report_close(report, ST_OK);
	size_t bytes;
	uint8_t *content = event_file(&bytes);
	struct span value = only_value(content, bytes), image = field_bytes(value, VALUE_IMAGE, 0), png = field_bytes(image, 4, 0);
	assert_text(field_bytes(value, VALUE_TAG, 0), "train/augmented");
	int width = (int)field_number(image, 2);
	assert_int_equal(field_number(image, 1), width);
	assert_int_equal(width, 2 * 16 + 3 * 2);
	assert_int_equal(field_number(image, 3), 3);
	uint8_t decoded[3 * 38 * 38];
	assert_int_equal(image_decode(png.at, (size_t)(png.end - png.at), "sheet", width, decoded), ST_OK);
	assert_int_equal(decoded[0], 255);
	/* First pixel of the fourth picture, green. */
	assert_int_equal(decoded[38 * 38 + 20 * 38 + 20], images[(3 * 3 + 1) * 64]);
	free(content);
}

static void test_a_full_disk_ends_tensorboard_not_training(void **state)
{
	(void)state;
	struct report *report;
	char data[96];
	static const float values[1 << 12] = {1, 2, 3};
	snprintf(data, sizeof data, "%s/.data", scratch);
	const struct report_config config = {.data_directory = data, .tensorboard_directory = scratch};
	assert_int_equal(report_open(&config, &report), ST_OK);
	/* A file may not grow beyond 100 bytes: the event file fails in the middle of a record. */
	struct rlimit before, small;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = 100;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	report_histogram(report, "weights", 1, values, sizeof values / sizeof *values);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_false(report_wants_histograms(report));
	report_histogram(report, "weights", 2, values, sizeof values / sizeof *values);
	const struct report_epoch epoch = {.epoch = 1, .step = 1};
	assert_int_equal(report_epoch(report, &epoch), ST_OK);
	report_close(report, ST_OK);
}

static void test_a_directory_that_cannot_be_made(void **state)
{
	(void)state;
	struct tensorboard *tensorboard = NULL;
	char path[128];
	snprintf(path, sizeof path, "%s/file", scratch);
	assert_int_equal(file_write(path, "", 0), ST_OK);
	assert_int_equal(tensorboard_open(path, "h", 0, &tensorboard), ST_DISK);
	assert_null(tensorboard);
	assert_int_equal(tensorboard_close(NULL), ST_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_checksum_is_castagnolis),
		SCRATCH_TEST(test_scalars),
		SCRATCH_TEST(test_a_resumed_run_says_where_it_starts),
		SCRATCH_TEST(test_histogram_counts_every_finite_value),
		SCRATCH_TEST(test_histogram_of_one_value_and_of_none),
		SCRATCH_TEST(test_pictures_go_in_as_one_png),
		SCRATCH_TEST(test_a_full_disk_ends_tensorboard_not_training),
		SCRATCH_TEST(test_a_directory_that_cannot_be_made),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
