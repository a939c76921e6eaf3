/* resolve.c: see resolve.h. */
#define _GNU_SOURCE /* pipe2 */
#include "core/comm/resolve.h"

#include "core/base/clock.h"
#include "core/comm/tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

_Static_assert(sizeof(struct resolved) <= 4096, "the answer leaves in one write to a pipe");

static void look_up_with(const char *name, int port, int flags, struct resolved *resolved)
{
	char service[16];
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV}, *list = NULL;
	snprintf(service, sizeof service, "%d", port);
	memset(resolved, 0, sizeof *resolved);
	resolved->error = getaddrinfo(name, service, &hints, &list);
	for (const struct addrinfo *entry = resolved->error == 0 ? list : NULL; entry != NULL && resolved->count < RESOLVED_MAX; entry = entry->ai_next)
		if (entry->ai_addrlen <= sizeof resolved->addresses[0])
			memcpy(&resolved->addresses[resolved->count++], entry->ai_addr, entry->ai_addrlen);
	if (resolved->error == 0) {
		freeaddrinfo(list);
		resolved->error = resolved->count > 0 ? 0 : EAI_NONAME;
	}
}

void resolve_by_system(const char *name, int port, struct resolved *resolved)
{
	look_up_with(name, port, 0, resolved);
}

const char *resolve_error(const struct resolved *resolved)
{
	return gai_strerror(resolved->error);
}

/* In the child. */
static _Noreturn void look_up_and_tell(const char *name, int port, resolve_look_up *look_up, pid_t parent, int fd)
{
	struct resolved resolved;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
		_exit(1);
	look_up(name, port, &resolved);
	_exit(write(fd, &resolved, sizeof resolved) == (ssize_t)sizeof resolved ? 0 : 1);
}

static enum status await_answer(const char *name, int fd, int64_t end_us, bool (*stopped)(void), struct resolved *resolved)
{
	struct pollfd answer = {.fd = fd, .events = POLLIN};
	for (;;) {
		int ready = poll(&answer, 1, WAIT_SLICE_MS);
		if (stopped != NULL && stopped())
			return FAIL(ST_STOPPED, "stopped on request while looking for host %s", name);
		if (ready > 0)
			break;
		if (clock_us() >= end_us)
			return FAIL(ST_DEVICE, "nothing answers what address host %s has", name);
	}
	struct resolved read_one;
	ssize_t count;
	do
		count = read(fd, &read_one, sizeof read_one);
	while (count < 0 && errno == EINTR);
	if (count == (ssize_t)sizeof read_one)
		*resolved = read_one;
	else
		*resolved = (struct resolved){.error = EAI_FAIL}; /* it died */
	return ST_OK;
}

enum status resolve(const char *name, int port, resolve_look_up *look_up, int64_t end_us, bool (*stopped)(void), struct resolved *resolved)
{
	struct resolved numeric;
	look_up_with(name, port, AI_NUMERICHOST, &numeric);
	if (numeric.error == 0) {
		*resolved = numeric;
		return ST_OK;
	}
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) != 0)
		return FAIL(ST_MEMORY, "no pipe to look for host %s: %s", name, strerror(errno));
	pid_t self = getpid(), child = fork();
	if (child == 0)
		look_up_and_tell(name, port, look_up, self, fds[1]);
	int error = errno;
	close(fds[1]);
	enum status status = child > 0 ? await_answer(name, fds[0], end_us, stopped, resolved)
		: FAIL(ST_MEMORY, "no process to look for host %s: %s", name, strerror(error));
	close(fds[0]);
	if (child > 0) {
		kill(child, SIGKILL);
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	return status;
}
