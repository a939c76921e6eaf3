/* decode_bed.h: one image (red 8x, green 8y, blue 4(x + y)) and one of floats, bodies made of them, and what decode must make of those. For
 * test_decode*.c. */
#pragma once

#include "core/base/file.h"
#include "core/base/text.h"
#include "serve/decode.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE = 32, AREA = SIDE * SIDE, VALUES = 3 * AREA };

static const struct decode_rules usual = {.image_size = SIDE, .normalization = {{0.5f, 0.4f, 0.3f}, {0.2f, 0.25f, 0.3f}}, .images_max = 100};

/* --- the image ------------------------------------------------------------------------------------------------------- */

static uint8_t planes[VALUES], mixed[VALUES];
static float pixels_normal[VALUES]; /* what the pixels become */
static float floats[VALUES];        /* another image, of floats */

static inline int image_make(void **state)
{
	(void)state;
	for (int c = 0; c < 3; c++)
		for (int y = 0; y < SIDE; y++)
			for (int x = 0; x < SIDE; x++) {
				int pixel = c == 0 ? 8 * x : c == 1 ? 8 * y : 4 * (x + y), i = c * AREA + y * SIDE + x;
				planes[i] = mixed[(y * SIDE + x) * 3 + c] = (uint8_t)pixel;
				pixels_normal[i] = ((float)pixel / 255.0f - usual.normalization.mean[c]) / usual.normalization.std[c];
				floats[i] = sinf((float)i) * 2;
			}
	return 0;
}

/* --- bodies ---------------------------------------------------------------------------------------------------------- */

/* Numbers of a shape as nested lists; of pixels, or with `values` of floats. `last`: (H, W, C). */
static inline void lists_add(struct text *text, bool last, bool flat, const float *values)
{
	for (int i = 0; i < VALUES; i++) {
		int c = last ? i % 3 : i / AREA, place = last ? i / 3 : i % AREA, at = c * AREA + place;
		int run = last ? 3 : SIDE, runs = SIDE * run; /* of the innermost lists and of those around them */
		const char *open = flat ? i == 0 ? "[" : "" : i == 0 ? "[[[" : i % runs == 0 ? "[[" : i % run == 0 ? "[" : "";
		const char *close = flat ? i == VALUES - 1 ? "]" : "," : i == VALUES - 1 ? "]]]" : (i + 1) % runs == 0 ? "]]," : (i + 1) % run == 0 ? "]," : ",";
		if (values != NULL)
			assert_int_equal(text_printf(text, "%s%.17g%s", open, (double)values[at], close), ST_OK);
		else
			assert_int_equal(text_printf(text, "%s%d%s", open, planes[at], close), ST_OK);
	}
}

static inline void base64_add(struct text *text, const uint8_t *bytes, size_t count)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < count; i += 3) {
		unsigned bits = 0;
		for (size_t k = 0; k < 3; k++)
			bits = bits << 8 | (i + k < count ? bytes[i + k] : 0u);
		char four[4];
		for (size_t k = 0; k < 4; k++)
			four[k] = i + k <= count ? digits[bits >> (18 - 6 * k) & 63] : '=';
		assert_int_equal(text_add_bytes(text, four, 4), ST_OK);
	}
}

static inline void npy_add(struct text *text, const char *descr, const char *order, const char *shape, const void *data, size_t bytes)
{
	char dict[118];
	snprintf(dict, sizeof dict, "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }", descr, order, shape);
	assert_int_equal(text_add_bytes(text, "\x93NUMPY\1\0\x76\0", 10), ST_OK);
	assert_int_equal(text_printf(text, "%-117s\n", dict), ST_OK);
	assert_int_equal(text_add_bytes(text, data, bytes), ST_OK);
}

static inline struct text file(const char *name)
{
	char path[256];
	uint8_t *bytes;
	size_t count;
	snprintf(path, sizeof path, "test/golden/bodies/%s", name);
	if (file_read(path, 1 << 20, &bytes, &count) != ST_OK)
		fail_msg("%s", status_message());
	struct text text = {0};
	assert_int_equal(text_add_bytes(&text, bytes, count), ST_OK);
	free(bytes);
	return text;
}

static inline struct text string(const char *content)
{
	struct text text = {0};
	assert_int_equal(text_add(&text, content), ST_OK);
	return text;
}

static inline void csv_add(struct text *text, const char *separator, const float *values)
{
	for (int i = 0; i < VALUES; i++)
		assert_int_equal(values != NULL ? text_printf(text, "%s%.17g", i > 0 ? separator : "", (double)values[i]) :
			text_printf(text, "%s%d", i > 0 ? separator : "", planes[i]), ST_OK);
}

/* `form` with # where an image's value stands. */
static inline struct text json(const char *form, const char *image)
{
	struct text text = {0};
	for (const char *s = form; *s != '\0'; s++)
		assert_int_equal(*s == '#' ? text_add(&text, image) : text_add_bytes(&text, s, 1), ST_OK);
	return text;
}

/* --- what comes out -------------------------------------------------------------------------------------------------- */

/* Decodes a copy with no spare byte behind it. */
static inline enum http_code decode_copy(const struct decode_rules *rules, const char *type, const void *body, size_t count, struct decoded *decoded)
{
	uint8_t *copy = malloc(count > 0 ? count : 1);
	assert_non_null(copy);
	if (count > 0)
		memcpy(copy, body, count);
	enum http_code code = decode(rules, type, copy, count, decoded);
	free(copy);
	return code;
}

/* `body` is `count` times the image `expected`; frees it. */
static inline void expect_rules(const struct decode_rules *rules, const char *what, const char *type, struct text *body, size_t count, const float *expected)
{
	struct decoded decoded = {0};
	enum http_code code = decode_copy(rules, type, body->data, body->length, &decoded);
	if (code != HTTP_OK)
		fail_msg("%s: %d \"%s\"", what, (int)code, status_message());
	if (decoded.count != count)
		fail_msg("%s: %zu images, expected %zu", what, decoded.count, count);
	for (size_t i = 0; i < count * VALUES; i++)
		if (decoded.images[i] != expected[i % VALUES])
			fail_msg("%s: image %zu value %zu is %.9g, expected %.9g", what, i / VALUES, i % VALUES, (double)decoded.images[i], (double)expected[i % VALUES]);
	assert_null(decoded.faults);
	decoded_free(&decoded);
	text_free(body);
}

static inline void expect(const char *what, const char *type, struct text *body, size_t count, const float *expected)
{
	expect_rules(&usual, what, type, body, count, expected);
}

static inline void expect_refusal(const struct decode_rules *rules, enum http_code expected, const char *type, const struct text *body, const char *sentence)
{
	struct decoded decoded = {.count = 77};
	enum http_code code = decode_copy(rules, type, body->data, body->length, &decoded);
	if (code != expected || strstr(status_message(), sentence) == NULL)
		fail_msg("\"%.60s\" as %s: %d \"%s\", expected %d \"%s\"", text_string(body), type, (int)code, status_message(), (int)expected, sentence);
	assert_int_equal(decoded.count, 77);
}
