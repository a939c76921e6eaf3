/* hub.h: what the parents of a training decide together: whose gather is complete, where all stop, who failed first.
 *
 * In: frames that members and parents sent. Out: frames for everybody. The hub lives in the first host's parent; the other
 * parents pass frames up and down unchanged. There are no sockets and no clock here, so every order of events can be tested.
 *
 * All that everybody must agree on is decided by the order in which the hub takes frames: what it emits reaches every member in that order.
 *
 * Gather: when the last member's contribution is there, all get all. A member that waited too long says so (LATE): the answer is an abort
 * that names who is missing.
 * Stop: a wish makes the hub send HOLD. Each rank answers HELD with the number of boundaries it has passed, and from then on waits at its
 * next one. When all have answered, STOP carries the largest number: all go on to it and stop there. Gradient sums keep ranks within a
 * step of each other, so nobody waits long, and a step costs no message while nobody wishes. A rank that ends sends HELD unasked.
 * A wish before all ranks have said hello ends everything before it begins (CANCEL): from then on no gather completes, and the first
 * boundary stops. Somebody who says hello later is told of what was decided before.
 * Abort: the first one counts and goes to all; what comes after is taken and has no effect.
 * Done: each host's parent says that its ranks ended well; when all have, all are told. */
#pragma once

#include "core/comm/control.h"
#include "core/comm/frame.h"

struct hub;

/* hosts and ranks: how many members each scope has, at least 1. emit: what to do with a frame for everybody (all members, all other
 * parents); called from inside hub_take; the frame's bytes are valid during the call. ST_MEMORY. */
enum status hub_open(int hosts, int ranks, void (*emit)(void *context, const struct frame *frame), void *context, struct hub **hub);
void hub_close(struct hub *hub); /* accepts NULL */

/* One frame from a member or a parent. ST_DATA when it breaks the protocol (a type that does not travel up, a member that does not exist, a second
 * contribution to one gather): the sender is to be treated as failed; nothing was changed. ST_MEMORY. That a frame comes from the member it names
 * is the parent's to check: it knows which socket is whose. */
enum status hub_take(struct hub *hub, const struct frame *frame);

/* Who has not contributed to the open gather of a scope yet (the first of them). -1: none is open. */
int hub_awaited(const struct hub *hub, enum control_scope scope);
/* An abort was emitted. */
bool hub_aborted(const struct hub *hub);
