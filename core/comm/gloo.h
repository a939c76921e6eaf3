/* gloo.h: the seam between comm.c and Gloo: what gloo.cc offers, in C. For comm.c alone.
 *
 * A mesh is this rank's connections with all others. Nothing thrown passes the seam: each function that can fail returns a status and leaves
 * one sentence. One thread uses a mesh; mesh_abort, mesh_broken, mesh_awaited and mesh_bytes_sent are for any thread. That thread should have
 * signals blocked, SIGPIPE above all: Gloo writes to sockets whose other end may be gone, and its own thread inherits the mask.
 *
 * There are no deadlines in here but that of connecting: a wait ends when its work is done, when its connection breaks, or by mesh_abort. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "core/base/status.h"
#include "core/comm/control.h"

struct mesh;

const char *mesh_gloo_version(void); /* "0.5.0" */

/* No connection yet: only then mesh_abort may be called. ST_MEMORY. */
enum status mesh_open(int rank, int world, struct mesh **mesh);
void mesh_close(struct mesh *mesh); /* accepts NULL */

/* Collective, once: listens on `address` (a number, never a name), tells the others where in one gather of `control`, connects with each.
 * timeout_us: of connecting, not of the gather. ST_DEVICE, ST_MEMORY, what the gather returns. */
enum status mesh_connect(struct mesh *mesh, struct control *control, const char *address, int64_t timeout_us);

/* to[i] = a[i] + b[i]; `to` may be `a`. */
typedef void mesh_add(void *to, const void *a, const void *b, size_t count);

/* Collective, in place. ring: few bytes on each line, 2·(world − 1) messages one after another; else pairs at growing distances
 * exchange halves: less waiting. Which value is added to which depends on world and count alone. ST_DEVICE, ST_MEMORY. */
enum status mesh_sum(struct mesh *mesh, void *values, size_t count, size_t value_bytes, mesh_add *add, bool ring);
enum status mesh_broadcast(struct mesh *mesh, void *bytes, size_t count, int root);

/* Closes all connections; what is under way, and all that follows, returns ST_DEVICE. */
void mesh_abort(struct mesh *mesh);
/* A rank whose connection broke, or -1. False alarms are impossible, but at the end of a training a peer may leave first. */
int mesh_broken(struct mesh *mesh);
/* A rank from which something is awaited now, or that is slow to take something; -1: none. */
int mesh_awaited(struct mesh *mesh);
/* Payload given to connections since mesh_open. */
uint64_t mesh_bytes_sent(struct mesh *mesh);

#ifdef __cplusplus
}
#endif
