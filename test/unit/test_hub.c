/* Hub and members without sockets or clock: each link is a queue of frames, and a seeded schedule decides which link moves next. Over thousands
 * of schedules: all ranks stop at the same boundary, all get the same blobs, an abort is the same for all, nobody waits for ever. */
#include "core/comm/hub.h"
#include "core/comm/member.h"
#include "core/comm/wire.h"

#include "core/base/random.h"

#include "test/unit/scratch.h"

enum { RANKS_MAX = 6, QUEUE_MAX = 256, PAYLOAD_MAX = 512, BOUNDARIES = 12 };

/* --- links ----------------------------------------------------------------------------------------------------------- */

struct letter {
	struct frame frame;
	uint8_t bytes[PAYLOAD_MAX];
};

struct queue {
	struct letter letters[QUEUE_MAX];
	size_t begin, end;
};

static void queue_add(struct queue *queue, const struct frame *frame)
{
	assert_true(queue->end - queue->begin < QUEUE_MAX && frame->count <= PAYLOAD_MAX);
	struct letter *letter = &queue->letters[queue->end++ % QUEUE_MAX];
	letter->frame = *frame;
	if (frame->count > 0)
		memcpy(letter->bytes, frame->bytes, frame->count);
	letter->frame.bytes = letter->bytes;
}

static const struct frame *queue_take(struct queue *queue)
{
	return queue->begin == queue->end ? NULL : &queue->letters[queue->begin++ % QUEUE_MAX].frame;
}

/* --- a training in which nothing happens but the protocol ------------------------------------------------------------ */

/* What a rank does: gather, then boundary after boundary (each after a step that needs all ranks to be in it), a gather at every fourth
 * boundary, gather at the end, leave. */
enum place { AT_HELLO, AT_GATHER, IN_GATHER, AT_BOUNDARY, LEFT };

struct rank {
	struct member member;
	struct queue up, down;
	enum place place;
	bool last_gather;
	enum status ended;
	uint64_t passed;
	unsigned gathered;
	uint32_t sums[BOUNDARIES]; /* of what each gather gave */
};

struct world {
	int ranks;
	struct hub *hub;
	struct rank rank[RANKS_MAX];
	struct queue parents; /* wishes and aborts */
	unsigned holds, stops, aborts, cancels, dones, hurries;
	bool free_running; /* a step does not need the others */
	struct random_stream random;
};

static void world_emit(void *context, const struct frame *frame)
{
	struct world *world = context;
	world->holds += frame->type == FRAME_HOLD;
	world->stops += frame->type == FRAME_STOP;
	world->aborts += frame->type == FRAME_ABORT;
	world->cancels += frame->type == FRAME_CANCEL;
	world->dones += frame->type == FRAME_DONE;
	world->hurries += frame->type == FRAME_HURRY;
	for (int i = 0; i < world->ranks; i++)
		queue_add(&world->rank[i].down, frame);
}

static struct world *world_open(int ranks, uint64_t seed)
{
	struct world *world = calloc(1, sizeof *world);
	assert_non_null(world);
	world->ranks = ranks;
	world->free_running = seed % 5 == 4;
	world->random = random_open(seed, RANDOM_TEST, 0, 0);
	OK(hub_open(2, ranks, world_emit, world, &world->hub));
	for (int i = 0; i < ranks; i++)
		world->rank[i].member = (struct member){.scope = SCOPE_RANKS, .number = i, .members = ranks};
	return world;
}

static void world_close(struct world *world)
{
	hub_close(world->hub);
	free(world);
}

static void rank_send(struct rank *rank, enum frame_type type, uint64_t number)
{
	struct frame frame = member_frame(&rank->member, type, number);
	queue_add(&rank->up, &frame);
}

/* As control_close does. */
static void rank_leave(struct rank *rank, enum status status)
{
	if (!rank->member.holding) {
		rank->member.holding = true;
		rank_send(rank, FRAME_HELD, rank->member.passed);
	}
	rank->ended = status;
	rank->place = LEFT;
}

