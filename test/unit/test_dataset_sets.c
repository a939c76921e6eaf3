/* Goal: the right images serve the right purpose, other data sets are read too, and each way to be wrong has a sentence that names
 * channel and path. Method: small data sets in a temporary base directory, right, and with one thing wrong at a time. */
#include "test/unit/dataset_rig.h"

#include "core/format/image.h"

/* --- what serves what ------------------------------------------------------------------------------------------------ */

static void test_test_files_validate(void **state)
{
	(void)state;
	put_train("train/cifar/train.bin");
	put_test("train/cifar/test.bin");
	OK(load());
	expect_train();
	expect_test_images(&dataset.validation);
	assert_int_equal(dataset.test.count, 0);
	assert_string_equal(dataset.validation_source, "test files of the training channel");
}

static void test_validation_and_test_channels(void **state)
{
	(void)state;
	put_train("train/train.bin");
	put_test("test/test.bin");
	OK(load());
	expect_test_images(&dataset.validation);
	assert_string_equal(dataset.validation_source, "test channel");
	assert_int_equal(dataset.test.count, 0);
	/* A validation channel comes before everything, and the test channel tests. */
	put_train("validation/anything");
	request.validation_split = 0.5;
	OK(load());
	assert_int_equal(dataset.train.count, TRAIN);
	assert_int_equal(dataset.validation.count, TRAIN);
	expect_image(&dataset.validation, 1, 3, 1);
	expect_test_images(&dataset.test);
	/* The whole data set in both channels: of the validation channel only the test file counts. */
	put_test("train/test.bin");
	put_test("validation/test.bin");
	assert_int_equal(rename(scratch_path("input/data/validation/anything"), scratch_path("input/data/validation/train.bin")), 0);
	OK(load());
	expect_test_images(&dataset.validation);
	expect_test_images(&dataset.test);
}

static void test_split(void **state)
{
	(void)state;
	put_train("train/train.bin");
	put_test("train/test.bin");
	request.validation_split = 0.3;
	OK(load());
	assert_string_equal(dataset.validation_source, "split of the training images");
	assert_int_equal(dataset.validation.count, 60);
	assert_int_equal(dataset.train.count, 140);
	expect_test_images(&dataset.test);
	/* Every image is in one half, in order, and each class keeps one. */
	size_t t = 0, v = 0;
	int kept[100] = {0}, early = 0;
	for (int i = 0; i < TRAIN; i++) {
		uint8_t expected[CIFAR_IMAGE_BYTES];
		cifar_pixels((unsigned)i, expected);
		if (t < dataset.train.count && memcmp(dataset.train.pixels + t * CIFAR_IMAGE_BYTES, expected, CIFAR_IMAGE_BYTES) == 0) {
			assert_int_equal(dataset.train.labels[t++], train_label(i));
			kept[train_label(i)]++;
		} else {
			expect_image(&dataset.validation, v++, (unsigned)train_label(i), (unsigned)i);
			early += i < TRAIN / 2; /* a class's two images are half a set apart */
		}
	}
	assert_int_equal(t, 140);
	assert_int_equal(v, 60);
	for (int i = 0; i < 100; i++)
		assert_in_range(kept[i], 1, 2);
	assert_in_range(early, 10, 50); /* each class draws for itself: 30 of 60 expected, 10 is five deviations off */
	/* The same seed gives the same split, another one another. */
	uint64_t fingerprint = dataset.fingerprint;
	OK(load());
	assert_true(dataset.fingerprint == fingerprint);
	request.seed = 8;
	OK(load());
	assert_true(dataset.fingerprint != fingerprint);
}

static void test_split_refusals(void **state)
{
	(void)state;
	put_train("train/train.bin");
	static const double wrong[] = {-0.1, 1.0, 7, 0.0 / 0.0};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		request.validation_split = wrong[i];
		FAILS(ST_SETTINGS, "expected 0 or more and less than 1", load());
	}
	request.validation_split = 0.001;
	FAILS(ST_SETTINGS, "of 200 training images in 100 classes that leaves none", load());
	request.validation_split = 0.99; /* each class keeps one */
	OK(load());
	assert_int_equal(dataset.train.count, 100);
	assert_int_equal(dataset.validation.count, 100);
}

