/* fault.c: libc calls that fail on order, preloaded into the program under test.
 *
 * SMELT_FAULT holds orders "call:pattern:n:what", separated by ';':
 *   call     write, fsync, close, rename, open, stat, read, mmap, unlink, mkdir, truncate (several are joined by '|')
 *   pattern  fnmatch pattern of the file's path (of the new name for rename); '*' also crosses '/'
 *   n        "3": the third such call; "3+": that one and all after it
 *   what     ENOSPC, EIO, ENOENT, ENODEV, EDQUOT: the call fails with that; SHORT: a write takes one byte only;
 *            SLOW: sleeps 50 ms, then works; SEGV, KILL, TERM: that signal comes just before the call
 * Each order that fires adds its text to the file SMELT_FAULT_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { ORDERS_MAX = 8, FIELD_BYTES = 256 };

enum what { NOTHING, ERRNO, SHORT };

struct order {
	char calls[FIELD_BYTES], pattern[FIELD_BYTES], what[FIELD_BYTES];
	long n;
	int onwards;
	atomic_long seen;
};

static struct order *orders; /* ORDERS_MAX, shared by the processes of a job: the n-th call is the n-th of all of them */
static int orders_count;

static const struct {
	const char *name;
	int number;
} errors[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO}, {"ENOENT", ENOENT}, {"ENODEV", ENODEV}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS}};
static const struct {
	const char *name;
	int number;
	bool all; /* to all processes of the job, as the platform's do; else to the one that called */
} signals[] = {{"SEGV", SIGSEGV, false}, {"KILL", SIGKILL, true}, {"TERM", SIGTERM, true}};

