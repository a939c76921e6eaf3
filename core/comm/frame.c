/* frame.c: see frame.h. One buffer for each direction; bytes move to the front only when room is needed. */
#define _GNU_SOURCE /* MSG_NOSIGNAL with strict C */
#include "core/comm/frame.h"

#include "core/comm/control.h"
#include "core/comm/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	READ_BYTES = 1 << 16,         /* of one recv */
	READ_CALL_BYTES_MAX = 1 << 22, /* of one frame_stream_read: others wait for their turn */
	KEEP_BYTES_MAX = 1 << 20,     /* a larger buffer is given back when empty */
};

/* Bytes from `begin` to `end` are in use. */
struct buffer {
	uint8_t *bytes;
	size_t begin, end, capacity;
};

struct frame_stream {
	int fd;
	size_t payload_bytes_max;
	struct buffer in, out;
	size_t checked; /* offset in `in` of the first header that was not looked at; past the end while a frame is under way */
};

/* Room for `count` more bytes at the end. */
static enum status buffer_reserve(struct buffer *buffer, size_t count)
{
	if (buffer->capacity - buffer->end >= count)
		return ST_OK;
	size_t used = buffer->end - buffer->begin;
	if (buffer->begin > 0) {
		memmove(buffer->bytes, buffer->bytes + buffer->begin, used);
		buffer->begin = 0;
		buffer->end = used;
	}
	if (buffer->capacity - used >= count)
		return ST_OK;
	size_t capacity = buffer->capacity * 2 > used + count ? buffer->capacity * 2 : used + count;
	uint8_t *grown = realloc(buffer->bytes, capacity);
	if (grown == NULL)
		return FAIL(ST_MEMORY, "no memory for %zu bytes of the control channel", capacity);
	buffer->bytes = grown;
	buffer->capacity = capacity;
	return ST_OK;
}

static void buffer_drop(struct buffer *buffer, size_t count)
{
	buffer->begin += count;
	if (buffer->begin < buffer->end)
		return;
	buffer->begin = buffer->end = 0;
	if (buffer->capacity > KEEP_BYTES_MAX) {
		free(buffer->bytes);
		*buffer = (struct buffer){0};
	}
}

enum status frame_stream_open(int fd, size_t payload_bytes_max, struct frame_stream **stream)
{
	MUST(payload_bytes_max <= FRAME_PAYLOAD_BYTES_MAX);
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
		enum status status = FAIL(ST_DEVICE, "a socket of the control channel cannot be used: %s", strerror(errno));
		close(fd);
		return status;
	}
	struct frame_stream *made = calloc(1, sizeof *made);
	if (made == NULL) {
		close(fd);
		return FAIL(ST_MEMORY, "no memory for a stream of the control channel");
	}
	made->fd = fd;
	made->payload_bytes_max = payload_bytes_max;
	*stream = made;
	return ST_OK;
}

void frame_stream_close(struct frame_stream *stream)
{
	if (stream == NULL)
		return;
	close(stream->fd);
	free(stream->in.bytes);
	free(stream->out.bytes);
	free(stream);
}

int frame_stream_fd(const struct frame_stream *stream)
{
	return stream->fd;
}

void frame_stream_limit(struct frame_stream *stream, size_t payload_bytes_max)
{
	MUST(payload_bytes_max <= FRAME_PAYLOAD_BYTES_MAX);
	stream->payload_bytes_max = payload_bytes_max;
}

/* Looks at the headers that are there whole and were not looked at. */
static enum status check_headers(struct frame_stream *stream)
{
	struct buffer *in = &stream->in;
	while (stream->checked + FRAME_HEADER_BYTES <= in->end) {
		struct wire wire = {.bytes = in->bytes + stream->checked, .count = FRAME_HEADER_BYTES};
		size_t count = wire_take_u32(&wire);
		unsigned type = (unsigned)wire_take_number(&wire, 1), scope = (unsigned)wire_take_number(&wire, 1);
		unsigned zero = (unsigned)wire_take_number(&wire, 2);
		if (type >= FRAME_TYPES || scope >= SCOPES || zero != 0)
			return FAIL(ST_DEVICE, "what came over the control channel is no frame of smelt (type %u, scope %u)", type, scope);
		if (count > stream->payload_bytes_max)
			return FAIL(ST_DEVICE, "a frame of the control channel announces %zu bytes, at most %zu are taken", count, stream->payload_bytes_max);
		stream->checked += FRAME_HEADER_BYTES + count;
	}
	return ST_OK;
}

