/* member.c: see member.h. */
#include "core/comm/member.h"

#include "core/comm/wire.h"

#include <stdio.h>
#include <string.h>

struct frame member_frame(const struct member *member, enum frame_type type, uint64_t number)
{
	return (struct frame){.type = type, .scope = (uint8_t)member->scope, .member = (uint32_t)member->number, .number = number};
}

bool member_abort(struct member *member, const char *sentence)
{
	if (member->aborted)
		return false;
	member->aborted = true;
	snprintf(member->sentence, sizeof member->sentence, "%s", sentence);
	return true;
}

enum status member_take(struct member *member, const struct frame *frame, enum member_event *event)
{
	*event = MEMBER_NOTHING;
	switch ((int)frame->type) {
	case FRAME_BEAT:
	case FRAME_DONE:
		return ST_OK;
	case FRAME_CANCEL:
		member->canceled = member->stopping = true;
		return ST_OK;
	case FRAME_HOLD:
		member->stopping = true;
		if (member->scope == SCOPE_RANKS && !member->holding) {
			member->holding = true;
			*event = MEMBER_ANSWERS;
		}
		return ST_OK;
	case FRAME_STOP:
		if (member->scope == SCOPE_RANKS && (!member->holding || member->passed > frame->number))
			return FAIL(ST_DEVICE, "rank %d is to stop at boundary %llu, but was not asked before or has passed %llu", member->number,
				(unsigned long long)frame->number, (unsigned long long)member->passed);
		member->stopping = member->stop_known = true;
		member->stop_at = frame->number;
		return ST_OK;
	case FRAME_HURRY:
		member->stopping = member->hurry = true;
		return ST_OK;
	case FRAME_ABORT: {
		char sentence[STATUS_MESSAGE_BYTES_MAX];
		snprintf(sentence, sizeof sentence, "%.*s", (int)(frame->count < sizeof sentence ? frame->count : sizeof sentence - 1),
			frame->count > 0 ? (const char *)frame->bytes : "");
		if (member_abort(member, sentence))
			*event = MEMBER_ABORTED;
		return ST_OK;
	}
	case FRAME_GATHER:
		if (frame->scope != (uint8_t)member->scope || member->aborted)
			return ST_OK;
		if (!member->gathering || frame->number + 1 != member->gathers)
			return FAIL(ST_DEVICE, "%s %d was sent exchange %llu, and has begun %llu", member->scope == SCOPE_RANKS ? "rank" : "host",
				member->number, (unsigned long long)frame->number, (unsigned long long)member->gathers);
		member->gathering = false;
		*event = MEMBER_GATHERED;
		return ST_OK;
	default:
		return FAIL(ST_DEVICE, "a frame of type %d does not go to a member", (int)frame->type);
	}
}

enum status member_check(const struct member *member)
{
	return member->aborted ? FAIL(ST_DEVICE, "%s", member->sentence) : ST_OK;
}

enum status member_pass(struct member *member, bool *waits)
{
	*waits = false;
	TRY(member_check(member));
	if (member->canceled || (member->stop_known && member->passed >= member->stop_at))
		return FAIL(ST_STOPPED, "stopped on request after %llu boundaries", (unsigned long long)member->passed);
	if (member->holding && !member->stop_known)
		*waits = true;
	else
		member->passed++;
	return ST_OK;
}

enum status member_blobs(const struct member *member, const uint8_t *bytes, size_t count, const uint8_t **blobs, size_t *counts)
{
	struct wire wire = {.bytes = bytes, .count = count};
	for (int i = 0; i < member->members; i++) {
		counts[i] = wire_take_u32(&wire);
		blobs[i] = wire_take(&wire, counts[i]);
	}
	if (wire.short_of || wire.count > 0)
		return FAIL(ST_DEVICE, "what %d members exchanged came malformed (%zu bytes)", member->members, count);
	return ST_OK;
}
