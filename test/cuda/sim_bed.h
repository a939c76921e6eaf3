/* sim_bed.h: scenarios for the simulator's tests.
 *
 * Each runs in a process of its own, forked before any CUDA call, with its own environment; what it printed and how it ended is judged. Wrong
 * programs must be caught under some seed of 40 (or end with a sentence), right ones must be right under every seed. */
#pragma once

#include "test/sim/sim.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { SEEDS = 40, VALUES = 64 };

enum { RIGHT = 0, WRONG = 10, BROKEN = 11 }; /* how a scenario ends: as it should, with wrong numbers, or a call failed that should not */

static struct outcome {
	int exit, signal; /* signal: 0 when it ended by itself */
	char text[4000];  /* of stderr */
} outcome;

/* A call that must succeed. */
#define GOOD(call) good(call, #call)
static inline void good(cudaError_t error, const char *call)
{
	if (error) {
		fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(error));
		_exit(BROKEN);
	}
}

#define SAME(a, b) same((long)(a), (long)(b), #a, __LINE__)
static inline void same(long a, long b, const char *what, int line)
{
	if (a != b) {
		fprintf(stderr, "line %d: %s is %ld, not %ld\n", line, what, a, b);
		_exit(WRONG);
	}
}

static inline void outcome_read(int from)
{
	size_t used = 0;
	ssize_t bytes;
	while (used + 1 < sizeof outcome.text && (bytes = read(from, outcome.text + used, sizeof outcome.text - 1 - used)) > 0)
		used += (size_t)bytes;
	outcome.text[used] = '\0';
}

/* environment: "A=1 B=2"; seed < 0: none. */
static inline void run(int (*scenario)(void), const char *environment, long seed)
{
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		char words[400], number[24], *rest = words, *value;
		dup2(ends[1], 2);
		close(ends[0]);
		close(ends[1]);
		snprintf(words, sizeof words, "%s", environment);
		for (char *word; (word = strtok_r(rest, " ", &rest));)
			if ((value = strchr(word, '='))) {
				*value = '\0';
				setenv(word, value + 1, 1);
			}
		snprintf(number, sizeof number, "%ld", seed < 0 ? 1 : seed);
		setenv("SIM_SEED", number, 1);
		signal(SIGABRT, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		exit(scenario());
	}
	close(ends[1]);
	outcome_read(ends[0]);
	close(ends[0]);
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	outcome.exit = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static inline void run_right(int (*scenario)(void), const char *environment)
{
	for (long seed = 0; seed < SEEDS; seed++) {
		run(scenario, environment, seed);
		if (outcome.exit != RIGHT)
			fail_msg("seed %ld: exit %d, signal %d: %s", seed, outcome.exit, outcome.signal, outcome.text);
	}
}

static inline void run_wrong(int (*scenario)(void), const char *environment)
{
	int wrong = 0;
	for (long seed = 0; seed < SEEDS; seed++) {
		run(scenario, environment, seed);
		if (outcome.exit != RIGHT && outcome.exit != WRONG)
			fail_msg("seed %ld: exit %d, signal %d: %s", seed, outcome.exit, outcome.signal, outcome.text);
		wrong += outcome.exit == WRONG;
	}
	if (wrong < 4)
		fail_msg("the mistake showed under %d of %d seeds", wrong, SEEDS);
}

/* It ends with this sentence, and not by itself. */
static inline void run_caught(int (*scenario)(void), const char *environment, const char *sentence)
{
	run(scenario, environment, -1);
	if (outcome.exit == RIGHT || outcome.exit == WRONG || outcome.exit == BROKEN || !strstr(outcome.text, sentence))
		fail_msg("expected \"%s\", got exit %d, signal %d: %s", sentence, outcome.exit, outcome.signal, outcome.text);
}

/* --- streams, events, graphs ---------------------------------------------------------------------------------------------------- */

static inline cudaStream_t stream_make(void)
{
	cudaStream_t stream;
	GOOD(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
	return stream;
}

static inline cudaEvent_t event_make(void)
{
	cudaEvent_t event;
	GOOD(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
	return event;
}

static inline cudaGraphExec_t graph_make(cudaStream_t stream)
{
	cudaGraph_t graph;
	cudaGraphExec_t executable;
	GOOD(cudaStreamEndCapture(stream, &graph));
	GOOD(cudaGraphInstantiate(&executable, graph, 0));
	GOOD(cudaGraphDestroy(graph));
	return executable;
}
