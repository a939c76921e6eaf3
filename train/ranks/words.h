/* words.h: the last words of a member (a rank, or the thread that loads): how its parent learns why it ended.
 *
 * One pipe a member. At its end it writes one letter, the status as a letter, and its sentence; a crash handler writes WORDS_CRASH_MARK and
 * its text. Whoever dies without a word has written nothing, and waitpid knows more. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>

#define WORDS_CRASH_MARK "C."
enum { WORDS_BYTES_MAX = 2 + STATUS_MESSAGE_BYTES_MAX }; /* fits into a pipe whole, so writing never waits */

/* What a parent has read so far; starts as {0}. */
struct words {
	size_t count;
	char bytes[WORDS_BYTES_MAX + 1];
};

/* sentence: "" where there is none. */
void words_write(int fd, enum status status, const char *sentence);

/* Reads what is there from a descriptor that does not block. False: the pipe has ended. */
bool words_read(struct words *words, int fd);

/* Something was said. */
bool words_said(const struct words *words);
bool words_crashed(const struct words *words);
/* ST_INTERNAL for a crash. */
enum status words_status(const struct words *words);
/* Printable, owned by `words`. */
const char *words_sentence(const struct words *words);
