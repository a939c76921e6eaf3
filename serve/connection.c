/* connection.c: see connection.h.
 *
 * libmicrohttpd calls on_target when it has a request line, on_request when the head is there, for each part of the body and at its end, and
 * on_completed when the answer has left or the connection died. Three of its rules shape this file:
 *  - An answer can be queued when the head is there (the connection then ends if a body was announced) and when the body is complete, but
 *    not in between; what must be said in between (a chunked body grows too large) is written to the socket by hand (watch_refuse).
 *  - A request that waits for others is suspended; that must happen before others can resume it, and all must be resumed before the end.
 *  - A closed socket throws away an answer that the client has not read if it still sends: such sockets linger (serve/watch.h). */
#define _GNU_SOURCE /* POLLRDHUP */
#include "serve/connection.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "serve/access.h"
#include "serve/attributes.h"
#include "serve/invoke.h"
#include "serve/route.h"
#include "serve/watch.h"

#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	HEAD_BYTES_MAX = 16 * 1024,
	LIBRARY_BYTES = 64 * 1024,   /* of a connection: the head, its table, and the part of a body that is being read */
	BODY_BYTES_FIRST = 64 * 1024,
	DRAIN_BYTES_MAX = 1 << 20,   /* of the body of a refused request that are read so that the connection can go on */
};

struct front {
	struct server *server;
	struct MHD_Daemon *daemon;
	struct watch *watch;
	int listen_fd; /* ours again after the quiesce; else -1 */
};

/* A connection, from accept to close. */
struct connection {
	struct watched watched;
	struct front *front;
};

enum part { PART_HEAD, PART_BODY, PART_KEPT, PART_ANSWER };

/* A request and what carries it. */
struct exchange {
	struct request request;
	struct MHD_Connection *mhd;
	struct connection *connection;
	enum part part;
	bool counted;             /* among the requests in flight */
	bool chunked, expects, host;
	uint64_t announced;       /* Content-Length, 0 when there is none */
	unsigned framing_faults;  /* lengths that contradict each other */
	unsigned lengths;
	enum http_code refused;   /* HTTP_OK, or the answer that waits for the end of the body, in request.reply */
	bool early;               /* answered before the body was read */
	bool by_hand;
	size_t body_bytes_max;
	int64_t answered_us;
};

static struct exchange *of_request(struct request *request)
{
	return request->carrier;
}

void request_resume(struct request *request)
{
	MHD_resume_connection(of_request(request)->mhd);
}

