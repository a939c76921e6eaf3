/* connection.h: HTTP/1.1 on sockets: the one place that knows libmicrohttpd.
 *
 * In: a listening socket and the server. It reads heads and bodies under the limits, asks route.h who answers, and sends what comes back.
 * See serve/README.md for the threads. */
#pragma once

#include "serve/server.h"

struct front;

/* Starts to accept on `listen_fd`, which is the front's from now on, with so many I/O threads. ST_MEMORY. */
enum status front_open(struct server *server, int listen_fd, unsigned io_threads, struct front **front);

/* No new connections from now on. */
void front_quiesce(struct front *front);

/* Requests whose answers have not left. */
size_t front_requests(const struct front *front);

/* Ends all connections. No request may be kept by a route. Accepts NULL. */
void front_close(struct front *front);