static void test_fingerprint_tells_contents_apart(void **state)
{
	(void)state;
	uint64_t fingerprint = plain_fingerprint();
	struct text bytes = train_bin(0, TRAIN);
	bytes.data[5 * 3074 + 2000] ^= 1;
	put("train/train.bin", &bytes);
	OK(load());
	assert_true(dataset.fingerprint != fingerprint);
	bytes.data[5 * 3074 + 2000] ^= 1;
	/* Two labels change places: cattle and camel are both 11. */
	for (int i = 0; i < TRAIN; i++)
		if (bytes.data[i * 3074 + 1] == 19 || bytes.data[i * 3074 + 1] == 15)
			bytes.data[i * 3074 + 1] = (char)(34 - bytes.data[i * 3074 + 1]);
	put("train/train.bin", &bytes);
	OK(load());
	assert_true(dataset.fingerprint != fingerprint);
	text_free(&bytes);
}

/* --- other data sets ------------------------------------------------------------------------------------------------- */

static void test_cifar_10(void **state)
{
	(void)state;
	uint64_t fingerprint = 0;
	for (int form = 0; form < 2; form++) {
		for (int batch = 1; batch <= 5; batch++) {
			struct text bytes = {0};
			int labels[10];
			char name[64];
			for (int i = 0; i < 10; i++) {
				labels[i] = (i + batch) % 10;
				if (form == 0)
					add_cifar(&bytes, CIFAR_10, (unsigned)labels[i], (unsigned)(10 * batch + i));
			}
			if (form == 1)
				add_cifar_pickle(&bytes, PYTHON_2, CIFAR_10, labels, 10, 10 * (unsigned)batch);
			snprintf(name, sizeof name, form == 0 ? "train/cifar-10-batches-bin/data_batch_%d.bin" : "train/cifar-10-batches-py/data_batch_%d", batch);
			put(name, &bytes);
			text_free(&bytes);
		}
		OK(load());
		assert_string_equal(dataset.kind, "CIFAR-10");
		assert_int_equal(dataset.classes, 10);
		assert_string_equal(dataset.class_names[1], "automobile");
		assert_int_equal(dataset.train.count, 50);
		for (unsigned i = 0; i < 50; i++)
			expect_image(&dataset.train, i, (i % 10 + i / 10 + 1) % 10, 10 + i);
		assert_true(form == 0 || dataset.fingerprint == fingerprint);
		fingerprint = dataset.fingerprint;
		forget_channel();
	}
}

static void add_picture(struct text *to, unsigned number)
{
	uint8_t planes[CIFAR_IMAGE_BYTES], *png;
	size_t count;
	cifar_pixels(number, planes);
	OK(image_png_write(planes, 32, 32, &png, &count));
	add_bytes(to, png, count);
	free(png);
}

static void put_picture(const char *name, unsigned number)
{
	struct text png = {0};
	add_picture(&png, number);
	put(name, &png);
	text_free(&png);
}

/* In the order of the channel's paths: class, number. */
static const struct {
	const char *name;
	unsigned label;
} pictures[] = {{"Zebra/2.png", 0}, {"Zebra/10.png", 0}, {"cat/a.png", 1}, {"train/b.png", 2}, {"train/c.png", 2}};

enum { PICTURES = sizeof pictures / sizeof *pictures };

static void expect_pictures(void)
{
	static const unsigned order[PICTURES] = {1, 0, 2, 3, 4}; /* "10.png" comes before "2.png" */
	assert_string_equal(dataset.kind, "folders of pictures");
	assert_int_equal(dataset.classes, 3);
	assert_string_equal(dataset.class_names[0], "Zebra");
	assert_string_equal(dataset.class_names[1], "cat");
	assert_string_equal(dataset.class_names[2], "train");
	assert_int_equal(dataset.train.count, PICTURES);
	for (unsigned i = 0; i < PICTURES; i++)
		expect_image(&dataset.train, i, pictures[order[i]].label, order[i]);
}

