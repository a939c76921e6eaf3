/* kernels_gather.h: a batch's images and targets (see kernels.h). A thread makes one pixel, all its channels: where it comes from follows
 * from the sample alone. The operations and their order are those of core/backend/augment.c. */
#pragma once

#include "core/backend/cuda/lanes.h"

enum { OUTSIDE = -1 };

struct pixel {
	float at[3];
};

/* `position` inside 0..size-1; else mirrored at the edge pixel, or OUTSIDE. */
DEVICE int32_t position_pad(int32_t position, int32_t size, int32_t reflect)
{
	if (position >= 0 && position < size)
		return position;
	if (!reflect)
		return OUTSIDE;
	int32_t period = 2 * (size - 1), phase = position % period;
	phase += phase < 0 ? period : 0;
	return phase < size ? phase : period - phase;
}

/* The cropped and flipped image at (x, y); x or y may be OUTSIDE. */
DEVICE pixel crop_pixel(const struct gather &a, const struct device_augment &augment, int32_t x, int32_t y)
{
	pixel made = {{0.0f, 0.0f, 0.0f}};
	if (x == OUTSIDE || y == OUTSIDE)
		return made;
	int32_t column = position_pad((augment.flip ? a.size - 1 - x : x) + augment.shift_x, a.size, a.reflect);
	int32_t row = position_pad(y + augment.shift_y, a.size, a.reflect);
	if (column == OUTSIDE || row == OUTSIDE)
		return made;
	int64_t plane = (int64_t)a.size * a.size;
	const uint8_t *from = a.pixels + augment.index * 3 * plane + row * a.size + column;
	UNROLL
	for (int c = 0; c < 3; c++)
		made.at[c] = (float)from[c * plane];
	return made;
}

/* left·(1 − share) + right·share */
DEVICE pixel pixel_between(const pixel &left, const pixel &right, float share)
{
	pixel made;
	UNROLL
	for (int c = 0; c < 3; c++)
		made.at[c] = plus(mul(left.at[c], minus(1.0f, share)), mul(right.at[c], share));
	return made;
}

DEVICE pixel rotated_pixel(const struct gather &a, const struct device_augment &augment, int32_t x, int32_t y)
{
	float centre = over((float)(a.size - 1), 2.0f), dx = minus((float)x, centre), dy = minus((float)y, centre);
	float from_x = plus(minus(mul(dx, augment.cosine), mul(dy, augment.sine)), centre);
	float from_y = plus(plus(mul(dx, augment.sine), mul(dy, augment.cosine)), centre);
	float left = floorf(from_x), top = floorf(from_y);
	float right_share = minus(from_x, left), bottom_share = minus(from_y, top);
	int32_t x0 = position_pad((int32_t)left, a.size, a.reflect), x1 = position_pad((int32_t)left + 1, a.size, a.reflect);
	int32_t y0 = position_pad((int32_t)top, a.size, a.reflect), y1 = position_pad((int32_t)top + 1, a.size, a.reflect);
	pixel upper = pixel_between(crop_pixel(a, augment, x0, y0), crop_pixel(a, augment, x1, y0), right_share);
	pixel lower = pixel_between(crop_pixel(a, augment, x0, y1), crop_pixel(a, augment, x1, y1), right_share);
	return pixel_between(upper, lower, bottom_share);
}

/* Augmented and normalised. */
DEVICE pixel augmented_pixel(const struct gather &a, const struct device_augment &augment, int32_t x, int32_t y)
{
	pixel made = {{0.0f, 0.0f, 0.0f}}; /* erased: the mean, normalised */
	if (x >= augment.erase_x && x < augment.erase_x + augment.erase_width && y >= augment.erase_y && y < augment.erase_y + augment.erase_height)
		return made;
	made = augment.rotated ? rotated_pixel(a, augment, x, y) : crop_pixel(a, augment, x, y);
	UNROLL
	for (int c = 0; c < 3; c++)
		made.at[c] = over(minus(over(made.at[c], 255.0f), a.mean[c]), a.std[c]);
	return made;
}

DEVICE pixel sample_pixel(const struct gather &a, const struct device_sample &sample, int32_t x, int32_t y)
{
	if (sample.weight == 1.0f)
		return augmented_pixel(a, sample.image, x, y);
	if (sample.cut_width != 0) {
		bool cut = x >= sample.cut_x && x < sample.cut_x + sample.cut_width && y >= sample.cut_y && y < sample.cut_y + sample.cut_height;
		return augmented_pixel(a, cut ? sample.partner : sample.image, x, y);
	}
	pixel image = augmented_pixel(a, sample.image, x, y), partner = augmented_pixel(a, sample.partner, x, y);
	UNROLL
	for (int c = 0; c < 3; c++)
		image.at[c] = plus(mul(sample.weight, image.at[c]), mul(minus(1.0f, sample.weight), partner.at[c]));
	return image;
}

template <typename T> DEVICE void gather_body(const struct gather &a, struct block block)
{
	unsigned area = (unsigned)(a.size * a.size), blocks_of_image = (area + KERNEL_THREADS - 1) / KERNEL_THREADS;
	unsigned n = block.x / blocks_of_image;
	FOR_THREADS (thread) {
		unsigned at = block.x % blocks_of_image * KERNEL_THREADS + thread;
		if (at >= area)
			continue;
		const struct device_sample &sample = a.samples[n];
		pixel made = sample_pixel(a, sample, (int32_t)(at % (unsigned)a.size), (int32_t)(at / (unsigned)a.size));
		int64_t to = ((int64_t)n * area + at) * a.C;
		if (a.C == 8) {
			float channels[8] = {made.at[0], made.at[1], made.at[2]};
			store<T, 8>(a.y, to, channels);
		} else {
			float channels[4] = {made.at[0], made.at[1], made.at[2]};
			store<T, 4>(a.y, to, channels);
		}
		if (at > 0)
			continue;
		struct device_target target;
		target.label = a.labels[sample.image.index];
		target.partner = sample.weight != 1.0f ? a.labels[sample.partner.index] : target.label;
		target.weight = sample.weight;
		target.smoothing = a.label_smoothing;
		a.targets[n] = target;
	}
}
