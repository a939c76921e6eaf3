/* test_schedule.c: the learning rate of chosen steps against values worked out by hand. */
#include "train/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_lr(const struct settings *s, int64_t step, double wanted)
{
	double found = schedule_lr(s, 10, 100, step); /* 10 steps an epoch, 100 in all */
	if (fabs(found - wanted) > 1e-12)
		fail_msg("step %lld: lr %.15g, expected %.15g", (long long)step, found, wanted);
}

static void warmup_then_cosine(void **context)
{
	(void)context;
	struct settings s = {.lr = 0.4, .lr_min = 0.04, .warmup_epochs = 2, .lr_schedule = LR_COSINE};
	assert_lr(&s, 0, 0.02);
	assert_lr(&s, 9, 0.2);
	assert_lr(&s, 18, 0.38);
	assert_lr(&s, 20, 0.4);
	assert_lr(&s, 60, 0.22); /* half-way: the mean of both ends */
	assert_lr(&s, 100, 0.04);
}

static void linear_reaches_its_end(void **context)
{
	(void)context;
	struct settings s = {.lr = 1, .lr_schedule = LR_LINEAR};
	assert_lr(&s, 0, 1);
	assert_lr(&s, 25, 0.75);
	assert_lr(&s, 99, 0.01);
	assert_lr(&s, 100, 0);
	assert_lr(&s, 200, 0); /* never below its end */
}

static void steps_multiply(void **context)
{
	(void)context;
	struct settings s = {.lr = 1, .lr_schedule = LR_STEP, .lr_step_factor = 0.5, .lr_step_epochs = {.count = 2, .item = {3, 6}}};
	assert_lr(&s, 29, 1);
	assert_lr(&s, 30, 0.5);
	assert_lr(&s, 59, 0.5);
	assert_lr(&s, 60, 0.25);
}

static void constant_is_constant(void **context)
{
	(void)context;
	struct settings s = {.lr = 2e-4, .lr_schedule = LR_CONSTANT};
	assert_lr(&s, 0, 2e-4);
	assert_lr(&s, 99, 2e-4);
	s.warmup_epochs = 0.5; /* five steps */
	assert_lr(&s, 0, 4e-5);
	assert_lr(&s, 4, 2e-4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(warmup_then_cosine),
		cmocka_unit_test(linear_reaches_its_end),
		cmocka_unit_test(steps_multiply),
		cmocka_unit_test(constant_is_constant),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
