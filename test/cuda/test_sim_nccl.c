/* test_sim_nccl.c: the simulated NCCL sums between processes, says when one died, and finds wrong uses. Method: sim_bed.h. */
#define _GNU_SOURCE
#include "test/cuda/sim_bed.h"

#include <nccl.h>
#include <sys/mman.h>

enum { RANKS = 4, SUMMED = 700001 };

static struct meeting {
	ncclUniqueId id;
	int ready; /* the id is there */
	int step;  /* for tests that go in step */
} *meeting;

static int rank;

static void settle(ncclComm_t comm, ncclResult_t result)
{
	while (result == ncclInProgress) {
		usleep(200);
		ncclCommGetAsyncError(comm, &result);
	}
	if (result != ncclSuccess) {
		fprintf(stderr, "rank %d: %s: %s\n", rank, ncclGetErrorString(result), ncclGetLastError(comm));
		_exit(BROKEN);
	}
}

static ncclComm_t comm_make(int blocking)
{
	ncclComm_t comm;
	ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
	config.blocking = blocking;
	GOOD(cudaSetDevice(rank));
	if (rank == 0) {
		if (ncclGetUniqueId(&meeting->id) != ncclSuccess)
			_exit(BROKEN);
		__atomic_store_n(&meeting->ready, 1, __ATOMIC_RELEASE);
	}
	while (!__atomic_load_n(&meeting->ready, __ATOMIC_ACQUIRE))
		usleep(100);
	ncclResult_t result = ncclCommInitRankConfig(&comm, RANKS, meeting->id, rank, &config);
	settle(comm, result);
	return comm;
}

