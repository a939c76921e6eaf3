/* decimal.c: see decimal.h. */
#include "serve/decimal.h"

#include "core/base/status.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The powers of ten that a double holds exactly. */
static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
	1e21, 1e22};
enum { POWER_MAX = sizeof powers / sizeof *powers - 1, DIGITS_MAX = 19 /* of any uint64_t */ };

/* value · 10^exponent, off by at most 4 units in the last place while |exponent| ≤ 3 · POWER_MAX. */
static double scale(double value, int exponent)
{
	for (; exponent < -POWER_MAX; exponent += POWER_MAX)
		value /= powers[POWER_MAX];
	for (; exponent > POWER_MAX; exponent -= POWER_MAX)
		value *= powers[POWER_MAX];
	return exponent < 0 ? value / powers[-exponent] : value * powers[exponent];
}

/* True if every double within 8 units in the last place of `value` becomes the same normal float: that float is then what the exact number
 * becomes. A double has 29 bits more than a float; half of their range is where rounding turns. */
static bool rounds_surely(double value)
{
	uint64_t bits;
	memcpy(&bits, &value, sizeof bits);
	uint64_t low = bits & 0x1FFFFFFF;
	return (low < 0x10000000 - 8 || low > 0x10000000 + 8) && value >= (double)FLT_MIN * 1.0001 && value <= (double)FLT_MAX;
}

/* --- text → float ---------------------------------------------------------------------------------------------------- */

/* The parts of a number's text. */
struct parts {
	uint64_t digits; /* the significant ones, when they are at most DIGITS_MAX */
	size_t digits_count;
	int exponent;
	bool negative, whole;
	size_t length;
};

enum { EXPONENT_MAX = 99999 };

static bool is_digit(const char *text, size_t count, size_t at)
{
	return at < count && (unsigned char)(text[at] - '0') < 10;
}

/* Takes a run of digits; zeros in front of the number are no digits. */
static size_t digits_take(const char *text, size_t count, size_t at, struct parts *parts)
{
	for (; is_digit(text, count, at); at++) {
		parts->digits = parts->digits * 10 + (unsigned)(text[at] - '0'); /* wraps when there are too many: then unused */
		parts->digits_count += parts->digits_count > 0 || text[at] != '0';
	}
	return at;
}

static bool parts_take(const char *text, size_t count, enum decimal_grammar grammar, struct parts *parts)
{
	*parts = (struct parts){.whole = true};
	size_t at = 0;
	if (count > 0 && (text[0] == '-' || (text[0] == '+' && grammar == DECIMAL_CSV)))
		parts->negative = text[at++] == '-';
	size_t start = at;
	at = digits_take(text, count, at, parts);
	size_t before = at - start, after = 0;
	if (grammar == DECIMAL_JSON && (before == 0 || (before > 1 && text[start] == '0')))
		return false;
	if (at < count && text[at] == '.') {
		size_t point = ++at;
		at = digits_take(text, count, at, parts);
		after = at - point;
		parts->whole = false;
		if (grammar == DECIMAL_JSON && after == 0)
			return false;
	}
	if (before + after == 0)
		return false;
	int exponent = 0;
	if (at < count && (text[at] == 'e' || text[at] == 'E')) {
		bool negative = at + 1 < count && text[at + 1] == '-';
		size_t first = at + 1 + (at + 1 < count && (text[at + 1] == '-' || text[at + 1] == '+'));
		if (!is_digit(text, count, first))
			return false;
		for (at = first; is_digit(text, count, at); at++)
			exponent = exponent < EXPONENT_MAX ? exponent * 10 + (text[at] - '0') : exponent;
		exponent = negative ? -exponent : exponent;
		parts->whole = false;
	}
	parts->length = at;
	parts->exponent = after > EXPONENT_MAX ? -EXPONENT_MAX : exponent - (int)after;
	return true;
}

