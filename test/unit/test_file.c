/* Goal: a file that we write is there whole or not at all, every failure is a sentence of the right kind, and reading is bounded.
 * Method: a temporary directory; full disks and refused writes by /dev/full and a file-size limit. */
#include "core/base/file.h"

#include "test/unit/scratch.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

static void read_back(const char *name, const void *bytes, size_t count)
{
	uint8_t *found = NULL;
	size_t found_count = 0;
	OK(file_read(scratch_path(name), (size_t)1 << 30, &found, &found_count));
	assert_int_equal(found_count, count);
	assert_memory_equal(found, bytes, count);
	assert_int_equal(found[found_count], 0);
	free(found);
}

static void reads_whole_files(void **unused)
{
	(void)unused;
	static uint8_t bytes[200001];
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	static const size_t counts[] = {0, 1, 65534, 65535, 65536, 65537, sizeof bytes};
	for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
		OK(file_write(scratch_path("f"), bytes, counts[i]));
		read_back("f", bytes, counts[i]);
	}
}

static void reading_is_bounded(void **unused)
{
	(void)unused;
	uint8_t *bytes = (uint8_t *)scratch;
	size_t count = 77;
	scratch_write("f", "12345", 5);
	FAILS(ST_DATA, "more than 4 bytes", file_read(scratch_path("f"), 4, &bytes, &count));
	FAILS(ST_DATA, "more than 0 bytes", file_read(scratch_path("f"), 0, &bytes, &count));
	FAILS(ST_DATA, "more than 1000 bytes", file_read("/dev/zero", 1000, &bytes, &count));
	FAILS(ST_DATA, "/none: cannot be opened: No such file", file_read(scratch_path("none"), 4, &bytes, &count));
	FAILS(ST_DATA, "cannot be read: Is a directory", file_read(scratch, 4, &bytes, &count));
	assert_true(bytes == (uint8_t *)scratch && count == 77); /* untouched */
	OK(file_read(scratch_path("f"), 5, &bytes, &count));
	assert_int_equal(count, 5);
	free(bytes);
}

static void *feed(void *path)
{
	int fd = open(path, O_WRONLY);
	for (int i = 0; i < 1000; i++)
		if (write(fd, "0123456789", 10) != 10)
			break;
	close(fd);
	return NULL;
}

static void reads_streams(void **unused)
{
	(void)unused;
	char path[4096];
	snprintf(path, sizeof path, "%s", scratch_path("fifo"));
	assert_int_equal(mkfifo(path, 0600), 0);
	pthread_t thread;
	uint8_t *bytes;
	size_t count;
	assert_int_equal(pthread_create(&thread, NULL, feed, path), 0);
	OK(file_read(path, 10000, &bytes, &count));
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(count, 10000);
	assert_memory_equal(bytes + 9990, "0123456789", 11);
	free(bytes);
}

/* Appends of all sizes around the buffer's, compared byte by byte; CRC and count as they should be. */
static void appends(void **unused)
{
	(void)unused;
	enum { BUFFER = 1 << 20 };
	static const size_t parts[] = {0, 1, BUFFER - 2, 1, 1, BUFFER - 1, BUFFER, BUFFER + 1, 3, 2 * BUFFER + 5, 7};
	size_t total = 0;
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		total += parts[i];
	uint8_t *bytes = malloc(total);
	for (size_t i = 0; i < total; i++)
		bytes[i] = (uint8_t)(i * 13 + i / 251);
	struct file_writer writer;
	OK(file_begin(&writer, scratch_path("f"), FILE_TEMPORARY_SUFFIX));
	size_t done = 0;
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		OK(file_append(&writer, bytes + done, parts[i]));
		done += parts[i];
		assert_int_equal(writer.bytes, done);
	}
	assert_int_equal(writer.crc, crc32(0, bytes, (uInt)total));
	assert_false(file_exists(scratch_path("f")));
	assert_true(file_exists(scratch_path("f.tmp")));
	OK(file_commit(&writer));
	assert_false(file_exists(scratch_path("f.tmp")));
	file_abandon(&writer); /* harmless */
	read_back("f", bytes, total);
	free(bytes);
}

static void modes(void **unused)
{
	(void)unused;
	struct stat about;
	mode_t before = umask(077);
	OK(file_write(scratch_path("f"), "x", 1));
	OK(directory_make(scratch_path("a/b//c/")));
	umask(before);
	assert_int_equal(stat(scratch_path("f"), &about), 0);
	assert_int_equal(about.st_mode & 07777, 0644);
	assert_int_equal(stat(scratch_path("a/b/c"), &about), 0);
	assert_int_equal(about.st_mode & 07777, 0755);
	assert_int_equal(stat(scratch_path("a"), &about), 0);
	assert_int_equal(about.st_mode & 07777, 0755);
}

