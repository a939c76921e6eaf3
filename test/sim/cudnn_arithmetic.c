/* cudnn_arithmetic.c: stored elements ↔ fp32 values, and the operations that are not products.
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
	const uint8_t *bytes = from;
	switch (type) {
	case CUDNN_DATA_HALF:
		for (int64_t i = 0; i < count; i++)
			to[i] = half_load(words[i]);
		break;
	case CUDNN_DATA_BFLOAT16:
		for (int64_t i = 0; i < count; i++)
			to[i] = float_of((uint32_t)words[i] << 16);
		break;
	case CUDNN_DATA_BOOLEAN:
		for (int64_t i = 0; i < count; i++)
			to[i] = bytes[i / 8] >> i % 8 & 1;
		break;
	default: memcpy(to, from, sizeof *to * (size_t)count); break;
	}
}

void elements_store(int32_t type, const float *from, int64_t count, void *to)
{
	uint16_t *words = to;
	uint8_t *bytes = to;
	switch (type) {
	case CUDNN_DATA_HALF:
		for (int64_t i = 0; i < count; i++)
			words[i] = half_store(from[i]);
		break;
	case CUDNN_DATA_BFLOAT16:
		for (int64_t i = 0; i < count; i++)
			words[i] = bf16_store(from[i]);
		break;
	case CUDNN_DATA_BOOLEAN:
		memset(bytes, 0, (size_t)((count + 7) / 8));
		for (int64_t i = 0; i < count; i++)
			bytes[i / 8] |= (uint8_t)((from[i] != 0) << i % 8);
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

/* --- pointwise --------------------------------------------------------------------------------------------------------- */

static inline float relu(float value)
{
	return value > 0 ? value : 0; /* NaN does not pass: cuDNN's default */
}

/* y[c] = x[c] op b[c · step] */
static void pointwise_row(int32_t mode, const float *x, const float *b, int64_t step, int64_t count, float *y)
{
	switch (mode) {
	case CUDNN_POINTWISE_ADD:
		for (int64_t i = 0; i < count; i++)
			y[i] = x[i] + b[i * step];
		break;
	case CUDNN_POINTWISE_SUB:
		for (int64_t i = 0; i < count; i++)
			y[i] = x[i] - b[i * step];
		break;
	case CUDNN_POINTWISE_MUL:
		for (int64_t i = 0; i < count; i++)
			y[i] = x[i] * b[i * step];
		break;
	case CUDNN_POINTWISE_CMP_GT:
		for (int64_t i = 0; i < count; i++)
			y[i] = x[i] > b[i * step];
		break;
	case CUDNN_POINTWISE_RELU_FWD:
		for (int64_t i = 0; i < count; i++)
			y[i] = relu(x[i]);
		break;
	case CUDNN_POINTWISE_RELU_BWD: /* b is dy */
		for (int64_t i = 0; i < count; i++)
			y[i] = x[i] > 0 ? b[i] : 0;
		break;
	default: memcpy(y, x, sizeof *y * (size_t)count); break;
	}
}

void pointwise_run(const struct program *program, const struct program_operation *operation, float *const values[])
{
	bool backward = operation->mode == CUDNN_POINTWISE_RELU_BWD;
	int32_t x = operation->operands[OPERAND_X], y = operation->operands[backward ? OPERAND_SECOND : OPERAND_OUT];
	int32_t b = operation->operands[backward ? OPERAND_DY : OPERAND_B];
	const int64_t *dims = program->tensors[y].dims, *of_b = program->tensors[b < 0 ? x : b].dims;
	const float *from_b = values[b < 0 ? x : b];
	int64_t C = dims[1];
	for (int64_t n = 0; n < dims[0]; n++)
		for (int64_t h = 0; h < dims[2]; h++)
			for (int64_t w = 0; w < dims[3]; w++) {
				int64_t at = ((n * dims[2] + h) * dims[3] + w) * C;
				int64_t at_b = (((of_b[0] > 1 ? n : 0) * of_b[2] + (of_b[2] > 1 ? h : 0)) * of_b[3] + (of_b[3] > 1 ? w : 0)) * of_b[1];
				pointwise_row(operation->mode, values[x] + at, from_b + at_b, of_b[1] > 1 || C == 1, C, values[y] + at);
			}
}

/* --- sums over the pixels of a channel ---------------------------------------------------------------------------------- */

enum { CHANNELS_BLOCK = 64 };

void genstats_run(const struct program *program, const struct program_operation *operation, float *const values[])
{
	int32_t x = operation->operands[OPERAND_X];
	int64_t C = program->tensors[x].dims[1], pixels = tensor_elements(&program->tensors[x]) / C;
	for (int64_t c = 0; c < C; c++) {
		double sum = 0, squares = 0;
		for (int64_t i = 0; i < pixels; i++) {
			double value = (double)values[x][i * C + c];
			sum += value;
			squares += value * value;
		}
		values[operation->operands[OPERAND_OUT]][c] = (float)sum;
		values[operation->operands[OPERAND_SECOND]][c] = (float)squares;
	}
}

