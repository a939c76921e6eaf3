/* Goal: however a training of several processes ends, it ends everywhere, says why, and leaves no process behind. Method: ranks_run with
 * small functions in place of training: ranks and loaders that work, fail, crash, hang, are killed or stopped; one host with 1 and with 4 ranks,
 * and two hosts, which are two processes on 127.0.0.1 and 127.0.0.2. A board of shared memory tells what happened. Every host is a process
 * group that dies with this one; this one inherits and counts what a host leaves behind. Conformance tests 86 to 88, 91, 94, 95. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "train/ranks.h"

#include "core/base/random.h"
#include "core/base/version.h"
#include "train/stop.h"

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
	enum {STAYS, LEAVES_STOPPED, LEAVES} second; /* what the second host does when all have met */
} scene;

static pid_t hosts[HOSTS];
static int in_heap; /* what load leaves to the ranks */

static void nap(int ms)
{
	struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
	while (nanosleep(&time, &time) != 0 && errno == EINTR)
		continue;
}

/* --- in the processes ------------------------------------------------------------------------------------------------- */

static void hang(void)
{
	for (;;)
		pause();
}

static enum status deed_do(enum deed deed)
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

static enum status load(void *context, const struct place *place)
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
	while (waits && !control_stopping(place->control)) {
		TRY(control_check(place->control));
		nap(10);
	}
	if (control_stopping(place->control))
		return FAIL(ST_STOPPED, "stopped while loading");
	in_heap = 42 + place->host;
	atomic_fetch_add(&board->loaded, 1);
	return ST_OK;
}

/* In step 5 the culprit does its deed. */
static enum status rank(void *context, const struct place *place)
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
static void desert(const struct ranks_config *config)
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

static void host_run(int host, int port)
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

static int port_free(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t bytes = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
	close(fd);
	return ntohs(address.sin_port);
}

static void begin(struct scene wanted)
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
static void wait_steps(long steps)
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

static void wait_count(atomic_int *count, int wanted)
{
	for (int waited = 0; atomic_load(count) < wanted; waited++, nap(1))
		assert_true(waited < LIMIT_MS);
}

/* Waits for a host's end; its exit code, or 128 + its signal. */
static int end(int host)
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
static void nobody_left(void)
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

static void ends(int host, int code, enum status status, const char *sentence)
{
	assert_int_equal(end(host), code);
	assert_int_equal(board->hosts[host].status, status);
	if (sentence[0] != '\0' && strncmp(board->hosts[host].sentence, sentence, strlen(sentence)) != 0)
		fail_msg("host %d: \"%s\" instead of \"%s\"", host, board->hosts[host].sentence, sentence);
}

static int group_setup(void **unused)
{
	(void)unused;
	unsetenv("TRAINING_JOB_NAME"); /* both hosts of a test are of one job */
	board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return board == MAP_FAILED || prctl(PR_SET_CHILD_SUBREAPER, 1) != 0;
}

/* Also after a failed test nothing is left. */
static int teardown(void **unused)
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

static const int devices_of_one[] = {1, 4};

/* --- one host --------------------------------------------------------------------------------------------------------- */

static void all_is_well(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}, .steps = 20});
		ends(0, 0, ST_OK, "");
		nobody_left();
		for (int r = 0; r < devices_of_one[i]; r++)
			assert_int_equal(board->steps[r], 20);
	}
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
	{"breaks a promise", PROMISE, 1, ST_INTERNAL, "test/unit/test_ranks.c:"},
	{"leaves without a word", LEAVE, 1, ST_INTERNAL, "the process left with exit code 0 in the middle of its work"},
	{"is killed", KILLED, 1, ST_MEMORY, "the process was killed (signal 9): often by the kernel's out-of-memory killer"},
	{"is stopped", STOP_PROCESS, 4, ST_DEVICE, "has been silent for "},
};

static void deeds_of_a_rank(void **unused)
{
	(void)unused;
	for (size_t d = 0; d < sizeof deeds / sizeof deeds[0]; d++)
		for (int i = 0; i < 2; i++) {
			char sentence[200];
			print_message("a rank of %d %s\n", devices_of_one[i], deeds[d].name);
			begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}, .deed = deeds[d].deed, .culprit = i == 0 ? 0 : 2,
				.impatient = deeds[d].deed == STOP_PROCESS});
			atomic_store(&board->go, true);
			snprintf(sentence, sizeof sentence, "%s%s", i == 0 ? "" : "host 127.0.0.1 (rank 2): ", deeds[d].sentence);
			ends(0, deeds[d].code, deeds[d].status, sentence);
			nobody_left();
		}
}

