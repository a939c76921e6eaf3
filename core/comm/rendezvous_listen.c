/* rendezvous_listen.c: the first host: waits for the others, looks at who they are, and tells all when all are there. See rendezvous.h.
 *
 * A guest is a connection that has not said yet who it is. There are GUESTS_MAX at most, the oldest goes when one more comes, so strangers
 * can take neither memory nor descriptors without bound, nor the place of a host for long. */
#define _GNU_SOURCE /* accept4 */
#include "core/comm/rendezvous_sides.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/comm/control.h"
#include "core/comm/tcp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	GUESTS_MAX = 64,
	SILENT_US_MAX = 10000000,
	STRANGER_LINES_MAX = 100, /* in the log */
	NAMES_MAX = 5,            /* of missing hosts in a sentence */
};

struct guest {
	struct frame_stream *stream;
	int64_t since_us;
	char address[TCP_ADDRESS_BYTES];
};

struct listener {
	const struct rendezvous_config *config;
	const struct greeting *own;
	struct rendezvous *rendezvous; /* streams[i]: host i is there */
	int fds[TCP_LISTENERS_MAX], fds_count;
	struct guest guests[GUESTS_MAX]; /* the oldest first */
	int guests_count;
	int strangers;
	struct pollfd *polled; /* listening sockets, guests, hosts */
};

static void refuse(struct frame_stream *stream, enum status number, const char *sentence)
{
	/* Whether it is heard or not, the connection ends. */
	(void)frame_stream_send(stream, &(struct frame){.type = FRAME_REFUSED, .number = number, .bytes = (const uint8_t *)sentence, .count = strlen(sentence)});
}

/* --- guests ---------------------------------------------------------------------------------------------------------- */

static void guest_drop(struct listener *listener, int i)
{
	frame_stream_close(listener->guests[i].stream);
	listener->guests_count--;
	memmove(&listener->guests[i], &listener->guests[i + 1], (size_t)(listener->guests_count - i) * sizeof listener->guests[0]);
}

static void guest_turn_away(struct listener *listener, int i, const char *why)
{
	listener->strangers++;
	if (listener->strangers <= STRANGER_LINES_MAX)
		log_warning("rendezvous: %s is turned away: %s", listener->guests[i].address, why);
	if (listener->strangers == STRANGER_LINES_MAX)
		log_warning("rendezvous: that was the %dth; more are turned away without a line", STRANGER_LINES_MAX);
	guest_drop(listener, i);
}

/* For one that speaks as smelt does: it is told, and may try again. */
static void guest_refuse(struct listener *listener, int i, const char *why)
{
	refuse(listener->guests[i].stream, ST_OK, why);
	guest_turn_away(listener, i, why);
}

/* "algo-3, algo-4 and 2 more" of the hosts that are not there; returns how many. */
static int missing_hosts(const struct listener *listener, char *names, size_t bytes)
{
	int missing = 0;
	size_t used = 0;
	names[0] = '\0';
	for (int i = 1; i < listener->config->hosts_count; i++) {
		if (listener->rendezvous->streams[i] != NULL)
			continue;
		if (missing++ < NAMES_MAX && used < bytes)
			used += (size_t)snprintf(names + used, bytes - used, "%s%.80s", missing > 1 ? ", " : "", listener->config->hosts[i]);
	}
	if (missing > NAMES_MAX && used < bytes)
		snprintf(names + used, bytes - used, " and %d more", missing - NAMES_MAX);
	return missing;
}

/* The guest is host `host` from now on. */
static void guest_settle(struct listener *listener, int i, int host, uint32_t devices)
{
	char names[512];
	struct guest *guest = &listener->guests[i];
	frame_stream_limit(guest->stream, CONTROL_BLOB_BYTES_MAX);
	listener->rendezvous->streams[host] = guest->stream;
	listener->rendezvous->devices[host] = (int)devices;
	int missing = missing_hosts(listener, names, sizeof names);
	log_info("rendezvous: host %s is here (%s, %u %s)%s%s", listener->config->hosts[host], guest->address, devices, devices == 1 ? "device" : "devices",
		missing > 0 ? "; missing: " : "; all are", names);
	guest->stream = NULL;
	guest_drop(listener, i);
}

