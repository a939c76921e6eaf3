/* parent.c: see parent.h. One loop, parent_watch; what it does in each round is in the order of the functions below. */
#include "train/ranks/parent.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "train/ranks/judge.h"
#include "train/ranks/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUND_MS = 100, BEAT_US = 1000000, STALL_US = 1000000, REAP_MS = 10 };

int64_t parent_leave_us(const struct parent *parent)
{
	return parent->config->peer_timeout_us / 4;
}

/* --- who is who ------------------------------------------------------------------------------------------------------- */

static int host_of(const struct parent *parent, enum control_scope scope, int number)
{
	if (scope == SCOPE_HOSTS)
		return number >= 0 && number < parent->hosts ? number : 0;
	int host = 0;
	for (int before = parent->devices_of_hosts[0]; host + 1 < parent->hosts && number >= before; before += parent->devices_of_hosts[host])
		host++;
	return host;
}

/* "host algo-2 (rank 3): ", or "" where there is only one. */
static void name_member(const struct parent *parent, enum control_scope scope, int number, char *to, size_t to_bytes)
{
	const char *host = parent->config->resource->hosts[host_of(parent, scope, number)];
	if (scope == SCOPE_RANKS && parent->world > 1)
		snprintf(to, to_bytes, "host %s (rank %d): ", host, number);
	else if (parent->hosts > 1)
		snprintf(to, to_bytes, "host %s: ", host);
	else
		to[0] = '\0';
}

/* The hub believes a member what it says of itself, so whose socket a frame came over must be checked before. */
static bool comes_from_host(const struct parent *parent, const struct frame *frame, int host)
{
	uint32_t members = (uint32_t)(frame->scope == SCOPE_HOSTS ? parent->hosts : parent->world);
	return frame->member < members && (frame->type == FRAME_ABORT || host_of(parent, (enum control_scope)frame->scope, (int)frame->member) == host);
}

/* --- frames down ------------------------------------------------------------------------------------------------------ */

static void link_break(struct link *link, const char *why)
{
	if (link->broken[0] == '\0')
		snprintf(link->broken, sizeof link->broken, "%s", why);
}

static void link_send(struct link *link, const struct frame *frame)
{
	if (link->stream != NULL && link->broken[0] == '\0' && frame_stream_send(link->stream, frame) != ST_OK)
		link_break(link, status_message());
}

static bool goes_to(const struct frame *frame, const struct child *child)
{
	switch ((int)frame->type) {
	case FRAME_GATHER: return frame->scope == (uint8_t)child->scope;
	case FRAME_CANCEL:
	case FRAME_HOLD:
	case FRAME_STOP:
	case FRAME_HURRY:
	case FRAME_ABORT: return true;
	default: return false;
	}
}

static void cause_set(struct parent *parent, const struct frame *frame, bool confirmed)
{
	struct cause *cause = &parent->cause;
	if (cause->confirmed)
		return;
	if (cause->status == ST_OK)
		parent->leave_us = parent->now_us + parent_leave_us(parent);
	cause->status = frame->number > ST_STOPPED && frame->number < STATUSES ? (enum status)frame->number : ST_INTERNAL;
	cause->host = host_of(parent, (enum control_scope)frame->scope, (int)frame->member);
	cause->confirmed = confirmed;
	snprintf(cause->sentence, sizeof cause->sentence, "%.*s", (int)frame->count, frame->count > 0 ? (const char *)frame->bytes : "");
}

/* A frame for everybody. */
static void spread(struct parent *parent, const struct frame *frame)
{
	for (int i = 0; i < parent->children_count; i++) {
		struct child *child = &parent->children[i];
		/* Who does not take it is about to end, or will be found silent. */
		if (child->stream != NULL && goes_to(frame, child) && frame_stream_send(child->stream, frame) != ST_OK)
			child_close_stream(child);
	}
	for (int i = 1; parent->hub != NULL && i < parent->hosts; i++)
		link_send(&parent->links[i], frame);
	if (frame->type == FRAME_ABORT)
		cause_set(parent, frame, true);
	else if (frame->type == FRAME_DONE) {
		parent->done = true;
		parent->leave_us = parent->now_us + parent_leave_us(parent);
	} else if (frame->type == FRAME_CANCEL)
		parent->canceled = true;
	if ((frame->type == FRAME_HOLD || frame->type == FRAME_CANCEL) && !parent->stopping) {
		parent->stopping = true;
		log_info(frame->type == FRAME_HOLD ? "asked to stop: all ranks end after the same step" : "asked to stop before training began");
	}
}