static void first_cause_wins(void **unused)
{
	(void)unused;
	/* Its peers see a rank go before its parent knows that it was killed. */
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = LATE_KILLED, .culprit = 2, .victims = true});
	wait_steps(6);
	atomic_store(&board->go, true);
	ends(0, 1, ST_MEMORY, "host 127.0.0.1 (rank 2): the process was killed");
	nobody_left();
	/* When nobody else turns out to be the cause, what a rank says of its peers is all there is. */
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = WORK, .culprit = 2, .victims = true, .impatient = true});
	atomic_store(&board->go, true);
	ends(0, 4, ST_DEVICE, "host 127.0.0.1 (rank ");
	assert_non_null(strstr(board->hosts[0].sentence, "): connection closed by a peer"));
}

static void who_stays_is_killed(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = FAIL_DATA, .culprit = 2, .apart = true, .stubborn = true, .impatient = true});
	wait_steps(10);
	atomic_store(&board->go, true);
	ends(0, 3, ST_DATA, "host 127.0.0.1 (rank 2): its dog ate the data");
	nobody_left();
}

static void endless_waits_end(void **unused)
{
	(void)unused;
	print_message("in an exchange\n");
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = HANG, .culprit = 2, .impatient = true, .collective_timeout_ms = 1500});
	atomic_store(&board->go, true);
	ends(0, 4, ST_DEVICE, "host 127.0.0.1 (rank 2): rank 2 did not come to exchange ");
	nobody_left();
	print_message("in a step, one behind\n");
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = HANG, .culprit = 2, .apart = true, .stubborn = true, .impatient = true, .collective_timeout_ms = 2500});
	atomic_store(&board->go, true);
	ends(0, 4, ST_DEVICE, "host 127.0.0.1 (rank 2): the others have waited for it for ");
	nobody_left();
	print_message("in a step, all\n");
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = HANG, .culprit = -1, .apart = true, .impatient = true, .collective_timeout_ms = 2500});
	atomic_store(&board->go, true);
	ends(0, 4, ST_DEVICE, "no rank has finished a step for ");
	nobody_left();
}

static void stop_is_agreed(void **unused)
{
	(void)unused;
	for (int i = 0; i < 4; i++) {
		int devices = devices_of_one[i % 2];
		begin((struct scene){.hosts = 1, .devices = {devices}, .apart = i >= 2});
		wait_steps(5);
		/* A terminal's ^C goes to the whole group: still one request. */
		kill(-hosts[0], i % 2 == 0 ? SIGTERM : SIGINT);
		ends(0, 0, ST_STOPPED, "");
		for (int r = 0; r < devices; r++) {
			assert_int_equal(board->steps[r], board->steps[0]);
			assert_false(board->hurried[r]);
		}
		nobody_left();
	}
}

static void second_signal_hurries(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}, .saves = true});
		wait_steps(5);
		kill(hosts[0], SIGTERM);
		wait_count(&board->saving, devices_of_one[i]);
		kill(hosts[0], SIGTERM);
		ends(0, 0, ST_STOPPED, "");
		for (int r = 0; r < devices_of_one[i]; r++)
			assert_true(board->hurried[r]);
		nobody_left();
	}
}

static void stop_at_any_time(void **unused)
{
	(void)unused;
	for (int ms = 0; ms < 30; ms++) {
		begin((struct scene){.hosts = 1, .devices = {4}});
		nap(ms);
		kill(hosts[0], SIGTERM);
		int code = end(0);
		assert_true(code == 0 || code == 128 + SIGTERM); /* it may not have come to stop_install */
		if (code == 0)
			assert_int_equal(board->hosts[0].status, ST_STOPPED);
		nobody_left();
	}
}

static void stop_while_loading(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 1, .devices = {4}, .load_waits = true});
	wait_count(&board->loading, 1);
	kill(hosts[0], SIGTERM);
	ends(0, 0, ST_STOPPED, "");
	assert_int_equal(board->pids[0], 0);
	nobody_left();
}

