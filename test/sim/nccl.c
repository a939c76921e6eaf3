/* nccl.c: the simulated NCCL: communicators and collective calls, between real processes.
 *
 * A sum is an item on its stream that waits for the other ranks. As with the real one: a communicator that does not block is still busy after a
 * call and must be asked until it is not; what was called is on the stream only then. Sums of one communicator follow each other. An abort
 * ends sums with garbage; it, and a destruction, would never return while graphs hold sums. */
#include "test/sim/nccl_share.h"
#include "test/sim/sim.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALLS_MAX = 64, TICK_NS = 1000000, PATIENCE_TICKS = 30000, API_MAGIC = (int)0xcafebeef };

struct ncclComm {
	uint64_t magic;
	struct ncclComm *next;
	struct share_id id;
	int rank, ranks, device;
	bool blocking;

	_Atomic int result;            /* ncclInProgress, ncclSuccess, or what went wrong */
	_Atomic bool aborted, ending, destroyed;
	char words[256];               /* of what went wrong; written before result */
	struct share *_Atomic share;
	pthread_t life;                /* the thread that enters, waits for the others, and sees them die */
	bool lives;

	uint64_t chunk;                /* only items touch it, one at a time */
	_Atomic int in_graphs;         /* sums that graphs hold */
	int polls_left;                /* busy: until it has been asked so often */
	int calls_count;               /* the last group's, not on their streams yet */
	struct call { struct operation operation; cudaStream_t stream; bool hangs; } calls[CALLS_MAX];
	cudaEvent_t last;              /* behind the last sum */
	unsigned long long last_capture;
	bool has_last, has_called;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ncclComm *communicators; /* never freed: late items and late calls are told from good ones */
static _Thread_local int group_depth;
static _Thread_local struct ncclComm *group[8];
static _Thread_local int group_count;

#define MAGIC 0x736d656c74436f6d

static void tick(void)
{
	nanosleep(&(struct timespec){.tv_nsec = TICK_NS}, NULL);
}

static struct ncclComm *comm_of(ncclComm_t comm, const char *call)
{
	if (!comm || comm->magic != MAGIC)
		sim_abort("%s: %p is no communicator", call, (void *)comm);
	if (atomic_load(&comm->destroyed))
		sim_abort("%s: the communicator of rank %d was destroyed or aborted before", call, comm->rank);
	return comm;
}

/* The first failure stays. */
static void comm_fail(struct ncclComm *comm, ncclResult_t result, const char *words)
{
	pthread_mutex_lock(&lock);
	int now = atomic_load(&comm->result);
	if (now == ncclSuccess || now == ncclInProgress) {
		snprintf(comm->words, sizeof comm->words, "%s", words);
		atomic_store(&comm->result, result);
	}
	pthread_mutex_unlock(&lock);
}

/* "delay_ms:N" in SIM_NCCL: before a communicator is up, and before each sum. */
static void delay(void)
{
	const char *rules = getenv("SIM_NCCL"), *rule = rules ? strstr(rules, "delay_ms:") : NULL;
	if (rule)
		for (long left = strtol(rule + strlen("delay_ms:"), NULL, 10); left > 0; left--)
			tick();
}

/* --- a rank's life ------------------------------------------------------------------------------------------------------------------ */

static void *life_run(void *context)
{
	struct ncclComm *comm = context;
	delay();
	struct share *share = share_open(&comm->id);
	if (!share) {
		comm_fail(comm, ncclSystemError, "connecting to the process that made the unique id failed: it is gone, or the id is not one");
		return NULL;
	}
	atomic_store(&comm->share, share);
	if (!share_enter(share, comm->rank, comm->ranks, comm->device))
		comm_fail(comm, ncclInvalidUsage, "Duplicate GPU detected: two ranks of this host use the same device");
	for (bool up = false; !atomic_load(&comm->ending); tick()) {
		if (!up && share_is_full(share)) {
			up = true;
			int busy = ncclInProgress;
			atomic_compare_exchange_strong(&comm->result, &busy, ncclSuccess);
		}
		int dead = share_dead(share, comm->rank);
		if (dead >= 0) {
			char words[80];
			snprintf(words, sizeof words, "connection to rank %d closed by the remote peer", dead);
			comm_fail(comm, ncclRemoteError, words);
		}
	}
	share_leave(share, comm->rank);
	return NULL;
}

static void life_end(struct ncclComm *comm)
{
	atomic_store(&comm->ending, true);
	if (comm->lives)
		pthread_join(comm->life, NULL);
	comm->lives = false;
}

/* --- sums on streams ------------------------------------------------------------------------------------------------------------------ */

struct sum {
	struct ncclComm *comm;
	struct operation operation;
	bool hangs;
};

static enum sim_progress sum_run(void *context)
{
	struct sum *sum = context;
	struct ncclComm *comm = sum->comm;
	if (atomic_load(&comm->aborted)) {
		memset(sum->operation.receive, 0xFF, sum->operation.count * type_bytes(sum->operation.type));
		return SIM_DONE;
	}
	if (atomic_load(&comm->destroyed))
		sim_abort("NCCL: a sum runs after its communicator was destroyed");
	if (sum->hangs)
		return SIM_WAIT;
	return operation_step(atomic_load(&comm->share), comm->rank, &comm->chunk, &sum->operation) ? SIM_DONE : SIM_WAIT;
}

static void sum_retain(void *context, bool in_graph)
{
	atomic_fetch_add(&((struct sum *)context)->comm->in_graphs, in_graph);
}

static void sum_release(void *context, bool in_graph)
{
	atomic_fetch_sub(&((struct sum *)context)->comm->in_graphs, in_graph);
}

static const struct sim_work work_sum = {.name = "nccl", .run = sum_run, .retain = sum_retain, .release = sum_release};

/* Behind the communicator's last sum, where both are in the same capture, or in none. */
static cudaError_t call_enqueue(struct ncclComm *comm, const struct call *call)
{
	unsigned long long capture;
	cudaError_t error = sim_capture_id(call->stream, &capture);
	if (!error && !comm->last)
		error = cudaEventCreateWithFlags(&comm->last, cudaEventDisableTiming);
	if (!error && comm->has_last && comm->last_capture == capture)
		error = cudaStreamWaitEvent(call->stream, comm->last, 0);
	struct sum sum = {.comm = comm, .operation = call->operation, .hangs = call->hangs};
	if (!error)
		error = sim_stream_push_work(call->stream, &work_sum, &sum, sizeof sum);
	if (!error)
		error = cudaEventRecord(comm->last, call->stream);
	comm->last_capture = capture;
	comm->has_last = true;
	return error;
}

/* The calls of the last group come to their streams. */
static void calls_enqueue(struct ncclComm *comm)
{
	int device = sim_device();
	cudaError_t error = cudaSetDevice(comm->device);
	for (int i = 0; i < comm->calls_count && !error; i++)
		error = call_enqueue(comm, &comm->calls[i]);
	comm->calls_count = 0;
	cudaSetDevice(device);
	if (error)
		comm_fail(comm, ncclUnhandledCudaError, cudaGetErrorString(error));
}

/* A group has ended: at once, or when it has been asked some times. The first time connections are made, which takes longer. */
static ncclResult_t group_launch(struct ncclComm *comm)
{
	delay();
	bool busy = !comm->blocking && (!comm->has_called || sim_random() % 4 == 0);
	comm->has_called = true;
	int ready = ncclSuccess;
	if (busy && atomic_compare_exchange_strong(&comm->result, &ready, ncclInProgress)) {
		comm->polls_left = 1 + (int)(sim_random() % 3);
		return ncclInProgress;
	}
	calls_enqueue(comm);
	return (ncclResult_t)atomic_load(&comm->result);
}

static ncclResult_t call_add(ncclComm_t handle, const char *name, const struct operation *operation, cudaStream_t stream)
{
	struct ncclComm *comm = comm_of(handle, name);
	int result = atomic_load(&comm->result);
	if (result == ncclInProgress)
		return ncclInvalidArgument; /* the call before has not ended */
	if (result != ncclSuccess)
		return (ncclResult_t)result;
	size_t bytes = operation->count * type_bytes(operation->type);
	if (!type_bytes(operation->type) || operation->root < 0 || operation->root >= comm->ranks)
		return ncclInvalidArgument;
	if (sim_device() != comm->device)
		sim_abort("%s: the current device is %d, the communicator's %d", name, sim_device(), comm->device);
	sim_pointer_check(operation->send, bytes, name);
	sim_pointer_check(operation->receive, bytes, name);
	if (comm->calls_count == CALLS_MAX)
		sim_abort("%s: more than %d calls in a group are not simulated", name, CALLS_MAX);
	comm->calls[comm->calls_count++] = (struct call){*operation, stream, sim_fault("SIM_NCCL", "hang")};
	if (sim_fault("SIM_NCCL", "fail")) {
		comm->calls[comm->calls_count - 1].hangs = true;
		comm_fail(comm, ncclSystemError, "injected failure of the network");
	}
	if (!group_depth)
		return group_launch(comm);
	int i = 0;
	while (i < group_count && group[i] != comm)
		i++;
	if (i == (int)(sizeof group / sizeof *group))
		sim_abort("%s: more communicators in a group than are simulated", name);
	group[i] = comm;
	group_count = i < group_count ? group_count : i + 1;
	return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
	if (op != ncclSum)
		sim_abort("ncclAllReduce: only sums are simulated");
	struct operation operation = {.kind = OPERATION_SUM, .type = type, .count = count, .send = send, .receive = receive};
	return call_add(comm, "ncclAllReduce", &operation, stream);
}

ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream)
{
	struct operation operation = {.kind = OPERATION_BROADCAST, .type = type, .root = root, .count = count, .send = send ? send : receive, .receive = receive};
	return call_add(comm, "ncclBroadcast", &operation, stream);
}

