/* threads.h: one pool of compute threads (pthreadpool), sized by what this process may really use. */
#pragma once

#include "core/base/status.h"

#include <stddef.h>

struct threads;

/* Cores that affinity and the cgroup's CPU quota (v1 and v2) leave to this process, at least 1. */
unsigned threads_available(void);

/* A pool of `count` threads (0: threads_available()), the caller's among them. ST_MEMORY when it cannot be made. */
enum status threads_open(unsigned count, struct threads **threads);
void threads_close(struct threads *threads);
unsigned threads_count(const struct threads *threads);

/* Runs task(context, i) for every i in [0, count), each once, in any order, on any thread; returns when all are done. What is
 * computed must not depend on which thread ran it. Callers on several threads take turns. Workers sleep afterwards. */
void threads_run(struct threads *threads, void (*task)(void *context, size_t i), void *context, size_t count);
