/* workers.h: a few threads that do what must not hold up the I/O threads: decode and encode of large bodies; loading and unloading of
 * models. First come, first served.
 *
 * A task is a node inside its owner, so that nothing is allocated and submitting cannot fail; how many may be waiting is the owner's
 * matter (serve/batch.h's places, the connections). */
#pragma once

#include "core/base/status.h"

struct task {
	void (*run)(struct task *task);
	struct task *next; /* the workers' while it waits */
};

struct workers;

/* Starts `count` threads. ST_MEMORY. */
enum status workers_open(unsigned count, struct workers **workers);
/* Hands a task over; it runs once, on one of the threads, and may submit again. Any thread. */
void workers_submit(struct workers *workers, struct task *task);
/* Runs what is still waiting, then ends the threads. Accepts NULL. */
void workers_close(struct workers *workers);
