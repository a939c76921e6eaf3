/* communicator.c: see communicator.h.
 *
 * Two threads: the training thread enqueues and waits, the watch looks ten times a second whether things go on. Whoever sees a failure first
 * keeps its sentence; the watch aborts NCCL, which ends the kernels that wait on the device, and with them whatever waits for these.
 * NCCL's communicator is not blocking: its calls return at once and are asked for their end, so no call of it can hang. */
#include "core/backend/cuda/communicator.h"

#include "core/backend/cuda/check.h"
#include "core/backend/cuda/nccl_environment.h"
#include "core/base/clock.h"
#include "core/base/log.h"

#include <nccl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum {
	MARKS = 64,
	WATCH_US = 100000,
	STALL_US = 1000000,     /* a longer time between two looks is a time in which this process did not run */
	ABORT_S_MAX = 10,        /* an abort on a device that is dead may wait for it for ever */
	CLOSE_US_MAX = 2000000, /* whoever leaves because of a failure of its own waits so long in vain */
	SPINS = 200,            /* looks before a wait begins to sleep: a step of this network takes about a millisecond */
	SLEEP_US = 50,
};

struct communicator {
	struct reduction reduction;
	int device;
	ncclComm_t nccl;              /* NULL: not open, or aborted */
	pthread_mutex_t nccl_lock;    /* whoever calls NCCL with it */
	cudaEvent_t waited;

	/* Work that is watched: a ring that the training thread fills at `marks_end` and the watch empties at `marks_begin`. */
	cudaEvent_t marks[MARKS];
	atomic_uint marks_begin, marks_end;

	pthread_t watch;
	bool watched;
	pthread_mutex_t lock;         /* the four below */
	pthread_cond_t wake;
	bool closing, watch_ended;
	char sentence[STATUS_MESSAGE_BYTES_MAX];
	atomic_bool failed;           /* set once, after the sentence */
};

/* --- time -------------------------------------------------------------------------------------------------------------- */

static void sleep_us(long us)
{
	nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
}

/* Time that counts since the last call: what this process slept through does not. */
static int64_t clock_lap_us(int64_t *last_us)
{
	int64_t now_us = clock_us(), lap_us = now_us - *last_us;
	*last_us = now_us;
	return lap_us < STALL_US ? lap_us : WATCH_US;
}

/* --- failure ----------------------------------------------------------------------------------------------------------- */

/* Keeps the first failure's sentence, which is this thread's last one, and wakes the watch. Returns ST_DEVICE. */
static enum status communicator_fail(struct communicator *communicator)
{
	pthread_mutex_lock(&communicator->lock);
	if (!atomic_load(&communicator->failed)) {
		snprintf(communicator->sentence, sizeof communicator->sentence, "%s", status_message());
		atomic_store(&communicator->failed, true);
	}
	pthread_cond_signal(&communicator->wake);
	pthread_mutex_unlock(&communicator->lock);
	return FAIL(ST_DEVICE, "%s", communicator->sentence);
}

static enum status communicator_check(const struct communicator *communicator)
{
	return atomic_load(&communicator->failed) ? FAIL(ST_DEVICE, "%s", communicator->sentence) : ST_OK;
}

/* A container's shared memory is often too small for ranks of one host, and NCCL only says "system error". Empty when it is not. */
static void shared_memory_hint(char *hint, size_t hint_bytes)
{
	enum { MEGABYTES_LEAST = 256 };
	struct statvfs about;
	uint64_t megabytes = statvfs("/dev/shm", &about) == 0 ? (uint64_t)about.f_blocks * about.f_frsize >> 20 : MEGABYTES_LEAST;
	if (megabytes < MEGABYTES_LEAST)
		snprintf(hint, hint_bytes, "; /dev/shm has only %d MB, which may be too little: docker run --shm-size=1g", (int)megabytes);
}

