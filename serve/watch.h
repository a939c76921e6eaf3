/* watch.h: ends connections whose client is too slow, and lets refused ones end in peace.
 *
 * The HTTP library's own time limit starts anew with every byte, so a client that trickles would stay for ever. Here each connection has one
 * deadline, moved on by its I/O thread at the milestones of a request; a thread looks a few times a second and shuts the sockets that are
 * overdue, after a 408 where a request is half there, or whose client has left. And a client that is refused while it still sends gets its
 * answer only if the socket is not closed at once (the kernel would throw the answer away with the unread bytes): such sockets linger
 * here, are read dry and closed. */
#pragma once

#include "core/base/status.h"
#include "serve/metrics.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct watch;

enum watched_stage {
	WATCHED_IDLE,     /* between requests */
	WATCHED_ASKING,   /* a request is half there: worth a 408 */
	WATCHED_ANSWERED, /* a request is computed, or its answer is on its way */
};

/* One connection; a part of its owner. */
struct watched {
	struct watched *before, *after; /* the watch's */
	int fd;
	_Atomic int64_t deadline_us;    /* clock_us(); 0: none */
	_Atomic int stage;
};

enum status watch_open(struct metrics *metrics, struct watch **watch);
/* All connections must have been removed. Accepts NULL. */
void watch_close(struct watch *watch);

void watch_add(struct watch *watch, struct watched *watched, int fd);
/* Must return before the descriptor is closed. */
void watch_remove(struct watch *watch, struct watched *watched);
/* From now on: `seconds` until the connection is ended, 0: any time. */
void watch_set(struct watched *watched, int64_t seconds, enum watched_stage stage);

/* Keeps a copy of the descriptor, which the caller may close, until the client has closed its side or some seconds have passed. Does
 * nothing when too many linger already. */
void watch_linger(struct watch *watch, int fd);

/* Sends an answer by hand, where the library has no way to: a status line, the head, and error_text's body. The connection must end after
 * it. */
void watch_refuse(int fd, int http_status, const char *message);