__attribute__((constructor)) static void orders_read(void)
{
	const char *at = getenv("SMELT_FAULT");
	orders = (void *)syscall(SYS_mmap, NULL, ORDERS_MAX * sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (orders == MAP_FAILED)
		_exit(99);
	while (at && *at && orders_count < ORDERS_MAX) {
		struct order *order = &orders[orders_count];
		char number[FIELD_BYTES] = "";
		if (sscanf(at, "%255[^:]:%255[^:]:%255[^:]:%255[^;]", order->calls, order->pattern, number, order->what) != 4) {
			static const char text[] = "fault.c: bad SMELT_FAULT\n";
			syscall(SYS_write, 2, text, sizeof text - 1);
			_exit(99);
		}
		order->n = strtol(number, NULL, 10);
		order->onwards = strchr(number, '+') != NULL;
		orders_count++;
		at = strchr(at, ';');
		if (at)
			at++;
	}
}

static void fired(const struct order *order, const char *path)
{
	const char *log = getenv("SMELT_FAULT_LOG");
	if (!log)
		return;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
	char line[PATH_MAX + 3 * FIELD_BYTES];
	int length = snprintf(line, sizeof line, "%s %s %s\n", order->calls, order->what, path);
	syscall(SYS_write, fd, line, (size_t)length);
	syscall(SYS_close, fd);
}

static int call_named(const char *calls, const char *call)
{
	size_t length = strlen(call);
	for (const char *at = calls; (at = strstr(at, call)); at += length)
		if ((at == calls || at[-1] == '|') && (at[length] == 0 || at[length] == '|'))
			return 1;
	return 0;
}

/* Counts the call and does what an order says; ERRNO: fail with errno as set. */
static enum what consult(const char *call, const char *path)
{
	for (int i = 0; i < orders_count; i++) {
		struct order *order = &orders[i];
		if (!call_named(order->calls, call) || fnmatch(order->pattern, path, 0) != 0)
			continue;
		long seen = atomic_fetch_add(&order->seen, 1) + 1;
		if (seen != order->n && !(order->onwards && seen > order->n))
			continue;
		fired(order, path);
		for (size_t k = 0; k < sizeof signals / sizeof *signals; k++)
			if (strcmp(order->what, signals[k].name) == 0)
				syscall(SYS_kill, signals[k].all ? 0 : getpid(), signals[k].number);
		if (strcmp(order->what, "SLOW") == 0) {
			struct timespec pause = {0, 50 * 1000 * 1000};
			nanosleep(&pause, NULL);
		}
		if (strcmp(order->what, "SHORT") == 0)
			return SHORT;
		for (size_t k = 0; k < sizeof errors / sizeof *errors; k++)
			if (strcmp(order->what, errors[k].name) == 0) {
				errno = errors[k].number;
				return ERRNO;
			}
	}
	return NOTHING;
}

static enum what consult_fd(const char *call, int fd)
{
	if (orders_count == 0)
		return NOTHING;
	char link[64], path[PATH_MAX];
	int before = errno;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	errno = before;
	if (length < 0)
		return NOTHING;
	path[length] = 0;
	return consult(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define ON_FD(type, failed, call, name, parameters, arguments) \
	type name parameters \
	{ \
		if (consult_fd(call, fd) == ERRNO) \
			return failed; \
		return REAL(name) arguments; \
	}
#define ON_PATH(type, failed, call, name, parameters, arguments) \
	type name parameters \
	{ \
		if (consult(call, path) == ERRNO) \
			return failed; \
		return REAL(name) arguments; \
	}

ssize_t write(int fd, const void *bytes, size_t count)
{
	enum what what = consult_fd("write", fd);
	if (what == ERRNO)
		return -1;
	return REAL(write)(fd, bytes, what == SHORT && count > 1 ? 1 : count);
}
ON_FD(ssize_t, -1, "write", writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
ON_FD(ssize_t, -1, "write", pwrite, (int fd, const void *bytes, size_t count, off_t at), (fd, bytes, count, at))
ON_FD(ssize_t, -1, "read", read, (int fd, void *bytes, size_t count), (fd, bytes, count))
ON_FD(int, -1, "fsync", fsync, (int fd), (fd))
ON_FD(int, -1, "fsync", fdatasync, (int fd), (fd))
ON_FD(int, -1, "truncate", ftruncate, (int fd, off_t length), (fd, length))
ON_FD(void *, MAP_FAILED, "mmap", mmap, (void *address, size_t length, int protection, int flags, int fd, off_t at),
	(address, length, protection, flags, fd, at))
ON_PATH(int, -1, "stat", stat, (const char *path, struct stat *info), (path, info))
ON_PATH(int, -1, "stat", lstat, (const char *path, struct stat *info), (path, info))
ON_PATH(int, -1, "stat", fstatat, (int fd, const char *path, struct stat *info, int flags), (fd, path, info, flags))
ON_PATH(int, -1, "unlink", unlink, (const char *path), (path))
ON_PATH(int, -1, "mkdir", mkdir, (const char *path, mode_t mode), (path, mode))

/* A close that fails has closed all the same: that is what Linux does. */
int close(int fd)
{
	enum what what = consult_fd("close", fd);
	int error = errno, result = REAL(close)(fd);
	if (what != ERRNO)
		return result;
	errno = error;
	return -1;
}

int rename(const char *from, const char *path)
{
	return consult("rename", path) == ERRNO ? -1 : REAL(rename)(from, path);
}
int renameat(int from_fd, const char *from, int fd, const char *path)
{
	return consult("rename", path) == ERRNO ? -1 : REAL(renameat)(from_fd, from, fd, path);
}

static mode_t mode_of(int flags, va_list list)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
}
int open(const char *path, int flags, ...)
{
	va_list list;
	va_start(list, flags);
	mode_t mode = mode_of(flags, list);
	va_end(list);
	return consult("open", path) == ERRNO ? -1 : REAL(open)(path, flags, mode);
}
int openat(int fd, const char *path, int flags, ...)
{
	va_list list;
	va_start(list, flags);
	mode_t mode = mode_of(flags, list);
	va_end(list);
	return consult("open", path) == ERRNO ? -1 : REAL(openat)(fd, path, flags, mode);
}
FILE *fopen(const char *path, const char *mode)
{
	return consult("open", path) == ERRNO ? NULL : REAL(fopen)(path, mode);
}
