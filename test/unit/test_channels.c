/* Goal: channels and their roles are found as SageMaker lays them out. Method: a temporary base directory with the config file and
 * directories of each case; FIFOs with a writer in a thread. */
#include "test/unit/scratch.h"

#include "train/data/channels.h"
#include "train/data/pipe.h"
#include "train/data/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

static struct opt_ml opt_ml;
static struct channels channels;

static int setup(void **state)
{
	signal(SIGPIPE, SIG_IGN); /* as main does: a writer of ours may meet a closed FIFO */
	if (scratch_open(state) != 0 || setenv("SAGEMAKER_BASE_DIR", scratch, 1) != 0)
		return 1;
	return opt_ml_open(&opt_ml) != ST_OK || directory_make(opt_ml.config) != ST_OK || directory_make(opt_ml.data) != ST_OK;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, scratch_close)

static void make_channel(const char *name)
{
	char path[128];
	snprintf(path, sizeof path, "input/data/%s", name);
	OK(directory_make(scratch_path(path)));
}

static void write_config(const char *json)
{
	scratch_write("input/config/inputdataconfig.json", json, strlen(json));
}

static enum status find(void)
{
	memset(&channels, 0xff, sizeof channels);
	return channels_find(&opt_ml, &channels);
}

static void expect_role(enum channel_role role, const char *name)
{
	const struct channel *channel = channels_of(&channels, role);
	if (name == NULL)
		assert_null(channel);
	else if (channel == NULL || strcmp(channel->name, name) != 0)
		fail_msg("role %d: channel %s, expected %s", (int)role, channel == NULL ? "none" : channel->name, name);
}

static void test_names_from_the_config(void **state)
{
	(void)state;
	make_channel("training");
	make_channel("val");
	make_channel("eval");
	make_channel("pretrained");
	make_channel("stray"); /* a directory that the config does not name is no channel */
	write_config("{\"val\": {}, \"training\": {\"TrainingInputMode\": \"FastFile\", \"ContentType\": \"x/y\", \"New\": [1]}, \"eval\": {\"RecordWrapperType\": null},"
		"\"pretrained\": {\"S3DistributionType\": \"FullyReplicated\", \"RecordWrapperType\": \"None\", \"TrainingInputMode\": \"File\"}}");
	OK(find());
	assert_int_equal(channels.count, 4);
	expect_role(CHANNEL_TRAIN, "training");
	expect_role(CHANNEL_VALIDATION, "val");
	expect_role(CHANNEL_TEST, "eval");
	expect_role(CHANNEL_MODEL, "pretrained");
	for (int i = 0; i < channels.count; i++)
		assert_false(channels.all[i].pipe || channels.all[i].recordio || channels.all[i].sharded);
	assert_string_equal(channels_of(&channels, CHANNEL_TRAIN)->path, scratch_path("input/data/training"));
}

static void test_earlier_names_win(void **state)
{
	(void)state;
	write_config("{\"data\": {\"TrainingInputMode\": \"Pipe\"}, \"train\": {\"TrainingInputMode\": \"Pipe\", \"RecordWrapperType\": \"RecordIO\","
		"\"S3DistributionType\": \"ShardedByS3Key\"}, \"valid\": {\"TrainingInputMode\": \"Pipe\"}, \"validation\": {\"TrainingInputMode\": \"Pipe\"}}");
	OK(find());
	expect_role(CHANNEL_TRAIN, "train");
	expect_role(CHANNEL_VALIDATION, "validation");
	expect_role(CHANNEL_TEST, NULL);
	const struct channel *train = channels_of(&channels, CHANNEL_TRAIN);
	assert_true(train->pipe && train->recordio && train->sharded);
}

