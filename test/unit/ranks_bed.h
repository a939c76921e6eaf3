/* ranks_bed.h: trainings of small functions in place of work, for tests of how they end. A host is a process, two hosts are two on 127.0.0.1 and
 * 127.0.0.2; a board of shared memory tells what happened. Every host is a process group that dies with the test, which inherits and
 * counts what a host leaves behind. */
#pragma once

#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "train/ranks/ranks.h"

#include "core/base/random.h"
#include "core/base/version.h"
#include "train/ranks/stop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Where nobody shall be found silent, a machine with other work must not make anybody seem so. */
enum { HOSTS = 2, RANKS = 4, LIMIT_MS = 60000, PATIENT_MS = 15000, IMPATIENT_MS = 3000 };

/* What one member does when its time has come; the others work on. */
enum deed {
	WORK,
	FAIL_DATA,     /* returns a failure of its own */
	CRASH,
	PROMISE,       /* MUST */
	LEAVE,         /* _exit(0) without a word */
	KILLED,        /* SIGKILL */
	STOP_PROCESS,  /* SIGSTOP */
	HANG,          /* neither works nor listens */
	LATE_KILLED,   /* SIGKILL, after another has returned a failure that follows from it */
};

struct board {
	atomic_bool go;                /* the deed may be done */
	atomic_int loading, loaded;    /* loaders that have begun, that have done their work */
	atomic_int saving;             /* ranks that have stopped and save */
	atomic_long steps[RANKS];      /* passed */
	atomic_int pids[RANKS];
	atomic_bool hurried[RANKS];
	struct {
		enum status status;
		char sentence[STATUS_MESSAGE_BYTES_MAX];
	} hosts[HOSTS];
};

static struct board *board;

static struct scene {
	int hosts, devices[HOSTS];
	enum deed deed, load_deed;
	int culprit;           /* a rank or, for load_deed, a host; -1: all */
	bool apart;            /* ranks do not wait for each other in each step */
	bool victims;          /* others end with ST_DEVICE of their own as soon as the culprit begins */
	bool stubborn;         /* others hang in step 8 */
	bool saves;            /* a rank that stops takes its time until it is hurried */
	long steps;            /* 0: until stopped */
	bool load_waits;       /* until asked to stop */
	int slow_host;         /* only this host (from 1) waits so */
	bool load_kills;       /* the other host's loader fails a little later than the culprit begins to hang */
	bool impatient;        /* silence and its like are what is tested */
	int collective_timeout_ms;
	int files;             /* descriptors that a host may open, beyond those that it has; 0: as many as it likes */
	const char *settings[HOSTS];
	enum { STAYS, LEAVES_STOPPED, LEAVES } second; /* what the second host does when all have met */
} scene;

static pid_t hosts[HOSTS];
static int in_heap; /* what load leaves to the ranks */

static inline void nap(int ms)
{
	struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
	while (nanosleep(&time, &time) != 0 && errno == EINTR)
		continue;
}

/* --- in the processes ------------------------------------------------------------------------------------------------- */

static inline void hang(void)
{
	for (;;)
		pause();
}

static inline enum status deed_do(enum deed deed)
{
	int tensors = 3;
	switch (deed) {
	case WORK: break;
	case FAIL_DATA: return FAIL(ST_DATA, "its dog ate the data");
	case CRASH: raise(SIGSEGV); break;
	case PROMISE: MUST(tensors == 4); break;
	case LEAVE: _exit(0);
	case LATE_KILLED: nap(300); /* fall through */
	case KILLED: kill(getpid(), SIGKILL); break;
	case STOP_PROCESS: kill(getpid(), SIGSTOP); break;
	case HANG: hang();
	}
	return ST_OK;
}

