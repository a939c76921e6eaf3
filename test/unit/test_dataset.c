/* Goal: the same images in any layout are the same data set, from files, archives, records and FIFOs. Method: a small data set laid out
 * in a temporary base directory in every way; FIFOs are fed by a thread. */
#include "test/unit/dataset_rig.h"

#include <fcntl.h>
#include <pthread.h>

enum { PIECES = 4 };

/* --- one content, every layout --------------------------------------------------------------------------------------- */

static void expect_same(uint64_t fingerprint, const char *layout)
{
	enum status status = load();
	if (status != ST_OK)
		fail_msg("%s: %s", layout, status_message());
	expect_train();
	if (dataset.fingerprint != fingerprint)
		fail_msg("%s: another fingerprint", layout);
	forget_channel();
}

static void test_files_and_folders(void **state)
{
	(void)state;
	uint64_t fingerprint = plain_fingerprint();
	put_train("train/cifar-100-binary/train.bin");
	expect_same(fingerprint, "one folder deep");
	put_train("train/a/b/c/train.bin");
	expect_same(fingerprint, "three folders deep");
	put_train("train/part-0001"); /* a name that says nothing */
	expect_same(fingerprint, "any name");
	for (int i = 0; i < PIECES; i++) {
		char name[64];
		struct text bytes = train_bin(i * TRAIN / PIECES, (i + 1) * TRAIN / PIECES);
		snprintf(name, sizeof name, "train/%s/train-%c.bin", i < 2 ? "x" : "y", "abcd"[i]);
		put(name, &bytes);
		text_free(&bytes);
	}
	expect_same(fingerprint, "pieces in two folders");
	put_train("elsewhere/data");
	assert_int_equal(symlink("../elsewhere/data", scratch_path("input/data/train/train.bin")), 0);
	put_config("{\"train\": {}}");
	expect_same(fingerprint, "a symbolic link");
}

static void test_what_is_not_data_is_ignored(void **state)
{
	(void)state;
	uint64_t fingerprint = plain_fingerprint();
	put_train("train/train.bin");
	put_string("train/_SUCCESS", "");
	put_string("train/.DS_Store", "hidden");
	put_string("train/.train.bin.swp", "hidden");
	put_string("train/file.txt~", "old");
	put_string("train/readme.html", "<html>");
	put_string("train/coarse_label_names.txt", "a\nb\n");
	put_string("train/test.bin", "");
	put_string("train/notes.dat", "neither CIFAR nor a picture: passed over with a warning");
	expect_same(fingerprint, "with other files");
}

static void test_channel_is_only_read(void **state)
{
	(void)state;
	uint64_t fingerprint = plain_fingerprint();
	struct stat before, after;
	put_train("train/train.bin");
	assert_int_equal(chmod(scratch_path("input/data/train/train.bin"), 0444), 0);
	assert_int_equal(chmod(scratch_path("input/data/train"), 0555), 0);
	assert_int_equal(stat(scratch_path("input/data/train"), &before), 0);
	OK(load());
	assert_int_equal(stat(scratch_path("input/data/train"), &after), 0);
	assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim); /* nothing was made or renamed in it */
	assert_int_equal(dataset.fingerprint, fingerprint);
}

static void test_archives(void **state)
{
	(void)state;
	uint64_t fingerprint = plain_fingerprint();
	struct text tar = {0}, gzip = {0}, bytes = train_bin(0, TRAIN);
	add_tar(&tar, '5', "cifar-100-binary/", "", 0);
	add_tar(&tar, '0', "cifar-100-binary/train.bin", bytes.data, bytes.length);
	add_tar_end(&tar);
	add_gzip(&gzip, &tar);
	put("train/c.tar", &tar);
	expect_same(fingerprint, "tar");
	put("train/c.tar.gz", &gzip);
	expect_same(fingerprint, "tar.gz");
	put("train/folder/c.tgz", &gzip);
	expect_same(fingerprint, "tgz in a folder");
	/* Members in another order than their names', as a tar made from a directory listing has them. */
	tar.length = 0;
	static const int order[PIECES] = {2, 0, 3, 1};
	for (int i = 0; i < PIECES; i++) {
		char name[64];
		struct text piece = train_bin(order[i] * TRAIN / PIECES, (order[i] + 1) * TRAIN / PIECES);
		snprintf(name, sizeof name, "train_%d.bin", order[i]);
		add_tar(&tar, '0', name, piece.data, piece.length);
		text_free(&piece);
	}
	add_tar_end(&tar);
	put("train/c.tar", &tar);
	expect_same(fingerprint, "unordered tar");
	text_free(&tar);
	text_free(&gzip);
	text_free(&bytes);
}