/* nccl.h declares these two as C++ would. */
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);

ncclResult_t ncclGroupStart(void)
{
	group_depth++;
	return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
	ncclResult_t result = ncclSuccess;
	if (!group_depth)
		return ncclInvalidUsage;
	if (--group_depth)
		return ncclSuccess;
	for (int i = 0; i < group_count; i++) {
		ncclResult_t launched = group_launch(group[i]);
		result = result == ncclSuccess || result == ncclInProgress ? (launched != ncclSuccess ? launched : result) : result;
	}
	group_count = 0;
	return result;
}

/* --- communicators ---------------------------------------------------------------------------------------------------------------------- */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
	_Static_assert(sizeof(struct share_id) <= sizeof *id, "an id holds what is needed to find the memory");
	struct share_id made;
	if (!share_make(&made))
		return ncclSystemError;
	memset(id, 0, sizeof *id);
	memcpy(id, &made, sizeof made);
	return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *handle, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config)
{
	if (!handle || ranks < 1 || ranks > RANKS_MAX || rank < 0 || rank >= ranks)
		return ncclInvalidArgument;
	if (config && (config->magic != (unsigned)API_MAGIC || config->size != sizeof *config))
		return ncclInvalidArgument; /* not from NCCL_CONFIG_INITIALIZER */
	struct ncclComm *comm = calloc(1, sizeof *comm);
	if (!comm)
		return ncclSystemError;
	comm->magic = MAGIC;
	memcpy(&comm->id, &id, sizeof comm->id);
	comm->rank = rank;
	comm->ranks = ranks;
	comm->blocking = !config || config->blocking != 0;
	atomic_store(&comm->result, ncclInProgress);
	if (cudaGetDevice(&comm->device)) {
		free(comm);
		return ncclUnhandledCudaError;
	}
	pthread_mutex_lock(&lock);
	comm->next = communicators;
	communicators = comm;
	pthread_mutex_unlock(&lock);

	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	comm->lives = pthread_create(&comm->life, NULL, life_run, comm) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!comm->lives)
		comm_fail(comm, ncclSystemError, "cannot start a thread");
	*handle = comm;
	while (comm->blocking && atomic_load(&comm->result) == ncclInProgress)
		tick();
	return (ncclResult_t)atomic_load(&comm->result);
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank)
{
	return ncclCommInitRankConfig(comm, ranks, id, rank, NULL);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *result)
{
	struct ncclComm *comm = comm_of(handle, "ncclCommGetAsyncError");
	if (atomic_load(&comm->result) == ncclInProgress && comm->polls_left && --comm->polls_left == 0) {
		calls_enqueue(comm);
		int busy = ncclInProgress;
		atomic_compare_exchange_strong(&comm->result, &busy, ncclSuccess);
	}
	*result = (ncclResult_t)atomic_load(&comm->result);
	return ncclSuccess;
}