/* NCCL's result as a sentence; its last warning often knows more than the result's name. */
static enum status nccl_fail(const struct communicator *communicator, const char *what, ncclResult_t result)
{
	const char *words = ncclGetLastError(communicator->nccl);
	bool known = words != NULL && words[0] != '\0';
	char hint[128] = "";
	if (result == ncclSystemError)
		shared_memory_hint(hint, sizeof hint);
	return FAIL(ST_DEVICE, "rank %d: NCCL's %s failed: %s%s%.600s%s", communicator->reduction.rank, what, ncclGetErrorString(result), known ? ": " : "",
		known ? words : "", hint);
}

/* --- calls of NCCL ----------------------------------------------------------------------------------------------------- */

/* Waits until what was called has ended. reduction->check's status; ST_DEVICE with NCCL's words or when it takes too long. */
static enum status nccl_settle(struct communicator *communicator, const char *what, ncclResult_t result, int64_t left_us)
{
	int64_t last_us = clock_us();
	for (int looks = 0; result == ncclInProgress; looks++) {
		ncclResult_t asked = ncclCommGetAsyncError(communicator->nccl, &result);
		if (asked != ncclSuccess)
			result = asked;
		if (result != ncclInProgress)
			break;
		TRY(communicator_check(communicator));
		left_us -= clock_lap_us(&last_us);
		if (left_us <= 0)
			return FAIL(ST_DEVICE, "rank %d: NCCL's %s has not ended in time: a rank or the network between them stands still",
				communicator->reduction.rank, what);
		if (looks < SPINS) {
			sched_yield();
			continue;
		}
		TRY(communicator->reduction.check(communicator->reduction.context));
		sleep_us(SLEEP_US);
	}
	return result == ncclSuccess ? ST_OK : nccl_fail(communicator, what, result);
}

/* The right to call NCCL. Not by waiting for the lock: an abort, which has it, may itself wait for the training thread to destroy graphs. */
static enum status nccl_enter(struct communicator *communicator)
{
	while (pthread_mutex_trylock(&communicator->nccl_lock) != 0) {
		TRY(communicator_check(communicator));
		sched_yield();
	}
	enum status status = communicator_check(communicator);
	if (status != ST_OK)
		pthread_mutex_unlock(&communicator->nccl_lock);
	return status;
}

/* Ends all waiting on the device. On the watch's thread, or when there is none. */
static void nccl_abort(struct communicator *communicator)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 1;
	/* A call that does not come back in that time hangs behind a full queue of the device; only the abort frees it. */
	bool locked = pthread_mutex_timedlock(&communicator->nccl_lock, &until) == 0;
	ncclComm_t nccl = communicator->nccl;
	communicator->nccl = NULL;
	if (nccl != NULL)
		ncclCommAbort(nccl);
	if (locked)
		pthread_mutex_unlock(&communicator->nccl_lock);
}

/* Says good-bye to the other ranks, if all went well and they are still there. On the watch's thread, or when there is none. */
static void connection_end(struct communicator *communicator)
{
	const struct reduction *reduction = &communicator->reduction;
	int64_t patience_us = reduction->timeout_us < CLOSE_US_MAX ? reduction->timeout_us : CLOSE_US_MAX;
	if (communicator->nccl == NULL)
		return;
	if (communicator_check(communicator) == ST_OK && reduction->check(reduction->context) == ST_OK
		&& nccl_settle(communicator, "end", ncclCommFinalize(communicator->nccl), patience_us) == ST_OK) {
		ncclCommDestroy(communicator->nccl);
		communicator->nccl = NULL;
	} else {
		nccl_abort(communicator);
	}
}

/* --- the watch --------------------------------------------------------------------------------------------------------- */