/* The same for an abort, whose sentence gets the name of the member in front. */
static void spread_abort(struct parent *parent, const struct frame *frame)
{
	char name[HOST_BYTES + 32], sentence[STATUS_MESSAGE_BYTES_MAX];
	name_member(parent, (enum control_scope)frame->scope, (int)frame->member, name, sizeof name);
	snprintf(sentence, sizeof sentence, "%s%.*s", name, (int)frame->count, frame->count > 0 ? (const char *)frame->bytes : "");
	struct frame named = *frame;
	named.bytes = (const uint8_t *)sentence;
	named.count = strlen(sentence);
	spread(parent, &named);
}

static void hub_emits(void *context, const struct frame *frame)
{
	if (frame->type == FRAME_ABORT)
		spread_abort(context, frame);
	else
		spread(context, frame);
}

/* --- frames up -------------------------------------------------------------------------------------------------------- */

static enum status send_up(struct parent *parent, const struct frame *frame)
{
	if (parent->hub != NULL)
		return hub_take(parent->hub, frame);
	link_send(&parent->links[0], frame);
	return ST_OK;
}

void parent_accuse(struct parent *parent, enum control_scope scope, int number, enum status status, const char *sentence)
{
	if (parent->cause.status != ST_OK)
		return; /* what comes later follows from it */
	char text[STATUS_MESSAGE_BYTES_MAX];
	snprintf(text, sizeof text, "%s", sentence);
	const struct frame frame = {.type = FRAME_ABORT, .scope = (uint8_t)scope, .member = (uint32_t)number, .number = (uint64_t)status,
		.bytes = (const uint8_t *)text, .count = strlen(text)};
	/* The hub spreads it. Elsewhere this host's own ranks need not wait for the hub, which may know of an earlier cause. */
	if (send_up(parent, &frame) != ST_OK || parent->hub == NULL) {
		spread_abort(parent, &frame);
		parent->cause.confirmed = parent->hub != NULL || (scope == SCOPE_HOSTS && number == 0); /* whom it is about will not confirm it */
	}
}

static void accuse_self(struct parent *parent, enum status status, const char *sentence)
{
	parent_accuse(parent, SCOPE_HOSTS, parent->host, status, sentence);
}

static void progress_note(struct parent *parent, const struct frame *frame)
{
	uint64_t *passed = &parent->passed[frame->member];
	*passed = frame->number > *passed ? frame->number : *passed;
	if (frame->number <= parent->passed_max)
		return;
	parent->passed_max = frame->number;
	parent->progress_us = parent->now_us;
}

static void pass_up(struct parent *parent, const struct frame *frame, enum control_scope scope, int number)
{
	if (parent->hub != NULL && frame->scope == SCOPE_RANKS && frame->type == FRAME_BEAT)
		progress_note(parent, frame);
	if (parent->hub != NULL && frame->type == FRAME_HELD)
		parent->leaving = true;
	if (frame->type == FRAME_DONE && frame->member < (uint32_t)parent->hosts)
		parent->links[frame->member].done = true;
	enum status status = send_up(parent, frame);
	if (status == ST_MEMORY)
		accuse_self(parent, status, status_message());
	else if (status != ST_OK)
		parent_accuse(parent, scope, number, ST_INTERNAL, status_message());
}

static void tell(struct parent *parent, enum frame_type type, uint64_t number)
{
	const struct frame frame = {.type = type, .scope = SCOPE_HOSTS, .member = (uint32_t)parent->host, .number = number};
	pass_up(parent, &frame, SCOPE_HOSTS, parent->host);
}

void parent_stop(struct parent *parent)
{
	tell(parent, FRAME_WISH, 1);
}

void parent_done(struct parent *parent)
{
	tell(parent, FRAME_DONE, 0);
}

