/* random.h: counter-based random numbers (Philox 4x32-10; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
 *
 * There is no state to carry or save: a number is a pure function of (seed, purpose, epoch, index), so any batch can be rebuilt
 * on any rank, in any thread, after any resume. */
#pragma once

#include <stdint.h>

/* What a number is for; two purposes never share numbers. Append only: the values are part of a run's identity. */
enum random_purpose { RANDOM_INIT = 1, RANDOM_SHUFFLE, RANDOM_AUGMENT, RANDOM_MIX, RANDOM_SPLIT, RANDOM_FLIP_PHASE, RANDOM_TEST, RANDOM_DEMO };

struct random4 {
	uint32_t word[4];
};

/* Four independent uniform words for (seed, purpose, epoch, index). */
struct random4 random_words(uint64_t seed, enum random_purpose purpose, uint32_t epoch, uint64_t index);

/* A stream of numbers for one (seed, purpose, epoch, index): each draw takes the next word. 65536 × 4 draws at most. */
struct random_stream {
	uint64_t seed, index;
	uint32_t purpose, epoch;
	uint32_t block, used; /* block: how many blocks of four words were taken; used: words of the current one */
	struct random4 words;
};

struct random_stream random_open(uint64_t seed, enum random_purpose purpose, uint32_t epoch, uint64_t index);
uint32_t random_u32(struct random_stream *stream);
/* Uniform in [0, 1), 53 bits. */
double random_unit(struct random_stream *stream);
/* Uniform integer in [0, bound), bound ≥ 1, without bias. */
uint32_t random_below(struct random_stream *stream, uint32_t bound);
/* Standard normal (Box–Muller; takes two units a draw). */
double random_normal(struct random_stream *stream);
/* Two independent ones for the price of little more than one. */
void random_normal_pair(struct random_stream *stream, double pair[2]);
/* Beta(a, a), 0 < a (Jöhnk for a < 1, ratio of gammas otherwise). */
double random_beta(struct random_stream *stream, double a);
