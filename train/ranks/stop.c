/* stop.c: see stop.h. The handler touches lock-free atomics and nothing else. */
#include "train/ranks/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static atomic_int signals_count;
static struct control *_Atomic followed;

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler needs lock-free integers");

static void on_stop(int number)
{
	(void)number;
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

void stop_follow(struct control *control)
{
	atomic_store(&followed, control);
}

int stop_signals(void)
{
	return atomic_load(&signals_count);
}

bool stop_requested(void)
{
	struct control *control = atomic_load(&followed);
	return atomic_load(&signals_count) > 0 || (control != NULL && control_stopping(control));
}

bool stop_now(void)
{
	struct control *control = atomic_load(&followed);
	return atomic_load(&signals_count) > 1 || (control != NULL && control_hurry(control));
}
