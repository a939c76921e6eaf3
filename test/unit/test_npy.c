/* Goal: every array that numpy writes is read as the same numbers in C order, and nothing else is read.
 * Method: numpy's own files (test/golden/bodies), headers written here in other ways, each refusal, every truncation and bit flip; our
 * header read back. */
#include "core/base/file.h"
#include "core/format/npy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BODIES "test/golden/bodies/"

static uint8_t *load(const char *name, size_t *count)
{
	char path[256];
	uint8_t *bytes;
	snprintf(path, sizeof path, BODIES "%s.npy", name);
	if (file_read(path, 1 << 20, &bytes, count) != ST_OK)
		fail_msg("%s", status_message());
	return bytes;
}

static void expect_floats(const char *what, const uint8_t *bytes, size_t count, int rank, const int64_t *shape, const float *expected)
{
	struct npy npy;
	if (npy_read(what, bytes, count, &npy) != ST_OK)
		fail_msg("%s", status_message());
	assert_true(tensor_same_shape(&npy.view, rank, shape));
	float floats[32];
	assert_true(npy.count < 31);
	floats[npy.count] = 12345;
	npy_read_floats(&npy, floats);
	for (int64_t i = 0; i < npy.count; i++)
		if (floats[i] != expected[i])
			fail_msg("%s: element %lld is %g, expected %g", what, (long long)i, (double)floats[i], (double)expected[i]);
	assert_true(floats[npy.count] == 12345);
}

static const int64_t usual_shape[] = {2, 3};
static const float usual[] = {0, 1, 2, 3, 100, 125};

static void numpys_files_are_read(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		enum dtype dtype;
		bool whole;
	} cases[] = {{"little_f2", DTYPE_F16, false}, {"little_f4", DTYPE_F32, false}, {"little_f8", DTYPE_F64, false}, {"big_f2", DTYPE_F16, false},
		{"big_f4", DTYPE_F32, false}, {"big_f8", DTYPE_F64, false}, {"one_u1", DTYPE_U8, true}, {"one_i1", DTYPE_I8, true},
		{"little_u2", DTYPE_U16, true}, {"big_u2", DTYPE_U16, true}, {"little_i2", DTYPE_I16, true}, {"big_i2", DTYPE_I16, true},
		{"little_u4", DTYPE_U32, true}, {"big_u4", DTYPE_U32, true}, {"little_i4", DTYPE_I32, true}, {"big_i4", DTYPE_I32, true},
		{"little_u8", DTYPE_U64, true}, {"big_u8", DTYPE_U64, true}, {"little_i8", DTYPE_I64, true}, {"big_i8", DTYPE_I64, true},
		{"version_2", DTYPE_F32, false}, {"version_3", DTYPE_F32, false}, {"fortran_f4", DTYPE_F32, false}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t count;
		uint8_t *bytes = load(cases[i].name, &count);
		struct npy npy;
		assert_true(npy_sniff(bytes, count));
		expect_floats(cases[i].name, bytes, count, 2, usual_shape, usual);
		assert_int_equal(npy_read("a", bytes, count, &npy), ST_OK);
		assert_int_equal(npy.view.dtype, cases[i].dtype);
		assert_int_equal(npy_is_whole(&npy), cases[i].whole);
		assert_int_equal(npy.bytes_after, 0);
		free(bytes);
	}
	size_t count;
	uint8_t *bytes = load("bool", &count);
	expect_floats("bool", bytes, count, 2, usual_shape, (const float[]){0, 0, 1, 1, 1, 1});
	free(bytes);
	bytes = load("fortran_i2_3d", &count);
	float rising[24];
	for (int i = 0; i < 24; i++)
		rising[i] = (float)i;
	expect_floats("fortran_i2_3d", bytes, count, 3, (const int64_t[]){2, 3, 4}, rising);
	free(bytes);
	bytes = load("scalar", &count);
	expect_floats("scalar", bytes, count, 0, NULL, (const float[]){2.5f});
	free(bytes);
	bytes = load("empty", &count);
	expect_floats("empty", bytes, count, 2, (const int64_t[]){0, 3}, NULL);
	free(bytes);
}

/* A file with this header text and `data_bytes` bytes 1, 2, 3, … */
static size_t compose(uint8_t *file, int version, const char *text, size_t data_bytes)
{
	size_t length = strlen(text), used = 0;
	memcpy(file, "\x93NUMPY", 6);
	used = 6;
	file[used++] = (uint8_t)version;
	file[used++] = 0;
	for (int i = 0; i < (version == 1 ? 2 : 4); i++)
		file[used++] = (uint8_t)(length >> 8 * i);
	memcpy(file + used, text, length);
	used += length;
	for (size_t i = 0; i < data_bytes; i++)
		file[used++] = (uint8_t)(i + 1);
	return used;
}

