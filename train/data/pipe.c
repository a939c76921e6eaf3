/* pipe.c: see pipe.h. */
#include "train/data/pipe.h"

#include "core/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MS = 50 };

static bool is_stopped(bool (*stopped)(void))
{
	return stopped != NULL && stopped();
}

static enum status fail_stopped(const char *path)
{
	return FAIL(ST_STOPPED, "%s: stopped while waiting for data", path);
}

static enum status pipe_path(const struct channel *channel, char path[OPT_ML_PATH_BYTES])
{
	int n = snprintf(path, OPT_ML_PATH_BYTES, "%s_0", channel->path);
	if (n < 0 || n >= OPT_ML_PATH_BYTES)
		return FAIL(ST_SETTINGS, "channel %s: the path of its FIFO is longer than %d bytes", channel->name, OPT_ML_PATH_BYTES - 1);
	return ST_OK;
}

/* Until a first writer has come, poll reports nothing; once it has come and gone, POLLHUP. So an end is never taken for a start. */
static enum status pipe_fill(void *context, uint8_t *bytes, size_t bytes_max, size_t *count)
{
	struct pipe_reader *reader = context;
	for (;;) {
		struct pollfd wait = {.fd = reader->fd, .events = POLLIN};
		if (is_stopped(reader->stopped))
			return fail_stopped(reader->path);
		int ready = poll(&wait, 1, POLL_MS);
		if (ready == 0 || (ready < 0 && errno == EINTR))
			continue;
		if (ready < 0)
			return FAIL(ST_DATA, "%s: cannot be waited for: %s", reader->path, strerror(errno));
		ssize_t n = read(reader->fd, bytes, bytes_max);
		if (n >= 0) {
			*count = (size_t)n;
			return ST_OK;
		}
		if (errno != EINTR && errno != EAGAIN)
			return FAIL(ST_DATA, "%s: cannot be read: %s", reader->path, strerror(errno));
	}
}

enum status pipe_open(struct pipe_reader *reader, const struct channel *channel, bool (*stopped)(void))
{
	*reader = (struct pipe_reader){.fd = -1, .stopped = stopped, .stream.fd = -1};
	TRY(pipe_path(channel, reader->path));
	for (bool told = false;; told = true) {
		reader->fd = open(reader->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (reader->fd >= 0)
			break;
		if (errno != ENOENT && errno != EINTR)
			return FAIL(ST_DATA, "%s: cannot be opened: %s", reader->path, strerror(errno));
		if (is_stopped(stopped))
			return fail_stopped(reader->path);
		if (!told)
			log_info("channel %s: waiting for the FIFO %s", channel->name, reader->path);
		nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
	}
	stream_open(&reader->stream, pipe_fill, reader, reader->path);
	return ST_OK;
}

void pipe_close(struct pipe_reader *reader)
{
	stream_close(&reader->stream);
	if (reader->fd >= 0)
		close(reader->fd);
	reader->fd = -1;
}

void pipe_dismiss(const struct channel *channel, int wait_ms, bool (*stopped)(void))
{
	char path[OPT_ML_PATH_BYTES];
	if (pipe_path(channel, path) != ST_OK)
		return;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return;
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	for (int waited_ms = 0; waited_ms < wait_ms && !is_stopped(stopped); waited_ms += POLL_MS)
		if (poll(&wait, 1, POLL_MS) > 0)
			break;
	close(fd);
}
