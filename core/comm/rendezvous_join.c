/* rendezvous_join.c: every host but the first: finds the first one, introduces itself, waits until all are there. See rendezvous.h. */
#include "core/comm/rendezvous_sides.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/comm/tcp.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PAUSE_US_MIN = 100000, PAUSE_US_MAX = 5000000, CONNECT_US = 5000000, ANSWER_US = 2000000 };

/* How one attempt ended. */
enum outcome { OUTCOME_ALL_THERE, OUTCOME_AGAIN, OUTCOME_END };

struct joiner {
	const struct rendezvous_config *config;
	int64_t end_us;
	struct text hello; /* the payload */
	int attempts;
	struct rendezvous *rendezvous;
};

static bool stopped(const struct joiner *joiner)
{
	return joiner->config->stopped != NULL && joiner->config->stopped();
}

static double timeout_s(const struct joiner *joiner)
{
	return (double)joiner->config->timeout_us * 1e-6;
}

/* The answer to our hello; *outcome tells what a failure means. */
static enum status take_answer(struct joiner *joiner, const struct frame *frame, enum outcome *outcome)
{
	const char *first = joiner->config->hosts[0];
	*outcome = OUTCOME_AGAIN;
	if (frame->type == FRAME_WELCOME) {
		TRY(welcome_read(frame->bytes, frame->count, joiner->config->hosts_count, joiner->rendezvous->devices));
		*outcome = OUTCOME_ALL_THERE;
		return ST_OK;
	}
	if (frame->type != FRAME_REFUSED)
		return FAIL(ST_DEVICE, "host %s answers with something else", first);
	int count = (int)(frame->count < STATUS_MESSAGE_BYTES_MAX ? frame->count : STATUS_MESSAGE_BYTES_MAX);
	const char *sentence = frame->count > 0 ? (const char *)frame->bytes : "";
	if (frame->number == ST_OK)
		return FAIL(ST_DEVICE, "host %s turns us away: %.*s", first, count, sentence);
	*outcome = OUTCOME_END;
	/* Only these two say more than that the first host gave up. */
	enum status status = frame->number == ST_STOPPED || frame->number == ST_SETTINGS ? (enum status)frame->number : ST_DEVICE;
	return FAIL(status, "%.*s", count, sentence);
}

/* Introduces us on a fresh connection and waits for the answer. */
static enum status introduce(struct joiner *joiner, struct frame_stream *stream, enum outcome *outcome)
{
	struct frame hello = {.type = FRAME_HELLO, .member = (uint32_t)joiner->config->host, .bytes = (const uint8_t *)text_string(&joiner->hello),
		.count = joiner->hello.length};
	const char *first = joiner->config->hosts[0];
	/* The first host began before it could be reached, so it gives up before this, and says who is missing. We may have begun long before it. */
	int64_t end_us = clock_us() + joiner->config->timeout_us + ANSWER_US;
	*outcome = OUTCOME_AGAIN;
	TRY(frame_stream_send(stream, &hello));
	for (;;) {
		struct pollfd fd = {.fd = frame_stream_fd(stream), .events = (short)(POLLIN | (frame_stream_pending(stream) ? POLLOUT : 0))};
		int ready = poll(&fd, 1, WAIT_SLICE_MS);
		if (stopped(joiner)) {
			*outcome = OUTCOME_END;
			/* So that the others do not wait for us; whether it arrives or not, we leave. */
			(void)frame_stream_send(stream, &(struct frame){.type = FRAME_WISH, .member = (uint32_t)joiner->config->host, .number = 1});
			return FAIL(ST_STOPPED, "stopped on request while waiting for the other hosts");
		}
		if (ready > 0) {
			struct frame answer;
			frame_stream_flush(stream);
			if (frame_stream_read_one(stream) != ST_OK)
				return FAIL(ST_DEVICE, "host %s left: %s", first, status_message());
			if (frame_stream_next(stream, &answer))
				return take_answer(joiner, &answer, outcome);
		}
		if (clock_us() >= end_us) {
			*outcome = OUTCOME_END;
			return FAIL(ST_DEVICE, "host %s was reached, but not all %d hosts were there within %.0f s (rendezvous_timeout_seconds)", first,
				joiner->config->hosts_count, timeout_s(joiner));
		}
	}
}

