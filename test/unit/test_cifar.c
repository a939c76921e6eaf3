/* Goal: CIFAR's records come out with the right labels and pixels from every form of file, and each way to be wrong has its sentence.
 * Method: binary files and pickles made byte by byte (cifar_files.h), whole, and with one thing wrong at a time. */
#include "test/unit/cifar_files.h"

enum { IMAGES = 4 };

static const int fine[IMAGES] = {19, 29, 0, 99};
static const int ten[IMAGES] = {3, 0, 9, 9};

/* What came out. */
struct seen {
	unsigned count;
	unsigned labels[64];
	enum status answer;
};

static enum status take(void *context, unsigned label, const uint8_t *planes)
{
	struct seen *seen = context;
	uint8_t expected[CIFAR_IMAGE_BYTES];
	cifar_pixels(seen->count, expected);
	assert_memory_equal(planes, expected, sizeof expected);
	seen->labels[seen->count++] = label;
	return seen->answer;
}

static void expect_labels(const struct seen *seen, const int *labels, unsigned count)
{
	assert_int_equal(seen->count, count);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(seen->labels[i], labels[i]);
}

static enum status read_binary(const struct text *bytes, enum cifar_kind kind, struct seen *seen)
{
	struct stream stream;
	*seen = (struct seen){.answer = seen->answer};
	stream_open_memory(&stream, text_string(bytes), bytes->length, "train.bin");
	enum status status = cifar_binary_read(&stream, kind, labels_cifar100_coarse, take, seen);
	stream_close(&stream);
	return status;
}

static enum status read_pickle(const struct text *bytes, enum cifar_kind *kind, struct seen *seen)
{
	*seen = (struct seen){0};
	return cifar_pickle_read((const uint8_t *)text_string(bytes), bytes->length, "train", labels_cifar100_coarse, kind, take, seen);
}

static void test_roles_by_name(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		enum cifar_role role;
	} cases[] = {
		{"train.bin", CIFAR_ROLE_TRAIN}, {"cifar-100-binary/test.bin", CIFAR_ROLE_TEST}, {"train", CIFAR_ROLE_TRAIN}, {"test", CIFAR_ROLE_TEST},
		{"data_batch_1", CIFAR_ROLE_TRAIN}, {"data_batch_5.bin", CIFAR_ROLE_TRAIN}, {"test_batch", CIFAR_ROLE_TEST},
		{"cifar100-test.tar.gz", CIFAR_ROLE_TEST}, {"meta", CIFAR_ROLE_NAMES_PICKLE}, {"a/batches.meta", CIFAR_ROLE_NAMES_PICKLE},
		{"batches.meta.txt", CIFAR_ROLE_NAMES}, {"fine_label_names.txt", CIFAR_ROLE_NAMES}, {"coarse_label_names.txt", CIFAR_ROLE_COARSE_NAMES},
		{"readme.html", CIFAR_ROLE_OTHER}, {"file.txt~", CIFAR_ROLE_OTHER}, {"part-0001", CIFAR_ROLE_UNKNOWN}, {"latest.bin", CIFAR_ROLE_UNKNOWN},
		{"test/part", CIFAR_ROLE_UNKNOWN}, {"", CIFAR_ROLE_UNKNOWN},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (cifar_role_find(cases[i].name) != cases[i].role)
			fail_msg("%s: role %d, expected %d", cases[i].name, (int)cifar_role_find(cases[i].name), (int)cases[i].role);
}

static enum cifar_kind sniff(const struct text *bytes, bool size_known)
{
	return cifar_binary_sniff((const uint8_t *)text_string(bytes), bytes->length, size_known ? bytes->length : UINT64_MAX, labels_cifar100_coarse);
}