static inline enum status load(void *context, const struct place *place)
{
	if (context != &scene || place->host < 0 || place->host >= scene.hosts)
		return FAIL(ST_INTERNAL, "a wrong place");
	atomic_fetch_add(&board->loading, 1);
	if (scene.hosts > 1) /* all have begun */
		TRY(control_gather(place->control, NULL, 0, NULL));
	if (scene.load_deed != WORK && (scene.culprit == place->host || scene.culprit < 0))
		TRY(deed_do(scene.load_deed));
	if (scene.load_kills && scene.culprit != place->host) {
		nap(100);
		TRY(deed_do(scene.deed));
	}
	bool waits = scene.load_waits && (scene.slow_host == 0 || scene.slow_host == place->host + 1);
	stop_follow(place->control);
	while (waits && !stop_requested()) {
		TRY(control_check(place->control));
		nap(10);
	}
	bool stopped = stop_requested();
	stop_follow(NULL);
	if (stopped)
		return FAIL(ST_STOPPED, "stopped while loading");
	in_heap = 42 + place->host;
	atomic_fetch_add(&board->loaded, 1);
	return ST_OK;
}

/* In step 5 the culprit does its deed. */
static inline enum status rank(void *context, const struct place *place)
{
	if (context != &scene || in_heap != 42 + place->host || place->devices != scene.devices[place->host] || place->hosts != scene.hosts)
		return FAIL(ST_INTERNAL, "a wrong place");
	atomic_store(&board->pids[place->rank], getpid());
	for (long step = 0; scene.steps == 0 || step < scene.steps; step++) {
		bool culprit = scene.culprit == place->rank || scene.culprit < 0;
		if (step >= 5 && atomic_load(&board->go)) {
			if (culprit)
				TRY(deed_do(scene.deed));
			else if (scene.victims)
				return FAIL(ST_DEVICE, "connection closed by a peer");
			else if (scene.stubborn && step >= 8)
				hang();
		}
		if (!scene.apart)
			TRY(control_gather(place->control, NULL, 0, NULL));
		enum status status = control_pass(place->control);
		if (status == ST_STOPPED) {
			atomic_fetch_add(&board->saving, 1);
			while (scene.saves && !control_hurry(place->control))
				nap(5);
		}
		atomic_store(&board->hurried[place->rank], control_hurry(place->control));
		TRY(status);
		atomic_store(&board->steps[place->rank], step + 1);
		nap(2);
	}
	return ST_OK;
}

/* Comes to the rendezvous and leaves, as one who is asked to stop in its last moment. */
static inline void desert(const struct ranks_config *config)
{
	const struct rendezvous_config request = {.hosts = (const char(*)[HOST_BYTES])config->resource->hosts, .hosts_count = HOSTS, .host = 1,
		.port = config->port, .interface = "", .version = smelt_version(), .job = "", .settings = config->settings, .devices = config->devices,
		.timeout_us = config->rendezvous_timeout_us};
	struct rendezvous rendezvous;
	const struct frame wish = {.type = FRAME_WISH, .scope = SCOPE_HOSTS, .member = 1, .number = 1};
	if (rendezvous_open(&request, &rendezvous) == ST_OK && scene.second == LEAVES_STOPPED && frame_stream_send(rendezvous.streams[0], &wish) != ST_OK)
		_exit(99);
	_exit(0);
}

static inline void host_run(int host, int port)
{
	static char names[HOSTS][HOST_BYTES] = {"127.0.0.1", "127.0.0.2"};
	const struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpgid(0, 0);
	signal(SIGCHLD, SIG_IGN); /* as a careless parent would start us */
	const struct resource resource = {.hosts = names, .hosts_count = scene.hosts, .rank = host};
	const struct ranks_config config = {
		.resource = &resource,
		.devices = scene.devices[host],
		.settings = scene.settings[host] != NULL ? scene.settings[host] : "",
		.port = port,
		.rendezvous_timeout_us = 20000000,
		.peer_timeout_us = (scene.impatient ? IMPATIENT_MS : PATIENT_MS) * INT64_C(1000),
		.collective_timeout_us = (int64_t)(scene.collective_timeout_ms != 0 ? scene.collective_timeout_ms : 30000) * 1000,
		.load = load,
		.rank = rank,
		.context = &scene,
	};
	if (scene.files > 0) {
		int next = dup(0);
		close(next);
		const struct rlimit files = {(rlim_t)(next + scene.files), (rlim_t)(next + scene.files)};
		setrlimit(RLIMIT_NOFILE, &files);
	}
	enum status status = stop_install();
	if (host == 1 && scene.second != STAYS)
		desert(&config);
	if (status == ST_OK)
		status = ranks_run(&config);
	board->hosts[host].status = status;
	snprintf(board->hosts[host].sentence, sizeof board->hosts[host].sentence, "%s", status != ST_OK ? status_message() : "");
	exit(status_exit_code(status));
}