static enum status try_address(struct joiner *joiner, const struct sockaddr_storage *address, enum outcome *outcome)
{
	int64_t now_us = clock_us(), connect_end_us = now_us + CONNECT_US < joiner->end_us ? now_us + CONNECT_US : joiner->end_us;
	char text[TCP_ADDRESS_BYTES];
	int fd;
	struct frame_stream *stream = NULL;
	*outcome = OUTCOME_AGAIN;
	tcp_address_text(address, text);
	TRY(tcp_connect(address, joiner->config->interface, connect_end_us, joiner->config->stopped, &fd));
	tcp_own_address(fd, joiner->rendezvous->address);
	TRY(frame_stream_open(fd, GREETING_BYTES_MAX, &stream));
	log_info("rendezvous: host %s reached at %s (attempt %d); waiting until all %d hosts are there", joiner->config->hosts[0], text, joiner->attempts,
		joiner->config->hosts_count);
	enum status status = introduce(joiner, stream, outcome);
	if (status == ST_OK) {
		frame_stream_limit(stream, FRAME_PAYLOAD_BYTES_MAX);
		joiner->rendezvous->streams[0] = stream;
	} else
		frame_stream_close(stream);
	return status;
}

/* Once through name and addresses. */
static enum status attempt(struct joiner *joiner, enum outcome *outcome)
{
	const struct rendezvous_config *config = joiner->config;
	struct resolved resolved;
	*outcome = OUTCOME_AGAIN;
	joiner->attempts++;
	TRY(resolve(config->hosts[0], config->port, config->look_up != NULL ? config->look_up : resolve_by_system, joiner->end_us, config->stopped, &resolved));
	if (resolved.error != 0)
		return FAIL(ST_DEVICE, "its name cannot be resolved: %s", resolve_error(&resolved));
	enum status status = ST_OK;
	for (int i = 0; i < resolved.count; i++) {
		status = try_address(joiner, &resolved.addresses[i], outcome);
		if (status == ST_OK || *outcome == OUTCOME_END || status == ST_STOPPED || clock_us() >= joiner->end_us)
			break;
	}
	return status;
}

/* False: a stop was asked for. */
static bool pause_us(const struct joiner *joiner, int64_t us)
{
	for (int64_t end_us = clock_us() + us, now_us; (now_us = clock_us()) < end_us;) {
		int64_t slice_us = end_us - now_us < WAIT_SLICE_MS * 1000 ? end_us - now_us : WAIT_SLICE_MS * 1000;
		if (stopped(joiner))
			return false;
		nanosleep(&(struct timespec){.tv_nsec = (long)slice_us * 1000}, NULL);
	}
	return true;
}

static enum status join(struct joiner *joiner)
{
	const char *first = joiner->config->hosts[0];
	int64_t pause = PAUSE_US_MIN;
	for (;;) {
		enum outcome outcome;
		enum status status = attempt(joiner, &outcome);
		if (status == ST_OK || status == ST_STOPPED || status == ST_MEMORY || outcome == OUTCOME_END)
			return status;
		int64_t left_us = joiner->end_us - clock_us();
		if (left_us <= 0)
			return FAIL(ST_DEVICE, "host %s was not reached within %.0f s (rendezvous_timeout_seconds, %d attempts); the last time: %s", first,
				timeout_s(joiner), joiner->attempts, status_message());
		int64_t wait_us = pause < left_us ? pause : left_us;
		log_info("rendezvous: attempt %d to reach host %s: %s; again in %.1f s", joiner->attempts, first, status_message(), (double)wait_us * 1e-6);
		if (!pause_us(joiner, wait_us))
			return FAIL(ST_STOPPED, "stopped on request while trying to reach host %s", first);
		pause = 2 * pause < PAUSE_US_MAX ? 2 * pause : PAUSE_US_MAX;
	}
}

enum status rendezvous_join(const struct rendezvous_config *config, const struct greeting *own, int64_t end_us, struct rendezvous *rendezvous)
{
	struct joiner joiner = {.config = config, .end_us = end_us, .rendezvous = rendezvous};
	enum status status = greeting_write(own, &joiner.hello);
	if (status == ST_OK)
		status = join(&joiner);
	text_free(&joiner.hello);
	return status;
}