static void test_folders_of_pictures(void **state)
{
	(void)state;
	static const char *const prefixes[] = {"train/", "train/train/", "train/set/training/"};
	uint64_t fingerprint = 0;
	struct text tar = {0};
	for (size_t k = 0; k < 3; k++) {
		for (unsigned i = 0; i < PICTURES; i++) {
			char name[128];
			snprintf(name, sizeof name, "%s%s", prefixes[k], pictures[i].name);
			put_picture(name, i);
		}
		OK(load());
		expect_pictures();
		assert_true(k == 0 || dataset.fingerprint == fingerprint);
		fingerprint = dataset.fingerprint;
		forget_channel();
	}
	for (unsigned i = PICTURES; i-- > 0;) { /* backwards: classes come in another order too */
		struct text png = {0};
		add_picture(&png, i);
		add_tar(&tar, '0', pictures[i].name, png.data, png.length);
		text_free(&png);
	}
	add_tar_end(&tar);
	put("train/pictures.tar", &tar);
	OK(load());
	expect_pictures();
	assert_true(dataset.fingerprint == fingerprint);
	text_free(&tar);
}

static void test_pictures_to_validate_with(void **state)
{
	(void)state;
	put_picture("train/train/ant/1.png", 1);
	put_picture("train/train/bee/2.png", 2);
	put_picture("train/val/bee/3.png", 3);
	put_picture("train/test/ant/4.png", 4);
	OK(load());
	assert_int_equal(dataset.train.count, 2);
	assert_string_equal(dataset.validation_source, "validation folder of the training channel");
	assert_int_equal(dataset.validation.count, 1);
	expect_image(&dataset.validation, 0, 1, 3);
	assert_int_equal(dataset.test.count, 1);
	expect_image(&dataset.test, 0, 0, 4);
	/* A channel of its own may lack classes, and they keep their labels. */
	put_picture("validation/bee/5.png", 5);
	OK(load());
	assert_int_equal(dataset.validation.count, 1);
	expect_image(&dataset.validation, 0, 1, 5);
	put_picture("validation/cow/6.png", 6);
	FAILS(ST_DATA, "channel validation: class \"cow\" is not among the 2 classes of the training channel", load());
}

static void add_picture_record(struct text *to, float label, unsigned number)
{
	struct text record = {0};
	uint32_t word;
	memcpy(&word, &label, sizeof word);
	add_u32(&record, 0);
	add_u32(&record, word);
	add_zeros(&record, 16);
	add_picture(&record, number);
	add_record(to, 0, record.data, record.length);
	text_free(&record);
}

static void test_records_of_pictures(void **state)
{
	(void)state;
	struct text records = {0};
	for (unsigned i = 0; i < 6; i++)
		add_picture_record(&records, (float)(i % 3), i);
	put("train/train.rec", &records);
	OK(load());
	assert_string_equal(dataset.kind, "numbered pictures");
	assert_int_equal(dataset.classes, 3);
	assert_string_equal(dataset.class_names[2], "2");
	assert_int_equal(dataset.train.count, 6);
	for (unsigned i = 0; i < 6; i++)
		expect_image(&dataset.train, i, i % 3, i);
	request.classes = 4; /* so class 3 is known to be meant, and missing */
	FAILS(ST_DATA, "1 of 4 classes have no training image, the first is 3 (3)", load());
	request.classes = 2;
	FAILS(ST_SETTINGS, "num_classes is 2, but the training data (numbered pictures) have 3 classes", load());
	request.classes = 0;
	add_picture_record(&records, 5, 9);
	put("validation/val.rec", &records);
	FAILS(ST_DATA, "channel validation: image 6 has label 5, but the training channel's labels are 0 to 2", load());
	static const float wrong[] = {0.5f, -1.0f, 65536.0f, 0.0f / 0.0f};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		records.length = 0;
		add_picture_record(&records, wrong[i], 9);
		put("train/train.rec", &records);
		FAILS(ST_DATA, "train.rec: record 0: label", load());
	}
	text_free(&records);
}

