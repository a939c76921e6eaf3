/* Hosts on threads, loopback addresses as names: how they meet, who is turned away, what ends it and with which sentence on whom. Where a name has to
 * be resolved, the resolver is the test's. Strangers and hosts that misbehave are bare sockets. Nothing here depends on how long something takes. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "core/base/random.h"
#include "core/comm/control.h"
#include "core/comm/greeting.h"
#include "core/comm/rendezvous.h"
#include "core/comm/wire.h"

#include "test/unit/scratch.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

enum { HOSTS_MAX = 3 };
static const int64_t patient_us = 600000000, short_us = 400000;
static char names[HOSTS_MAX][254];
static atomic_bool stops[HOSTS_MAX];
static int port;

static bool stop_0(void)
{
	return stops[0];
}
static bool stop_1(void)
{
	return stops[1];
}
static bool stop_2(void)
{
	return stops[2];
}

static void nap(int ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

/* --- hosts ----------------------------------------------------------------------------------------------------------- */

struct host {
	struct rendezvous_config config;
	struct rendezvous rendezvous;
	pthread_t thread;
	enum status status;
	char sentence[STATUS_MESSAGE_BYTES_MAX];
	atomic_bool ended;
};

static struct host hosts[HOSTS_MAX];

/* A port that is free now. */
static int free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
	socklen_t bytes = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
	close(fd);
	return ntohs(address.sin_port);
}

/* Hosts that fit together; a test changes what it is about. */
static void hosts_make(int count, const char *first)
{
	static bool (*const stopped[HOSTS_MAX])(void) = {stop_0, stop_1, stop_2};
	port = free_port();
	for (int i = 0; i < HOSTS_MAX; i++) {
		snprintf(names[i], sizeof names[i], "%s", i == 0 ? first : i == 1 ? "zeta-1" : "zeta-2");
		stops[i] = false;
		hosts[i] = (struct host){.config = {.hosts = (const char(*)[254])names, .hosts_count = count, .host = i, .port = port, .interface = "", .version = "1.2.3 abc",
			.job = "job-7", .settings = "epochs=10\nlearning_rate=0.1\nseed=1\n", .devices = i + 1, .timeout_us = patient_us, .stopped = stopped[i]}};
	}
}

static void *host_run(void *context)
{
	struct host *host = context;
	host->status = rendezvous_open(&host->config, &host->rendezvous);
	snprintf(host->sentence, sizeof host->sentence, "%s", host->status == ST_OK ? "" : status_message());
	host->ended = true;
	return NULL;
}

static void host_start(int i)
{
	assert_int_equal(pthread_create(&hosts[i].thread, NULL, host_run, &hosts[i]), 0);
}

static void host_join(int i)
{
	pthread_join(hosts[i].thread, NULL);
}

static void host_check(int i, enum status status, const char *part)
{
	if (hosts[i].status != status || strstr(hosts[i].sentence, part) == NULL)
		fail_msg("host %d: %s \"%s\", expected %s \"%s\"", i, status_name(hosts[i].status), hosts[i].sentence, status_name(status), part);
}

static void hosts_close(void)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		rendezvous_close(&hosts[i].rendezvous);
	errno = 0;
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no process is left */
	assert_int_equal(errno, ECHILD);
}

/* All met, and what one says the other hears. */
static void hosts_check_met(int count)
{
	for (int i = 0; i < count; i++) {
		host_check(i, ST_OK, "");
		assert_int_equal(hosts[i].rendezvous.hosts_count, count);
		assert_int_equal(hosts[i].rendezvous.host, i);
		for (int k = 0; k < count; k++) {
			assert_int_equal(hosts[i].rendezvous.devices[k], k + 1);
			assert_int_equal(hosts[i].rendezvous.streams[k] != NULL, i == 0 ? k > 0 : k == 0);
		}
		assert_string_equal(hosts[i].rendezvous.address, strstr(names[0], ":") != NULL ? "::1" : "127.0.0.1");
	}
	for (int i = 1; i < count; i++) {
		struct frame_stream *up = hosts[i].rendezvous.streams[0], *down = hosts[0].rendezvous.streams[i];
		struct frame frame;
		OK(frame_stream_send(up, &(struct frame){.type = FRAME_BEAT, .member = (uint32_t)i}));
		struct pollfd fd = {.fd = frame_stream_fd(down), .events = POLLIN};
		assert_int_equal(poll(&fd, 1, -1), 1);
		OK(frame_stream_read(down));
		assert_true(frame_stream_next(down, &frame));
		assert_int_equal(frame.type, FRAME_BEAT);
		assert_int_equal(frame.member, i);
	}
}

