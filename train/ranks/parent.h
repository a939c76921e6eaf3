/* parent.h: what the parent of a host does while its children work: it carries frames, watches who is silent, and settles who failed first.
 *
 * In: children (train/ranks/child.h), connections to other parents (core/comm/rendezvous.h), signals. Out: one cause, if the training failed.
 * The first host's parent has the hub; the others hand frames up to it and take its word for what the cause is. Time, with T the
 * peer timeout: a silence is a failure after 2/3 T; after a failure everybody has T/4 to leave; who is still there then is killed. A rank that
 * lost a peer waits T/3, at most 5 s, to hear why before it counts as the cause itself. So all have ended T after the fault.
 *
 * Time in which this process itself did not run (it was stopped, the machine slept) counts for nobody. */
#pragma once

#include "core/comm/hub.h"
#include "train/ranks/child.h"

#include <poll.h>

/* Connection to another host's parent. */
struct link {
	struct frame_stream *stream; /* NULL: none, or lost */
	char broken[256];            /* why it is lost, as soon as that is seen; "" */
	int64_t heard_us;
	bool done;                   /* its ranks ended well */
};

/* What the training failed of. */
struct cause {
	enum status status; /* ST_OK: of nothing */
	int host;           /* where */
	bool confirmed;     /* the hub says so */
	char sentence[STATUS_MESSAGE_BYTES_MAX];
};

struct parent {
	const struct ranks_config *config;
	int host, hosts, world, first_rank;
	const int *devices_of_hosts;
	struct child *children; /* the loading thread, then the ranks */
	int children_count;
	struct link *links;     /* `hosts` of them */
	struct pollfd *polled;
	struct hub *hub;        /* NULL but on the first host */
	struct cause cause;
	bool stopping, canceled, done;
	bool killed, gave_up;   /* who did not leave; who did not end then */
	int wished;             /* signals passed on */
	int64_t now_us, beat_us, leave_us; /* leave_us: until when all may leave after a failure or FRAME_DONE */
	/* First host: */
	uint64_t *passed, passed_max; /* boundaries by rank */
	int64_t progress_us;
	bool leaving;           /* some rank passes no more boundaries */
};

/* The rendezvous's streams become the links; it is {0} when this host is alone. `parent` stays where it is until parent_close. ST_MEMORY. */
enum status parent_open(const struct ranks_config *config, struct rendezvous *rendezvous, const int *devices_of_hosts, struct parent *parent);
void parent_close(struct parent *parent); /* accepts {0}; what children do is left alone */

/* Everybody learns that a member failed, unless another failure came first. */
void parent_accuse(struct parent *parent, enum control_scope scope, int number, enum status status, const char *sentence);
/* How long all may take to leave after a failure. */
int64_t parent_leave_us(const struct parent *parent);
/* Another host has left in good order before it said so. */
void parent_host_left(struct parent *parent, int host);
/* Asks all to stop. */
void parent_stop(struct parent *parent);
/* Tells the hub that this host's ranks ended well. */
void parent_done(struct parent *parent);

/* Watches until `finished`, which is asked again and again. */
void parent_watch(struct parent *parent, bool (*finished)(const struct parent *parent));

/* For parent_watch. */
bool parent_children_ended(const struct parent *parent); /* or were given up */
bool parent_agreed(const struct parent *parent);         /* how it ended is known to be the same everywhere */
bool parent_alone(const struct parent *parent);          /* the others have left, or have had their time */