static void rank_hear(struct rank *rank)
{
	const struct frame *frame = queue_take(&rank->down);
	enum member_event event;
	if (frame == NULL)
		return;
	OK(member_take(&rank->member, frame, &event));
	if (event == MEMBER_ANSWERS)
		rank_send(rank, FRAME_HELD, rank->member.passed);
	if (event != MEMBER_GATHERED)
		return;
	const uint8_t *blobs[RANKS_MAX];
	size_t counts[RANKS_MAX];
	uint32_t sum = 0;
	OK(member_blobs(&rank->member, frame->bytes, frame->count, blobs, counts));
	for (int i = 0; i < rank->member.members; i++) {
		assert_int_equal(counts[i], i + 1);
		for (size_t k = 0; k < counts[i]; k++)
			sum = sum * 31 + blobs[i][k];
	}
	rank->sums[rank->gathered++] = sum;
}

/* Everybody is in the step that ends at this rank's next boundary. */
static bool step_complete(const struct world *world, const struct rank *rank)
{
	for (int i = 0; i < world->ranks && !world->free_running; i++)
		if (world->rank[i].passed < rank->passed)
			return false;
	return true;
}

/* The rank's own thread goes on by one move if it can. */
static void rank_move(struct world *world, struct rank *rank)
{
	struct member *member = &rank->member;
	bool waits;
	enum status status;
	switch (rank->place) {
	case AT_HELLO:
		rank_send(rank, FRAME_HELLO, 0);
		rank->place = AT_GATHER;
		break;
	case AT_GATHER: {
		if (member->aborted || member->canceled) {
			rank_leave(rank, member->aborted ? ST_DEVICE : ST_STOPPED);
			break;
		}
		uint8_t bytes[RANKS_MAX];
		for (int i = 0; i <= member->number; i++)
			bytes[i] = (uint8_t)(member->gathers * 16 + (uint64_t)i);
		struct frame frame = member_frame(member, FRAME_GATHER, member->gathers++);
		frame.bytes = bytes;
		frame.count = (size_t)member->number + 1;
		member->gathering = true;
		queue_add(&rank->up, &frame);
		rank->place = IN_GATHER;
		break;
	}
	case IN_GATHER:
		if (!member->gathering && rank->last_gather)
			rank_leave(rank, rank->ended);
		else if (!member->gathering)
			rank->place = AT_BOUNDARY;
		else if (member->aborted || member->canceled)
			rank_leave(rank, member->aborted ? ST_DEVICE : ST_STOPPED);
		break;
	case AT_BOUNDARY:
		if (!step_complete(world, rank) && !member->aborted)
			break;
		status = member_pass(member, &waits);
		if (status == ST_OK && waits)
			break;
		rank->passed += status == ST_OK;
		rank->ended = status;
		rank->last_gather = status == ST_STOPPED || rank->passed == BOUNDARIES;
		if (status == ST_DEVICE)
			rank_leave(rank, status);
		else if (rank->last_gather || rank->passed % 4 == 0)
			rank->place = AT_GATHER;
		break;
	case LEFT:
		break;
	}
}

/* Moves one link or one rank, chosen by the seed. */
static void world_move(struct world *world)
{
	uint32_t which = random_below(&world->random, (uint32_t)world->ranks * 3 + 1);
	const struct frame *frame;
	if (which == 0)
		frame = queue_take(&world->parents);
	else {
		struct rank *rank = &world->rank[(which - 1) / 3];
		if ((which - 1) % 3 == 1)
			rank_hear(rank);
		if ((which - 1) % 3 == 2)
			rank_move(world, rank);
		frame = (which - 1) % 3 == 0 ? queue_take(&rank->up) : NULL;
	}
	if (frame != NULL)
		OK(hub_take(world->hub, frame));
}

static bool world_ended(const struct world *world)
{
	for (int i = 0; i < world->ranks; i++)
		if (world->rank[i].place != LEFT || world->rank[i].up.begin != world->rank[i].up.end)
			return false;
	return true;
}

static void world_run(struct world *world, int moves_max)
{
	for (int i = 0; i < moves_max && !world_ended(world); i++)
		world_move(world);
}