static void load_fails(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}, .load_deed = FAIL_DATA});
		ends(0, 3, ST_DATA, "its dog ate the data");
		assert_int_equal(board->pids[0], 0);
		nobody_left();
	}
}

/* Some ranks run when there is no socket or pipe for the next. */
static void rank_cannot_start(void **unused)
{
	(void)unused;
	for (int files = 6; files <= 9; files++) {
		begin((struct scene){.hosts = 1, .devices = {4}, .files = files});
		ends(0, 1, ST_MEMORY, "no ");
		nobody_left();
	}
}

static void parent_dies(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}});
		wait_steps(5);
		kill(hosts[0], SIGKILL);
		assert_int_equal(end(0), 128 + SIGKILL);
		nobody_left();
	}
	begin((struct scene){.hosts = 1, .devices = {1}, .load_waits = true});
	wait_count(&board->loading, 1);
	kill(hosts[0], SIGKILL);
	assert_int_equal(end(0), 128 + SIGKILL);
	nobody_left();
}

/* Time in which nobody ran is nobody's silence: of the parent alone, and of all. */
static void own_stall_is_no_silence(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {4}, .impatient = true});
		wait_steps(5);
		pid_t stalled = i == 0 ? hosts[0] : -hosts[0];
		kill(stalled, SIGSTOP);
		nap(IMPATIENT_MS);
		long steps = board->steps[0];
		kill(stalled, SIGCONT);
		wait_steps(steps + 100);
		kill(hosts[0], SIGTERM);
		ends(0, 0, ST_STOPPED, "");
		nobody_left();
	}
}

/* --- two hosts -------------------------------------------------------------------------------------------------------- */

static void two_are_well(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 3}, .steps = 20});
	ends(1, 0, ST_OK, "");
	ends(0, 0, ST_OK, "");
	nobody_left();
	for (int r = 0; r < 4; r++)
		assert_int_equal(board->steps[r], 20);
}

/* Whichever host it is on: that host tells of its own failure with its own exit code, the other of the same one. */
static void deeds_on_either_host(void **unused)
{
	(void)unused;
	for (size_t d = 0; d < sizeof deeds / sizeof deeds[0]; d++)
		for (int host = 0; host < 2; host++) {
			char sentence[200];
			print_message("on host %d a rank %s\n", host, deeds[d].name);
			begin((struct scene){.hosts = 2, .devices = {2, 2}, .deed = deeds[d].deed, .culprit = 2 * host + 1,
				.impatient = deeds[d].deed == STOP_PROCESS});
			atomic_store(&board->go, true);
			snprintf(sentence, sizeof sentence, "host 127.0.0.%d (rank %d): %s", host + 1, 2 * host + 1, deeds[d].sentence);
			ends(host, deeds[d].code, deeds[d].status, sentence);
			ends(1 - host, 4, ST_DEVICE, sentence);
			nobody_left();
		}
}

static void stop_of_one_host_stops_both(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		wait_steps(5);
		kill(hosts[host], SIGTERM);
		ends(0, 0, ST_STOPPED, "");
		ends(1, 0, ST_STOPPED, "");
		for (int r = 1; r < 4; r++)
			assert_int_equal(board->steps[r], board->steps[0]);
		nobody_left();
	}
}

static void second_signal_hurries_both(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 1}, .saves = true});
	wait_steps(5);
	kill(hosts[1], SIGTERM);
	wait_count(&board->saving, 2);
	kill(hosts[1], SIGTERM);
	ends(0, 0, ST_STOPPED, "");
	ends(1, 0, ST_STOPPED, "");
	assert_true(board->hurried[0] && board->hurried[1]);
	nobody_left();
}

/* One host may have ranks already, which wait for the other's. */
static void stop_while_one_loads(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		begin((struct scene){.hosts = 2, .devices = {1, 1}, .load_waits = true});
		wait_count(&board->loading, 2);
		kill(hosts[host], SIGTERM);
		ends(0, 0, ST_STOPPED, "");
		ends(1, 0, ST_STOPPED, "");
		nobody_left();
		for (int slow = 0; slow < 2; slow++) {
			begin((struct scene){.hosts = 2, .devices = {1, 1}, .load_waits = true, .slow_host = slow + 1});
			wait_count(&board->loaded, 1);
			nap(20);
			kill(hosts[host], SIGTERM);
			ends(0, 0, ST_STOPPED, "");
			ends(1, 0, ST_STOPPED, "");
			nobody_left();
		}
	}
}

