/* rendezvous_bed.h: hosts on threads that meet over loopback addresses, and bare sockets that play strangers. What is awaited is awaited without a
 * limit of its own: a hang is the runner's to notice. */
#pragma once

#include "core/comm/control.h"
#include "core/comm/greeting.h"
#include "core/comm/rendezvous.h"
#include "core/comm/wire.h"

#include "test/unit/scratch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

enum { HOSTS_MAX = 3 };
static const int64_t patient_us = 600000000, short_us = 400000;
static char names[HOSTS_MAX][RENDEZVOUS_HOST_BYTES];
static atomic_bool stops[HOSTS_MAX];
static int port;

static inline bool stop_0(void)
{
	return stops[0];
}
static inline bool stop_1(void)
{
	return stops[1];
}
static inline bool stop_2(void)
{
	return stops[2];
}

static inline void nap(int ms)
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
static inline int free_port(void)
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
static inline void hosts_make(int count, const char *first)
{
	static bool (*const stopped[HOSTS_MAX])(void) = {stop_0, stop_1, stop_2};
	port = free_port();
	for (int i = 0; i < HOSTS_MAX; i++) {
		snprintf(names[i], sizeof names[i], "%s", i == 0 ? first : i == 1 ? "zeta-1" : "zeta-2");
		stops[i] = false;
		hosts[i] = (struct host){.config = {.hosts = (const char(*)[RENDEZVOUS_HOST_BYTES])names, .hosts_count = count, .host = i, .port = port, .interface = "", .version = "1.2.3 abc",
			.job = "job-7", .settings = "epochs=10\nlearning_rate=0.1\nseed=1\n", .devices = i + 1, .timeout_us = patient_us, .stopped = stopped[i]}};
	}
}

static inline void *host_run(void *context)
{
	struct host *host = context;
	host->status = rendezvous_open(&host->config, &host->rendezvous);
	snprintf(host->sentence, sizeof host->sentence, "%s", host->status == ST_OK ? "" : status_message());
	host->ended = true;
	return NULL;
}

static inline void host_start(int i)
{
	assert_int_equal(pthread_create(&hosts[i].thread, NULL, host_run, &hosts[i]), 0);
}

static inline void host_join(int i)
{
	pthread_join(hosts[i].thread, NULL);
}

static inline void host_check(int i, enum status status, const char *part)
{
	if (hosts[i].status != status || strstr(hosts[i].sentence, part) == NULL)
		fail_msg("host %d: %s \"%s\", expected %s \"%s\"", i, status_name(hosts[i].status), hosts[i].sentence, status_name(status), part);
}

/* One that waits is asked to stop. */
static inline void host_stop(int i, const char *part)
{
	stops[i] = true;
	host_join(i);
	host_check(i, ST_STOPPED, part);
}

/* The first `count`, from beginning to end. */
static inline void hosts_run(int count)
{
	for (int i = 0; i < count; i++)
		host_start(i);
	for (int i = 0; i < count; i++)
		host_join(i);
}

static inline void hosts_close(void)
{
	for (int i = 0; i < HOSTS_MAX; i++)
		rendezvous_close(&hosts[i].rendezvous);
	errno = 0;
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no process is left */
	assert_int_equal(errno, ECHILD);
}

/* All met, and what one says the other hears. */
static inline void hosts_check_met(int count)
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

static inline void hosts_meet(int count)
{
	hosts_run(count);
	hosts_check_met(count);
	hosts_close();
}

/* --- bare sockets ---------------------------------------------------------------------------------------------------- */

/* Connected to the first host, once it listens. */
static inline int stranger_open(void)
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

static inline void stranger_say(int fd, const void *bytes, size_t count)
{
	assert_int_equal(send(fd, bytes, count, MSG_NOSIGNAL), count);
}

/* A frame as it travels. */
static inline void stranger_frame(int fd, enum frame_type type, const void *bytes, size_t count)
{
	uint8_t header[FRAME_HEADER_BYTES] = {0};
	wire_put_u32(header, (uint32_t)count);
	header[4] = (uint8_t)type;
	stranger_say(fd, header, sizeof header);
	if (count > 0)
		stranger_say(fd, bytes, count);
}

static inline struct greeting greeting_of(int i)
{
	const struct rendezvous_config *config = &hosts[i].config;
	return (struct greeting){.protocol = GREETING_PROTOCOL, .job = config->job, .host = names[i], .version = config->version,
		.hosts_count = (uint32_t)config->hosts_count, .devices = (uint32_t)config->devices, .settings = config->settings};
}

static inline void stranger_greet(int fd, const struct greeting *greeting)
{
	struct text text = {0};
	OK(greeting_write(greeting, &text));
	stranger_frame(fd, FRAME_HELLO, text_string(&text), text.length);
	text_free(&text);
}

/* Waits for the end of the connection. Returns what came before, at most `bytes` - 1, ending in a zero. */
static inline size_t stranger_end(int fd, char *text, size_t bytes)
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

static inline void stranger_turned_away(int fd, const char *part)
{
	char text[1024];
	size_t count = stranger_end(fd, text, sizeof text);
	if (part == NULL)
		assert_int_equal(count, 0);
	else if (count <= FRAME_HEADER_BYTES || text[4] != FRAME_REFUSED || strstr(text + FRAME_HEADER_BYTES, part) == NULL)
		fail_msg("%zu bytes, type %d: \"%s\" does not say \"%s\"", count, text[4], count > FRAME_HEADER_BYTES ? text + FRAME_HEADER_BYTES : "", part);
}

/* When it returns, the first host has dealt with what others had said before: it reads all that is there in each of its turns. */
static inline void await_turn(void)
{
	for (int i = 0; i < 2; i++) {
		int fd = stranger_open();
		stranger_frame(fd, FRAME_BEAT, NULL, 0);
		stranger_turned_away(fd, NULL);
	}
}

/* When it returns, host i (which runs and tries) is there: somebody else is not taken in its place. */
static inline void await_there(int i)
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
