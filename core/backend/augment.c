/* augment.c: one sample of a batch, from the data set's bytes to normalised floats (see augment.h).
 *
 * In: uint8 images and a drawn `struct sample`. Out: planar floats. What is drawn, and how labels mix, is left to others.
 *
 * An augmented image is a rule for where each pixel comes from (struct view); rows are made by that rule, the image's into the
 * output, the partner's beside it to be mixed in. So nothing is allocated. */
#include "core/backend/augment.h"

#include <math.h>
#include <string.h>

enum { CHANNELS = 3, OUTSIDE = -1 };

struct view {
	const uint8_t *pixels; /* of the source image */
	int size;
	enum padding_mode padding;
	const struct augment *augment;
	const struct normalization *normalization;
	/* Where the columns and rows of the cropped and flipped image lie in the source, or OUTSIDE. */
	int column[RESNET_IMAGE_SIZE_MAX], row[RESNET_IMAGE_SIZE_MAX];
	float cosine, sine;
};

struct row {
	float at[CHANNELS][RESNET_IMAGE_SIZE_MAX];
};

/* `position` itself inside 0..size-1; else mirrored at the edge pixel (which is not repeated), or OUTSIDE. */
static int position_pad(int position, int size, enum padding_mode padding)
{
	if (position >= 0 && position < size)
		return position;
	if (padding == PADDING_ZERO)
		return OUTSIDE;
	int period = 2 * (size - 1), phase = position % period;
	if (phase < 0)
		phase += period;
	return phase < size ? phase : period - phase;
}

static void view_build(struct view *view, const struct images *images, const struct augment *augment,
	const struct normalization *normalization, enum padding_mode padding)
{
	int size = images->size;
	MUST(augment->index < images->count && size <= RESNET_IMAGE_SIZE_MAX);
	view->pixels = images->pixels + (size_t)augment->index * CHANNELS * (size_t)size * (size_t)size;
	view->size = size;
	view->padding = padding;
	view->augment = augment;
	view->normalization = normalization;
	for (int i = 0; i < size; i++) {
		int x = augment->flip ? size - 1 - i : i;
		view->column[i] = position_pad(x + augment->shift_x, size, padding);
		view->row[i] = position_pad(i + augment->shift_y, size, padding);
	}
	/* Rounded from double: the same on every C library. */
	view->cosine = (float)cos((double)augment->rotation_radians);
	view->sine = (float)sin((double)augment->rotation_radians);
}

/* The cropped and flipped image at (x, y); x or y may be OUTSIDE. */
static float crop_pixel(const struct view *view, int channel, int x, int y)
{
	if (x == OUTSIDE || y == OUTSIDE || view->column[x] == OUTSIDE || view->row[y] == OUTSIDE)
		return 0.0f;
	return view->pixels[(channel * view->size + view->row[y]) * view->size + view->column[x]];
}

/* The rotated image at (x, y), all channels: bilinear between the four pixels around the place it comes from. */
static void rotation_pixels(const struct view *view, int x, int y, float out[CHANNELS])
{
	float centre = (float)(view->size - 1) / 2.0f, dx = (float)x - centre, dy = (float)y - centre;
	/* y points down, so turning the picture counter-clockwise looks up clockwise. */
	float from_x = dx * view->cosine - dy * view->sine + centre, from_y = dx * view->sine + dy * view->cosine + centre;
	float left = floorf(from_x), top = floorf(from_y);
	float right_share = from_x - left, bottom_share = from_y - top;
	int x0 = position_pad((int)left, view->size, view->padding), x1 = position_pad((int)left + 1, view->size, view->padding);
	int y0 = position_pad((int)top, view->size, view->padding), y1 = position_pad((int)top + 1, view->size, view->padding);
	for (int c = 0; c < CHANNELS; c++) {
		float upper = crop_pixel(view, c, x0, y0) * (1.0f - right_share) + crop_pixel(view, c, x1, y0) * right_share;
		float lower = crop_pixel(view, c, x0, y1) * (1.0f - right_share) + crop_pixel(view, c, x1, y1) * right_share;
		out[c] = upper * (1.0f - bottom_share) + lower * bottom_share;
	}
}

/* Row y, augmented and normalised. */
static void row_render(const struct view *view, int y, struct row *row)
{
	const struct augment *augment = view->augment;
	bool rotated = augment->rotation_radians != 0.0f;
	for (int x = 0; x < view->size; x++) {
		float pixels[CHANNELS];
		if (rotated)
			rotation_pixels(view, x, y, pixels);
		else
			for (int c = 0; c < CHANNELS; c++)
				pixels[c] = crop_pixel(view, c, x, y);
		for (int c = 0; c < CHANNELS; c++)
			row->at[c][x] = (pixels[c] / 255.0f - view->normalization->mean[c]) / view->normalization->std[c];
	}
	bool erased = y >= augment->erase_y && y < augment->erase_y + augment->erase_height;
	for (int x = 0; erased && x < view->size; x++)
		if (x >= augment->erase_x && x < augment->erase_x + augment->erase_width)
			for (int c = 0; c < CHANNELS; c++)
				row->at[c][x] = 0.0f; /* the mean, normalised */
}

/* Row y of the partner into the image's row, as the sample says. */
static void row_mix(const struct sample *sample, int size, int y, const struct row *partner, struct row *row)
{
	if (sample->cut_width == 0) {
		for (int c = 0; c < CHANNELS; c++)
			for (int x = 0; x < size; x++)
				row->at[c][x] = sample->weight * row->at[c][x] + (1.0f - sample->weight) * partner->at[c][x];
		return;
	}
	if (y < sample->cut_y || y >= sample->cut_y + sample->cut_height)
		return;
	for (int c = 0; c < CHANNELS; c++)
		for (int x = 0; x < size; x++)
			if (x >= sample->cut_x && x < sample->cut_x + sample->cut_width)
				row->at[c][x] = partner->at[c][x];
}

void sample_render(const struct images *images, const struct sample *sample, const struct normalization *normalization,
	enum padding_mode padding, float *out)
{
	struct view image, partner;
	struct row row, partner_row;
	size_t size = (size_t)images->size;
	bool mixed = sample->weight != 1.0f;
	view_build(&image, images, &sample->image, normalization, padding);
	if (mixed)
		view_build(&partner, images, &sample->partner, normalization, padding);
	for (int y = 0; y < images->size; y++) {
		row_render(&image, y, &row);
		if (mixed) {
			row_render(&partner, y, &partner_row);
			row_mix(sample, images->size, y, &partner_row, &row);
		}
		for (size_t c = 0; c < CHANNELS; c++)
			memcpy(out + (c * size + (size_t)y) * size, row.at[c], size * sizeof row.at[c][0]);
	}
}
