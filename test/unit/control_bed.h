/* control_bed.h: the other side of the control channel for tests: a thread that plays all parents at once. It holds one socket a member and
 * the hub, hands every frame that comes up to the hub and what the hub emits to every member. */
#pragma once

#include "core/comm/control.h"
#include "core/comm/frame.h"
#include "core/comm/hub.h"

#include "test/unit/scratch.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

enum { BED_MEMBERS_MAX = 16 };

struct control_bed {
	int members;
	enum control_scope scope;
	int fds[BED_MEMBERS_MAX];      /* the members' ends; give one to control_open, or to a fork */
	struct frame_stream *streams[BED_MEMBERS_MAX];
	struct hub *hub;
	pthread_mutex_t lock;          /* guards hub and streams */
	pthread_t thread;
	atomic_bool ends;
	atomic_uint beats, broken;     /* broken: frames that the hub refused */
	atomic_ullong beat_number;     /* of the last beat */
};

static inline void control_bed_emit(void *context, const struct frame *frame)
{
	struct control_bed *bed = context;
	for (int i = 0; i < bed->members; i++)
		if (bed->streams[i] != NULL)
			OK(frame_stream_send(bed->streams[i], frame));
}

/* What a parent would send: a wish, an abort. */
static inline void control_bed_take(struct control_bed *bed, const struct frame *frame)
{
	pthread_mutex_lock(&bed->lock);
	if (frame->type == FRAME_BEAT) {
		bed->beats++;
		bed->beat_number = frame->number;
	}
	if (hub_take(bed->hub, frame) != ST_OK)
		bed->broken++;
	pthread_mutex_unlock(&bed->lock);
}

/* Somebody was asked to stop. */
static inline void control_bed_wish(struct control_bed *bed)
{
	control_bed_take(bed, &(const struct frame){.type = FRAME_WISH, .scope = SCOPE_HOSTS, .number = 1});
}

/* A frame past the hub, to everybody. */
static inline void control_bed_send(struct control_bed *bed, const struct frame *frame)
{
	pthread_mutex_lock(&bed->lock);
	control_bed_emit(bed, frame);
	pthread_mutex_unlock(&bed->lock);
}

static inline void *control_bed_run(void *context)
{
	struct control_bed *bed = context;
	while (!bed->ends) {
		struct pollfd fds[BED_MEMBERS_MAX];
		pthread_mutex_lock(&bed->lock);
		for (int i = 0; i < bed->members; i++)
			fds[i] = (struct pollfd){.fd = bed->streams[i] != NULL ? frame_stream_fd(bed->streams[i]) : -1,
				.events = (short)(POLLIN | (bed->streams[i] != NULL && frame_stream_pending(bed->streams[i]) ? POLLOUT : 0))};
		pthread_mutex_unlock(&bed->lock);
		if (poll(fds, (nfds_t)bed->members, 5) <= 0)
			continue;
		for (int i = 0; i < bed->members; i++) {
			struct frame frame;
			pthread_mutex_lock(&bed->lock);
			struct frame_stream *stream = bed->streams[i];
			bool ready = stream != NULL && fds[i].revents != 0;
			if (ready)
				frame_stream_flush(stream);
			bool alive = ready && frame_stream_read(stream) == ST_OK;
			pthread_mutex_unlock(&bed->lock);
			while (alive && bed->streams[i] != NULL && frame_stream_next(stream, &frame))
				control_bed_take(bed, &frame);
			pthread_mutex_lock(&bed->lock);
			if (ready && !alive && bed->streams[i] != NULL) {
				frame_stream_close(stream);
				bed->streams[i] = NULL;
			}
			pthread_mutex_unlock(&bed->lock);
		}
	}
	return NULL;
}

/* The members are hosts or ranks, by scope. Between open and start a process may fork. */
static inline struct control_bed *control_bed_open(enum control_scope scope, int members)
{
	struct control_bed *bed = calloc(1, sizeof *bed);
	assert_non_null(bed);
	bed->scope = scope;
	bed->members = members;
	OK(hub_open(scope == SCOPE_HOSTS ? members : 1, members, control_bed_emit, bed, &bed->hub));
	for (int i = 0; i < members; i++) {
		int pair[2];
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		bed->fds[i] = pair[1];
		OK(frame_stream_open(pair[0], CONTROL_BLOB_BYTES_MAX, &bed->streams[i]));
	}
	pthread_mutex_init(&bed->lock, NULL);
	return bed;
}

static inline void control_bed_start(struct control_bed *bed)
{
	assert_int_equal(pthread_create(&bed->thread, NULL, control_bed_run, bed), 0);
}

/* The parent of one member is gone. */
static inline void control_bed_cut(struct control_bed *bed, int member)
{
	pthread_mutex_lock(&bed->lock);
	shutdown(frame_stream_fd(bed->streams[member]), SHUT_RDWR);
	pthread_mutex_unlock(&bed->lock);
}

/* Call it when the members have closed. */
static inline void control_bed_close(struct control_bed *bed)
{
	bed->ends = true;
	pthread_join(bed->thread, NULL);
	pthread_mutex_destroy(&bed->lock);
	for (int i = 0; i < bed->members; i++)
		frame_stream_close(bed->streams[i]);
	hub_close(bed->hub);
	free(bed);
}

static inline struct control *control_bed_member(struct control_bed *bed, int member, int64_t gather_timeout_us)
{
	struct control *control = NULL;
	struct control_config config = {.fd = bed->fds[member], .scope = bed->scope, .member = member, .members = bed->members,
		.gather_timeout_us = gather_timeout_us};
	OK(control_open(&config, &control));
	return control;
}
