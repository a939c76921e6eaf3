/* request.c: answers and the small parsers of a request; see request.h. request_resume and request_gone are connection.c's. */
#include "serve/request.h"

#include "core/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_BYTES_MAX = 1024 }; /* so that an error's body stays below 2 KB when its characters are escaped */

static const struct {
	int status;
	const char *code, *reason;
} codes[] = {
	{HTTP_OK, "ok", "OK"},
	{HTTP_NO_CONTENT, "no_content", "No Content"},
	{HTTP_BAD_REQUEST, "bad_request", "Bad Request"},
	{HTTP_NOT_FOUND, "not_found", "Not Found"},
	{HTTP_METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed"},
	{HTTP_NOT_ACCEPTABLE, "not_acceptable", "Not Acceptable"},
	{HTTP_TIMEOUT, "request_timeout", "Request Timeout"},
	{HTTP_CONFLICT, "conflict", "Conflict"},
	{HTTP_TOO_LARGE, "too_large", "Content Too Large"},
	{HTTP_UNSUPPORTED, "unsupported_media_type", "Unsupported Media Type"},
	{HTTP_HEADERS_TOO_LARGE, "headers_too_large", "Request Header Fields Too Large"},
	{HTTP_INTERNAL, "internal_error", "Internal Server Error"},
	{HTTP_UNAVAILABLE, "unavailable", "Service Unavailable"},
	{HTTP_NO_MEMORY, "insufficient_memory", "Insufficient Storage"},
};

static size_t code_row(int status)
{
	size_t i = 0;
	while (i < sizeof codes / sizeof codes[0] && codes[i].status != status)
		i++;
	MUST(i < sizeof codes / sizeof codes[0]);
	return i;
}

const char *http_reason(int status)
{
	return codes[code_row(status)].reason;
}

enum status error_text(enum http_code code, const char *message, struct text *text)
{
	struct json_writer json = {.text = text};
	char printable[MESSAGE_BYTES_MAX];
	text_printable(message, printable, sizeof printable);
	json_write_object(&json, NULL);
	json_write_object(&json, "error");
	json_write_string(&json, "code", codes[code_row((int)code)].code);
	json_write_string(&json, "message", printable);
	return json_write_end_all(&json);
}

void reply_text(struct request *request, int status, const char *type)
{
	request->reply.status = status;
	request->reply.type = type;
}

void reply_empty(struct request *request, int status)
{
	text_clear(&request->reply.text);
	request->reply.status = status;
	request->reply.type = NULL;
}

void reply_error(struct request *request, enum http_code code, const char *message)
{
	text_clear(&request->reply.text);
	reply_text(request, (int)code, "application/json");
	if (error_text(code, message, &request->reply.text) != ST_OK)
		reply_empty(request, (int)code); /* no memory for the sentence: the status says it */
	request->reply.retry = code == HTTP_UNAVAILABLE;
}

void reply_refusal(struct request *request, enum http_code code)
{
	reply_error(request, code, status_message());
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool percent_decode(const char *from, size_t count, char *to, size_t to_bytes)
{
	size_t used = 0;
	for (size_t i = 0; i < count; i++) {
		int c = (unsigned char)from[i];
		if (c == '%') {
			if (i + 2 >= count || hex(from[i + 1]) < 0 || hex(from[i + 2]) < 0)
				return false;
			c = hex(from[i + 1]) * 16 + hex(from[i + 2]);
			i += 2;
		}
		if (c == 0 || used + 1 >= to_bytes)
			return false;
		to[used++] = (char)c;
	}
	to[used] = '\0';
	return true;
}

bool request_query(const struct request *request, const char *name, char *value, size_t bytes)
{
	size_t length = strlen(name);
	for (const char *at = request->query; *at != '\0';) {
		size_t whole = strcspn(at, "&");
		if (strncmp(at, name, length) == 0 && at[length] == '=')
			return percent_decode(at + length + 1, whole - length - 1, value, bytes);
		at += whole;
		at += *at == '&';
	}
	return false;
}
