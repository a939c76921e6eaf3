/* batch.c: see batch.h.
 *
 * One lock guards the queue and its counts; it is not held while an engine runs or a job's functions are called. What a run needs beside
 * the jobs (pointers to images, room for logits) belongs to the predict thread. */
#include "serve/batch.h"

#include "core/base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct batch {
	struct batch_config config;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct batch_job *first, **last;
	size_t images, jobs; /* waiting */
	size_t company;      /* jobs of the run before */
	bool stop;
	_Atomic size_t places_taken;
	/* The predict thread's. */
	const float **pointers; /* images_max */
	float *logits;
	size_t logits_floats;
};

/* --- the queue; with the lock ------------------------------------------------------------------------------------------ */

static void push(struct batch *batch, struct batch_job *job)
{
	job->next = NULL;
	*batch->last = job;
	batch->last = &job->next;
	batch->jobs++;
	batch->images += job->count - job->taken;
	metrics_move(batch->config.metrics, GAUGE_QUEUE, (int64_t)(job->count - job->taken));
}

/* Takes out, in order, the jobs of the first one's engine that a run can hold. */
static struct batch_job *pull(struct batch *batch)
{
	struct batch_job *taken = NULL, **end = &taken, **link = &batch->first;
	void *engine = batch->first->engine;
	size_t room = batch->config.images_max;
	while (*link != NULL && room > 0) {
		struct batch_job *job = *link;
		if (job->engine != engine) {
			link = &job->next;
			continue;
		}
		*link = job->next;
		size_t left = job->count - job->taken;
		batch->jobs--;
		batch->images -= left;
		metrics_move(batch->config.metrics, GAUGE_QUEUE, -(int64_t)left);
		job->slice = left < room ? left : room;
		room -= job->slice;
		job->next = NULL;
		*end = job;
		end = &job->next;
	}
	if (*link == NULL)
		batch->last = link;
	return taken;
}

static bool full_enough(const struct batch *batch)
{
	return batch->stop || batch->images >= batch->config.images_max || batch->jobs >= batch->company;
}

/* Waits for a batch worth running. NULL: the end. */
static struct batch_job *next_batch(struct batch *batch)
{
	pthread_mutex_lock(&batch->lock);
	while (batch->first == NULL && !batch->stop)
		pthread_cond_wait(&batch->changed, &batch->lock);
	while (batch->first != NULL && !full_enough(batch)) {
		int64_t leave_us = batch->first->submitted_us + batch->config.wait_us_max;
		if (clock_us() >= leave_us)
			break;
		struct timespec until = {.tv_sec = leave_us / 1000000, .tv_nsec = leave_us % 1000000 * 1000};
		pthread_cond_timedwait(&batch->changed, &batch->lock, &until);
	}
	struct batch_job *jobs = batch->first != NULL ? pull(batch) : NULL;
	pthread_mutex_unlock(&batch->lock);
	return jobs;
}

/* --- a run ------------------------------------------------------------------------------------------------------------- */

static void finish(struct batch *batch, struct batch_job *job, enum batch_outcome outcome)
{
	int64_t now = clock_us();
	if (job->taken_us == 0)
		job->taken_us = now;
	job->outcome = outcome;
	job->queue_us = job->taken_us - job->submitted_us;
	job->predict_us = now - job->taken_us;
	batch_leave(batch);
	job->done(job);
}

/* Hands back the jobs that nobody needs; returns the others. */
static struct batch_job *drop(struct batch *batch, struct batch_job *jobs)
{
	struct batch_job *kept = NULL, **end = &kept;
	int64_t now = clock_us();
	for (struct batch_job *job = jobs, *next; job != NULL; job = next) {
		next = job->next;
		if (job->gone != NULL && job->gone(job)) {
			finish(batch, job, BATCH_LEFT);
		} else if (now > job->deadline_us) {
			finish(batch, job, BATCH_EXPIRED);
		} else {
			*end = job;
			end = &job->next;
		}
	}
	*end = NULL;
	return kept;
}

/* Room for the logits of a run, kept for the next one; NULL when memory is short. */
static float *room(struct batch *batch, size_t classes)
{
	size_t floats = batch->config.images_max * classes;
	if (floats > batch->logits_floats) {
		free(batch->logits);
		batch->logits = malloc(floats * sizeof batch->logits[0]);
		batch->logits_floats = batch->logits != NULL ? floats : 0;
	}
	return batch->logits;
}