static void test_another_image_size(void **state)
{
	(void)state;
	uint8_t planes[CIFAR_IMAGE_BYTES], expected[3 * 8 * 8];
	put_train("train/train.bin");
	request.image_size = 8;
	OK(load());
	assert_int_equal(dataset.train.size, 8);
	cifar_pixels(TRAIN - 1, planes);
	OK(image_resize(planes, 32, 32, 8, expected));
	assert_memory_equal(dataset.train.pixels + (TRAIN - 1) * sizeof expected, expected, sizeof expected);
}

/* --- refusals -------------------------------------------------------------------------------------------------------- */

static void test_nothing_to_train_with(void **state)
{
	(void)state;
	char says[1024];
	snprintf(says, sizeof says, "channel train: %s: no image in it", scratch_path("input/data/train"));
	FAILS(ST_DATA, says, load());
	put_string("train/readme.md", "nothing here");
	FAILS(ST_DATA, says, load());
	put_test("train/test.bin");
	FAILS(ST_DATA, "none to train with", load());
	put_config("{}");
	FAILS(ST_DATA, "no channel with training images", load());
}

static void test_wrong_files(void **state)
{
	(void)state;
	struct text bytes = train_bin(0, TRAIN);
	bytes.length -= 1000;
	put("train/train.bin", &bytes);
	FAILS(ST_DATA, "train/train.bin: 613800 bytes, expected a multiple of 3074", load());
	bytes.length += 1000;
	bytes.data[100 * 3074 + 1] = 120;
	put("train/train.bin", &bytes);
	FAILS(ST_DATA, "train.bin: record 100 has label 120", load());
	put_string("train/train.bin", "short");
	FAILS(ST_DATA, "train.bin: 5 bytes, expected a multiple of 3074", load());
	put_string("train/train", "\x80\x02}q\1.");
	assert_int_equal(unlink(scratch_path("input/data/train/train.bin")), 0);
	FAILS(ST_DATA, "train/train: a pickle without `data`", load());
	forget_channel();
	put_train("train/train.bin");
	assert_int_equal(symlink("nowhere", scratch_path("input/data/train/zz")), 0);
	FAILS(ST_DATA, "zz: cannot be read", load());
	text_free(&bytes);
}

static void test_unreadable_file(void **state)
{
	(void)state;
	bool root = geteuid() == 0; /* who may read everything, so the load is done as somebody else */
	put_train("train/train.bin");
	assert_int_equal(chmod(scratch_path("input/data/train/train.bin"), 0), 0);
	assert_int_equal(chmod(scratch, 0755), 0);
	assert_int_equal(root ? seteuid(65534) : 0, 0);
	enum status status = load();
	assert_int_equal(root ? seteuid(0) : 0, 0);
	FAILS(ST_DATA, "train.bin: cannot be opened: Permission denied", status);
}

static void test_wrong_archives(void **state)
{
	(void)state;
	struct text inner = {0}, outer = {0}, bytes = train_bin(0, TRAIN);
	add_tar(&inner, '0', "train.bin", bytes.data, bytes.length);
	add_tar_end(&inner);
	add_tar(&outer, '0', "inner.tar", inner.data, inner.length);
	add_tar_end(&outer);
	put("train/c.tar", &outer);
	FAILS(ST_DATA, "c.tar: inner.tar: an archive inside an archive", load());
	inner.length = 100000;
	put("train/c.tar", &inner);
	FAILS(ST_DATA, "c.tar: damaged archive, or cut off", load());
	text_free(&inner);
	text_free(&outer);
	text_free(&bytes);
}