static void parent_send(struct world *world, enum frame_type type, uint64_t number, const char *sentence)
{
	struct frame frame = {.type = type, .member = 1, .number = number, .bytes = (const uint8_t *)sentence, .count = sentence != NULL ? strlen(sentence) : 0};
	queue_add(&world->parents, &frame);
}

/* All ended alike, after the same number of boundaries and the same exchanges. */
static void check_agreement(const struct world *world, enum status ended, uint64_t seed)
{
	const struct rank *first = &world->rank[0];
	for (int i = 0; i < world->ranks; i++) {
		const struct rank *rank = &world->rank[i];
		if (rank->place != LEFT || rank->ended != ended || rank->passed != first->passed || rank->gathered != first->gathered ||
			memcmp(rank->sums, first->sums, sizeof rank->sums) != 0)
			fail_msg("seed %llu: rank %d of %d: place %d, %s, %llu boundaries, %u exchanges; rank 0: %llu, %u", (unsigned long long)seed, i, world->ranks,
				(int)rank->place, status_name(rank->ended), (unsigned long long)rank->passed, rank->gathered, (unsigned long long)first->passed,
				first->gathered);
	}
}

static void test_undisturbed(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct world *world = world_open(1 + (int)(seed % RANKS_MAX), seed);
		world_run(world, 1000000);
		check_agreement(world, ST_OK, seed);
		assert_int_equal(world->rank[0].passed, BOUNDARIES);
		assert_int_equal(world->rank[0].gathered, 1 + BOUNDARIES / 4);
		assert_int_equal(world->holds + world->stops + world->aborts + world->cancels + world->hurries, 0);
		world_close(world);
	}
}

/* A wish at any instant, once or several times, from a parent or from a rank. */
static void test_stop_at_any_instant(void **state)
{
	(void)state;
	unsigned ends[3] = {0}; /* cancelled, stopped, ended before */
	for (uint64_t seed = 0; seed < 5000; seed++) {
		struct world *world = world_open(1 + (int)(seed % RANKS_MAX), seed);
		unsigned wishes = 1 + random_below(&world->random, 3);
		for (unsigned wish = 0; wish < wishes; wish++) {
			world_run(world, (int)random_below(&world->random, seed % 3 == 0 ? 60 : 700));
			int from = (int)random_below(&world->random, (uint32_t)world->ranks + 1) - 1;
			if (from >= 0 && world->rank[from].place != AT_HELLO && world->rank[from].place != LEFT)
				rank_send(&world->rank[from], FRAME_WISH, 1);
			else
				parent_send(world, FRAME_WISH, wish + 1, NULL);
		}
		world_run(world, 1000000);
		bool stopped = world->rank[0].ended == ST_STOPPED;
		check_agreement(world, stopped ? ST_STOPPED : ST_OK, seed);
		assert_true(stopped || world->rank[0].passed == BOUNDARIES);
		assert_true(world->holds <= 2 && world->stops <= 2); /* the second time: with the hurry of a later wish */
		if (world->cancels > 0)
			assert_true(stopped && world->rank[0].passed == 0 && world->rank[0].gathered == 0 && world->stops == 0);
		ends[world->cancels > 0 ? 0 : stopped ? 1 : 2]++;
		world_close(world);
	}
	print_message("%u cancelled, %u stopped, %u had ended before\n", ends[0], ends[1], ends[2]);
	assert_true(ends[0] > 100 && ends[1] > 1000 && ends[2] > 10);
}

