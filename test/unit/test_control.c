/* Members on threads, a parent on another, real sockets: gathers, stop, abort, a parent that is gone, who is late, what a stopped process counts.
 * What is awaited is awaited without a limit of its own: a hang is the runner's to notice. */
#include "test/unit/control_bed.h"

#include "core/base/random.h"
#include "test/unit/entries.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum { MEMBERS = 5 };
static const int64_t patient_us = 600000000;

static void nap(int ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

/* --- members on threads ---------------------------------------------------------------------------------------------- */

struct actor {
	struct control_bed *bed;
	int member;
	struct control *control;
	pthread_t thread;
	enum status status;
	char sentence[STATUS_MESSAGE_BYTES_MAX];
	unsigned passed;
};

/* Plays one part on as many threads as there are members, from beginning to end. */
static void act(enum control_scope scope, int members, void *(*part)(void *), int64_t timeout_us, struct actor *actors)
{
	struct control_bed *bed = control_bed_open(scope, members);
	control_bed_start(bed);
	for (int i = 0; i < members; i++) {
		actors[i] = (struct actor){.bed = bed, .member = i, .control = control_bed_member(bed, i, timeout_us)};
		assert_int_equal(pthread_create(&actors[i].thread, NULL, part, &actors[i]), 0);
	}
	for (int i = 0; i < members; i++)
		pthread_join(actors[i].thread, NULL);
	for (int i = 0; i < members; i++)
		control_close(actors[i].control);
	assert_int_equal(bed->broken, 0);
	control_bed_close(bed);
}

static void keep(struct actor *actor, enum status status)
{
	actor->status = status;
	snprintf(actor->sentence, sizeof actor->sentence, "%s", status == ST_OK ? "" : status_message());
}

/* --- gathers --------------------------------------------------------------------------------------------------------- */

static size_t blob_bytes(int member, int round)
{
	return round % 7 == 6 ? (size_t)CONTROL_BLOB_BYTES_MAX - (size_t)member : (size_t)(member * 37 + round * 11) % 200;
}

static uint8_t blob_byte(int member, int round, size_t at)
{
	return (uint8_t)((size_t)member * 101 + (size_t)round * 13 + at * 7);
}

static void *gather_part(void *context)
{
	struct actor *actor = context;
	uint8_t *mine = malloc(CONTROL_BLOB_BYTES_MAX);
	for (int round = 0; round < 30 && mine != NULL; round++) {
		struct control_blobs blobs = {0};
		size_t count = blob_bytes(actor->member, round);
		for (size_t i = 0; i < count; i++)
			mine[i] = blob_byte(actor->member, round, i);
		keep(actor, control_gather(actor->control, mine, count, round % 5 == 4 ? NULL : &blobs));
		if (actor->status != ST_OK)
			break;
		for (int m = 0; blobs.blobs != NULL && m < MEMBERS; m++) {
			if (blobs.counts[m] != blob_bytes(m, round))
				actor->status = ST_INTERNAL;
			for (size_t i = 0; i < blobs.counts[m] && actor->status == ST_OK; i++)
				if (blobs.blobs[m][i] != blob_byte(m, round, i))
					actor->status = ST_INTERNAL;
		}
		control_blobs_free(&blobs);
	}
	free(mine);
	return NULL;
}

static void test_gather(void **state)
{
	(void)state;
	for (int scope = 0; scope < SCOPES; scope++) {
		struct actor actors[MEMBERS];
		act((enum control_scope)scope, MEMBERS, gather_part, patient_us, actors);
		for (int i = 0; i < MEMBERS; i++)
			if (actors[i].status != ST_OK)
				fail_msg("member %d: %s", i, actors[i].sentence);
	}
}

static void test_alone(void **state)
{
	(void)state;
	struct control_bed *bed = control_bed_open(SCOPE_RANKS, 1);
	control_bed_start(bed);
	struct control *control = control_bed_member(bed, 0, patient_us);
	struct control_blobs blobs = {0};
	OK(control_gather(control, "abc", 3, &blobs));
	assert_int_equal(blobs.counts[0], 3);
	assert_memory_equal(blobs.blobs[0], "abc", 3);
	control_blobs_free(&blobs);
	control_blobs_free(&blobs);
	OK(control_pass(control));
	OK(control_check(control));
	assert_false(control_stopping(control) || control_hurry(control));
	control_bed_wish(bed);
	while (control_pass(control) == ST_OK)
		;
	assert_true(control_stopping(control));
	FAILS(ST_STOPPED, "stopped on request after", control_pass(control)); /* and again */
	OK(control_gather(control, NULL, 0, NULL)); /* stopping is work too */
	control_close(control);
	control_close(NULL);
	control_bed_close(bed);
}

static void *barrier_part(void *context)
{
	struct actor *actor = context;
	if (actor->member != 2)
		keep(actor, control_gather(actor->control, NULL, 0, NULL));
	else
		while (control_check(actor->control) == ST_OK)
			nap(1);
	return NULL;
}

static void test_who_does_not_come_is_named(void **state)
{
	(void)state;
	struct actor actors[MEMBERS];
	act(SCOPE_RANKS, MEMBERS, barrier_part, 50000, actors);
	for (int i = 0; i < MEMBERS; i++)
		if (i != 2) {
			assert_int_equal(actors[i].status, ST_DEVICE);
			assert_non_null(strstr(actors[i].sentence, "rank 2 did not come to exchange 0"));
		}
}

/* --- stop ------------------------------------------------------------------------------------------------------------ */

static void *pass_part(void *context)
{
	struct actor *actor = context;
	struct random_stream random = random_open(3, RANDOM_TEST, 0, (uint64_t)actor->member);
	keep(actor, control_gather(actor->control, NULL, 0, NULL));
	while (actor->status == ST_OK) {
		keep(actor, control_pass(actor->control));
		actor->passed += actor->status == ST_OK;
		if (random_below(&random, 16) == 0)
			nap((int)random_below(&random, 3));
		if (actor->member == 1 && actor->passed == 50)
			control_bed_wish(actor->bed);
	}
	return NULL;
}

static void test_stop_at_one_boundary(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		struct actor actors[MEMBERS];
		act(SCOPE_RANKS, MEMBERS, pass_part, patient_us, actors);
		for (int i = 0; i < MEMBERS; i++) {
			assert_int_equal(actors[i].status, ST_STOPPED);
			assert_int_equal(actors[i].passed, actors[0].passed);
			assert_true(actors[i].passed >= 50);
		}
	}
}

