/* comm_rig.h: what the tests of comm.h share: ranks that open a comm as planned, and say what broke. */
#pragma once

#include "ranks_rig.h"

#include "core/base/random.h"
#include "core/comm/comm.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>

#include <cmocka.h>

/* Far away: they only keep a hang from being silent. */
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

static inline enum status plan_open(const struct plan *plan, struct control *control, struct comm **comm)
{
	struct comm_config config = {.control = control, .rank = control->rank, .world = control->world,
		.address = plan->address != NULL ? plan->address : "127.0.0.1", .type = plan->type, .schedule = plan->schedule,
		.timeout_us = plan->timeout_us != 0 ? plan->timeout_us : TIMEOUT_US};
	return comm_open(&config, comm);
}

static inline void all_end_well(int world, int (*rank_main)(struct control *control, void *context), struct plan *plan)
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
