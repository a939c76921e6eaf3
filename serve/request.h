/* request.h: one HTTP request from its head to its answer, as the routes see it. What carries it (sockets, libmicrohttpd) is connection.c's.
 *
 * A request belongs to its I/O thread, except between route.start and request_resume: then to whoever the route handed it to. */
#pragma once

#include "core/base/text.h"
#include "serve/batch.h"
#include "serve/decode.h"
#include "serve/encode.h"
#include "serve/refuse.h"
#include "serve/server.h"
#include "serve/workers.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bits, so that a route can take several. */
enum method { METHOD_GET = 1, METHOD_HEAD = 2, METHOD_POST = 4, METHOD_PUT = 8, METHOD_DELETE = 16, METHOD_OPTIONS = 32, METHOD_OTHER = 64 };

enum { NAME_BYTES = 1025, ALLOW_BYTES = 64 };

/* Header fields that mean something to a route; NULL: not there. Lent until the answer has left. */
struct fields {
	const char *content_type, *accept, *content_encoding, *attributes, *inference_id, *target_model;
};

struct body {
	uint8_t *bytes;
	size_t count, capacity;
};

/* A status of ours: nobody is there to be answered; the connection is closed. */
enum { REPLY_CLIENT_LEFT = 499 };

struct reply {
	int status;           /* 0: not answered yet */
	const char *type;     /* NULL: no Content-Type */
	struct text text;     /* the body */
	const void *constant; /* or one that lives as long as the process, of constant_bytes */
	size_t constant_bytes;
	char allow[ALLOW_BYTES];
	bool retry;           /* Retry-After: 1 */
};

/* What an invocation asks for beside its body, and where it stands (serve/invoke.c). */
struct invocation {
	struct decode_rules decode;
	struct encode_rules encode;
	const char *type; /* the answer's Content-Type */
	bool place;       /* taken in the batch queue */
	struct model *model;
	struct decoded decoded;
	size_t records;
	float *logits;
	struct batch_job job;
	int64_t mark_us;  /* start of the stage in progress */
	int64_t stage_us[STAGE_COUNT];
};

struct request {
	struct server *server;
	const struct route *route;
	void *carrier; /* connection.c's */
	enum method method;
	char *path;    /* as sent, without query; owned */
	char *query;   /* behind '?', or ""; inside path's memory */
	char name[NAME_BYTES]; /* what the route's * stands for */
	struct fields fields;
	struct body body;
	struct reply reply;
	size_t received_bytes; /* of the body, as sent */
	int64_t head_us, received_us; /* when the head was read; when the body was complete */
	struct task task;
	struct invocation invocation;
};

/* Hands a request that a route kept back to its I/O thread, where route.finish is called and the answer sent. Any thread; the caller must
 * not touch the request afterwards. */
void request_resume(struct request *request);

/* Whether the client has closed its connection. Any thread, while the request is kept by a route. */
bool request_gone(struct request *request);

/* The value of `name` in the query, decoded into `value`; false when it is not there or does not fit. */
bool request_query(const struct request *request, const char *name, char *value, size_t bytes);

/* Undoes %XX (and nothing else) in `count` bytes. False: malformed, a zero byte, or it does not fit. */
bool percent_decode(const char *from, size_t count, char *to, size_t to_bytes);

/* --- answers ----------------------------------------------------------------------------------------------------------- */

/* {"error": {"code": "not_found", "message": …}}. */
void reply_error(struct request *request, enum http_code code, const char *message);
/* The same with this thread's last sentence (serve/refuse.h). */
void reply_refusal(struct request *request, enum http_code code);
/* The body is already in reply.text. */
void reply_text(struct request *request, int status, const char *type);
void reply_empty(struct request *request, int status);
/* The body of an error alone. ST_MEMORY. */
enum status error_text(enum http_code code, const char *message, struct text *text);
/* The status line's words. */
const char *http_reason(int status);
