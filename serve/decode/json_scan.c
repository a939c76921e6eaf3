/* json_scan.c: see json_scan.h. */
#include "serve/decode/json_scan.h"

#include "core/base/text.h"
#include "core/format/tensor.h"
#include "serve/decimal.h"

#include <stdio.h>
#include <string.h>

static inline void spaces_skip(struct json_scan *scan)
{
	while (scan->at < scan->count) {
		char c = scan->text[scan->at];
		if (c != ' ' && c != '\n' && c != '\t' && c != '\r')
			break;
		scan->at++;
	}
}

char json_scan_peek(struct json_scan *scan)
{
	spaces_skip(scan);
	return scan->at < scan->count ? scan->text[scan->at] : '\0';
}

enum http_code json_scan_refuse(struct json_scan *scan, const char *expected)
{
	/* What is there, up to where the next thing begins. */
	char found[40];
	size_t length = 0;
	char c = json_scan_peek(scan);
	for (; length < 24 && scan->at + length < scan->count; length++) {
		char next = scan->text[scan->at + length];
		if (length > 0 && strchr(" \t\r\n,:[]{}\"", next) != NULL)
			break;
		found[length] = next;
	}
	found[length] = '\0';
	if (scan->at == scan->count)
		return REFUSE(HTTP_BAD_REQUEST, "byte %zu: expected %s, but the text ends", scan->at + 1, expected);
	if (c == '"')
		return REFUSE(HTTP_BAD_REQUEST, "byte %zu: expected %s, found a text", scan->at + 1, expected);
	return REFUSE(HTTP_BAD_REQUEST, "byte %zu: expected %s, found %s", scan->at + 1, expected, found);
}

enum http_code json_scan_take(struct json_scan *scan, char c, const char *expected)
{
	if (json_scan_peek(scan) != c || scan->at == scan->count)
		return json_scan_refuse(scan, expected);
	scan->at++;
	return HTTP_OK;
}

/* --- strings --------------------------------------------------------------------------------------------------------- */

/* The four hexadecimal digits at `at`, or -1. */
static int hex_at(const char *text, size_t count, size_t at)
{
	int value = 0;
	if (count < 4 || at > count - 4)
		return -1;
	for (size_t i = at; i < at + 4; i++) {
		char c = text[i];
		int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (digit < 0)
			return -1;
		value = value << 4 | digit;
	}
	return value;
}

