/* Goal: being asked to stop is a flag and nothing else. Method: children that are signalled. Conformance test 65. */
#include "test/unit/failure_rig.h"

#include "train/ranks/stop.h"

#include <time.h>

static void body_stop(void)
{
	sigset_t set;
	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL); /* as a careless parent would start us */
	check(stop_install() == ST_OK, 1);
	check(!stop_requested() && !stop_now(), 2);
	raise(SIGTERM);
	check(stop_requested() && !stop_now(), 3);
	raise(SIGINT);
	check(stop_requested() && stop_now(), 4);
	for (int i = 0; i < 1000; i++)
		raise(SIGTERM);
	check(stop_now(), 5);
}

static void stop_flags(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_stop), 0);
}

static void body_ignored(void)
{
	int fds[2];
	check(stop_install() == ST_OK, 1);
	raise(SIGHUP);
	check(pipe(fds) == 0, 2);
	close(fds[0]);
	check(write(fds[1], "x", 1) == -1, 3);
	limit_files();
	check(!stop_requested(), 4);
}

static void other_signals_do_nothing(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_ignored), 0);
}

static void body_wakes(void)
{
	int fds[2];
	char byte;
	check(stop_install() == ST_OK && pipe(fds) == 0, 1);
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		while (getppid() == parent && kill(parent, SIGTERM) == 0) /* until it has gone: so no signal can come too early */
			nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
		_exit(0);
	}
	check(read(fds[0], &byte, 1) == -1, 2); /* would wait for ever if it were restarted */
	check(stop_requested(), 3);
}

static void waiting_calls_wake(void **unused)
{
	(void)unused;
	assert_int_equal(child(body_wakes), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(stop_flags),
		TEST(other_signals_do_nothing),
		TEST(waiting_calls_wake),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
