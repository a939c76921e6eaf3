/* control.c: see control.h. A lock over member.c's state; the thread reads the socket, beats and keeps the clock; any thread may send. */
#include "core/comm/control.h"

#include "core/base/clock.h"
#include "core/comm/frame.h"
#include "core/comm/member.h"
#include "core/base/own_thread.h"
#include "core/comm/wire.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	BEAT_US = 1000000,
	STALL_US = 2 * BEAT_US,   /* a longer gap in our own loop is time in which this process did not run: it counts as this much */
	LATE_US = 10 * BEAT_US,   /* how long the hub may take to name who is missing */
	FAREWELL_US = BEAT_US,    /* how long control_close waits for the parent to read */
};

struct control {
	struct control_config config;
	struct frame_stream *stream;
	int wake;                /* an eventfd: something changed that the thread must see */
	pthread_t thread;
	pthread_mutex_t lock;    /* guards what follows, and stream */
	pthread_cond_t changed;  /* member, or what a gather waits for */
	struct member member;
	bool closing;
	bool lost;               /* the socket is of no use any more */
	int64_t ran_us;          /* how long the thread has watched, without stalls */
	int64_t gather_us;       /* ran_us when the open gather began; negative: it began after the last look */
	bool gather_late;        /* LATE was sent */
	uint8_t *gathered;       /* the result's bytes */
	size_t gathered_bytes;
};

static void wake(struct control *control)
{
	uint64_t one = 1;
	/* Fails only when it is awake anyway. */
	while (write(control->wake, &one, sizeof one) < 0 && errno == EINTR)
		;
}

/* --- with the lock held ---------------------------------------------------------------------------------------------- */

static void aborted(struct control *control)
{
	pthread_cond_broadcast(&control->changed);
	wake(control);
}

/* The parent cannot be spoken to any more; why is this thread's sentence. */
static void lose(struct control *control)
{
	char sentence[STATUS_MESSAGE_BYTES_MAX];
	snprintf(sentence, sizeof sentence, "the parent process of this host cannot be heard any more: %s", status_message());
	control->lost = true;
	if (member_abort(&control->member, sentence))
		aborted(control);
}

static void say(struct control *control, const struct frame *frame)
{
	if (control->lost)
		return;
	if (frame_stream_send(control->stream, frame) != ST_OK)
		lose(control);
	else if (frame_stream_pending(control->stream))
		wake(control); /* for the thread to wait until it can be sent */
}

static void say_plain(struct control *control, enum frame_type type, uint64_t number)
{
	struct frame frame = member_frame(&control->member, type, number);
	say(control, &frame);
}

static void keep_gathered(struct control *control, const struct frame *frame)
{
	control->gathered_bytes = frame->count;
	control->gathered = malloc(frame->count + 1);
	if (control->gathered != NULL && frame->count > 0) /* else control_gather finds none */
		memcpy(control->gathered, frame->bytes, frame->count);
}

static void take_frames(struct control *control)
{
	enum status status = frame_stream_read(control->stream);
	struct frame frame;
	enum member_event event;
	while (status == ST_OK && frame_stream_next(control->stream, &frame)) {
		status = member_take(&control->member, &frame, &event);
		if (status != ST_OK)
			break;
		if (event == MEMBER_ANSWERS)
			say_plain(control, FRAME_HELD, control->member.passed);
		else if (event == MEMBER_ABORTED)
			aborted(control);
		else if (event == MEMBER_GATHERED)
			keep_gathered(control, &frame);
	}
	if (status != ST_OK)
		lose(control);
	pthread_cond_broadcast(&control->changed);
}

/* Tells the hub when the open gather takes too long, and gives up when there is no answer. */
static void watch_gather(struct control *control)
{
	if (!control->member.gathering || control->lost)
		return;
	if (control->gather_us < 0)
		control->gather_us = control->ran_us;
	int64_t waited_us = control->ran_us - control->gather_us;
	if (!control->gather_late && waited_us >= control->config.gather_timeout_us) {
		uint8_t bytes[8];
		wire_put_u64(bytes, (uint64_t)waited_us);
		struct frame frame = member_frame(&control->member, FRAME_LATE, control->member.gathers - 1);
		frame.bytes = bytes;
		frame.count = sizeof bytes;
		control->gather_late = true;
		say(control, &frame);
	} else if (control->gather_late && waited_us >= control->config.gather_timeout_us + LATE_US) {
		char sentence[128];
		snprintf(sentence, sizeof sentence, "exchange %llu did not end within %.0f s, and nobody tells who is missing",
			(unsigned long long)control->member.gathers - 1, (double)waited_us * 1e-6);
		if (member_abort(&control->member, sentence))
			aborted(control);
	}
}