/* The escape at text[at] = '\\': its length, or 0 when it is none. A pair of surrogates is one escape. */
static size_t escape_length(const char *text, size_t count, size_t at)
{
	if (at + 1 >= count)
		return 0;
	if (text[at + 1] != 'u')
		return text[at + 1] != '\0' && strchr("\"\\/bfnrt", text[at + 1]) != NULL ? 2 : 0;
	int unit = hex_at(text, count, at + 2);
	if (unit < 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
		return 0;
	if (unit < 0xD800 || unit > 0xDFFF)
		return 6;
	if (at + 7 >= count || text[at + 6] != '\\' || text[at + 7] != 'u')
		return 0;
	unit = hex_at(text, count, at + 8);
	return unit >= 0xDC00 && unit <= 0xDFFF ? 12 : 0;
}

enum http_code json_scan_string(struct json_scan *scan, struct json_span *span)
{
	ALLOW(json_scan_take(scan, '"', "a text"));
	size_t start = scan->at, at = start;
	bool ascii = true, escaped = false;
	for (;; at++) {
		if (at >= scan->count)
			return REFUSE(HTTP_BAD_REQUEST, "byte %zu: a text without an end", start);
		unsigned char c = (unsigned char)scan->text[at];
		if (c == '"')
			break;
		if (c < 0x20)
			return REFUSE(HTTP_BAD_REQUEST, "byte %zu: a control character in a text", at + 1);
		ascii = ascii && c < 0x80;
		if (c == '\\') {
			size_t length = escape_length(scan->text, scan->count, at);
			if (length == 0)
				return REFUSE(HTTP_BAD_REQUEST, "byte %zu: an escape that is none, or half of a surrogate pair", at + 1);
			escaped = true;
			at += length - 1;
		}
	}
	if (!ascii && !text_is_utf8(scan->text + start, at - start))
		return REFUSE(HTTP_BAD_REQUEST, "byte %zu: a text that is not UTF-8", start);
	*span = (struct json_span){scan->text + start, at - start, escaped};
	scan->at = at + 1;
	return HTTP_OK;
}

size_t json_span_resolve_ascii(const struct json_span *span, char *resolved)
{
	static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	size_t used = 0;
	for (size_t at = 0; at < span->count; at++) {
		char c = span->text[at];
		if (c == '\\') {
			size_t length = escape_length(span->text, span->count, at);
			int unit = length > 2 ? hex_at(span->text, span->count, at + 2) : 0;
			c = length == 2 ? meant[strchr(letters, span->text[at + 1]) - letters] : unit < 0x80 ? (char)unit : (char)0x80;
			at += length - 1;
		}
		resolved[used++] = c;
	}
	return used;
}

/* --- values that are passed over ------------------------------------------------------------------------------------- */

static enum http_code number_take(struct json_scan *scan, float *value, bool *whole)
{
	size_t length;
	const char *text = scan->text + scan->at;
	enum decimal_fault fault = decimal_parse(text, scan->count - scan->at, DECIMAL_JSON, value, &length, whole);
	if (fault == DECIMAL_FINE) {
		scan->at += length;
		return HTTP_OK;
	}
	if (fault == DECIMAL_TOO_LARGE)
		return json_scan_refuse(scan, "a number within the range of a float");
	if (fault == DECIMAL_TOO_LONG)
		return REFUSE(HTTP_BAD_REQUEST, "byte %zu: a number of more than %d characters", scan->at + 1, DECIMAL_LENGTH_MAX);
	return json_scan_refuse(scan, "a number");
}

static enum http_code word_skip(struct json_scan *scan)
{
	static const char *const words[] = {"true", "false", "null"};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		size_t length = strlen(words[i]);
		if (scan->count - scan->at >= length && memcmp(scan->text + scan->at, words[i], length) == 0) {
			scan->at += length;
			return HTTP_OK;
		}
	}
	return json_scan_refuse(scan, "a value");
}

static enum http_code scalar_skip(struct json_scan *scan, char c)
{
	struct json_span span;
	float value;
	bool whole;
	if (c == '"')
		return json_scan_string(scan, &span);
	return c == '-' || (c >= '0' && c <= '9') ? number_take(scan, &value, &whole) : word_skip(scan);
}

enum http_code json_scan_skip(struct json_scan *scan)
{
	char close[JSON_SCAN_DEPTH_MAX]; /* what ends each open level */
	int depth = 0;
	struct json_span key;
	for (;;) {
		char c = json_scan_peek(scan);
		bool opened = c == '[' || c == '{';
		if (opened) {
			if (depth == JSON_SCAN_DEPTH_MAX)
				return REFUSE(HTTP_BAD_REQUEST, "byte %zu: nested deeper than %d levels", scan->at + 1, JSON_SCAN_DEPTH_MAX);
			close[depth++] = c == '[' ? ']' : '}';
			scan->at++;
		} else {
			ALLOW(scalar_skip(scan, c));
		}
		/* Up from what has ended, then to the next value's start. */
		while (depth > 0) {
			c = json_scan_peek(scan);
			if (c == close[depth - 1]) {
				scan->at++;
				depth--;
				opened = false;
				continue;
			}
			if (!opened)
				ALLOW(json_scan_take(scan, ',', close[depth - 1] == ']' ? "a comma or ]" : "a comma or }"));
			if (close[depth - 1] == '}') {
				ALLOW(json_scan_string(scan, &key));
				ALLOW(json_scan_take(scan, ':', "a colon"));
			}
			break;
		}
		if (depth == 0)
			return HTTP_OK;
	}
}

