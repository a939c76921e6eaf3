/* inflate.c: see inflate.h. */
#include "serve/inflate.h"

#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

enum { WINDOW_BITS_GZIP = 15 + 16, CHUNK_BYTES = 64 * 1024, GROWTH = 4 };

struct output {
	uint8_t *bytes;
	size_t count, capacity, bytes_max;
};

/* Makes room behind what is there. */
static enum http_code output_grow(struct output *output)
{
	if (output->count > output->bytes_max)
		return REFUSE(HTTP_TOO_LARGE, "the body is more than %zu bytes after decompression", output->bytes_max);
	size_t capacity = output->capacity == 0 ? CHUNK_BYTES : output->capacity * GROWTH;
	if (capacity > output->bytes_max)
		capacity = output->bytes_max + 1; /* the byte too many shows that there is more */
	uint8_t *bytes = realloc(output->bytes, capacity);
	if (bytes == NULL)
		return REFUSE(HTTP_UNAVAILABLE, "no memory to decompress the body");
	output->bytes = bytes;
	output->capacity = capacity;
	return HTTP_OK;
}

static enum http_code inflate_all(z_stream *stream, const uint8_t *from, size_t from_bytes, struct output *output)
{
	int result = Z_OK;
	stream->next_in = (Bytef *)(uintptr_t)from;
	for (;;) {
		if (stream->avail_in == 0) {
			size_t left = from_bytes - (size_t)(stream->next_in - from);
			stream->avail_in = left > UINT_MAX ? UINT_MAX : (uInt)left;
		}
		if (result == Z_STREAM_END) {
			if (stream->avail_in == 0)
				return HTTP_OK;
			inflateReset(stream); /* another member */
		}
		if (output->count == output->capacity)
			ALLOW(output_grow(output));
		size_t room = output->capacity - output->count;
		stream->next_out = output->bytes + output->count;
		stream->avail_out = room > UINT_MAX ? UINT_MAX : (uInt)room;
		result = inflate(stream, Z_NO_FLUSH);
		output->count = (size_t)(stream->next_out - output->bytes);
		if (result != Z_OK && result != Z_STREAM_END)
			return REFUSE(HTTP_BAD_REQUEST, "the body is not valid gzip: %s", result == Z_BUF_ERROR ? "it is cut off" : stream->msg != NULL ? stream->msg : "damaged");
	}
}

enum http_code inflate_gzip(const uint8_t *from, size_t from_bytes, size_t bytes_max, uint8_t **bytes, size_t *count)
{
	struct output output = {.bytes_max = bytes_max < SIZE_MAX ? bytes_max : SIZE_MAX - 1};
	z_stream stream = {0};
	if (inflateInit2(&stream, WINDOW_BITS_GZIP) != Z_OK)
		return REFUSE(HTTP_UNAVAILABLE, "no memory to decompress the body");
	enum http_code code = inflate_all(&stream, from, from_bytes, &output);
	inflateEnd(&stream);
	if (code == HTTP_OK && output.count > bytes_max)
		code = output_grow(&output);
	if (code != HTTP_OK) {
		free(output.bytes);
		return code;
	}
	*bytes = output.bytes;
	*count = output.count;
	return HTTP_OK;
}
