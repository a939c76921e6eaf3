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

/* A step of a series: task(context, i) for every i in [0, count). */
struct threads_step {
	void (*task)(void *context, size_t i);
	void *context;
	size_t count;
};

enum { THREADS_STEPS_MAX = 64 };

/* Runs the steps one after another, each as threads_run would; a step begins when all of the one before is done. For many short steps:
 * workers are woken once, and a thread that other work keeps from its core holds up nobody who can do its share. */
void threads_run_steps(struct threads *threads, const struct threads_step *steps, size_t count);