static void test_which_binary_format(void **state)
{
	(void)state;
	struct text hundred = {0}, tens = {0}, noise = {0};
	for (unsigned i = 0; i < IMAGES; i++) {
		add_cifar(&hundred, CIFAR_100, (unsigned)fine[i], i);
		add_cifar(&tens, CIFAR_10, (unsigned)ten[i], i);
	}
	for (int known = 0; known < 2; known++) {
		assert_int_equal(sniff(&hundred, known), CIFAR_100);
		assert_int_equal(sniff(&tens, known), CIFAR_10);
	}
	/* Cut off, it is still what it is. */
	hundred.length -= 100;
	tens.length -= 100;
	assert_int_equal(sniff(&hundred, true), CIFAR_100);
	assert_int_equal(sniff(&tens, true), CIFAR_10);
	/* A length that fits decides, however wrong the labels. */
	hundred.length += 100;
	hundred.data[1] = (char)200;
	hundred.data[3074] = 77;
	hundred.data[2 * 3074] = 77;
	assert_int_equal(sniff(&hundred, true), CIFAR_100);
	for (int i = 0; i < 9000; i++)
		add_byte(&noise, 200);
	assert_int_equal(sniff(&noise, true), CIFAR_NONE);
	assert_int_equal(sniff(&noise, false), CIFAR_NONE);
	noise.length = 0;
	assert_int_equal(sniff(&noise, true), CIFAR_NONE);
	text_free(&hundred);
	text_free(&tens);
	text_free(&noise);
}

static void test_binary_records(void **state)
{
	(void)state;
	struct text bytes = {0};
	struct seen seen = {0};
	for (unsigned i = 0; i < IMAGES; i++)
		add_cifar(&bytes, CIFAR_100, (unsigned)fine[i], i);
	OK(read_binary(&bytes, CIFAR_100, &seen));
	expect_labels(&seen, fine, IMAGES);
	seen.answer = ST_STOPPED;
	assert_int_equal(read_binary(&bytes, CIFAR_100, &seen), ST_STOPPED);
	assert_int_equal(seen.count, 1);
	seen.answer = ST_OK;
	bytes.length = 0;
	for (unsigned i = 0; i < IMAGES; i++)
		add_cifar(&bytes, CIFAR_10, (unsigned)ten[i], i);
	OK(read_binary(&bytes, CIFAR_10, &seen));
	expect_labels(&seen, ten, IMAGES);
	text_free(&bytes);
}

static void test_binary_refusals(void **state)
{
	(void)state;
	struct text bytes = {0};
	struct seen seen = {0};
	for (unsigned i = 0; i < IMAGES; i++)
		add_cifar(&bytes, CIFAR_100, (unsigned)fine[i], i);
	bytes.data[2 * 3074 + 1] = 100;
	FAILS(ST_DATA, "train.bin: record 2 has label 100; a CIFAR-100 label is 0 to 99", read_binary(&bytes, CIFAR_100, &seen));
	bytes.data[2 * 3074 + 1] = 1; /* aquarium_fish is a fish (1), not fruit (4) */
	FAILS(ST_DATA, "record 2 has coarse label 4 with fine label 1, which CIFAR-100 puts under 1", read_binary(&bytes, CIFAR_100, &seen));
	bytes.length = 2 * 3074 - 1;
	FAILS(ST_DATA, "6147 bytes, expected a multiple of 3074 (a CIFAR-100 record): record 1 is cut off", read_binary(&bytes, CIFAR_100, &seen));
	bytes.length = 0;
	add_cifar(&bytes, CIFAR_10, 10, 0);
	FAILS(ST_DATA, "record 0 has label 10; a CIFAR-10 label is 0 to 9", read_binary(&bytes, CIFAR_10, &seen));
	text_free(&bytes);
}

