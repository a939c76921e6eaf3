/* stream.c: see stream.h. */
#include "core/format/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void stream_open(struct stream *stream, stream_fill *fill, void *context, const char *name)
{
	*stream = (struct stream){.fill = fill, .context = context, .name = name, .fd = -1};
}

static enum status fill_from_file(void *context, uint8_t *bytes, size_t bytes_max, size_t *count)
{
	const struct stream *stream = context;
	for (;;) {
		ssize_t n = read(stream->fd, bytes, bytes_max);
		if (n >= 0) {
			*count = (size_t)n;
			return ST_OK;
		}
		if (errno != EINTR)
			return FAIL(ST_DATA, "%s: cannot be read: %s", stream->name, strerror(errno));
	}
}

enum status stream_open_file(struct stream *stream, const char *path)
{
	/* Without O_NONBLOCK the open of a FIFO that nobody writes would wait for ever; on a regular file it changes nothing. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return FAIL(ST_DATA, "%s: cannot be opened: %s", path, strerror(errno));
	struct stat about;
	if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
		close(fd);
		return FAIL(ST_DATA, "%s: not a regular file", path);
	}
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL); /* a hint */
	stream_open(stream, fill_from_file, stream, path);
	stream->fd = fd;
	return ST_OK;
}

static enum status fill_from_memory(void *context, uint8_t *bytes, size_t bytes_max, size_t *count)
{
	struct stream *stream = context;
	size_t n = stream->memory_left < bytes_max ? stream->memory_left : bytes_max;
	if (n > 0)
		memcpy(bytes, stream->memory, n);
	stream->memory += n;
	stream->memory_left -= n;
	*count = n;
	return ST_OK;
}

void stream_open_memory(struct stream *stream, const void *bytes, size_t count, const char *name)
{
	static const uint8_t nothing;
	stream_open(stream, fill_from_memory, stream, name);
	stream->memory = count > 0 ? bytes : &nothing;
	stream->memory_left = count;
}

void stream_close(struct stream *stream)
{
	free(stream->buffer);
	stream->buffer = NULL;
	stream->at = stream->end = 0;
	if (stream->fd >= 0)
		close(stream->fd);
	stream->fd = -1;
}

/* Takes up to `room` new bytes straight from the source. */
static enum status stream_fetch(struct stream *stream, uint8_t *bytes, size_t room, size_t *count)
{
	*count = 0;
	if (stream->ended)
		return ST_OK;
	if (stream->stopped != NULL && stream->stopped())
		return FAIL(ST_STOPPED, "%s: stopped while it was read", stream->name);
	TRY(stream->fill(stream->context, bytes, room, count));
	MUST(*count <= room);
	stream->ended = *count == 0;
	return ST_OK;
}

enum status stream_peek(struct stream *stream, size_t wanted, const uint8_t **bytes, size_t *count)
{
	MUST(wanted <= STREAM_PEEK_BYTES_MAX);
	if (stream->buffer == NULL) {
		stream->buffer = malloc(STREAM_PEEK_BYTES_MAX);
		if (stream->buffer == NULL)
			return FAIL(ST_MEMORY, "%s: no memory for a buffer of %d bytes", stream->name, STREAM_PEEK_BYTES_MAX);
	}
	if (stream->at + wanted > STREAM_PEEK_BYTES_MAX || stream->at == stream->end) {
		memmove(stream->buffer, stream->buffer + stream->at, stream->end - stream->at);
		stream->end -= stream->at;
		stream->at = 0;
	}
	while (stream->end - stream->at < wanted && !stream->ended) {
		size_t n;
		TRY(stream_fetch(stream, stream->buffer + stream->end, STREAM_PEEK_BYTES_MAX - stream->end, &n));
		stream->end += n;
	}
	size_t there = stream->end - stream->at;
	*bytes = stream->buffer + stream->at;
	*count = there < wanted ? there : wanted;
	return ST_OK;
}

enum status stream_read(struct stream *stream, void *bytes, size_t wanted, size_t *count)
{
	uint8_t *to = bytes;
	size_t done = 0;
	while (done < wanted) {
		size_t there = stream->end - stream->at;
		if (there > 0) {
			size_t n = there < wanted - done ? there : wanted - done;
			memcpy(to + done, stream->buffer + stream->at, n);
			stream->at += n;
			done += n;
			continue;
		}
		if (stream->ended)
			break;
		/* Small requests go through the buffer, so that the source sees few calls. */
		if (wanted - done < STREAM_PEEK_BYTES_MAX) {
			const uint8_t *ignored;
			size_t ignored_count;
			TRY(stream_peek(stream, 1, &ignored, &ignored_count));
			continue;
		}
		size_t n;
		TRY(stream_fetch(stream, to + done, wanted - done, &n));
		done += n;
	}
	stream->offset += done;
	*count = done;
	return ST_OK;
}

enum status stream_read_all(struct stream *stream, size_t bytes_max, uint8_t **bytes, size_t *count)
{
	enum status status = ST_OK;
	size_t used = 0, capacity = STREAM_PEEK_BYTES_MAX;
	uint8_t *data = malloc(capacity);
	for (;;) {
		if (data == NULL)
			return FAIL(ST_MEMORY, "%s: no memory for %zu bytes", stream->name, capacity);
		size_t room = capacity - 1 - used, n;
		TRY_DONE(stream_read(stream, data + used, room, &n));
		used += n;
		if (used > bytes_max) {
			status = FAIL(ST_DATA, "%s: more than %zu bytes, the most that is read of such a file", stream->name, bytes_max);
			goto done;
		}
		if (n < room)
			break;
		capacity *= 2;
		uint8_t *larger = realloc(data, capacity);
		if (larger == NULL)
			free(data);
		data = larger;
	}
	data[used] = 0;
	*bytes = data;
	*count = used;
	data = NULL;
done:
	free(data);
	return status;
}

enum status stream_drain(struct stream *stream)
{
	for (;;) {
		const uint8_t *ignored;
		size_t n;
		TRY(stream_peek(stream, 1, &ignored, &n));
		if (n == 0)
			return ST_OK;
		stream->offset += stream->end - stream->at;
		stream->at = stream->end;
	}
}
