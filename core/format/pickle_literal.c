/* pickle_literal.c: see pickle_literal.h. */
#include "core/format/pickle_literal.h"

#include <stdlib.h>
#include <string.h>

enum literal literal_int(const uint8_t *line, size_t count, int64_t *value)
{
	if (count > 0 && line[count - 1] == 'L')
		count--;
	size_t at = count > 0 && (line[0] == '-' || line[0] == '+');
	if (at == count)
		return LITERAL_BAD;
	bool negative = line[0] == '-', fits = true;
	int64_t sum = 0;
	for (; at < count; at++) {
		if (line[at] < '0' || line[at] > '9')
			return LITERAL_BAD;
		int64_t digit = negative ? -(line[at] - '0') : line[at] - '0';
		fits = fits && !__builtin_mul_overflow(sum, (int64_t)10, &sum) && !__builtin_add_overflow(sum, digit, &sum);
	}
	if (!fits)
		return LITERAL_WIDE;
	*value = sum;
	return LITERAL_GOOD;
}

bool literal_float(const uint8_t *line, size_t count, double *value)
{
	char text[64];
	if (count == 0 || count >= sizeof text || memchr(line, '\0', count) != NULL)
		return false;
	memcpy(text, line, count);
	text[count] = '\0';
	char *end;
	double real = strtod(text, &end);
	if (end != text + count)
		return false;
	*value = real;
	return true;
}

/* The value of `count` digits of base 8 or 16, or -1. */
static int64_t digits(const uint8_t *text, size_t count, int base)
{
	int64_t sum = 0;
	for (size_t i = 0; i < count; i++) {
		int digit = text[i] >= '0' && text[i] <= '9' ? text[i] - '0' : (text[i] | 32) >= 'a' && (text[i] | 32) <= 'f' ? (text[i] | 32) - 'a' + 10 : 99;
		if (digit >= base)
			return -1;
		sum = sum * base + digit;
	}
	return sum;
}

/* One escape after a backslash at text[0]; how many bytes of text it took, 0 if it is bad. */
static size_t escape(const uint8_t *text, size_t count, uint8_t *out, size_t *length)
{
	static const char letters[] = "\\'\"abfnrtv", meanings[] = "\\'\"\a\b\f\n\r\t\v";
	if (count < 2)
		return 0;
	const char *letter = text[1] == '\0' ? NULL : strchr(letters, text[1]);
	if (letter != NULL) {
		out[(*length)++] = (uint8_t)meanings[letter - letters];
		return 2;
	}
	if (text[1] == 'x') {
		int64_t value = count >= 4 ? digits(text + 2, 2, 16) : -1;
		if (value < 0)
			return 0;
		out[(*length)++] = (uint8_t)value;
		return 4;
	}
	size_t octal = 0;
	while (octal < 3 && octal + 1 < count && digits(text + 1 + octal, 1, 8) >= 0)
		octal++;
	if (octal > 0) {
		out[(*length)++] = (uint8_t)digits(text + 1, octal, 8);
		return 1 + octal;
	}
	/* As in Python, an unknown escape stands for itself. */
	out[(*length)++] = '\\';
	out[(*length)++] = text[1];
	return 2;
}

bool literal_bytes(const uint8_t *line, size_t count, uint8_t *out, size_t *length)
{
	if (count < 2 || (line[0] != '\'' && line[0] != '"') || line[count - 1] != line[0])
		return false;
	size_t made = 0;
	for (size_t at = 1; at < count - 1;) {
		if (line[at] != '\\') {
			out[made++] = line[at++];
			continue;
		}
		size_t taken = escape(line + at, count - 1 - at, out, &made);
		if (taken == 0)
			return false;
		at += taken;
	}
	*length = made;
	return true;
}

static size_t utf8_put(uint32_t point, uint8_t *out)
{
	if (point < 0x80) {
		out[0] = (uint8_t)point;
		return 1;
	}
	size_t more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
	static const uint8_t first[] = {0, 0xC0, 0xE0, 0xF0};
	for (size_t i = more; i > 0; i--, point >>= 6)
		out[i] = (uint8_t)(0x80 | (point & 0x3F));
	out[0] = (uint8_t)(first[more] | point);
	return more + 1;
}

bool literal_unicode(const uint8_t *line, size_t count, uint8_t *out, size_t *length)
{
	size_t made = 0;
	for (size_t at = 0; at < count;) {
		size_t wanted = line[at] == '\\' && at + 1 < count ? (line[at + 1] == 'u' ? 4 : line[at + 1] == 'U' ? 8 : 0) : 0;
		if (wanted == 0) {
			made += utf8_put(line[at++], out + made);
			continue;
		}
		int64_t point = count - at - 2 >= wanted ? digits(line + at + 2, wanted, 16) : -1;
		if (point < 0 || point > 0x10FFFF)
			return false;
		made += utf8_put((uint32_t)point, out + made);
		at += 2 + wanted;
	}
	*length = made;
	return true;
}
