/* log.c: see log.h. */
#include "core/base/log.h"

#include "core/base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum log_level level_min = LOG_INFO;
static const char *_Atomic erase;
static const char *_Atomic prefix;

void log_level_set(enum log_level level)
{
	level_min = level;
}

void log_erase_set(const char *bytes)
{
	erase = bytes;
}

void log_prefix_set(const char *text)
{
	prefix = text;
}

void log_line(enum log_level level, const char *format, ...)
{
	static const char *const words[] = {"debug: ", "", "warning: ", "error: "};
	if (level < level_min)
		return;
	enum { ERASE_BYTES_MAX = 16 };
	int fd = level >= LOG_WARNING ? STDERR_FILENO : STDOUT_FILENO;
	char raw[LOG_LINE_BYTES_MAX], line[ERASE_BYTES_MAX + LOG_LINE_BYTES_MAX];
	const char *before = erase, *name = prefix;
	size_t length = 0;
	if (before != NULL && isatty(fd))
		length = (size_t)snprintf(line, ERASE_BYTES_MAX, "%s", before);
	int used = snprintf(raw, sizeof raw, "%.*s%s", LOG_PREFIX_BYTES_MAX, name != NULL ? name : "", words[level]);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(raw + used, sizeof raw - (size_t)used, format, arguments);
	va_end(arguments);
	text_printable(raw, line + length, LOG_LINE_BYTES_MAX - 1);
	length += strlen(line + length);
	line[length++] = '\n';
	for (size_t done = 0; done < length;) {
		ssize_t n = write(fd, line + done, length - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nobody reads: not a reason to stop the work */
		done += (size_t)n;
	}
}
