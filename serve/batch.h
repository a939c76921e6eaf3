/* batch.h: requests joined to one run of an engine.
 *
 * In: jobs, each some images for one engine. Out: their logits, and a call of the job's `done`. One thread, the predict thread, takes jobs
 * in order, joins those of one engine up to images_max, runs the engine and hands the jobs back. A job larger than that is computed in
 * parts; jobs that came meanwhile go in between, so a large body does not hold up small ones.
 *
 * When a batch leaves: at once when as many jobs wait as the batch before had, or the batch is full; else when its oldest job has waited
 * wait_us_max. So a lone client never waits, and clients that call in step are computed together.
 *
 * Places are the bound: batch_enter takes one or says that the queue is full; it is given back before `done` is called, or by
 * batch_leave when the job was never submitted. After batch_submit the job is the batch's until `done`. */
#pragma once

#include "core/base/status.h"
#include "serve/metrics.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum batch_outcome {
	BATCH_DONE,    /* logits are written */
	BATCH_EXPIRED, /* the deadline passed before the last image was taken up */
	BATCH_LEFT,    /* `gone` said so */
	BATCH_NO_MEMORY,
};

struct batch_job {
	/* The caller's. */
	void *engine;             /* jobs with the same value are joined */
	const float *images;      /* count × image_floats, one after the other */
	size_t count, image_floats;
	float *logits;            /* count × classes */
	size_t classes;
	int64_t deadline_us;      /* clock_us() */
	bool (*gone)(struct batch_job *job); /* whether nobody wants the answer any more; NULL: never. Called on the predict thread */
	void (*done)(struct batch_job *job); /* called on the predict thread, once; the job may be freed in it */
	/* The batch's answer. */
	enum batch_outcome outcome;
	int64_t queue_us, predict_us; /* from batch_submit until the first image was taken up; from there to the end */
	/* The batch's own. */
	struct batch_job *next;
	size_t taken;             /* images computed or being computed */
	size_t slice;             /* images of the run in progress */
	int64_t submitted_us, taken_us;
};

struct batch_config {
	size_t images_max;     /* of a run */
	size_t places;
	int64_t wait_us_max;
	/* logits[i · classes + k] of images[i]. Called on the predict thread only. */
	void (*predict)(void *engine, const float *const *images, size_t n, float *logits);
	struct metrics *metrics; /* lent */
};

struct batch;

/* Starts the predict thread. ST_MEMORY. */
enum status batch_open(const struct batch_config *config, struct batch **batch);
/* Ends the thread after the jobs that are still there are done. Accepts NULL. */
void batch_close(struct batch *batch);

bool batch_enter(struct batch *batch);
void batch_leave(struct batch *batch);
/* Any thread, with a place taken. Jobs have at least one image. */
void batch_submit(struct batch *batch, struct batch_job *job);
