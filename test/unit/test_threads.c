/* Goal: every task of a run or of a series of steps is done once, no step begins before the one before it is done, and several callers may
 * share a pool. Method: counters that tasks raise and check, pools of several sizes, steps of zero, one and many tasks, four callers at once. */
#include "core/base/threads.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS = THREADS_STEPS_MAX, TASKS_MAX = 40, CALLERS = 4, REPEATS = 200 };

struct stage {
	struct course *course;
	size_t number, tasks;
};

struct course {
	struct stage stages[STEPS];
	atomic_size_t done[STEPS];
	atomic_int runs[STEPS][TASKS_MAX];
	atomic_bool early;
};

static void stage_task(void *context, size_t i)
{
	struct stage *stage = context;
	struct course *course = stage->course;
	if (stage->number > 0 && atomic_load(&course->done[stage->number - 1]) != course->stages[stage->number - 1].tasks)
		atomic_store(&course->early, true);
	atomic_fetch_add(&course->runs[stage->number][i], 1);
	atomic_fetch_add(&course->done[stage->number], 1);
}

/* True when all went as it should. */
static bool course_run(struct threads *threads, struct course *course)
{
	static const size_t tasks[] = {1, 0, 2, TASKS_MAX, 3, 1, 7};
	struct threads_step steps[STEPS];
	bool good = true;
	memset(course, 0, sizeof *course);
	for (size_t s = 0; s < STEPS; s++) {
		course->stages[s] = (struct stage){course, s, tasks[s % (sizeof tasks / sizeof *tasks)]};
		steps[s] = (struct threads_step){stage_task, &course->stages[s], course->stages[s].tasks};
	}
	threads_run_steps(threads, steps, STEPS);
	for (size_t s = 0; s < STEPS; s++)
		for (size_t i = 0; i < TASKS_MAX; i++)
			good = good && atomic_load(&course->runs[s][i]) == (i < course->stages[s].tasks);
	return good && !atomic_load(&course->early);
}

static void steps_follow_each_other(void **state)
{
	(void)state;
	static struct course course;
	for (unsigned count = 1; count <= 5; count++) {
		struct threads *threads;
		assert_int_equal(threads_open(count, &threads), ST_OK);
		assert_int_equal(threads_count(threads), count);
		for (int i = 0; i < REPEATS; i++)
			assert_true(course_run(threads, &course));
		threads_run_steps(threads, NULL, 0);
		threads_close(threads);
	}
}

struct caller {
	struct threads *threads;
	struct course course;
	bool good;
};

static void *caller_main(void *context)
{
	struct caller *caller = context;
	caller->good = true;
	for (int i = 0; i < REPEATS; i++)
		caller->good = course_run(caller->threads, &caller->course) && caller->good;
	return NULL;
}

static void callers_take_turns(void **state)
{
	(void)state;
	static struct caller callers[CALLERS];
	pthread_t handles[CALLERS];
	struct threads *threads;
	assert_int_equal(threads_open(3, &threads), ST_OK);
	for (int i = 0; i < CALLERS; i++) {
		callers[i].threads = threads;
		assert_int_equal(pthread_create(&handles[i], NULL, caller_main, &callers[i]), 0);
	}
	for (int i = 0; i < CALLERS; i++) {
		assert_int_equal(pthread_join(handles[i], NULL), 0);
		assert_true(callers[i].good);
	}
	threads_close(threads);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(steps_follow_each_other),
		cmocka_unit_test(callers_take_turns),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
