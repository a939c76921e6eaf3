/* devices.c: see devices.h. */
#include "core/backend/devices.h"

#include "core/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child tells, in one piece. */
struct answer {
	enum status status;
	char sentence[STATUS_MESSAGE_BYTES_MAX];
	struct device_list list;
};

enum { LEAVE_US = 1000000 }; /* how long a killed child may take; one that hangs in the driver takes forever */

bool devices_possible(void)
{
	static const char *const files[] = {"/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"};
	const char *named = getenv("SMELT_CUDA_LIBRARY");
	bool possible = named != NULL && named[0] != '\0';
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		possible |= access(files[i], F_OK) == 0;
	return possible;
}

/* --- in the child ---------------------------------------------------------------------------------------------------- */

static void child_run(pid_t parent, int fd) __attribute__((noreturn));
static void child_run(pid_t parent, int fd)
{
	/* Its crash is the parent's to tell, and what asks the parent to stop ends it. */
	static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM, SIGINT};
	static struct answer answer;
	const struct plugin *plugin;
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		signal(numbers[i], SIG_DFL);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
		_exit(1);
	answer.status = plugin_open(&plugin);
	if (answer.status == ST_OK)
		answer.status = plugin->probe(&answer.list);
	if (answer.status != ST_OK)
		snprintf(answer.sentence, sizeof answer.sentence, "%s", status_message());
	const char *bytes = (const char *)&answer;
	for (size_t done = 0; done < sizeof answer;) {
		ssize_t n = write(fd, bytes + done, sizeof answer - done);
		if (n < 0 && errno != EINTR)
			_exit(1);
		done += n > 0 ? (size_t)n : 0;
	}
	_exit(0); /* not exit: what is to be done at the end is the parent's */
}

/* --- in the parent --------------------------------------------------------------------------------------------------- */

/* Reads until the answer is whole, the pipe ends, or it takes too long. *count: bytes read. */
static enum status answer_read(int fd, int64_t timeout_us, bool (*stopped)(void), struct answer *answer, size_t *count)
{
	int64_t until_us = clock_us() + timeout_us;
	for (*count = 0; *count < sizeof *answer;) {
		int64_t left_us = until_us - clock_us();
		if (stopped != NULL && stopped())
			return FAIL(ST_STOPPED, "stopped on request");
		if (left_us <= 0)
			return FAIL(ST_DEVICE, "the GPU driver does not answer: asked for its devices, it was silent for %.1f s", (double)timeout_us / 1e6);
		struct pollfd polled = {.fd = fd, .events = POLLIN};
		/* In short steps: a signal may come between the question above and the wait. */
		if (poll(&polled, 1, left_us < 100000 ? (int)(left_us / 1000) + 1 : 100) <= 0)
			continue;
		ssize_t n = read(fd, (char *)answer + *count, sizeof *answer - *count);
		if (n == 0)
			break;
		if (n < 0 && errno != EINTR)
			return FAIL(ST_INTERNAL, "the answer about devices cannot be read: %s", strerror(errno));
		*count += n > 0 ? (size_t)n : 0;
	}
	return ST_OK;
}

/* Ends the child if it still runs. *ended: how it ended, when it did. */
static bool child_end(pid_t pid, bool killed, int *ended)
{
	int64_t until_us = clock_us() + LEAVE_US;
	if (killed)
		kill(pid, SIGKILL);
	for (;;) {
		pid_t found = waitpid(pid, ended, WNOHANG);
		if (found == pid)
			return true;
		if (found < 0 && errno != EINTR)
			return false;
		if (clock_us() > until_us && killed)
			return false;
		if (clock_us() > until_us) {
			kill(pid, SIGKILL);
			killed = true;
			until_us = clock_us() + LEAVE_US;
		}
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
}

static enum status answer_judge(const struct answer *answer, size_t count, bool ended, int how, struct device_list *list)
{
	if (count < sizeof *answer && ended && WIFSIGNALED(how))
		return FAIL(ST_DEVICE, "the GPU driver or a library of it crashed when it was asked for its devices: signal %d (%s)", WTERMSIG(how),
			strsignal(WTERMSIG(how)));
	if (count < sizeof *answer)
		return FAIL(ST_DEVICE, "the GPU driver or a library of it ended the process that asked for its devices");
	if (answer->status != ST_OK)
		return FAIL(answer->status, "%s", answer->sentence);
	*list = answer->list;
	return ST_OK;
}

enum status devices_find(int64_t timeout_us, bool (*stopped)(void), struct device_list *list)
{
	int ends[2], how = 0;
	struct answer *answer = calloc(1, sizeof *answer);
	if (answer == NULL)
		return FAIL(ST_MEMORY, "no memory for a list of devices");
	if (pipe(ends) != 0) {
		free(answer);
		return FAIL(ST_MEMORY, "no pipe to ask for devices: %s", strerror(errno));
	}
	/* What the driver starts (it may start helpers) shall not hold the pipe open. */
	for (int i = 0; i < 2; i++)
		fcntl(ends[i], F_SETFD, FD_CLOEXEC);
	signal(SIGCHLD, SIG_DFL); /* ignored, nobody could be waited for */
	fflush(NULL);
	pid_t parent = getpid(), pid = fork();
	int error = errno;
	if (pid == 0) {
		close(ends[0]);
		child_run(parent, ends[1]);
	}
	close(ends[1]);
	size_t count = 0;
	enum status status = pid > 0 ? answer_read(ends[0], timeout_us, stopped, answer, &count)
	                             : FAIL(ST_MEMORY, "no process to ask for devices: %s", strerror(error));
	if (pid > 0) {
		bool ended = child_end(pid, status != ST_OK || count == sizeof *answer, &how);
		if (status == ST_OK)
			status = answer_judge(answer, count, ended, how, list);
	}
	close(ends[0]);
	free(answer);
	return status;
}