/* Several fail at about the same time: all who had not ended learn of one, the same. */
static void test_first_abort_wins(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 3000; seed++) {
		struct world *world = world_open(2 + (int)(seed % (RANKS_MAX - 1)), seed);
		world_run(world, (int)random_below(&world->random, 500));
		if (seed % 2 == 0)
			parent_send(world, FRAME_WISH, 1, NULL);
		world_run(world, (int)random_below(&world->random, 50));
		parent_send(world, FRAME_ABORT, ST_DATA, "a file is cut short");
		world_run(world, (int)random_below(&world->random, 20));
		parent_send(world, FRAME_ABORT, ST_DISK, "the disk is full");
		world_run(world, 100000);
		while (queue_take(&world->parents) != NULL)
			; /* not reached any more when all had ended */
		const char *sentence = NULL;
		for (int i = 0; i < world->ranks; i++) {
			const struct rank *rank = &world->rank[i];
			assert_int_equal(rank->place, LEFT);
			if (rank->ended != ST_DEVICE)
				continue;
			assert_string_equal(rank->member.sentence, sentence == NULL ? rank->member.sentence : sentence);
			assert_string_equal(rank->member.sentence, "a file is cut short");
			sentence = rank->member.sentence;
			assert_true(hub_aborted(world->hub));
		}
		assert_true(world->aborts <= 1 + (unsigned)world->ranks); /* once, and for each hello that comes later */
		world_close(world);
	}
}

/* --- single frames --------------------------------------------------------------------------------------------------- */

struct heard {
	struct frame last;
	unsigned count;
	uint8_t bytes[2048];
};

static void hear(void *context, const struct frame *frame)
{
	struct heard *heard = context;
	heard->last = *frame;
	assert_true(frame->count <= sizeof heard->bytes);
	if (frame->count > 0)
		memcpy(heard->bytes, frame->bytes, frame->count);
	heard->count++;
}

static struct frame up(enum frame_type type, enum control_scope scope, uint32_t member, uint64_t number, const char *text)
{
	return (struct frame){.type = type, .scope = (uint8_t)scope, .member = member, .number = number, .bytes = (const uint8_t *)text, .count = strlen(text)};
}

#define TAKE(...) hub_take(hub, &(struct frame[]){up(__VA_ARGS__)}[0])

static struct hub *small_hub(struct heard *heard)
{
	struct hub *hub = NULL;
	*heard = (struct heard){0};
	OK(hub_open(2, 3, hear, heard, &hub));
	return hub;
}

static void test_gather_and_who_is_awaited(void **state)
{
	(void)state;
	struct heard heard;
	struct hub *hub = small_hub(&heard);
	OK(TAKE(FRAME_HELLO, SCOPE_HOSTS, 0, 0, ""));
	OK(TAKE(FRAME_HELLO, SCOPE_HOSTS, 1, 0, ""));
	for (uint32_t i = 0; i < 3; i++)
		OK(TAKE(FRAME_HELLO, SCOPE_RANKS, i, 0, ""));
	assert_int_equal(hub_awaited(hub, SCOPE_RANKS), -1);
	OK(TAKE(FRAME_GATHER, SCOPE_RANKS, 2, 0, "cc"));
	assert_int_equal(hub_awaited(hub, SCOPE_RANKS), 0);
	OK(TAKE(FRAME_GATHER, SCOPE_RANKS, 0, 0, ""));
	assert_int_equal(hub_awaited(hub, SCOPE_RANKS), 1);
	OK(TAKE(FRAME_GATHER, SCOPE_HOSTS, 1, 0, "h")); /* the scopes do not meet */
	assert_int_equal(hub_awaited(hub, SCOPE_HOSTS), 0);
	assert_int_equal(heard.count, 0);
	OK(TAKE(FRAME_GATHER, SCOPE_RANKS, 1, 0, "b"));
	assert_int_equal(heard.count, 1);
	assert_int_equal(heard.last.type, FRAME_GATHER);
	assert_int_equal(heard.last.scope, SCOPE_RANKS);
	assert_int_equal(heard.last.number, 0);
	assert_int_equal(heard.last.count, 15);
	assert_memory_equal(heard.bytes, "\0\0\0\0\1\0\0\0b\2\0\0\0cc", 15);
	assert_int_equal(hub_awaited(hub, SCOPE_RANKS), -1);
	FAILS(ST_DATA, "rank 1 contributes to exchange 0 out of turn: exchange 1 is open", TAKE(FRAME_GATHER, SCOPE_RANKS, 1, 0, "b"));
	OK(TAKE(FRAME_GATHER, SCOPE_RANKS, 1, 1, "b"));
	FAILS(ST_DATA, "out of turn", TAKE(FRAME_GATHER, SCOPE_RANKS, 1, 1, "b"));
	FAILS(ST_DATA, "out of turn", TAKE(FRAME_GATHER, SCOPE_RANKS, 0, 2, "b"));
	hub_close(hub); /* with a gather open */
	hub_close(NULL);
}

