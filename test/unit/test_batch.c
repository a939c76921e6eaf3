/* test_batch.c: an epoch shows every image once; draws depend on seed, epoch and image alone and have the right ranges and
 * frequencies; mixing pairs nobody with itself. */
#include "train/batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { IMAGES = 5000 };

static const struct augmentation everything = {.seed = 5, .image_size = 32, .crop_padding = 4, .flip = FLIP_RANDOM, .rotation_degrees = 15,
	.random_erase = 0.25, .mixup_alpha = 0.8, .cutmix_alpha = 1, .mix_probability = 1};

static uint32_t identity[IMAGES];
static struct sample samples[IMAGES], again[IMAGES];

static int fill_identity(void **context)
{
	(void)context;
	for (uint32_t i = 0; i < IMAGES; i++)
		identity[i] = i;
	return 0;
}

static void order_is_a_permutation(void **context)
{
	(void)context;
	static uint32_t order[IMAGES], other[IMAGES];
	static bool seen[IMAGES];
	order_make(1, 0, order, IMAGES);
	for (int i = 0; i < IMAGES; i++) {
		assert_true(order[i] < IMAGES && !seen[order[i]]);
		seen[order[i]] = true;
	}
	order_make(1, 0, other, IMAGES);
	assert_memory_equal(order, other, sizeof order);
	order_make(1, 1, other, IMAGES);
	assert_memory_not_equal(order, other, sizeof order);
	order_make(2, 0, other, IMAGES);
	assert_memory_not_equal(order, other, sizeof order);
	order_make(1, 0, other, 1);
	assert_int_equal(other[0], 0);
}

/* The same image gets the same augmentation in whatever batch and place it is. */
static void augmentation_belongs_to_the_image(void **context)
{
	(void)context;
	struct augmentation a = everything;
	a.mixup_alpha = a.cutmix_alpha = 0;
	assert_false(batch_make(&a, 3, 0, identity, IMAGES, samples));
	assert_false(batch_make(&a, 3, 9, identity + 100, 7, again));
	for (int i = 0; i < 7; i++)
		assert_memory_equal(&samples[100 + i].image, &again[i].image, sizeof again[i].image);
}

static void draws_have_their_ranges(void **context)
{
	(void)context;
	batch_make(&everything, 0, 0, identity, IMAGES, samples);
	int shifts[9] = {0}, flips = 0, erased = 0;
	for (int i = 0; i < IMAGES; i++) {
		const struct augment *a = &samples[i].image;
		assert_true(a->shift_x >= -4 && a->shift_x <= 4 && a->shift_y >= -4 && a->shift_y <= 4);
		assert_true(fabsf(a->rotation_radians) <= 0.2618f);
		shifts[a->shift_x + 4]++;
		flips += a->flip;
		erased += a->erase_width > 0;
		assert_true(a->erase_x >= 0 && a->erase_y >= 0 && a->erase_x + a->erase_width <= 32 && a->erase_y + a->erase_height <= 32);
	}
	/* Five standard deviations of the binomial. */
	for (int i = 0; i < 9; i++)
		assert_true(abs(shifts[i] - IMAGES / 9) < 5 * 22);
	assert_true(abs(flips - IMAGES / 2) < 5 * 36);
	assert_true(abs(erased - IMAGES / 4) < 5 * 31);
}

static void alternating_flip_alternates(void **context)
{
	(void)context;
	struct augmentation a = {.seed = 1, .image_size = 32, .flip = FLIP_ALTERNATING};
	batch_make(&a, 6, 0, identity, IMAGES, samples);
	batch_make(&a, 7, 0, identity, IMAGES, again);
	int flips = 0;
	for (int i = 0; i < IMAGES; i++) {
		assert_true(samples[i].image.flip != again[i].image.flip);
		flips += samples[i].image.flip;
	}
	assert_true(abs(flips - IMAGES / 2) < 5 * 36);
}

static void mixing_pairs_the_batch(void **context)
{
	(void)context;
	int cuts = 0, blends = 0;
	double weights = 0;
	for (uint32_t step = 0; step < 400; step++) {
		assert_true(batch_make(&everything, 2, step, identity, 8, samples));
		bool cut = samples[0].cut_width > 0 || samples[0].weight == 1.0f;
		cuts += cut;
		blends += !cut;
		weights += (double)samples[0].weight;
		for (int i = 0; i < 8; i++) {
			const struct sample *s = &samples[i];
			assert_int_not_equal(s->partner.index, s->image.index);
			assert_true(s->weight >= 0 && s->weight <= 1);
			if (s->cut_width > 0)
				assert_true(fabsf(s->weight - (1 - (float)(s->cut_width * s->cut_height) / 1024)) < 1e-6f);
			assert_memory_equal(&s->partner, &samples[s->partner.index].image, sizeof s->partner);
		}
	}
	assert_true(abs(cuts - 200) < 5 * 10);
	assert_true(blends > 100);
	assert_true(weights / 400 > 0.4 && weights / 400 < 0.75); /* Beta(a, a) has mean 1/2; cut-off rectangles raise it */
}

static void probability_of_mixing(void **context)
{
	(void)context;
	struct augmentation a = everything;
	a.mix_probability = 0.3;
	int mixed = 0;
	for (uint32_t step = 0; step < 1000; step++)
		mixed += batch_make(&a, 0, step, identity, 4, samples);
	assert_true(abs(mixed - 300) < 5 * 15);
	a.mix_probability = 1;
	assert_false(batch_make(&a, 0, 0, identity, 1, samples)); /* nobody to mix with */
}

static void cutout_stays_inside(void **context)
{
	(void)context;
	struct augmentation a = {.seed = 3, .image_size = 32, .cutout = 8};
	batch_make(&a, 0, 0, identity, IMAGES, samples);
	for (int i = 0; i < IMAGES; i++) {
		const struct augment *e = &samples[i].image;
		assert_true(e->erase_width >= 4 && e->erase_width <= 8 && e->erase_height >= 4 && e->erase_height <= 8);
		assert_true(e->erase_x >= 0 && e->erase_x + e->erase_width <= 32 && e->erase_y >= 0 && e->erase_y + e->erase_height <= 32);
	}
}

static void evaluation_is_untouched(void **context)
{
	(void)context;
	batch_plain(7, 3, samples);
	for (int i = 0; i < 3; i++) {
		struct sample plain = {.image = {.index = 7 + (uint32_t)i}, .weight = 1};
		assert_int_equal(samples[i].image.index, plain.image.index);
		assert_true(samples[i].weight == 1.0f && samples[i].image.shift_x == 0 && !samples[i].image.flip && samples[i].image.erase_width == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_is_a_permutation),
		cmocka_unit_test(augmentation_belongs_to_the_image),
		cmocka_unit_test(draws_have_their_ranges),
		cmocka_unit_test(alternating_flip_alternates),
		cmocka_unit_test(mixing_pairs_the_batch),
		cmocka_unit_test(probability_of_mixing),
		cmocka_unit_test(cutout_stays_inside),
		cmocka_unit_test(evaluation_is_untouched),
	};
	return cmocka_run_group_tests(tests, fill_identity, NULL);
}