static void test_pickles_of_every_dialect(void **state)
{
	(void)state;
	for (enum dialect dialect = 0; dialect < DIALECTS; dialect++) {
		struct text bytes = {0};
		struct seen seen;
		enum cifar_kind kind = CIFAR_NONE;
		add_cifar_pickle(&bytes, dialect, CIFAR_100, fine, IMAGES, 0);
		assert_true(cifar_pickle_sniff((const uint8_t *)bytes.data, bytes.length));
		OK(read_pickle(&bytes, &kind, &seen));
		assert_int_equal(kind, CIFAR_100);
		expect_labels(&seen, fine, IMAGES);
		bytes.length = 0;
		add_cifar_pickle(&bytes, dialect, CIFAR_10, ten, IMAGES, 0);
		OK(read_pickle(&bytes, &kind, &seen));
		assert_int_equal(kind, CIFAR_10);
		expect_labels(&seen, ten, IMAGES);
		/* Another packer's fine labels under the other key. */
		bytes.length = 0;
		add_cifar_pickle(&bytes, dialect, CIFAR_10, fine, IMAGES, 0);
		OK(read_pickle(&bytes, &kind, &seen));
		assert_int_equal(kind, CIFAR_100);
		expect_labels(&seen, fine, IMAGES);
		text_free(&bytes);
	}
	assert_false(cifar_pickle_sniff((const uint8_t *)"\x80\x06", 2));
	assert_false(cifar_pickle_sniff((const uint8_t *)"\x80", 1));
	assert_false(cifar_pickle_sniff((const uint8_t *)"\x0b\x13", 2));
}

static const uint8_t *planar_pixels(void)
{
	static uint8_t pixels[IMAGES * CIFAR_IMAGE_BYTES];
	for (unsigned i = 0; i < IMAGES; i++)
		cifar_pixels(i, pixels + i * CIFAR_IMAGE_BYTES);
	return pixels;
}

/* (n, 3, 32, 32), (n, 32, 32, 3), labels as arrays of any integer type and order, labels as numpy's scalars. */
static void test_repacked_pickles(void **state)
{
	(void)state;
	static uint8_t mixed[IMAGES * CIFAR_IMAGE_BYTES];
	const uint8_t *pixels = planar_pixels();
	for (size_t i = 0; i < sizeof mixed; i++) {
		size_t image = i / CIFAR_IMAGE_BYTES, at = i % CIFAR_IMAGE_BYTES;
		mixed[i] = pixels[image * CIFAR_IMAGE_BYTES + at % 3 * 1024 + at / 3];
	}
	static const uint8_t little[IMAGES * 8] = {19, 0, 0, 0, 0, 0, 0, 0, 29, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99};
	static const uint8_t big[IMAGES * 2] = {0, 19, 0, 29, 0, 0, 0, 99};
	const struct array_spec planes = {.code = "u1", .order = "|", .shape = {IMAGES, 3, 32, 32}, .rank = 4, .bytes = pixels, .count = sizeof mixed};
	const struct array_spec points = {.code = "u1", .order = "|", .shape = {IMAGES, 32, 32, 3}, .rank = 4, .bytes = mixed, .count = sizeof mixed};
	const struct array_spec labels8 = {.code = "i8", .order = "<", .shape = {IMAGES}, .rank = 1, .bytes = little, .count = sizeof little};
	const struct array_spec labels2 = {.code = "u2", .order = ">", .shape = {IMAGES}, .rank = 1, .bytes = big, .count = sizeof big};
	for (enum dialect dialect = 0; dialect < DIALECTS; dialect++) {
		struct text bytes = {0};
		struct seen seen;
		enum cifar_kind kind;
		for (int form = 0; form < 3; form++) {
			bytes.length = 0;
			add_pickle_begin(&bytes, dialect);
			add_data(&bytes, dialect, form == 0 ? &planes : &points);
			add_string(&bytes, dialect, "fine_labels");
			if (form < 2) {
				add_array(&bytes, dialect, form == 0 ? &labels8 : &labels2);
			} else {
				OK(text_add(&bytes, "]("));
				for (int i = 0; i < IMAGES; i++) {
					add_global(&bytes, dialect, "numpy.core.multiarray", "scalar");
					add_dtype(&bytes, dialect, "i8", "<");
					add_blob(&bytes, dialect, little + 8 * i, 8);
					OK(text_add(&bytes, "\x86R"));
				}
				add_byte(&bytes, 'e');
			}
			add_pickle_end(&bytes);
			OK(read_pickle(&bytes, &kind, &seen));
			expect_labels(&seen, fine, IMAGES);
		}
		text_free(&bytes);
	}
}

