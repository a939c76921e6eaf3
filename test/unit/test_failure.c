/* Goal: a run that fails always says why, in a form that SageMaker shows, and a run that ends well leaves nothing. Method: children that fail;
 * the parent looks at what they left. A disk is full on a small tmpfs (as root) or by a file-size limit. Conformance tests 55, 56, 60. */
#define _GNU_SOURCE /* unshare */
#include "test/unit/failure_rig.h"

#include "train/ranks/stop.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void body_good(void)
{
	open_it();
	failure_close();
	failure_close();
}

static void good_run_leaves_nothing(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_good), 0);
	assert_null(left());
	nothing_else_left();
	assert_string_equal(said, "");
}

static void body_fail(void)
{
	open_it();
	failure_write("lr=\"-1\": must be a number from 0 to 100");
}

static void sentence_arrives(void **unused)
{
	(void)unused;
	umask(077);
	assert_int_equal(child(body_fail), 0);
	umask(022);
	assert_string_equal(left(), "lr=\"-1\": must be a number from 0 to 100");
	assert_string_equal(said, "error: lr=\"-1\": must be a number from 0 to 100\n");
	nothing_else_left();
	struct stat about;
	assert_int_equal(stat(opt_ml.failure, &about), 0);
	assert_int_equal(about.st_mode & 0777, 0644);
}

static void body_long(void)
{
	char text[5000];
	open_it();
	strcpy(text, "a\x1b[31m\n\xFF");
	for (size_t used = strlen(text); used < sizeof text - 2; used += 2)
		memcpy(text + used, "ü", 3);
	failure_write(text);
}

static void long_text_is_cut(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_long), 0);
	assert_int_equal(strncmp(left(), "a?[31m ?üüü", strlen("a?[31m ?üüü")), 0);
	assert_in_range(strlen(left()), FAILURE_BYTES_MAX - 1, FAILURE_BYTES_MAX);
}

static const char *first_reason;

/* Another process tells first. */
static void body_second(void)
{
	open_it();
	check(file_write(opt_ml.failure, first_reason, strlen(first_reason)) == ST_OK, 1);
	failure_write("lr=\"-1\": must be a number from 0 to 100");
}

static void first_reason_stays(void **unused)
{
	(void)unused;
	first_reason = "root cause";
	assert_int_equal(child(body_second), 0);
	assert_string_equal(left(), "root cause");
	assert_non_null(strstr(said, "must be a number"));
	nothing_else_left();
	first_reason = ""; /* is no reason */
	assert_int_equal(child(body_second), 0);
	assert_non_null(strstr(left(), "must be a number"));
}

static void earlier_run_is_forgotten(void **unused)
{
	(void)unused;
	char longest[FAILURE_BYTES_MAX];
	memset(longest, 'x', sizeof longest);
	assert_int_equal(file_write(opt_ml.failure, longest, sizeof longest), ST_OK);
	assert_int_equal(child(body_good), 0);
	assert_null(left());
	assert_string_equal(said, "");
	assert_int_equal(file_write(opt_ml.failure, longest, sizeof longest), ST_OK);
	assert_int_equal(child(body_fail), 0);
	assert_string_equal(left(), "lr=\"-1\": must be a number from 0 to 100");
	nothing_else_left();
}

/* What no run of ours can have left in place of the text stays: a longer file, somebody else's, a link, a directory. */
static void foreign_things_stay(void **unused)
{
	(void)unused;
	char text[FAILURE_BYTES_MAX + 1], target[128];
	struct stat about;
	memset(text, 'x', sizeof text);
	assert_int_equal(file_write(opt_ml.failure, text, sizeof text), ST_OK);
	assert_int_equal(child(body_good), 0);
	assert_int_equal(stat(opt_ml.failure, &about), 0);
	assert_int_equal(about.st_size, sizeof text);
	if (geteuid() == 0) {
		assert_int_equal(file_write(opt_ml.failure, "of nobody", 9), ST_OK);
		assert_int_equal(chown(opt_ml.failure, 65534, 65534), 0);
		assert_int_equal(child(body_good), 0);
		assert_string_equal(left(), "of nobody");
	}
	assert_int_equal(unlink(opt_ml.failure), 0);
	snprintf(target, sizeof target, "%s/target", base);
	assert_int_equal(file_write(target, "of a link", 9), ST_OK);
	assert_int_equal(symlink(target, opt_ml.failure), 0);
	assert_int_equal(child(body_good), 0);
	assert_string_equal(left(), "of a link");
	assert_int_equal(unlink(opt_ml.failure), 0);
	assert_int_equal(mkdir(opt_ml.failure, 0755), 0);
	assert_int_equal(child(body_good), 0);
	assert_true(directory_exists(opt_ml.failure));
}