static void *end_part(void *context)
{
	struct actor *actor = context;
	enum { STEPS = 20 };
	keep(actor, control_gather(actor->control, NULL, 0, NULL));
	while (actor->status == ST_OK && actor->passed < STEPS) {
		keep(actor, control_pass(actor->control));
		actor->passed += actor->status == ST_OK;
		if (actor->member == 0 && actor->passed == STEPS)
			control_bed_wish(actor->bed);
	}
	control_close(actor->control); /* some leave before the others have heard of the stop */
	actor->control = NULL;
	return NULL;
}

static void test_stop_while_ranks_leave(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		struct actor actors[MEMBERS];
		act(SCOPE_RANKS, MEMBERS, end_part, patient_us, actors);
		for (int i = 0; i < MEMBERS; i++)
			assert_int_equal(actors[i].passed, 20);
	}
}

static void test_stop_before_all_are_there(void **state)
{
	(void)state;
	struct control_bed *bed = control_bed_open(SCOPE_RANKS, 3);
	control_bed_start(bed);
	struct control *controls[3];
	controls[0] = control_bed_member(bed, 0, patient_us);
	controls[1] = control_bed_member(bed, 1, patient_us);
	control_bed_wish(bed);
	FAILS(ST_STOPPED, "before training began", control_gather(controls[0], "x", 1, NULL));
	while (!control_stopping(controls[1]))
		nap(1);
	controls[2] = control_bed_member(bed, 2, patient_us);
	FAILS(ST_STOPPED, "before training began", control_gather(controls[2], "x", 1, NULL));
	for (int i = 0; i < 3; i++) {
		FAILS(ST_STOPPED, "after 0 boundaries", control_pass(controls[i]));
		FAILS(ST_STOPPED, "before training began", control_gather(controls[i], NULL, 0, NULL));
		OK(control_check(controls[i]));
		control_close(controls[i]);
	}
	assert_int_equal(bed->broken, 0);
	control_bed_close(bed);
}

