/* add.c: see add.h. Plain loops without branches: the compiler makes vectors of them. */
#include "core/comm/add.h"

#include <string.h>

static inline uint16_t bf16_from_float(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
	uint32_t quiet = bits >> 16 | 0x40;
	return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

static inline float float_from_bf16(uint16_t value)
{
	uint32_t bits = (uint32_t)value << 16;
	float result;
	memcpy(&result, &bits, sizeof result);
	return result;
}

void add_floats(void *to, const void *a, const void *b, size_t count)
{
	float *sum = to;
	const float *x = a, *y = b;
	for (size_t i = 0; i < count; i++)
		sum[i] = x[i] + y[i];
}

void add_doubles(void *to, const void *a, const void *b, size_t count)
{
	double *sum = to;
	const double *x = a, *y = b;
	for (size_t i = 0; i < count; i++)
		sum[i] = x[i] + y[i];
}

void add_bf16(void *to, const void *a, const void *b, size_t count)
{
	uint16_t *sum = to;
	const uint16_t *x = a, *y = b;
	for (size_t i = 0; i < count; i++)
		sum[i] = bf16_from_float(float_from_bf16(x[i]) + float_from_bf16(y[i]));
}

void bf16_from_floats(uint16_t *to, const float *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		to[i] = bf16_from_float(from[i]);
}

void floats_from_bf16(float *to, const uint16_t *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		to[i] = float_from_bf16(from[i]);
}
