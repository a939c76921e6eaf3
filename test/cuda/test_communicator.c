/* Goal: the communicator ends well, and ends all waiting when NCCL, a peer, the device or the training fails, with the sentence of the cause.
 * Method: CUDA and NCCL are played by this file: rank `rank` of two, whose peer is a script. The real ones, between processes, are
 * test/cuda's other tests'. */
#include "core/backend/cuda/communicator.h"
#include "core/backend/cuda/nccl_environment.h"
#include "test/unit/scratch.h"

#include <nccl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

enum { FOREVER = 1 << 30, WORLD = 2 };

/* What the peer, the device and the libraries do; reset before each test. */
static struct {
	atomic_int polls;          /* answers "in progress" before a call of NCCL has ended */
	int polls_of_init, polls_of_sum, polls_of_finalize;
	atomic_int broken;         /* ncclResult_t of the connection */
	ncclResult_t init_result, sum_result;
	double peer;               /* its number in the first sum */
	int peer_version;
	atomic_bool hangs;         /* the device's work does not end */
	atomic_int device_error;   /* cudaError_t of the device's work */
	atomic_bool training_over; /* reduction->check fails */
	bool broadcast_fails, capturing;
	int cuda_fails_at;         /* this call of CUDA fails; 0: none */
	/* what was seen */
	atomic_int things, cuda_calls, aborts, destroys, records;
	int sums;
	size_t count;
	ncclDataType_t type;
} script;

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* --- CUDA ------------------------------------------------------------------------------------------------------------- */

static cudaError_t cuda_call(void)
{
	return ++script.cuda_calls == script.cuda_fails_at ? cudaErrorUnknown : cudaSuccess;
}

static cudaError_t thing_make(void **thing)
{
	if (cuda_call() != cudaSuccess)
		return cudaErrorUnknown;
	*thing = calloc(1, 64);
	script.things++;
	return cudaSuccess;
}

static cudaError_t thing_end(void *thing)
{
	script.things -= thing != NULL;
	free(thing);
	return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
	assert_true(bytes <= 64);
	return thing_make(memory);
}
cudaError_t cudaFree(void *memory)
{
	return thing_end(memory);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
	assert_int_equal(flags, cudaStreamNonBlocking);
	return thing_make((void **)stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	return thing_end(stream);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
	assert_int_equal(flags, cudaEventDisableTiming);
	return thing_make((void **)event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	return thing_end(event);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	(void)event, (void)stream;
	script.records++;
	return cuda_call();
}
cudaError_t cudaEventQuery(cudaEvent_t event)
{
	(void)event;
	return script.device_error != cudaSuccess ? (cudaError_t)script.device_error : script.hangs ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
	(void)kind, (void)stream;
	memcpy(to, from, bytes);
	return cuda_call();
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
	return cudaMemcpyAsync(to, from, bytes, kind, NULL);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
	(void)stream;
	*status = script.capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
	return cuda_call();
}
cudaError_t cudaGetDevice(int *device)
{
	*device = 3;
	return cuda_call();
}
cudaError_t cudaSetDevice(int device)
{
	return device == 3 ? cudaSuccess : cudaErrorInvalidDevice;
}
const char *cudaGetErrorString(cudaError_t error)
{
	return error == cudaErrorECCUncorrectable ? "the memory is broken" : "cuda words";
}
const char *cudaGetErrorName(cudaError_t error)
{
	(void)error;
	return "cudaErrorSome";
}

/* --- NCCL ------------------------------------------------------------------------------------------------------------- */

static ncclResult_t nccl_begin(int polls, ncclResult_t result)
{
	script.polls = polls;
	if (result != ncclSuccess && polls > 0)
		script.broken = result;
	return polls > 0 ? ncclInProgress : result;
}

ncclResult_t ncclGetVersion(int *version)
{
	*version = 22809;
	return ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
	memset(id, 0x5a, sizeof *id);
	return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int world, ncclUniqueId id, int rank, ncclConfig_t *config)
{
	assert_int_equal(id.internal[sizeof id.internal - 1], 0x5a);
	assert_true(world == WORLD && rank < WORLD && config->blocking == 0);
	*comm = calloc(1, 64);
	script.things++;
	return nccl_begin(script.polls_of_init, script.init_result);
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result)
{
	assert_non_null(comm);
	int polls = script.polls;
	if (polls > 0 && polls != FOREVER)
		script.polls--;
	*result = polls > 0 ? ncclInProgress : (ncclResult_t)script.broken;
	return ncclSuccess;
}
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream)
{
	(void)stream;
	assert_true(from == to && operation == ncclSum && comm != NULL);
	script.count = count;
	script.type = type;
	if (script.sums++ == 0)
		*(double *)to += script.peer;
	return nccl_begin(script.polls_of_sum, script.sum_result);
}
ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
	assert_non_null(comm);
	return nccl_begin(script.polls_of_finalize, ncclSuccess);
}
ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
	script.destroys++;
	thing_end(comm);
	return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
	script.aborts++;
	script.hangs = false;
	thing_end(comm);
	return ncclSuccess;
}
const char *ncclGetErrorString(ncclResult_t result)
{
	return result == ncclRemoteError ? "remote words" : "nccl words";
}
const char *ncclGetLastError(ncclComm_t comm)
{
	(void)comm;
	return "socket closed";
}