/* --- in the test ------------------------------------------------------------------------------------------------------ */

static inline int port_free(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t bytes = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
	close(fd);
	return ntohs(address.sin_port);
}

static inline void begin(struct scene wanted)
{
	int port = wanted.hosts > 1 ? port_free() : 0;
	scene = wanted;
	memset(board, 0, sizeof *board);
	fflush(NULL);
	for (int host = 0; host < scene.hosts; host++) {
		hosts[host] = fork();
		assert_true(hosts[host] >= 0);
		if (hosts[host] == 0) {
			host_run(host, port);
			_exit(99);
		}
		setpgid(hosts[host], hosts[host]);
	}
}

/* Every rank has passed this many steps. */
static inline void wait_steps(long steps)
{
	int world = 0;
	for (int host = 0; host < scene.hosts; host++)
		world += scene.devices[host];
	for (int waited = 0, at = 0; at < world; waited++) {
		if (atomic_load(&board->steps[at]) >= steps) {
			at++;
			continue;
		}
		assert_true(waited < LIMIT_MS);
		nap(1);
	}
}

static inline void wait_count(atomic_int *count, int wanted)
{
	for (int waited = 0; atomic_load(count) < wanted; waited++, nap(1))
		assert_true(waited < LIMIT_MS);
}

/* Waits for a host's end; its exit code, or 128 + its signal. */
static inline int end(int host)
{
	int status;
	for (int waited = 0; waited < LIMIT_MS; waited++, nap(1))
		if (waitpid(hosts[host], &status, WNOHANG) == hosts[host]) {
			hosts[host] = 0;
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		}
	fail_msg("host %d did not end", host);
	return -1;
}

/* Nobody whom a host has left behind is alive; they would be our children now. */
static inline void nobody_left(void)
{
	int status;
	for (int waited = 0; waited < LIMIT_MS; waited++, nap(1)) {
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid < 0) {
			assert_int_equal(errno, ECHILD);
			return;
		}
	}
	fail_msg("a process is left behind");
}

static inline void ends(int host, int code, enum status status, const char *sentence)
{
	assert_int_equal(end(host), code);
	assert_int_equal(board->hosts[host].status, status);
	if (sentence[0] != '\0' && strncmp(board->hosts[host].sentence, sentence, strlen(sentence)) != 0)
		fail_msg("host %d: \"%s\" instead of \"%s\"", host, board->hosts[host].sentence, sentence);
}

static inline int group_setup(void **unused)
{
	(void)unused;
	unsetenv("TRAINING_JOB_NAME"); /* both hosts of a test are of one job */
	board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return board == MAP_FAILED || prctl(PR_SET_CHILD_SUBREAPER, 1) != 0;
}

/* Also after a failed test nothing is left. */
static inline int teardown(void **unused)
{
	(void)unused;
	for (int host = 0; host < HOSTS; host++)
		if (hosts[host] > 0) {
			kill(-hosts[host], SIGKILL);
			hosts[host] = 0;
		}
	nobody_left();
	return 0;
}

/* What a rank does, and what is said of it: with one rank, and of rank 2 of 4. */
static const struct {
	const char *name;
	enum deed deed;
	int code;
	enum status status;
	const char *sentence;
} deeds[] = {
	{"fails", FAIL_DATA, 3, ST_DATA, "its dog ate the data"},
	{"crashes", CRASH, 1, ST_INTERNAL, "killed by SIGSEGV (memory was touched that is not there): a fault of smelt"},
	{"breaks a promise", PROMISE, 1, ST_INTERNAL, "./test/unit/ranks_bed.h:"},
	{"leaves without a word", LEAVE, 1, ST_INTERNAL, "the process left with exit code 0 in the middle of its work"},
	{"is killed", KILLED, 1, ST_MEMORY, "the process was killed (signal 9): often by the kernel's out-of-memory killer"},
	{"is stopped", STOP_PROCESS, 4, ST_DEVICE, "has been silent for "},
};
