/* control.h: a member's end of the control channel: what the processes of one training say to each other besides gradients.
 *
 * A training has one parent a host (train/ranks/ranks.h) and one rank a device. Members are those who take part in a common course of calls:
 * first one loader a host (a thread of the parent), later all ranks. A member has one stream socket to its host's parent; the parents
 * hold a star of TCP connections to the first host's parent, where the hub (hub.h) is. Three things travel:
 *  - gathers: every member gives some bytes, all get the bytes of all. Barriers, agreements, fingerprints, the addresses of Gloo and the
 *    id of NCCL are all gathers;
 *  - a stop: somebody was asked to stop, and all agree after which boundary;
 *  - an abort: somebody failed, and all learn whose sentence it was.
 *
 * A thread of the channel's own reads the socket and sends a beat every second, so members are told at once whatever they do. It takes no
 * signals, and is gone when control_close returns: a process may fork before control_open and after control_close. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Who counts in a gather. */
enum control_scope { SCOPE_HOSTS, SCOPE_RANKS, SCOPES };

struct control_config {
	int fd;                   /* stream socket to the parent; the channel closes it */
	enum control_scope scope;
	int member, members;      /* host's or rank's number, and how many there are */
	int64_t gather_timeout_us; /* how long the slowest member may let the others wait; time in which this process did not run does not count */
};

struct control;

/* Takes the socket in any case. ST_MEMORY; ST_DEVICE when the parent is gone already. */
enum status control_open(const struct control_config *config, struct control **control);
/* Says good-bye: this member passes no more boundaries. Whether it leaves because all is well, its parent tells. Accepts NULL. */
void control_close(struct control *control);

/* The bytes of all members, in their order. */
struct control_blobs {
	uint8_t *bytes;         /* one allocation, freed with control_blobs_free */
	const uint8_t **blobs;  /* `members` pointers into it */
	size_t *counts;
};
enum { CONTROL_BLOB_BYTES_MAX = 1 << 20 }; /* of one member; of all together somewhat less than 256 MiB */

/* Waits until every member has called it (the nth call meets the nth call of the others). count may be 0: then it is a barrier. `blobs` may
 * be NULL. ST_DEVICE when the training was aborted meanwhile (the sentence is the root cause's) or the time ran out (it names who did not
 * come); ST_STOPPED when a stop was asked for before all ranks were there (then no gather completes on any member from there on; later
 * stops do not touch gathers); ST_MEMORY. One thread at a time. */
enum status control_gather(struct control *control, const void *bytes, size_t count, struct control_blobs *blobs);
void control_blobs_free(struct control_blobs *blobs); /* accepts {0} */

/* A boundary that all ranks pass the same number of times: between two steps. ST_STOPPED at the boundary that all agreed on (all have then
 * got ST_OK the same number of times); ST_DEVICE when the training was aborted. Costs a lock, no message, while nobody asks for a stop.
 * All ranks gather at least once before their first boundary, so none has passed one while another is not there yet. SCOPE_RANKS only; one
 * thread at a time. */
enum status control_pass(struct control *control);

/* Somebody asked for a stop; the boundary may be still ahead. Any thread. */
bool control_stopping(struct control *control);
/* A second signal came: leave as fast as possible. Any thread. */
bool control_hurry(struct control *control);
/* ST_DEVICE with the root cause's sentence once the training was aborted or this host's parent is gone, else ST_OK. Any thread. */
enum status control_check(struct control *control);
/* The same, waiting up to wait_us for an abort: for a member whose peer has just vanished, so that it tells why and not only that. */
enum status control_wait_abort(struct control *control, int64_t wait_us);
