/* Goal: a run that fails always says why, in a form that SageMaker shows, and a run that ends well leaves nothing; being asked to stop
 * is a flag and nothing else. Method: children that fail, crash or are signalled; the parent looks at what they left. A disk is full on a
 * small tmpfs (as root) or by a file-size limit. Conformance tests 55, 56, 60, 64, 65. */
#define _GNU_SOURCE /* unshare */
#include "train/ranks/failure.h"
#include "train/ranks/stop.h"
#include "train/ranks/words.h"

#include "core/base/text.h"
#include "test/unit/base_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static char base[64];
static struct opt_ml opt_ml;
static char said[8192]; /* the last child's stderr */

static int setup(void **unused)
{
	(void)unused;
	base_dir_make(base, &opt_ml);
	assert_int_equal(opt_ml_make(&opt_ml), ST_OK);
	return 0;
}

static int teardown(void **unused)
{
	(void)unused;
	base_dir_remove(base);
	return 0;
}

/* Runs `body` in a child; returns wait's status. */
static int child(void (*body)(void))
{
	int fds[2], status;
	assert_int_equal(pipe(fds), 0);
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit none = {0, 0};
		setrlimit(RLIMIT_CORE, &none);
		/* cmocka has handlers of its own. */
		const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
		for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
			signal(numbers[i], SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		alarm(60);
		body();
		_exit(0);
	}
	close(fds[1]);
	size_t used = 0;
	for (ssize_t n; used < sizeof said - 1 && (n = read(fds[0], said + used, sizeof said - 1 - used)) > 0;)
		used += (size_t)n;
	said[used] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* The failure file's text, or NULL. */
static const char *left(void)
{
	static char text[8192];
	uint8_t *bytes;
	size_t count;
	if (!file_exists(opt_ml.failure))
		return NULL;
	assert_int_equal(file_read(opt_ml.failure, sizeof text - 1, &bytes, &count), ST_OK);
	assert_true(count <= FAILURE_BYTES_MAX);
	assert_true(text_is_utf8(bytes, count));
	for (size_t i = 0; i < count; i++)
		assert_true(bytes[i] >= 0x20 && bytes[i] != 0x7F);
	memcpy(text, bytes, count + 1);
	free(bytes);
	return text;
}

static void nothing_else_left(void)
{
	char command[200];
	snprintf(command, sizeof command, "test \"$(ls -A '%s' | grep -v '^failure$')\" = data", opt_ml.output);
	assert_int_equal(system(command), 0);
}

static void open_it(void)
{
	if (failure_open(opt_ml.failure) != ST_OK)
		_exit(99);
}

/* --- the file --------------------------------------------------------------------------------------------------------- */

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

static void first_reason_stays(void **unused)
{
	(void)unused;
	assert_int_equal(file_write(opt_ml.failure, "root cause", 10), ST_OK);
	assert_int_equal(child(body_fail), 0);
	assert_string_equal(left(), "root cause");
	assert_non_null(strstr(said, "must be a number"));
	nothing_else_left();
	assert_int_equal(file_write(opt_ml.failure, "", 0), ST_OK); /* empty is no reason */
	assert_int_equal(child(body_fail), 0);
	assert_non_null(strstr(left(), "must be a number"));
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

/* From here on nothing can be written. */
static void limit_files(void)
{
	struct rlimit none = {0, 0};
	setrlimit(RLIMIT_FSIZE, &none);
	char path[256];
	snprintf(path, sizeof path, "%s/x", base);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	if (fd < 0 || write(fd, "x", 1) != -1 || errno != EFBIG)
		_exit(98);
	close(fd);
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

/* --- crashes ---------------------------------------------------------------------------------------------------------- */

static int crash_number;

static void body_crash(void)
{
	open_it();
	raise(crash_number);
}

static void crashes(void **unused)
{
	(void)unused;
	static const struct {
		int number;
		const char *name;
	} all[] = {{SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGFPE, "SIGFPE"}, {SIGILL, "SIGILL"}, {SIGABRT, "SIGABRT"}};
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		crash_number = all[i].number;
		int status = child(body_crash);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == all[i].number);
		char start[64];
		snprintf(start, sizeof start, "killed by %s (", all[i].name);
		assert_non_null(left());
		assert_int_equal(strncmp(left(), start, strlen(start)), 0);
		assert_non_null(strstr(said, start));
		nothing_else_left();
		assert_int_equal(unlink(opt_ml.failure), 0);
	}
}

static void body_must(void)
{
	open_it();
	int tensors = 3;
	MUST(tensors == 4);
}

static void broken_promise(void **unused)
{
	(void)unused;
	int status = child(body_must);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_non_null(left());
	assert_int_equal(strncmp(left(), "test/unit/test_failure.c:", 25), 0);
	assert_non_null(strstr(left(), "broken promise: tensors == 4"));
}

static int deeper(volatile char *above)
{
	volatile char block[4096];
	block[0] = above[0];
	return block[0] == 0 ? deeper(block) + 1 : 0;
}

static void body_overflow(void)
{
	open_it();
	volatile char top[1] = {0};
	_exit(deeper(top) == 1);
}

static void stack_overflow(void **unused)
{
	(void)unused;
	if (SANITIZED)
		skip(); /* the sanitizer keeps stacks of its own */
	int status = child(body_overflow);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	assert_non_null(left());
	assert_int_equal(strncmp(left(), "killed by SIGSEGV", 17), 0);
}

static void *thread_crash(void *unused)
{
	raise(SIGSEGV);
	return unused;
}

static void body_threads(void)
{
	pthread_t threads[4];
	open_it();
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, thread_crash, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

static void crashes_together(void **unused)
{
	(void)unused;
	for (int i = 0; i < 20; i++) {
		int status = child(body_threads);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
		assert_non_null(left());
		assert_int_equal(strncmp(left(), "killed by SIGSEGV (memory", 25), 0);
		assert_null(strstr(said + 1, "killed")); /* told once */
		assert_int_equal(unlink(opt_ml.failure), 0);
	}
}

static void body_closed_crash(void)
{
	open_it();
	failure_close();
	raise(SIGSEGV);
}

static void crash_after_the_end(void **unused)
{
	(void)unused;
	int status = child(body_closed_crash);
	assert_true(WIFSIGNALED(status));
	assert_null(left());
}

/* --- a rank, whose parent writes the file --------------------------------------------------------------------------------- */

static void (*rank_body)(int fd);

static void check(bool condition, int code)
{
	if (!condition)
		_exit(code);
}

/* A parent with its failure file open, and a rank of it that runs rank_body; the parent tells what the rank said. */
static void body_rank(void)
{
	int fds[2], status;
	open_it();
	check(pipe(fds) == 0, 90);
	pid_t pid = fork();
	if (pid == 0) {
		close(fds[0]);
		rank_body(fds[1]);
		_exit(0);
	}
	close(fds[1]);
	struct words words = {.count = 0};
	check(!words_read(&words, fds[0]), 91);
	check(waitpid(pid, &status, 0) == pid, 92);
	check(WIFSIGNALED(status) == words_crashed(&words), 93);
	if (!words_said(&words))
		failure_write("not a word");
	else {
		char text[2 * FAILURE_BYTES_MAX];
		snprintf(text, sizeof text, "%s%s: %s", words_secondary(&words) ? "secondary " : "", status_name(words_status(&words)), words_sentence(&words));
		failure_write(text);
	}
}

static void rank_crash(int fd)
{
	check(failure_to_pipe(fd) == ST_OK, 80);
	raise(crash_number);
}

static void rank_must(int fd)
{
	check(failure_to_pipe(fd) == ST_OK, 80);
	int tensors = 3;
	MUST(tensors == 4);
}

static void rank_fail(int fd)
{
	words_write(fd, ST_DATA, false, "train.bin is short");
}

static void rank_follow(int fd)
{
	words_write(fd, ST_DEVICE, true, "");
}

static void rank_long(int fd)
{
	char text[5000];
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	words_write(fd, ST_DISK, false, text);
}

static void rank_mute(int fd)
{
	check(write(fd, "E", 1) == 1, 81);
}

static void rank_strange(int fd)
{
	check(write(fd, "E\xFFwhat", 6) == 6, 81);
}

static const char *rank_left(void (*body)(int fd))
{
	rank_body = body;
	if (file_exists(opt_ml.failure))
		assert_int_equal(unlink(opt_ml.failure), 0);
	assert_int_equal(child(body_rank), 0);
	nothing_else_left();
	assert_non_null(left());
	return left();
}

static void crash_of_a_rank(void **unused)
{
	(void)unused;
	const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	const char *const names[] = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"};
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
		crash_number = numbers[i];
		char start[64];
		snprintf(start, sizeof start, "ST_INTERNAL: killed by %s (", names[i]);
		assert_int_equal(strncmp(rank_left(rank_crash), start, strlen(start)), 0);
	}
	const char *promise = "ST_INTERNAL: test/unit/test_failure.c:";
	assert_int_equal(strncmp(rank_left(rank_must), promise, strlen(promise)), 0);
}

static void last_words(void **unused)
{
	(void)unused;
	assert_string_equal(rank_left(rank_fail), "ST_DATA: train.bin is short");
	assert_string_equal(rank_left(rank_follow), "secondary ST_DEVICE: ");
	assert_int_equal(strncmp(rank_left(rank_long), "ST_DISK: xxxx", 13), 0);
	assert_int_equal(strlen(left()), FAILURE_BYTES_MAX);
	assert_string_equal(rank_left(rank_mute), "not a word");
	assert_string_equal(rank_left(rank_strange), "ST_INTERNAL: what");
}

/* --- being asked to stop ---------------------------------------------------------------------------------------------- */

static void body_stop(void)
{
	sigset_t set;
	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL); /* as a careless parent would start us */
	check(stop_install() == ST_OK, 1);
	check(!stop_requested() && !stop_now(), 2);
	raise(SIGTERM);
	check(stop_requested() && !stop_now(), 3);
	raise(SIGINT);
	check(stop_requested() && stop_now(), 4);
	for (int i = 0; i < 1000; i++)
		raise(SIGTERM);
	check(stop_now(), 5);
}

