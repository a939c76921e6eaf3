/* Any bytes on a socket of the control channel, in pieces: refused, or frames. Each frame goes to a hub, and what the hub emits to members; a hello and
 * a welcome are also read as parents read them. Whatever comes, the hub's word stays one: exchanges in order, one stop, one abort. */
#include "core/comm/frame.h"
#include "core/comm/greeting.h"
#include "core/comm/hub.h"
#include "core/comm/member.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HOSTS = 2, RANKS = 3, PAYLOAD_MAX = 4096 };

static void check(bool condition)
{
	if (!condition)
		abort();
}

struct watch {
	struct member rank, host;
	uint64_t gathers[SCOPES], stop_at;
	bool stop_known, canceled;
	char abort[STATUS_MESSAGE_BYTES_MAX];
	size_t abort_bytes;
	bool aborted, done;
};

static void member_hears(struct member *member, const struct frame *frame)
{
	enum member_event event;
	const uint8_t *blobs[RANKS];
	size_t counts[RANKS];
	bool waits;
	/* Waits for whatever comes, so that it is looked at. */
	member->gathering = true;
	member->gathers = frame->number + 1;
	enum status status = member_take(member, frame, &event);
	check(status == ST_OK || (status == ST_DEVICE && status_message()[0] != '\0'));
	if (status == ST_OK && event == MEMBER_GATHERED && member_blobs(member, frame->bytes, frame->count, blobs, counts) == ST_OK)
		for (int i = 0; i < member->members; i++)
			for (size_t k = 0; k < counts[i]; k++)
				check(blobs[i] + k >= frame->bytes && blobs[i] + k < frame->bytes + frame->count);
	if (member->scope == SCOPE_RANKS)
		(void)member_pass(member, &waits);
}

static void hub_emits(void *context, const struct frame *frame)
{
	struct watch *watch = context;
	check(frame->count <= FRAME_PAYLOAD_BYTES_MAX && frame->scope < SCOPES);
	switch ((int)frame->type) {
	case FRAME_GATHER:
		check(!watch->aborted && !watch->canceled && frame->number == watch->gathers[frame->scope]++);
		break;
	case FRAME_STOP:
		check(!watch->canceled && (!watch->stop_known || watch->stop_at == frame->number));
		watch->stop_known = true;
		watch->stop_at = frame->number;
		break;
	case FRAME_CANCEL:
		check(!watch->stop_known);
		watch->canceled = true;
		break;
	case FRAME_ABORT:
		check(frame->count < sizeof watch->abort && frame->number > ST_STOPPED);
		check(!watch->aborted || (watch->abort_bytes == frame->count && memcmp(watch->abort, frame->bytes, frame->count) == 0));
		watch->aborted = true;
		watch->abort_bytes = frame->count;
		memcpy(watch->abort, frame->bytes, frame->count);
		break;
	case FRAME_DONE:
		check(!watch->done && !watch->aborted);
		watch->done = true;
		break;
	default:
		check(frame->type == FRAME_HOLD || frame->type == FRAME_HURRY);
	}
	member_hears(&watch->rank, frame);
	member_hears(&watch->host, frame);
}

static void read_as_parents(const struct frame *frame)
{
	struct greeting greeting, again;
	int devices[HOSTS];
	if (frame->type == FRAME_HELLO && greeting_read(frame->bytes, frame->count, &greeting) == ST_OK) {
		struct text text = {0};
		check(greeting_compare(&greeting, &greeting) == ST_OK);
		if (greeting.protocol == GREETING_PROTOCOL) {
			check(greeting_write(&greeting, &text) == ST_OK && text.length == frame->count && memcmp(text.data, frame->bytes, text.length) == 0);
			again = greeting;
			again.settings = "epochs=10\nseed=1\n";
			if (greeting_compare(&again, &greeting) != ST_OK)
				check(greeting_compare(&greeting, &again) == ST_SETTINGS);
		}
		text_free(&text);
	}
	if (frame->type == FRAME_WELCOME && welcome_read(frame->bytes, frame->count, HOSTS, devices) == ST_OK)
		for (int i = 0; i < HOSTS; i++)
			check(devices[i] >= 1 && devices[i] <= GREETING_DEVICES_MAX);
}

static void take_frames(struct frame_stream *stream, struct hub *hub, struct watch *watch)
{
	struct frame frame;
	while (frame_stream_next(stream, &frame)) {
		check(frame.count <= PAYLOAD_MAX && (unsigned)frame.type < FRAME_TYPES && frame.scope < SCOPES);
		uint64_t gathers = watch->gathers[frame.scope];
		read_as_parents(&frame);
		enum status status = hub_take(hub, &frame);
		check(status == ST_OK || (status == ST_DATA && watch->gathers[frame.scope] == gathers));
		check(hub_aborted(hub) == watch->aborted);
		check(hub_awaited(hub, frame.scope) < (frame.scope == SCOPE_HOSTS ? HOSTS : RANKS));
		member_hears(&watch->rank, &frame);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	int fds[2];
	struct frame_stream *stream = NULL;
	struct hub *hub = NULL;
	struct watch watch = {.rank = {.scope = SCOPE_RANKS, .number = 1, .members = RANKS}, .host = {.scope = SCOPE_HOSTS, .members = HOSTS}};
	if (count < 1)
		return 0;
	size_t piece = bytes[0] + 1u;
	bool one = bytes[0] % 2 == 1;
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	check(frame_stream_open(fds[0], PAYLOAD_MAX, &stream) == ST_OK && hub_open(HOSTS, RANKS, hub_emits, &watch, &hub) == ST_OK);
	enum status status = ST_OK;
	for (size_t at = 1; at < count && status == ST_OK; at += piece) {
		size_t n = count - at < piece ? count - at : piece;
		check(write(fds[1], bytes + at, n) == (ssize_t)n);
		for (size_t read = 0; read < (one ? n : 1) && status == ST_OK; read++) {
			status = one ? frame_stream_read_one(stream) : frame_stream_read(stream);
			take_frames(stream, hub, &watch);
		}
	}
	close(fds[1]);
	check(status == ST_OK || status == ST_DEVICE);
	check(status != ST_OK || frame_stream_read(stream) == ST_DEVICE);
	frame_stream_close(stream);
	hub_close(hub);
	return 0;
}