static void headers_may_be_written_otherwise(void **state)
{
	(void)state;
	static const struct {
		int version;
		const char *text;
		int rank;
		int64_t shape[2];
	} cases[] = {
		{1, "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n", 1, {3}},
		{1, "{\"shape\":(3,),\"descr\":\"|u1\",\"fortran_order\":False}", 1, {3}},
		{2, "{ 'fortran_order' :True , 'shape' :( 3 , ) , 'descr' : '<u1' }   \n", 1, {3}},
		{3, "{'shape': (1L, 3L), 'fortran_order': False, 'descr': '=u1'}\n", 2, {1, 3}},
		{1, "{'shape': (3, 1,), 'fortran_order': True, 'descr': '>u1', }\n", 2, {3, 1}},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint8_t file[256];
		size_t count = compose(file, cases[i].version, cases[i].text, 3);
		expect_floats(cases[i].text, file, count, cases[i].rank, cases[i].shape, (const float[]){1, 2, 3});
	}
	uint8_t file[256];
	struct npy npy;
	size_t count = compose(file, 1, cases[0].text, 10);
	assert_int_equal(npy_read("a", file, count, &npy), ST_OK);
	assert_int_equal(npy.bytes_after, 7);
}

static void refuse(const char *what, const uint8_t *bytes, size_t count, const char *sentence)
{
	struct npy npy;
	uint8_t *copy = malloc(count > 0 ? count : 1);
	assert_non_null(copy);
	memcpy(copy, bytes, count);
	if (npy_read("x", copy, count, &npy) != ST_DATA || strstr(status_message(), sentence) == NULL)
		fail_msg("%s: \"%s\", expected \"%s\"", what, status_message(), sentence);
	free(copy);
}

static void what_is_no_plain_array_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *name, *sentence;
	} files[] = {{"object", "pickled objects can hold code"}, {"structure", "an array of structures"}, {"text", "elements of type \"<U3\" are not read"},
		{"bytes", "elements of type \"|S3\" are not read"}, {"complex", "elements of type \"<c8\" are not read"}, {"date", "elements of type \"<M8[s]\""}};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		size_t count;
		uint8_t *bytes = load(files[i].name, &count);
		refuse(files[i].name, bytes, count, files[i].sentence);
		free(bytes);
	}
	static const struct {
		const char *text, *sentence;
	} headers[] = {
		{"", "expected a dict"},
		{"[]", "expected a dict"},
		{"{'descr': '|u1', 'fortran_order': False}", "is missing"},
		{"{}", "is missing"},
		{"{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (3,)}", "once each"},
		{"{'descr': '|u1', 'fortran_order': False, 'shape': (3,), 'more': 1}", "once each"},
		{"{'descr': '|u1', 'fortran_order': 0, 'shape': (3,)}", "neither True nor False"},
		{"{'descr': '|u1', 'fortran_order': False, 'shape': (-3,)}", "negative"},
		{"{'descr': '|u1', 'fortran_order': False, 'shape': (3.5,)}", "not a usable npy header"},
		{"{'descr': '|u1', 'fortran_order': False, 'shape': (3)}", "no tuple"},
		{"{'descr': '|u1', 'fortran_order': False, 'shape': 3}", "no tuple"},
		{"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,)}", "too large"},
		{"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", "larger than can be"},
		{"{'descr': '<f8', 'fortran_order': False, 'shape': (0, 9223372036854775807, 4)}", "larger than can be"},
		{"{'descr': '|u1', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", "more than 8 dimensions"},
		{"{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", "needs 4 bytes, 3 follow"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,)}", "larger than can be"},
		{"{'descr': '|u1', 'fortran_order': False, 'shape': (3,)} x", "text after the dict"},
		{"{'descr': '|u1' 'fortran_order': False, 'shape': (3,)}", "expected a comma"},
		{"{'descr' '|u1', 'fortran_order': False, 'shape': (3,)}", "expected a colon"},
		{"{'descr': '|u1", "without an end"},
		{"{'descr': '\\x7c', 'fortran_order': False, 'shape': (3,)}", "escape"},
		{"{'descr': '|u1111111111111111', 'fortran_order': False, 'shape': (3,)}", "too long"},
		{"{'descr': '', 'fortran_order': False, 'shape': (3,)}", "elements of type \"\""},
		{"{'descr': 'u1', 'fortran_order': False, 'shape': (3,)}", "elements of type \"u1\""},
		{"{'descr': '<f3', 'fortran_order': False, 'shape': (3,)}", "elements of type \"<f3\""},
	};
	uint8_t file[512];
	for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
		refuse(headers[i].text, file, compose(file, 1, headers[i].text, 3), headers[i].sentence);
	size_t count = compose(file, 4, "{}", 0);
	refuse("version 4", file, count, "npy version 4.0");
	count = compose(file, 2, "{}", 0);
	file[10] = 1;
	refuse("a long header", file, count, "at most 10000");
	refuse("another file", (const uint8_t *)"\x89PNG\r\n\x1a\n----", 12, "no npy file");
}

