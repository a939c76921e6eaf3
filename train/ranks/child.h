/* child.h: one member of this host as its parent sees it: the thread that loads, or a rank's process.
 *
 * In: what it shall run. Out: frames of the control channel, how it ended and why. What follows from that for the others is the parent's
 * matter (train/ranks/parent.h). */
#pragma once

#include "core/comm/frame.h"
#include "train/ranks/ranks.h"
#include "train/ranks/words.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What a child does. Must stay where it is until the child has ended. */
struct task {
	enum status (*run)(void *context, const struct place *place);
	void *context;
	struct place place;            /* without `control` */
	int64_t gather_timeout_us;
	int64_t cause_wait_us;         /* how long a rank that lost a peer waits to hear why */
	const char *log_prefix;        /* of a rank's lines; "" */
};

struct child {
	enum control_scope scope;
	int number;                    /* of the host or the rank */
	pid_t pid;                     /* of a rank; 0: the loading thread */
	pthread_t thread;
	struct frame_stream *stream;   /* NULL: it has closed it, or it broke */
	int words_fd;                  /* -1: it has closed it */
	struct words words;
	int64_t heard_us;              /* 0: it has only just begun */
	bool ended, judged;
	int wait_status;               /* of a rank that has ended */
};

/* Starts `task` on a thread, as its host's member. ST_MEMORY. */
enum status child_start_thread(const struct task *task, struct child *child);
/* Starts `task` in a process, as a rank. No other thread may run. The child closes the parent's descriptors `foreign`. ST_MEMORY. */
enum status child_start_process(const struct task *task, const int *foreign, int foreign_count, struct child *child);

/* Takes note of its end, if it has ended. Does not wait. */
void child_reap(struct child *child);

/* It has told its end, or ended without a word. */
bool child_told(const struct child *child);
/* Then: how. A failure comes with its sentence. */
enum status child_verdict(const struct child *child);

void child_close_stream(struct child *child);
/* Releases what is open; the process or thread is left alone. */
void child_close(struct child *child);
