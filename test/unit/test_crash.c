/* Goal: a crash says which one, and dies by the same signal. Method: children that crash; the parent looks at what they left. Conformance
 * test 64. */
#include "test/unit/failure_rig.h"

#include <pthread.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static int crash_number;

static void body_crash(void)
{
	open_it();
	raise(crash_number);
}

static void crashes(void **unused)
{
	(void)unused;
	for (int i = 0; i < CRASH_KINDS; i++) {
		crash_number = crash_kinds[i].number;
		int status = child(body_crash);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == crash_number);
		char start[64];
		snprintf(start, sizeof start, "killed by %s (", crash_kinds[i].name);
		assert_non_null(left());
		assert_int_equal(strncmp(left(), start, strlen(start)), 0);
		assert_non_null(strstr(said, start));
		nothing_else_left();
		assert_int_equal(unlink(opt_ml.failure), 0);
	}
}

static void body_must(void)
{
	open_it();
	int tensors = 3;
	MUST(tensors == 4);
}

static void broken_promise(void **unused)
{
	(void)unused;
	int status = child(body_must);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_non_null(left());
	assert_int_equal(strncmp(left(), __FILE__ ":", strlen(__FILE__ ":")), 0);
	assert_non_null(strstr(left(), "broken promise: tensors == 4"));
}

static int deeper(volatile char *above)
{
	volatile char block[4096];
	block[0] = above[0];
	return block[0] == 0 ? deeper(block) + 1 : 0;
}

static void body_overflow(void)
{
	open_it();
	volatile char top[1] = {0};
	_exit(deeper(top) == 1);
}

static void stack_overflow(void **unused)
{
	(void)unused;
	if (SANITIZED)
		skip(); /* the sanitizer keeps stacks of its own */
	int status = child(body_overflow);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	assert_non_null(left());
	assert_int_equal(strncmp(left(), "killed by SIGSEGV", 17), 0);
}

static void *thread_crash(void *unused)
{
	raise(SIGSEGV);
	return unused;
}

static void body_threads(void)
{
	pthread_t threads[4];
	open_it();
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, thread_crash, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

static void crashes_together(void **unused)
{
	(void)unused;
	for (int i = 0; i < 20; i++) {
		int status = child(body_threads);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
		assert_non_null(left());
		assert_int_equal(strncmp(left(), "killed by SIGSEGV (memory", 25), 0);
		assert_null(strstr(said + 1, "killed")); /* told once */
		assert_int_equal(unlink(opt_ml.failure), 0);
	}
}

static void body_closed_crash(void)
{
	open_it();
	failure_close();
	raise(SIGSEGV);
}

static void crash_after_the_end(void **unused)
{
	(void)unused;
	int status = child(body_closed_crash);
	assert_true(WIFSIGNALED(status));
	assert_null(left());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(crashes),
		TEST(broken_promise),
		TEST(stack_overflow),
		TEST(crashes_together),
		TEST(crash_after_the_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