/* --- the training ----------------------------------------------------------------------------------------------------- */

static enum status training_check(void *context)
{
	(void)context;
	return script.training_over ? FAIL(ST_DEVICE, "host algo-2 (rank 7): its disk is full") : ST_OK;
}

static enum status training_broadcast(void *context, void *bytes, size_t count, int root)
{
	const struct reduction *reduction = context;
	ncclUniqueId id;
	assert_true(root == 0 && count >= sizeof id + sizeof(int));
	if (script.broadcast_fails)
		return FAIL(ST_STOPPED, "stopped meanwhile");
	if (reduction->rank != 0) {
		ncclGetUniqueId(&id);
		memcpy(bytes, &id, sizeof id);
		memcpy((char *)bytes + sizeof id, &script.peer_version, sizeof script.peer_version);
	}
	return ST_OK;
}

static struct reduction reduction;
static struct communicator *communicator;
static cudaStream_t stream = NULL;
static float values[8];

static void begin(int rank, int64_t timeout_us)
{
	memset(&script, 0, sizeof script);
	script.peer = WORLD - rank;
	script.peer_version = 22809;
	reduction = (struct reduction){.rank = rank, .world = WORLD, .context = &reduction, .broadcast = training_broadcast, .check = training_check,
		.timeout_us = timeout_us, .hosts = 1};
	communicator = NULL;
}

static void open_it(int rank, int64_t timeout_us)
{
	begin(rank, timeout_us);
	enum status status = communicator_open(&reduction, &communicator);
	if (status != ST_OK)
		fail_msg("%s", status_message());
}

/* Nothing is left, and nobody was told that all is well. */
static void expect_aborted(void)
{
	communicator_close(communicator);
	assert_int_equal(script.destroys, 0);
	assert_int_equal(script.things, 0);
}

#define OPEN_FAILS(status, words) \
	do { \
		assert_int_equal(communicator_open(&reduction, &communicator), status); \
		assert_non_null(strstr(status_message(), words)); \
		assert_null(communicator); \
		assert_int_equal(script.things, 0); \
		assert_int_equal(script.destroys, 0); \
	} while (0)

/* All calls give the sentence from now on. */
static void expect_failed(const char *words)
{
	for (int i = 0; i < 2; i++) {
		assert_int_equal(communicator_wait(communicator, stream), ST_DEVICE);
		assert_non_null(strstr(status_message(), words));
		assert_int_equal(communicator_sum(communicator, values, 8, ELEMENT_FP32, stream), ST_DEVICE);
		assert_non_null(strstr(status_message(), words));
		assert_int_equal(communicator_mark(communicator, stream), ST_DEVICE);
	}
	expect_aborted();
	assert_int_equal(script.aborts, 1);
}

