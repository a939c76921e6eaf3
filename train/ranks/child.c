/* child.c: see child.h. */
#include "train/ranks/child.h"

#include "core/base/log.h"
#include "train/ranks/failure.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* The two ends of a child's connections. */
struct ends {
	int control[2]; /* parent's, child's */
	int words[2];   /* likewise */
};

static enum status ends_open(struct ends *ends)
{
	*ends = (struct ends){.control = {-1, -1}, .words = {-1, -1}};
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends->control) != 0)
		return FAIL(ST_MEMORY, "no socket for a process of the training: %s", strerror(errno));
	if (pipe(ends->words) == 0) {
		for (int i = 0; i < 2; i++)
			MUST(fcntl(ends->words[i], F_SETFD, FD_CLOEXEC) == 0);
		MUST(fcntl(ends->words[0], F_SETFL, O_NONBLOCK) == 0);
		return ST_OK;
	}
	enum status status = FAIL(ST_MEMORY, "no pipe for a process of the training: %s", strerror(errno));
	close(ends->control[0]);
	close(ends->control[1]);
	return status;
}

/* --- in the child ---------------------------------------------------------------------------------------------------- */

/* Runs the task and tells how it ended. */
static enum status task_run(const struct task *task, enum control_scope scope, int control_fd, int words_fd)
{
	struct place place = task->place;
	const struct control_config config = {
		.fd = control_fd,
		.scope = scope,
		.member = scope == SCOPE_RANKS ? place.rank : place.host,
		.members = scope == SCOPE_RANKS ? place.world : place.hosts,
		.gather_timeout_us = task->gather_timeout_us,
	};
	char sentence[STATUS_MESSAGE_BYTES_MAX] = "";
	enum status status = control_open(&config, &place.control);
	if (status == ST_OK)
		status = task->run(task->context, &place);
	if (status != ST_OK && status != ST_STOPPED) {
		snprintf(sentence, sizeof sentence, "%s", status_message());
		/* Somebody's end is seen by its peers before its parent has told everybody why. */
		bool waits = status == ST_DEVICE && scope == SCOPE_RANKS && place.world > 1;
		if (place.control != NULL && control_wait_abort(place.control, waits ? task->cause_wait_us : 0) != ST_OK)
			log_info("leaves after a failure elsewhere: %s", sentence);
	}
	words_write(words_fd, status, sentence);
	control_close(place.control);
	return status;
}

struct thread_start {
	const struct task *task;
	int control_fd, words_fd;
};

static void *thread_run(void *context)
{
	struct thread_start start = *(struct thread_start *)context;
	free(context);
	task_run(start.task, SCOPE_HOSTS, start.control_fd, start.words_fd);
	close(start.words_fd);
	return NULL;
}

/* Before anything else of a new process: it shall not outlive its parent, and only the parent acts on being asked to stop. */
static void process_begin(pid_t parent, const sigset_t *signals)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
		_exit(status_exit_code(ST_INTERNAL));
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	sigprocmask(SIG_SETMASK, signals, NULL);
}

static void process_run(const struct task *task, const struct ends *ends) __attribute__((noreturn));
static void process_run(const struct task *task, const struct ends *ends)
{
	log_prefix_set(task->log_prefix);
	enum status status = failure_to_pipe(ends->words[1]);
	if (status == ST_OK)
		status = task_run(task, SCOPE_RANKS, ends->control[1], ends->words[1]);
	else
		words_write(ends->words[1], status, status_message());
	fflush(stdout);
	_exit(status_exit_code(status));
}

/* --- starting -------------------------------------------------------------------------------------------------------- */

static enum status child_take(const struct task *task, enum control_scope scope, const struct ends *ends, struct child *child)
{
	*child = (struct child){.scope = scope, .number = scope == SCOPE_RANKS ? task->place.rank : task->place.host, .words_fd = ends->words[0]};
	/* What a member sends is at most its part of an exchange. */
	enum status status = frame_stream_open(ends->control[0], CONTROL_BLOB_BYTES_MAX, &child->stream);
	if (status != ST_OK) {
		close(ends->words[0]);
		close(ends->words[1]);
		close(ends->control[1]);
	}
	return status;
}