static void test_only_channel_of_any_name(void **state)
{
	(void)state;
	static const char *const names[] = {"cifar100", "train", "training", "data", "my-pictures.v2", "x"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char json[256];
		make_channel(names[i]);
		snprintf(json, sizeof json, "{\"%s\": {\"TrainingInputMode\": \"File\"}}", names[i]);
		write_config(json);
		OK(find());
		expect_role(CHANNEL_TRAIN, names[i]);
	}
	/* Channels with another role, and the platform's own, do not count. */
	make_channel("model");
	make_channel("code");
	make_channel("sm_drivers");
	write_config("{\"x\": {}, \"model\": {}, \"code\": {}, \"sm_drivers\": {}}");
	OK(find());
	expect_role(CHANNEL_TRAIN, "x");
	expect_role(CHANNEL_MODEL, "model");
}

static void test_no_training_channel(void **state)
{
	const struct channel *channel;
	(void)state;
	write_config("{}");
	make_channel("train"); /* the config counts, not the directory */
	OK(find());
	FAILS(ST_DATA, "no channel with training images: looked for train, training, cifar100, data, or a single channel of any name; this job has no channel",
		channels_require(&channels, CHANNEL_TRAIN, &channel));
	make_channel("one");
	make_channel("two");
	write_config("{\"two\": {}, \"one\": {}}");
	OK(find());
	FAILS(ST_DATA, "this job has one, two", channels_require(&channels, CHANNEL_TRAIN, &channel));
	make_channel("test");
	write_config("{\"test\": {}}");
	OK(find());
	FAILS(ST_DATA, "this job has test", channels_require(&channels, CHANNEL_TRAIN, &channel));
	OK(channels_require(&channels, CHANNEL_TEST, &channel));
}

static void test_directories_when_there_is_no_config(void **state)
{
	(void)state;
	make_channel("train");
	make_channel("validation");
	make_channel(".hidden");
	scratch_write("input/data/train-manifest", "x", 1);
	scratch_write("input/data/test", "x", 1);
	OK(find());
	assert_int_equal(channels.count, 2);
	expect_role(CHANNEL_TRAIN, "train");
	expect_role(CHANNEL_VALIDATION, "validation");
	expect_role(CHANNEL_TEST, NULL);
	write_config(" \n");
	OK(find());
	assert_int_equal(channels.count, 2);
}

static void test_no_input_at_all(void **state)
{
	(void)state;
	assert_int_equal(rmdir(opt_ml.data), 0);
	OK(find());
	assert_int_equal(channels.count, 0);
	expect_role(CHANNEL_TRAIN, NULL);
}

static void test_config_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *json, *says;
		enum status status;
	} cases[] = {
		{"{\"train\": {}", "inputdataconfig.json", ST_SETTINGS},
		{"[]", "inputdataconfig.json", ST_SETTINGS},
		{"{\"tr/ain\": {}}", "\"tr/ain\" is no channel name", ST_SETTINGS},
		{"{\"..\": {}}", "\"..\" is no channel name", ST_SETTINGS},
		{"{\"\": {}}", "is no channel name", ST_SETTINGS},
		{"{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\": {}}", "is no channel name", ST_SETTINGS},
		{"{\"train\": 3}", "channel train is a number, expected an object", ST_SETTINGS},
		{"{\"train\": {\"TrainingInputMode\": \"Fast\"}}", "channel train: TrainingInputMode is \"Fast\"", ST_SETTINGS},
		{"{\"train\": {\"RecordWrapperType\": 3}}", "RecordWrapperType is a number, expected a string", ST_SETTINGS},
		{"{\"train\": {\"S3DistributionType\": \"Random\"}}", "S3DistributionType is \"Random\"", ST_SETTINGS},
		{"{\"train\": {}}", "channel train: its directory", ST_DATA},
		{"{\"a\":{\"TrainingInputMode\":\"Pipe\"},\"b\":{\"TrainingInputMode\":\"Pipe\"},\"c\":{\"TrainingInputMode\":\"Pipe\"},\"d\":{},"
			"\"e\":{},\"f\":{},\"g\":{},\"h\":{},\"i\":{},\"j\":{},\"k\":{},\"l\":{},\"m\":{},\"n\":{},\"o\":{},\"p\":{},\"q\":{},\"r\":{},\"s\":{},"
			"\"t\":{},\"u\":{}}", "more than 20 channels", ST_SETTINGS},
	};
	for (char name[2] = "d"; name[0] <= 'u'; name[0]++)
		make_channel(name);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		write_config(cases[i].json);
		FAILS(cases[i].status, cases[i].says, find());
	}
}