/* When the thread must look again, in µs from now. */
static int64_t rest_us(const struct control *control, int64_t beat_us)
{
	int64_t rest = beat_us;
	if (control->member.gathering && !control->gather_late) {
		int64_t left = control->gather_us + control->config.gather_timeout_us - control->ran_us;
		rest = left < rest ? left : rest;
	}
	return rest > 0 ? rest : 0;
}

/* --- the thread ------------------------------------------------------------------------------------------------------ */

/* Waits, without the lock, until something can be read or sent, somebody wakes us or the time is over. True: the socket is ready. */
static bool wait_ready(struct control *control, int64_t wait_us)
{
	bool pending = !control->lost && frame_stream_pending(control->stream);
	struct pollfd fds[2] = {{.fd = control->wake, .events = POLLIN},
		{.fd = control->lost ? -1 : frame_stream_fd(control->stream), .events = (short)(POLLIN | (pending ? POLLOUT : 0))}};
	pthread_mutex_unlock(&control->lock);
	int ready = poll(fds, 2, (int)((wait_us + 999) / 1000));
	pthread_mutex_lock(&control->lock);
	uint64_t wakes;
	if (ready > 0 && fds[0].revents != 0)
		while (read(control->wake, &wakes, sizeof wakes) < 0 && errno == EINTR)
			;
	return ready > 0 && fds[1].revents != 0 && !control->lost;
}

static void *run(void *context)
{
	struct control *control = context;
	pthread_mutex_lock(&control->lock);
	int64_t last_us = clock_us(), beat_us = last_us, end_us = INT64_MAX;
	for (;;) {
		int64_t now_us = clock_us();
		control->ran_us += now_us - last_us < STALL_US ? now_us - last_us : STALL_US;
		last_us = now_us;
		if (control->closing && end_us == INT64_MAX)
			end_us = now_us + FAREWELL_US;
		if (control->closing && (control->lost || !frame_stream_pending(control->stream) || now_us >= end_us))
			break;
		if (now_us >= beat_us) {
			say_plain(control, FRAME_BEAT, control->member.passed);
			beat_us = now_us + BEAT_US;
		}
		watch_gather(control);
		if (wait_ready(control, rest_us(control, beat_us - now_us))) {
			frame_stream_flush(control->stream);
			take_frames(control);
		}
	}
	pthread_mutex_unlock(&control->lock);
	return NULL;
}