static void replaces_and_abandons(void **unused)
{
	(void)unused;
	struct file_writer writer;
	scratch_write("f", "old", 3);
	scratch_write("f.sagemaker-ignore", "leftover of a crash", 19);
	OK(file_begin(&writer, scratch_path("f"), FILE_IGNORED_SUFFIX));
	OK(file_append(&writer, "new", 3));
	read_back("f", "old", 3);
	file_abandon(&writer);
	file_abandon(&writer);
	read_back("f", "old", 3);
	assert_false(file_exists(scratch_path("f.sagemaker-ignore")));
	OK(file_write(scratch_path("f"), "new", 3));
	read_back("f", "new", 3);
	/* In the current directory, without a slash. */
	char here[4096];
	assert_non_null(getcwd(here, sizeof here));
	assert_int_equal(chdir(scratch), 0);
	OK(file_write("plain", "x", 1));
	assert_int_equal(chdir(here), 0);
	read_back("plain", "x", 1);
}

static void failures_of_names(void **unused)
{
	(void)unused;
	struct file_writer writer;
	char large[5000], path[4096];
	memset(large, 'x', sizeof large - 1);
	large[sizeof large - 1] = '\0';
	FAILS(ST_SETTINGS, "path of 5003 characters", file_begin(&writer, large, FILE_TEMPORARY_SUFFIX));
	file_abandon(&writer);
	FAILS(ST_DISK, "No such file", file_begin(&writer, scratch_path("none/f"), FILE_TEMPORARY_SUFFIX));
	file_abandon(&writer);
	OK(directory_make(scratch_path("f.tmp")));
	FAILS(ST_DISK, "leftover", file_begin(&writer, scratch_path("f"), FILE_TEMPORARY_SUFFIX));
	assert_true(directory_exists(scratch_path("f.tmp")));
	/* A directory where the file should be: the rename fails, the temporary file goes. */
	OK(directory_make(scratch_path("d/x")));
	FAILS(ST_DISK, "renaming", file_write(scratch_path("d"), "x", 1));
	assert_false(file_exists(scratch_path("d.tmp")));
	FAILS(ST_SETTINGS, "characters", directory_make(""));
	FAILS(ST_SETTINGS, "characters", directory_make(large));
	scratch_write("file", "x", 1);
	FAILS(ST_DISK, "/file: making the directory failed: Not a directory", directory_make(scratch_path("file")));
	FAILS(ST_DISK, "making the directory failed: Not a directory", directory_make(scratch_path("file/below")));
	FAILS(ST_DISK, "opening the directory", directory_sync(scratch_path("none")));
	OK(directory_make("/"));
	OK(directory_sync(scratch));
	assert_false(file_exists(scratch) || directory_exists(scratch_path("file")) || file_exists(scratch_path("none")));
	OK(path_join(path, sizeof path, "/a", "b"));
	assert_string_equal(path, "/a/b");
	OK(path_join(path, sizeof path, "/a/", "b"));
	assert_string_equal(path, "/a/b");
	OK(path_join(path, 5, "/a", "b"));
	FAILS(ST_SETTINGS, "at most 3 fit", path_join(path, 4, "/a", "b"));
}

/* Under a file-size limit writing fails in the middle: nothing under the final name, no temporary file, the old content stays. */
static void full_disk(void **unused)
{
	(void)unused;
	struct rlimit before, small;
	char *bytes = calloc(1, (size_t)3 << 20);
	scratch_write("f", "old", 3);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = (rlim_t)2 << 20;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	enum status one_piece = file_write(scratch_path("f"), bytes, (size_t)3 << 20);
	/* A caller that goes on after a failed append must not get a file in place either. */
	struct file_writer writer;
	enum status begun = file_begin(&writer, scratch_path("f"), FILE_TEMPORARY_SUFFIX), appended = file_append(&writer, bytes, (size_t)3 << 20);
	enum status committed = file_commit(&writer);
	/* The failure may come as late as the flush of the commit. */
	small.rlim_cur = 2;
	setrlimit(RLIMIT_FSIZE, &small);
	enum status late = file_write(scratch_path("f"), bytes, 10);
	setrlimit(RLIMIT_FSIZE, &before);
	signal(SIGXFSZ, SIG_DFL);
	assert_int_equal(one_piece, ST_DISK);
	assert_int_equal(begun, ST_OK);
	assert_int_equal(appended, ST_DISK);
	assert_int_equal(committed, ST_DISK);
	assert_int_equal(late, ST_DISK);
	assert_non_null(strstr(status_message(), "/f: writing failed: File too large"));
	read_back("f", "old", 3);
	assert_false(file_exists(scratch_path("f.tmp")));
	free(bytes);
}

static void full_disk_has_a_hint(void **unused)
{
	(void)unused;
	struct file_writer writer;
	OK(file_begin(&writer, scratch_path("f"), FILE_TEMPORARY_SUFFIX));
	int full = open("/dev/full", O_WRONLY);
	assert_true(dup2(full, writer.fd) >= 0);
	close(full);
	OK(file_append(&writer, "x", 1)); /* still in the buffer */
	FAILS(ST_DISK, "No space left on device; enlarge the volume", file_commit(&writer));
	assert_false(file_exists(scratch_path("f")) || file_exists(scratch_path("f.tmp")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(reads_whole_files),
		SCRATCH_TEST(reading_is_bounded),
		SCRATCH_TEST(reads_streams),
		SCRATCH_TEST(appends),
		SCRATCH_TEST(modes),
		SCRATCH_TEST(replaces_and_abandons),
		SCRATCH_TEST(failures_of_names),
		SCRATCH_TEST(full_disk),
		SCRATCH_TEST(full_disk_has_a_hint),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