/* An unchangeable directory: nothing can be removed from it nor made in it. */
static void body_unremovable(void)
{
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
		mount(opt_ml.output, opt_ml.output, NULL, MS_BIND, NULL) != 0 || mount(NULL, opt_ml.output, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) != 0)
		_exit(77);
	check(failure_open(opt_ml.failure) == ST_DISK, 97);
	failure_write(status_message());
}

static void earlier_text_cannot_be_removed(void **unused)
{
	(void)unused;
	assert_int_equal(file_write(opt_ml.failure, "earlier", 7), ST_OK);
	int status = child(body_unremovable);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip(); /* mounting needs root */
	assert_int_equal(status, 0);
	assert_non_null(strstr(said, "left by an earlier run, cannot be removed: Read-only file system"));
	assert_string_equal(left(), "earlier");
}

/* A disk of 64 KB that only this child sees, full to the last byte. */
static void body_full(void)
{
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("none", opt_ml.output, "tmpfs", 0, "size=64k") != 0)
		_exit(77);
	open_it();
	char path[256], block[4096] = {1};
	snprintf(path, sizeof path, "%s/filler", opt_ml.output);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	while (write(fd, block, sizeof block) > 0)
		;
	if (errno != ENOSPC || write(fd, "x", 1) == 1)
		_exit(98);
	failure_write("model.safetensors: writing failed: No space left on device");
	if (left() == NULL || strcmp(left(), "model.safetensors: writing failed: No space left on device") != 0)
		_exit(96);
}

static void full_disk(void **unused)
{
	(void)unused;
	int status = child(body_full);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip(); /* mounting needs root */
	assert_int_equal(status, 0);
	assert_string_equal(said, "error: model.safetensors: writing failed: No space left on device\n");
}

static void body_no_space_at_start(void)
{
	if (stop_install() != ST_OK)
		_exit(99);
	limit_files();
	if (failure_open(opt_ml.failure) != ST_DISK)
		_exit(97);
	failure_write(status_message());
}

static void no_space_at_start(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_no_space_at_start), 0);
	assert_non_null(strstr(said, "error: "));
	assert_non_null(strstr(said, ".failure-reserve"));
	assert_non_null(strstr(said, "could not be written"));
	assert_null(left());
	nothing_else_left();
}

static void body_new_directory(void)
{
	char path[128];
	snprintf(path, sizeof path, "%s/new/output/failure", base);
	if (failure_open(path) != ST_OK)
		_exit(97);
	failure_write("first");
	uint8_t *bytes;
	size_t count;
	if (file_read(path, 100, &bytes, &count) != ST_OK || strcmp((char *)bytes, "first") != 0)
		_exit(96);
}

static void new_directory(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_new_directory), 0);
}

static void body_no_directory(void)
{
	char path[128];
	snprintf(path, sizeof path, "%s/file/failure", base);
	if (failure_open(path) != ST_DISK)
		_exit(97);
	failure_write(status_message());
}

static void no_directory(void **unused)
{
	(void)unused;
	char path[128];
	snprintf(path, sizeof path, "%s/file", base);
	assert_int_equal(file_write(path, "x", 1), ST_OK); /* where a directory should be */
	assert_int_equal(child(body_no_directory), 0);
	assert_non_null(strstr(said, "error: "));
	assert_non_null(strstr(said, "/file: making the directory failed: Not a directory"));
	assert_non_null(strstr(said, "could not be written"));
}

static void body_unopened(void)
{
	failure_write("");
	failure_close();
}

static void without_opening(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_unopened), 0);
	assert_string_equal(said, "error: the run failed without a sentence\n");
	char path[5000];
	memset(path, 'x', sizeof path);
	path[sizeof path - 1] = '\0';
	assert_int_equal(failure_open(path), ST_SETTINGS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(good_run_leaves_nothing),
		TEST(sentence_arrives),
		TEST(long_text_is_cut),
		TEST(first_reason_stays),
		TEST(earlier_run_is_forgotten),
		TEST(foreign_things_stay),
		TEST(earlier_text_cannot_be_removed),
		TEST(full_disk),
		TEST(no_space_at_start),
		TEST(new_directory),
		TEST(no_directory),
		TEST(without_opening),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
