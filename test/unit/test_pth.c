/* Goal: what torch saved is read to the bit, whatever container, type and strides; what is not a plain state dict is refused with a
 * sentence; what we write is a file that torch reads; no damage to a file can hurt.
 * Method: files made by the real torch (test/golden/weights/make_weights.py); every truncation and bit flip of small ones; our own
 * output byte for byte against own.pth, which torch.load(weights_only=True) was seen to read (check_own.py). */
#include "core/format/pth.h"
#include "core/format/pth_write.h"
#include "test/unit/golden_weights.h"

#include <unistd.h>

static void golden_files_are_read(void **state)
{
	(void)state;
	static const struct {
		const char *file;
		enum dtype dtype;
	} cases[] = {{"zip_f32.pth", DTYPE_F32}, {"zip_f16.pth", DTYPE_F16}, {"zip_bf16.pth", DTYPE_BF16}, {"zip_f64.pth", DTYPE_F64},
		{"legacy_f32.pth", DTYPE_F32}, {"strided.pth", DTYPE_F32}, {"deflated.pth", DTYPE_F32}, {"legacy_strided.pth", DTYPE_F32}, {"parameters.pth", DTYPE_F32},
		{"model_key.pt", DTYPE_F32}, {"evil.pth", DTYPE_F32}, {"own.pth", DTYPE_F32}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char path[128];
		uint8_t *bytes;
		size_t count;
		struct tensor_list list = {0};
		snprintf(path, sizeof path, GOLDEN "%s", cases[i].file);
		golden_read(path, &bytes, &count);
		assert_true(pth_is_zip(bytes, count) != pth_is_legacy(bytes, count));
		if (pth_read(path, bytes, count, &list) != ST_OK)
			fail_msg("%s", status_message());
		golden_check(&list, cases[i].dtype);
		tensor_list_free(&list);
		free(bytes);
	}
	assert_int_not_equal(access("/tmp/smelt_evil_was_here", F_OK), 0);
}

static void names_keep_their_prefix_here(void **state)
{
	(void)state;
	static const char *const files[][2] = {{"prefixed.pth", "module.model.conv.weight"}, {"lightning.ckpt", "model.conv.weight"}};
	for (size_t i = 0; i < 2; i++) {
		char path[128];
		uint8_t *bytes;
		size_t count;
		struct tensor_list list = {0};
		snprintf(path, sizeof path, GOLDEN "%s", files[i][0]);
		golden_read(path, &bytes, &count);
		if (pth_read(path, bytes, count, &list) != ST_OK)
			fail_msg("%s", status_message());
		assert_int_equal(list.count, GOLDEN_TENSORS + 1);
		assert_string_equal(list.views[0].name, files[i][1]);
		tensor_list_free(&list);
		free(bytes);
	}
}