static void load_fails_on_one(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		char sentence[200];
		snprintf(sentence, sizeof sentence, "host 127.0.0.%d: its dog ate the data", host + 1);
		/* The other loads, too, or has ranks already. */
		for (int waits = 0; waits < 2; waits++) {
			begin((struct scene){.hosts = 2, .devices = {2, 2}, .load_deed = FAIL_DATA, .culprit = host, .load_waits = waits});
			ends(host, 3, ST_DATA, sentence);
			ends(1 - host, 4, ST_DEVICE, sentence);
			nobody_left();
		}
	}
}

/* Nothing can make a thread leave: its process ends around it. */
static void loading_hangs(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 1}, .load_deed = HANG, .culprit = 1, .deed = FAIL_DATA, .load_kills = true, .impatient = true});
	ends(0, 3, ST_DATA, "host 127.0.0.1: its dog ate the data");
	ends(1, 4, ST_DEVICE, "host 127.0.0.1: its dog ate the data");
	nobody_left();
}

static void host_dies(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		char sentence[200];
		snprintf(sentence, sizeof sentence, "host 127.0.0.%d: lost by host 127.0.0.%d (", host + 1, 2 - host);
		print_message("the parent of host %d is killed\n", host);
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		wait_steps(5);
		kill(hosts[host], SIGKILL);
		assert_int_equal(end(host), 128 + SIGKILL);
		ends(1 - host, 4, ST_DEVICE, sentence);
		nobody_left();
		print_message("all of host %d is killed\n", host);
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		wait_steps(5);
		kill(-hosts[host], SIGKILL);
		assert_int_equal(end(host), 128 + SIGKILL);
		ends(1 - host, 4, ST_DEVICE, sentence);
		nobody_left();
	}
}

/* It fails itself once it goes on. */
static void host_is_stopped(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		char sentence[200];
		snprintf(sentence, sizeof sentence, "host 127.0.0.%d: has been silent for ", host + 1);
		begin((struct scene){.hosts = 2, .devices = {2, 2}, .impatient = true});
		wait_steps(5);
		kill(-hosts[host], SIGSTOP);
		ends(1 - host, 4, ST_DEVICE, sentence);
		kill(-hosts[host], SIGCONT);
		ends(host, 4, ST_DEVICE, "host 127.0.0.");
		nobody_left();
	}
}

static void two_stall_together(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {2, 2}, .impatient = true});
	wait_steps(5);
	for (int host = 0; host < 2; host++)
		kill(-hosts[host], SIGSTOP);
	nap(IMPATIENT_MS);
	long steps = board->steps[0];
	for (int host = 0; host < 2; host++)
		kill(-hosts[host], SIGCONT);
	wait_steps(steps + 100);
	kill(hosts[1], SIGTERM);
	ends(0, 0, ST_STOPPED, "");
	ends(1, 0, ST_STOPPED, "");
	nobody_left();
}

/* Both say the same, and one of them that it was its own. */
static void one_cause_for_all(void **unused)
{
	(void)unused;
	for (int i = 0; i < 10; i++) {
		begin((struct scene){.hosts = 2, .devices = {2, 2}, .deed = FAIL_DATA, .culprit = -1, .apart = i % 2 != 0});
		wait_steps(6);
		atomic_store(&board->go, true);
		int codes[] = {end(0), end(1)};
		assert_string_equal(board->hosts[0].sentence, board->hosts[1].sentence);
		assert_non_null(strstr(board->hosts[0].sentence, "): its dog ate the data"));
		bool second = strncmp(board->hosts[0].sentence, "host 127.0.0.2 (rank ", 21) == 0;
		assert_int_equal(codes[second], 3);
		assert_int_equal(codes[!second], 4);
		nobody_left();
	}
}

