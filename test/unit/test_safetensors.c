/* Goal: safetensors files are read to the bit and held to every rule of the format; what we write, the format's own package writes too.
 * Method: files of the safetensors package (test/golden/weights/make_weights.py); small files written by hand for each rule; every
 * truncation and bit flip; our own output against the package's. */
#include "core/format/safetensors.h"
#include "test/unit/golden_weights.h"

#include <unistd.h>

static void golden_files_are_read(void **state)
{
	(void)state;
	static const struct {
		const char *file;
		enum dtype dtype;
	} cases[] = {{GOLDEN "f32.safetensors", DTYPE_F32}, {GOLDEN "f16.safetensors", DTYPE_F16}, {GOLDEN "bf16.safetensors", DTYPE_BF16},
		{GOLDEN "f64.safetensors", DTYPE_F64}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint8_t *bytes;
		size_t count;
		struct tensor_list list = {0};
		golden_read(cases[i].file, &bytes, &count);
		assert_true(safetensors_sniff(bytes, 9));
		if (safetensors_read(cases[i].file, bytes, count, &list) != ST_OK)
			fail_msg("%s", status_message());
		golden_check(&list, cases[i].dtype);
		tensor_list_free(&list);
		free(bytes);
	}
}

/* A file of this header and this many bytes of zero as data. */
static enum status read_made(const char *header, size_t data_bytes)
{
	size_t header_count = strlen(header), count = 8 + header_count + data_bytes;
	uint8_t *bytes = calloc(1, count);
	assert_non_null(bytes);
	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)((uint64_t)header_count >> 8 * i);
	memcpy(bytes + 8, header, header_count);
	enum status status = read_copy(safetensors_read, bytes, count);
	free(bytes);
	return status;
}

