/* refuse.h: how a request's fault travels: as an HTTP status code, with the sentence that the client reads in status_message().
 *
 *     if (columns != wanted)
 *         return REFUSE(400, "line %zu: %zu columns, expected %zu", line, columns, wanted);
 *
 * Functions that can find fault with a request return the code, HTTP_OK when there is none. Sentences name no path and no address of
 * this machine. */
#pragma once

#include "core/base/status.h"

enum http_code {
	HTTP_OK = 200,
	HTTP_NO_CONTENT = 204,
	HTTP_BAD_REQUEST = 400,
	HTTP_NOT_FOUND = 404,
	HTTP_METHOD_NOT_ALLOWED = 405,
	HTTP_NOT_ACCEPTABLE = 406,
	HTTP_TIMEOUT = 408,
	HTTP_CONFLICT = 409,
	HTTP_TOO_LARGE = 413,
	HTTP_UNSUPPORTED = 415,
	HTTP_HEADERS_TOO_LARGE = 431,
	HTTP_INTERNAL = 500,
	HTTP_UNAVAILABLE = 503,
	HTTP_NO_MEMORY = 507,
};

#define REFUSE(code, ...) (status_fail(ST_DATA, __VA_ARGS__), (code))

/* Passes a refusal up. */
#define ALLOW(call) \
	do { \
		enum http_code allow_code = (call); \
		if (allow_code != HTTP_OK) \
			return allow_code; \
	} while (0)