/* Graphs that hold sums keep a communicator alive: the real library waits for their end without a limit. Half a minute is more than a rank takes
 * that first waits for the cause of a failure elsewhere. What ran on a device that died is never given back. */
static void graphs_wait(struct ncclComm *comm, const char *call)
{
	for (int ticks = 0; atomic_load(&comm->in_graphs); ticks++, tick())
		if (ticks >= PATIENCE_TICKS && !sim_device_error(comm->device))
			sim_abort("%s hangs: graphs that hold sums of this communicator have not been destroyed", call);
}

/* The shared memory stays mapped: a sum that runs on another thread may still be in it. */
static void comm_end(struct ncclComm *comm)
{
	life_end(comm);
	if (comm->last)
		cudaEventDestroy(comm->last);
	share_forget(&comm->id);
	atomic_store(&comm->destroyed, true);
}

/* Waits for what is enqueued. */
ncclResult_t ncclCommFinalize(ncclComm_t handle)
{
	struct ncclComm *comm = comm_of(handle, "ncclCommFinalize");
	int ready = ncclSuccess;
	if (!atomic_compare_exchange_strong(&comm->result, &ready, ncclInProgress))
		return ready == ncclInProgress ? ncclInvalidArgument : (ncclResult_t)ready;
	if (!comm->blocking) {
		comm->polls_left = 2;
		return ncclInProgress;
	}
	atomic_store(&comm->result, ncclSuccess);
	return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t handle)
{
	struct ncclComm *comm = comm_of(handle, "ncclCommDestroy");
	if (atomic_load(&comm->result) == ncclInProgress)
		return ncclInvalidArgument;
	if (atomic_load(&comm->in_graphs))
		sim_abort("ncclCommDestroy hangs: graphs that hold sums of this communicator have not been destroyed");
	if (comm->has_last && !comm->last_capture)
		cudaEventSynchronize(comm->last);
	comm_end(comm);
	return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t handle)
{
	struct ncclComm *comm = comm_of(handle, "ncclCommAbort");
	atomic_store(&comm->aborted, true);
	comm->calls_count = 0;
	graphs_wait(comm, "ncclCommAbort");
	comm_end(comm);
	return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count)
{
	*count = comm_of(comm, "ncclCommCount")->ranks;
	return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
	*rank = comm_of(comm, "ncclCommUserRank")->rank;
	return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device)
{
	*device = comm_of(comm, "ncclCommCuDevice")->device;
	return ncclSuccess;
}

