/* threads.c: see threads.h. */
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT_S */
#include "core/base/threads.h"

#include <pthreadpool.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

struct threads {
	pthreadpool_t pool;
};

static unsigned affinity_count(void)
{
	/* The kernel may know more processors than cpu_set_t has bits: ask with growing sets. */
	for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
		cpu_set_t *set = CPU_ALLOC((size_t)cpus);
		if (set == NULL)
			return 1;
		size_t bytes = CPU_ALLOC_SIZE((size_t)cpus);
		int result = sched_getaffinity(0, bytes, set);
		int count = result == 0 ? CPU_COUNT_S(bytes, set) : 0;
		CPU_FREE(set);
		if (count > 0)
			return (unsigned)count;
	}
	return 1;
}

/* Whole cores that quota and period allow, or 0 when there is no limit. */
static unsigned quota_cores(double quota, double period)
{
	if (quota <= 0 || period <= 0)
		return 0;
	double cores = quota / period;
	return cores < 1 ? 1 : (unsigned)(cores + 0.5);
}

static unsigned cgroup_cores(void)
{
	double quota = 0, period = 0;
	FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
	if (file != NULL) {
		int fields = fscanf(file, "%lf %lf", &quota, &period); /* "max 100000" has no number in front */
		fclose(file);
		return fields == 2 ? quota_cores(quota, period) : 0;
	}
	file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
	if (file == NULL)
		return 0;
	int fields = fscanf(file, "%lf", &quota);
	fclose(file);
	file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
	if (file == NULL)
		return 0;
	fields += fscanf(file, "%lf", &period);
	fclose(file);
	return fields == 2 ? quota_cores(quota, period) : 0;
}

unsigned threads_available(void)
{
	unsigned affinity = affinity_count(), quota = cgroup_cores();
	return quota != 0 && quota < affinity ? quota : affinity;
}

enum status threads_open(unsigned count, struct threads **threads)
{
	if (count == 0)
		count = threads_available();
	struct threads *made = malloc(sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for a thread pool");
	made->pool = pthreadpool_create(count);
	if (made->pool == NULL) {
		free(made);
		return FAIL(ST_MEMORY, "a pool of %u threads cannot be made", count);
	}
	*threads = made;
	return ST_OK;
}

void threads_close(struct threads *threads)
{
	if (threads == NULL)
		return;
	pthreadpool_destroy(threads->pool);
	free(threads);
}

unsigned threads_count(const struct threads *threads)
{
	return (unsigned)pthreadpool_get_threads_count(threads->pool);
}

/* Denormals count as zero on every thread, the caller's too: bits do not depend on who computes what.
 * Idle workers sleep: spinning would take the cores of whoever shares this machine, and of this pool itself on a crowded one. */
static const uint32_t flags = PTHREADPOOL_FLAG_DISABLE_DENORMALS | PTHREADPOOL_FLAG_YIELD_WORKERS;

#ifndef __SANITIZE_THREAD__
void threads_run(struct threads *threads, void (*task)(void *context, size_t i), void *context, size_t count)
{
	pthreadpool_parallelize_1d(threads->pool, task, context, count, flags);
}
#else
/* ThreadSanitizer does not see inside the library: it is told what a run promises, that tasks come after its beginning and before its end. */
struct told {
	void (*task)(void *context, size_t i);
	void *context;
};

static void told_task(void *context, size_t i)
{
	struct told *told = context;
	__tsan_acquire(told);
	told->task(told->context, i);
	__tsan_release(told);
}

void threads_run(struct threads *threads, void (*task)(void *context, size_t i), void *context, size_t count)
{
	struct told told = {task, context};
	__tsan_release(&told);
	pthreadpool_parallelize_1d(threads->pool, told_task, &told, count, flags);
	__tsan_acquire(&told);
}
#endif

/* --- steps ---------------------------------------------------------------------------------------------------------- */

/* How often a thread looks whether the others are done before it lets other work have its core: some 20 µs. */
enum { LOOKS_MAX = 500, CACHE_LINE = 64 };

/* How far a step is; on cache lines of their own. */
struct progress {
	alignas(CACHE_LINE) atomic_size_t next;
	alignas(CACHE_LINE) atomic_size_t done;
};

struct series {
	const struct threads_step *steps;
	size_t count;
	struct progress progress[THREADS_STEPS_MAX];
};

static void wait_until(const atomic_size_t *done, size_t count)
{
	for (int looks = 0; atomic_load_explicit(done, memory_order_acquire) < count; looks++) {
		if (looks < LOOKS_MAX)
			__builtin_ia32_pause();
		else
			sched_yield();
	}
}

/* One thread's way through all steps: in each it takes tasks until none is left. A thread that comes late finds the work done; were all
 * members run by one thread, the first would do everything. */
static void member_run(void *context, size_t member)
{
	struct series *series = context;
	(void)member;
	for (size_t s = 0; s < series->count; s++) {
		const struct threads_step *step = &series->steps[s];
		struct progress *progress = &series->progress[s];
		for (size_t i; (i = atomic_fetch_add_explicit(&progress->next, 1, memory_order_relaxed)) < step->count;) {
			step->task(step->context, i);
			atomic_fetch_add_explicit(&progress->done, 1, memory_order_release);
		}
		wait_until(&progress->done, step->count);
	}
}

void threads_run_steps(struct threads *threads, const struct threads_step *steps, size_t count)
{
	struct series series;
	MUST(count <= THREADS_STEPS_MAX);
	series.steps = steps;
	series.count = count;
	for (size_t s = 0; s < count; s++) {
		atomic_init(&series.progress[s].next, 0);
		atomic_init(&series.progress[s].done, 0);
	}
	threads_run(threads, member_run, &series, threads_count(threads));
}
