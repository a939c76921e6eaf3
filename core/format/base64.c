/* base64.c: see base64.h. */
#include "core/format/base64.h"

enum { BAD = -1, SPACE = -2, PAD = -3 };

static int value_of(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	switch (c) {
	case '+':
	case '-': return 62;
	case '/':
	case '_': return 63;
	case '=': return PAD;
	case ' ':
	case '\t':
	case '\r':
	case '\n': return SPACE;
	default: return BAD;
	}
}

enum status base64_decode(const char *name, const void *text, size_t count, uint8_t *bytes, size_t *bytes_count)
{
	const unsigned char *s = text;
	uint32_t bits = 0;
	unsigned digits = 0, padding = 0; /* digits: of the group of four that is being read */
	size_t used = 0;
	for (size_t i = 0; i < count; i++) {
		int value = value_of(s[i]);
		if (value == SPACE)
			continue;
		if (value == PAD) {
			padding++;
			continue;
		}
		if (value == BAD)
			return FAIL(ST_DATA, "%s: character %zu is not base64", name, i + 1);
		if (padding > 0)
			return FAIL(ST_DATA, "%s: base64 goes on after its padding (character %zu)", name, i + 1);
		bits = bits << 6 | (uint32_t)value;
		if (++digits == 4) {
			bytes[used++] = (uint8_t)(bits >> 16);
			bytes[used++] = (uint8_t)(bits >> 8);
			bytes[used++] = (uint8_t)bits;
			digits = 0;
			bits = 0;
		}
	}
	if (digits == 1 || (padding > 0 && (digits == 0 || digits + padding != 4)))
		return FAIL(ST_DATA, "%s: base64 that is cut off or wrongly padded", name);
	if ((digits == 2 && (bits & 15) != 0) || (digits == 3 && (bits & 3) != 0))
		return FAIL(ST_DATA, "%s: base64 that is damaged: bits are left over at its end", name);
	if (digits == 2)
		bytes[used++] = (uint8_t)(bits >> 4);
	if (digits == 3) {
		bytes[used++] = (uint8_t)(bits >> 10);
		bytes[used++] = (uint8_t)(bits >> 2);
	}
	*bytes_count = used;
	return ST_OK;
}

enum status base64_encode(const void *bytes, size_t count, struct text *text)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *from = bytes;
	for (size_t i = 0; i < count; i += 3) {
		size_t left = count - i;
		uint32_t group = (uint32_t)from[i] << 16 | (left > 1 ? (uint32_t)from[i + 1] << 8 : 0) | (left > 2 ? from[i + 2] : 0);
		char four[4] = {alphabet[group >> 18], alphabet[group >> 12 & 63], '=', '='};
		if (left > 1)
			four[2] = alphabet[group >> 6 & 63];
		if (left > 2)
			four[3] = alphabet[group & 63];
		TRY(text_add_bytes(text, four, sizeof four));
	}
	return ST_OK;
}