static void test_late_names_who_is_missing(void **state)
{
	(void)state;
	struct heard heard;
	struct hub *hub = small_hub(&heard);
	static const uint8_t waited[8] = {0x00, 0xb4, 0xc4, 0x04}; /* 80 s */
	struct frame late = {.type = FRAME_LATE, .scope = SCOPE_RANKS, .member = 1, .number = 0, .bytes = waited, .count = sizeof waited};
	for (uint32_t i = 0; i < 3; i++)
		OK(TAKE(FRAME_HELLO, SCOPE_RANKS, i, 0, ""));
	OK(hub_take(hub, &late)); /* it has not given anything itself: nothing to answer */
	OK(TAKE(FRAME_GATHER, SCOPE_RANKS, 1, 0, ""));
	assert_int_equal(heard.count, 0);
	FAILS(ST_DATA, "never opened", TAKE(FRAME_LATE, SCOPE_RANKS, 1, 1, "12345678"));
	FAILS(ST_DATA, "never opened", TAKE(FRAME_LATE, SCOPE_RANKS, 1, 0, "1234567"));
	OK(hub_take(hub, &late));
	assert_int_equal(heard.last.type, FRAME_ABORT);
	assert_int_equal(heard.last.member, 0);
	assert_int_equal(heard.last.number, ST_DEVICE);
	heard.bytes[heard.last.count] = '\0';
	assert_string_equal((char *)heard.bytes, "rank 0 (and 1 more) did not come to exchange 0, where rank 1 waited for 80 s");
	assert_true(hub_aborted(hub));
	/* A slow one comes after all: taken, without effect. */
	OK(TAKE(FRAME_GATHER, SCOPE_RANKS, 0, 0, ""));
	OK(TAKE(FRAME_GATHER, SCOPE_RANKS, 2, 0, ""));
	assert_int_equal(heard.count, 1);
	hub_close(hub);
}

static void test_late_that_crosses_the_result(void **state)
{
	(void)state;
	struct heard heard;
	struct hub *hub = small_hub(&heard);
	for (uint32_t i = 0; i < 3; i++)
		OK(TAKE(FRAME_HELLO, SCOPE_RANKS, i, 0, ""));
	for (uint32_t i = 0; i < 3; i++)
		OK(TAKE(FRAME_GATHER, SCOPE_RANKS, i, 0, ""));
	OK(TAKE(FRAME_LATE, SCOPE_RANKS, 1, 0, "12345678"));
	assert_int_equal(heard.count, 1);
	assert_false(hub_aborted(hub));
	hub_close(hub);
}

/* Who comes late is told what was decided before. */
static void test_hello_after_the_decision(void **state)
{
	(void)state;
	struct heard heard;
	struct hub *hub = small_hub(&heard);
	OK(TAKE(FRAME_HELLO, SCOPE_RANKS, 0, 0, ""));
	assert_int_equal(heard.count, 0);
	OK(TAKE(FRAME_WISH, SCOPE_HOSTS, 1, 1, ""));
	assert_int_equal(heard.last.type, FRAME_CANCEL);
	OK(TAKE(FRAME_HELLO, SCOPE_RANKS, 1, 0, ""));
	assert_int_equal(heard.count, 2);
	assert_int_equal(heard.last.type, FRAME_CANCEL);
	OK(TAKE(FRAME_WISH, SCOPE_HOSTS, 1, 2, ""));
	assert_int_equal(heard.last.type, FRAME_HURRY);
	OK(TAKE(FRAME_WISH, SCOPE_HOSTS, 0, 2, ""));
	assert_int_equal(heard.count, 4);
	OK(TAKE(FRAME_ABORT, SCOPE_RANKS, 1, ST_DATA, "why"));
	OK(TAKE(FRAME_HELLO, SCOPE_RANKS, 2, 0, ""));
	assert_int_equal(heard.count, 6);
	assert_int_equal(heard.last.type, FRAME_ABORT);
	assert_int_equal(heard.last.member, 1);
	assert_int_equal(heard.last.number, ST_DATA);
	assert_memory_equal(heard.bytes, "why", 3);
	hub_close(hub);
}

