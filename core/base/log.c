/* log.c: see log.h. */
#include "core/base/log.h"

#include "core/base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum log_level level_min = LOG_INFO;

void log_level_set(enum log_level level)
{
	level_min = level;
}

void log_line(enum log_level level, const char *format, ...)
{
	static const char *const words[] = {"debug: ", "", "warning: ", "error: "};
	if (level < level_min)
		return;
	char raw[LOG_LINE_BYTES_MAX], line[LOG_LINE_BYTES_MAX];
	int used = snprintf(raw, sizeof raw, "%s", words[level]);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(raw + used, sizeof raw - (size_t)used, format, arguments);
	va_end(arguments);
	text_printable(raw, line, sizeof line - 1);
	size_t length = strlen(line);
	line[length++] = '\n';
	int fd = level >= LOG_WARNING ? STDERR_FILENO : STDOUT_FILENO;
	for (size_t done = 0; done < length;) {
		ssize_t n = write(fd, line + done, length - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nobody reads: not a reason to stop the work */
		done += (size_t)n;
	}
}