void norm_forward_run(const struct program *program, const struct program_operation *operation, float *const values[])
{
	const int32_t *o = operation->operands;
	const float *x = values[o[OPERAND_X]], *gamma = values[o[OPERAND_SCALE]], *beta = values[o[OPERAND_SHIFT]];
	int64_t C = program->tensors[o[OPERAND_X]].dims[1], pixels = tensor_elements(&program->tensors[o[OPERAND_X]]) / C;
	double epsilon = (double)*values[o[OPERAND_EPSILON]], share = (double)*values[o[OPERAND_SHARE]];
	for (int64_t first = 0; first < C; first += CHANNELS_BLOCK) {
		int64_t width = C - first < CHANNELS_BLOCK ? C - first : CHANNELS_BLOCK;
		double sums[CHANNELS_BLOCK] = {0}, squares[CHANNELS_BLOCK] = {0};
		float scale[CHANNELS_BLOCK], shift[CHANNELS_BLOCK];
		for (int64_t i = 0; i < pixels; i++)
			for (int64_t c = 0; c < width; c++)
				sums[c] += (double)x[i * C + first + c];
		for (int64_t c = 0; c < width; c++)
			sums[c] /= (double)pixels;
		for (int64_t i = 0; i < pixels; i++)
			for (int64_t c = 0; c < width; c++) {
				double away = (double)x[i * C + first + c] - sums[c];
				squares[c] += away * away;
			}
		for (int64_t c = 0; c < width; c++) {
			int64_t at = first + c;
			double inverse = 1 / sqrt(squares[c] / (double)pixels + epsilon), unbiased = squares[c] / (double)(pixels > 1 ? pixels - 1 : 1);
			values[o[OPERAND_SECOND]][at] = (float)sums[c];
			values[o[OPERAND_THIRD]][at] = (float)inverse;
			values[o[OPERAND_FOURTH]][at] = (float)((1 - share) * (double)values[o[OPERAND_RUNNING_MEAN]][at] + share * sums[c]);
			values[o[OPERAND_FIFTH]][at] = (float)((1 - share) * (double)values[o[OPERAND_RUNNING_VAR]][at] + share * unbiased);
			scale[c] = (float)((double)gamma[at] * inverse);
			shift[c] = (float)((double)beta[at] - sums[c] * (double)gamma[at] * inverse);
		}
		for (int64_t i = 0; i < pixels; i++)
			for (int64_t c = 0; c < width; c++)
				values[o[OPERAND_OUT]][i * C + first + c] = x[i * C + first + c] * scale[c] + shift[c];
	}
}

void norm_backward_run(const struct program *program, const struct program_operation *operation, float *const values[])
{
	const int32_t *o = operation->operands;
	const float *x = values[o[OPERAND_X]], *dy = values[o[OPERAND_DY]], *mean = values[o[OPERAND_MEAN]], *inverse = values[o[OPERAND_INVERSE]];
	const float *gamma = values[o[OPERAND_SCALE]];
	int64_t C = program->tensors[o[OPERAND_X]].dims[1], pixels = tensor_elements(&program->tensors[o[OPERAND_X]]) / C;
	for (int64_t first = 0; first < C; first += CHANNELS_BLOCK) {
		int64_t width = C - first < CHANNELS_BLOCK ? C - first : CHANNELS_BLOCK;
		double dgamma[CHANNELS_BLOCK] = {0}, dbeta[CHANNELS_BLOCK] = {0};
		for (int64_t i = 0; i < pixels; i++)
			for (int64_t c = 0; c < width; c++) {
				int64_t at = i * C + first + c;
				dgamma[c] += (double)dy[at] * (double)((x[at] - mean[first + c]) * inverse[first + c]);
				dbeta[c] += (double)dy[at];
			}
		for (int64_t c = 0; c < width; c++) {
			values[o[OPERAND_SECOND]][first + c] = (float)dgamma[c];
			values[o[OPERAND_THIRD]][first + c] = (float)dbeta[c];
		}
		for (int64_t i = 0; i < pixels; i++)
			for (int64_t c = 0; c < width; c++) {
				int64_t at = i * C + first + c;
				float normed = (x[at] - mean[first + c]) * inverse[first + c];
				values[o[OPERAND_OUT]][at] = gamma[first + c] * inverse[first + c]
					* (dy[at] - (float)(dbeta[c] / (double)pixels) - normed * (float)(dgamma[c] / (double)pixels));
			}
	}
}