void parent_host_left(struct parent *parent, int host)
{
	const struct frame frame = {.type = FRAME_DONE, .scope = SCOPE_HOSTS, .member = (uint32_t)host};
	if (parent->hub == NULL)
		spread(parent, &frame);
	else if (!parent->links[host].done)
		pass_up(parent, &frame, SCOPE_HOSTS, host);
}

/* --- a round: time, signals, beats ------------------------------------------------------------------------------------- */

/* A gap in our own running is taken out of everybody's time. */
static void clock_read(struct parent *parent)
{
	int64_t now_us = clock_us(), gap_us = parent->now_us > 0 ? now_us - parent->now_us : 0;
	parent->now_us = now_us;
	if (gap_us < STALL_US)
		return;
	for (int i = 0; i < parent->children_count; i++)
		parent->children[i].heard_us += gap_us;
	for (int i = 0; i < parent->hosts; i++)
		parent->links[i].heard_us += gap_us;
	parent->progress_us += gap_us;
	parent->leave_us += gap_us;
}

static void pass_signals(struct parent *parent)
{
	int wishes = stop_signals();
	if (wishes <= parent->wished || parent->cause.status != ST_OK)
		return;
	parent->wished = wishes;
	tell(parent, FRAME_WISH, (uint64_t)wishes);
}

static void beat(struct parent *parent)
{
	if (parent->now_us < parent->beat_us)
		return;
	parent->beat_us = parent->now_us + BEAT_US;
	const struct frame frame = {.type = FRAME_BEAT, .scope = SCOPE_HOSTS, .member = (uint32_t)parent->host};
	for (int i = 0; i < parent->hosts; i++)
		link_send(&parent->links[i], &frame);
}

/* --- a round: waiting and reading -------------------------------------------------------------------------------------- */

static void read_child(struct parent *parent, struct child *child)
{
	struct frame frame;
	frame_stream_flush(child->stream);
	enum status status = frame_stream_read(child->stream);
	child->heard_us = parent->now_us;
	while (child->stream != NULL && frame_stream_next(child->stream, &frame))
		if (frame.scope == (uint8_t)child->scope && (int)frame.member == child->number)
			pass_up(parent, &frame, child->scope, child->number);
		else
			parent_accuse(parent, child->scope, child->number, ST_INTERNAL, "speaks for somebody else on the control channel");
	if (status != ST_OK)
		child_close_stream(child); /* why, its end will tell */
}

static void read_link(struct parent *parent, int host)
{
	struct link *link = &parent->links[host];
	struct frame frame;
	frame_stream_flush(link->stream);
	enum status status = frame_stream_read(link->stream);
	if (status != ST_OK)
		link_break(link, status_message());
	link->heard_us = parent->now_us;
	while (frame_stream_next(link->stream, &frame))
		if (frame.type == FRAME_BEAT && frame.scope == SCOPE_HOSTS)
			continue;
		else if (parent->hub == NULL)
			spread(parent, &frame);
		else if (comes_from_host(parent, &frame, host))
			pass_up(parent, &frame, SCOPE_HOSTS, host);
		else
			parent_accuse(parent, SCOPE_HOSTS, host, ST_INTERNAL, "speaks for somebody else on the control channel");
}

static struct pollfd poll_stream(const struct frame_stream *stream, bool usable)
{
	usable = usable && stream != NULL;
	return (struct pollfd){.fd = usable ? frame_stream_fd(stream) : -1,
		.events = (short)(POLLIN | (usable && frame_stream_pending(stream) ? POLLOUT : 0))};
}