/* Takes marks whose work is done. *progress: one was, or none is left. */
static enum status marks_take(struct communicator *communicator, bool *progress)
{
	unsigned begin = atomic_load(&communicator->marks_begin);
	*progress = false;
	for (; begin != atomic_load(&communicator->marks_end); begin++) {
		cudaError_t error = cudaEventQuery(communicator->marks[begin % MARKS]);
		if (error == cudaErrorNotReady)
			return ST_OK;
		TRY(cuda_status(error, "the device's work"));
		*progress = true;
		atomic_store(&communicator->marks_begin, begin + 1);
	}
	*progress = true;
	return ST_OK;
}

static enum status nccl_look(struct communicator *communicator)
{
	ncclResult_t result = ncclSuccess, asked = ncclSuccess;
	if (pthread_mutex_trylock(&communicator->nccl_lock) != 0)
		return ST_OK; /* a call is under way and looks itself */
	if (communicator->nccl != NULL)
		asked = ncclCommGetAsyncError(communicator->nccl, &result);
	enum status status = ST_OK;
	if (asked != ncclSuccess || (result != ncclSuccess && result != ncclInProgress))
		status = nccl_fail(communicator, "connection", asked != ncclSuccess ? asked : result);
	pthread_mutex_unlock(&communicator->nccl_lock);
	return status;
}

/* One look. *still_us: how long nothing has come to its end although there was work. */
static enum status watch_look(struct communicator *communicator, int64_t lap_us, int64_t *still_us)
{
	const struct reduction *reduction = &communicator->reduction;
	bool progress;
	TRY(reduction->check(reduction->context));
	TRY(nccl_look(communicator));
	TRY(marks_take(communicator, &progress));
	*still_us = progress ? 0 : *still_us + lap_us;
	if (*still_us > reduction->timeout_us)
		return FAIL(ST_DEVICE, "rank %d: its GPU has not ended a step for %.0f s: another rank, or the network to it, stands still (collective_timeout_seconds)",
			reduction->rank, (double)reduction->timeout_us / 1e6);
	return ST_OK;
}

/* Sleeps until the next look. False: the communicator is closed. */
static bool watch_sleep(struct communicator *communicator)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)WATCH_US * 1000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&communicator->lock);
	if (!communicator->closing && !atomic_load(&communicator->failed))
		pthread_cond_timedwait(&communicator->wake, &communicator->lock, &until);
	bool closing = communicator->closing;
	pthread_mutex_unlock(&communicator->lock);
	return !closing;
}

static void *watch_run(void *context)
{
	struct communicator *communicator = context;
	int64_t last_us = clock_us(), still_us = 0;
	enum status status = CUDA(cudaSetDevice(communicator->device));
	while (status == ST_OK && watch_sleep(communicator)) {
		status = communicator_check(communicator);
		if (status == ST_OK)
			status = watch_look(communicator, clock_lap_us(&last_us), &still_us);
	}
	if (status != ST_OK) {
		communicator_fail(communicator);
		nccl_abort(communicator);
	} else {
		connection_end(communicator);
	}
	pthread_mutex_lock(&communicator->lock);
	communicator->watch_ended = true;
	pthread_cond_signal(&communicator->wake);
	pthread_mutex_unlock(&communicator->lock);
	return NULL;
}

/* The watch ends the connection. False: it hangs in NCCL and is left to itself, with all that it may touch. */
static bool watch_stop(struct communicator *communicator)
{
	struct timespec until;
	if (!communicator->watched)
		return true;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ABORT_S_MAX;
	pthread_mutex_lock(&communicator->lock);
	communicator->closing = true;
	pthread_cond_signal(&communicator->wake);
	for (int error = 0; !communicator->watch_ended && error == 0;)
		error = pthread_cond_timedwait(&communicator->wake, &communicator->lock, &until);
	bool ended = communicator->watch_ended;
	pthread_mutex_unlock(&communicator->lock);
	MUST((ended ? pthread_join(communicator->watch, NULL) : pthread_detach(communicator->watch)) == 0);
	return ended;
}

