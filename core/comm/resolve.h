/* resolve.h: a host's name → its addresses, without being at the mercy of how long the system's resolver takes.
 *
 * The resolver cannot be interrupted, so it runs in a process of its own, which is killed when a stop is asked for or the time is over: no thread
 * and no process is left behind. */
#pragma once

#include "core/base/status.h"

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { RESOLVED_MAX = 16 };

struct resolved {
	int error; /* of getaddrinfo; 0: count is at least 1 */
	int count;
	struct sockaddr_storage addresses[RESOLVED_MAX]; /* with the port */
};

/* What runs in that process: fills `resolved` in any case. */
typedef void resolve_look_up(const char *name, int port, struct resolved *resolved);
resolve_look_up resolve_by_system;

/* A numeric address needs no process. ST_OK also when the name has no address (yet): see resolved->error. ST_STOPPED; ST_DEVICE when end_us
 * (of clock_us) is over; ST_MEMORY when no process can be made. `stopped` is asked at least every 100 ms and may be NULL. */
enum status resolve(const char *name, int port, resolve_look_up *look_up, int64_t end_us, bool (*stopped)(void), struct resolved *resolved);

/* Why there is no address, in words. */
const char *resolve_error(const struct resolved *resolved);
