/* Goal: the numbers are Philox's, depend on nothing but (seed, purpose, epoch, index), and have the distributions that they claim.
 * Method: the published known-answer vectors; moments of fixed, seeded samples against bounds of five standard errors. */
#include "core/base/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Random123's kat_vectors for philox4x32 with 10 rounds. The counter is (index low, index high, epoch, purpose), the key the seed. */
static void known_answers(void **unused)
{
	(void)unused;
	static const struct {
		uint64_t seed, index;
		uint32_t epoch, purpose, words[4];
	} all[] = {
		{0, 0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{UINT64_MAX, UINT64_MAX, UINT32_MAX, UINT32_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{0x299f31d0a4093822, 0x85a308d3243f6a88, 0x13198a2e, 0x03707344, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	};
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		/* As a variable: the two odd purposes are no constants of the enum. */
		enum random_purpose purpose;
		memcpy(&purpose, &all[i].purpose, sizeof purpose);
		struct random4 found = random_words(all[i].seed, purpose, all[i].epoch, all[i].index);
		for (int k = 0; k < 4; k++)
			assert_int_equal(found.word[k], all[i].words[k]);
	}
}

static void streams(void **unused)
{
	(void)unused;
	struct random_stream a = random_open(5, RANDOM_AUGMENT, 3, 7), b = random_open(5, RANDOM_AUGMENT, 3, 7);
	struct random4 first = random_words(5, RANDOM_AUGMENT, 3, 7);
	uint32_t words[4000];
	for (int i = 0; i < 4000; i++)
		words[i] = random_u32(&a);
	for (int i = 0; i < 4; i++)
		assert_int_equal(words[i], first.word[i]);
	for (int i = 0; i < 4000; i++)
		assert_int_equal(random_u32(&b), words[i]);
	/* Neighbours in any coordinate, and later blocks, share nothing. */
	struct random_stream others[] = {random_open(6, RANDOM_AUGMENT, 3, 7), random_open(5, RANDOM_MIX, 3, 7), random_open(5, RANDOM_AUGMENT, 4, 7),
		random_open(5, RANDOM_AUGMENT, 3, 8), random_open(5, RANDOM_AUGMENT, 3, 7 + ((uint64_t)1 << 32)), random_open(5 + ((uint64_t)1 << 32), RANDOM_AUGMENT, 3, 7)};
	for (size_t k = 0; k < sizeof others / sizeof others[0]; k++)
		for (int i = 0; i < 100; i++)
			assert_int_not_equal(random_u32(&others[k]), words[i]);
	for (int i = 4; i < 4000; i++)
		for (int k = 0; k < 4; k++)
			assert_int_not_equal(words[i], words[k]);
}

static void below(void **unused)
{
	(void)unused;
	struct random_stream stream = random_open(1, RANDOM_TEST, 0, 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(random_below(&stream, 1), 0);
	static const uint32_t bounds[] = {2, 3, 9, 10};
	for (size_t k = 0; k < sizeof bounds / sizeof bounds[0]; k++) {
		int counts[10] = {0}, draws = 20000;
		for (int i = 0; i < draws; i++) {
			uint32_t value = random_below(&stream, bounds[k]);
			assert_true(value < bounds[k]);
			counts[value]++;
		}
		double p = 1.0 / bounds[k], error = sqrt(draws * p * (1 - p));
		for (uint32_t v = 0; v < bounds[k]; v++)
			assert_true(fabs(counts[v] - draws * p) < 5 * error);
	}
	/* Just above a power of two almost half of the words are thrown away; without that the low half would be twice as likely. */
	int low = 0, draws = 20000;
	uint32_t bound = 0x80000001u;
	struct random_stream other = random_open(2, RANDOM_TEST, 0, 0);
	for (int i = 0; i < draws; i++)
		low += random_below(&other, bound) % 2 == 0;
	assert_true(fabs(low - draws * 0.5) < 5 * sqrt(draws * 0.25));
}

/* Mean and variance of `draws` values of `draw`, which all lie in [least, most]. */
static void moments(double (*draw)(struct random_stream *, double), double a, int draws, double least, double most, double *mean, double *variance)
{
	double sum = 0, squares = 0;
	for (int i = 0; i < draws; i++) {
		struct random_stream stream = random_open(11, RANDOM_TEST, 1, (uint64_t)i);
		double value = draw(&stream, a);
		if (!(value >= least && value <= most))
			fail_msg("draw %d is %g", i, value);
		sum += value;
		squares += value * value;
	}
	*mean = sum / draws;
	*variance = squares / draws - *mean * *mean;
}

static double unit_of(struct random_stream *stream, double unused)
{
	(void)unused;
	return random_unit(stream);
}

static double normal_of(struct random_stream *stream, double unused)
{
	(void)unused;
	return random_normal(stream);
}

enum { DRAWS = 100000 };

static void unit(void **unused)
{
	(void)unused;
	double mean, variance;
	moments(unit_of, 0, DRAWS, 0, nextafter(1, 0), &mean, &variance);
	assert_true(fabs(mean - 0.5) < 5 * sqrt(1.0 / 12 / DRAWS));
	assert_true(fabs(variance - 1.0 / 12) < 5 * sqrt(1.0 / 180 / DRAWS));
}

static void normal(void **unused)
{
	(void)unused;
	double mean, variance;
	moments(normal_of, 0, DRAWS, -9, 9, &mean, &variance);
	assert_true(fabs(mean) < 5 * sqrt(1.0 / DRAWS));
	assert_true(fabs(variance - 1) < 5 * sqrt(2.0 / DRAWS));
}

/* Beta(a, a): mean 1/2, variance 1/(4(2a + 1)); for small a nearly all of it lies at the ends, and no draw may be NaN. */
static void beta(void **unused)
{
	(void)unused;
	static const double all[] = {0.001, 0.2, 0.8, 1, 1.5, 100};
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		double mean, variance, wanted = 1 / (4 * (2 * all[i] + 1));
		moments(random_beta, all[i], DRAWS / 4, 0, 1, &mean, &variance);
		assert_true(fabs(mean - 0.5) < 5 * sqrt(wanted / (DRAWS / 4)));
		/* The fourth central moment is at most variance/4, for values in [0, 1]. */
		assert_true(fabs(variance - wanted) < 5 * sqrt(wanted / 4 / (DRAWS / 4)));
		if (fabs(variance - wanted) > 0.05 * wanted)
			fail_msg("Beta(%g): variance %g, expected %g", all[i], variance, wanted);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers),
		cmocka_unit_test(streams),
		cmocka_unit_test(below),
		cmocka_unit_test(unit),
		cmocka_unit_test(normal),
		cmocka_unit_test(beta),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