static void stop_flags(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_stop), 0);
}

static void body_ignored(void)
{
	int fds[2];
	check(stop_install() == ST_OK, 1);
	raise(SIGHUP);
	check(pipe(fds) == 0, 2);
	close(fds[0]);
	check(write(fds[1], "x", 1) == -1, 3);
	limit_files();
	check(!stop_requested(), 4);
}

static void other_signals_do_nothing(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_ignored), 0);
}

static void body_wakes(void)
{
	int fds[2];
	char byte;
	check(stop_install() == ST_OK && pipe(fds) == 0, 1);
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		while (getppid() == parent && kill(parent, SIGTERM) == 0) /* until it has gone: so no signal can come too early */
			nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
		_exit(0);
	}
	check(read(fds[0], &byte, 1) == -1, 2); /* would wait for ever if it were restarted */
	check(stop_requested(), 3);
}

static void waiting_calls_wake(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_wakes), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(good_run_leaves_nothing),
		T(sentence_arrives),
		T(crash_of_a_rank),
		T(last_words),
		T(long_text_is_cut),
		T(first_reason_stays),
		T(full_disk),
		T(no_space_at_start),
		T(new_directory),
		T(no_directory),
		T(without_opening),
		T(crashes),
		T(broken_promise),
		T(stack_overflow),
		T(crashes_together),
		T(crash_after_the_end),
		T(stop_flags),
		T(other_signals_do_nothing),
		T(waiting_calls_wake),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