static void test_pickles(void **state)
{
	(void)state;
	uint64_t fingerprint = plain_fingerprint();
	int labels[TRAIN];
	for (int i = 0; i < TRAIN; i++)
		labels[i] = train_label(i);
	for (enum dialect dialect = 0; dialect < DIALECTS; dialect++) {
		struct text bytes = {0}, tar = {0}, gzip = {0}, meta = {0};
		add_cifar_pickle(&bytes, dialect, CIFAR_100, labels, TRAIN, 0);
		add_pickle_begin(&meta, dialect);
		add_string(&meta, dialect, "fine_label_names");
		OK(text_add(&meta, "]("));
		for (int i = 0; i < 100; i++)
			add_string(&meta, dialect, labels_cifar100[i]);
		OK(text_add(&meta, "eu."));
		put("train/cifar-100-python/train", &bytes);
		put("train/cifar-100-python/meta", &meta);
		expect_same(fingerprint, "pickles");
		add_tar(&tar, '0', "cifar-100-python/train", bytes.data, bytes.length);
		add_tar(&tar, '0', "cifar-100-python/meta", meta.data, meta.length);
		add_tar_end(&tar);
		add_gzip(&gzip, &tar);
		put("train/cifar-100-python.tar.gz", &gzip);
		expect_same(fingerprint, "pickles in tar.gz");
		text_free(&bytes);
		text_free(&tar);
		text_free(&gzip);
		text_free(&meta);
	}
}

/* Objects wrapped one a record: pieces of images, an archive, both lists of names. */
static struct text wrapped(void)
{
	struct text records = {0}, bytes = train_bin(0, 50), rest = train_bin(50, TRAIN), tar = {0}, names = {0};
	add_tar(&tar, '0', "part.bin", rest.data, rest.length);
	add_tar_end(&tar);
	for (int i = 0; i < 100; i++)
		OK(text_printf(&names, "%s\n", labels_cifar100[i]));
	add_record(&records, 0, "fish\nfruit\n", 11);
	add_record(&records, 0, names.data, names.length);
	add_record(&records, 0, bytes.data, bytes.length);
	add_record(&records, 0, tar.data, tar.length);
	text_free(&bytes);
	text_free(&rest);
	text_free(&tar);
	text_free(&names);
	return records;
}

static void test_records_in_a_file(void **state)
{
	(void)state;
	uint64_t fingerprint = plain_fingerprint();
	struct text records = wrapped();
	put("train/train.rec", &records);
	expect_same(fingerprint, "RecordIO file");
	text_free(&records);
}

/* --- FIFOs ----------------------------------------------------------------------------------------------------------- */

struct feed {
	char path[1024];
	const struct text *bytes;
	pthread_t thread;
};