ncclResult_t ncclMemAlloc(void **pointer, size_t bytes)
{
	return cudaMalloc(pointer, bytes) ? ncclUnhandledCudaError : ncclSuccess;
}

ncclResult_t ncclMemFree(void *pointer)
{
	return cudaFree(pointer) ? ncclUnhandledCudaError : ncclSuccess;
}

ncclResult_t ncclGetVersion(int *version)
{
	*version = NCCL_VERSION_CODE;
	return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
	static const char *const texts[] = {
		[ncclSuccess] = "no error",
		[ncclUnhandledCudaError] = "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
		[ncclSystemError] = "unhandled system error (run with NCCL_DEBUG=INFO for details)",
		[ncclInternalError] = "internal error - please report this issue to the NCCL developers",
		[ncclInvalidArgument] = "invalid argument (run with NCCL_DEBUG=WARN for details)",
		[ncclInvalidUsage] = "invalid usage (run with NCCL_DEBUG=WARN for details)",
		[ncclRemoteError] = "remote process exited or there was a network error",
		[ncclInProgress] = "NCCL operation in progress",
	};
	return (size_t)result < sizeof texts / sizeof *texts ? texts[result] : "unknown result code";
}

/* Also of one that is gone. */
const char *ncclGetLastError(ncclComm_t comm)
{
	return comm && comm->magic == MAGIC ? comm->words : "";
}
