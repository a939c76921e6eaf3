/* ranks_rig.h: processes that are the ranks of one training, for tests and benches of what they do together. They are forked, share a board of
 * memory, and have a control channel of their own in it: as much of control.h as core/comm/comm.c asks for. None outlives the test. */
#pragma once

#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "core/base/clock.h"
#include "core/comm/control.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RIG_RANKS_MAX = 8, RIG_GATHERS_MAX = 16, RIG_BLOB_BYTES_MAX = 4096, RIG_WAIT_SECONDS = 20 };

/* What all ranks and the test see. */
struct board {
	struct {
		atomic_bool there;
		size_t count;
		uint8_t bytes[RIG_BLOB_BYTES_MAX];
	} gathers[RIG_GATHERS_MAX][RIG_RANKS_MAX];
	atomic_bool aborted; /* what control_check tells of */
	int held; /* this rank (if > 0) stands still after its first gather: it told the others where it is, and never comes */
	atomic_int stage[RIG_RANKS_MAX]; /* for the test's own use */
	uint64_t digests[RIG_RANKS_MAX];
	double numbers[RIG_RANKS_MAX][4];
	char messages[RIG_RANKS_MAX][STATUS_MESSAGE_BYTES_MAX];
};

/* A rank's end. */
struct control {
	struct board *board;
	int rank, world, gathers;
};

struct rig {
	struct board *board;
	int world;
	pid_t pids[RIG_RANKS_MAX];
	int ends[RIG_RANKS_MAX]; /* exit code; 128 + signal */
};

static inline double rig_seconds(void)
{
	return 1e-6 * (double)clock_us();
}

static inline void rig_sleep(double seconds)
{
	struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
	nanosleep(&time, NULL);
}

/* Until a rank has reached a stage; false: it did not in time. */
static inline bool rig_reached(struct board *board, int rank, int stage)
{
	for (double until = rig_seconds() + RIG_WAIT_SECONDS; atomic_load(&board->stage[rank]) < stage; rig_sleep(0.001))
		if (rig_seconds() > until)
			return false;
	return true;
}

/* --- control.h ------------------------------------------------------------------------------------------------------ */

enum status control_check(struct control *control)
{
	return atomic_load(&control->board->aborted) ? FAIL(ST_DEVICE, "host test: its dog ate the data") : ST_OK;
}

enum status control_gather(struct control *control, const void *bytes, size_t count, struct control_blobs *blobs)
{
	MUST(control->gathers < RIG_GATHERS_MAX && count <= RIG_BLOB_BYTES_MAX);
	int gather = control->gathers++;
	struct board *board = control->board;
	memcpy(board->gathers[gather][control->rank].bytes, bytes, count);
	board->gathers[gather][control->rank].count = count;
	atomic_store(&board->gathers[gather][control->rank].there, true);
	double until = rig_seconds() + RIG_WAIT_SECONDS;
	for (int rank = 0; rank < control->world; rank++) {
		while (!atomic_load(&board->gathers[gather][rank].there)) {
			TRY(control_check(control));
			if (rig_seconds() > until)
				return FAIL(ST_DEVICE, "rank %d did not come to gather %d", rank, gather);
			rig_sleep(0.001);
		}
	}
	while (board->held > 0 && board->held == control->rank)
		pause();
	if (blobs == NULL)
		return ST_OK;
	blobs->bytes = malloc((size_t)control->world * RIG_BLOB_BYTES_MAX);
	blobs->blobs = malloc((size_t)control->world * sizeof *blobs->blobs);
	blobs->counts = malloc((size_t)control->world * sizeof *blobs->counts);
	MUST(blobs->bytes != NULL && blobs->blobs != NULL && blobs->counts != NULL);
	for (int rank = 0; rank < control->world; rank++) {
		uint8_t *blob = blobs->bytes + (size_t)rank * RIG_BLOB_BYTES_MAX;
		blobs->counts[rank] = board->gathers[gather][rank].count;
		memcpy(blob, board->gathers[gather][rank].bytes, blobs->counts[rank]);
		blobs->blobs[rank] = blob;
	}
	return ST_OK;
}

void control_blobs_free(struct control_blobs *blobs)
{
	free(blobs->bytes);
	free(blobs->blobs);
	free(blobs->counts);
}

/* --- processes ------------------------------------------------------------------------------------------------------ */

/* Forks `world` ranks. Each runs rank_main and leaves with what it returns. */
static inline void rig_start(struct rig *rig, int world, int (*rank_main)(struct control *control, void *context), void *context)
{
	pid_t parent = getpid();
	MUST(world <= RIG_RANKS_MAX);
	rig->world = world;
	rig->board = mmap(NULL, sizeof *rig->board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(rig->board != MAP_FAILED);
	fflush(NULL);
	for (int rank = 0; rank < world; rank++) {
		rig->pids[rank] = fork();
		MUST(rig->pids[rank] >= 0);
		if (rig->pids[rank] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != parent)
				_exit(99);
			struct control control = {rig->board, rank, world, 0};
			exit(rank_main(&control, context)); /* not _exit: a leak is an error */
		}
	}
}

/* Waits for all, at most so long; who is still there then is killed, which its end shows. False when one was. */
static inline bool rig_wait(struct rig *rig, double seconds)
{
	bool in_time = true;
	double until = rig_seconds() + seconds;
	for (int rank = 0; rank < rig->world; rank++) {
		int end;
		while (waitpid(rig->pids[rank], &end, WNOHANG) == 0) {
			if (rig_seconds() > until) {
				in_time = false;
				fprintf(stderr, "rank %d did not end\n", rank);
				kill(rig->pids[rank], SIGKILL);
				waitpid(rig->pids[rank], &end, 0);
				break;
			}
			rig_sleep(0.001);
		}
		rig->ends[rank] = WIFEXITED(end) ? WEXITSTATUS(end) : 128 + WTERMSIG(end);
	}
	return in_time;
}

static inline void rig_free(struct rig *rig)
{
	munmap(rig->board, sizeof *rig->board);
}