static void test_stop_while_loading(void **state)
{
	(void)state;
	struct control_bed *bed = control_bed_open(SCOPE_HOSTS, 2);
	control_bed_start(bed);
	struct control *first = control_bed_member(bed, 0, patient_us), *second = control_bed_member(bed, 1, patient_us);
	control_bed_take(bed, &(struct frame){.type = FRAME_WISH, .member = 1, .number = 1});
	control_bed_take(bed, &(struct frame){.type = FRAME_WISH, .member = 1, .number = 2});
	FAILS(ST_STOPPED, "before training began", control_gather(first, NULL, 0, NULL));
	while (!control_hurry(second))
		nap(1);
	assert_true(control_stopping(second));
	control_close(first);
	control_close(second);
	control_bed_close(bed);
}

/* --- abort ----------------------------------------------------------------------------------------------------------- */

static void test_abort_reaches_all(void **state)
{
	(void)state;
	struct control_bed *bed = control_bed_open(SCOPE_RANKS, 2);
	control_bed_start(bed);
	struct control *first = control_bed_member(bed, 0, patient_us), *second = control_bed_member(bed, 1, patient_us);
	OK(control_wait_abort(first, 1000));
	struct frame why = {.type = FRAME_ABORT, .scope = SCOPE_RANKS, .member = 1, .number = ST_DATA,
		.bytes = (const uint8_t *)"host algo-2 (rank 1): a file is cut short", .count = 41};
	control_bed_take(bed, &why);
	control_bed_take(bed, &why);
	FAILS(ST_DEVICE, "host algo-2 (rank 1): a file is cut short", control_wait_abort(first, patient_us));
	FAILS(ST_DEVICE, "cut short", control_gather(first, NULL, 0, NULL));
	FAILS(ST_DEVICE, "cut short", control_pass(first));
	FAILS(ST_DEVICE, "cut short", control_gather(second, NULL, 0, NULL));
	FAILS(ST_DEVICE, "cut short", control_check(second));
	control_close(first);
	control_close(second);
	control_bed_close(bed);
}

static void test_parent_is_gone(void **state)
{
	(void)state;
	struct control_bed *bed = control_bed_open(SCOPE_RANKS, 2);
	control_bed_start(bed);
	struct control *first = control_bed_member(bed, 0, patient_us), *second = control_bed_member(bed, 1, patient_us);
	control_bed_cut(bed, 0);
	FAILS(ST_DEVICE, "parent process of this host cannot be heard", control_gather(first, NULL, 0, NULL));
	FAILS(ST_DEVICE, "parent process", control_pass(first));
	OK(control_check(second));
	control_close(first);
	control_close(second);
	control_bed_close(bed);
	/* Gone before we came. */
	int pair[2];
	struct control *control = NULL;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	close(pair[1]);
	FAILS(ST_DEVICE, "parent process", control_open(&(struct control_config){.fd = pair[0], .members = 1}, &control));
	assert_null(control);
}

/* What the parent said before it left counts, also when it is noticed first that it left. */
static void test_last_words_are_heard(void **state)
{
	(void)state;
	for (int round = 0; round < 200; round++) {
		int pair[2];
		struct frame_stream *parent = NULL;
		struct control *control = NULL;
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		OK(frame_stream_open(pair[1], 1024, &parent));
		OK(control_open(&(struct control_config){.fd = pair[0], .scope = SCOPE_RANKS, .members = 1, .gather_timeout_us = patient_us}, &control));
		OK(frame_stream_send(parent, &(struct frame){.type = FRAME_ABORT, .number = ST_DATA, .bytes = (const uint8_t *)"why", .count = 3}));
		frame_stream_close(parent);
		FAILS(ST_DEVICE, "why", control_gather(control, NULL, 0, NULL));
		control_close(control);
	}
}