static void other_things_are_refused_with_a_sentence(void **state)
{
	(void)state;
	static const char *const cases[][2] = {{"module.pth", "torch.nn.modules.linear.Linear"}, {"module_legacy.pth", "state_dict"},
		{"sparse.pth", "no dense tensor"}, {"complex.pth", "ComplexFloatStorage"}, {"float8.pth", "float8_e4m3fn"}, {"numbers.pth", "no tensors"},
		{"list.pth", "list, not a dict"}, {"script.pt", "TorchScript"}, {"evil_root.pth", "system"}, {"evil_tensor.pth", "system"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char path[128];
		uint8_t *bytes;
		size_t count;
		snprintf(path, sizeof path, GOLDEN "%s", cases[i][0]);
		golden_read(path, &bytes, &count);
		if (read_copy(pth_read, bytes, count) != ST_DATA || strstr(status_message(), cases[i][1]) == NULL)
			fail_msg("%s: \"%s\", expected \"%s\"", path, status_message(), cases[i][1]);
		free(bytes);
	}
	assert_int_not_equal(access("/tmp/smelt_evil_was_here", F_OK), 0);
}

static void every_truncation_fails(void **state)
{
	(void)state;
	every_truncation_fails_for(pth_read, GOLDEN "zip_f32.pth");
	every_truncation_fails_for(pth_read, GOLDEN "deflated.pth");
	every_truncation_fails_for(pth_read, GOLDEN "legacy_f32.pth");
	every_truncation_fails_for(pth_read, GOLDEN "own.pth");
}

static void every_bit_flip_is_survived(void **state)
{
	(void)state;
	size_t bits, noticed = every_bit_flip_is_survived_by(pth_read, GOLDEN "own.pth", &bits);
	/* Only headers, padding and names that do not matter may change unseen: CRCs cover the rest. */
	assert_true(noticed > bits / 2);
	noticed = every_bit_flip_is_survived_by(pth_read, GOLDEN "legacy_strided.pth", &bits);
	assert_true(noticed > 0 && noticed < bits);
}

/* A legacy file with one tensor whose numbers the cases below spoil. */
static void refuse_legacy(const char *what, const char *storage, const char *offset, const char *size, const char *stride, const char *sentence)
{
	uint8_t bytes[1024];
	size_t count = 0;
#define ADD(text) (memcpy(bytes + count, text, sizeof(text) - 1), count += sizeof(text) - 1)
#define ADD_TEXT(text) (memcpy(bytes + count, text, strlen(text)), count += strlen(text))
	ADD("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e");
	ADD("\x80\x02M\xe9\x03.");
	ADD("\x80\x02}.");
	ADD("\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n(");
	ADD_TEXT(storage);
	ADD("Q");
	ADD_TEXT(offset);
	ADD_TEXT(size);
	ADD_TEXT(stride);
	ADD("I00\n}tRs.");
	ADD("\x80\x02]U\x01" "0a.");
	ADD("\x06\x00\x00\x00\x00\x00\x00\x00");
	memset(bytes + count, 0, 24);
	count += 24;
#undef ADD
#undef ADD_TEXT
	enum status status = read_copy(pth_read, bytes, count);
	if (sentence == NULL ? status != ST_OK : status != ST_DATA || strstr(status_message(), sentence) == NULL)
		fail_msg("%s: %s, \"%s\", expected \"%s\"", what, status_name(status), status_message(), sentence == NULL ? "success" : sentence);
}

static void tensors_stay_inside_their_storage(void **state)
{
	(void)state;
	static const char good[] = "(U\x07storagectorch\nFloatStorage\nU\x01" "0U\x03" "cpuI6\nNt";
	refuse_legacy("the good one", good, "I0\n", "(I2\nI3\nt", "(I3\nI1\nt", NULL);
	refuse_legacy("a scalar at the end", good, "I5\n", "(t", "(t", NULL);
	refuse_legacy("expanded", good, "I5\n", "(I100\nt", "(I0\nt", NULL);
	refuse_legacy("an unused huge stride", good, "I0\n", "(I1\nt", "(I9223372036854775807\nt", NULL);
	refuse_legacy("empty", good, "I6\n", "(I0\nI3\nt", "(I3\nI1\nt", NULL);
	refuse_legacy("one too far", good, "I1\n", "(I2\nI3\nt", "(I3\nI1\nt", "reaches past");
	refuse_legacy("empty, but outside", good, "I7\n", "(I0\nt", "(I1\nt", "reaches past");
	refuse_legacy("offset below 0", good, "I-1\n", "(I2\nt", "(I1\nt", "negative");
	refuse_legacy("size below 0", good, "I0\n", "(I-2\nt", "(I1\nt", "negative");
	refuse_legacy("stride below 0", good, "I5\n", "(I2\nt", "(I-1\nt", "negative");
	refuse_legacy("an offset that wraps", good, "I9223372036854775807\n", "(I2\nt", "(I1\nt", "reaches past");
	refuse_legacy("a stride that wraps", good, "I0\n", "(I3\nt", "(I9223372036854775807\nt", "reaches past");
	refuse_legacy("a product that wraps", good, "I0\n", "(I4294967296\nI4294967296\nt", "(I0\nI0\nt", "more elements");
	refuse_legacy("a product that wraps beside 0", good, "I0\n", "(I0\nI4294967296\nI4294967296\nt", "(I0\nI0\nI0\nt", "more elements");
	refuse_legacy("ranks that differ", good, "I0\n", "(I2\nI3\nt", "(I3\nt", "shape");
	refuse_legacy("nine dimensions", good, "I0\n", "(I1\nI1\nI1\nI1\nI1\nI1\nI1\nI1\nI1\nt", "(I1\nI1\nI1\nI1\nI1\nI1\nI1\nI1\nI1\nt", "dimensions");
	refuse_legacy("a float as size", good, "I0\n", "(F2.0\nt", "(I1\nt", "no whole number");
	refuse_legacy("more elements than stored", "(U\x07storagectorch\nFloatStorage\nU\x01" "0U\x03" "cpuI7\nNt", "I0\n", "(I2\nt", "(I1\nt", "has 6 elements");
	refuse_legacy("wider elements than stored", "(U\x07storagectorch\nDoubleStorage\nU\x01" "0U\x03" "cpuI6\nNt", "I0\n", "(I2\nt", "(I1\nt", "cut short");
	refuse_legacy("numel below 0", "(U\x07storagectorch\nFloatStorage\nU\x01" "0U\x03" "cpuI-6\nNt", "I0\n", "(I2\nt", "(I1\nt", "not described");
	refuse_legacy("another key", "(U\x07storagectorch\nFloatStorage\nU\x01" "9U\x03" "cpuI6\nNt", "I0\n", "(I2\nt", "(I1\nt", "no tensor uses");
	refuse_legacy("a quantised storage", "(U\x07storagectorch\nQInt8Storage\nU\x01" "0U\x03" "cpuI6\nNt", "I0\n", "(I2\nt", "(I1\nt", "QInt8Storage");
	refuse_legacy("a part of a storage", "(U\x07storagectorch\nFloatStorage\nU\x01" "0U\x03" "cpuI6\n(U\x01vI2\nI4\ntt", "I0\n", "(I4\nt", "(I1\nt", NULL);
	refuse_legacy("past the part", "(U\x07storagectorch\nFloatStorage\nU\x01" "0U\x03" "cpuI6\n(U\x01vI2\nI4\ntt", "I0\n", "(I5\nt", "(I1\nt", "reaches past");
	refuse_legacy("a part past its storage", "(U\x07storagectorch\nFloatStorage\nU\x01" "0U\x03" "cpuI6\n(U\x01vI2\nI5\ntt", "I0\n", "(I4\nt", "(I1\nt", "past its end");
}

/* The golden tensors as views over `floats`; fills six of them. */
static void golden_views(struct tensor_view *views, float *floats, int64_t *counter)
{
	*counter = GOLDEN_COUNTER;
	for (int k = 0; k < GOLDEN_TENSORS; k++) {
		int64_t count = 0;
		views[k] = tensor_view_make(golden_tensors[k].name, DTYPE_F32, golden_tensors[k].rank, golden_tensors[k].shape, floats);
		assert_true(tensor_count(&views[k], &count));
		for (int64_t i = 0; i < count; i++)
			*floats++ = golden_value(k, i);
	}
	views[GOLDEN_TENSORS] = tensor_view_make("counter", DTYPE_I64, 0, NULL, counter);
}

static void what_is_written_is_what_torch_was_seen_to_read(void **state)
{
	(void)state;
	struct tensor_view views[GOLDEN_TENSORS + 1];
	float floats[128];
	int64_t counter;
	golden_views(views, floats, &counter);
	char path[64] = "/tmp/test_pth_XXXXXX";
	assert_non_null(mkdtemp(path));
	char file[96];
	snprintf(file, sizeof file, "%s/own.pth", path);
	struct file_writer writer;
	assert_int_equal(file_begin(&writer, file, FILE_TEMPORARY_SUFFIX), ST_OK);
	assert_int_equal(pth_write(&writer, "own", views, GOLDEN_TENSORS + 1), ST_OK);
	assert_int_equal(file_commit(&writer), ST_OK);

	uint8_t *written, *golden;
	size_t written_count, golden_count;
	golden_read(file, &written, &written_count);
	golden_read(GOLDEN "own.pth", &golden, &golden_count);
	assert_int_equal(written_count, golden_count);
	assert_memory_equal(written, golden, golden_count);
	free(written);
	free(golden);
	unlink(file);
	rmdir(path);
}

static void integers_of_every_width_are_written_right(void **state)
{
	(void)state;
	/* Zero strides let a shape be large without data; the writer takes only contiguous views, so the sizes are those of empty ones. */
	static const int64_t sizes[] = {0, 255, 256, 65535, 65536, INT32_MAX, (int64_t)INT32_MAX + 1, (int64_t)1 << 40};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		const int64_t shape[2] = {0, sizes[i]};
		struct tensor_view view = tensor_view_make("w", DTYPE_F32, 2, shape, NULL);
		char path[64] = "/tmp/test_pth_XXXXXX";
		int fd = mkstemp(path);
		assert_true(fd >= 0);
		close(fd);
		struct file_writer writer;
		assert_int_equal(file_begin(&writer, path, FILE_TEMPORARY_SUFFIX), ST_OK);
		assert_int_equal(pth_write(&writer, "m", &view, 1), ST_OK);
		assert_int_equal(file_commit(&writer), ST_OK);
		uint8_t *bytes;
		size_t count;
		struct tensor_list list = {0};
		golden_read(path, &bytes, &count);
		assert_int_equal(pth_read(path, bytes, count, &list), ST_OK);
		assert_true(tensor_same_shape(&list.views[0], 2, shape));
		tensor_list_free(&list);
		free(bytes);
		unlink(path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_files_are_read),
		cmocka_unit_test(names_keep_their_prefix_here),
		cmocka_unit_test(other_things_are_refused_with_a_sentence),
		cmocka_unit_test(every_truncation_fails),
		cmocka_unit_test(every_bit_flip_is_survived),
		cmocka_unit_test(tensors_stay_inside_their_storage),
		cmocka_unit_test(what_is_written_is_what_torch_was_seen_to_read),
		cmocka_unit_test(integers_of_every_width_are_written_right),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
