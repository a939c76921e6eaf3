/* stop.c: see stop.h. The handler touches lock-free atomics and nothing else. */
#include "train/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

static atomic_int signals_count, signal_last;

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler needs lock-free integers");

static void on_stop(int number)
{
	atomic_store(&signal_last, number);
	if (atomic_load(&signals_count) < 2) /* so that it never wraps */
		atomic_fetch_add(&signals_count, 1);
}

static enum status handle(int number, void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler}; /* no SA_RESTART: what waits shall wake */
	sigemptyset(&action.sa_mask);
	if (sigaction(number, &action, NULL) != 0)
		return FAIL(ST_INTERNAL, "no handler for signal %d: %s", number, strerror(errno));
	return ST_OK;
}

enum status stop_install(void)
{
	TRY(handle(SIGTERM, on_stop));
	TRY(handle(SIGINT, on_stop));
	TRY(handle(SIGPIPE, SIG_IGN));
	TRY(handle(SIGHUP, SIG_IGN));
	TRY(handle(SIGXFSZ, SIG_IGN));
	/* A parent may have started us with them blocked. */
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_UNBLOCK, &set, NULL) != 0)
		return FAIL(ST_INTERNAL, "SIGTERM cannot be unblocked: %s", strerror(errno));
	return ST_OK;
}

bool stop_requested(void)
{
	return atomic_load(&signals_count) > 0;
}

bool stop_now(void)
{
	return atomic_load(&signals_count) > 1;
}

const char *stop_signal(void)
{
	int number = atomic_load(&signal_last);
	return number == SIGTERM ? "SIGTERM" : number == SIGINT ? "SIGINT" : "";
}

bool stop_wait(double seconds)
{
	struct timespec left = {.tv_sec = (time_t)seconds};
	left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
	/* Short naps: a signal between the test and the sleep, or one taken by another thread, would else cost the whole wait. */
	while (!stop_requested() && (left.tv_sec > 0 || left.tv_nsec > 0)) {
		struct timespec nap = {.tv_nsec = 50000000};
		if (left.tv_sec == 0 && left.tv_nsec < nap.tv_nsec)
			nap.tv_nsec = left.tv_nsec;
		nanosleep(&nap, NULL);
		left.tv_nsec -= nap.tv_nsec;
		if (left.tv_nsec < 0) {
			left.tv_nsec += 1000000000;
			left.tv_sec--;
		}
	}
	return stop_requested();
}