static void test_nonsense_from_the_parent(void **state)
{
	(void)state;
	struct control_bed *bed = control_bed_open(SCOPE_RANKS, 1);
	control_bed_start(bed);
	struct control *control = control_bed_member(bed, 0, patient_us);
	control_bed_send(bed, &(struct frame){.type = FRAME_STOP, .number = 3});
	FAILS(ST_DEVICE, "was not asked before", control_wait_abort(control, patient_us));
	control_close(control);
	control_bed_close(bed);
}

/* --- beats and clocks ------------------------------------------------------------------------------------------------ */

static void test_beats_tell_how_far(void **state)
{
	(void)state;
	struct control_bed *bed = control_bed_open(SCOPE_RANKS, 1);
	control_bed_start(bed);
	struct control *control = control_bed_member(bed, 0, patient_us);
	for (int i = 0; i < 3; i++)
		OK(control_pass(control));
	while (bed->beats < 2 || bed->beat_number != 3)
		nap(5);
	control_close(control);
	control_bed_close(bed);
}

/* A process that was stopped for longer than the gather's timeout does not blame its peers when it wakes. */
static void test_own_stall_is_not_the_others(void **state)
{
	(void)state;
	struct control_bed *bed = control_bed_open(SCOPE_RANKS, 2);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct control *control = NULL;
		struct control_config config = {.fd = bed->fds[1], .scope = SCOPE_RANKS, .member = 1, .members = 2, .gather_timeout_us = 4000000};
		if (control_open(&config, &control) != ST_OK)
			_exit(10);
		enum status status = control_gather(control, "b", 1, NULL);
		control_close(control);
		_exit(status == ST_OK ? 0 : 1);
	}
	close(bed->fds[1]);
	control_bed_start(bed);
	struct control *control = control_bed_member(bed, 0, patient_us);
	for (bool waits = false; !waits; nap(1)) {
		pthread_mutex_lock(&bed->lock);
		waits = hub_awaited(bed->hub, SCOPE_RANKS) == 0;
		pthread_mutex_unlock(&bed->lock);
	}
	kill(child, SIGSTOP);
	nap(5000);
	kill(child, SIGCONT);
	nap(100); /* it looks at its clock first */
	OK(control_gather(control, "a", 1, NULL));
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	control_close(control);
	assert_int_equal(bed->broken, 0);
	control_bed_close(bed);
}

/* The thread and every descriptor are gone, so that a process may fork afterwards. */
static void test_close_leaves_nothing(void **state)
{
	(void)state;
	int fds = entries_count("/proc/self/fd"), threads = entries_count("/proc/self/task");
	assert_true(fds > 0 && threads > 0);
	for (int i = 0; i < 20; i++) {
		struct actor actors[2];
		act(SCOPE_HOSTS, 2, barrier_part, patient_us, actors);
	}
	assert_int_equal(entries_count("/proc/self/fd"), fds);
	assert_true(entries_settle("/proc/self/task", threads));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gather),
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_who_does_not_come_is_named),
		cmocka_unit_test(test_stop_at_one_boundary),
		cmocka_unit_test(test_stop_while_ranks_leave),
		cmocka_unit_test(test_stop_before_all_are_there),
		cmocka_unit_test(test_stop_while_loading),
		cmocka_unit_test(test_abort_reaches_all),
		cmocka_unit_test(test_parent_is_gone),
		cmocka_unit_test(test_last_words_are_heard),
		cmocka_unit_test(test_nonsense_from_the_parent),
		cmocka_unit_test(test_beats_tell_how_far),
		cmocka_unit_test(test_own_stall_is_not_the_others),
		cmocka_unit_test(test_close_leaves_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