/* --- walking a directory --------------------------------------------------------------------------------------------- */

static void test_walk_order_and_what_is_ignored(void **state)
{
	(void)state;
	static const char *const files[] = {"d/b", "d/a", "Z", "a.bin", "d-", "d/.x/y", ".hidden", "_SUCCESS", ".DS_Store", "old~", "d/e/f/deep", "d/_SUCCESS"};
	static const char *const expected[] = {"Z", "a.bin", "d-", "d/a", "d/b", "d/e/f/deep"};
	struct walk walk;
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		char name[64];
		snprintf(name, sizeof name, "c/%s", files[i]);
		scratch_write(name, "x", 1);
	}
	scratch_write("c/empty", "", 0);
	assert_int_equal(mkfifo(scratch_path("c/fifo"), 0600), 0);
	OK(walk_directory(scratch_path("c"), &walk));
	assert_int_equal(walk.count, sizeof expected / sizeof *expected);
	for (size_t i = 0; i < walk.count; i++)
		assert_string_equal(walk.names[i], expected[i]);
	walk_free(&walk);
	assert_true(walk_ignores("a/.git/b"));
	assert_true(walk_ignores("x~"));
	assert_false(walk_ignores("a/b.bin"));
}

static void test_walk_links_and_loops(void **state)
{
	(void)state;
	struct walk walk;
	scratch_write("c/d/file", "x", 1);
	scratch_write("outside/other", "x", 1);
	assert_int_equal(symlink("../outside/other", scratch_path("c/linked")), 0);
	assert_int_equal(symlink("../outside", scratch_path("c/folder")), 0);
	assert_int_equal(symlink("..", scratch_path("c/d/up")), 0);
	assert_int_equal(symlink(".", scratch_path("c/self")), 0);
	assert_int_equal(symlink("d", scratch_path("c/twin")), 0); /* "d" comes first, so its name is the one */
	OK(walk_directory(scratch_path("c"), &walk));
	assert_int_equal(walk.count, 3);
	assert_string_equal(walk.names[0], "d/file");
	assert_string_equal(walk.names[1], "folder/other");
	assert_string_equal(walk.names[2], "linked");
	walk_free(&walk);
	assert_int_equal(symlink("nowhere", scratch_path("c/z")), 0);
	FAILS(ST_DATA, "/c/z: cannot be read", walk_directory(scratch_path("c"), &walk));
}

static void test_walk_refusals(void **state)
{
	(void)state;
	struct walk walk;
	FAILS(ST_DATA, "cannot be read", walk_directory(scratch_path("missing"), &walk));
	scratch_write("c/1/2/3/file", "x", 1);
	OK(walk_directory(scratch_path("c"), &walk));
	walk_free(&walk);
	scratch_write("c/1/2/3/4/file", "x", 1);
	FAILS(ST_DATA, "1/2/3/4 lies more than 3 directories deep", walk_directory(scratch_path("c"), &walk));
}

/* --- FIFOs ----------------------------------------------------------------------------------------------------------- */

static struct channel fifo_channel(void)
{
	struct channel channel = {.name = "train", .pipe = true};
	snprintf(channel.path, sizeof channel.path, "%s", scratch_path("train"));
	return channel;
}

enum { MADE_LATE_MS = 120, FIFO_BYTES = 200000 };