/* --- all is well ------------------------------------------------------------------------------------------------------ */

static void sums_of_each_element(void **unused)
{
	static const struct {
		enum element element;
		ncclDataType_t type;
	} pairs[] = {{ELEMENT_FP32, ncclFloat32}, {ELEMENT_FP16, ncclFloat16}, {ELEMENT_BF16, ncclBfloat16}, {ELEMENT_FP64, ncclFloat64}};
	(void)unused;
	for (int rank = 0; rank < WORLD; rank++) {
		open_it(rank, 60000000);
		for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
			assert_int_equal(communicator_sum(communicator, values, i + 1, pairs[i].element, stream), ST_OK);
			assert_int_equal(script.type, pairs[i].type);
			assert_int_equal(script.count, i + 1);
		}
		assert_int_equal(communicator_wait(communicator, stream), ST_OK);
		communicator_close(communicator);
		assert_int_equal(script.destroys, 1);
		assert_int_equal(script.aborts, 0);
		assert_int_equal(script.things, 0);
	}
	communicator_close(NULL);
}

static void calls_that_take_time(void **unused)
{
	(void)unused;
	begin(1, 60000000);
	script.polls_of_init = script.polls_of_finalize = 500;
	script.polls_of_sum = 205; /* beyond the looks that do not sleep */
	assert_int_equal(communicator_open(&reduction, &communicator), ST_OK);
	for (int i = 0; i < 300; i++) /* more than are watched at a time */
		assert_int_equal(communicator_sum(communicator, values, 8, ELEMENT_FP32, stream), ST_OK);
	assert_int_equal(communicator_wait(communicator, stream), ST_OK);
	communicator_close(communicator);
	assert_int_equal(script.destroys, 1);
	assert_int_equal(script.things, 0);
}

static void captured_sums_are_not_marked(void **unused)
{
	(void)unused;
	open_it(0, 60000000);
	script.capturing = true;
	int records = script.records;
	assert_int_equal(communicator_sum(communicator, values, 8, ELEMENT_FP32, stream), ST_OK);
	assert_int_equal(script.records, records);
	script.capturing = false;
	assert_int_equal(communicator_mark(communicator, stream), ST_OK);
	assert_int_equal(script.records, records + 1);
	communicator_close(communicator);
}

static void close_keeps_the_sentence(void **unused)
{
	(void)unused;
	open_it(0, 60000000);
	script.training_over = true;
	status_fail(ST_DATA, "what the caller reports");
	communicator_close(communicator);
	assert_string_equal(status_message(), "what the caller reports");
	assert_int_equal(script.aborts, 1);
}

/* --- opening fails ---------------------------------------------------------------------------------------------------- */

static void connecting_fails(void **unused)
{
	(void)unused;
	begin(1, 60000000);
	script.init_result = ncclSystemError;
	OPEN_FAILS(ST_DEVICE, "rank 1: NCCL's connecting of all ranks failed: nccl words: socket closed");
	begin(1, 60000000);
	script.init_result = ncclRemoteError;
	script.polls_of_init = 5;
	OPEN_FAILS(ST_DEVICE, "remote words");
	begin(1, 100000);
	script.polls_of_init = FOREVER;
	OPEN_FAILS(ST_DEVICE, "rank 1: NCCL's connecting of all ranks has not ended in time");
	begin(1, 60000000);
	script.polls_of_init = FOREVER;
	script.training_over = true;
	OPEN_FAILS(ST_DEVICE, "algo-2 (rank 7): its disk is full");
	begin(1, 60000000);
	script.peer_version = 21800;
	OPEN_FAILS(ST_DEVICE, "rank 1 has NCCL's version 22809, rank 0 has 21800");
	begin(0, 60000000);
	script.broadcast_fails = true;
	OPEN_FAILS(ST_STOPPED, "stopped meanwhile");
	begin(0, 60000000);
	script.peer = 5;
	OPEN_FAILS(ST_DEVICE, "first sum over 2 ranks is 6, but must be 3");
	begin(0, 60000000);
	script.sum_result = ncclInternalError;
	OPEN_FAILS(ST_DEVICE, "NCCL's sum failed");
}