static void hosts_meet(int count)
{
	for (int i = 0; i < count; i++)
		host_start(i);
	for (int i = 0; i < count; i++)
		host_join(i);
	hosts_check_met(count);
	hosts_close();
}

/* --- bare sockets ---------------------------------------------------------------------------------------------------- */

/* Connected to the first host, once it listens. */
static int stranger_open(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	for (;;) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		assert_true(fd >= 0);
		if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
			return fd;
		close(fd);
		nap(5);
	}
}

static void stranger_say(int fd, const void *bytes, size_t count)
{
	assert_int_equal(send(fd, bytes, count, MSG_NOSIGNAL), count);
}

/* A frame as it travels. */
static void stranger_frame(int fd, enum frame_type type, const void *bytes, size_t count)
{
	uint8_t header[FRAME_HEADER_BYTES] = {0};
	wire_put_u32(header, (uint32_t)count);
	header[4] = (uint8_t)type;
	stranger_say(fd, header, sizeof header);
	if (count > 0)
		stranger_say(fd, bytes, count);
}

static struct greeting greeting_of(int i)
{
	const struct rendezvous_config *config = &hosts[i].config;
	return (struct greeting){.protocol = GREETING_PROTOCOL, .job = config->job, .host = names[i], .version = config->version,
		.hosts_count = (uint32_t)config->hosts_count, .devices = (uint32_t)config->devices, .settings = config->settings};
}

static void stranger_greet(int fd, const struct greeting *greeting)
{
	struct text text = {0};
	OK(greeting_write(greeting, &text));
	stranger_frame(fd, FRAME_HELLO, text_string(&text), text.length);
	text_free(&text);
}

/* Waits for the end of the connection. Returns what came before, at most `bytes` - 1, ending in a zero. */
static size_t stranger_end(int fd, char *text, size_t bytes)
{
	size_t used = 0;
	for (;;) {
		char piece[256];
		ssize_t n = recv(fd, piece, sizeof piece, 0);
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n && used < bytes - 1; i++)
			text[used++] = piece[i];
	}
	text[used] = '\0';
	close(fd);
	return used;
}

static void stranger_turned_away(int fd, const char *part)
{
	char text[1024];
	size_t count = stranger_end(fd, text, sizeof text);
	if (part == NULL)
		assert_int_equal(count, 0);
	else if (count <= FRAME_HEADER_BYTES || text[4] != FRAME_REFUSED || strstr(text + FRAME_HEADER_BYTES, part) == NULL)
		fail_msg("%zu bytes, type %d: \"%s\" does not say \"%s\"", count, text[4], count > FRAME_HEADER_BYTES ? text + FRAME_HEADER_BYTES : "", part);
}

/* When it returns, the first host has dealt with what others had said before: it reads all that is there in each of its turns. */
static void await_turn(void)
{
	for (int i = 0; i < 2; i++) {
		int fd = stranger_open();
		stranger_frame(fd, FRAME_BEAT, NULL, 0);
		stranger_turned_away(fd, NULL);
	}
}

/* When it returns, host i (which runs and tries) is there: somebody else is not taken in its place. */
static void await_there(int i)
{
	for (bool there = false; !there; nap(20)) {
		struct greeting greeting = greeting_of(i);
		int fd = stranger_open();
		stranger_greet(fd, &greeting);
		await_turn();
		struct pollfd answer = {.fd = fd, .events = POLLIN};
		there = poll(&answer, 1, 0) > 0;
		if (there)
			stranger_turned_away(fd, "is there already");
		else
			close(fd);
	}
}