static void rules_of_the_format_hold(void **state)
{
	(void)state;
	static const struct {
		const char *header;
		size_t data_bytes;
		const char *sentence; /* NULL: a legal file */
	} cases[] = {
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ", 8, NULL},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\"e\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[0,0]}}", 4, NULL},
		{"{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[4,7]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 7, NULL},
		{"{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, NULL},
		{"{}", 0, NULL},
		{"[]", 0, "expected an object"},
		{" {\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "expected an object"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", 8, "copy"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, "9 bytes of data"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "not inside"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "holes"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "overlap"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", 16, "\"a\""},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "has 8 bytes"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "not inside"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "no whole number"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.5],\"data_offsets\":[0,8]}}", 8, "no whole number"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", 8, "no whole number"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1e300],\"data_offsets\":[0,8]}}", 8, "no whole number"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "has 0 bytes"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,0]}}", 0, "has 0 bytes"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "9 dimensions"},
		{"{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "F8_E4M3"},
		{"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "not described"},
		{"{\"a\":{\"dtype\":\"U8\",\"shape\":2,\"data_offsets\":[0,2]}}", 2, "not described"},
		{"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2,4]}}", 2, "not described"},
		{"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2],\"x\":1}}", 2, "not described"},
		{"{\"a\":{\"dtype\":\"U8\",\"shape\":[2]}}", 2, "not described"},
		{"{\"a\":5}", 0, "not described"},
		{"{\"\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "name"},
		{"{\"a\\nb\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "control characters"},
		{"{\"__metadata__\":{\"k\":1},\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, "expected text"},
		{"{\"__metadata__\":[],\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, "expected an object"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		enum status status = read_made(cases[i].header, cases[i].data_bytes);
		if (cases[i].sentence == NULL ? status != ST_OK : status != ST_DATA || strstr(status_message(), cases[i].sentence) == NULL)
			fail_msg("%s: %s, \"%s\", expected \"%s\"", cases[i].header, status_name(status), status_message(), cases[i].sentence == NULL ? "success" : cases[i].sentence);
	}
}

static void header_lengths_are_checked(void **state)
{
	(void)state;
	uint8_t bytes[16] = {0};
	assert_int_equal(read_copy(safetensors_read, bytes, 0), ST_DATA);
	assert_int_equal(read_copy(safetensors_read, bytes, 7), ST_DATA);
	memset(bytes, 0xFF, 8);
	assert_int_equal(read_copy(safetensors_read, bytes, 16), ST_DATA);
	assert_false(safetensors_sniff(bytes, 16));
}

static void every_truncation_fails(void **state)
{
	(void)state;
	every_truncation_fails_for(safetensors_read, GOLDEN "f32.safetensors");
}

static void every_bit_flip_is_survived(void **state)
{
	(void)state;
	size_t bits, noticed = every_bit_flip_is_survived_by(safetensors_read, GOLDEN "f32.safetensors", &bits);
	assert_true(noticed > 0 && noticed < bits); /* the format has no checksum: a changed number stays unseen */
}

/* A file's header without the blanks that JSON allows between values, and its data. */
static size_t header_compact(const uint8_t *bytes, size_t count, char *header, const uint8_t **data)
{
	size_t length = 0, header_count = bytes[0] | (size_t)bytes[1] << 8;
	bool quoted = false;
	assert_true(header_count % 8 == 0 && header_count <= count - 8 && header_count < 2000);
	for (size_t i = 8; i < 8 + header_count; i++) {
		quoted ^= bytes[i] == '"' && bytes[i - 1] != '\\';
		if (quoted || bytes[i] != ' ')
			header[length++] = (char)bytes[i];
	}
	header[length] = '\0';
	*data = bytes + 8 + header_count;
	return count - 8 - header_count;
}

static void what_is_written_is_what_the_package_writes(void **state)
{
	(void)state;
	struct tensor_view views[GOLDEN_TENSORS + 1];
	float floats[128], *at = floats;
	int64_t counter = GOLDEN_COUNTER;
	for (int k = 0; k < GOLDEN_TENSORS; k++) {
		int64_t count = 0;
		views[k] = tensor_view_make(golden_tensors[k].name, DTYPE_F32, golden_tensors[k].rank, golden_tensors[k].shape, at);
		assert_true(tensor_count(&views[k], &count));
		for (int64_t i = 0; i < count; i++)
			*at++ = golden_value(k, i);
	}
	views[GOLDEN_TENSORS] = tensor_view_make("counter", DTYPE_I64, 0, NULL, &counter);
	char path[64] = "/tmp/test_safetensors_XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	const struct safetensors_metadata metadata[] = {{"format", "pt"}, {"note", "a \"quoted\" text"}}, swapped[] = {metadata[1], metadata[0]};
	uint8_t *golden, *written;
	size_t golden_count, written_count;
	char golden_header[2000], written_header[2][2000];
	const uint8_t *golden_data, *written_data;
	golden_read(GOLDEN "f32.safetensors", &golden, &golden_count);
	size_t golden_data_count = header_compact(golden, golden_count, golden_header, &golden_data);
	/* The package keeps metadata in a map without an order. */
	for (int order = 0; order < 2; order++) {
		struct file_writer writer;
		assert_int_equal(file_begin(&writer, path, FILE_TEMPORARY_SUFFIX), ST_OK);
		assert_int_equal(safetensors_write(&writer, views, GOLDEN_TENSORS + 1, order == 0 ? metadata : swapped, 2), ST_OK);
		assert_int_equal(file_commit(&writer), ST_OK);
		golden_read(path, &written, &written_count);
		assert_int_equal(header_compact(written, written_count, written_header[order], &written_data), golden_data_count);
		assert_memory_equal(written_data, golden_data, golden_data_count);
		free(written);
	}
	assert_string_equal(written_header[strcmp(written_header[0], golden_header) != 0], golden_header);
	free(golden);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_files_are_read),
		cmocka_unit_test(rules_of_the_format_hold),
		cmocka_unit_test(header_lengths_are_checked),
		cmocka_unit_test(every_truncation_fails),
		cmocka_unit_test(every_bit_flip_is_survived),
		cmocka_unit_test(what_is_written_is_what_the_package_writes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
