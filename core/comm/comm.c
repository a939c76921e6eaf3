/* comm.c: the threads around a mesh (gloo.h): one works through a queue of collectives, one watches it. See comm.h. */
#include "core/comm/comm.h"

#include "core/base/clock.h"
#include "core/comm/add.h"
#include "core/comm/gloo.h"
#include "core/base/own_thread.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	TICK_US = 50 * 1000,     /* how often the watcher looks */
	STALL_US = 500 * 1000,   /* a longer tick: this process stood still, and its peers are not to blame */
	BROKEN_US = 1000 * 1000, /* a peer that is done may leave while this rank still reads what it sent: so long may that take */
	RING_BYTES_MIN = 4 << 20, /* measured on 2 to 4 ranks: less waiting wins to 1 MB, nothing to choose to 16 MB, a ring beyond */
	/* Of one of Gloo's calls; they bound its memory and ours, and let the pieces of a broadcast follow each other. */
	SUM_BYTES_MAX = 256 << 20,
	BF16_COUNT_MAX = 8 << 20,
	BROADCAST_BYTES_MAX = 8 << 20,
};

enum job_kind { JOB_CONNECT, JOB_FLOATS, JOB_BF16, JOB_DOUBLES, JOB_BROADCAST };

static const struct {
	const char *what, *unit;
} job_names[] = {{"connecting", ""}, {"a sum of", "floats"}, {"a sum of", "floats as bf16"}, {"a sum of", "doubles"}, {"a broadcast of", "bytes"}};

struct job {
	enum job_kind kind;
	void *values;
	size_t count;
	int root;
};

struct comm {
	struct mesh *mesh;
	struct comm_config config;
	char address[64];
	uint16_t *scratch; /* the worker's: values as bf16 */
	size_t scratch_count;
	pthread_t worker, watcher;
	bool worker_started, watcher_started;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t given, done, watch; /* a job was given; one was done; the watcher is to look at once */
	struct job jobs[COMM_STARTED_MAX]; /* a ring: job n at n % COMM_STARTED_MAX */
	uint64_t jobs_given, jobs_done;
	bool running, connected, closing, aborted;
	int64_t running_us; /* of the job under way, as the watcher counts */
	enum status status; /* of the first failure; all later jobs fail with it */
	char message[STATUS_MESSAGE_BYTES_MAX];
	struct comm_figures figures;
};

/* --- the worker ----------------------------------------------------------------------------------------------------- */

static bool ring_is_better(const struct comm *comm, size_t bytes)
{
	switch (comm->config.schedule) {
	case COMM_RING: return true;
	case COMM_HALVING: return false;
	case COMM_BY_SIZE: break;
	}
	return bytes >= RING_BYTES_MIN;
}

static enum status values_sum(struct comm *comm, void *values, size_t count, size_t value_bytes, mesh_add *add)
{
	bool ring = ring_is_better(comm, count * value_bytes);
	size_t piece_max = SUM_BYTES_MAX / value_bytes;
	for (size_t first = 0; first < count; first += piece_max) {
		size_t piece = count - first < piece_max ? count - first : piece_max;
		TRY(mesh_sum(comm->mesh, (char *)values + first * value_bytes, piece, value_bytes, add, ring));
	}
	return ST_OK;
}

static enum status bf16_sum(struct comm *comm, float *values, size_t count)
{
	size_t piece_max = count < BF16_COUNT_MAX ? count : BF16_COUNT_MAX;
	if (comm->scratch_count < piece_max) {
		uint16_t *scratch = realloc(comm->scratch, piece_max * sizeof *scratch);
		if (scratch == NULL)
			return FAIL(ST_MEMORY, "no memory for %zu gradients as bf16", piece_max);
		comm->scratch = scratch;
		comm->scratch_count = piece_max;
	}
	for (size_t first = 0; first < count; first += piece_max) {
		size_t piece = count - first < piece_max ? count - first : piece_max;
		bf16_from_floats(comm->scratch, values + first, piece);
		TRY(values_sum(comm, comm->scratch, piece, sizeof *comm->scratch, add_bf16));
		floats_from_bf16(values + first, comm->scratch, piece);
	}
	return ST_OK;
}

static enum status bytes_broadcast(struct comm *comm, char *bytes, size_t count, int root)
{
	for (size_t first = 0; first < count; first += BROADCAST_BYTES_MAX) {
		size_t piece = count - first < BROADCAST_BYTES_MAX ? count - first : BROADCAST_BYTES_MAX;
		TRY(mesh_broadcast(comm->mesh, bytes + first, piece, root));
	}
	return ST_OK;
}