static void test_classes_that_do_not_fit(void **state)
{
	(void)state;
	struct text bytes = train_bin(0, 99), names = {0};
	put("train/train.bin", &bytes); /* image 99 would be the only one of class 97 */
	FAILS(ST_DATA, "1 of 100 classes have no training image, the first is 97 (wolf)", load());
	put_config("{\"train\": {\"S3DistributionType\": \"ShardedByS3Key\"}}");
	OK(load()); /* another host may have them */
	assert_true(dataset.sharded);
	put_config("{\"train\": {}}");
	put_train("train/train.bin");
	request.classes = 100;
	OK(load());
	assert_false(dataset.sharded);
	request.classes = 10;
	FAILS(ST_SETTINGS, "num_classes is 10, but the training data (CIFAR-100) have 100 classes", load());
	request.classes = 0;
	for (int i = 0; i < 100; i++)
		OK(text_printf(&names, "class %d\n", i));
	put("train/fine_label_names.txt", &names);
	OK(load());
	assert_string_equal(dataset.class_names[42], "class 42");
	names.length -= strlen("class 99\n");
	put("train/fine_label_names.txt", &names);
	FAILS(ST_DATA, "file of names has 99 names, but the data (CIFAR-100) have 100 classes", load());
	OK(text_printf(&names, "class 5\n"));
	put("train/fine_label_names.txt", &names);
	FAILS(ST_DATA, "two classes are called \"class 5\"", load());
	text_free(&bytes);
	text_free(&names);
}

static void test_mixtures(void **state)
{
	(void)state;
	struct text ten = {0};
	for (unsigned i = 0; i < 10; i++)
		add_cifar(&ten, CIFAR_10, i, i);
	put_train("train/a.bin");
	put("train/b.bin", &ten);
	FAILS(ST_DATA, "b.bin: CIFAR-10, but what came before it is CIFAR-100; a channel holds one data set", load());
	forget_channel();
	put_train("train/a.bin");
	put_picture("train/cat/1.png", 1);
	FAILS(ST_DATA, "cat/1.png: folders of pictures, but what came before it is CIFAR-100", load());
	forget_channel();
	put_train("train/a.bin");
	put("validation/b.bin", &ten);
	FAILS(ST_DATA, "channel validation: CIFAR-10, but the training channel holds CIFAR-100", load());
	text_free(&ten);
}

static void test_wrong_pictures(void **state)
{
	(void)state;
	struct text png = {0};
	put_picture("train/cat/1.png", 1);
	FAILS(ST_DATA, "the training data (folders of pictures) have 1 class; at least 2", load());
	put_picture("train/dog/1.png", 2);
	OK(load());
	put_picture("train/dog.png", 2);
	FAILS(ST_DATA, "dog.png: a picture outside a folder", load());
	assert_int_equal(unlink(scratch_path("input/data/train/dog.png")), 0);
	add_picture(&png, 3);
	png.length /= 2;
	put("train/dog/2.png", &png);
	FAILS(ST_DATA, "train/dog/2.png: damaged picture", load());
	text_free(&png);
	forget_channel();
	put_picture("train/train/cat/1.png", 1);
	put_picture("train/train/dog/1.png", 1);
	put_picture("train/val/eel/1.png", 2);
	FAILS(ST_DATA, "1 of 3 classes have no training image, the first is 2 (eel)", load());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_test_files_validate),
		TEST(test_validation_and_test_channels),
		TEST(test_split),
		TEST(test_split_refusals),
		TEST(test_fingerprint_tells_contents_apart),
		TEST(test_cifar_10),
		TEST(test_folders_of_pictures),
		TEST(test_pictures_to_validate_with),
		TEST(test_records_of_pictures),
		TEST(test_another_image_size),
		TEST(test_nothing_to_train_with),
		TEST(test_wrong_files),
		TEST(test_unreadable_file),
		TEST(test_wrong_archives),
		TEST(test_classes_that_do_not_fit),
		TEST(test_mixtures),
		TEST(test_wrong_pictures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
