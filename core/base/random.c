/* random.c: see random.h. */
#include "core/base/random.h"

#include <math.h>

/* One Philox 4x32 block: 10 rounds, multipliers and key increments of the paper. */
static struct random4 philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1)
{
	for (int round = 0; round < 10; round++) {
		uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
		uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
		c1 = (uint32_t)p1;
		c3 = (uint32_t)p0;
		c0 = n0;
		c2 = n2;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	return (struct random4){{c0, c1, c2, c3}};
}

/* Counter: index (64 bits), epoch (32), then purpose (low 16) and block within a stream (high 16). Key: the seed. */
static struct random4 block_words(uint64_t seed, uint32_t purpose, uint32_t epoch, uint64_t index, uint32_t block)
{
	return philox((uint32_t)index, (uint32_t)(index >> 32), epoch, purpose | block << 16, (uint32_t)seed, (uint32_t)(seed >> 32));
}

struct random4 random_words(uint64_t seed, enum random_purpose purpose, uint32_t epoch, uint64_t index)
{
	return block_words(seed, (uint32_t)purpose, epoch, index, 0);
}

struct random_stream random_open(uint64_t seed, enum random_purpose purpose, uint32_t epoch, uint64_t index)
{
	return (struct random_stream){.seed = seed, .index = index, .purpose = (uint32_t)purpose, .epoch = epoch, .used = 4};
}

uint32_t random_u32(struct random_stream *stream)
{
	if (stream->used == 4) {
		stream->words = block_words(stream->seed, stream->purpose, stream->epoch, stream->index, stream->block++);
		stream->used = 0;
	}
	return stream->words.word[stream->used++];
}

double random_unit(struct random_stream *stream)
{
	uint64_t high = random_u32(stream) >> 5, low = random_u32(stream) >> 6;
	return (double)(high << 26 | low) * 0x1p-53;
}

uint32_t random_below(struct random_stream *stream, uint32_t bound)
{
	/* Lemire, "Fast random integer generation in an interval" (2019). */
	uint64_t product = (uint64_t)random_u32(stream) * bound;
	if ((uint32_t)product < bound) {
		uint32_t threshold = -bound % bound;
		while ((uint32_t)product < threshold)
			product = (uint64_t)random_u32(stream) * bound;
	}
	return (uint32_t)(product >> 32);
}

void random_normal_pair(struct random_stream *stream, double pair[2])
{
	double u = 1.0 - random_unit(stream); /* (0, 1]: the logarithm is finite */
	double angle = 6.283185307179586 * random_unit(stream), radius = sqrt(-2.0 * log(u));
	pair[0] = radius * cos(angle);
	pair[1] = radius * sin(angle);
}

double random_normal(struct random_stream *stream)
{
	double pair[2];
	random_normal_pair(stream, pair);
	return pair[0];
}

/* Gamma(a, 1) for a ≥ 1: Marsaglia and Tsang (2000). */
static double random_gamma(struct random_stream *stream, double a)
{
	double d = a - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
	for (;;) {
		double x = random_normal(stream), v = 1.0 + c * x;
		if (v <= 0.0)
			continue;
		v = v * v * v;
		double u = 1.0 - random_unit(stream);
		if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
			return d * v;
	}
}

double random_beta(struct random_stream *stream, double a)
{
	if (a >= 1.0) {
		double x = random_gamma(stream, a), y = random_gamma(stream, a);
		return x / (x + y);
	}
	for (;;) { /* Jöhnk (1964); in logarithms, so that a tiny `a` does not underflow */
		double x = log(1.0 - random_unit(stream)) / a, y = log(1.0 - random_unit(stream)) / a;
		double m = x > y ? x : y;
		double sum_log = m + log(exp(x - m) + exp(y - m));
		if (sum_log <= 0.0)
			return exp(x - sum_log);
	}
}