static void expect_pickle_refused(const struct array_spec *data, const char *key, const int *labels, int count, const char *says)
{
	for (enum dialect dialect = 0; dialect < DIALECTS; dialect++) {
		struct text bytes = {0};
		struct seen seen;
		enum cifar_kind kind;
		add_pickle_begin(&bytes, dialect);
		if (key != NULL)
			add_list(&bytes, dialect, key, labels, count);
		if (data != NULL)
			add_data(&bytes, dialect, data);
		add_pickle_end(&bytes);
		FAILS(ST_DATA, says, read_pickle(&bytes, &kind, &seen));
		assert_int_equal(seen.count, 0);
		text_free(&bytes);
	}
}

static void test_pickle_refusals(void **state)
{
	(void)state;
	const struct array_spec good = {.code = "u1", .order = "|", .shape = {IMAGES, CIFAR_IMAGE_BYTES}, .rank = 2, .bytes = planar_pixels(),
		.count = IMAGES * CIFAR_IMAGE_BYTES};
	struct array_spec bad = good;
	static const int high[IMAGES] = {1, 2, 150, 3}, negative[IMAGES] = {1, -1, 2, 3};
	expect_pickle_refused(NULL, "fine_labels", fine, IMAGES, "train: a pickle without `data`");
	expect_pickle_refused(&good, "other", fine, IMAGES, "a pickle without `fine_labels`");
	expect_pickle_refused(&good, "fine_labels", fine, 3, "3 fine_labels for 4 images");
	expect_pickle_refused(&good, "fine_labels", high, IMAGES, "image 2 has label 150; a CIFAR-100 label is 0 to 99");
	expect_pickle_refused(&good, "labels", high, IMAGES, "image 2 has label 150");
	expect_pickle_refused(&good, "labels", negative, IMAGES, "image 1 has label -1");
	bad.shape[0] = 5;
	expect_pickle_refused(&bad, "fine_labels", fine, IMAGES, "12288 bytes whose shape and type need 15360");
	bad = good;
	bad.shape[0] = -4;
	expect_pickle_refused(&bad, "fine_labels", fine, IMAGES, "a shape that is none");
	bad = good;
	bad.fortran = true;
	expect_pickle_refused(&bad, "fine_labels", fine, IMAGES, "in C order");
	bad = good;
	bad.code = "f4";
	expect_pickle_refused(&bad, "fine_labels", fine, IMAGES, "expected integers");
	bad = good;
	bad.code = "i1";
	expect_pickle_refused(&bad, "fine_labels", fine, IMAGES, "must be uint8");
	bad = good;
	bad.rank = 3;
	bad.shape[1] = 3;
	bad.shape[2] = 1024;
	expect_pickle_refused(&bad, "fine_labels", fine, IMAGES, "of shape (n, 3072)");
	bad.shape[0] = bad.shape[1] = bad.shape[2] = 0x7fffffff;
	expect_pickle_refused(&bad, "fine_labels", fine, IMAGES, "a shape that is none");
}

static void test_pickle_with_wrong_coarse_labels_or_cut_off(void **state)
{
	(void)state;
	struct text bytes = {0};
	struct seen seen;
	enum cifar_kind kind;
	static const int coarse[IMAGES] = {11, 15, 3, 13};
	const struct array_spec data = {.code = "u1", .order = "|", .shape = {IMAGES, CIFAR_IMAGE_BYTES}, .rank = 2, .bytes = planar_pixels(),
		.count = IMAGES * CIFAR_IMAGE_BYTES};
	add_pickle_begin(&bytes, PROTOCOL_3);
	add_list(&bytes, PROTOCOL_3, "fine_labels", fine, IMAGES);
	add_list(&bytes, PROTOCOL_3, "coarse_labels", coarse, IMAGES);
	add_data(&bytes, PROTOCOL_3, &data);
	add_pickle_end(&bytes);
	FAILS(ST_DATA, "image 2 has coarse label 3 with fine label 0, which CIFAR-100 puts under 4", read_pickle(&bytes, &kind, &seen));
	bytes.length = 0;
	add_cifar_pickle(&bytes, PYTHON_2, CIFAR_100, fine, IMAGES, 0);
	bytes.length -= 2000;
	FAILS(ST_DATA, "train", read_pickle(&bytes, &kind, &seen));
	bytes.length = 0;
	add_pickle_begin(&bytes, PROTOCOL_3);
	add_list(&bytes, PROTOCOL_3, "fine_labels", fine, IMAGES);
	add_list(&bytes, PROTOCOL_3, "data", fine, IMAGES);
	add_pickle_end(&bytes);
	FAILS(ST_DATA, "where a numpy array is expected", read_pickle(&bytes, &kind, &seen));
	text_free(&bytes);
}

