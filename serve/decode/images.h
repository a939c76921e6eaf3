/* images.h: where a body's images gather: numbers, pixels or picture files of any known shape come in, normalised planar floats stay.
 *
 * Every body kind fills it, so that layout, size, range and limits are decided in one place:
 *   layout      (3·S·S) is planar, (3, H, W) and (H, W, 3) by the position of the 3 (the first of two), each with or without N in front
 *   range       whole numbers are pixels and must be 0 … 255; others are floats and mean what rules->floats says
 *   size        pixels of another size are scaled as pictures are; floats of another size are refused
 * A body's reader first puts the numbers behind the images that are there, then says what shape they have. */
#pragma once

#include "serve/decode.h"

#include <stdint.h>

struct images {
	const struct decode_rules *rules;
	float level[3][256]; /* what a pixel becomes */
	size_t image_values; /* 3 · S · S */
	float *values;       /* count images, then numbers that are no image yet */
	size_t used, room;   /* values in use, allocated */
	size_t count;
	char **faults;       /* with rules->keep_going: one an image */
	size_t faults_room;
	float *scratch;      /* one image */
	uint64_t pixels, picture_bytes; /* of the picture files so far */
};

enum http_code images_open(struct images *images, const struct decode_rules *rules);
void images_close(struct images *images); /* accepts {0} */

/* Room for `count` more numbers: *at is where they go, until the next call. images->used is the caller's to raise. HTTP_NO_MEMORY. */
enum http_code images_reserve(struct images *images, size_t count, float **at);
/* Appends one number. */
static inline enum http_code images_put(struct images *images, float value)
{
	if (images->used == images->room) {
		float *at;
		ALLOW(images_reserve(images, 1, &at));
	}
	images->values[images->used++] = value;
	return HTTP_OK;
}
/* The numbers put since the last image are an array of this shape and become its images; `whole`: each of them is a whole number by its
 * type or by the way it is written. HTTP_BAD_REQUEST, HTTP_TOO_LARGE, HTTP_NO_MEMORY. */
enum http_code images_take_numbers(struct images *images, bool whole, int rank, const int64_t *shape);
/* Appends one image of 3 planes of height × width pixels. */
enum http_code images_take_planes(struct images *images, const uint8_t *planes, int width, int height);
/* Appends a PNG, JPEG or BMP file. HTTP_BAD_REQUEST also when the body's pictures have far more pixels than bytes: see images.c. */
enum http_code images_take_picture(struct images *images, const uint8_t *bytes, size_t count);
/* Drops what came after the first `count` images. */
void images_cut(struct images *images, size_t count);
/* Appends a placeholder whose fault is this thread's last sentence. */
enum http_code images_take_fault(struct images *images);
/* HTTP_TOO_LARGE when `more` images would be too many for one body. */
enum http_code images_allow(const struct images *images, size_t more);
/* Hands over; `images` is empty after that. */
void images_finish(struct images *images, struct decoded *decoded);

/* HTTP's word for a failed status of core. */
enum http_code http_of_status(enum status status);
