/* hub.c: see hub.h. Each kind of frame that travels up has one function here. */
#include "core/comm/hub.h"

#include "core/comm/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is known of one member. */
struct seat {
	bool hello, done;
	bool held;
	bool gave; /* to the open gather */
	uint8_t *blob;
	size_t blob_bytes;
};

struct table {
	struct seat *seats;
	uint32_t count, hellos, gave, held, done;
	uint64_t gathers; /* complete ones: the number of the next */
	size_t gather_bytes; /* of the open one's frame */
};

struct hub {
	struct table tables[SCOPES];
	void (*emit)(void *context, const struct frame *frame);
	void *context;
	bool wished, canceled, hurry, stop_known, aborted;
	uint64_t held_max;
	struct frame abort; /* points to sentence */
	char sentence[STATUS_MESSAGE_BYTES_MAX];
};

static const char *const scope_words[SCOPES] = {"host", "rank"};

enum status hub_open(int hosts, int ranks, void (*emit)(void *context, const struct frame *frame), void *context, struct hub **hub)
{
	MUST(hosts >= 1 && ranks >= 1);
	struct hub *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for the control channel's hub");
	made->emit = emit;
	made->context = context;
	made->tables[SCOPE_HOSTS].count = (uint32_t)hosts;
	made->tables[SCOPE_RANKS].count = (uint32_t)ranks;
	for (int scope = 0; scope < SCOPES; scope++) {
		made->tables[scope].seats = calloc(made->tables[scope].count, sizeof *made->tables[scope].seats);
		if (made->tables[scope].seats == NULL) {
			hub_close(made);
			return FAIL(ST_MEMORY, "no memory for the control channel's hub");
		}
	}
	*hub = made;
	return ST_OK;
}

void hub_close(struct hub *hub)
{
	if (hub == NULL)
		return;
	for (int scope = 0; scope < SCOPES; scope++) {
		struct table *table = &hub->tables[scope];
		for (uint32_t i = 0; table->seats != NULL && i < table->count; i++)
			free(table->seats[i].blob);
		free(table->seats);
	}
	free(hub);
}

static void emit(struct hub *hub, enum frame_type type, uint64_t number)
{
	struct frame frame = {.type = type, .number = number};
	hub->emit(hub->context, &frame);
}

/* --- abort ----------------------------------------------------------------------------------------------------------- */

static void abort_all(struct hub *hub, const struct frame *frame)
{
	hub->aborted = true;
	hub->abort = *frame;
	hub->abort.count = frame->count < sizeof hub->sentence ? frame->count : sizeof hub->sentence - 1;
	if (hub->abort.count > 0)
		memcpy(hub->sentence, frame->bytes, hub->abort.count);
	hub->abort.bytes = (const uint8_t *)hub->sentence;
	hub->emit(hub->context, &hub->abort);
}

static enum status take_abort(struct hub *hub, const struct frame *frame)
{
	if (frame->number <= ST_STOPPED || frame->number >= STATUSES)
		return FAIL(ST_DATA, "%s %u aborts with status %llu, which is no failure", scope_words[frame->scope], frame->member,
			(unsigned long long)frame->number);
	if (!hub->aborted)
		abort_all(hub, frame);
	return ST_OK;
}

/* --- stop ------------------------------------------------------------------------------------------------------------ */

/* What everybody must do by what is known; for all when it changes, and again for one who comes late (a second time does no harm). */
static void emit_stop(struct hub *hub)
{
	if (hub->canceled)
		emit(hub, FRAME_CANCEL, 0);
	else if (hub->stop_known)
		emit(hub, FRAME_STOP, hub->held_max);
	else if (hub->wished)
		emit(hub, FRAME_HOLD, 0);
	if (hub->hurry)
		emit(hub, FRAME_HURRY, 0);
}

static bool stop_decided(struct hub *hub)
{
	const struct table *ranks = &hub->tables[SCOPE_RANKS];
	if (!hub->wished || hub->canceled || hub->stop_known || ranks->held < ranks->count)
		return false;
	hub->stop_known = true;
	return true;
}

