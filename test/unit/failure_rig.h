/* failure_rig.h: what the tests of a process's end share: a temporary /opt/ml, children that fail, crash or are signalled, and what they left
 * in output/ and on stderr. */
#pragma once

#include "train/ranks/failure.h"

#include "core/base/text.h"
#include "test/unit/base_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* What counts as a crash. */
static const struct {
	int number;
	const char *name;
} crash_kinds[] = {{SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGFPE, "SIGFPE"}, {SIGILL, "SIGILL"}, {SIGABRT, "SIGABRT"}};
enum { CRASH_KINDS = sizeof crash_kinds / sizeof crash_kinds[0] };

static char base[64];
static struct opt_ml opt_ml;
static char said[8192]; /* the last child's stderr */

static inline int setup(void **unused)
{
	(void)unused;
	base_dir_make(base, &opt_ml);
	assert_int_equal(opt_ml_make(&opt_ml), ST_OK);
	return 0;
}

static inline int teardown(void **unused)
{
	(void)unused;
	base_dir_remove(base);
	return 0;
}

/* Runs `body` in a child; returns wait's status. */
static inline int child(void (*body)(void))
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
		for (int i = 0; i < CRASH_KINDS; i++)
			signal(crash_kinds[i].number, SIG_DFL);
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
static inline const char *left(void)
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

static inline void nothing_else_left(void)
{
	char command[200];
	snprintf(command, sizeof command, "test \"$(ls -A '%s' | grep -v '^failure$')\" = data", opt_ml.output);
	assert_int_equal(system(command), 0);
}

static inline void open_it(void)
{
	if (failure_open(opt_ml.failure) != ST_OK)
		_exit(99);
}

/* From here on nothing can be written. */
static inline void limit_files(void)
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

/* In a child: ends it with this code. */
static inline void check(bool condition, int code)
{
	if (!condition)
		_exit(code);
}

/* One test in a directory of its own. */
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