static enum status job_run(struct comm *comm, const struct job *job)
{
	switch (job->kind) {
	case JOB_CONNECT: return mesh_connect(comm->mesh, comm->config.control, comm->address, comm->config.timeout_us);
	case JOB_FLOATS: return values_sum(comm, job->values, job->count, sizeof(float), add_floats);
	case JOB_BF16: return bf16_sum(comm, job->values, job->count);
	case JOB_DOUBLES: return values_sum(comm, job->values, job->count, sizeof(double), add_doubles);
	case JOB_BROADCAST: return bytes_broadcast(comm, job->values, job->count, job->root);
	}
	MUST(false);
	return ST_INTERNAL;
}

/* Keeps the first failure and its sentence, this thread's. The lock is held. */
static void failure_keep(struct comm *comm, enum status status)
{
	if (status == ST_OK || comm->status != ST_OK)
		return;
	comm->status = status;
	snprintf(comm->message, sizeof comm->message, "%s", status_message());
}

static void *worker_main(void *context)
{
	struct comm *comm = context;
	pthread_mutex_lock(&comm->lock);
	for (;;) {
		while (comm->jobs_done == comm->jobs_given && !comm->closing)
			pthread_cond_wait(&comm->given, &comm->lock);
		if (comm->closing)
			break;
		struct job job = comm->jobs[comm->jobs_done % COMM_STARTED_MAX];
		if (comm->status == ST_OK) {
			int64_t begin_us = clock_us();
			comm->running = true;
			comm->running_us = 0;
			pthread_mutex_unlock(&comm->lock);
			enum status status = job_run(comm, &job);
			/* The others are not left waiting for this rank. */
			if (status != ST_OK)
				mesh_abort(comm->mesh);
			pthread_mutex_lock(&comm->lock);
			failure_keep(comm, status);
			comm->running = false;
			comm->connected = comm->connected || status == ST_OK;
			if (job.kind != JOB_CONNECT && job.kind != JOB_BROADCAST) {
				comm->figures.sums++;
				comm->figures.sum_seconds += 1e-6 * (double)(clock_us() - begin_us);
			}
		}
		comm->jobs_done++;
		pthread_cond_broadcast(&comm->done);
	}
	pthread_mutex_unlock(&comm->lock);
	return NULL;
}

/* --- the watcher ---------------------------------------------------------------------------------------------------- */

static void watch_wait(struct comm *comm)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TICK_US * 1000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&comm->watch, &comm->lock, &until);
}

/* Why the work must end; ST_OK: it need not. What is passed was read under the lock, which is not held: others' locks are taken in here. */
static enum status watch_judge(struct comm *comm, const struct job *job, bool aborted, bool late, bool broken)
{
	if (aborted)
		return FAIL(ST_DEVICE, "the sums of rank %d were ended", comm->config.rank);
	TRY(control_check(comm->config.control));
	if (broken)
		return FAIL(ST_DEVICE, "rank %d closed its connection during %s %zu %s", mesh_broken(comm->mesh), job_names[job->kind].what, job->count,
			job_names[job->kind].unit);
	if (late)
		return FAIL(ST_DEVICE, "%s %zu %s was not done after %.1f s: rank %d waits for rank %d", job_names[job->kind].what, job->count,
			job_names[job->kind].unit, 1e-6 * (double)comm->config.timeout_us, comm->config.rank, mesh_awaited(comm->mesh));
	return ST_OK;
}

static void *watcher_main(void *context)
{
	struct comm *comm = context;
	int64_t last_us = clock_us(), broken_us = 0;
	pthread_mutex_lock(&comm->lock);
	while (!comm->closing && comm->status == ST_OK) {
		watch_wait(comm);
		int64_t now_us = clock_us(), tick_us = now_us - last_us < STALL_US ? now_us - last_us : TICK_US;
		last_us = now_us;
		bool connected_running = comm->running && comm->connected, aborted = comm->aborted;
		comm->running_us += tick_us;
		bool late = connected_running && comm->running_us > comm->config.timeout_us;
		struct job job = comm->jobs[comm->jobs_done % COMM_STARTED_MAX];
		pthread_mutex_unlock(&comm->lock);

		broken_us = connected_running && mesh_broken(comm->mesh) >= 0 ? broken_us + tick_us : 0;
		enum status status = watch_judge(comm, &job, aborted, late, broken_us > BROKEN_US);
		pthread_mutex_lock(&comm->lock);
		failure_keep(comm, status);
	}
	bool failed = comm->status != ST_OK;
	pthread_mutex_unlock(&comm->lock);
	/* Not at an orderly end: it would take from peers what they have not read yet. */
	if (failed)
		mesh_abort(comm->mesh);
	return NULL;
}

/* --- for the caller ------------------------------------------------------------------------------------------------- */

static void job_give(struct comm *comm, struct job job)
{
	pthread_mutex_lock(&comm->lock);
	while (comm->jobs_given - comm->jobs_done == COMM_STARTED_MAX)
		pthread_cond_wait(&comm->done, &comm->lock);
	comm->jobs[comm->jobs_given++ % COMM_STARTED_MAX] = job;
	pthread_cond_signal(&comm->given);
	pthread_mutex_unlock(&comm->lock);
}

