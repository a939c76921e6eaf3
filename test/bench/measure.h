/* measure.h: what the benches share: how long something takes, the machine's own peak of fp32 multiply-adds, and the way from the command
 * line to each instruction set and stem. */
#pragma once

#include "core/base/cpu.h"
#include "core/base/log.h"
#include "core/base/threads.h"
#include "core/model/resnet.h"

#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REPEATS_MAX = 50 };

static inline double seconds(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static inline double now(void)
{
	return seconds(CLOCK_MONOTONIC);
}

static inline int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return (left > right) - (left < right);
}

struct timing {
	double min, median;
	int repeats;
};

/* One warm-up, then repeats for a while. */
static inline struct timing measure(void (*run)(void *context), void *context, double seconds_max)
{
	double times[REPEATS_MAX], begin = now();
	int count = 0;
	run(context);
	while (count < 3 || (count < REPEATS_MAX && now() - begin < seconds_max)) {
		double start = now();
		run(context);
		times[count++] = now() - start;
	}
	qsort(times, (size_t)count, sizeof *times, compare);
	return (struct timing){times[0], times[count / 2], count};
}

/* --- peak ----------------------------------------------------------------------------------------------------------- */

enum { PEAK_LOOPS = 50000, PEAK_REPEATS = 50, PEAK_CHAINS = 12 };

/* Each task times itself by its thread's processor time, so that other work on the machine does not count. Twelve chains hide the
 * latency; they are variables, not an array, so that they stay in registers. */
#define PEAK_STEP(sum, step) \
	sum = step(sum, x, y); \
	__asm__ volatile("" : "+v"(sum));
#define PEAK_TASK(name, instructions, type, set, step, lanes) \
	__attribute__((target(instructions))) static void name(void *context, size_t index) \
	{ \
		double start = seconds(CLOCK_THREAD_CPUTIME_ID); \
		type x = set(0.999f), y = set(0.001f), a = y, b = y, c = y, d = y, e = y, f = y, g = y, h = y, i = y, j = y, k = y, l = y; \
		for (int loop = 0; loop < PEAK_LOOPS; loop++) { \
			PEAK_STEP(a, step) PEAK_STEP(b, step) PEAK_STEP(c, step) PEAK_STEP(d, step) PEAK_STEP(e, step) PEAK_STEP(f, step) \
			PEAK_STEP(g, step) PEAK_STEP(h, step) PEAK_STEP(i, step) PEAK_STEP(j, step) PEAK_STEP(k, step) PEAK_STEP(l, step) \
		} \
		((double *)context)[index] = 2e-9 * (lanes) * PEAK_CHAINS * PEAK_LOOPS / (seconds(CLOCK_THREAD_CPUTIME_ID) - start); \
	}
#define SSE_STEP(a, b, c) _mm_add_ps(_mm_mul_ps(a, b), c)
PEAK_TASK(peak_generic, "sse2", __m128, _mm_set1_ps, SSE_STEP, 4)
PEAK_TASK(peak_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
PEAK_TASK(peak_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)

/* GFLOP/s of all threads together: the best of many short runs. */
static inline double peak_measure(struct threads *threads, enum cpu cpu)
{
	double rates[1024], best = 0;
	size_t count = threads_count(threads);
	MUST(count <= sizeof rates / sizeof *rates);
	void (*task)(void *, size_t) = cpu == CPU_GENERIC ? peak_generic : cpu == CPU_AVX2 ? peak_avx2 : peak_avx512;
	for (int i = 0; i < PEAK_REPEATS; i++) {
		threads_run(threads, task, rates, count);
		double sum = 0;
		for (size_t t = 0; t < count; t++)
			sum += rates[t];
		best = sum > best ? sum : best;
	}
	return best;
}

/* --- a bench -------------------------------------------------------------------------------------------------------- */

struct bench {
	const char *source;                         /* whose first lines are the help */
	const char *flag;                           /* a word without a value that it knows, or NULL */
	void (*run)(const struct bench *bench, enum cpu cpu, enum stem stem, double peak);
	int batch, batch_max;                       /* of --batch; before: what it is without */
	bool flagged;
	struct threads *threads;
	const char *only_cpu, *only_stem;
};

static inline bool bench_understand(struct bench *bench, int count, char **words, unsigned *threads)
{
	for (int i = 1; i < count; i++) {
		const char *word = words[i], *value = i + 1 < count ? words[i + 1] : "";
		if (bench->flag != NULL && strcmp(word, bench->flag) == 0) {
			bench->flagged = true;
			continue;
		}
		if (strcmp(word, "--cpu") == 0)
			bench->only_cpu = value;
		else if (strcmp(word, "--stem") == 0)
			bench->only_stem = value;
		else if (strcmp(word, "--batch") == 0 && atoi(value) >= 1 && atoi(value) <= bench->batch_max)
			bench->batch = atoi(value);
		else if (strcmp(word, "--threads") == 0)
			*threads = (unsigned)atoi(value);
		else if (strcmp(word, "--batch") == 0) {
			log_error("--batch %s: from 1 to %d", value, bench->batch_max);
			return false;
		} else {
			log_error("unknown argument %s: see the first lines of %s", word, bench->source);
			return false;
		}
		i++;
	}
	return true;
}

/* Runs the bench for each instruction set that the machine has and each stem, but for those that the command line leaves out. */
static inline int bench_main(struct bench *bench, int count, char **words)
{
	unsigned threads = 0;
	if (!bench_understand(bench, count, words, &threads))
		return 2;
	if (threads_open(threads, &bench->threads) != ST_OK) {
		log_error("%s", status_message());
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%s, %u threads\n", cpu_model(), threads_count(bench->threads));
	for (int c = CPU_GENERIC; c <= CPU_AVX512; c++) {
		enum cpu cpu = (enum cpu)c;
		if (bench->only_cpu != NULL && strcmp(bench->only_cpu, cpu_word(cpu)) != 0)
			continue;
		if (cpu > cpu_detect()) {
			printf("%s: skipped, this machine lacks %s\n", cpu_word(cpu), cpu_needs(cpu));
			continue;
		}
		setenv("SMELT_CPU", cpu_word(cpu), 1);
		double peak = peak_measure(bench->threads, cpu);
		printf("\n%s: peak %.1f GFLOP/s\n", cpu_word(cpu), peak);
		for (int s = 0; s < 2; s++)
			if (bench->only_stem == NULL || strcmp(bench->only_stem, stem_name((enum stem)s)) == 0)
				bench->run(bench, cpu, (enum stem)s, peak);
	}
	threads_close(bench->threads);
	return 0;
}
