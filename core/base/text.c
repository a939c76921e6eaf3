/* text.c: see text.h. */
#include "core/base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status text_reserve(struct text *text, size_t extra)
{
	size_t length_max = text->length_max != 0 ? text->length_max : TEXT_LENGTH_MAX_DEFAULT;
	if (extra > length_max - text->length)
		return FAIL(ST_MEMORY, "text of %zu bytes, at most %zu fit", text->length + extra, length_max);
	size_t needed = text->length + extra + 1;
	if (needed <= text->capacity)
		return ST_OK;
	size_t capacity = text->capacity < 64 ? 64 : text->capacity;
	while (capacity < needed)
		capacity *= 2;
	char *data = realloc(text->data, capacity);
	if (data == NULL)
		return FAIL(ST_MEMORY, "no memory for %zu bytes of text", capacity);
	text->data = data;
	text->capacity = capacity;
	return ST_OK;
}

enum status text_add_bytes(struct text *text, const void *bytes, size_t count)
{
	TRY(text_reserve(text, count));
	if (count > 0)
		memcpy(text->data + text->length, bytes, count);
	text->length += count;
	text->data[text->length] = '\0';
	return ST_OK;
}

enum status text_add(struct text *text, const char *string)
{
	return text_add_bytes(text, string, strlen(string));
}

enum status text_printf(struct text *text, const char *format, ...)
{
	va_list arguments, again;
	va_start(arguments, format);
	va_copy(again, arguments);
	int length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	enum status status = length < 0 ? FAIL(ST_INTERNAL, "text format \"%s\" is invalid", format) : text_reserve(text, (size_t)length);
	if (status == ST_OK) {
		vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
		text->length += (size_t)length;
	}
	va_end(again);
	return status;
}

const char *text_string(const struct text *text)
{
	return text->data != NULL ? text->data : "";
}

void text_clear(struct text *text)
{
	text->length = 0;
	if (text->data != NULL)
		text->data[0] = '\0';
}

void text_free(struct text *text)
{
	free(text->data);
	text->data = NULL;
	text->length = text->capacity = 0;
}

/* Bytes of the valid UTF-8 character at `s` (`left` bytes remain), or 0. Table 3-7 of the Unicode standard. */
static size_t utf8_length(const unsigned char *s, size_t left)
{
	if (s[0] < 0x80)
		return 1;
	size_t length = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : s[0] >= 0xE0 && s[0] <= 0xEF ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 0;
	if (length == 0 || length > left)
		return 0;
	unsigned char low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
	unsigned char high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
		if ((s[i] & 0xC0) != 0x80)
			return 0;
	return length;
}

void text_printable(const char *from, char *to, size_t to_bytes)
{
	const unsigned char *s = (const unsigned char *)from;
	size_t left = strlen(from), used = 0;
	while (left > 0 && to_bytes > 0) {
		size_t length = utf8_length(s, left);
		/* C0 controls, DEL, and the C1 controls U+0080..U+009F. */
		bool control = length == 1 ? s[0] < 0x20 || s[0] == 0x7F : length == 2 && s[0] == 0xC2 && s[1] < 0xA0;
		bool replaced = length == 0 || control;
		if (used + (replaced ? 1 : length) >= to_bytes)
			break;
		if (replaced)
			to[used++] = s[0] == '\n' || s[0] == '\t' ? ' ' : '?';
		else
			memcpy(to + used, s, length), used += length;
		size_t step = length == 0 ? 1 : length;
		s += step;
		left -= step;
	}
	if (to_bytes > 0)
		to[used] = '\0';
}

bool text_is_utf8(const void *bytes, size_t count)
{
	const unsigned char *s = bytes;
	while (count > 0) {
		size_t length = utf8_length(s, count);
		if (length == 0)
			return false;
		s += length;
		count -= length;
	}
	return true;
}

enum { DISTANCE_LENGTH_MAX = 64 };

unsigned text_distance(const char *a, const char *b)
{
	size_t m = strlen(a), n = strlen(b);
	if (m > DISTANCE_LENGTH_MAX || n > DISTANCE_LENGTH_MAX)
		return DISTANCE_LENGTH_MAX;
	unsigned d[DISTANCE_LENGTH_MAX + 1][DISTANCE_LENGTH_MAX + 1];
	for (size_t i = 0; i <= m; i++)
		d[i][0] = (unsigned)i;
	for (size_t j = 0; j <= n; j++)
		d[0][j] = (unsigned)j;
	for (size_t i = 1; i <= m; i++)
		for (size_t j = 1; j <= n; j++) {
			unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			if (d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
				best = d[i - 2][j - 2] + 1;
			d[i][j] = best;
		}
	return d[m][n];
}

bool text_starts_with(const char *string, const char *prefix)
{
	return strncmp(string, prefix, strlen(prefix)) == 0;
}

bool text_ends_with(const char *string, const char *suffix)
{
	size_t m = strlen(string), n = strlen(suffix);
	return m >= n && strcmp(string + m - n, suffix) == 0;
}

enum status text_print(struct text *text, enum status made)
{
	if (made == ST_OK && (fputs(text_string(text), stdout) == EOF || fflush(stdout) != 0))
		made = FAIL(ST_DISK, "standard output cannot be written: %s", strerror(errno));
	text_free(text);
	return made;
}