/* What a guest said first. A failure is the end for all. */
static enum status guest_greets(struct listener *listener, int i, const struct frame *frame)
{
	const struct rendezvous_config *config = listener->config;
	struct greeting theirs;
	char why[STATUS_MESSAGE_BYTES_MAX];
	if (frame->type != FRAME_HELLO || greeting_read(frame->bytes, frame->count, &theirs) != ST_OK) {
		guest_turn_away(listener, i, frame->type != FRAME_HELLO ? "it says something else before hello" : status_message());
		return ST_OK;
	}
	if (strcmp(theirs.job, config->job) != 0) {
		snprintf(why, sizeof why, "it belongs to training job \"%.200s\", host %.200s to \"%.200s\"", theirs.job, config->hosts[0], config->job);
		guest_refuse(listener, i, why);
		return ST_OK;
	}
	int host = config->hosts_count - 1;
	while (host > 0 && strcmp(config->hosts[host], theirs.host) != 0)
		host--;
	if (host == 0) {
		snprintf(why, sizeof why, "host %.200s is none of those that host %.200s waits for", theirs.host, config->hosts[0]);
		guest_refuse(listener, i, why);
		return ST_OK;
	}
	enum status status = greeting_compare(listener->own, &theirs);
	if (status != ST_OK) {
		refuse(listener->guests[i].stream, status, status_message());
		return status;
	}
	if (listener->rendezvous->streams[host] != NULL) {
		snprintf(why, sizeof why, "host %.200s is there already", theirs.host);
		guest_refuse(listener, i, why);
		return ST_OK;
	}
	guest_settle(listener, i, host, theirs.devices);
	return ST_OK;
}

static enum status guest_read(struct listener *listener, int i)
{
	struct frame frame;
	if (frame_stream_read_one(listener->guests[i].stream) != ST_OK)
		guest_turn_away(listener, i, status_message());
	else if (frame_stream_next(listener->guests[i].stream, &frame))
		return guest_greets(listener, i, &frame);
	else if (clock_us() - listener->guests[i].since_us >= SILENT_US_MAX)
		guest_turn_away(listener, i, "it did not introduce itself in time");
	return ST_OK;
}

/* --- hosts that are there -------------------------------------------------------------------------------------------- */

static enum status host_read(struct listener *listener, int host)
{
	struct frame_stream **stream = &listener->rendezvous->streams[host];
	const char *name = listener->config->hosts[host];
	struct frame frame;
	enum status status = frame_stream_read_one(*stream);
	if (status == ST_OK && !frame_stream_next(*stream, &frame))
		return ST_OK;
	if (status == ST_OK && frame.type == FRAME_WISH)
		return FAIL(ST_STOPPED, "stopped on request of host %s while waiting for all hosts", name);
	log_warning("rendezvous: host %s left again (%s); waiting for it", name, status == ST_OK ? "it says something out of turn" : status_message());
	frame_stream_close(*stream);
	*stream = NULL;
	return ST_OK;
}

/* --- the wait -------------------------------------------------------------------------------------------------------- */

static enum status accept_guest(struct listener *listener, int fd)
{
	int made = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (made < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
		if (listener->guests_count == 0)
			return FAIL(ST_MEMORY, "no connection of another host can be taken: %s", strerror(errno));
		guest_turn_away(listener, 0, "too many connect");
		return ST_OK;
	}
	if (made < 0)
		return ST_OK; /* it went before we came to it */
	if (listener->guests_count == GUESTS_MAX)
		guest_turn_away(listener, 0, "too many connect");
	struct guest *guest = &listener->guests[listener->guests_count];
	guest->since_us = clock_us();
	tcp_prepare(made);
	tcp_peer_address(made, guest->address);
	TRY(frame_stream_open(made, GREETING_BYTES_MAX, &guest->stream));
	listener->guests_count++;
	return ST_OK;
}

