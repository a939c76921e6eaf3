/* failure.c: see failure.h.
 *
 * From failure_open on, everything that a crash handler needs lies in static memory: the texts, both paths, the open file. The
 * handler calls only what POSIX lists as safe in one. */
#define _XOPEN_SOURCE 700 /* sigaltstack */
#include "train/ranks/failure.h"

#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "core/base/version.h"
#include "train/ranks/words.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESERVE_NAME ".failure-reserve"
enum { RESERVE_BYTES = 4096, PATH_BYTES = 4096, STACK_BYTES = 65536 };

#define CRASH_LIST(X) \
	X(SIGSEGV, "memory was touched that is not there") \
	X(SIGBUS, "memory or a mapped file could not be reached; the disk or /dev/shm may be full") \
	X(SIGFPE, "arithmetic fault") \
	X(SIGILL, "this processor lacks an instruction; SMELT_CPU=generic avoids the newer ones") \
	X(SIGABRT, "a check inside the program failed; the log has the line before")

static const int crash_signals[] = {
#define X(number, meaning) number,
	CRASH_LIST(X)
#undef X
};
static const char *const crash_meanings[] = {
#define X(number, meaning) "killed by " #number " (" meaning ")",
	CRASH_LIST(X)
#undef X
};
enum { CRASHES = sizeof crash_signals / sizeof crash_signals[0] };

static struct {
	int fd; /* of the reserved file; -1: none */
	int pipe; /* in a rank: to the parent, in place of the file; -1: none */
	char path[PATH_BYTES], reserve[PATH_BYTES];
	struct { /* in one piece: a pipe takes it whole */
		char mark[sizeof WORDS_CRASH_MARK - 1], text[FAILURE_BYTES_MAX + 1];
	} crash[CRASHES];
} state = {.fd = -1, .pipe = -1};

static char crash_stack[STACK_BYTES];

/* write(2) until done. Safe in a signal handler. */
static int write_whole(int fd, const char *bytes, size_t count)
{
	while (count > 0) {
		ssize_t n = write(fd, bytes, count);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		bytes += n;
		count -= (size_t)n;
	}
	return 0;
}

/* Puts the text into the reserved file and gives it its name. 0, or -1 with errno. Safe in a signal handler. */
static int publish(const char *text)
{
	struct stat about;
	if (stat(state.path, &about) == 0 && about.st_size > 0) {
		unlink(state.reserve);
		return 0; /* the first reason is the root; later ones follow from it */
	}
	size_t length = strlen(text);
	if (state.fd < 0) /* without the reserve: as well as it goes */
		state.fd = open(state.reserve, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (state.fd < 0)
		return -1;
	/* In place first, cut afterwards: the blocks that are there are used. */
	int failed = lseek(state.fd, 0, SEEK_SET) != 0 || write_whole(state.fd, text, length) != 0 || ftruncate(state.fd, (off_t)length) != 0;
	if (!failed)
		fsync(state.fd); /* if this fails, the text may yet arrive */
	if (failed || rename(state.reserve, state.path) != 0) {
		int error = errno;
		unlink(state.reserve);
		errno = error;
		return -1;
	}
	return 0;
}

static void release(void)
{
	if (state.fd >= 0)
		close(state.fd);
	state.fd = -1;
	state.path[0] = state.reserve[0] = '\0';
	for (int i = 0; i < CRASHES; i++)
		signal(crash_signals[i], SIG_DFL);
}

static void on_crash(int number)
{
	static atomic_flag taken = ATOMIC_FLAG_INIT;
	while (atomic_flag_test_and_set(&taken))
		pause(); /* another thread crashed first and is about to end us all */
	for (int i = 0; i < CRASHES; i++) {
		char *text = state.crash[i].text;
		if (crash_signals[i] != number)
			continue;
		if (number == SIGABRT && must_message()[0] != '\0') { /* MUST knows more */
			size_t length = strlen(must_message());
			memcpy(text, must_message(), length < FAILURE_BYTES_MAX ? length + 1 : FAILURE_BYTES_MAX);
		}
		if (state.pipe >= 0) { /* the parent tells it, on stderr too */
			write_whole(state.pipe, (const char *)&state.crash[i], sizeof state.crash[i].mark + strlen(text));
			break;
		}
		write_whole(STDERR_FILENO, text, strlen(text));
		write_whole(STDERR_FILENO, "\n", 1);
		publish(text);
	}
	signal(number, SIG_DFL);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(number);
	_exit(128 + number); /* process 1 survives raise: leave with the shell's number for this death */
}

static enum status crash_install(void)
{
	for (int i = 0; i < CRASHES; i++) {
		char sentence[FAILURE_BYTES_MAX];
		snprintf(sentence, sizeof sentence,
			"%s: a fault of smelt %s (%s), not of your settings or data; please report it with the log's last lines",
			crash_meanings[i], smelt_version(), smelt_commit());
		memcpy(state.crash[i].mark, WORDS_CRASH_MARK, sizeof state.crash[i].mark);
		text_printable(sentence, state.crash[i].text, sizeof state.crash[i].text);
	}
	/* A stack of its own, so that a stack overflow of the main thread can be told as well. */
	stack_t stack = {.ss_sp = crash_stack, .ss_size = sizeof crash_stack};
	if (sigaltstack(&stack, NULL) != 0)
		return FAIL(ST_INTERNAL, "no alternate signal stack: %s", strerror(errno));
	struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};
	sigemptyset(&action.sa_mask);
	/* A crash within the handler shall kill at once: so none of these may enter it again on the same thread. */
	for (int i = 0; i < CRASHES; i++)
		sigaddset(&action.sa_mask, crash_signals[i]);
	for (int i = 0; i < CRASHES; i++)
		if (sigaction(crash_signals[i], &action, NULL) != 0)
			return FAIL(ST_INTERNAL, "no handler for signal %d: %s", crash_signals[i], strerror(errno));
	return ST_OK;
}