static void wait_and_read(struct parent *parent)
{
	struct pollfd *of_links = parent->polled, *of_streams = of_links + parent->hosts, *of_words = of_streams + parent->children_count;
	int wait_ms = ROUND_MS;
	for (int i = 0; i < parent->hosts; i++)
		of_links[i] = poll_stream(parent->links[i].stream, parent->links[i].broken[0] == '\0');
	for (int i = 0; i < parent->children_count; i++) {
		const struct child *child = &parent->children[i];
		of_streams[i] = poll_stream(child->stream, true);
		of_words[i] = (struct pollfd){.fd = child->words_fd, .events = POLLIN};
		if (child->words_fd < 0 && !child->ended)
			wait_ms = REAP_MS; /* a process closes its files shortly before it can be waited for */
	}
	if (poll(parent->polled, (nfds_t)(parent->hosts + 2 * parent->children_count), wait_ms) <= 0)
		return;
	for (int i = 0; i < parent->hosts; i++)
		if (of_links[i].fd >= 0 && of_links[i].revents != 0)
			read_link(parent, i);
	for (int i = 0; i < parent->children_count; i++) {
		struct child *child = &parent->children[i];
		if (of_streams[i].fd >= 0 && of_streams[i].revents != 0 && child->stream != NULL)
			read_child(parent, child);
		if (of_words[i].fd >= 0 && of_words[i].revents != 0 && !words_read(&child->words, child->words_fd)) {
			close(child->words_fd);
			child->words_fd = -1;
		}
	}
}

void parent_watch(struct parent *parent, bool (*finished)(const struct parent *parent))
{
	for (int i = 0; i < parent->children_count; i++)
		if (parent->children[i].heard_us == 0)
			parent->children[i].heard_us = clock_us();
	for (;;) {
		clock_read(parent);
		pass_signals(parent);
		beat(parent);
		judge_all(parent);
		if (finished(parent))
			return;
		wait_and_read(parent);
	}
}

bool parent_children_ended(const struct parent *parent)
{
	for (int i = 0; i < parent->children_count; i++)
		if (!parent->children[i].ended)
			return parent->gave_up;
	return true;
}

bool parent_agreed(const struct parent *parent)
{
	if (parent->cause.status != ST_OK)
		return parent->cause.confirmed || parent->links[0].stream == NULL || parent->now_us >= parent->leave_us;
	return parent->done;
}

bool parent_alone(const struct parent *parent)
{
	if (parent->hub == NULL || parent->now_us >= parent->leave_us)
		return true;
	for (int i = 0; i < parent->hosts; i++)
		if (parent->links[i].stream != NULL)
			return false;
	return true;
}

/* --- its life --------------------------------------------------------------------------------------------------------- */

enum status parent_open(const struct ranks_config *config, struct rendezvous *rendezvous, const int *devices_of_hosts, struct parent *parent)
{
	struct parent made = {.config = config, .host = config->resource->rank, .hosts = config->resource->hosts_count, .devices_of_hosts = devices_of_hosts};
	size_t hosts = (size_t)made.hosts, children = (size_t)config->devices;
	for (int i = 0; i < made.hosts; i++) {
		made.first_rank += i < made.host ? devices_of_hosts[i] : 0;
		made.world += devices_of_hosts[i];
	}
	made.now_us = clock_us();
	made.children = calloc(children, sizeof *made.children);
	made.links = calloc(hosts, sizeof *made.links);
	made.polled = calloc(hosts + 2 * children, sizeof *made.polled);
	made.passed = calloc((size_t)made.world, sizeof *made.passed);
	if (made.children == NULL || made.links == NULL || made.polled == NULL || made.passed == NULL) {
		parent_close(&made);
		return FAIL(ST_MEMORY, "no memory to watch over %d ranks of %d hosts", made.world, made.hosts);
	}
	for (int i = 0; i < made.hosts && rendezvous->streams != NULL; i++) {
		struct link *link = &made.links[i];
		link->stream = rendezvous->streams[i];
		link->heard_us = made.now_us;
		rendezvous->streams[i] = NULL;
		if (link->stream != NULL)
			frame_stream_limit(link->stream, made.host == 0 ? CONTROL_BLOB_BYTES_MAX : FRAME_PAYLOAD_BYTES_MAX);
	}
	*parent = made;
	if (made.host != 0)
		return ST_OK;
	enum status status = hub_open(made.hosts, made.world, hub_emits, parent, &parent->hub);
	if (status != ST_OK)
		parent_close(parent);
	return status;
}

void parent_close(struct parent *parent)
{
	for (int i = 0; i < parent->children_count; i++)
		child_close(&parent->children[i]);
	for (int i = 0; parent->links != NULL && i < parent->hosts; i++)
		frame_stream_close(parent->links[i].stream);
	hub_close(parent->hub);
	free(parent->children);
	free(parent->links);
	free(parent->polled);
	free(parent->passed);
	*parent = (struct parent){0};
}
