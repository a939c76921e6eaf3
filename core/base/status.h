/* status.h: how a failure travels.
 *
 * A function that can fail returns an enum status and hands its results out through pointers, which stay untouched when it
 * fails. The place that notices the failure writes one sentence with FAIL: object, value, rule, and a hint if there is one.
 * Callers pass the status up with TRY. Nobody prints on the way; main prints the sentence once and turns the status into an
 * exit code (train) or an HTTP answer (serve).
 *
 *     if (size % 3074 != 0)
 *         return FAIL(ST_DATA, "%s: %zu bytes, expected a multiple of 3074", path, size);
 *     TRY(file_read(path, limit, &bytes));
 *
 * The sentence is kept per thread. */
#pragma once

#include <stddef.h>

/* name, exit code of train, what the kind means. Contract: 0 done, 1 internal, 2 settings, 3 data, 4 device or peer, 5 disk. */
#define STATUS_LIST(X) \
	X(ST_OK, 0, "done") \
	X(ST_STOPPED, 0, "stopped on request") \
	X(ST_INTERNAL, 1, "internal error") \
	X(ST_MEMORY, 1, "out of memory") \
	X(ST_SETTINGS, 2, "bad setting or configuration") \
	X(ST_DATA, 3, "bad or missing data") \
	X(ST_DEVICE, 4, "device or peer failed") \
	X(ST_DISK, 5, "disk full or unwritable")

enum status {
#define X(name, exit_code, text) name,
	STATUS_LIST(X)
#undef X
};

/* How many there are; failures are those after ST_STOPPED. */
#define X(name, exit_code, text) +1
enum { STATUSES = STATUS_LIST(X) };
#undef X

/* One sentence holds at most this many bytes, ending zero included: what SageMaker shows of a failure is 1024 bytes. */
#define STATUS_MESSAGE_BYTES_MAX 1024

/* Stores the sentence for this thread and returns `status`. Use through FAIL. Control characters and bytes that are not UTF-8
 * are replaced, so the sentence may hold text from a file. */
enum status status_fail(enum status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "text: " in front of this thread's sentence and returns `status` (for a caller that knows which object it was). */
enum status status_prefix(enum status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* This thread's last sentence; "" when nothing failed yet. Valid until the next failure on this thread. */
const char *status_message(void);

/* "ST_DATA", "bad or missing data", 3. */
const char *status_name(enum status status);
const char *status_text(enum status status);
int status_exit_code(enum status status);

/* Prints the broken condition and aborts. Use through MUST. */
void must_fail(const char *condition, const char *file, int line) __attribute__((noreturn));
/* What must_fail printed, for a handler of SIGABRT; "" before. At most 511 bytes. */
const char *must_message(void);

/* The status is spelled out so that the compiler, too, knows that the caller got a failure. */
#define FAIL(status, ...) (status_fail((status), __VA_ARGS__), (status))

/* Forwards a failure to the caller. */
#define TRY(call) \
	do { \
		enum status try_status = (call); \
		if (try_status != ST_OK) \
			return try_status; \
	} while (0)

/* As TRY, for a function that releases what it holds at its one label `done` and returns its variable `status`. */
#define TRY_DONE(call) \
	do { \
		status = (call); \
		if (status != ST_OK) \
			goto done; \
	} while (0)

/* For what a correct program cannot reach; kept in release builds. Never for files, requests or settings. */
#define MUST(condition) \
	do { \
		if (!(condition)) \
			must_fail(#condition, __FILE__, __LINE__); \
	} while (0)
