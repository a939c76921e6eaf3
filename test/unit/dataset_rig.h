/* dataset_rig.h: what the tests of data sets share: a temporary base directory, a small CIFAR-100 (two images a class) to put into its
 * channels, and the load. */
#pragma once

#include "test/unit/cifar_files.h"

#include "train/data/dataset.h"

#include <signal.h>

enum { TRAIN = 200, TEST_IMAGES = 100 };

static struct opt_ml opt_ml;
static struct dataset_request request;
static struct dataset dataset;
static struct channels channels;

static inline int setup(void **state)
{
	signal(SIGPIPE, SIG_IGN); /* as main does */
	request = (struct dataset_request){.channels = &channels, .image_size = 32, .seed = 7};
	dataset = (struct dataset){0};
	if (scratch_open(state) != 0 || setenv("SAGEMAKER_BASE_DIR", scratch, 1) != 0)
		return 1;
	return opt_ml_open(&opt_ml) != ST_OK || directory_make(scratch_path("input/data/train")) != ST_OK || directory_make(opt_ml.config) != ST_OK;
}

static inline int teardown(void **state)
{
	dataset_free(&dataset);
	return scratch_close(state);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

/* Writes a file below input/data. */
static inline void put(const char *name, const struct text *text)
{
	char path[1024];
	snprintf(path, sizeof path, "input/data/%s", name);
	scratch_write_text(path, text);
}

static inline void put_string(const char *name, const char *string)
{
	struct text text = {0};
	OK(text_add(&text, string));
	put(name, &text);
	text_free(&text);
}

static inline void put_config(const char *json)
{
	scratch_write("input/config/inputdataconfig.json", json, strlen(json));
}

static inline enum status load(void)
{
	TRY(channels_find(&opt_ml, &channels));
	dataset_free(&dataset);
	return dataset_load(&request, &dataset);
}

/* Image i of the training set has label 3·i mod 100: two of each class in 200. Test images are numbered from 1000. */
static inline int train_label(int i)
{
	return i * 3 % 100;
}

static inline struct text train_bin(int from, int to)
{
	struct text bytes = {0};
	for (int i = from; i < to; i++)
		add_cifar(&bytes, CIFAR_100, (unsigned)train_label(i), (unsigned)i);
	return bytes;
}

static inline struct text test_bin(void)
{
	struct text bytes = {0};
	for (int i = 0; i < TEST_IMAGES; i++)
		add_cifar(&bytes, CIFAR_100, (unsigned)i, 1000 + (unsigned)i);
	return bytes;
}

static inline void put_train(const char *name)
{
	struct text bytes = train_bin(0, TRAIN);
	put(name, &bytes);
	text_free(&bytes);
}

static inline void put_test(const char *name)
{
	struct text bytes = test_bin();
	put(name, &bytes);
	text_free(&bytes);
}

static inline void expect_image(const struct images *images, size_t i, unsigned label, unsigned number)
{
	uint8_t expected[CIFAR_IMAGE_BYTES];
	cifar_pixels(number, expected);
	assert_int_equal(images->labels[i], label);
	assert_memory_equal(images->pixels + i * CIFAR_IMAGE_BYTES, expected, CIFAR_IMAGE_BYTES);
}

static inline void expect_train(void)
{
	assert_int_equal(dataset.train.count, TRAIN);
	assert_int_equal(dataset.train.size, 32);
	for (int i = 0; i < TRAIN; i++)
		expect_image(&dataset.train, (size_t)i, (unsigned)train_label(i), (unsigned)i);
	assert_int_equal(dataset.classes, 100);
	assert_string_equal(dataset.class_names[0], "apple");
	assert_string_equal(dataset.class_names[99], "worm");
}

static inline void expect_test_images(const struct images *images)
{
	assert_int_equal(images->count, TEST_IMAGES);
	for (unsigned i = 0; i < TEST_IMAGES; i++)
		expect_image(images, i, i, 1000 + i);
}

static inline void forget_channel(void)
{
	char command[256];
	snprintf(command, sizeof command, "rm -rf '%s'/input/data/*", scratch);
	assert_int_equal(system(command), 0);
	OK(directory_make(scratch_path("input/data/train")));
}

/* The data set of train.bin alone in the channel, as the measure of the others. */
static inline uint64_t plain_fingerprint(void)
{
	put_train("train/train.bin");
	OK(load());
	expect_train();
	assert_string_equal(dataset.kind, "CIFAR-100");
	assert_int_equal(dataset.validation.count, 0);
	assert_string_equal(dataset.validation_source, "none");
	uint64_t fingerprint = dataset.fingerprint;
	forget_channel();
	return fingerprint;
}