static void two_stop_at_any_time(void **unused)
{
	(void)unused;
	for (int i = 0; i < 30; i++) {
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		nap(3 * i);
		for (int host = 0; host < 2; host++)
			kill(hosts[host], SIGTERM);
		for (int host = 0; host < 2; host++) {
			int code = end(host);
			if (code != 0 && code != 128 + SIGTERM) /* it may not have come to stop_install */
				fail_msg("host %d left with %d: %s", host, code, board->hosts[host].sentence);
			if (code == 0)
				assert_int_equal(board->hosts[host].status, ST_STOPPED);
		}
		nobody_left();
	}
}

static void host_leaves_at_once(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {2, 2}, .second = LEAVES_STOPPED});
	assert_int_equal(end(1), 0);
	ends(0, 0, ST_STOPPED, "");
	nobody_left();
	begin((struct scene){.hosts = 2, .devices = {2, 2}, .second = LEAVES});
	assert_int_equal(end(1), 0);
	ends(0, 4, ST_DEVICE, "host 127.0.0.2: lost by host 127.0.0.1 (");
	nobody_left();
}

/* Any process of either host, at any instant. */
static void killed_at_random(void **unused)
{
	(void)unused;
	struct random_stream random = random_open(5, RANDOM_TEST, 0, 0);
	for (int i = 0; i < 20; i++) {
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		wait_steps(1);
		nap((int)random_below(&random, 40));
		int victim = (int)random_below(&random, 6), host = victim / 3, rank = victim % 3 - 1 + 2 * host;
		char sentence[100];
		if (victim % 3 == 0)
			snprintf(sentence, sizeof sentence, "host 127.0.0.%d: lost by host 127.0.0.%d (", host + 1, 2 - host);
		else
			snprintf(sentence, sizeof sentence, "host 127.0.0.%d (rank %d): the process was killed", host + 1, rank);
		kill(victim % 3 == 0 ? hosts[host] : board->pids[rank], SIGKILL);
		if (victim % 3 == 0)
			assert_int_equal(end(host), 128 + SIGKILL);
		else
			ends(host, 1, ST_MEMORY, sentence);
		ends(1 - host, 4, ST_DEVICE, sentence);
		nobody_left();
	}
}

static void endless_wait_names_its_host(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 3}, .deed = HANG, .culprit = 2, .impatient = true, .collective_timeout_ms = 1500});
	atomic_store(&board->go, true);
	for (int host = 0; host < 2; host++)
		ends(host, 4, ST_DEVICE, "host 127.0.0.2 (rank 2): rank 2 did not come to exchange ");
	nobody_left();
	begin((struct scene){.hosts = 2, .devices = {1, 3}, .deed = HANG, .culprit = 2, .apart = true, .stubborn = true, .impatient = true, .collective_timeout_ms = 2500});
	atomic_store(&board->go, true);
	for (int host = 0; host < 2; host++)
		ends(host, 4, ST_DEVICE, "host 127.0.0.2 (rank 2): the others have waited for it for ");
	nobody_left();
}

static void settings_differ(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 1}, .settings = {"lr=0.1\n", "lr=0.2\n"}});
	for (int host = 0; host < 2; host++) {
		int code = end(host);
		assert_true(code != 0);
		assert_non_null(strstr(board->hosts[host].sentence, "lr"));
	}
	nobody_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, NULL, teardown)
		T(all_is_well),
		T(deeds_of_a_rank),
		T(first_cause_wins),
		T(who_stays_is_killed),
		T(endless_waits_end),
		T(stop_is_agreed),
		T(second_signal_hurries),
		T(stop_at_any_time),
		T(stop_while_loading),
		T(load_fails),
		T(rank_cannot_start),
		T(parent_dies),
		T(own_stall_is_no_silence),
		T(two_are_well),
		T(deeds_on_either_host),
		T(stop_of_one_host_stops_both),
		T(second_signal_hurries_both),
		T(stop_while_one_loads),
		T(load_fails_on_one),
		T(loading_hangs),
		T(host_dies),
		T(host_is_stopped),
		T(two_stall_together),
		T(one_cause_for_all),
		T(two_stop_at_any_time),
		T(host_leaves_at_once),
		T(killed_at_random),
		T(endless_wait_names_its_host),
		T(settings_differ),
	};
	return cmocka_run_group_tests(tests, group_setup, NULL);
}