/* Makes the FIFO some time after the reader looked for it, and writes in two goes. */
static void *write_late(void *context)
{
	char path[4096];
	static uint8_t bytes[FIFO_BYTES];
	snprintf(path, sizeof path, "%s_0", (const char *)context);
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 7 >> 3);
	nanosleep(&(struct timespec){.tv_nsec = MADE_LATE_MS * 1000000L}, NULL);
	if (mkfifo(path, 0600) != 0)
		return NULL;
	nanosleep(&(struct timespec){.tv_nsec = MADE_LATE_MS * 1000000L}, NULL);
	int fd = open(path, O_WRONLY);
	for (size_t at = 0; at < sizeof bytes;) {
		size_t n = at < 1000 ? 1000 - at : sizeof bytes - at;
		ssize_t written = write(fd, bytes + at, n);
		if (written < 0)
			break;
		at += (size_t)written;
		nanosleep(&(struct timespec){.tv_nsec = 1000000L}, NULL);
	}
	close(fd);
	return NULL;
}

static void test_fifo_made_late(void **state)
{
	(void)state;
	struct channel channel = fifo_channel();
	struct pipe_reader reader;
	pthread_t thread;
	uint8_t *bytes;
	size_t count;
	assert_int_equal(pthread_create(&thread, NULL, write_late, channel.path), 0);
	OK(pipe_open(&reader, &channel, NULL));
	OK(stream_read_all(&reader.stream, 1 << 20, &bytes, &count));
	assert_int_equal(count, FIFO_BYTES);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(bytes[i], (uint8_t)(i * 7 >> 3));
	free(bytes);
	pipe_close(&reader);
	pthread_join(thread, NULL);
}

static int asked, asked_max;

static bool stop_after(void)
{
	return asked++ >= asked_max;
}

static void test_stop_while_waiting(void **state)
{
	(void)state;
	struct channel channel = fifo_channel();
	struct pipe_reader reader;
	const uint8_t *head;
	size_t n;
	asked = 0;
	asked_max = 2;
	FAILS(ST_STOPPED, "train_0: stopped while waiting", pipe_open(&reader, &channel, stop_after)); /* no FIFO */
	pipe_close(&reader);
	assert_int_equal(mkfifo(scratch_path("train_0"), 0600), 0);
	asked = 0;
	OK(pipe_open(&reader, &channel, stop_after));
	FAILS(ST_STOPPED, "train_0: stopped while waiting", stream_peek(&reader.stream, 1, &head, &n)); /* no writer */
	pipe_close(&reader);
}

static void test_fifo_refusals(void **state)
{
	(void)state;
	struct channel channel = fifo_channel();
	struct pipe_reader reader;
	assert_int_equal(symlink("train_0", scratch_path("train_0")), 0);
	FAILS(ST_DATA, "train_0: cannot be opened", pipe_open(&reader, &channel, NULL));
	pipe_close(&reader);
}

/* Writes until nobody reads any more; the result is the errno that ended it. */
static void *write_for_ever(void *context)
{
	static int error;
	static const char bytes[4096];
	int fd = open(context, O_WRONLY);
	while (write(fd, bytes, sizeof bytes) > 0)
		;
	error = errno;
	close(fd);
	return &error;
}

static void test_unwanted_fifo_frees_its_writer(void **state)
{
	(void)state;
	struct channel channel = fifo_channel();
	pthread_t thread;
	void *error;
	pipe_dismiss(&channel, 100, NULL); /* no FIFO: nothing happens */
	char path[4096];
	snprintf(path, sizeof path, "%s", scratch_path("train_0"));
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_for_ever, path), 0);
	pipe_dismiss(&channel, 10000, NULL);
	pthread_join(thread, &error);
	assert_int_equal(*(int *)error, EPIPE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_names_from_the_config),
		TEST(test_earlier_names_win),
		TEST(test_only_channel_of_any_name),
		TEST(test_no_training_channel),
		TEST(test_directories_when_there_is_no_config),
		TEST(test_no_input_at_all),
		TEST(test_config_refusals),
		TEST(test_walk_order_and_what_is_ignored),
		TEST(test_walk_links_and_loops),
		TEST(test_walk_refusals),
		TEST(test_fifo_made_late),
		TEST(test_stop_while_waiting),
		TEST(test_fifo_refusals),
		TEST(test_unwanted_fifo_frees_its_writer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
