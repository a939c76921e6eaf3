/* selftest.c: see selftest.h. */
#include "train/selftest/selftest.h"

#include "core/backend/devices.h"
#include "core/base/clock.h"
#include "core/base/cpu.h"
#include "core/base/log.h"
#include "core/base/version.h"
#include "train/selftest/speed.h"
#include "train/selftest/units.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_US_MAX = 40000000, CAPABILITY_AMPERE = 80, CHECKS_SECONDS = 40, END_SECONDS = 300 };

static const enum precision precisions[] = {PRECISION_FP32, PRECISION_TF32, PRECISION_FP16, PRECISION_BF16};
enum { PRECISIONS = sizeof precisions / sizeof precisions[0] };

/* Few images first, which any machine can do; then batches as in training, where other plans are chosen, if there is time. */
static const struct {
	enum stem stem;
	int few, many;
} networks[] = {{STEM_IMAGENET, 8, 128}, {STEM_CIFAR, 2, 32}};
enum { NETWORKS = sizeof networks / sizeof networks[0] };

/* --- in the process of one GPU --------------------------------------------------------------------------------------------- */

static bool gpu_has(const struct device_facts *gpu, enum precision precision)
{
	return gpu->capability >= CAPABILITY_AMPERE || (precision != PRECISION_TF32 && precision != PRECISION_BF16);
}

static enum status units_try(struct tested *tested, double seconds[NETWORKS][PRECISIONS])
{
	for (int many = 0; many < 2; many++)
		for (int i = 0; i < NETWORKS; i++) {
			double took = 0;
			for (int j = 0; j < PRECISIONS; j++) {
				if (!gpu_has(tested->gpu, precisions[j]))
					continue;
				double started = clock_seconds(), unused;
				/* As long as the one before, at least; a larger batch in proportion. */
				if (started + took > tested->until_seconds || (many && (seconds[i][j] <= 0 || seconds[i][j] * networks[i].many / networks[i].few > 2))) {
					tested->place.shared->all[tested->place.rank].left_out++;
					continue;
				}
				TRY(units_check(tested, networks[i].stem, many ? networks[i].many : networks[i].few, precisions[j], many ? &unused : &seconds[i][j]));
				took = clock_seconds() - started;
			}
		}
	return ST_OK;
}

static enum status gpu_try(struct tested *tested, int world)
{
	double seconds[NETWORKS][PRECISIONS] = {{0}};
	enum status status = ST_OK;
	TRY(backend_find("cuda", &tested->cuda));
	unsigned cores = threads_available() / (unsigned)world;
	TRY(threads_open(cores > 0 ? cores : 1, &tested->threads));
	TRY_DONE(units_try(tested, seconds));
	TRY_DONE(sums_check(tested));
	for (int i = 0; i < NETWORKS; i++)
		for (int j = 0; j < PRECISIONS; j++)
			if (gpu_has(tested->gpu, precisions[j]))
				TRY_DONE(speed_tell(tested, networks[i].stem, precisions[j], networks[i].few, seconds[i][j]));
done:
	threads_close(tested->threads);
	return status;
}

static void child_run(struct siblings *siblings, const struct device_list *list, int device, double until_seconds, pid_t parent)
	__attribute__((noreturn));
static void child_run(struct siblings *siblings, const struct device_list *list, int device, double until_seconds, pid_t parent)
{
	struct tested tested = {.place = {.shared = siblings, .rank = device}, .gpu = &list->devices[device], .until_seconds = until_seconds};
	struct sibling *own = &siblings->all[device];
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
		_exit(1);
	own->status = gpu_try(&tested, list->count);
	if (own->status != ST_OK) {
		snprintf(own->sentence, sizeof own->sentence, "%s", status_message());
		atomic_store(&siblings->failed, true);
	}
	_exit(0);
}

/* --- in the parent ----------------------------------------------------------------------------------------------------------- */

/* Ends all when that takes too long. One that crashes has failed. True: this one has ended. */
static bool child_ended(struct siblings *siblings, int i, pid_t pid, bool killed)
{
	struct sibling *one = &siblings->all[i];
	int how = 0;
	if (waitpid(pid, &how, WNOHANG) == 0)
		return false;
	if (how == 0 || one->status != ST_OK)
		return true;
	one->status = ST_DEVICE;
	if (WIFSIGNALED(how))
		snprintf(one->sentence, sizeof one->sentence, killed ? "it did not end within %d s" : "it crashed: signal %d", killed ? END_SECONDS : WTERMSIG(how));
	else
		snprintf(one->sentence, sizeof one->sentence, "a library ended its process");
	atomic_store(&siblings->failed, true);
	return true;
}

/* The lines that came since, of the first GPU that has not told all; then of the next. */
struct teller {
	const struct device_list *list;
	int gpu;      /* whose turn it is */
	size_t told;  /* of its report; 0: not even what it is */
};