/* --- meeting --------------------------------------------------------------------------------------------------------- */

static void test_meet(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	hosts_meet(3);
	hosts_make(2, "127.0.0.1");
	hosts_meet(2);
	rendezvous_close(&(struct rendezvous){0});
}

static void test_meet_over_ipv6(void **state)
{
	(void)state;
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	bool there = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
	if (fd >= 0)
		close(fd);
	if (!there) {
		print_message("[  SKIPPED ] test_meet_over_ipv6: this machine has no IPv6\n");
		skip();
	}
	hosts_make(3, "::1");
	hosts_meet(3);
	hosts_make(3, "::1");
	for (int i = 0; i < 3; i++)
		hosts[i].config.interface = "lo";
	hosts_meet(3);
}

static void test_meet_on_an_interface(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	for (int i = 0; i < 3; i++)
		hosts[i].config.interface = "lo";
	hosts_meet(3);
	hosts_make(2, "127.0.0.1");
	hosts[0].config.interface = hosts[1].config.interface = "nosuch0";
	hosts[1].config.timeout_us = short_us;
	for (int i = 0; i < 2; i++)
		host_start(i);
	for (int i = 0; i < 2; i++)
		host_join(i);
	host_check(0, ST_SETTINGS, "network interface nosuch0 (resourceconfig.json) has no address");
	host_check(1, ST_DEVICE, "network interface nosuch0 has no IPv4 address");
	hosts_close();
}

static void test_first_host_comes_late(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	host_start(1);
	host_start(2);
	nap(600);
	host_start(0);
	for (int i = 0; i < 3; i++)
		host_join(i);
	hosts_check_met(3);
	hosts_close();
}

/* --- names ----------------------------------------------------------------------------------------------------------- */

static atomic_int *look_ups; /* shared with the processes in which the resolver runs */

static void look_up_late(const char *name, int to_port, struct resolved *resolved)
{
	if (strcmp(name, "alpha") != 0 || atomic_fetch_add(look_ups, 1) < 3)
		*resolved = (struct resolved){.error = EAI_AGAIN};
	else
		resolve_by_system("127.0.0.1", to_port, resolved);
}

/* The first address leads nowhere, the second does. */
static void look_up_two(const char *name, int to_port, struct resolved *resolved)
{
	struct resolved second;
	(void)name;
	resolve_by_system("127.0.0.77", 1, resolved);
	resolve_by_system("127.0.0.1", to_port, &second);
	resolved->addresses[resolved->count++] = second.addresses[0];
}

static void look_up_never(const char *name, int to_port, struct resolved *resolved)
{
	(void)name, (void)to_port;
	*resolved = (struct resolved){.error = EAI_NONAME};
}

static void look_up_hangs(const char *name, int to_port, struct resolved *resolved)
{
	(void)name, (void)to_port, (void)resolved;
	atomic_fetch_add(look_ups, 1);
	for (;;)
		pause();
}

static void look_up_dies(const char *name, int to_port, struct resolved *resolved)
{
	(void)name, (void)to_port, (void)resolved;
	_exit(3);
}

static void test_name_resolves_late(void **state)
{
	(void)state;
	*look_ups = 0;
	hosts_make(2, "127.0.0.1");
	strcpy(names[0], "alpha");
	hosts[1].config.look_up = look_up_late;
	for (int i = 0; i < 2; i++)
		host_start(i);
	for (int i = 0; i < 2; i++)
		host_join(i);
	hosts_check_met(2);
	assert_int_equal(*look_ups, 4);
	hosts_close();
}

static void test_name_resolved_by_the_system(void **state)
{
	(void)state;
	hosts_make(2, "localhost");
	for (int i = 0; i < 2; i++)
		host_start(i);
	for (int i = 0; i < 2; i++) {
		host_join(i);
		host_check(i, ST_OK, "");
		const char *address = hosts[i].rendezvous.address;
		assert_true(strcmp(address, "127.0.0.1") == 0 || strcmp(address, "::1") == 0);
	}
	hosts_close();
}

