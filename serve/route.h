/* route.h: the one table of what can be asked: path, methods, who answers.
 *
 * A route's functions, in the order in which they are called:
 *     check   on the I/O thread, when the head is read: may refuse before a body is taken (HTTP_OK: go on). NULL: nothing to check
 *     begin   on the I/O thread, when the body is complete: answers (reply is filled), or says TURN_LATER
 *     start   after TURN_LATER, on the I/O thread: hands the request to others, who call request_resume
 *     finish  on the I/O thread, after request_resume: fills the reply if that is not done. NULL: it is done
 * To add a route, add a row to route.c. */
#pragma once

#include "serve/request.h"

enum turn { TURN_REPLY, TURN_LATER };

/* When a row is there. */
enum route_mode { MODE_ALWAYS, MODE_SINGLE, MODE_MULTI, MODE_BATCH, MODE_PAGE };

/* How much body it takes. */
enum route_body { BODY_SMALL, BODY_PAYLOAD };
enum { BODY_SMALL_BYTES_MAX = 64 * 1024 };

struct route {
	const char *pattern; /* segments between '/'; a segment * stands for any name */
	unsigned methods;
	enum route_mode mode;
	enum route_body body;
	bool invocation;     /* counted, and logged with an access line */
	enum http_code (*check)(struct request *request);
	enum turn (*begin)(struct request *request);
	void (*start)(struct request *request);
	void (*finish)(struct request *request);
};

/* Finds the row for request->path and ->method, sets request->route and ->name. Else HTTP_NOT_FOUND, or HTTP_METHOD_NOT_ALLOWED with
 * reply.allow set. */
enum http_code route_find(struct request *request);