enum status child_start_thread(const struct task *task, struct child *child)
{
	struct ends ends;
	struct child made;
	TRY(ends_open(&ends));
	TRY(child_take(task, SCOPE_HOSTS, &ends, &made));
	struct thread_start *start = malloc(sizeof *start);
	int error = ENOMEM;
	sigset_t asked, before; /* being asked to stop is for the parent's loop */
	sigemptyset(&asked);
	sigaddset(&asked, SIGTERM);
	sigaddset(&asked, SIGINT);
	pthread_sigmask(SIG_BLOCK, &asked, &before);
	if (start != NULL) {
		*start = (struct thread_start){.task = task, .control_fd = ends.control[1], .words_fd = ends.words[1]};
		error = pthread_create(&made.thread, NULL, thread_run, start);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error != 0) {
		free(start);
		close(ends.control[1]);
		close(ends.words[1]);
		child_close(&made);
		return FAIL(ST_MEMORY, "the thread that loads cannot be started: %s", strerror(error));
	}
	*child = made;
	return ST_OK;
}

enum status child_start_process(const struct task *task, const int *foreign, int foreign_count, struct child *child)
{
	struct ends ends;
	struct child made;
	sigset_t all, before;
	TRY(ends_open(&ends));
	TRY(child_take(task, SCOPE_RANKS, &ends, &made));
	pid_t parent = getpid();
	fflush(NULL);
	/* A signal between fork and process_begin would count in both. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	made.pid = fork();
	if (made.pid == 0) {
		process_begin(parent, &before);
		/* A descriptor that a sibling keeps would hide from the parent that this one has ended. */
		for (int i = 0; i < foreign_count; i++)
			close(foreign[i]);
		close(ends.control[0]);
		close(ends.words[0]);
		process_run(task, &ends);
	}
	int error = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(ends.control[1]);
	close(ends.words[1]);
	if (made.pid < 0) {
		child_close(&made);
		return FAIL(ST_MEMORY, "a process for rank %d cannot be started: %s", task->place.rank, strerror(error));
	}
	*child = made;
	return ST_OK;
}

/* --- its end --------------------------------------------------------------------------------------------------------- */

void child_reap(struct child *child)
{
	if (child->ended)
		return;
	if (child->pid == 0) {
		/* It closes the pipe as its last act. */
		child->ended = child->words_fd < 0 && pthread_join(child->thread, NULL) == 0;
		return;
	}
	if (waitpid(child->pid, &child->wait_status, WNOHANG) != child->pid)
		return;
	child->ended = true;
	if (child->words_fd >= 0)
		words_read(&child->words, child->words_fd);
}

bool child_told(const struct child *child)
{
	return child->ended || words_said(&child->words);
}

static enum status killed_verdict(int number)
{
	if (number == SIGKILL)
		return FAIL(ST_MEMORY, "the process was killed (signal 9): often by the kernel's out-of-memory killer; a smaller batch_size or an instance with more "
			"memory helps then");
	return FAIL(ST_INTERNAL, "the process was killed by signal %d (%s)", number, strsignal(number));
}

enum status child_verdict(const struct child *child)
{
	const struct words *words = &child->words;
	bool waited = child->ended && child->pid != 0;
	if (words_crashed(words))
		return FAIL(ST_INTERNAL, "%s", words_sentence(words));
	if (waited && WIFSIGNALED(child->wait_status))
		return killed_verdict(WTERMSIG(child->wait_status));
	if (!words_said(words))
		return FAIL(ST_INTERNAL, "the process left with exit code %d in the middle of its work", waited ? WEXITSTATUS(child->wait_status) : 0);
	enum status status = words_status(words);
	if (status != ST_OK && status != ST_STOPPED)
		return FAIL(status, "%s", words_sentence(words));
	if (waited && WEXITSTATUS(child->wait_status) != 0)
		return FAIL(ST_INTERNAL, "the process left with exit code %d although its work was done", WEXITSTATUS(child->wait_status));
	return status;
}

void child_close_stream(struct child *child)
{
	frame_stream_close(child->stream);
	child->stream = NULL;
}

void child_close(struct child *child)
{
	child_close_stream(child);
	if (child->words_fd >= 0)
		close(child->words_fd);
	child->words_fd = -1;
}
