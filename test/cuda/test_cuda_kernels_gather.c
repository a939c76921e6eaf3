/* test_cuda_kernels_gather.c: the kernel that makes a batch's images and targets, as host code.
 *
 * Goal: bit for bit what core/backend/augment.c renders, then rounded to the element, for every kind of sample. Method: samples drawn from all
 * kinds and their combinations, with displacements, rectangles and angles beyond what training draws; every way to pad, to size, to round. */
#include "test/cuda/kernel_bed.h"

#include "core/backend/augment.h"
#include "core/backend/cuda/samples.h"

enum { IMAGES = 9, LABELS = 65536 };

static const struct normalization normalization = {{0.5f, 0.4f, 0.3f}, {0.2f, 0.25f, 0.3f}};

struct pictures {
	struct images images;
	uint8_t *pixels;
	uint16_t *labels;
};

static struct pictures pictures_draw(int size)
{
	size_t count = (size_t)(IMAGES * 3 * size * size);
	struct pictures pictures = {.pixels = array_new(count), .labels = array_new(IMAGES * sizeof(uint16_t))};
	for (size_t i = 0; i < count; i++)
		pictures.pixels[i] = (uint8_t)random_u32(&draws);
	for (int i = 0; i < IMAGES; i++)
		pictures.labels[i] = (uint16_t)random_below(&draws, LABELS);
	pictures.images = (struct images){pictures.pixels, pictures.labels, IMAGES, size};
	return pictures;
}

static int16_t draw_between(int least, int most)
{
	return (int16_t)(least + (int)random_below(&draws, (uint32_t)(most - least + 1)));
}

/* kinds: bit 0 shifted, 1 flipped, 2 rotated, 3 partly erased. */
static struct augment augment_draw(unsigned kinds, int size)
{
	struct augment augment = {.index = random_below(&draws, IMAGES), .flip = kinds & 2};
	int far = random_below(&draws, 8) == 0 ? 3 * size : 4; /* further than one reflection */
	if (kinds & 1)
		augment.shift_x = draw_between(-far, far), augment.shift_y = draw_between(-far, far);
	if (kinds & 4)
		augment.rotation_radians = (float)draw(0, 1);
	if (kinds & 8) {
		augment.erase_x = draw_between(-2, size), augment.erase_y = draw_between(-2, size);
		augment.erase_width = draw_between(0, size), augment.erase_height = draw_between(1, size);
	}
	return augment;
}

enum mix { MIX_NONE, MIX_UP, MIX_CUT, MIXES };

static struct sample sample_draw(unsigned kinds, enum mix mix, int size)
{
	struct sample sample = {.image = augment_draw(kinds, size), .weight = 1};
	if (mix == MIX_NONE)
		return sample;
	sample.partner = augment_draw(kinds ^ random_below(&draws, 16), size);
	sample.weight = random_below(&draws, 8) == 0 ? 0 : (float)(random_unit(&draws) * 0.9);
	if (mix == MIX_CUT) {
		sample.cut_x = draw_between(-2, size), sample.cut_y = draw_between(-2, size);
		sample.cut_width = draw_between(1, size), sample.cut_height = draw_between(0, size);
	}
	return sample;
}

/* One of each kind and mix, in a batch. */
static void gathered(enum element element, int size, int32_t C, enum padding_mode padding)
{
	enum { N = 16 * MIXES };
	const size_t area = (size_t)(size * size), count = N * area * (size_t)C;
	struct pictures pictures = pictures_draw(size);
	struct sample *samples = array_new(N * sizeof *samples);
	struct device_sample *converted = array_new(N * sizeof *converted);
	struct device_target *targets = array_new(N * sizeof *targets);
	void *y = elements_new(element, count);
	float *rendered = floats_new(3 * area);
	for (unsigned i = 0; i < N; i++) {
		samples[i] = sample_draw(i / MIXES, (enum mix)(i % MIXES), size);
		converted[i] = sample_convert(&samples[i]);
	}
	RUN_ELEMENT(element, gather, gather, .pixels = pictures.pixels, .labels = pictures.labels, .samples = converted, .n = N, .size = size, .C = C,
		.reflect = padding == PADDING_REFLECT, .label_smoothing = 0.1f, .mean = {0.5f, 0.4f, 0.3f}, .std = {0.2f, 0.25f, 0.3f}, .y = y, .targets = targets);
	for (size_t i = 0; i < N; i++) {
		sample_render(&pictures.images, &samples[i], &normalization, padding, rendered);
		for (size_t at = 0; at < area; at++)
			for (size_t c = 0; c < (size_t)C; c++) {
				double got = element_get(element, y, (i * area + at) * (size_t)C + c);
				double want = c < 3 ? element_round(element, (double)rendered[c * area + at]) : 0;
				if (got != want || !signbit(got) != !signbit(want))
					fail_msg("sample %zu, pixel %zu, channel %zu: %.9g, expected %.9g", i, at, c, got, want);
			}
		assert_int_equal(targets[i].label, pictures.labels[samples[i].image.index]);
		assert_int_equal(targets[i].partner, pictures.labels[i % MIXES == MIX_NONE ? samples[i].image.index : samples[i].partner.index]);
		assert_true(targets[i].weight == samples[i].weight && targets[i].smoothing == 0.1f);
	}
	digest_add(y, count * element_bytes(element));
	arrays_free();
}

static void every_kind(void)
{
	static const int sizes[] = {2, 8, 17, 32}; /* 17 × 17: one pixel in a second block of 256, and 32 */
	for (size_t k = 0; k < sizeof sizes / sizeof sizes[0] * 4 * ELEMENTS; k++) {
		draws_from((uint32_t)k);
		gathered(elements[k % ELEMENTS], sizes[k / ELEMENTS / 4], k / ELEMENTS & 1 ? 8 : 4, k / ELEMENTS & 2 ? PADDING_REFLECT : PADDING_ZERO);
	}
}

/* What a sample leaves out reaches no pixel: an image, and nothing else, is exactly its bytes, normalised. */
static void plain(void)
{
	enum { SIZE = 8, AREA = SIZE * SIZE };
	draws_from(1);
	struct pictures pictures = pictures_draw(SIZE);
	struct device_sample samples[IMAGES];
	struct device_target targets[IMAGES];
	float *y = floats_new(IMAGES * AREA * 4);
	for (uint32_t i = 0; i < IMAGES; i++)
		samples[i] = sample_convert(&(struct sample){.image.index = IMAGES - 1 - i, .weight = 1});
	RUN_ELEMENT(ELEMENT_FP32, gather, gather, .pixels = pictures.pixels, .labels = pictures.labels, .samples = samples, .n = IMAGES, .size = SIZE, .C = 4,
		.std = {1, 1, 1}, .y = y, .targets = targets);
	for (size_t i = 0; i < IMAGES * AREA * 4; i++) {
		size_t n = i / 4 / AREA, at = i / 4 % AREA, c = i % 4;
		assert_true(y[i] == (c < 3 ? (float)pictures.pixels[((IMAGES - 1 - n) * 3 + c) * AREA + at] / 255 : 0));
	}
	arrays_free();
}

/* A rank may be left without images of a batch: no block is launched. */
static void test_none(void **state)
{
	(void)state;
	assert_int_equal(grid_gather(&(struct gather){.n = 0, .size = 32, .C = 8}).x, 0);
	assert_int_equal(grid_gather(&(struct gather){.n = 3, .size = 17, .C = 8}).x, 6);
}

CASE(every_kind)
CASE(plain)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_kind),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