/* --- numbers --------------------------------------------------------------------------------------------------------- */

bool json_scan_is_numbers(struct json_scan *scan)
{
	struct json_scan ahead = *scan;
	if (json_scan_peek(&ahead) != '[')
		return false;
	while (json_scan_peek(&ahead) == '[')
		ahead.at++;
	char c = json_scan_peek(&ahead);
	return c != '"' && c != '{';
}

/* Where json_scan_numbers is: how many values the open lists have so far, and how many the closed ones of each depth had. */
struct nest {
	int depth, rank;
	int64_t counts[TENSOR_RANK_MAX], shape[TENSOR_RANK_MAX];
};

static enum http_code list_open(struct json_scan *scan, struct nest *nest)
{
	if (nest->rank > 0 && nest->depth == nest->rank)
		return json_scan_refuse(scan, "a number");
	if (nest->depth == TENSOR_RANK_MAX)
		return REFUSE(HTTP_BAD_REQUEST, "byte %zu: numbers nested deeper than %d levels", scan->at + 1, TENSOR_RANK_MAX);
	nest->counts[nest->depth++] = 0;
	scan->at++;
	return HTTP_OK;
}

static enum http_code list_close(struct json_scan *scan, struct nest *nest)
{
	int level = nest->depth - 1;
	if (nest->rank == 0)
		nest->rank = nest->depth; /* an empty list */
	if (nest->shape[level] < 0)
		nest->shape[level] = nest->counts[level];
	if (nest->shape[level] != nest->counts[level])
		return REFUSE(HTTP_BAD_REQUEST, "byte %zu: a list of %lld values ends, the lists beside it have %lld", scan->at + 1,
			(long long)nest->counts[level], (long long)nest->shape[level]);
	scan->at++;
	if (--nest->depth > 0)
		nest->counts[nest->depth - 1]++;
	return HTTP_OK;
}

/* Most bodies are pixels, and those need no more than this: up to three digits without sign, point and exponent. */
static inline bool pixel_take(struct json_scan *scan, float *value)
{
	if (scan->count - scan->at < 4)
		return false;
	const char *s = scan->text + scan->at;
	unsigned number = (unsigned char)s[0] - (unsigned)'0', digit;
	size_t length = 1;
	if (number > 9)
		return false;
	for (; number > 0 && length < 3 && (digit = (unsigned char)s[length] - (unsigned)'0') <= 9; length++)
		number = number * 10 + digit;
	if (s[length] != ',' && s[length] != ']')
		return false;
	*value = (float)number;
	scan->at += length;
	return true;
}

enum http_code json_scan_numbers(struct json_scan *scan, struct images *images, int *rank, int64_t *shape, bool *whole)
{
	struct nest nest = {0};
	bool all_whole = true, number_whole, value_next = true, opened = false;
	float value;
	for (int k = 0; k < TENSOR_RANK_MAX; k++)
		nest.shape[k] = -1;
	do {
		char c = json_scan_peek(scan);
		if (value_next && c == '[') {
			ALLOW(list_open(scan, &nest));
			opened = true;
		} else if (c == ']' && (opened || !value_next)) {
			ALLOW(list_close(scan, &nest));
			value_next = opened = false;
		} else if (value_next) {
			if (nest.rank != 0 && nest.depth != nest.rank)
				return json_scan_refuse(scan, "a list");
			nest.rank = nest.depth;
			if (!pixel_take(scan, &value)) {
				ALLOW(number_take(scan, &value, &number_whole));
				all_whole = all_whole && number_whole;
			}
			ALLOW(images_put(images, value));
			nest.counts[nest.depth - 1]++;
			value_next = opened = false;
		} else {
			ALLOW(json_scan_take(scan, ',', "a comma or ]"));
			value_next = true;
		}
	} while (nest.depth > 0);
	*rank = nest.rank;
	memcpy(shape, nest.shape, sizeof nest.shape);
	*whole = all_whole;
	return HTTP_OK;
}
