/* status.c: the table of statuses and the sentence that goes with a failure. See status.h. */
#include "core/base/status.h"

#include "core/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char message[STATUS_MESSAGE_BYTES_MAX];

static const struct {
	const char *name;
	int exit_code;
	const char *text;
} statuses[] = {
#define X(name, exit_code, text) {#name, exit_code, text},
	STATUS_LIST(X)
#undef X
};

enum status status_fail(enum status status, const char *format, ...)
{
	/* Formatted aside first: an argument may be this thread's previous sentence. */
	char text[STATUS_MESSAGE_BYTES_MAX];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (length < 0)
		snprintf(text, sizeof text, "%s", status_text(status));
	text_printable(text, message, sizeof message);
	return status;
}

enum status status_prefix(enum status status, const char *format, ...)
{
	char text[STATUS_MESSAGE_BYTES_MAX];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (length >= 0 && (size_t)length < sizeof text)
		snprintf(text + length, sizeof text - (size_t)length, ": %s", message);
	text_printable(text, message, sizeof message);
	return status;
}

const char *status_message(void)
{
	return message;
}

const char *status_name(enum status status)
{
	return statuses[status].name;
}

const char *status_text(enum status status)
{
	return statuses[status].text;
}

int status_exit_code(enum status status)
{
	return statuses[status].exit_code;
}

static char broken[512];

void must_fail(const char *condition, const char *file, int line)
{
	snprintf(broken, sizeof broken, "%s:%d: broken promise: %s", file, line, condition);
	fprintf(stderr, "%s\n", broken);
	fflush(stderr);
	abort();
}

const char *must_message(void)
{
	return broken;
}
