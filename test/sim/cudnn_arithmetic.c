/* cudnn_arithmetic.c: stored elements ↔ fp32 values, and the operation that is no product.
 *
 * Values of a tensor are NHWC, fp32, and always such as its type can hold. */
#include "test/sim/cudnn_sim.h"

#include <math.h>
#include <string.h>

/* --- elements ---------------------------------------------------------------------------------------------------------- */

static inline uint32_t bits_of(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	return bits;
}

static inline float float_of(uint32_t bits)
{
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

static inline float half_load(uint16_t half)
{
	/* The exponent moves by multiplying, which makes subnormal halves right too; infinity and NaN are moved by hand. */
	uint32_t rest = half & 0x7fffu, sign = (uint32_t)(half & 0x8000u) << 16;
	float value = rest >= 0x7c00u ? float_of(rest << 13 | 0x7f800000u) : float_of(rest << 13) * 0x1p112f;
	return float_of(bits_of(value) | sign);
}

static inline uint16_t half_store(float value)
{
	uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu, half;
	if (rest > 0x7f800000u)
		half = 0x7e00u;
	else if (rest >= 0x477ff000u) /* 65520 and more round to infinity */
		half = 0x7c00u;
	else if (rest < 0x38800000u)  /* below 2^-14: the adder rounds, in units of 2^-24 */
		half = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f);
	else
		half = (rest - 0x38000000u + 0xfffu + (rest >> 13 & 1)) >> 13;
	return (uint16_t)(half | sign);
}

static inline uint16_t bf16_store(float value)
{
	uint32_t bits = bits_of(value);
	return (bits & 0x7fffffffu) > 0x7f800000u ? (uint16_t)(bits >> 16 | 0x40u) : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

void elements_load(int32_t type, const void *from, int64_t count, float *to)
{
	const uint16_t *words = from;
	switch (type) {
	case CUDNN_DATA_HALF:
		for (int64_t i = 0; i < count; i++)
			to[i] = half_load(words[i]);
		break;
	case CUDNN_DATA_BFLOAT16:
		for (int64_t i = 0; i < count; i++)
			to[i] = float_of((uint32_t)words[i] << 16);
		break;
	default: memcpy(to, from, sizeof *to * (size_t)count); break;
	}
}

void elements_store(int32_t type, const float *from, int64_t count, void *to)
{
	uint16_t *words = to;
	switch (type) {
	case CUDNN_DATA_HALF:
		for (int64_t i = 0; i < count; i++)
			words[i] = half_store(from[i]);
		break;
	case CUDNN_DATA_BFLOAT16:
		for (int64_t i = 0; i < count; i++)
			words[i] = bf16_store(from[i]);
		break;
	default: memcpy(to, from, sizeof *from * (size_t)count); break;
	}
}

void elements_round(int32_t type, float *values, int64_t count)
{
	if (type == CUDNN_DATA_HALF)
		for (int64_t i = 0; i < count; i++)
			values[i] = half_load(half_store(values[i]));
	else if (type == CUDNN_DATA_BFLOAT16)
		for (int64_t i = 0; i < count; i++)
			values[i] = float_of((uint32_t)bf16_store(values[i]) << 16);
}

/* TF32 has ten bits behind the point; halves are rounded away from zero. */
void elements_round_tf32(float *values, int64_t count)
{
	for (int64_t i = 0; i < count; i++)
		values[i] = isfinite(values[i]) ? float_of((bits_of(values[i]) + 0x1000u) & ~0x1fffu) : values[i];
}

void identity_run(const struct program *program, const struct program_operation *operation, float *const values[])
{
	const int32_t x = operation->operands[OPERAND_X], y = operation->operands[OPERAND_OUT];
	memcpy(values[y], values[x], sizeof *values[y] * (size_t)tensor_elements(&program->tensors[y]));
}