static void every_call_of_cuda_fails(void **unused)
{
	(void)unused;
	open_it(0, 60000000);
	int calls = script.cuda_calls;
	communicator_close(communicator);
	for (int i = 1; i <= calls; i++) {
		begin(0, 60000000);
		script.cuda_fails_at = i;
		OPEN_FAILS(ST_DEVICE, "cuda words");
	}
}

/* --- later ------------------------------------------------------------------------------------------------------------ */

static void connection_breaks(void **unused)
{
	(void)unused;
	open_it(0, 60000000);
	script.hangs = true;
	script.broken = ncclRemoteError;
	expect_failed("rank 0: NCCL's connection failed: remote words: socket closed");
}

static void sum_fails(void **unused)
{
	(void)unused;
	open_it(0, 60000000);
	script.sum_result = ncclInternalError;
	assert_int_equal(communicator_sum(communicator, values, 8, ELEMENT_FP32, stream), ST_DEVICE);
	expect_failed("NCCL's sum failed: nccl words");
}

static void training_ends(void **unused)
{
	(void)unused;
	open_it(0, 60000000);
	script.hangs = true;
	script.training_over = true;
	expect_failed("host algo-2 (rank 7): its disk is full");
}

static void device_stands_still(void **unused)
{
	(void)unused;
	open_it(0, 300000);
	script.hangs = true;
	expect_failed("rank 0: its GPU has not ended a step for 0 s");
}

static void device_breaks(void **unused)
{
	(void)unused;
	open_it(0, 60000000);
	script.device_error = cudaErrorECCUncorrectable;
	expect_failed("the memory is broken");
	open_it(0, 60000000); /* nobody waits: the watch sees it */
	assert_int_equal(communicator_mark(communicator, stream), ST_OK);
	script.device_error = cudaErrorECCUncorrectable;
	while (communicator_mark(communicator, stream) == ST_OK)
		sleep_ms(1);
	expect_failed("the memory is broken");
}

static void peer_does_not_say_good_bye(void **unused)
{
	(void)unused;
	open_it(0, 100000);
	script.polls_of_finalize = FOREVER;
	expect_aborted();
	assert_int_equal(script.aborts, 1);
}

/* The process is stopped for longer than a step may take, in the middle of one. */
static void own_sleep_does_not_count(void **unused)
{
	(void)unused;
	open_it(0, 1500000);
	script.hangs = true;
	assert_int_equal(communicator_mark(communicator, stream), ST_OK);
	pid_t self = getpid(), helper = fork();
	if (helper == 0) {
		kill(self, SIGSTOP);
		sleep_ms(2000);
		kill(self, SIGCONT);
		_exit(0);
	}
	waitpid(helper, NULL, 0);
	sleep_ms(250); /* the watch looks again */
	assert_int_equal(communicator_mark(communicator, stream), ST_OK);
	script.hangs = false;
	assert_int_equal(communicator_wait(communicator, stream), ST_OK);
	communicator_close(communicator);
	assert_int_equal(script.aborts, 0);
}

/* --- the environment -------------------------------------------------------------------------------------------------- */

