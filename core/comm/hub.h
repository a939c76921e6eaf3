/* hub.h: what the parents of a training decide together: whose gather is complete, where all stop, who failed first.
 *
 * In: frames that members and other parents sent. Out: frames for everybody. The hub proper lives in the first host's parent; the other
 * parents pass frames up and down unchanged. There are no sockets and no clock here, so every order of events can be tested.
 *
 * Stop: a wish makes the hub send HOLD. Each rank answers HELD with the number of boundaries it has passed, and from then on waits at its next
 * one. When all have answered, STOP carries the largest number: all go on to it and stop there. Gradient sums keep ranks within a step of
 * each other, so nobody waits long, and a step costs no message while nobody wishes. A wish before all ranks have said hello stops at 0. */
#pragma once

#include "core/comm/control.h"
#include "core/comm/frame.h"

struct hub;

/* hosts and ranks: how many members each scope has. emit: what to do with a frame for everybody (all members, all other parents); called
 * from inside hub_take; the frame's bytes are valid during the call. ST_MEMORY. */
enum status hub_open(int hosts, int ranks, void (*emit)(void *context, const struct frame *frame), void *context, struct hub **hub);
void hub_close(struct hub *hub); /* accepts NULL */

/* One frame from a member or a parent. ST_DATA when it breaks the protocol (an unknown type, a member that does not exist, a second contribution to one
 * gather): the sender is to be treated as failed. ST_MEMORY. */
enum status hub_take(struct hub *hub, const struct frame *frame);

/* Who has not contributed to the oldest open gather of a scope yet: for the sentence of a gather that takes too long. -1: none is open. */
int hub_awaited(const struct hub *hub, enum control_scope scope);