static enum status take_wish(struct hub *hub, const struct frame *frame)
{
	const struct table *ranks = &hub->tables[SCOPE_RANKS];
	bool first = !hub->wished, hurry = frame->number >= 2 && !hub->hurry;
	hub->wished = true;
	hub->hurry |= hurry;
	if (first && ranks->hellos < ranks->count)
		hub->canceled = true;
	if (first)
		stop_decided(hub);
	if ((first || hurry) && !hub->aborted)
		emit_stop(hub);
	return ST_OK;
}

static enum status take_held(struct hub *hub, const struct frame *frame)
{
	struct table *ranks = &hub->tables[SCOPE_RANKS];
	struct seat *seat = &ranks->seats[frame->member];
	if (frame->scope != SCOPE_RANKS || !seat->hello || seat->held)
		return FAIL(ST_DATA, "%s %u tells of its boundaries out of turn", scope_words[frame->scope], frame->member);
	seat->held = true;
	ranks->held++;
	if (frame->number > hub->held_max)
		hub->held_max = frame->number;
	if (stop_decided(hub) && !hub->aborted)
		emit_stop(hub);
	return ST_OK;
}

static enum status take_hello(struct hub *hub, const struct frame *frame)
{
	struct table *table = &hub->tables[frame->scope];
	struct seat *seat = &table->seats[frame->member];
	if (seat->hello)
		return FAIL(ST_DATA, "%s %u says hello twice", scope_words[frame->scope], frame->member);
	seat->hello = true;
	table->hellos++;
	if (hub->aborted)
		hub->emit(hub->context, &hub->abort);
	else
		emit_stop(hub);
	return ST_OK;
}

static enum status take_done(struct hub *hub, const struct frame *frame)
{
	struct table *hosts = &hub->tables[SCOPE_HOSTS];
	if (frame->scope != SCOPE_HOSTS || hosts->seats[frame->member].done)
		return FAIL(ST_DATA, "%s %u says out of turn that it is done", scope_words[frame->scope], frame->member);
	hosts->seats[frame->member].done = true;
	hosts->done++;
	if (hosts->done == hosts->count && !hub->aborted)
		emit(hub, FRAME_DONE, 0);
	return ST_OK;
}

/* --- gather ---------------------------------------------------------------------------------------------------------- */

/* All contributions are there: sends them to all and begins the next. */
static enum status gather_emit(struct hub *hub, enum control_scope scope)
{
	struct table *table = &hub->tables[scope];
	uint8_t *bytes = malloc(table->gather_bytes);
	if (bytes == NULL)
		return FAIL(ST_MEMORY, "no memory for what %u %ss exchange (%zu bytes)", table->count, scope_words[scope], table->gather_bytes);
	size_t at = 0;
	for (uint32_t i = 0; i < table->count; i++) {
		struct seat *seat = &table->seats[i];
		wire_put_u32(bytes + at, (uint32_t)seat->blob_bytes);
		at += 4;
		if (seat->blob_bytes > 0)
			memcpy(bytes + at, seat->blob, seat->blob_bytes);
		at += seat->blob_bytes;
		free(seat->blob);
		seat->blob = NULL;
		seat->blob_bytes = 0;
		seat->gave = false;
	}
	struct frame frame = {.type = FRAME_GATHER, .scope = (uint8_t)scope, .number = table->gathers, .bytes = bytes, .count = at};
	table->gathers++;
	table->gave = 0;
	table->gather_bytes = 0;
	hub->emit(hub->context, &frame);
	free(bytes);
	return ST_OK;
}