static void report_tell(struct teller *teller, const struct siblings *siblings, const bool *ended)
{
	for (; teller->gpu < siblings->world; teller->gpu++, teller->told = 0) {
		const struct device_facts *gpu = &teller->list->devices[teller->gpu];
		const struct sibling *one = &siblings->all[teller->gpu];
		const bool last = ended[teller->gpu];
		size_t length = atomic_load(&one->length);
		if (length > 0 || last) {
			if (teller->told == 0)
				printf("GPU %d: %s, compute capability %d.%d, %d multiprocessors, %.1f GB, bus %s\n", teller->gpu, gpu->name, gpu->capability / 10,
					gpu->capability % 10, gpu->multiprocessors, (double)gpu->memory_bytes / 1e9, gpu->bus);
			printf("%.*s", (int)(length - teller->told), one->report + teller->told);
			teller->told = length;
		}
		if (last && one->status != ST_OK)
			printf("  FAILED: %s\n", one->sentence);
		fflush(stdout);
		if (!last)
			return;
	}
}

static void children_wait(struct siblings *siblings, const struct device_list *list, const pid_t *pids)
{
	const double until_seconds = clock_seconds() + END_SECONDS;
	bool ended[DEVICES_MAX] = {false}, killed = false;
	struct teller teller = {.list = list};
	for (int left = siblings->world; left > 0;) {
		for (int i = 0; i < siblings->world; i++)
			if (!ended[i] && (ended[i] = child_ended(siblings, i, pids[i], killed)))
				left--;
		report_tell(&teller, siblings, ended);
		for (int i = 0; i < siblings->world && !killed && clock_seconds() > until_seconds; i++)
			if (!ended[i])
				kill(pids[i], SIGKILL);
		killed |= clock_seconds() > until_seconds;
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
}

static enum status children_run(struct siblings *siblings, const struct device_list *list)
{
	const pid_t parent = getpid();
	pid_t pids[DEVICES_MAX];
	fflush(NULL);
	for (int i = 0; i < siblings->world; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			child_run(siblings, list, i, clock_seconds() + CHECKS_SECONDS, parent);
		if (pids[i] > 0)
			continue;
		int error = errno;
		for (int j = 0; j < i; j++)
			kill(pids[j], SIGKILL);
		for (int j = 0; j < i; j++)
			waitpid(pids[j], NULL, 0);
		return FAIL(ST_MEMORY, "no process for the self-test of a GPU: %s", strerror(error));
	}
	children_wait(siblings, list, pids);
	return ST_OK;
}

static enum status machine_tell(const struct device_list *list)
{
	enum cpu cpu;
	TRY(cpu_choose(&cpu));
	printf("smelt train --selftest, version %s, commit %s\ndriver %s (CUDA up to %d.%d), CUDA %d.%d, cuDNN %d.%d.%d; CPU %s, %s, %u threads\n", smelt_version(),
		smelt_commit(), list->driver_release[0] != '\0' ? list->driver_release : "of unknown release", list->driver_version / 1000,
		list->driver_version % 1000 / 10, list->runtime_version / 1000, list->runtime_version % 1000 / 10, list->cudnn_version / 10000,
		list->cudnn_version / 100 % 100, list->cudnn_version % 100, cpu_model(), cpu_word(cpu), threads_available());
	return ST_OK;
}

static enum status result_tell(const struct siblings *siblings, double seconds)
{
	int checks = 0, failures = 0, broken = 0, left_out = 0;
	for (int i = 0; i < siblings->world; i++) {
		const struct sibling *one = &siblings->all[i];
		checks += one->checks;
		failures += one->failures;
		left_out += one->left_out;
		broken += one->status != ST_OK;
	}
	printf("%s: %d of %d checks on %d GPU%s in %.0f s", failures > 0 || broken > 0 ? "FAILED" : "passed", checks - failures, checks, siblings->world,
		siblings->world == 1 ? "" : "s", seconds);
	if (left_out > 0)
		printf("; %d parts were left out, as there was no time for them", left_out);
	printf("\n");
	if (broken > 0)
		return FAIL(ST_DEVICE, "self-test: %d of %d GPUs could not finish it; the report on standard output says why", broken, siblings->world);
	if (failures > 0)
		return FAIL(ST_DEVICE, "self-test: %d of %d checks failed; the report on standard output names them", failures, checks);
	if (fflush(stdout) != 0 || ferror(stdout))
		return FAIL(ST_DISK, "the report of the self-test could not be written: %s", strerror(errno));
	return ST_OK;
}

enum status selftest_run(void)
{
	const double started = clock_seconds();
	struct siblings *siblings = NULL;
	enum status status = ST_OK;
	struct device_list *list = calloc(1, sizeof *list);
	if (list == NULL)
		return FAIL(ST_MEMORY, "no memory for a list of devices");
	log_level_set(LOG_WARNING); /* the report says it all */
	TRY_DONE(devices_find(ANSWER_US_MAX, NULL, list));
	if (list->count == 0)
		TRY_DONE(FAIL(ST_DEVICE, "the NVIDIA driver shows no GPU (is CUDA_VISIBLE_DEVICES set?)"));
	TRY_DONE(machine_tell(list));
	TRY_DONE(siblings_open(list->count, &siblings));
	TRY_DONE(children_run(siblings, list));
	TRY_DONE(result_tell(siblings, clock_seconds() - started));
done:
	siblings_close(siblings);
	free(list);
	return status;
}
