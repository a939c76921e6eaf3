/* test_augment.c: what a sample means.
 *
 * Goal: crop, flip, rotation, erasing, mixing and their order are as backend.h says, and as torchvision's where it has the same.
 * Method: images that torchvision made (test/golden/augment.txt); for the rest, each output pixel against the pixel of a plain
 * rendering that it must be a copy or a blend of. */
#include "test/golden/golden.h"

#include "core/backend/augment.h"

enum { SIZE = 12, PIXELS = 3 * SIZE * SIZE, IMAGES = 2 };

static uint8_t pixels[IMAGES * PIXELS];
static uint16_t labels[IMAGES];

static struct images images_make(void)
{
	return golden_images(pixels, labels, IMAGES, SIZE, 10);
}

static void render(const struct sample *sample, enum padding_mode padding, float out[PIXELS])
{
	struct images images = images_make();
	for (int i = 0; i < PIXELS; i++)
		out[i] = NAN;
	sample_render(&images, sample, &golden_normalization, padding, out);
}

static float normalized(int channel, float pixel)
{
	return (pixel / 255.0f - golden_normalization.mean[channel]) / golden_normalization.std[channel];
}

static float at(const float *image, int channel, int x, int y)
{
	return image[(channel * SIZE + y) * SIZE + x];
}

static void test_plain_is_normalization(void **state)
{
	(void)state;
	float out[PIXELS];
	for (uint32_t index = 0; index < IMAGES; index++) {
		render(&(struct sample){.image.index = index, .weight = 1}, PADDING_REFLECT, out);
		for (int i = 0; i < PIXELS; i++)
			assert_true(out[i] == normalized(i / (SIZE * SIZE), pixels[index * PIXELS + (uint32_t)i]));
	}
}

/* Cases by torchvision, in double. Copies of pixels differ by the rounding of the normalisation; turned ones also by that of the
 * position, about 8 roundings of numbers up to SIZE, times the steepest slope, 255 a pixel. */
static void test_as_torchvision(void **state)
{
	(void)state;
	struct golden golden = golden_open("test/golden/augment.txt");
	static const char *const names[] = {"plain", "zero_crop", "zero_crop_flip", "reflect_crop", "reflect_crop_flip", "zero_turn",
		"zero_turn_back", "zero_all", "reflect_turn", "reflect_all"};
	double worst = 0;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		double line[5 + PIXELS];
		float out[PIXELS];
		golden_read(&golden, names[i], line, 5 + PIXELS);
		struct sample sample = {.image = {.shift_x = (int16_t)line[0], .shift_y = (int16_t)line[1], .flip = line[2] != 0,
			.rotation_radians = (float)line[3]}, .weight = 1};
		render(&sample, line[4] != 0 ? PADDING_REFLECT : PADDING_ZERO, out);
		double tolerance = 1e-6 + (line[3] != 0 ? 8 * SIZE * 0x1p-24 / 0.25 : 0);
		for (int k = 0; k < PIXELS; k++) {
			double share = fabs((double)out[k] - line[5 + k]) / tolerance;
			worst = share > worst ? share : worst;
			if (!(share <= 1))
				fail_msg("%s: value %d is %.8g, torchvision %.8g", names[i], k, (double)out[k], line[5 + k]);
		}
	}
	print_message("           worst error %.2g of the tolerance\n", worst);
	golden_close(&golden);
}

static void test_reflect_far_outside(void **state)
{
	(void)state;
	/* Mirrored at the edge pixels with period 2·11 = 22: −1 → 1, 12 → 10, and so on however far. */
	float plain[PIXELS], out[PIXELS];
	render(&(struct sample){.weight = 1}, PADDING_REFLECT, plain);
	static const int sources[][2] = {{-1, 1}, {-11, 11}, {-12, 10}, {12, 10}, {22, 0}, {23, 1}, {-22, 0}, {-23, 1}};
	for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
		render(&(struct sample){.image.shift_x = (int16_t)sources[i][0], .weight = 1}, PADDING_REFLECT, out);
		assert_true(at(out, 1, 0, 5) == at(plain, 1, sources[i][1], 5));
	}
	/* Zero padding is black, not the mean, however far. */
	render(&(struct sample){.image.shift_y = 500, .weight = 1}, PADDING_ZERO, out);
	for (int i = 0; i < PIXELS; i++)
		assert_true(out[i] == normalized(i / (SIZE * SIZE), 0));
}