static enum status reserve(void)
{
	static const char blank[RESERVE_BYTES];
	int fd = open(state.reserve, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return FAIL(ST_DISK, "%s: cannot be made: %s; the output directory must be writable", state.reserve, strerror(errno));
	if (fchmod(fd, 0644) != 0 || write_whole(fd, blank, sizeof blank) != 0 || fsync(fd) != 0) {
		enum status status = FAIL(ST_DISK, "%s: writing failed: %s", state.reserve, strerror(errno));
		close(fd);
		unlink(state.reserve);
		return status;
	}
	state.fd = fd;
	return ST_OK;
}

/* What an earlier run told is not true of this one. Anything that none of ours can have written stays. */
static enum status forget(const char *path)
{
	struct stat about;
	if (lstat(path, &about) != 0 || !S_ISREG(about.st_mode) || about.st_uid != geteuid() || about.st_size > FAILURE_BYTES_MAX)
		return ST_OK;
	if (unlink(path) != 0)
		return FAIL(ST_DISK, "%s: left by an earlier run, cannot be removed: %s; the output directory must be writable", path, strerror(errno));
	return ST_OK;
}

enum status failure_open(const char *path)
{
	const char *slash = strrchr(path, '/');
	int directory = slash != NULL ? (int)(slash - path) + 1 : 0;
	failure_close();
	if (strlen(path) + sizeof RESERVE_NAME >= PATH_BYTES)
		return FAIL(ST_SETTINGS, "path of the failure file has %zu characters, at most %zu fit", strlen(path), PATH_BYTES - sizeof RESERVE_NAME - 1);
	strcpy(state.path, path);
	snprintf(state.reserve, sizeof state.reserve, "%.*s%s", directory, path, RESERVE_NAME);
	TRY(crash_install());
	if (slash != NULL && slash != path) {
		char parent[PATH_BYTES];
		snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
		TRY(directory_make(parent));
	}
	TRY(forget(path));
	return reserve();
}

enum status failure_to_pipe(int fd)
{
	if (state.fd >= 0)
		close(state.fd);
	state.fd = -1;
	state.path[0] = state.reserve[0] = '\0';
	state.pipe = fd;
	return crash_install();
}

void failure_write(const char *sentence)
{
	char text[FAILURE_BYTES_MAX + 1];
	text_printable(sentence[0] != '\0' ? sentence : "the run failed without a sentence", text, sizeof text);
	log_error("%s", text);
	if (state.path[0] != '\0' && publish(text) != 0)
		log_error("%s: could not be written: %s", state.path, strerror(errno));
	release();
}

void failure_close(void)
{
	if (state.path[0] == '\0')
		return;
	unlink(state.reserve);
	release();
}
