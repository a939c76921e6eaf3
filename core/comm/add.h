/* add.h: arithmetic on what travels between ranks. All run over `count` values; `to` may be `a`. */
#pragma once

#include <stddef.h>
#include <stdint.h>

void add_floats(void *to, const void *a, const void *b, size_t count);
void add_doubles(void *to, const void *a, const void *b, size_t count);
/* bf16 (the upper half of a float): added in fp32, rounded back. */
void add_bf16(void *to, const void *a, const void *b, size_t count);

/* Rounds to nearest, ties to even. Infinities stay, what is too large becomes one, a NaN stays a NaN. */
void bf16_from_floats(uint16_t *to, const float *from, size_t count);
void floats_from_bf16(float *to, const uint16_t *from, size_t count);