enum status control_open(const struct control_config *config, struct control **control)
{
	MUST(config->member >= 0 && config->member < config->members);
	struct frame_stream *stream = NULL;
	TRY(frame_stream_open(config->fd, FRAME_PAYLOAD_BYTES_MAX, &stream));
	struct control *made = calloc(1, sizeof *made);
	int waker = made != NULL ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
	if (waker < 0) {
		free(made);
		frame_stream_close(stream);
		return FAIL(ST_MEMORY, "no memory for the control channel");
	}
	made->config = *config;
	made->stream = stream;
	made->wake = waker;
	made->member = (struct member){.scope = config->scope, .number = config->member, .members = config->members};
	pthread_condattr_t attributes;
	MUST(pthread_condattr_init(&attributes) == 0 && pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
	MUST(pthread_cond_init(&made->changed, &attributes) == 0 && pthread_mutex_init(&made->lock, NULL) == 0);
	pthread_condattr_destroy(&attributes);
	pthread_mutex_lock(&made->lock);
	say_plain(made, FRAME_HELLO, 0);
	take_frames(made); /* the parent may be gone already */
	enum status status = member_check(&made->member);
	int error = status == ST_OK ? own_thread_start(&made->thread, run, made) : 0;
	pthread_mutex_unlock(&made->lock);
	if (error != 0)
		status = FAIL(ST_MEMORY, "the control channel's thread cannot be started: %s", strerror(error));
	if (status == ST_OK) {
		*control = made;
		return ST_OK;
	}
	pthread_cond_destroy(&made->changed);
	pthread_mutex_destroy(&made->lock);
	close(made->wake);
	frame_stream_close(made->stream);
	free(made);
	return status;
}

void control_close(struct control *control)
{
	if (control == NULL)
		return;
	pthread_mutex_lock(&control->lock);
	if (control->config.scope == SCOPE_RANKS && !control->member.holding) {
		control->member.holding = true;
		say_plain(control, FRAME_HELD, control->member.passed);
	}
	control->closing = true;
	wake(control);
	pthread_mutex_unlock(&control->lock);
	pthread_join(control->thread, NULL);
	pthread_cond_destroy(&control->changed);
	pthread_mutex_destroy(&control->lock);
	close(control->wake);
	frame_stream_close(control->stream);
	free(control->gathered);
	free(control);
}

/* --- calls ----------------------------------------------------------------------------------------------------------- */

/* Makes `blobs` of the bytes, which it owns from then on. */
static enum status make_blobs(const struct member *member, uint8_t *bytes, size_t count, struct control_blobs *blobs)
{
	struct control_blobs made = {.bytes = bytes, .blobs = calloc((size_t)member->members, sizeof *made.blobs),
		.counts = calloc((size_t)member->members, sizeof *made.counts)};
	enum status status = made.blobs != NULL && made.counts != NULL ? member_blobs(member, bytes, count, made.blobs, made.counts)
		: FAIL(ST_MEMORY, "no memory for what %d members exchange", member->members);
	if (status == ST_OK && blobs != NULL)
		*blobs = made;
	else
		control_blobs_free(&made);
	return status;
}

enum status control_gather(struct control *control, const void *bytes, size_t count, struct control_blobs *blobs)
{
	MUST(count <= CONTROL_BLOB_BYTES_MAX);
	struct member *member = &control->member;
	enum status status = ST_OK;
	pthread_mutex_lock(&control->lock);
	MUST(!member->gathering);
	if (!member->aborted && !member->canceled) {
		struct frame frame = member_frame(member, FRAME_GATHER, member->gathers++);
		frame.bytes = bytes;
		frame.count = count;
		member->gathering = true;
		control->gather_us = -1;
		control->gather_late = false;
		say(control, &frame);
		wake(control);
		while (member->gathering && !member->aborted && !member->canceled)
			pthread_cond_wait(&control->changed, &control->lock);
	}
	uint8_t *gathered = control->gathered;
	control->gathered = NULL;
	/* A complete one counts, whatever came right after it: so it does for all. */
	if (gathered != NULL)
		status = ST_OK;
	else if (member->aborted)
		status = member_check(member);
	else if (member->canceled)
		status = FAIL(ST_STOPPED, "stopped on request before training began");
	else
		status = FAIL(ST_MEMORY, "no memory for what %d members exchanged (%zu bytes)", member->members, control->gathered_bytes);
	member->gathering = false;
	size_t gathered_bytes = control->gathered_bytes;
	pthread_mutex_unlock(&control->lock);
	return status == ST_OK ? make_blobs(member, gathered, gathered_bytes, blobs) : status;
}

void control_blobs_free(struct control_blobs *blobs)
{
	free(blobs->bytes);
	free(blobs->blobs);
	free(blobs->counts);
	*blobs = (struct control_blobs){0};
}

enum status control_pass(struct control *control)
{
	MUST(control->config.scope == SCOPE_RANKS);
	bool waits;
	pthread_mutex_lock(&control->lock);
	enum status status = member_pass(&control->member, &waits);
	while (status == ST_OK && waits) {
		pthread_cond_wait(&control->changed, &control->lock);
		status = member_pass(&control->member, &waits);
	}
	pthread_mutex_unlock(&control->lock);
	return status;
}

bool control_stopping(struct control *control)
{
	pthread_mutex_lock(&control->lock);
	bool stopping = control->member.stopping;
	pthread_mutex_unlock(&control->lock);
	return stopping;
}

bool control_hurry(struct control *control)
{
	pthread_mutex_lock(&control->lock);
	bool hurry = control->member.hurry;
	pthread_mutex_unlock(&control->lock);
	return hurry;
}

enum status control_check(struct control *control)
{
	return control_wait_abort(control, 0);
}

enum status control_wait_abort(struct control *control, int64_t wait_us)
{
	int64_t end_us = clock_us() + wait_us;
	struct timespec end = {.tv_sec = end_us / 1000000, .tv_nsec = end_us % 1000000 * 1000};
	pthread_mutex_lock(&control->lock);
	while (!control->member.aborted && wait_us > 0)
		if (pthread_cond_timedwait(&control->changed, &control->lock, &end) == ETIMEDOUT)
			break;
	enum status status = member_check(&control->member);
	pthread_mutex_unlock(&control->lock);
	return status;
}