static enum status watch_start(struct communicator *communicator)
{
	int error = pthread_create(&communicator->watch, NULL, watch_run, communicator);
	if (error != 0)
		return FAIL(ST_MEMORY, "the thread that watches NCCL cannot be started: %s", strerror(error));
	communicator->watched = true;
	return ST_OK;
}

/* --- sums -------------------------------------------------------------------------------------------------------------- */

enum status communicator_mark(struct communicator *communicator, cudaStream_t stream)
{
	unsigned end = atomic_load(&communicator->marks_end);
	TRY(communicator_check(communicator));
	if (end - atomic_load(&communicator->marks_begin) == MARKS)
		return ST_OK; /* those before it are watched, and it cannot end before they do */
	if (CUDA(cudaEventRecord(communicator->marks[end % MARKS], stream)) != ST_OK)
		return communicator_fail(communicator);
	atomic_store(&communicator->marks_end, end + 1);
	return ST_OK;
}

static enum status sum_enqueue(struct communicator *communicator, void *values, size_t count, ncclDataType_t type, cudaStream_t stream)
{
	TRY(nccl_enter(communicator));
	ncclResult_t result = ncclAllReduce(values, values, count, type, ncclSum, communicator->nccl, stream);
	enum status status = nccl_settle(communicator, "sum", result, communicator->reduction.timeout_us);
	pthread_mutex_unlock(&communicator->nccl_lock);
	return status != ST_OK ? communicator_fail(communicator) : ST_OK;
}

enum status communicator_sum(struct communicator *communicator, void *values, size_t count, enum element element, cudaStream_t stream)
{
	static const ncclDataType_t types[] = {
		[ELEMENT_FP32] = ncclFloat32, [ELEMENT_FP16] = ncclFloat16, [ELEMENT_BF16] = ncclBfloat16, [ELEMENT_FP64] = ncclFloat64};
	enum cudaStreamCaptureStatus capture;
	TRY(sum_enqueue(communicator, values, count, types[element], stream));
	if (CUDA(cudaStreamIsCapturing(stream, &capture)) != ST_OK)
		return communicator_fail(communicator);
	return capture == cudaStreamCaptureStatusNone ? communicator_mark(communicator, stream) : ST_OK;
}

enum status communicator_wait(struct communicator *communicator, cudaStream_t stream)
{
	TRY(communicator_mark(communicator, stream));
	if (CUDA(cudaEventRecord(communicator->waited, stream)) != ST_OK)
		return communicator_fail(communicator);
	for (int looks = 0;; looks++) {
		cudaError_t error = cudaEventQuery(communicator->waited);
		/* Asked after the event: what an abort has ended is not done. */
		TRY(communicator_check(communicator));
		if (error == cudaSuccess)
			return ST_OK;
		if (error != cudaErrorNotReady) {
			cuda_status(error, "the device's work");
			return communicator_fail(communicator);
		}
		if (looks < SPINS)
			sched_yield();
		else
			sleep_us(SLEEP_US);
	}
}

/* --- open, close ------------------------------------------------------------------------------------------------------- */

static enum status connect_ranks(struct communicator *communicator)
{
	const struct reduction *reduction = &communicator->reduction;
	struct {
		ncclUniqueId id;
		int version;
	} first = {.version = 0};
	int version = 0;
	ncclResult_t result = ncclGetVersion(&version);
	if (result == ncclSuccess && reduction->rank == 0)
		result = ncclGetUniqueId(&first.id);
	if (result != ncclSuccess)
		return nccl_fail(communicator, "start", result);
	if (reduction->rank == 0)
		first.version = version;
	TRY(reduction->broadcast(reduction->context, &first, sizeof first, 0));
	if (first.version != version)
		return FAIL(ST_DEVICE, "rank %d has NCCL's version %d, rank 0 has %d: all hosts need the same image", reduction->rank, version, first.version);
	ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
	config.blocking = 0;
	result = ncclCommInitRankConfig(&communicator->nccl, reduction->world, first.id, reduction->rank, &config);
	TRY(nccl_settle(communicator, "connecting of all ranks", result, reduction->timeout_us));
	if (reduction->rank == 0)
		log_info("nccl version=%d.%d.%d ranks=%d hosts=%d", version / 10000, version / 100 % 100, version % 100, reduction->world, reduction->hosts);
	return ST_OK;
}

