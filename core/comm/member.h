/* member.h: what a member makes of the frames that come down, and where it stops: the hub's counterpart, without sockets, clock and threads.
 *
 * control.c adds those; the tests run hub and members together through many orders of events. */
#pragma once

#include "core/comm/control.h"
#include "core/comm/frame.h"

struct member {
	enum control_scope scope;
	int number, members;
	uint64_t passed;    /* boundaries */
	uint64_t gathers;   /* begun */
	bool gathering;     /* waits for the last begun */
	bool holding;       /* HELD was sent */
	bool stop_known;    /* at stop_at */
	uint64_t stop_at;
	bool canceled, stopping, hurry, aborted;
	char sentence[STATUS_MESSAGE_BYTES_MAX]; /* once aborted */
};

/* A frame from this member: to send. */
struct frame member_frame(const struct member *member, enum frame_type type, uint64_t number);

enum member_event {
	MEMBER_NOTHING,
	MEMBER_ANSWERS,  /* send FRAME_HELD with `passed` */
	MEMBER_GATHERED, /* the frame's payload is the result of the gather waited for */
	MEMBER_ABORTED,  /* for the first time */
};

/* One frame that came down. ST_DEVICE when it breaks the protocol. */
enum status member_take(struct member *member, const struct frame *frame, enum member_event *event);
/* Aborted here: the parent is gone or does not make sense. False when it was aborted before. */
bool member_abort(struct member *member, const char *sentence);

/* ST_DEVICE with the sentence once aborted. */
enum status member_check(const struct member *member);
/* control_pass; *waits: not to be answered yet, ask again after the next frame. */
enum status member_pass(struct member *member, bool *waits);

/* Takes the payload of a complete gather apart: `members` blobs, each within the bytes. ST_DEVICE when it is malformed. */
enum status member_blobs(const struct member *member, const uint8_t *bytes, size_t count, const uint8_t **blobs, size_t *counts);