static void test_done_when_all_hosts_are(void **state)
{
	(void)state;
	struct heard heard;
	struct hub *hub = small_hub(&heard);
	OK(TAKE(FRAME_DONE, SCOPE_HOSTS, 1, 0, ""));
	FAILS(ST_DATA, "host 1 says out of turn", TAKE(FRAME_DONE, SCOPE_HOSTS, 1, 0, ""));
	FAILS(ST_DATA, "rank 1 says out of turn", TAKE(FRAME_DONE, SCOPE_RANKS, 1, 0, ""));
	assert_int_equal(heard.count, 0);
	OK(TAKE(FRAME_DONE, SCOPE_HOSTS, 0, 0, ""));
	assert_int_equal(heard.count, 1);
	assert_int_equal(heard.last.type, FRAME_DONE);
	hub_close(hub);
	/* Not after somebody failed. */
	hub = small_hub(&heard);
	OK(TAKE(FRAME_DONE, SCOPE_HOSTS, 0, 0, ""));
	OK(TAKE(FRAME_ABORT, SCOPE_RANKS, 2, ST_DATA, "why"));
	OK(TAKE(FRAME_DONE, SCOPE_HOSTS, 1, 0, ""));
	assert_int_equal(heard.count, 1);
	assert_int_equal(heard.last.type, FRAME_ABORT);
	hub_close(hub);
}

static void test_broken_protocol(void **state)
{
	(void)state;
	struct heard heard;
	struct hub *hub = small_hub(&heard);
	static const enum frame_type down[] = {FRAME_WELCOME, FRAME_REFUSED, FRAME_CANCEL, FRAME_HOLD, FRAME_STOP, FRAME_HURRY, FRAME_TYPES};
	for (size_t i = 0; i < sizeof down / sizeof down[0]; i++)
		FAILS(ST_DATA, "does not go to the hub", TAKE(down[i], SCOPE_HOSTS, 0, 0, ""));
	FAILS(ST_DATA, "no member 3 of scope 1", TAKE(FRAME_HELLO, SCOPE_RANKS, 3, 0, ""));
	FAILS(ST_DATA, "no member 2 of scope 0", TAKE(FRAME_BEAT, SCOPE_HOSTS, 2, 0, ""));
	FAILS(ST_DATA, "no member 0 of scope 2", TAKE(FRAME_BEAT, SCOPES, 0, 0, ""));
	FAILS(ST_DATA, "out of turn", TAKE(FRAME_GATHER, SCOPE_RANKS, 0, 0, "")); /* no hello */
	FAILS(ST_DATA, "out of turn", TAKE(FRAME_HELD, SCOPE_RANKS, 0, 0, ""));
	OK(TAKE(FRAME_HELLO, SCOPE_RANKS, 0, 0, ""));
	FAILS(ST_DATA, "rank 0 says hello twice", TAKE(FRAME_HELLO, SCOPE_RANKS, 0, 0, ""));
	OK(TAKE(FRAME_HELD, SCOPE_RANKS, 0, 5, ""));
	FAILS(ST_DATA, "out of turn", TAKE(FRAME_HELD, SCOPE_RANKS, 0, 6, ""));
	OK(TAKE(FRAME_HELLO, SCOPE_HOSTS, 0, 0, ""));
	FAILS(ST_DATA, "out of turn", TAKE(FRAME_HELD, SCOPE_HOSTS, 0, 0, ""));
	FAILS(ST_DATA, "which is no failure", TAKE(FRAME_ABORT, SCOPE_RANKS, 0, ST_STOPPED, "x"));
	FAILS(ST_DATA, "which is no failure", TAKE(FRAME_ABORT, SCOPE_RANKS, 0, 99, "x"));
	struct frame large = {.type = FRAME_GATHER, .scope = SCOPE_RANKS, .count = CONTROL_BLOB_BYTES_MAX + 1, .bytes = calloc(1, CONTROL_BLOB_BYTES_MAX + 1)};
	assert_non_null(large.bytes);
	FAILS(ST_DATA, "at most 1048576", hub_take(hub, &large));
	free((void *)(uintptr_t)large.bytes);
	OK(TAKE(FRAME_BEAT, SCOPE_RANKS, 0, 7, ""));
	assert_int_equal(heard.count, 0);
	hub_close(hub);
}