/* All ranks sum their numbers, 1 to world: what a connection that only seems to work gets wrong. */
static enum status sum_try(struct communicator *communicator)
{
	const struct reduction *reduction = &communicator->reduction;
	double value = reduction->rank + 1, wanted = 0.5 * reduction->world * (reduction->world + 1), *there = NULL;
	enum status status = ST_OK;
	cudaStream_t stream = NULL;
	TRY_DONE(CUDA(cudaMalloc((void **)&there, sizeof *there)));
	TRY_DONE(CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)));
	TRY_DONE(CUDA(cudaMemcpyAsync(there, &value, sizeof value, cudaMemcpyHostToDevice, stream)));
	TRY_DONE(communicator_sum(communicator, there, 1, ELEMENT_FP64, stream));
	TRY_DONE(communicator_wait(communicator, stream));
	TRY_DONE(CUDA(cudaMemcpy(&value, there, sizeof value, cudaMemcpyDeviceToHost)));
	if (value != wanted)
		status = FAIL(ST_DEVICE, "rank %d: NCCL's first sum over %d ranks is %g, but must be %g", reduction->rank, reduction->world, value, wanted);
done:
	if (stream != NULL)
		cudaStreamDestroy(stream);
	cudaFree(there);
	return status;
}

static enum status events_create(struct communicator *communicator)
{
	for (int i = 0; i < MARKS; i++)
		CUDA_TRY(cudaEventCreateWithFlags(&communicator->marks[i], cudaEventDisableTiming));
	return CUDA(cudaEventCreateWithFlags(&communicator->waited, cudaEventDisableTiming));
}

static void locks_create(struct communicator *communicator)
{
	pthread_condattr_t monotonic;
	pthread_mutex_init(&communicator->lock, NULL);
	pthread_mutex_init(&communicator->nccl_lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&communicator->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

enum status communicator_open(const struct reduction *reduction, struct communicator **communicator)
{
	struct communicator *made = calloc(1, sizeof *made);
	enum status status = ST_OK;
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for a communicator");
	made->reduction = *reduction;
	locks_create(made);
	TRY_DONE(CUDA(cudaGetDevice(&made->device)));
	TRY_DONE(events_create(made));
	nccl_environment_set(reduction->interface_name, reduction->hosts, efa_find("/sys/class/infiniband"));
	TRY_DONE(connect_ranks(made));
	TRY_DONE(watch_start(made));
	TRY_DONE(sum_try(made));
	*communicator = made;
	return ST_OK;
done:
	communicator_fail(made); /* so that nobody says good-bye */
	communicator_close(made);
	return status;
}

void communicator_close(struct communicator *communicator)
{
	char sentence[STATUS_MESSAGE_BYTES_MAX]; /* which the caller may be about to report */
	if (communicator == NULL)
		return;
	snprintf(sentence, sizeof sentence, "%s", status_message());
	if (!watch_stop(communicator))
		return;
	if (!communicator->watched)
		connection_end(communicator);
	for (int i = 0; i < MARKS; i++)
		if (communicator->marks[i] != NULL)
			cudaEventDestroy(communicator->marks[i]);
	if (communicator->waited != NULL)
		cudaEventDestroy(communicator->waited);
	pthread_cond_destroy(&communicator->wake);
	pthread_mutex_destroy(&communicator->lock);
	pthread_mutex_destroy(&communicator->nccl_lock);
	free(communicator);
	status_fail(ST_OK, "%s", sentence);
}
