/* words.c: see words.h. */
#include "train/ranks/words.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MARK_ENDED 'E'
#define STATUS_FIRST 'a' /* stands for ST_OK */
enum { MARKS = 2 };

_Static_assert(sizeof WORDS_CRASH_MARK == MARKS + 1, "all begin with as many marks");

void words_write(int fd, enum status status, const char *sentence)
{
	char bytes[WORDS_BYTES_MAX + 1];
	int count = snprintf(bytes, sizeof bytes, "%c%c%s", MARK_ENDED, STATUS_FIRST + (int)status, sentence);
	size_t length = count < WORDS_BYTES_MAX ? (size_t)count : WORDS_BYTES_MAX;
	while (write(fd, bytes, length) < 0 && errno == EINTR)
		continue; /* a parent that is gone reads nothing */
}

bool words_read(struct words *words, int fd)
{
	for (;;) {
		char more[256];
		ssize_t n = read(fd, more, sizeof more);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		size_t room = WORDS_BYTES_MAX - words->count, taken = (size_t)n < room ? (size_t)n : room;
		memcpy(words->bytes + words->count, more, taken);
		words->count += taken;
	}
}

bool words_said(const struct words *words)
{
	return words->count >= MARKS;
}

bool words_crashed(const struct words *words)
{
	return words_said(words) && memcmp(words->bytes, WORDS_CRASH_MARK, MARKS) == 0;
}

enum status words_status(const struct words *words)
{
	int status = words->bytes[1] - STATUS_FIRST;
	return !words_said(words) || words_crashed(words) || status < 0 || status >= STATUSES ? ST_INTERNAL : (enum status)status;
}

const char *words_sentence(const struct words *words)
{
	return words_said(words) ? words->bytes + MARKS : "";
}