/* Four processes; the worst of their ends. */
static int ranks_run(int (*scenario)(void))
{
	int worst = RIGHT, status;
	meeting = mmap(NULL, sizeof *meeting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (rank = 0; rank < RANKS; rank++)
		if (fork() == 0) {
			setenv("SIM_DEVICES", "4", 1);
			exit(scenario());
		}
	while (wait(&status) > 0)
		if (!(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) {
			int end = WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
			worst = end > worst ? end : worst;
		}
	return worst;
}

static float *values_make(size_t count, float first, float by)
{
	float *host = malloc(count * sizeof *host), *device;
	for (size_t i = 0; i < count; i++)
		host[i] = first + by * (float)i;
	GOOD(cudaMalloc((void **)&device, count * sizeof *device));
	GOOD(cudaMemcpy(device, host, count * sizeof *host, cudaMemcpyHostToDevice));
	free(host);
	return device;
}

static int values_judge(const float *device, size_t count, float first, float by)
{
	float *host = malloc(count * sizeof *host);
	int end = RIGHT;
	GOOD(cudaMemcpy(host, device, count * sizeof *host, cudaMemcpyDeviceToHost));
	for (size_t i = 0; i < count; i++)
		if (host[i] != first + by * (float)i)
			end = WRONG;
	free(host);
	return end;
}

static int sums_rank(void)
{
	ncclComm_t comm = comm_make(sim_random() % 2 != 0);
	cudaStream_t stream = stream_make(), other = stream_make();
	float *a = values_make(SUMMED, (float)rank, 1), *b = values_make(3, 1, 0), *c = values_make(5, 10 * (float)rank, 1);
	settle(comm, ncclAllReduce(a, a, SUMMED, ncclFloat32, ncclSum, comm, stream));
	settle(comm, ncclAllReduce(b, b, 3, ncclFloat32, ncclSum, comm, other)); /* the communicator keeps the order */
	settle(comm, ncclGroupStart());
	settle(comm, ncclBroadcast(c, c, 5, ncclFloat32, 2, comm, stream));
	settle(comm, ncclAllReduce(a, a, 10, ncclFloat32, ncclSum, comm, stream));
	settle(comm, ncclGroupEnd());
	/* Each replay multiplies b by the number of ranks. */
	ncclResult_t busy;
	GOOD(cudaDeviceSynchronize());
	do
		ncclCommGetAsyncError(comm, &busy);
	while (busy == ncclInProgress);
	GOOD(cudaDeviceSynchronize());
	GOOD(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
	settle(comm, ncclAllReduce(b, b, 3, ncclFloat32, ncclSum, comm, stream));
	cudaGraphExec_t executable = graph_make(stream);
	for (int i = 0; i < 3; i++)
		GOOD(cudaGraphLaunch(executable, stream));
	GOOD(cudaStreamSynchronize(stream));
	int worst = values_judge(a + 10, SUMMED - 10, 6 + 40, 4) | values_judge(a, 10, 24, 16) | values_judge(b, 3, 256, 0) | values_judge(c, 5, 20, 1);
	GOOD(cudaGraphExecDestroy(executable));
	settle(comm, ncclCommFinalize(comm));
	settle(comm, ncclCommDestroy(comm));
	GOOD(cudaStreamDestroy(stream));
	GOOD(cudaStreamDestroy(other));
	GOOD(cudaFree(a));
	GOOD(cudaFree(b));
	GOOD(cudaFree(c));
	return worst;
}
static int sums(void) { return ranks_run(sums_rank); }

/* Half precision: 2048 + 1 is 2048 in fp16, 256 + 1 is 256 in bf16, one rank after the other. */
static int halves_rank(void)
{
	static const struct { ncclDataType_t type; uint16_t large, one, sum; } cases[] = {
		{ncclFloat16, 0x6800, 0x3C00, 0x6800}, {ncclBfloat16, 0x4380, 0x3F80, 0x4380},
		{ncclFloat16, 0x3C00, 0x3C00, 0x4400}, {ncclBfloat16, 0x3F80, 0x3F80, 0x4080},
		{ncclFloat16, 0x7BFF, 0x7BFF, 0x7C00}, {ncclFloat16, 0x0001, 0x0001, 0x0004}, {ncclFloat16, 0x8001, 0x83FF, 0x89FF}};
	ncclComm_t comm = comm_make(1);
	uint16_t *device, value;
	GOOD(cudaMalloc((void **)&device, 2));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		value = rank ? cases[i].one : cases[i].large;
		GOOD(cudaMemcpy(device, &value, 2, cudaMemcpyHostToDevice));
		settle(comm, ncclAllReduce(device, device, 1, cases[i].type, ncclSum, comm, NULL));
		GOOD(cudaMemcpy(&value, device, 2, cudaMemcpyDeviceToHost));
		SAME(value, cases[i].sum);
	}
	settle(comm, ncclCommDestroy(comm));
	return RIGHT;
}
static int halves(void) { return ranks_run(halves_rank); }

static void four_processes_sum(void **state)
{
	(void)state;
	for (long seed = 0; seed < 6; seed++) {
		run(sums, "SIM_LEAKS=1", seed);
		if (outcome.exit != RIGHT)
			fail_msg("seed %ld: exit %d, signal %d: %s", seed, outcome.exit, outcome.signal, outcome.text);
	}
	run(halves, "SIM_NCCL=delay_ms:3", -1);
	if (outcome.exit != RIGHT)
		fail_msg("exit %d, signal %d: %s", outcome.exit, outcome.signal, outcome.text);
}

/* What was called is on the stream only when the communicator has been asked until it is ready. */
static int impatient_rank(void)
{
	ncclComm_t comm = comm_make(0);
	float *a = values_make(VALUES, 1, 0), *b = values_make(VALUES, 0, 0);
	cudaStream_t stream = stream_make();
	ncclResult_t result = ncclAllReduce(a, a, VALUES, ncclFloat32, ncclSum, comm, stream);
	GOOD(cudaMemcpyAsync(b, a, VALUES * sizeof *b, cudaMemcpyDeviceToDevice, stream));
	settle(comm, result);
	GOOD(cudaDeviceSynchronize());
	int end = values_judge(b, VALUES, RANKS, 0);
	settle(comm, ncclCommDestroy(comm));
	return end;
}
static int impatient(void) { return ranks_run(impatient_rank); }

static void a_busy_communicator_must_be_asked(void **state)
{
	(void)state;
	run(impatient, "", -1);
	assert_int_equal(outcome.exit, WRONG);
}

/* Rank 2 dies between two sums: the others' communicators say so, and end by an abort. */
static int death_rank(void)
{
	ncclComm_t comm = comm_make(0);
	float *a = values_make(SUMMED, 1, 0);
	cudaStream_t stream = stream_make();
	settle(comm, ncclAllReduce(a, a, SUMMED, ncclFloat32, ncclSum, comm, stream));
	GOOD(cudaStreamSynchronize(stream));
	if (rank == 2)
		raise(SIGKILL);
	ncclResult_t result = ncclAllReduce(a, a, SUMMED, ncclFloat32, ncclSum, comm, stream);
	while (result == ncclInProgress || result == ncclSuccess) {
		SAME(cudaStreamQuery(stream), result == ncclInProgress ? cudaSuccess : cudaErrorNotReady);
		ncclCommGetAsyncError(comm, &result);
		usleep(100);
	}
	SAME(result, ncclRemoteError);
	SAME(strstr(ncclGetLastError(comm), "rank 2") != NULL, true);
	SAME(ncclCommAbort(comm), ncclSuccess);
	GOOD(cudaStreamSynchronize(stream));
	return RIGHT;
}
static int death(void) { return ranks_run(death_rank); }

/* Rank 1's second sum hangs; an abort ends it everywhere. */
static int hang_rank(void)
{
	ncclComm_t comm = comm_make(1);
	float *a = values_make(VALUES, 1, 0);
	cudaStream_t stream = stream_make();
	settle(comm, ncclAllReduce(a, a, VALUES, ncclFloat32, ncclSum, comm, stream));
	settle(comm, ncclAllReduce(a, a, VALUES, ncclFloat32, ncclSum, comm, stream));
	for (int i = 0; i < 200; i++) {
		SAME(cudaStreamQuery(stream), cudaErrorNotReady);
		usleep(100);
	}
	SAME(ncclCommAbort(comm), ncclSuccess);
	GOOD(cudaStreamSynchronize(stream));
	return RIGHT;
}
static int hang(void) { return ranks_run(hang_rank); }

static int injected_rank(void)
{
	ncclComm_t comm = comm_make(1);
	float *a = values_make(VALUES, 1, 0);
	ncclResult_t result = ncclAllReduce(a, a, VALUES, ncclFloat32, ncclSum, comm, NULL);
	SAME(result, rank == 3 ? ncclSystemError : ncclSuccess);
	SAME(ncclCommAbort(comm), ncclSuccess);
	GOOD(cudaDeviceSynchronize());
	return RIGHT;
}
static int injected(void) { return ranks_run(injected_rank); }

static int mismatch_rank(void)
{
	ncclComm_t comm = comm_make(1);
	float *a = values_make(VALUES, 1, 0);
	settle(comm, ncclAllReduce(a, a, rank == 3 ? VALUES - 1 : VALUES, ncclFloat32, ncclSum, comm, NULL));
	GOOD(cudaDeviceSynchronize());
	return RIGHT;
}
static int mismatch(void) { return ranks_run(mismatch_rank); }

static int graph_outlives_rank(void)
{
	ncclComm_t comm = comm_make(1);
	float *a = values_make(VALUES, 1, 0);
	cudaStream_t stream = stream_make();
	GOOD(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
	settle(comm, ncclAllReduce(a, a, VALUES, ncclFloat32, ncclSum, comm, stream));
	graph_make(stream);
	ncclCommDestroy(comm);
	return RIGHT;
}
static int graph_outlives(void) { return ranks_run(graph_outlives_rank); }

static void peers_that_fail_do_not_hang_others(void **state)
{
	(void)state;
	static const struct { int (*scenario)(void); const char *environment; } cases[] = {
		{death, ""}, {hang, "SIM_NCCL=hang:2@1"}, {injected, "SIM_NCCL=fail:1@3"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		run(cases[i].scenario, cases[i].environment, -1);
		if (outcome.exit != RIGHT)
			fail_msg("case %zu: exit %d, signal %d: %s", i, outcome.exit, outcome.signal, outcome.text);
	}
}

static void wrong_uses_of_nccl_are_caught(void **state)
{
	(void)state;
	run_caught(mismatch, "", "are not in the same operation");
	run_caught(graph_outlives, "", "graphs that hold sums");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(four_processes_sum),
		cmocka_unit_test(a_busy_communicator_must_be_asked),
		cmocka_unit_test(peers_that_fail_do_not_hang_others),
		cmocka_unit_test(wrong_uses_of_nccl_are_caught),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