enum decimal_fault decimal_parse(const char *text, size_t count, enum decimal_grammar grammar, float *value, size_t *length, bool *whole)
{
	struct parts parts;
	if (!parts_take(text, count, grammar, &parts))
		return DECIMAL_NO_NUMBER;
	if (parts.length > DECIMAL_LENGTH_MAX)
		return DECIMAL_TOO_LONG;
	float result;
	double near = 0;
	bool sure = parts.digits_count == 0;
	if (!sure && parts.digits_count <= DIGITS_MAX && parts.exponent >= -2 * POWER_MAX && parts.exponent <= 2 * POWER_MAX) {
		near = scale((double)parts.digits, parts.exponent);
		sure = rounds_surely(near);
	}
	if (sure) {
		result = parts.negative ? -(float)near : (float)near;
	} else {
		char copy[DECIMAL_LENGTH_MAX + 1];
		memcpy(copy, text, parts.length);
		copy[parts.length] = '\0';
		result = (float)strtod(copy, NULL);
	}
	if (!isfinite(result))
		return DECIMAL_TOO_LARGE;
	*value = result;
	*length = parts.length;
	*whole = parts.whole;
	return DECIMAL_FINE;
}

/* --- float → text ---------------------------------------------------------------------------------------------------- */

/* Writes digits · 10^exponent, digits > 0. */
static size_t digits_write(uint64_t digits, int exponent, char *text)
{
	while (digits % 10 == 0) {
		digits /= 10;
		exponent++;
	}
	char run[DIGITS_MAX + 1];
	int count = 0, used = 0;
	for (int at = DIGITS_MAX; digits > 0; digits /= 10, count++)
		run[--at] = (char)('0' + digits % 10);
	const char *first = run + DIGITS_MAX - count;
	int point = count + exponent; /* digits before the point */
	if (point > 0 && point <= 9) {
		for (int i = 0; i < count || i < point; i++) {
			if (i == point)
				text[used++] = '.';
			text[used++] = i < count ? first[i] : '0';
		}
		return (size_t)used;
	}
	if (point <= 0 && point > -3) {
		text[used++] = '0';
		text[used++] = '.';
		for (int i = point; i < 0; i++)
			text[used++] = '0';
		memcpy(text + used, first, (size_t)count);
		return (size_t)(used + count);
	}
	for (int i = 0; i < count; i++) {
		if (i == 1)
			text[used++] = '.';
		text[used++] = first[i];
	}
	text[used++] = 'e';
	int power = point - 1;
	if (power < 0) {
		text[used++] = '-';
		power = -power;
	}
	if (power >= 10)
		text[used++] = (char)('0' + power / 10);
	text[used++] = (char)('0' + power % 10);
	return (size_t)used;
}

/* True if digits · 10^exponent reads back as `value`. */
static bool reads_back(uint64_t digits, int exponent, float value)
{
	double near = scale((double)digits, exponent);
	if (rounds_surely(near))
		return (float)near == value;
	char text[40];
	snprintf(text, sizeof text, "%llue%d", (unsigned long long)digits, exponent);
	return strtof(text, NULL) == value;
}

size_t decimal_print(float value, char text[DECIMAL_TEXT_BYTES])
{
	size_t used = 0;
	if (signbit(value))
		text[used++] = '-';
	value = fabsf(value);
	if (value == 0) {
		text[used++] = '0';
		return used;
	}
	/* value = 0.d₁d₂… · 10^point, d₁ > 0, or its estimate one too large. */
	int point = (int)ceil(((double)ilogbf(value) + 1) * 0.30102999566398120);
	/* Six digits are enough to tell any decimal of six digits or fewer, so shorter ones come out with zeros at the end. Subnormal floats
	 * have fewer digits to tell apart. */
	for (int count = value < FLT_MIN ? 1 : 6;; count++) {
		MUST(count <= 10); /* nine digits always do, and one for the estimate */
		int exponent = point - count;
		double scaled = scale((double)value, -exponent), nearest = nearbyint(scaled);
		/* The nearest decimal; at a power of two the float reaches farther up than down, so the one on the other side may do. */
		double other = nearest > scaled ? nearest - 1 : nearest + 1;
		if (nearest > 0 && reads_back((uint64_t)nearest, exponent, value))
			return used + digits_write((uint64_t)nearest, exponent, text + used);
		if (other > 0 && reads_back((uint64_t)other, exponent, value))
			return used + digits_write((uint64_t)other, exponent, text + used);
	}
}
