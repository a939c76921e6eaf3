/* pickle_literal.h: the values that protocol 0 of pickle spells as text. For pickle.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum literal { LITERAL_GOOD, LITERAL_WIDE, LITERAL_BAD };

/* "12", "-3", "12L". LITERAL_WIDE: an integer that does not fit 64 bits. */
enum literal literal_int(const uint8_t *line, size_t count, int64_t *value);
/* "0.5", "1e-3", "inf", "nan". */
bool literal_float(const uint8_t *line, size_t count, double *value);
/* A quoted byte string with Python's escapes ('a\x00\n'). `out` holds `count` bytes at least. */
bool literal_bytes(const uint8_t *line, size_t count, uint8_t *out, size_t *length);
/* Latin-1 with \uXXXX and \UXXXXXXXX, to UTF-8 (surrogates as three bytes each, like Python's surrogatepass). `out` holds
 * 2 × `count` bytes at least. */
bool literal_unicode(const uint8_t *line, size_t count, uint8_t *out, size_t *length);
