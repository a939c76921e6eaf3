/* frame.h: messages on a stream socket of the control channel.
 *
 * On the wire, all little-endian: u32 bytes of the payload, u8 type, u8 scope, u16 zero, u32 member, u64 number, payload. A stream
 * reads and writes without blocking; what cannot be sent yet is kept, up to a bound. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, meaning of member and number, payload. Up: towards the hub (hub.h); down: from it to everybody. */
#define FRAME_LIST(X) \
	X(FRAME_HELLO)   /* up: here I am (the first frame of a member). Between parents: who I am, see greeting.h */ \
	X(FRAME_WELCOME) /* rendezvous: the first host's parent tells who is who */ \
	X(FRAME_REFUSED) /* rendezvous: the sentence why not; number: an enum status */ \
	X(FRAME_BEAT)    /* I am alive; from a rank, number: boundaries passed */ \
	X(FRAME_GATHER)  /* up: member's contribution to gather `number`. Down: all contributions, each u32 length and bytes */ \
	X(FRAME_LATE)    /* up: member waited too long in gather `number`; u64 microseconds. Answered by an abort that names who is missing */ \
	X(FRAME_WISH)    /* up: please stop; number 2: at once */ \
	X(FRAME_CANCEL)  /* down: a wish came before all ranks were there: nothing begins, gathers end */ \
	X(FRAME_HOLD)    /* down: wait at your next boundary, and tell how many you passed */ \
	X(FRAME_HELD)    /* up: number: boundaries passed; there will be no more before a STOP tells (or ever, unasked: the rank leaves) */ \
	X(FRAME_STOP)    /* down: number: boundaries that all pass before they stop */ \
	X(FRAME_HURRY)   /* down: a second signal came */ \
	X(FRAME_ABORT)   /* both ways: member of scope failed (payload: the sentence); number: an enum status */ \
	X(FRAME_DONE)    /* up: this host's ranks ended well (member: the host); down: all did */

enum frame_type {
#define X(name) name,
	FRAME_LIST(X)
#undef X
	FRAME_TYPES
};

struct frame {
	enum frame_type type;
	uint8_t scope;       /* enum control_scope */
	uint32_t member;
	uint64_t number;
	const uint8_t *bytes; /* not owned; NULL when count is 0 */
	size_t count;
};

enum {
	FRAME_HEADER_BYTES = 20,
	FRAME_PAYLOAD_BYTES_MAX = 1 << 28, /* of any frame */
	FRAME_QUEUE_BYTES_MAX = 1 << 24,   /* what waits to be sent, beyond one frame */
};

struct frame_stream; /* a socket with what was read and what is to be sent; one thread at a time */

/* Takes fd in any case (made non-blocking). payload_bytes_max: of a frame that is taken, at most FRAME_PAYLOAD_BYTES_MAX. ST_MEMORY;
 * ST_DEVICE when fd is no socket. */
enum status frame_stream_open(int fd, size_t payload_bytes_max, struct frame_stream **stream);
void frame_stream_close(struct frame_stream *stream); /* accepts NULL; closes fd */
int frame_stream_fd(const struct frame_stream *stream);
/* Raises or lowers the bound for frames that have not begun to arrive, once the other side is known. */
void frame_stream_limit(struct frame_stream *stream, size_t payload_bytes_max);

/* Reads what is there, at most some MiB a call. ST_OK means: take the frames, then wait for POLLIN again. ST_DEVICE: the other side closed or the
 * connection broke (said only when nothing came before it in this call, so no frame is lost), or what came is no frame (too long,
 * unknown type); ST_MEMORY. */
enum status frame_stream_read(struct frame_stream *stream);
/* The same, but not a byte beyond the next frame: for a stream that is handed on, so that a poll sees what comes after. */
enum status frame_stream_read_one(struct frame_stream *stream);
/* The next whole frame that was read; false: none. Its bytes are valid until the next frame_stream_read. */
bool frame_stream_next(struct frame_stream *stream, struct frame *frame);
/* Queues a frame and sends what can be sent. ST_DEVICE: the other side does not read (the queue is full); ST_MEMORY. A connection that broke
 * swallows what is sent: the next read tells, after all that the other side had said before. */
enum status frame_stream_send(struct frame_stream *stream, const struct frame *frame);
void frame_stream_flush(struct frame_stream *stream);
/* Something is queued: wait for POLLOUT too. */
bool frame_stream_pending(const struct frame_stream *stream);