static void test_names(void **state)
{
	(void)state;
	struct cifar_names names = {0};
	static const char text[] = "apple\r\nsea lion \n\n\nb\xc3\xa4r";
	OK(cifar_names_parse((const uint8_t *)text, sizeof text - 1, "n", &names));
	assert_int_equal(names.count, 3);
	assert_string_equal(names.all[0], "apple");
	assert_string_equal(names.all[1], "sea lion");
	assert_string_equal(names.all[2], "b\xc3\xa4r");
	FAILS(ST_DATA, "class name 1 is empty, longer than 1024 bytes or not UTF-8", cifar_names_parse((const uint8_t *)"a\n\xff\xfe\n", 5, "n", &names));
	assert_int_equal(names.count, 3); /* untouched */
	for (enum dialect dialect = 0; dialect < DIALECTS; dialect++) {
		struct text bytes = {0};
		add_pickle_begin(&bytes, dialect);
		add_string(&bytes, dialect, dialect % 2 != 0 ? "label_names" : "fine_label_names");
		OK(text_add(&bytes, "]("));
		add_string(&bytes, dialect, "cat");
		add_string(&bytes, dialect, "dog");
		OK(text_add(&bytes, "eu."));
		OK(cifar_names_unpickle((const uint8_t *)bytes.data, bytes.length, "meta", &names));
		assert_int_equal(names.count, 2);
		assert_string_equal(names.all[1], "dog");
		bytes.length = 0;
		add_pickle_begin(&bytes, dialect);
		add_list(&bytes, dialect, "label_names", fine, 2);
		add_pickle_end(&bytes);
		FAILS(ST_DATA, "meta: class name 0 is not a string", cifar_names_unpickle((const uint8_t *)bytes.data, bytes.length, "meta", &names));
		assert_int_equal(names.count, 2);
		bytes.length = 0;
		add_cifar_pickle(&bytes, dialect, CIFAR_100, fine, IMAGES, 0);
		OK(cifar_names_unpickle((const uint8_t *)bytes.data, bytes.length, "train", &names)); /* has none: nothing changes */
		assert_int_equal(names.count, 2);
		text_free(&bytes);
	}
	cifar_names_free(&names);
}

static void test_facts_of_the_classes(void **state)
{
	(void)state;
	int counts[CIFAR100_COARSE_CLASSES] = {0};
	for (int i = 0; i < CIFAR100_CLASSES; i++) {
		if (i > 0)
			assert_true(strcmp(labels_cifar100[i - 1], labels_cifar100[i]) < 0); /* the official list is sorted */
		counts[labels_cifar100_coarse[i]]++;
	}
	for (int i = 0; i < CIFAR100_COARSE_CLASSES; i++)
		assert_int_equal(counts[i], 5);
	assert_string_equal(labels_cifar100[19], "cattle");
	assert_int_equal(labels_cifar100_coarse[19], 11);
	assert_string_equal(labels_cifar10[9], "truck");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roles_by_name),
		cmocka_unit_test(test_which_binary_format),
		cmocka_unit_test(test_binary_records),
		cmocka_unit_test(test_binary_refusals),
		cmocka_unit_test(test_pickles_of_every_dialect),
		cmocka_unit_test(test_repacked_pickles),
		cmocka_unit_test(test_pickle_refusals),
		cmocka_unit_test(test_pickle_with_wrong_coarse_labels_or_cut_off),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_facts_of_the_classes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