bool request_gone(struct request *request)
{
	struct pollfd polled = {.fd = of_request(request)->connection->watched.fd, .events = POLLRDHUP};
	return poll(&polled, 1, 0) == 1 && (polled.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/* --- answer ------------------------------------------------------------------------------------------------------------ */

static void add_field(struct MHD_Response *response, const char *name, const char *value)
{
	if (value != NULL && value[0] != '\0' && MHD_add_response_header(response, name, value) != MHD_YES)
		log_debug("field %s could not be added to an answer", name);
}

static size_t reply_bytes(const struct reply *reply)
{
	return reply->constant != NULL ? reply->constant_bytes : reply->text.length;
}

/* Queues what request.reply holds; it stays there until on_completed. */
static enum MHD_Result answer(struct exchange *exchange)
{
	struct request *request = &exchange->request;
	struct reply *reply = &request->reply;
	exchange->part = PART_ANSWER;
	exchange->answered_us = clock_us();
	watch_set(&exchange->connection->watched, request->server->options.body_timeout_s, WATCHED_ANSWERED);
	if (reply->status == REPLY_CLIENT_LEFT)
		return MHD_NO;
	const void *bytes = reply->constant != NULL ? reply->constant : reply->text.data;
	struct MHD_Response *response = MHD_create_response_from_buffer(reply_bytes(reply), (void *)(uintptr_t)bytes, MHD_RESPMEM_PERSISTENT);
	if (response == NULL)
		return MHD_NO;
	add_field(response, "Content-Type", reply->type);
	add_field(response, "Allow", reply->allow);
	if (reply->retry)
		add_field(response, "Retry-After", "1");
	if (request->route != NULL && request->route->invocation && request->fields.attributes != NULL && attributes_clean(request->fields.attributes))
		add_field(response, "X-Amzn-SageMaker-Custom-Attributes", request->fields.attributes);
	if (state_get(&request->server->state) == STATE_DRAINING)
		add_field(response, "Connection", "close");
	enum MHD_Result result = MHD_queue_response(exchange->mhd, (unsigned)reply->status, response);
	MHD_destroy_response(response);
	return result;
}

/* --- head -------------------------------------------------------------------------------------------------------------- */

static void *on_target(void *context, const char *target, struct MHD_Connection *mhd)
{
	struct front *front = context;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct exchange *exchange = calloc(1, sizeof *exchange);
	if (exchange == NULL || info == NULL || info->socket_context == NULL || (exchange->request.path = strdup(target)) == NULL) {
		free(exchange);
		return NULL; /* on_request ends the connection */
	}
	exchange->mhd = mhd;
	exchange->connection = info->socket_context;
	exchange->request.server = front->server;
	exchange->request.carrier = exchange;
	exchange->request.query = exchange->request.path + strcspn(exchange->request.path, "?#");
	if (*exchange->request.query != '\0')
		*exchange->request.query++ = '\0';
	watch_set(&exchange->connection->watched, front->server->options.head_timeout_s, WATCHED_ASKING);
	return exchange;
}

static enum MHD_Result on_field(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct exchange *exchange = context;
	struct fields *fields = &exchange->request.fields;
	(void)kind;
	const struct {
		const char *name, **value;
	} known[] = {
		{"Content-Type", &fields->content_type}, {"Accept", &fields->accept}, {"Content-Encoding", &fields->content_encoding},
		{"X-Amzn-SageMaker-Custom-Attributes", &fields->attributes}, {"X-Amzn-SageMaker-Inference-Id", &fields->inference_id},
		{"X-Amzn-SageMaker-Target-Model", &fields->target_model},
	};
	if (value == NULL)
		value = "";
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (strcasecmp(name, known[i].name) == 0 && *known[i].value == NULL)
			*known[i].value = value;
	if (strcasecmp(name, "Content-Length") == 0) {
		uint64_t length = strtoull(value, NULL, 10); /* the library has refused what is no number, in the first of them */
		exchange->framing_faults += value[strspn(value, "0123456789")] != '\0' || (exchange->lengths++ > 0 && length != exchange->announced);
		exchange->announced = length;
	} else if (strcasecmp(name, "Transfer-Encoding") == 0) {
		exchange->framing_faults += exchange->chunked || strcasecmp(value, "chunked") != 0;
		exchange->chunked = true;
	} else if (strcasecmp(name, "Host") == 0) {
		exchange->host = true;
	} else if (strcasecmp(name, "Expect") == 0) {
		exchange->expects = strcasecmp(value, "100-continue") == 0;
	}
	return MHD_YES;
}

static enum method method_of(const char *word)
{
	static const struct {
		const char *word;
		enum method method;
	} methods[] = {
		{"GET", METHOD_GET}, {"HEAD", METHOD_HEAD}, {"POST", METHOD_POST}, {"PUT", METHOD_PUT}, {"DELETE", METHOD_DELETE}, {"OPTIONS", METHOD_OPTIONS},
	};
	for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
		if (strcmp(word, methods[i].word) == 0)
			return methods[i].method;
	return METHOD_OTHER;
}

/* What can be refused before the body. *fatal: the connection cannot go on. */
static enum http_code head_check(struct exchange *exchange, const char *version, bool *fatal)
{
	struct request *request = &exchange->request;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(exchange->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	*fatal = true;
	if (info != NULL && info->header_size > HEAD_BYTES_MAX)
		return REFUSE(HTTP_HEADERS_TOO_LARGE, "the request's head has %zu bytes, at most %d are taken", info->header_size, HEAD_BYTES_MAX);
	if (exchange->framing_faults > 0 || (exchange->chunked && exchange->lengths > 0))
		return REFUSE(HTTP_BAD_REQUEST, "the length of the body is not clear: send one Content-Length, or Transfer-Encoding: chunked");
	if (!exchange->host && strcmp(version, "HTTP/1.0") != 0)
		return REFUSE(HTTP_BAD_REQUEST, "the request has no Host");
	*fatal = false;
	enum http_code code = route_find(request);
	bool payload = code == HTTP_OK && request->route->body == BODY_PAYLOAD;
	exchange->body_bytes_max = payload ? payload_bytes_max(&request->server->options) : BODY_SMALL_BYTES_MAX;
	ALLOW(code);
	if (exchange->announced > exchange->body_bytes_max) {
		*fatal = true;
		return REFUSE(HTTP_TOO_LARGE, "the body has %llu bytes, at most %zu are taken%s", (unsigned long long)exchange->announced,
			exchange->body_bytes_max, payload ? " (SAGEMAKER_MAX_PAYLOAD_IN_MB)" : "");
	}
	return request->route->check != NULL ? request->route->check(request) : HTTP_OK;
}

static enum MHD_Result on_head(struct exchange *exchange, const char *method, const char *version)
{
	struct request *request = &exchange->request;
	bool fatal;
	exchange->part = PART_BODY;
	exchange->counted = true;
	metrics_move(&request->server->metrics, GAUGE_REQUESTS, 1);
	request->head_us = request->received_us = clock_us();
	request->method = method_of(method);
	watch_set(&exchange->connection->watched, request->server->options.body_timeout_s, WATCHED_ASKING);
	MHD_get_connection_values(exchange->mhd, MHD_HEADER_KIND, on_field, exchange);
	exchange->refused = head_check(exchange, version, &fatal);
	if (exchange->refused == HTTP_OK)
		return MHD_YES;
	reply_refusal(request, exchange->refused);
	/* An answer now ends the connection. So that it can go on, a body that is short is read and dropped. */
	if (!fatal && !exchange->expects && exchange->announced <= DRAIN_BYTES_MAX)
		return MHD_YES;
	exchange->early = true;
	return answer(exchange);
}

/* --- body -------------------------------------------------------------------------------------------------------------- */

/* Memory that all bodies together hold; a lone body may always go on. */
static bool bodies_take(struct server *server, size_t bytes)
{
	int64_t held = atomic_fetch_add(&server->metrics.gauges[GAUGE_BODY_BYTES], (int64_t)bytes);
	if (held == 0 || held + (int64_t)bytes <= server->options.bodies_mb_max << 20)
		return true;
	metrics_move(&server->metrics, GAUGE_BODY_BYTES, -(int64_t)bytes);
	return false;
}

static void body_free(struct request *request)
{
	free(request->body.bytes);
	metrics_move(&request->server->metrics, GAUGE_BODY_BYTES, -(int64_t)request->body.capacity);
	request->body = (struct body){0};
}

/* Grows with what has come, not with what is announced, beyond the first step. */
static enum http_code body_grow(struct exchange *exchange, size_t wanted)
{
	struct request *request = &exchange->request;
	struct body *body = &request->body;
	size_t capacity = body->capacity == 0 ? BODY_BYTES_FIRST : body->capacity * 2;
	while (capacity < wanted)
		capacity *= 2;
	if (exchange->announced >= wanted && exchange->announced < capacity)
		capacity = exchange->announced;
	if (!bodies_take(request->server, capacity - body->capacity))
		return REFUSE(HTTP_UNAVAILABLE, "the bodies of other requests fill the memory that is set aside for them");
	uint8_t *bytes = realloc(body->bytes, capacity);
	if (bytes == NULL) {
		metrics_move(&request->server->metrics, GAUGE_BODY_BYTES, -(int64_t)(capacity - body->capacity));
		return REFUSE(HTTP_UNAVAILABLE, "no memory for a body of %zu bytes", wanted);
	}
	body->bytes = bytes;
	body->capacity = capacity;
	return HTTP_OK;
}

static enum http_code body_add(struct exchange *exchange, const char *part, size_t count)
{
	struct body *body = &exchange->request.body;
	if (count > exchange->body_bytes_max - body->count)
		return REFUSE(HTTP_TOO_LARGE, "the body is larger than the %zu bytes that are taken (SAGEMAKER_MAX_PAYLOAD_IN_MB)", exchange->body_bytes_max);
	if (count > body->capacity - body->count)
		ALLOW(body_grow(exchange, body->count + count));
	memcpy(body->bytes + body->count, part, count);
	body->count += count;
	return HTTP_OK;
}

/* A part of the body: kept, or dropped when the request is refused already. */
static enum MHD_Result on_part(struct exchange *exchange, const char *part, size_t count)
{
	struct request *request = &exchange->request;
	request->received_bytes += count;
	if (exchange->refused == HTTP_OK) {
		exchange->refused = body_add(exchange, part, count);
		if (exchange->refused == HTTP_OK)
			return MHD_YES;
		body_free(request);
		reply_refusal(request, exchange->refused);
	}
	size_t left = exchange->announced > request->received_bytes ? (size_t)exchange->announced - request->received_bytes : 0;
	if (exchange->refused != HTTP_TOO_LARGE && left <= DRAIN_BYTES_MAX && (left > 0 || request->received_bytes <= DRAIN_BYTES_MAX))
		return MHD_YES;
	/* More than we want to read: the answer leaves now, by hand. */
	exchange->by_hand = exchange->early = true;
	exchange->answered_us = clock_us();
	watch_refuse(exchange->connection->watched.fd, (int)exchange->refused, status_message());
	return MHD_NO;
}

/* The body is complete. */
static enum MHD_Result on_whole(struct exchange *exchange)
{
	struct request *request = &exchange->request;
	request->received_us = clock_us();
	watch_set(&exchange->connection->watched, 0, WATCHED_ANSWERED);
	if (exchange->refused != HTTP_OK || request->route->begin(request) == TURN_REPLY)
		return answer(exchange);
	exchange->part = PART_KEPT;
	MHD_suspend_connection(exchange->mhd);
	request->route->start(request); /* not ours any more until it is resumed */
	return MHD_YES;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *mhd, const char *url, const char *method, const char *version, const char *part,
	size_t *part_bytes, void **carrier)
{
	struct exchange *exchange = *carrier;
	(void)context, (void)mhd, (void)url;
	if (exchange == NULL)
		return MHD_NO;
	if (exchange->part == PART_HEAD)
		return on_head(exchange, method, version);
	if (exchange->part == PART_KEPT) {
		if (exchange->request.route->finish != NULL)
			exchange->request.route->finish(&exchange->request);
		return answer(exchange);
	}
	if (*part_bytes == 0)
		return on_whole(exchange);
	size_t count = *part_bytes;
	*part_bytes = 0;
	return on_part(exchange, part, count);
}

/* --- end --------------------------------------------------------------------------------------------------------------- */

static void account(struct exchange *exchange)
{
	struct request *request = &exchange->request;
	struct metrics *metrics = &request->server->metrics;
	size_t bytes_out = reply_bytes(&request->reply);
	metrics_count(metrics, COUNTER_BYTES_IN, request->received_bytes);
	metrics_count(metrics, COUNTER_BYTES_OUT, bytes_out);
	if (request->route == NULL || !request->route->invocation)
		return;
	if (request->reply.status == 0) /* it never came to an answer */
		request->reply.status = REPLY_CLIENT_LEFT;
	if (exchange->answered_us == 0)
		exchange->answered_us = clock_us();
	int64_t total_us = exchange->answered_us - request->head_us;
	bool good = request->reply.status == HTTP_OK;
	metrics_answered(metrics, request->reply.status, good ? request->invocation.records : 0, total_us);
	for (int s = 0; good && s < STAGE_TOTAL; s++)
		metrics_stage(metrics, (enum stage)s, request->invocation.stage_us[s]);
	if (request->server->options.access_log)
		access_log(request, bytes_out, total_us);
}

static void on_completed(void *context, struct MHD_Connection *mhd, void **carrier, enum MHD_RequestTerminationCode why)
{
	struct front *front = context;
	struct exchange *exchange = *carrier;
	(void)mhd, (void)why;
	if (exchange == NULL)
		return;
	struct request *request = &exchange->request;
	if (exchange->early)
		watch_linger(front->watch, exchange->connection->watched.fd);
	watch_set(&exchange->connection->watched, front->server->options.idle_timeout_s, WATCHED_IDLE);
	if (exchange->counted)
		account(exchange);
	invoke_free(request);
	body_free(request);
	text_free(&request->reply.text);
	if (exchange->counted)
		metrics_move(&front->server->metrics, GAUGE_REQUESTS, -1);
	free(request->path);
	free(exchange);
	*carrier = NULL;
}

static void on_connection(void *context, struct MHD_Connection *mhd, void **kept, enum MHD_ConnectionNotificationCode code)
{
	struct front *front = context;
	struct connection *connection = *kept;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
		connection = calloc(1, sizeof *connection);
		if (connection == NULL || info == NULL) {
			free(connection);
			return; /* on_target finds nothing and ends it */
		}
		connection->front = front;
		watch_set(&connection->watched, front->server->options.idle_timeout_s, WATCHED_IDLE);
		watch_add(front->watch, &connection->watched, info->connect_fd);
		metrics_count(&front->server->metrics, COUNTER_CONNECTIONS, 1);
		metrics_move(&front->server->metrics, GAUGE_CONNECTIONS, 1);
		*kept = connection;
	} else if (connection != NULL) {
		watch_remove(front->watch, &connection->watched);
		metrics_move(&front->server->metrics, GAUGE_CONNECTIONS, -1);
		free(connection);
		*kept = NULL;
	}
}

__attribute__((format(printf, 2, 0))) static void on_library_log(void *context, const char *format, va_list arguments)
{
	char line[512];
	(void)context;
	vsnprintf(line, sizeof line, format, arguments);
	line[strcspn(line, "\n")] = '\0';
	log_debug("http: %s", line);
}

enum status front_open(struct server *server, int listen_fd, unsigned io_threads, struct front **front)
{
	struct front *made = calloc(1, sizeof *made);
	enum status status = ST_OK;
	if (made == NULL) {
		close(listen_fd);
		return FAIL(ST_MEMORY, "no memory for the HTTP server");
	}
	made->server = server;
	made->listen_fd = -1;
	TRY_DONE(watch_open(&server->metrics, &made->watch));
	made->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_TURBO | MHD_USE_ERROR_LOG, 0,
		NULL, NULL, on_request, made,
		MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL,
		MHD_OPTION_LISTEN_SOCKET, listen_fd,
		MHD_OPTION_THREAD_POOL_SIZE, io_threads,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)server->options.connections_max,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)LIBRARY_BYTES,
		MHD_OPTION_CONNECTION_TIMEOUT, 0u, /* serve/watch.h does it better */
		MHD_OPTION_URI_LOG_CALLBACK, on_target, made,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, made,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, made,
		MHD_OPTION_END);
	if (made->daemon == NULL)
		status = FAIL(ST_MEMORY, "the HTTP server cannot be started with %u threads", io_threads);
done:
	if (status != ST_OK) {
		watch_close(made->watch);
		close(listen_fd);
		free(made);
		return status;
	}
	*front = made;
	return ST_OK;
}

void front_quiesce(struct front *front)
{
	if (front->listen_fd >= 0)
		return;
	front->listen_fd = MHD_quiesce_daemon(front->daemon);
	/* Who connects from now on is turned away, instead of waiting to be accepted. */
	if (front->listen_fd >= 0)
		shutdown(front->listen_fd, SHUT_RDWR);
}

size_t front_requests(const struct front *front)
{
	int64_t count = atomic_load(&front->server->metrics.gauges[GAUGE_REQUESTS]);
	return count > 0 ? (size_t)count : 0;
}

void front_close(struct front *front)
{
	if (front == NULL)
		return;
	MHD_stop_daemon(front->daemon);
	watch_close(front->watch);
	if (front->listen_fd >= 0)
		close(front->listen_fd);
	free(front);
}