static void test_all_addresses_are_tried(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	strcpy(names[0], "alpha");
	hosts[1].config.look_up = look_up_two;
	for (int i = 0; i < 2; i++)
		host_start(i);
	for (int i = 0; i < 2; i++)
		host_join(i);
	hosts_check_met(2);
	hosts_close();
}

static void test_name_never_resolves(void **state)
{
	(void)state;
	static const struct {
		resolve_look_up *look_up;
		const char *part;
	} cases[] = {
		{look_up_never, "host alpha was not reached within 0 s (rendezvous_timeout_seconds, 3 attempts); the last time: its name cannot be resolved"},
		{look_up_hangs, "nothing answers what address host alpha has"},
		{look_up_dies, "its name cannot be resolved"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		hosts_make(2, "alpha");
		hosts[1].config.look_up = cases[i].look_up;
		hosts[1].config.timeout_us = short_us;
		host_start(1);
		host_join(1);
		host_check(1, ST_DEVICE, i == 0 ? "its name cannot be resolved" : cases[i].part);
		host_check(1, ST_DEVICE, "host alpha was not reached within 0 s (rendezvous_timeout_seconds");
		hosts_close();
	}
}

static void test_stop_while_the_resolver_hangs(void **state)
{
	(void)state;
	*look_ups = 0;
	hosts_make(2, "alpha");
	hosts[1].config.look_up = look_up_hangs;
	host_start(1);
	while (*look_ups == 0)
		nap(1);
	stops[1] = true;
	host_join(1);
	host_check(1, ST_STOPPED, "while looking for host alpha");
	hosts_close();
}

/* --- ends ------------------------------------------------------------------------------------------------------------ */

static void test_nobody_listens(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	hosts[1].config.timeout_us = short_us;
	host_start(1);
	host_join(1);
	host_check(1, ST_DEVICE, "host 127.0.0.1 was not reached");
	host_check(1, ST_DEVICE, "Connection refused");
	hosts_make(2, "127.0.0.1");
	host_start(1);
	nap(50);
	stops[1] = true;
	host_join(1);
	host_check(1, ST_STOPPED, "stopped on request");
	hosts_close();
}

static void test_one_does_not_come(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	hosts[0].config.timeout_us = 3000000;
	host_start(0);
	host_start(1);
	host_join(0);
	host_join(1);
	host_check(0, ST_DEVICE, "not all 3 hosts came within 3 s (rendezvous_timeout_seconds); missing: zeta-2");
	host_check(1, ST_DEVICE, "missing: zeta-2");
	hosts_close();
	/* The one that waits has less patience. */
	hosts_make(3, "127.0.0.1");
	hosts[1].config.timeout_us = 3000000;
	host_start(0);
	host_start(1);
	host_join(1);
	host_check(1, ST_DEVICE, "host 127.0.0.1 was reached, but not all 3 hosts were there within 3 s");
	stops[0] = true;
	host_join(0);
	host_check(0, ST_STOPPED, "stopped on request while waiting for all hosts");
	hosts_close();
}

/* Two of three are there; one of them is asked to stop: so does the other. */
static void test_stop_while_waiting(void **state)
{
	(void)state;
	for (int who = 0; who < 2; who++) {
		hosts_make(3, "127.0.0.1");
		host_start(0);
		host_start(1);
		await_there(1);
		stops[who] = true;
		host_join(0);
		host_join(1);
		host_check(0, ST_STOPPED, who == 0 ? "stopped on request while waiting for all hosts (missing: zeta-2)" : "stopped on request of host zeta-1");
		host_check(1, ST_STOPPED, who == 0 ? "missing: zeta-2" : "stopped on request while waiting for the other hosts");
		hosts_close();
	}
}

static void test_port_is_taken(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_ANY)};
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 1), 0);
	for (int i = 0; i < 2; i++) {
		hosts[0].config.interface = i == 0 ? "" : "lo";
		host_start(0);
		host_join(0);
		host_check(0, ST_SETTINGS, "(rendezvous_port)");
		host_check(0, ST_SETTINGS, "another program has it, choose another port");
	}
	close(fd);
	hosts_close();
}

