/* log.h: one line an event on stdout, errors and warnings on stderr.
 *
 * A line is composed whole and leaves with one write(2), so lines of several threads or processes never mix and each is
 * visible at once on a pipe. Control characters (also of text that came from outside) are replaced; a line is valid UTF-8 and
 * at most LOG_LINE_BYTES_MAX long. A closed or full stdout is not an error: training goes on without its log. Any thread. */
#pragma once

#define LOG_LINE_BYTES_MAX 8192

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

/* Lines below this level are dropped; LOG_INFO at start. Set once, before threads start. */
void log_level_set(enum log_level level);

/* What is written before each line that goes to a terminal, to erase a line that renews itself there (train/report/progress.h); NULL,
 * as at start: nothing. `bytes` must stay valid until the next call. */
void log_erase_set(const char *bytes);

/* What every line of this process begins with ("[algo-2 rank 3] "), at most LOG_PREFIX_BYTES_MAX bytes; NULL, as at start: nothing.
 * `prefix` must stay valid until the next call. */
#define LOG_PREFIX_BYTES_MAX 300
void log_prefix_set(const char *prefix);

/* A line "warning: …" (LOG_INFO lines carry no word in front). */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