static enum status take_gather(struct hub *hub, const struct frame *frame)
{
	struct table *table = &hub->tables[frame->scope];
	struct seat *seat = &table->seats[frame->member];
	const char *word = scope_words[frame->scope];
	if (hub->aborted || hub->canceled)
		return ST_OK; /* sent before the sender knew */
	if (!seat->hello || seat->gave || frame->number != table->gathers)
		return FAIL(ST_DATA, "%s %u contributes to exchange %llu out of turn: exchange %llu is open", word, frame->member,
			(unsigned long long)frame->number, (unsigned long long)table->gathers);
	if (frame->count > CONTROL_BLOB_BYTES_MAX)
		return FAIL(ST_DATA, "%s %u contributes %zu bytes, at most %d may be", word, frame->member, frame->count, CONTROL_BLOB_BYTES_MAX);
	size_t gather_bytes = table->gather_bytes + 4 + frame->count;
	if (gather_bytes > FRAME_PAYLOAD_BYTES_MAX)
		return FAIL(ST_DATA, "what %u %ss exchange is more than %d bytes", table->count, word, FRAME_PAYLOAD_BYTES_MAX);
	if (frame->count > 0) {
		seat->blob = malloc(frame->count);
		if (seat->blob == NULL)
			return FAIL(ST_MEMORY, "no memory for what %s %u contributes (%zu bytes)", word, frame->member, frame->count);
		memcpy(seat->blob, frame->bytes, frame->count);
	}
	seat->blob_bytes = frame->count;
	seat->gave = true;
	table->gather_bytes = gather_bytes;
	table->gave++;
	enum status status = table->gave < table->count ? ST_OK : gather_emit(hub, frame->scope);
	if (status != ST_OK) {
		table->gave--;
		table->gather_bytes -= 4 + frame->count;
		free(seat->blob);
		*seat = (struct seat){.hello = true, .done = seat->done, .held = seat->held};
	}
	return status;
}

static enum status take_late(struct hub *hub, const struct frame *frame)
{
	const struct table *table = &hub->tables[frame->scope];
	struct wire wire = {.bytes = frame->bytes, .count = frame->count};
	uint64_t waited_us = wire_take_u64(&wire);
	if (wire.short_of || frame->number > table->gathers)
		return FAIL(ST_DATA, "%s %u waits for an exchange that was never opened", scope_words[frame->scope], frame->member);
	/* The answer may be under way to it. */
	if (hub->aborted || hub->canceled || frame->number < table->gathers || !table->seats[frame->member].gave)
		return ST_OK;
	uint32_t missing = 0;
	while (table->seats[missing].gave)
		missing++;
	uint32_t others = table->count - table->gave - 1;
	char sentence[STATUS_MESSAGE_BYTES_MAX], more[32] = "";
	if (others > 0)
		snprintf(more, sizeof more, " (and %u more)", others);
	int length = snprintf(sentence, sizeof sentence, "%s %u%s did not come to exchange %llu, where %s %u waited for %.0f s", scope_words[frame->scope],
		missing, more, (unsigned long long)frame->number, scope_words[frame->scope], frame->member, (double)waited_us * 1e-6);
	struct frame abort_frame = {.type = FRAME_ABORT, .scope = frame->scope, .member = missing, .number = ST_DEVICE, .bytes = (const uint8_t *)sentence,
		.count = (size_t)length};
	abort_all(hub, &abort_frame);
	return ST_OK;
}

/* --- the frames that travel up --------------------------------------------------------------------------------------- */

static enum status take_beat(struct hub *hub, const struct frame *frame)
{
	(void)hub, (void)frame; /* who is alive is seen by the clock of the parents */
	return ST_OK;
}

static enum status (*const takers[FRAME_TYPES])(struct hub *hub, const struct frame *frame) = {
	[FRAME_HELLO] = take_hello,
	[FRAME_BEAT] = take_beat,
	[FRAME_GATHER] = take_gather,
	[FRAME_LATE] = take_late,
	[FRAME_WISH] = take_wish,
	[FRAME_HELD] = take_held,
	[FRAME_ABORT] = take_abort,
	[FRAME_DONE] = take_done,
};

enum status hub_take(struct hub *hub, const struct frame *frame)
{
	if ((unsigned)frame->type >= FRAME_TYPES || takers[frame->type] == NULL)
		return FAIL(ST_DATA, "a frame of type %u does not go to the hub", (unsigned)frame->type);
	if (frame->scope >= SCOPES || frame->member >= hub->tables[frame->scope].count)
		return FAIL(ST_DATA, "there is no member %u of scope %u", frame->member, frame->scope);
	return takers[frame->type](hub, frame);
}

int hub_awaited(const struct hub *hub, enum control_scope scope)
{
	const struct table *table = &hub->tables[scope];
	if (table->gave == 0)
		return -1;
	int missing = 0;
	while (table->seats[missing].gave)
		missing++;
	return missing;
}

bool hub_aborted(const struct hub *hub)
{
	return hub->aborted;
}