static void finish_all(struct batch *batch, struct batch_job *jobs, enum batch_outcome outcome)
{
	for (struct batch_job *job = jobs, *next; job != NULL; job = next) {
		next = job->next;
		finish(batch, job, outcome);
	}
}

static void run(struct batch *batch, struct batch_job *jobs)
{
	size_t n = 0, count = 0, classes = jobs->classes;
	int64_t now = clock_us();
	for (struct batch_job *job = jobs; job != NULL; job = job->next, count++) {
		if (job->taken_us == 0)
			job->taken_us = now;
		for (size_t i = 0; i < job->slice; i++)
			batch->pointers[n++] = job->images + (job->taken + i) * job->image_floats;
	}
	float *logits = room(batch, classes);
	if (logits == NULL) {
		finish_all(batch, jobs, BATCH_NO_MEMORY);
		return;
	}
	batch->config.predict(jobs->engine, batch->pointers, n, logits);
	metrics_batch(batch->config.metrics, n);
	for (struct batch_job *job = jobs; job != NULL; job = job->next) {
		memcpy(job->logits + job->taken * classes, logits, job->slice * classes * sizeof logits[0]);
		logits += job->slice * classes;
		job->taken += job->slice;
	}
	/* Jobs with more to do go back first: once `done` was called, the others may be gone. */
	struct batch_job *finished = NULL, **end = &finished;
	pthread_mutex_lock(&batch->lock);
	batch->company = count;
	for (struct batch_job *job = jobs, *next; job != NULL; job = next) {
		next = job->next;
		if (job->taken < job->count) {
			push(batch, job);
		} else {
			*end = job;
			end = &job->next;
		}
	}
	*end = NULL;
	pthread_mutex_unlock(&batch->lock);
	finish_all(batch, finished, BATCH_DONE);
}

static void *predict_thread(void *context)
{
	struct batch *batch = context;
	for (struct batch_job *jobs; (jobs = next_batch(batch)) != NULL;) {
		jobs = drop(batch, jobs);
		if (jobs != NULL)
			run(batch, jobs);
	}
	return NULL;
}

/* --- outside ----------------------------------------------------------------------------------------------------------- */

enum status batch_open(const struct batch_config *config, struct batch **batch)
{
	struct batch *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for the batch queue");
	made->config = *config;
	made->last = &made->first;
	made->pointers = calloc(config->images_max, sizeof made->pointers[0]);
	pthread_mutex_init(&made->lock, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&made->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	int error = made->pointers == NULL ? -1 : pthread_create(&made->thread, NULL, predict_thread, made);
	if (error != 0) {
		free(made->pointers);
		free(made);
		return FAIL(ST_MEMORY, "the predict thread cannot be started: %s", error > 0 ? strerror(error) : "no memory");
	}
	*batch = made;
	return ST_OK;
}

void batch_close(struct batch *batch)
{
	if (batch == NULL)
		return;
	pthread_mutex_lock(&batch->lock);
	batch->stop = true;
	pthread_cond_signal(&batch->changed);
	pthread_mutex_unlock(&batch->lock);
	pthread_join(batch->thread, NULL);
	pthread_cond_destroy(&batch->changed);
	pthread_mutex_destroy(&batch->lock);
	free(batch->pointers);
	free(batch->logits);
	free(batch);
}

bool batch_enter(struct batch *batch)
{
	size_t taken = atomic_load(&batch->places_taken);
	do {
		if (taken >= batch->config.places)
			return false;
	} while (!atomic_compare_exchange_weak(&batch->places_taken, &taken, taken + 1));
	return true;
}

void batch_leave(struct batch *batch)
{
	atomic_fetch_sub(&batch->places_taken, 1);
}

void batch_submit(struct batch *batch, struct batch_job *job)
{
	job->taken = job->slice = 0;
	job->taken_us = 0;
	job->submitted_us = clock_us();
	pthread_mutex_lock(&batch->lock);
	push(batch, job);
	if (batch->jobs == 1 || full_enough(batch))
		pthread_cond_signal(&batch->changed);
	pthread_mutex_unlock(&batch->lock);
}
