/* watch.c: see watch.h. One lock guards the list of connections and that of lingering sockets; a socket is shut under it, so its number cannot
 * have become another connection's. */
#define _GNU_SOURCE /* pipe2 */
#include "serve/watch.h"

#include "core/base/clock.h"
#include "core/base/text.h"
#include "serve/request.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOK_MS = 250, LINGER_MAX = 64, LINGER_US_MAX = 10 * 1000000, LINGER_READ_BYTES = 64 * 1024, LINGER_READS = 16 };

struct lingering {
	int fd;
	int64_t until_us;
};

struct watch {
	struct metrics *metrics;
	pthread_t thread;
	pthread_mutex_t lock;
	struct watched *first;
	struct lingering lingering[LINGER_MAX];
	size_t lingering_count;
	bool stop;
	int wake[2];
};

/* The client has closed its side and all that it sent is read. */
static bool client_ended(int fd)
{
	char byte;
	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void end_overdue(struct watch *watch, int64_t now)
{
	pthread_mutex_lock(&watch->lock);
	for (struct watched *w = watch->first; w != NULL; w = w->after) {
		/* The library, whose epoll tells of a change once, misses an end that arrived together with the last bytes. */
		if (atomic_load(&w->stage) != WATCHED_ANSWERED && client_ended(w->fd)) {
			shutdown(w->fd, SHUT_RDWR);
			continue;
		}
		int64_t deadline = atomic_load(&w->deadline_us);
		/* The I/O thread may have moved the deadline on in this moment: then the exchange fails. */
		if (deadline == 0 || now < deadline || !atomic_compare_exchange_strong(&w->deadline_us, &deadline, 0))
			continue;
		if (atomic_load(&w->stage) == WATCHED_ASKING) {
			watch_refuse(w->fd, HTTP_TIMEOUT, "the request did not arrive in time");
			metrics_count(watch->metrics, COUNTER_SLOW, 1);
		}
		shutdown(w->fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&watch->lock);
}

/* Reads what is there. False: the end. */
static bool read_dry(int fd)
{
	char waste[LINGER_READ_BYTES];
	for (int i = 0; i < LINGER_READS; i++) {
		ssize_t n = recv(fd, waste, sizeof waste, MSG_DONTWAIT);
		if (n == 0)
			return false;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
	}
	return true;
}

/* Waits for a sign on the lingering sockets, a wake-up, or the next time to look. */
static void wait_and_read(struct watch *watch)
{
	struct pollfd polled[LINGER_MAX + 1] = {{.fd = watch->wake[0], .events = POLLIN}};
	pthread_mutex_lock(&watch->lock);
	size_t count = watch->lingering_count;
	for (size_t i = 0; i < count; i++)
		polled[1 + i] = (struct pollfd){.fd = watch->lingering[i].fd, .events = POLLIN};
	pthread_mutex_unlock(&watch->lock);
	poll(polled, 1 + count, LOOK_MS);
	char byte;
	while (read(watch->wake[0], &byte, 1) == 1) {
	}
	/* Only this thread takes sockets off the list; others append. */
	int64_t now = clock_us();
	pthread_mutex_lock(&watch->lock);
	for (size_t i = count; i-- > 0;) {
		struct lingering *l = &watch->lingering[i];
		if (now < l->until_us && (polled[1 + i].revents == 0 || read_dry(l->fd)))
			continue;
		close(l->fd);
		*l = watch->lingering[--watch->lingering_count];
	}
	pthread_mutex_unlock(&watch->lock);
}

static bool stopped(struct watch *watch)
{
	pthread_mutex_lock(&watch->lock);
	bool stop = watch->stop;
	pthread_mutex_unlock(&watch->lock);
	return stop;
}

static void *look(void *context)
{
	struct watch *watch = context;
	while (!stopped(watch)) {
		wait_and_read(watch);
		end_overdue(watch, clock_us());
		metrics_tick(watch->metrics);
	}
	return NULL;
}

enum status watch_open(struct metrics *metrics, struct watch **watch)
{
	struct watch *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory to watch connections");
	made->metrics = metrics;
	pthread_mutex_init(&made->lock, NULL);
	if (pipe2(made->wake, O_NONBLOCK | O_CLOEXEC) != 0) {
		free(made);
		return FAIL(ST_MEMORY, "no pipe can be made: %s", strerror(errno));
	}
	int error = pthread_create(&made->thread, NULL, look, made);
	if (error != 0) {
		close(made->wake[0]);
		close(made->wake[1]);
		free(made);
		return FAIL(ST_MEMORY, "the watch thread cannot be started: %s", strerror(error));
	}
	*watch = made;
	return ST_OK;
}

static void wake_up(struct watch *watch)
{
	if (write(watch->wake[1], "", 1) < 0) {
		/* The pipe is full: it is awake. */
	}
}

void watch_close(struct watch *watch)
{
	if (watch == NULL)
		return;
	pthread_mutex_lock(&watch->lock);
	watch->stop = true;
	pthread_mutex_unlock(&watch->lock);
	wake_up(watch);
	pthread_join(watch->thread, NULL);
	MUST(watch->first == NULL);
	for (size_t i = 0; i < watch->lingering_count; i++)
		close(watch->lingering[i].fd);
	close(watch->wake[0]);
	close(watch->wake[1]);
	pthread_mutex_destroy(&watch->lock);
	free(watch);
}

void watch_add(struct watch *watch, struct watched *watched, int fd)
{
	watched->fd = fd;
	watched->before = NULL;
	pthread_mutex_lock(&watch->lock);
	watched->after = watch->first;
	if (watch->first != NULL)
		watch->first->before = watched;
	watch->first = watched;
	pthread_mutex_unlock(&watch->lock);
}

void watch_remove(struct watch *watch, struct watched *watched)
{
	pthread_mutex_lock(&watch->lock);
	if (watched->before != NULL)
		watched->before->after = watched->after;
	else
		watch->first = watched->after;
	if (watched->after != NULL)
		watched->after->before = watched->before;
	pthread_mutex_unlock(&watch->lock);
}

void watch_set(struct watched *watched, int64_t seconds, enum watched_stage stage)
{
	atomic_store(&watched->deadline_us, 0); /* never overdue in the old stage */
	atomic_store(&watched->stage, stage);
	atomic_store(&watched->deadline_us, seconds == 0 ? 0 : clock_us() + seconds * 1000000);
}

void watch_linger(struct watch *watch, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return;
	shutdown(copy, SHUT_WR); /* the answer has left; the client sees its end */
	pthread_mutex_lock(&watch->lock);
	bool kept = watch->lingering_count < LINGER_MAX;
	if (kept)
		watch->lingering[watch->lingering_count++] = (struct lingering){.fd = copy, .until_us = clock_us() + LINGER_US_MAX};
	pthread_mutex_unlock(&watch->lock);
	if (kept)
		wake_up(watch);
	else
		close(copy);
}

void watch_refuse(int fd, int http_status, const char *message)
{
	struct text body = {0}, answer = {0};
	enum status status = error_text((enum http_code)http_status, message, &body);
	if (status == ST_OK)
		status = text_printf(&answer, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", http_status,
			http_reason(http_status), body.length, text_string(&body));
	/* A few hundred bytes fit into the socket's buffer; who does not read gets nothing. */
	if (status == ST_OK && send(fd, answer.data, answer.length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		/* The client is gone, which is what comes next anyway. */
	}
	text_free(&answer);
	text_free(&body);
}