/* Waits for something to happen and deals with all of it. */
static enum status turn(struct listener *listener)
{
	int count = 0, guests = listener->guests_count;
	for (int i = 0; i < listener->fds_count; i++)
		listener->polled[count++] = (struct pollfd){.fd = listener->fds[i], .events = POLLIN};
	for (int i = 0; i < guests; i++)
		listener->polled[count++] = (struct pollfd){.fd = frame_stream_fd(listener->guests[i].stream), .events = POLLIN};
	for (int i = 1; i < listener->config->hosts_count; i++) {
		const struct frame_stream *stream = listener->rendezvous->streams[i];
		listener->polled[count++] = (struct pollfd){.fd = stream != NULL ? frame_stream_fd(stream) : -1, .events = POLLIN};
	}
	int ready = poll(listener->polled, (nfds_t)count, WAIT_SLICE_MS);
	/* Hosts first: one that left may be back among the guests. Guests from the last on, so that a drop moves none that is still to be read; they are
	 * read ready or not, for the sake of those that are silent too long. */
	const struct pollfd *hosts = listener->polled + listener->fds_count + guests;
	for (int i = 1; ready > 0 && i < listener->config->hosts_count; i++)
		if (hosts[i - 1].revents != 0)
			TRY(host_read(listener, i));
	for (int i = guests - 1; i >= 0; i--)
		TRY(guest_read(listener, i));
	for (int i = 0; ready > 0 && i < listener->fds_count; i++)
		if (listener->polled[i].revents != 0)
			TRY(accept_guest(listener, listener->fds[i]));
	return ST_OK;
}

static enum status welcome_all(struct listener *listener)
{
	struct rendezvous *rendezvous = listener->rendezvous;
	struct text text = {0};
	rendezvous->devices[0] = listener->config->devices;
	enum status status = welcome_write(rendezvous->devices, rendezvous->hosts_count, &text);
	struct frame welcome = {.type = FRAME_WELCOME, .bytes = (const uint8_t *)text_string(&text), .count = text.length};
	/* One that leaves at this moment is noticed on the control channel, as at any later one. */
	for (int i = 1; status == ST_OK && i < rendezvous->hosts_count; i++)
		(void)frame_stream_send(rendezvous->streams[i], &welcome);
	tcp_own_address(frame_stream_fd(rendezvous->streams[1]), rendezvous->address);
	text_free(&text);
	return status;
}

static enum status await_all(struct listener *listener, int64_t end_us)
{
	char names[512];
	while (missing_hosts(listener, names, sizeof names) > 0) {
		if (listener->config->stopped != NULL && listener->config->stopped())
			return FAIL(ST_STOPPED, "stopped on request while waiting for all hosts (missing: %s)", names);
		if (clock_us() >= end_us)
			return FAIL(ST_DEVICE, "not all %d hosts came within %.0f s (rendezvous_timeout_seconds); missing: %s", listener->config->hosts_count,
				(double)listener->config->timeout_us * 1e-6, names);
		TRY(turn(listener));
	}
	return welcome_all(listener);
}

enum status rendezvous_listen(const struct rendezvous_config *config, const struct greeting *own, int64_t end_us, struct rendezvous *rendezvous)
{
	struct listener *listener = calloc(1, sizeof *listener);
	if (listener == NULL)
		return FAIL(ST_MEMORY, "no memory for a rendezvous of %d hosts", config->hosts_count);
	listener->config = config;
	listener->own = own;
	listener->rendezvous = rendezvous;
	listener->polled = calloc((size_t)(TCP_LISTENERS_MAX + GUESTS_MAX + config->hosts_count), sizeof *listener->polled);
	enum status status = listener->polled != NULL ? tcp_listen(config->port, config->interface, listener->fds, &listener->fds_count)
		: FAIL(ST_MEMORY, "no memory for a rendezvous of %d hosts", config->hosts_count);
	if (status == ST_OK) {
		log_info("rendezvous: waiting for %d other %s on port %d", config->hosts_count - 1, config->hosts_count == 2 ? "host" : "hosts", config->port);
		status = await_all(listener, end_us);
	}
	/* The hosts that are there end with the same sentence. */
	for (int i = 1; status != ST_OK && i < config->hosts_count; i++)
		if (rendezvous->streams[i] != NULL)
			refuse(rendezvous->streams[i], status, status_message());
	while (listener->guests_count > 0)
		guest_drop(listener, listener->guests_count - 1);
	for (int i = 0; i < listener->fds_count; i++)
		close(listener->fds[i]);
	free(listener->polled);
	free(listener);
	return status;
}
