/* decimal.h: decimal text ↔ float, exactly and fast. Pure functions, any thread.
 *
 * Both directions work in double with a known error of a few units in its last place. A float's rounding boundary is seldom that near;
 * where it is, the C library decides. So results are always those of strtod and strtof. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* How numbers may be written. */
enum decimal_grammar {
	DECIMAL_JSON, /* RFC 8259: no plus sign, no leading zeros, digits on both sides of a point */
	DECIMAL_CSV,  /* also "+1", "007", ".5" and "5." */
};

enum { DECIMAL_LENGTH_MAX = 400 };

enum decimal_fault { DECIMAL_FINE, DECIMAL_NO_NUMBER, DECIMAL_TOO_LONG, DECIMAL_TOO_LARGE };

/* The number at the front of text[0 … count): (float)strtod of it, its length, and whether it is written without point and exponent.
 * DECIMAL_TOO_LARGE: no finite float. Results are untouched unless DECIMAL_FINE. What follows the number is the caller's to check. */
enum decimal_fault decimal_parse(const char *text, size_t count, enum decimal_grammar grammar, float *value, size_t *length, bool *whole);

/* Writes the shortest decimal that reads back as the same finite float, without ending zero, and returns its length. It is also a JSON
 * number: 0.1, 12, 1.5e-7. */
#define DECIMAL_TEXT_BYTES 24
size_t decimal_print(float value, char text[DECIMAL_TEXT_BYTES]);