/* The flip mirrors what the crop left: so does the crop's padding. */
static void test_flip_follows_crop(void **state)
{
	(void)state;
	float cropped[PIXELS], out[PIXELS];
	render(&(struct sample){.image = {.shift_x = 3, .shift_y = -2}, .weight = 1}, PADDING_ZERO, cropped);
	render(&(struct sample){.image = {.shift_x = 3, .shift_y = -2, .flip = true}, .weight = 1}, PADDING_ZERO, out);
	for (int c = 0; c < 3; c++)
		for (int y = 0; y < SIZE; y++)
			for (int x = 0; x < SIZE; x++)
				assert_true(at(out, c, x, y) == at(cropped, c, SIZE - 1 - x, y));
}

/* A quarter turn counter-clockwise brings the right edge to the top. Exact up to the rounding of cos(π/2). */
static void test_quarter_turn(void **state)
{
	(void)state;
	float plain[PIXELS], out[PIXELS];
	render(&(struct sample){.weight = 1}, PADDING_REFLECT, plain);
	render(&(struct sample){.image.rotation_radians = 1.57079633f, .weight = 1}, PADDING_REFLECT, out);
	for (int c = 0; c < 3; c++)
		for (int y = 0; y < SIZE; y++)
			for (int x = 0; x < SIZE; x++)
				assert_true(fabsf(at(out, c, x, y) - at(plain, c, SIZE - 1 - y, x)) < 1e-4f);
}

/* The rectangle is exactly 0 and the rest untouched, whatever came before; it stays where it was drawn. */
static void test_erase(void **state)
{
	(void)state;
	float before[PIXELS], out[PIXELS];
	struct sample sample = {.image = {.shift_x = 2, .flip = true, .rotation_radians = 0.3f}, .weight = 1};
	render(&sample, PADDING_REFLECT, before);
	sample.image.erase_x = 7;
	sample.image.erase_y = 3;
	sample.image.erase_width = 40; /* beyond the edge */
	sample.image.erase_height = 2;
	render(&sample, PADDING_REFLECT, out);
	for (int c = 0; c < 3; c++)
		for (int y = 0; y < SIZE; y++)
			for (int x = 0; x < SIZE; x++)
				assert_true(at(out, c, x, y) == (x >= 7 && y >= 3 && y < 5 ? 0.0f : at(before, c, x, y)));
}

/* Image and partner are each augmented in their own way, then mixed. */
static void test_mixup_and_cutmix(void **state)
{
	(void)state;
	float image[PIXELS], partner[PIXELS], out[PIXELS];
	struct sample sample = {.image = {.flip = true}, .partner = {.index = 1, .shift_x = 4, .erase_width = 3, .erase_height = 3}, .weight = 0.3f};
	render(&(struct sample){.image = sample.image, .weight = 1}, PADDING_ZERO, image);
	render(&(struct sample){.image = sample.partner, .weight = 1}, PADDING_ZERO, partner);
	render(&sample, PADDING_ZERO, out);
	for (int i = 0; i < PIXELS; i++)
		assert_true(out[i] == 0.3f * image[i] + (1.0f - 0.3f) * partner[i]);

	sample.cut_x = 8;
	sample.cut_y = 2;
	sample.cut_width = 4;
	sample.cut_height = 5;
	sample.weight = 1.0f - 4 * 5 / 144.0f;
	render(&sample, PADDING_ZERO, out);
	for (int c = 0; c < 3; c++)
		for (int y = 0; y < SIZE; y++)
			for (int x = 0; x < SIZE; x++)
				assert_true(at(out, c, x, y) == at(x >= 8 && y >= 2 && y < 7 ? partner : image, c, x, y));

	/* Weight 0 is all partner; weight 1 has none, and does not look at it. */
	sample.cut_width = 0;
	sample.weight = 0;
	render(&sample, PADDING_ZERO, out);
	assert_memory_equal(out, partner, sizeof out);
	sample.weight = 1;
	sample.partner.index = 4000000000u;
	render(&sample, PADDING_ZERO, out);
	assert_memory_equal(out, image, sizeof out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_is_normalization),
		cmocka_unit_test(test_as_torchvision),
		cmocka_unit_test(test_reflect_far_outside),
		cmocka_unit_test(test_flip_follows_crop),
		cmocka_unit_test(test_quarter_turn),
		cmocka_unit_test(test_erase),
		cmocka_unit_test(test_mixup_and_cutmix),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
