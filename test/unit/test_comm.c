/* Goal: sums over ranks are right, the same bits on all ranks and from run to run, whatever the sizes and whoever comes late; nothing hangs when
 * a peer is gone, stopped or silent, and the sentence says so.
 * Method: forked processes on loopback (ranks_rig.h). Whole numbers small enough to be added exactly in any order are compared exactly; random
 * ones by a digest of their bits. Faults are made with signals at random instants. Deadlines of the test are far away: they only
 * keep a hang from being silent. */
#define _DEFAULT_SOURCE
#include "ranks_rig.h"

#include "core/base/random.h"
#include "core/comm/add.h"
#include "core/comm/comm.h"

#include <arpa/inet.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { WAIT_SECONDS = 120, TIMEOUT_US = 60 * 1000 * 1000 };

/* In a rank: says what broke and ends the rank. */
#define HOLD(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "rank %d: line %d: %s\n", control->rank, __LINE__, #condition); \
			return 1; \
		} \
	} while (0)
#define HOLD_OK(call) \
	do { \
		if ((call) != ST_OK) { \
			fprintf(stderr, "rank %d: line %d: %s\n", control->rank, __LINE__, status_message()); \
			return 1; \
		} \
	} while (0)

struct plan {
	enum comm_schedule schedule;
	enum comm_type type;
	const char *address;
	int64_t timeout_us;
	uint64_t seed;
	bool late; /* ranks come at random times */
};

static enum status plan_open(const struct plan *plan, struct control *control, struct comm **comm)
{
	struct comm_config config = {.control = control, .rank = control->rank, .world = control->world,
		.address = plan->address != NULL ? plan->address : "127.0.0.1", .type = plan->type, .schedule = plan->schedule,
		.timeout_us = plan->timeout_us != 0 ? plan->timeout_us : TIMEOUT_US};
	return comm_open(&config, comm);
}

static void all_end_well(int world, int (*rank_main)(struct control *control, void *context), struct plan *plan)
{
	struct rig rig;
	bool good = true;
	rig_start(&rig, world, rank_main, plan);
	good = rig_wait(&rig, WAIT_SECONDS);
	for (int rank = 0; rank < world; rank++)
		good = good && rig.ends[rank] == 0;
	rig_free(&rig);
	assert_true(good);
}

/* --- values --------------------------------------------------------------------------------------------------------- */

/* Whole, different for each rank and place, and their sum over 8 ranks fits 8 bits: exact in bf16 too. */
static int whole(int rank, size_t i)
{
	return (int)((i * 7 + (size_t)rank * 13) % 31) - 15;
}

static int whole_sum(int world, size_t i)
{
	int sum = 0;
	for (int rank = 0; rank < world; rank++)
		sum += whole(rank, i);
	return sum;
}

enum sort { SORT_FLOATS, SORT_DOUBLES, SORT_STARTED, SORTS };

static int size_check(struct comm *comm, struct control *control, enum sort sort, size_t count)
{
	size_t value_bytes = sort == SORT_DOUBLES ? sizeof(double) : sizeof(float);
	/* A guard after the end. */
	void *memory = malloc((count + 1) * value_bytes);
	HOLD(memory != NULL);
	double *doubles = memory;
	float *floats = memory;
	for (size_t i = 0; i <= count; i++) {
		if (sort == SORT_DOUBLES)
			doubles[i] = whole(control->rank, i);
		else
			floats[i] = (float)whole(control->rank, i);
	}
	if (sort == SORT_DOUBLES)
		HOLD_OK(comm_sum_doubles(comm, doubles, count));
	else if (sort == SORT_FLOATS)
		HOLD_OK(comm_sum_floats(comm, floats, count));
	else {
		/* In three pieces, summed in the order given. */
		HOLD_OK(comm_start(comm, floats, count / 3));
		HOLD_OK(comm_start(comm, floats + count / 3, count / 2));
		HOLD_OK(comm_start(comm, floats + count / 3 + count / 2, count - count / 3 - count / 2));
		HOLD_OK(comm_finish(comm));
	}
	for (size_t i = 0; i <= count; i++) {
		double value = sort == SORT_DOUBLES ? doubles[i] : (double)floats[i];
		double expected = i == count ? whole(control->rank, i) : whole_sum(control->world, i);
		if (value != expected)
			fprintf(stderr, "rank %d of %d: sort %d: value %zu of %zu is %g, expected %g\n", control->rank, control->world, sort, i, count, value,
				expected);
		HOLD(value == expected);
	}
	free(memory);
	return 0;
}

static int sums_rank(struct control *control, void *context)
{
	static const size_t counts[] = {0, 1, 2, 3, 7, 100, 1023, 65537, 300001, 3000000};
	struct plan *plan = context;
	struct comm *comm;
	HOLD_OK(plan_open(plan, control, &comm));
	for (int sort = 0; sort < SORTS; sort++)
		for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
			HOLD(size_check(comm, control, (enum sort)sort, counts[c]) == 0);
	struct comm_figures figures;
	comm_figures(comm, &figures);
	HOLD(figures.sums > 0 && figures.bytes_sent > 0 && figures.sum_seconds > 0 && figures.waited_seconds > 0);
	comm_close(comm);
	return 0;
}

static void sums_are_right(void **state)
{
	(void)state;
	for (int world = 2; world <= 5; world++)
		for (int schedule = COMM_BY_SIZE; schedule <= COMM_HALVING; schedule++)
			for (int type = COMM_FP32; type <= COMM_BF16; type++)
				all_end_well(world, sums_rank, &(struct plan){.schedule = (enum comm_schedule)schedule, .type = (enum comm_type)type});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_are_right),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