/* How many bytes the next frame still lacks, as far as its header tells; 0: it is whole. */
static size_t bytes_lacking(const struct frame_stream *stream)
{
	const struct buffer *in = &stream->in;
	if (in->end - in->begin < FRAME_HEADER_BYTES)
		return FRAME_HEADER_BYTES - (in->end - in->begin);
	return stream->checked > in->end ? stream->checked - in->end : 0;
}

static enum status read_some(struct frame_stream *stream, bool one)
{
	struct buffer *in = &stream->in;
	if (in->begin == in->end) {
		stream->checked -= in->begin;
		buffer_drop(in, 0);
	}
	for (size_t total = 0; total < READ_CALL_BYTES_MAX;) {
		size_t begin = in->begin, wanted = READ_BYTES;
		if (one && bytes_lacking(stream) < wanted)
			wanted = bytes_lacking(stream);
		if (wanted == 0)
			return ST_OK;
		TRY(buffer_reserve(in, wanted));
		stream->checked -= begin - in->begin;
		ssize_t n = recv(stream->fd, in->bytes + in->end, wanted, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return ST_OK;
		if (n <= 0 && total > 0)
			return ST_OK; /* the next call tells */
		if (n == 0)
			return FAIL(ST_DEVICE, "the connection was closed by the other side");
		if (n < 0)
			return FAIL(ST_DEVICE, "the connection broke: %s", strerror(errno));
		in->end += (size_t)n;
		total += (size_t)n;
		TRY(check_headers(stream));
	}
	return ST_OK;
}

enum status frame_stream_read(struct frame_stream *stream)
{
	return read_some(stream, false);
}

enum status frame_stream_read_one(struct frame_stream *stream)
{
	return read_some(stream, true);
}

bool frame_stream_next(struct frame_stream *stream, struct frame *frame)
{
	struct buffer *in = &stream->in;
	/* A header that check_headers refused, or did not see yet, is not in front of `checked`. */
	if (in->begin >= stream->checked || in->end - in->begin < FRAME_HEADER_BYTES)
		return false;
	struct wire wire = {.bytes = in->bytes + in->begin, .count = in->end - in->begin};
	size_t count = wire_take_u32(&wire);
	if (in->end - in->begin - FRAME_HEADER_BYTES < count)
		return false;
	frame->type = (enum frame_type)wire_take_number(&wire, 1);
	frame->scope = (uint8_t)wire_take_number(&wire, 1);
	wire_take(&wire, 2);
	frame->member = wire_take_u32(&wire);
	frame->number = wire_take_u64(&wire);
	frame->count = count;
	frame->bytes = count > 0 ? wire_take(&wire, count) : NULL;
	in->begin += FRAME_HEADER_BYTES + count; /* not buffer_drop: the bytes stay until the next read */
	return true;
}

enum status frame_stream_send(struct frame_stream *stream, const struct frame *frame)
{
	MUST(frame->count <= FRAME_PAYLOAD_BYTES_MAX && frame->type < FRAME_TYPES && frame->scope < SCOPES);
	struct buffer *out = &stream->out;
	if (out->end - out->begin > FRAME_QUEUE_BYTES_MAX)
		return FAIL(ST_DEVICE, "the other side of the control channel does not read: %zu bytes wait for it", out->end - out->begin);
	TRY(buffer_reserve(out, FRAME_HEADER_BYTES + frame->count));
	uint8_t *header = out->bytes + out->end;
	memset(header, 0, FRAME_HEADER_BYTES);
	wire_put_u32(header, (uint32_t)frame->count);
	header[4] = (uint8_t)frame->type;
	header[5] = frame->scope;
	wire_put_u32(header + 8, frame->member);
	wire_put_u64(header + 12, frame->number);
	if (frame->count > 0)
		memcpy(header + FRAME_HEADER_BYTES, frame->bytes, frame->count);
	out->end += FRAME_HEADER_BYTES + frame->count;
	frame_stream_flush(stream);
	return ST_OK;
}

void frame_stream_flush(struct frame_stream *stream)
{
	struct buffer *out = &stream->out;
	while (out->begin < out->end) {
		ssize_t n = send(stream->fd, out->bytes + out->begin, out->end - out->begin, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		/* Broken: nobody will read it. What was said to us before is still there to be read. */
		buffer_drop(out, n < 0 ? out->end - out->begin : (size_t)n);
	}
}

bool frame_stream_pending(const struct frame_stream *stream)
{
	return stream->out.begin < stream->out.end;
}