/* --- hosts that do not fit ------------------------------------------------------------------------------------------- */

static void test_hosts_that_differ(void **state)
{
	(void)state;
	static const struct {
		const char *settings, *version;
		int hosts_count;
		const char *part;
	} cases[] = {
		{"epochs=10\nlearning_rate=0.2\nseed=1\n", NULL, 0, "learning_rate is 0.1 on host 127.0.0.1 and 0.2 on host zeta-1; all hosts of a training"},
		{"epochs=10\nseed=1\n", NULL, 0, "learning_rate is 0.1 on host 127.0.0.1 and not there on host zeta-1"},
		{"epochs=10\nlearning_rate=0.1\nseed=1\nfancy=2", NULL, 0, "fancy is not there on host 127.0.0.1 and 2 on host zeta-1"},
		{"epochs=\nlearning_rate=0.1\nseed=1\n", NULL, 0, "epochs is 10 on host 127.0.0.1 and empty on host zeta-1"},
		{NULL, "1.2.4 abd", 0, "the version of smelt is 1.2.3 abc on host 127.0.0.1 and 1.2.4 abd on host zeta-1"},
		{NULL, NULL, 2, "resourceconfig.json lists 3 hosts on host 127.0.0.1 and 2 on host zeta-1"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		hosts_make(3, "127.0.0.1");
		if (cases[i].settings != NULL)
			hosts[1].config.settings = cases[i].settings;
		if (cases[i].version != NULL)
			hosts[1].config.version = cases[i].version;
		if (cases[i].hosts_count != 0)
			hosts[1].config.hosts_count = cases[i].hosts_count;
		host_start(0);
		int third = stranger_open(); /* is there, waits, and is told as well */
		struct greeting greeting = greeting_of(2);
		stranger_greet(third, &greeting);
		host_start(1);
		host_join(0);
		host_join(1);
		host_check(0, ST_SETTINGS, cases[i].part);
		host_check(1, ST_SETTINGS, cases[i].part);
		char text[1024];
		size_t count = stranger_end(third, text, sizeof text);
		assert_true(count == 0 || text[4] == FRAME_REFUSED); /* 0: the one that differs was read first */
		hosts_close();
	}
}

static void test_another_protocol(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	host_start(0);
	int fd = stranger_open();
	struct greeting greeting = greeting_of(1);
	greeting.protocol = GREETING_PROTOCOL + 1;
	stranger_greet(fd, &greeting);
	host_join(0);
	host_check(0, ST_SETTINGS, "speaks protocol 1 of smelt and host zeta-1 protocol 2");
	stranger_turned_away(fd, "protocol 2");
	hosts_close();
}

/* Is turned away, tries again until its time is over, and harms nobody. */
static void test_another_job(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	hosts[2].config.job = "job-8";
	hosts[2].config.timeout_us = short_us;
	host_start(0);
	host_start(2);
	host_join(2);
	host_check(2, ST_DEVICE, "host 127.0.0.1 turns us away: it belongs to training job \"job-8\", host 127.0.0.1 to \"job-7\"");
	hosts[2].config.job = "job-7";
	hosts[2].config.timeout_us = patient_us;
	host_start(1);
	host_start(2);
	for (int i = 0; i < 3; i++)
		host_join(i);
	hosts_check_met(3);
	hosts_close();
}

/* --- strangers ------------------------------------------------------------------------------------------------------- */

static void test_strangers(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	host_start(0);
	int silent = stranger_open(), half = stranger_open(), fd = stranger_open();
	stranger_frame(half, FRAME_HELLO, "smelt", 5);
	stranger_turned_away(half, NULL);
	half = stranger_open();
	stranger_say(half, "\5\0\0\0\0\0\0\0\0\0\0\0", 12); /* the beginning of a hello */
	stranger_say(fd, "GET / HTTP/1.1\r\nHost: smelt\r\n\r\n", 31);
	stranger_turned_away(fd, NULL);
	fd = stranger_open();
	stranger_say(fd, "\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	stranger_turned_away(fd, NULL);
	fd = stranger_open();
	stranger_frame(fd, FRAME_WISH, NULL, 0);
	stranger_turned_away(fd, NULL);
	fd = stranger_open();
	uint8_t noise[4096];
	struct random_stream random = random_open(11, RANDOM_TEST, 0, 0);
	for (size_t i = 0; i < sizeof noise; i++)
		noise[i] = (uint8_t)random_u32(&random);
	stranger_say(fd, noise, sizeof noise);
	stranger_turned_away(fd, NULL);
	/* They speak as smelt does, and are told why not. */
	struct greeting greeting = greeting_of(1);
	fd = stranger_open();
	greeting.job = "job-99";
	stranger_greet(fd, &greeting);
	stranger_turned_away(fd, "belongs to training job");
	fd = stranger_open();
	greeting = greeting_of(1);
	greeting.host = "omega";
	stranger_greet(fd, &greeting);
	stranger_turned_away(fd, "host omega is none of those");
	fd = stranger_open();
	greeting.host = "127.0.0.1"; /* the first host itself */
	stranger_greet(fd, &greeting);
	stranger_turned_away(fd, "is none of those");
	close(stranger_open());
	/* Those that say nothing, or not enough, go after a while. */
	stranger_turned_away(silent, NULL);
	stranger_turned_away(half, NULL);
	assert_false(hosts[0].ended);
	host_start(1);
	host_join(0);
	host_join(1);
	hosts_check_met(2);
	hosts_close();
}

static void test_many_strangers(void **state)
{
	(void)state;
	enum { MANY = 300 };
	hosts_make(2, "127.0.0.1");
	host_start(0);
	int fds[MANY];
	for (int i = 0; i < MANY; i++)
		fds[i] = stranger_open();
	for (int i = 0; i < MANY - 64; i++)
		stranger_turned_away(fds[i], NULL); /* the oldest first */
	host_start(1);
	host_join(0);
	host_join(1);
	hosts_check_met(2);
	for (int i = MANY - 64; i < MANY; i++)
		close(fds[i]);
	hosts_close();
}

static void test_a_host_comes_again(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	host_start(0);
	struct greeting greeting = greeting_of(1);
	int fd = stranger_open(), twice = stranger_open();
	stranger_greet(fd, &greeting);
	await_turn();
	stranger_greet(twice, &greeting);
	char text[1024];
	stranger_turned_away(twice, "host zeta-1 is there already");
	host_start(1); /* is told the same until the first one has left */
	nap(300);
	close(fd);
	/* Says something out of turn: as if it had left. */
	fd = stranger_open();
	greeting = greeting_of(2);
	stranger_greet(fd, &greeting);
	stranger_frame(fd, FRAME_GATHER, NULL, 0);
	stranger_end(fd, text, sizeof text);
	host_start(2);
	for (int i = 0; i < 3; i++)
		host_join(i);
	hosts_check_met(3);
	hosts_close();
}

/* --- greetings ------------------------------------------------------------------------------------------------------- */

static void test_greeting_bytes(void **state)
{
	(void)state;
	struct greeting greeting = {.protocol = GREETING_PROTOCOL, .job = "", .host = "a", .version = "v", .hosts_count = 2, .devices = 4, .settings = "x=1\n"}, read;
	struct text text = {0};
	OK(greeting_write(&greeting, &text));
	OK(greeting_read((const uint8_t *)text.data, text.length, &read));
	assert_string_equal(read.job, "");
	assert_string_equal(read.host, "a");
	assert_string_equal(read.version, "v");
	assert_string_equal(read.settings, "x=1\n");
	assert_int_equal(read.hosts_count, 2);
	assert_int_equal(read.devices, 4);
	for (size_t count = 0; count < text.length; count++) {
		uint8_t *cut = malloc(count + 1); /* exact, so that a sanitizer sees what is read beyond */
		assert_non_null(cut);
		uint8_t *exact = realloc(cut, count > 0 ? count : 1);
		assert_non_null(exact);
		memcpy(exact, text.data, count);
		FAILS(ST_DATA, "introduce", greeting_read(exact, count, &read));
		free(exact);
	}
	OK(text_add_bytes(&text, "", 1));
	FAILS(ST_DATA, "form that smelt does not have", greeting_read((const uint8_t *)text.data, text.length, &read));
	text_clear(&text);
	greeting.devices = 0;
	OK(greeting_write(&greeting, &text));
	FAILS(ST_DATA, "form that smelt does not have", greeting_read((const uint8_t *)text.data, text.length, &read));
	text_clear(&text);
	greeting.devices = 1;
	greeting.host = "a\xff";
	OK(greeting_write(&greeting, &text));
	FAILS(ST_DATA, "form that smelt does not have", greeting_read((const uint8_t *)text.data, text.length, &read));
	text_clear(&text);
	char *large = malloc(GREETING_BYTES_MAX + 1);
	assert_non_null(large);
	memset(large, 'x', GREETING_BYTES_MAX);
	large[GREETING_BYTES_MAX] = '\0';
	greeting.settings = large;
	FAILS(ST_SETTINGS, "at most 131072", greeting_write(&greeting, &text));
	free(large);
	text_free(&text);
}

static void test_welcome_bytes(void **state)
{
	(void)state;
	int devices[3] = {1, 8, 4096}, read[3] = {0};
	struct text text = {0};
	OK(welcome_write(devices, 3, &text));
	OK(welcome_read((const uint8_t *)text.data, text.length, 3, read));
	assert_memory_equal(read, devices, sizeof devices);
	FAILS(ST_DATA, "another number of hosts than 2", welcome_read((const uint8_t *)text.data, text.length, 2, read));
	for (size_t count = 0; count < text.length; count++)
		FAILS(ST_DATA, "another number of hosts", welcome_read((const uint8_t *)text.data, count, 3, read));
	text.data[4] = 0;
	FAILS(ST_DATA, "host 0 has 0 devices", welcome_read((const uint8_t *)text.data, text.length, 3, read));
	text_free(&text);
}

static int count_entries(const char *path)
{
	int count = 0;
	DIR *directory = opendir(path);
	assert_non_null(directory);
	while (readdir(directory) != NULL)
		count++;
	closedir(directory);
	return count;
}

static int fds_before;

static void test_nothing_is_left(void **state)
{
	(void)state;
	assert_int_equal(count_entries("/proc/self/fd"), fds_before);
}

int main(void)
{
	look_ups = mmap(NULL, sizeof *look_ups, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (look_ups == MAP_FAILED)
		return 1;
	fds_before = count_entries("/proc/self/fd");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_meet),
		cmocka_unit_test(test_meet_over_ipv6),
		cmocka_unit_test(test_meet_on_an_interface),
		cmocka_unit_test(test_first_host_comes_late),
		cmocka_unit_test(test_name_resolves_late),
		cmocka_unit_test(test_name_resolved_by_the_system),
		cmocka_unit_test(test_all_addresses_are_tried),
		cmocka_unit_test(test_name_never_resolves),
		cmocka_unit_test(test_stop_while_the_resolver_hangs),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_one_does_not_come),
		cmocka_unit_test(test_stop_while_waiting),
		cmocka_unit_test(test_port_is_taken),
		cmocka_unit_test(test_hosts_that_differ),
		cmocka_unit_test(test_another_protocol),
		cmocka_unit_test(test_another_job),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_many_strangers),
		cmocka_unit_test(test_a_host_comes_again),
		cmocka_unit_test(test_greeting_bytes),
		cmocka_unit_test(test_welcome_bytes),
		cmocka_unit_test(test_nothing_is_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
