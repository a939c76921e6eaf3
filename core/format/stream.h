/* stream.h: bytes that come one after another.
 *
 * What every reader of outside data starts from: a file, a FIFO, memory, a member of an archive, a record of RecordIO. Each is
 * read once, from front to back, whatever it lies in; so one parser serves all of them and nothing is written to disk.
 * A stream is used by one thread. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STREAM_PEEK_BYTES_MAX = 64 << 10 };

/* Puts at most bytes_max (≥ 1) of the next bytes into `bytes`; *count = 0 means the end, and is asked for once only. */
typedef enum status stream_fill(void *context, uint8_t *bytes, size_t bytes_max, size_t *count);

struct stream {
	stream_fill *fill;
	void *context;
	const char *name; /* lent; for sentences: a path, "channel.tar.gz: member" */
	uint64_t offset;  /* bytes read so far */
	uint8_t *buffer;  /* came in, but not read yet: buffer[at..end) */
	size_t at, end;
	bool ended;
	bool (*stopped)(void); /* may be set after the open: asked before each fetch from the source; true ends it with ST_STOPPED */
	int fd; /* of stream_open_file, else -1 */
	const uint8_t *memory; /* of stream_open_memory */
	size_t memory_left;
};

/* A stream over the caller's own function. `name` and `context` must outlive it. */
void stream_open(struct stream *stream, stream_fill *fill, void *context, const char *name);
/* The bytes of a regular file (symbolic links are followed). ST_DATA when it cannot be opened or is something else. */
enum status stream_open_file(struct stream *stream, const char *path);
/* `count` bytes in memory, which must outlive the stream. */
void stream_open_memory(struct stream *stream, const void *bytes, size_t count, const char *name);
/* Releases buffer and file. Harmless on {0} with fd -1, and twice. */
void stream_close(struct stream *stream);

/* The next bytes without taking them: *count = wanted (≤ STREAM_PEEK_BYTES_MAX), less only where the stream ends. *bytes is valid
 * until the next call. */
enum status stream_peek(struct stream *stream, size_t wanted, const uint8_t **bytes, size_t *count);
/* The next `wanted` bytes; *count is less only where the stream ends. ST_DATA, or whatever the stream's own function returns. */
enum status stream_read(struct stream *stream, void *bytes, size_t wanted, size_t *count);
/* All that is left, malloc'ed, with a zero byte after the end; the caller frees it. Memory grows with the bytes that really come.
 * ST_DATA when more than bytes_max come. */
enum status stream_read_all(struct stream *stream, size_t bytes_max, uint8_t **bytes, size_t *count);
/* Reads and forgets all that is left. */
enum status stream_drain(struct stream *stream);