static enum status jobs_wait(struct comm *comm)
{
	char message[STATUS_MESSAGE_BYTES_MAX];
	pthread_mutex_lock(&comm->lock);
	while (comm->jobs_done != comm->jobs_given)
		pthread_cond_wait(&comm->done, &comm->lock);
	enum status status = comm->status;
	memcpy(message, comm->message, sizeof message);
	pthread_mutex_unlock(&comm->lock);
	return status == ST_OK ? ST_OK : FAIL(status, "%s", message);
}

static void locks_make(struct comm *comm)
{
	pthread_condattr_t monotonic;
	MUST(pthread_mutex_init(&comm->lock, NULL) == 0 && pthread_condattr_init(&monotonic) == 0);
	MUST(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
	MUST(pthread_cond_init(&comm->given, NULL) == 0 && pthread_cond_init(&comm->done, NULL) == 0);
	MUST(pthread_cond_init(&comm->watch, &monotonic) == 0);
	pthread_condattr_destroy(&monotonic);
}

static void locks_destroy(struct comm *comm)
{
	pthread_cond_destroy(&comm->watch);
	pthread_cond_destroy(&comm->done);
	pthread_cond_destroy(&comm->given);
	pthread_mutex_destroy(&comm->lock);
}

enum status comm_open(const struct comm_config *config, struct comm **comm)
{
	MUST(config->world >= 2 && config->rank >= 0 && config->rank < config->world);
	struct comm *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for the sums over ranks");
	enum status status = mesh_open(config->rank, config->world, &made->mesh);
	if (status != ST_OK) {
		free(made);
		return status;
	}
	locks_make(made);
	made->config = *config;
	snprintf(made->address, sizeof made->address, "%s", config->address);
	made->worker_started = own_thread_start(&made->worker, worker_main, made) == 0;
	made->watcher_started = made->worker_started && own_thread_start(&made->watcher, watcher_main, made) == 0;
	if (!made->watcher_started) {
		status = FAIL(ST_MEMORY, "no thread for the sums over ranks can be started");
		goto failed;
	}
	job_give(made, (struct job){.kind = JOB_CONNECT});
	status = jobs_wait(made);
	if (status != ST_OK)
		goto failed;
	*comm = made;
	return ST_OK;
failed:
	comm_close(made);
	return status;
}

void comm_close(struct comm *comm)
{
	if (comm == NULL)
		return;
	pthread_mutex_lock(&comm->lock);
	comm->closing = true;
	bool busy = comm->running;
	pthread_cond_signal(&comm->given);
	pthread_cond_signal(&comm->watch);
	pthread_mutex_unlock(&comm->lock);
	if (busy)
		mesh_abort(comm->mesh);
	if (comm->worker_started)
		pthread_join(comm->worker, NULL);
	if (comm->watcher_started)
		pthread_join(comm->watcher, NULL);
	mesh_close(comm->mesh);
	locks_destroy(comm);
	free(comm->scratch);
	free(comm);
}

void comm_abort(struct comm *comm)
{
	pthread_mutex_lock(&comm->lock);
	comm->aborted = true;
	pthread_cond_signal(&comm->watch);
	pthread_mutex_unlock(&comm->lock);
}

/* As jobs_wait, for sums: what the caller waits is not overlapped. */
static enum status sums_wait(struct comm *comm)
{
	int64_t begin_us = clock_us();
	enum status status = jobs_wait(comm);
	pthread_mutex_lock(&comm->lock);
	comm->figures.waited_seconds += 1e-6 * (double)(clock_us() - begin_us);
	pthread_mutex_unlock(&comm->lock);
	return status;
}

enum status comm_sum_floats(struct comm *comm, float *values, size_t count)
{
	job_give(comm, (struct job){JOB_FLOATS, values, count, 0});
	return sums_wait(comm);
}

enum status comm_sum_doubles(struct comm *comm, double *values, size_t count)
{
	job_give(comm, (struct job){JOB_DOUBLES, values, count, 0});
	return sums_wait(comm);
}

enum status comm_broadcast(struct comm *comm, void *bytes, size_t count, int root)
{
	MUST(root >= 0 && root < comm->config.world);
	job_give(comm, (struct job){JOB_BROADCAST, bytes, count, root});
	return jobs_wait(comm);
}

enum status comm_start(struct comm *comm, float *values, size_t count)
{
	job_give(comm, (struct job){comm->config.type == COMM_BF16 ? JOB_BF16 : JOB_FLOATS, values, count, 0});
	return ST_OK;
}

enum status comm_finish(struct comm *comm)
{
	return sums_wait(comm);
}

void comm_figures(struct comm *comm, struct comm_figures *figures)
{
	pthread_mutex_lock(&comm->lock);
	*figures = comm->figures;
	pthread_mutex_unlock(&comm->lock);
	figures->bytes_sent = mesh_bytes_sent(comm->mesh);
}

const char *comm_gloo_version(void)
{
	return mesh_gloo_version();
}