static void *feed_run(void *context)
{
	const struct feed *feed = context;
	int fd = open(feed->path, O_WRONLY);
	for (size_t at = 0; fd >= 0 && at < feed->bytes->length;) {
		ssize_t n = write(fd, feed->bytes->data + at, feed->bytes->length - at);
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	close(fd);
	return NULL;
}

static void feed_start(struct feed *feed, const char *channel, const struct text *bytes)
{
	snprintf(feed->path, sizeof feed->path, "%s/input/data/%s_0", scratch, channel);
	feed->bytes = bytes;
	unlink(feed->path);
	assert_int_equal(mkfifo(feed->path, 0600), 0);
	assert_int_equal(pthread_create(&feed->thread, NULL, feed_run, feed), 0);
}

static void test_fifos(void **state)
{
	(void)state;
	uint64_t fingerprint = plain_fingerprint();
	struct feed feed;
	struct text bytes = train_bin(0, TRAIN), records = wrapped(), tar = {0}, gzip = {0};
	add_tar(&tar, '0', "train.bin", bytes.data, bytes.length);
	add_tar_end(&tar);
	add_zeros(&tar, 8192); /* tar pads to its block size */
	add_gzip(&gzip, &tar);
	put_config("{\"train\": {\"TrainingInputMode\": \"Pipe\"}}");
	feed_start(&feed, "train", &bytes);
	expect_same(fingerprint, "FIFO");
	pthread_join(feed.thread, NULL);
	feed_start(&feed, "train", &tar);
	expect_same(fingerprint, "FIFO of tar");
	pthread_join(feed.thread, NULL);
	feed_start(&feed, "train", &gzip);
	expect_same(fingerprint, "FIFO of tar.gz");
	pthread_join(feed.thread, NULL);
	put_config("{\"train\": {\"TrainingInputMode\": \"Pipe\", \"RecordWrapperType\": \"RecordIO\"}}");
	feed_start(&feed, "train", &records);
	expect_same(fingerprint, "FIFO of RecordIO");
	pthread_join(feed.thread, NULL);
	text_free(&bytes);
	text_free(&records);
	text_free(&tar);
	text_free(&gzip);
}

/* Three FIFOs: two are read, the third has no role, and its writer must not wait for ever. */
static void test_every_fifo_is_served(void **state)
{
	(void)state;
	struct feed feeds[3];
	struct text train = train_bin(0, TRAIN), test = test_bin();
	put_config("{\"train\": {\"TrainingInputMode\": \"Pipe\"}, \"validation\": {\"TrainingInputMode\": \"Pipe\"}, \"extra\": {\"TrainingInputMode\": \"Pipe\"}}");
	feed_start(&feeds[0], "train", &train);
	feed_start(&feeds[1], "validation", &test);
	feed_start(&feeds[2], "extra", &train);
	OK(load());
	for (int i = 0; i < 3; i++)
		pthread_join(feeds[i].thread, NULL);
	expect_train();
	expect_test_images(&dataset.validation);
	assert_string_equal(dataset.validation_source, "validation channel");
	text_free(&train);
	text_free(&test);
}

static void test_fifo_refusals(void **state)
{
	(void)state;
	struct feed feed;
	struct text bytes = train_bin(0, TRAIN), nothing = {0};
	bytes.length -= 1;
	put_config("{\"train\": {\"TrainingInputMode\": \"Pipe\"}}");
	feed_start(&feed, "train", &bytes);
	FAILS(ST_DATA, "614799 bytes, expected a multiple of 3074 (a CIFAR-100 record): record 199 is cut off", load());
	assert_non_null(strstr(status_message(), "channel train: "));
	pthread_join(feed.thread, NULL);
	feed_start(&feed, "train", &nothing);
	FAILS(ST_DATA, "train_0: no image in it", load());
	pthread_join(feed.thread, NULL);
	put_config("{\"train\": {\"TrainingInputMode\": \"Pipe\", \"RecordWrapperType\": \"RecordIO\"}}");
	feed_start(&feed, "train", &bytes);
	FAILS(ST_DATA, "no RecordIO magic at byte 0", load());
	pthread_join(feed.thread, NULL);
	text_free(&bytes);
}

static int asked, asked_max;

static bool stop_after(void)
{
	return asked++ >= asked_max;
}

static void test_stop_while_reading(void **state)
{
	(void)state;
	put_train("train/train.bin");
	request.stopped = stop_after;
	for (asked_max = 0; asked_max < 6; asked_max += 5) {
		asked = 0;
		FAILS(ST_STOPPED, "train.bin: stopped", load());
	}
	asked = 0;
	asked_max = 3;
	put_config("{\"train\": {\"TrainingInputMode\": \"Pipe\"}}");
	FAILS(ST_STOPPED, "stopped while waiting", load());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_files_and_folders),
		TEST(test_what_is_not_data_is_ignored),
		TEST(test_channel_is_only_read),
		TEST(test_archives),
		TEST(test_pickles),
		TEST(test_records_in_a_file),
		TEST(test_fifos),
		TEST(test_every_fifo_is_served),
		TEST(test_fifo_refusals),
		TEST(test_stop_while_reading),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
