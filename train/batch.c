/* batch.c: see batch.h. */
#include "train/batch.h"

#include "core/base/random.h"

#include <math.h>
#include <stddef.h>

void order_make(uint64_t seed, uint32_t epoch, uint32_t *indices, size_t count)
{
	for (size_t i = 0; i < count; i++)
		indices[i] = (uint32_t)i;
	for (size_t i = count; i > 1; i--) { /* Fisher and Yates */
		struct random_stream stream = random_open(seed, RANDOM_SHUFFLE, epoch, i);
		size_t j = random_below(&stream, (uint32_t)i);
		uint32_t swapped = indices[i - 1];
		indices[i - 1] = indices[j];
		indices[j] = swapped;
	}
}

/* A whole number in [−bound, bound]. */
static int16_t draw_shift(struct random_stream *stream, int bound)
{
	return (int16_t)((int)random_below(stream, 2 * (uint32_t)bound + 1) - bound);
}

/* torchvision's RandomErasing with its default ranges: up to ten tries for a rectangle that fits. */
static void draw_erase(struct random_stream *stream, int size, struct augment *augment)
{
	for (int attempt = 0; attempt < 10; attempt++) {
		double area = (0.02 + 0.31 * random_unit(stream)) * size * size;
		double aspect = exp(log(0.3) + (log(3.3) - log(0.3)) * random_unit(stream));
		int height = (int)lround(sqrt(area * aspect)), width = (int)lround(sqrt(area / aspect));
		if (height < 1 || width < 1 || height >= size || width >= size)
			continue;
		augment->erase_y = (int16_t)random_below(stream, (uint32_t)(size - height + 1));
		augment->erase_x = (int16_t)random_below(stream, (uint32_t)(size - width + 1));
		augment->erase_height = (int16_t)height;
		augment->erase_width = (int16_t)width;
		return;
	}
}

/* A side × side square centred anywhere in the image, cut off at its edges. */
static void draw_cutout(struct random_stream *stream, int size, int side, struct augment *augment)
{
	int centre_x = (int)random_below(stream, (uint32_t)size), centre_y = (int)random_below(stream, (uint32_t)size);
	int x0 = centre_x - side / 2, y0 = centre_y - side / 2, x1 = x0 + side, y1 = y0 + side;
	x0 = x0 < 0 ? 0 : x0;
	y0 = y0 < 0 ? 0 : y0;
	x1 = x1 > size ? size : x1;
	y1 = y1 > size ? size : y1;
	augment->erase_x = (int16_t)x0;
	augment->erase_y = (int16_t)y0;
	augment->erase_width = (int16_t)(x1 - x0);
	augment->erase_height = (int16_t)(y1 - y0);
}

/* Draws always happen in the same order, so that switching one augmentation on leaves the others' numbers as they were. */
static struct augment draw_augment(const struct augmentation *a, uint32_t epoch, uint32_t index)
{
	struct augment augment = {.index = index};
	struct random_stream stream = random_open(a->seed, RANDOM_AUGMENT, epoch, a->image_first + index);
	augment.shift_x = draw_shift(&stream, a->crop_padding);
	augment.shift_y = draw_shift(&stream, a->crop_padding);
	bool coin = random_u32(&stream) >> 31 != 0;
	double angle = 2 * random_unit(&stream) - 1;
	bool erased = random_unit(&stream) < a->random_erase;
	if (a->flip == FLIP_RANDOM)
		augment.flip = coin;
	else if (a->flip == FLIP_ALTERNATING)
		augment.flip = ((random_words(a->seed, RANDOM_FLIP_PHASE, 0, a->image_first + index).word[0] ^ epoch) & 1) != 0;
	augment.rotation_radians = (float)(angle * a->rotation_degrees * 3.14159265358979323846 / 180);
	if (erased)
		draw_erase(&stream, a->image_size, &augment);
	else if (a->cutout > 0)
		draw_cutout(&stream, a->image_size, a->cutout, &augment);
	return augment;
}

/* cutmix's rectangle: side √(1 − weight) of the image, centred anywhere, cut off at the edges; weight becomes its true share. */
static void draw_cut(struct random_stream *stream, int size, double weight, struct sample *cut)
{
	struct augment box = {0};
	int side = (int)(size * sqrt(1 - weight));
	if (side > 0)
		draw_cutout(stream, size, side, &box);
	cut->cut_x = box.erase_x;
	cut->cut_y = box.erase_y;
	cut->cut_width = box.erase_width;
	cut->cut_height = box.erase_height;
	cut->weight = 1.0f - (float)(box.erase_width * box.erase_height) / (float)(size * size);
}

bool batch_make(const struct augmentation *a, uint32_t epoch, uint32_t step, const uint32_t *indices, int n, struct sample *samples)
{
	for (int i = 0; i < n; i++)
		samples[i] = (struct sample){.image = draw_augment(a, epoch, indices[i]), .weight = 1};
	if (a->mixup_alpha <= 0 && a->cutmix_alpha <= 0)
		return false;
	struct random_stream stream = random_open(a->seed, RANDOM_MIX, epoch, step);
	bool mixed = random_unit(&stream) < a->mix_probability;
	bool cut = a->cutmix_alpha > 0 && (a->mixup_alpha <= 0 || random_u32(&stream) >> 31 != 0);
	if (!mixed || n < 2)
		return false;
	struct sample how = {0};
	double weight = random_beta(&stream, cut ? a->cutmix_alpha : a->mixup_alpha);
	if (cut)
		draw_cut(&stream, a->image_size, weight, &how);
	else
		how.weight = (float)weight;
	/* The partner is the batch's next image but `turn` − 1: a rotation pairs nobody with itself. */
	int turn = 1 + (int)random_below(&stream, (uint32_t)n - 1);
	for (int i = 0; i < n; i++) {
		struct augment own = samples[i].image;
		samples[i] = how;
		samples[i].image = own;
	}
	for (int i = 0; i < n; i++)
		samples[i].partner = samples[(i + turn) % n].image;
	return true;
}

void batch_plain(uint32_t first, int n, struct sample *samples)
{
	for (int i = 0; i < n; i++)
		samples[i] = (struct sample){.image = {.index = first + (uint32_t)i}, .weight = 1};
}