static void damage_is_survived(void **state)
{
	(void)state;
	size_t count;
	uint8_t *bytes = load("fortran_i2_3d", &count);
	for (size_t cut = 0; cut < count; cut++)
		refuse("a cut file", bytes, cut, "");
	size_t read = 0;
	for (size_t bit = 0; bit < count * 8; bit++) {
		uint8_t *copy = malloc(count);
		struct npy npy;
		assert_non_null(copy);
		memcpy(copy, bytes, count);
		copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (npy_read("x", copy, count, &npy) == ST_OK) {
			float *floats = malloc(((size_t)npy.count + 1) * sizeof *floats);
			assert_non_null(floats);
			npy_read_floats(&npy, floats);
			free(floats);
			read++;
		}
		free(copy);
	}
	assert_true(read >= 48 * 8); /* a changed element is an element */
	free(bytes);
}

static void odd_values_are_kept(void **state)
{
	(void)state;
	uint8_t file[256];
	struct npy npy;
	float floats[2];
	size_t count = compose(file, 1, "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", 16);
	const double wide[] = {1e300, -0.1};
	memcpy(file + count - 16, wide, sizeof wide);
	assert_int_equal(npy_read("x", file, count, &npy), ST_OK);
	npy_read_floats(&npy, floats);
	assert_true(isinf(floats[0]) && floats[1] == -0.1f);
	count = compose(file, 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}", 16);
	const int64_t integers[] = {INT64_MIN, -1};
	memcpy(file + count - 16, integers, sizeof integers);
	assert_int_equal(npy_read("x", file, count, &npy), ST_OK);
	npy_read_floats(&npy, floats);
	assert_true(floats[0] == -0x1p63f && floats[1] == -1.0f);
	count = compose(file, 1, "{'descr': '<u8', 'fortran_order': False, 'shape': (2,)}", 16);
	memcpy(file + count - 16, integers, sizeof integers);
	assert_int_equal(npy_read("x", file, count, &npy), ST_OK);
	npy_read_floats(&npy, floats);
	assert_true(floats[0] == 0x1p63f && floats[1] == 0x1p64f);
}

static void our_header_is_numpys(void **state)
{
	(void)state;
	static const struct {
		int rank;
		int64_t shape[3];
		const char *dict;
	} cases[] = {{2, {2, 3}, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"}, {1, {6}, "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }"},
		{0, {0}, "{'descr': '<f4', 'fortran_order': False, 'shape': (), }"},
		{3, {1, 6, 1}, "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 6, 1), }"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct text text = {0};
		assert_int_equal(npy_write_header(&text, cases[i].rank, cases[i].shape), ST_OK);
		assert_int_equal(text.length % 64, 0);
		assert_int_equal(text.data[text.length - 1], '\n');
		assert_memory_equal(text.data + 10, cases[i].dict, strlen(cases[i].dict));
		assert_int_equal(text_add_bytes(&text, usual, cases[i].rank == 0 ? 4 : sizeof usual), ST_OK);
		expect_floats("ours", (const uint8_t *)text.data, text.length, cases[i].rank, cases[i].shape, usual);
		text_free(&text);
	}
	/* numpy pads a short header to the same 128 bytes, so that the files are equal. */
	size_t count;
	uint8_t *theirs = load("little_f4", &count);
	struct text text = {0};
	assert_int_equal(npy_write_header(&text, 2, usual_shape), ST_OK);
	assert_int_equal(text_add_bytes(&text, usual, sizeof usual), ST_OK);
	assert_int_equal(text.length, count);
	assert_memory_equal(text.data, theirs, count);
	text_free(&text);
	free(theirs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numpys_files_are_read),
		cmocka_unit_test(headers_may_be_written_otherwise),
		cmocka_unit_test(what_is_no_plain_array_is_refused),
		cmocka_unit_test(damage_is_survived),
		cmocka_unit_test(odd_values_are_kept),
		cmocka_unit_test(our_header_is_numpys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