static void test_long_abort_is_cut(void **state)
{
	(void)state;
	struct heard heard;
	struct hub *hub = small_hub(&heard);
	char text[2000];
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	OK(TAKE(FRAME_ABORT, SCOPE_RANKS, 0, ST_DATA, text));
	assert_int_equal(heard.last.count, STATUS_MESSAGE_BYTES_MAX - 1);
	hub_close(hub);
}

/* --- a member alone -------------------------------------------------------------------------------------------------- */

static enum status member_down(struct member *member, enum frame_type type, uint64_t number)
{
	enum member_event event;
	return member_take(member, &(struct frame){.type = type, .scope = SCOPE_RANKS, .number = number}, &event);
}

static void test_member_refuses_what_makes_no_sense(void **state)
{
	(void)state;
	struct member member = {.scope = SCOPE_RANKS, .number = 1, .members = 2};
	static const enum frame_type upward[] = {FRAME_HELLO, FRAME_WISH, FRAME_HELD, FRAME_LATE, FRAME_WELCOME, FRAME_REFUSED};
	for (size_t i = 0; i < sizeof upward / sizeof upward[0]; i++)
		FAILS(ST_DEVICE, "does not go to a member", member_down(&member, upward[i], 0));
	FAILS(ST_DEVICE, "was not asked before", member_down(&member, FRAME_STOP, 3));
	FAILS(ST_DEVICE, "was sent exchange 0", member_down(&member, FRAME_GATHER, 0));
	bool waits;
	for (int i = 0; i < 3; i++)
		OK(member_pass(&member, &waits));
	OK(member_down(&member, FRAME_HOLD, 0));
	FAILS(ST_DEVICE, "has passed 3", member_down(&member, FRAME_STOP, 2));
	OK(member_pass(&member, &waits));
	assert_true(waits);
	OK(member_down(&member, FRAME_STOP, 4));
	OK(member_pass(&member, &waits));
	assert_false(waits);
	FAILS(ST_STOPPED, "after 4 boundaries", member_pass(&member, &waits));
	const uint8_t *blobs[2];
	size_t counts[2];
	FAILS(ST_DEVICE, "malformed", member_blobs(&member, (const uint8_t *)"\1\0\0\0a\2\0\0\0b", 10, blobs, counts));
	FAILS(ST_DEVICE, "malformed", member_blobs(&member, (const uint8_t *)"\1\0\0\0a\1\0\0\0bc", 11, blobs, counts));
	FAILS(ST_DEVICE, "malformed", member_blobs(&member, (const uint8_t *)"\xff\xff\xff\xff", 4, blobs, counts));
	OK(member_blobs(&member, (const uint8_t *)"\1\0\0\0a\1\0\0\0b", 10, blobs, counts));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_undisturbed),
		cmocka_unit_test(test_stop_at_any_instant),
		cmocka_unit_test(test_first_abort_wins),
		cmocka_unit_test(test_gather_and_who_is_awaited),
		cmocka_unit_test(test_late_names_who_is_missing),
		cmocka_unit_test(test_late_that_crosses_the_result),
		cmocka_unit_test(test_hello_after_the_decision),
		cmocka_unit_test(test_done_when_all_hosts_are),
		cmocka_unit_test(test_broken_protocol),
		cmocka_unit_test(test_long_abort_is_cut),
		cmocka_unit_test(test_member_refuses_what_makes_no_sense),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