static const char *const variables[] = {"NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "FI_PROVIDER", "FI_EFA_USE_DEVICE_RDMA", "NCCL_PROTO", "RDMAV_FORK_SAFE"};
enum { VARIABLES = sizeof variables / sizeof variables[0] };

static void environment_is(const char *const wanted[VARIABLES])
{
	for (int i = 0; i < VARIABLES; i++) {
		const char *value = getenv(variables[i]);
		if (wanted[i] == NULL ? value != NULL : value == NULL || strcmp(value, wanted[i]) != 0)
			fail_msg("%s=%s, wanted %s", variables[i], value != NULL ? value : "(not set)", wanted[i] != NULL ? wanted[i] : "(not set)");
		unsetenv(variables[i]);
	}
}

static void environment(void **unused)
{
	(void)unused;
	for (int i = 0; i < VARIABLES; i++)
		unsetenv(variables[i]);
	nccl_environment_set(NULL, 1, EFA_NONE);
	environment_is((const char *[]){"WARN", NULL, NULL, NULL, NULL, NULL});
	nccl_environment_set("", 2, EFA_NONE);
	environment_is((const char *[]){"WARN", NULL, NULL, NULL, NULL, NULL});
	nccl_environment_set("eth1", 2, EFA_NONE);
	environment_is((const char *[]){"WARN", "=eth1", NULL, NULL, NULL, NULL});
	nccl_environment_set("eth0", 1, EFA_READS); /* one host: no fabric */
	environment_is((const char *[]){"WARN", "=eth0", NULL, NULL, NULL, NULL});
	nccl_environment_set("eth0", 2, EFA_PLAIN);
	environment_is((const char *[]){"WARN", "=eth0", "efa", NULL, "simple", "1"});
	nccl_environment_set("eth0", 2, EFA_READS);
	environment_is((const char *[]){"WARN", "=eth0", "efa", "1", "simple", "1"});
	static const char *const users[] = {"INFO", "bond0", "sockets", "0", "LL", ""};
	for (int i = 0; i < VARIABLES; i++)
		setenv(variables[i], users[i], 1);
	nccl_environment_set("eth0", 2, EFA_READS);
	environment_is(users);
}

static void number_write(const char *device, const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s/device", scratch, device);
	assert_int_equal(directory_make(path), ST_OK);
	snprintf(path, sizeof path, "%s/%s/device/%s", scratch, device, name);
	assert_int_equal(file_write(path, text, strlen(text)), ST_OK);
}

static void fabric(void **unused)
{
	(void)unused;
	static const struct {
		const char *vendor, *device;
		enum efa efa;
	} cards[] = {{"0x1d0f\n", "0xefa0\n", EFA_PLAIN}, {"0x1d0f\n", "0xefa1\n", EFA_READS}, {"0x1d0f\n", "0xefa3\n", EFA_PLAIN},
		{"0x1d0f\n", "0xec20\n", EFA_NONE}, {"0x15b3\n", "0xefa1\n", EFA_NONE}, {"", "0xefa1\n", EFA_NONE}};
	assert_int_equal(efa_find("/nowhere/at/all"), EFA_NONE);
	assert_int_equal(efa_find(scratch), EFA_NONE);
	for (size_t i = 0; i < sizeof cards / sizeof cards[0]; i++) {
		number_write("rdmap16s27", "vendor", cards[i].vendor);
		number_write("rdmap16s27", "device", cards[i].device);
		assert_int_equal(efa_find(scratch), cards[i].efa);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_of_each_element),
		cmocka_unit_test(calls_that_take_time),
		cmocka_unit_test(captured_sums_are_not_marked),
		cmocka_unit_test(close_keeps_the_sentence),
		cmocka_unit_test(connecting_fails),
		cmocka_unit_test(every_call_of_cuda_fails),
		cmocka_unit_test(connection_breaks),
		cmocka_unit_test(sum_fails),
		cmocka_unit_test(training_ends),
		cmocka_unit_test(device_stands_still),
		cmocka_unit_test(device_breaks),
		cmocka_unit_test(peer_does_not_say_good_bye),
		cmocka_unit_test(own_sleep_does_not_count),
		cmocka_unit_test(environment),
		SCRATCH_TEST(fabric),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
