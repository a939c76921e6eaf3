/* images.c: see images.h. */
#include "serve/decode/images.h"

#include "core/format/image.h"
#include "core/format/tensor.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum http_code http_of_status(enum status status)
{
	switch (status) {
	case ST_OK: return HTTP_OK;
	case ST_DATA: return HTTP_BAD_REQUEST;
	case ST_MEMORY: return HTTP_NO_MEMORY;
	default: return HTTP_INTERNAL;
	}
}

enum http_code images_open(struct images *images, const struct decode_rules *rules)
{
	size_t side = (size_t)rules->image_size;
	struct images opened = {.rules = rules, .image_values = 3 * side * side};
	for (int c = 0; c < 3; c++)
		for (int pixel = 0; pixel < 256; pixel++)
			opened.level[c][pixel] = ((float)pixel / 255.0f - rules->normalization.mean[c]) / rules->normalization.std[c];
	opened.scratch = malloc(opened.image_values * sizeof *opened.scratch);
	if (opened.scratch == NULL)
		return REFUSE(HTTP_NO_MEMORY, "no memory for an image");
	*images = opened;
	return HTTP_OK;
}

void images_close(struct images *images)
{
	for (size_t i = 0; images->faults != NULL && i < images->count; i++)
		free(images->faults[i]);
	free(images->faults);
	free(images->values);
	free(images->scratch);
	*images = (struct images){0};
}

enum http_code images_allow(const struct images *images, size_t more)
{
	size_t most = images->rules->images_max;
	if (more > most - images->count)
		return REFUSE(HTTP_TOO_LARGE, "at least %zu images in one body, at most %zu are taken; send them in several requests", images->count + more, most);
	return HTTP_OK;
}

enum http_code images_reserve(struct images *images, size_t count, float **at)
{
	if (count > images->room - images->used || images->values == NULL) {
		size_t room;
		if (__builtin_add_overflow(images->used, count, &room) || room > SIZE_MAX / 2 / sizeof(float))
			return REFUSE(HTTP_NO_MEMORY, "no memory for %zu numbers", count);
		if (room < images->room + images->room / 2)
			room = images->room + images->room / 2;
		if (room < images->image_values)
			room = images->image_values;
		float *larger = realloc(images->values, room * sizeof *larger);
		if (larger == NULL)
			return REFUSE(HTTP_NO_MEMORY, "no memory for %zu numbers", room);
		images->values = larger;
		images->room = room;
	}
	*at = images->values + images->used;
	return HTTP_OK;
}

/* The `count` images' values are there: counts them in. */
static enum http_code images_add(struct images *images, size_t count)
{
	if (images->rules->keep_going && images->count + count > images->faults_room) {
		size_t room = images->count + count + images->faults_room;
		char **larger = realloc(images->faults, room * sizeof *larger);
		if (larger == NULL)
			return REFUSE(HTTP_NO_MEMORY, "no memory for %zu images", room);
		images->faults = larger;
		images->faults_room = room;
	}
	for (size_t i = 0; images->rules->keep_going && i < count; i++)
		images->faults[images->count + i] = NULL;
	images->count += count;
	images->used = images->count * images->image_values;
	return HTTP_OK;
}

void images_cut(struct images *images, size_t count)
{
	for (size_t i = count; images->faults != NULL && i < images->count; i++)
		free(images->faults[i]);
	images->count = count;
	images->used = count * images->image_values;
}

enum http_code images_take_fault(struct images *images)
{
	/* The sentence first: allocating may write another one. */
	char *fault = strdup(status_message());
	enum http_code code = fault != NULL ? images_allow(images, 1) : REFUSE(HTTP_NO_MEMORY, "no memory for a fault");
	float *at = NULL;
	if (code == HTTP_OK)
		code = images_reserve(images, images->image_values, &at);
	if (code == HTTP_OK) {
		memset(at, 0, images->image_values * sizeof *at);
		code = images_add(images, 1);
	}
	if (code == HTTP_OK)
		images->faults[images->count - 1] = fault;
	else
		free(fault);
	return code;
}

void images_finish(struct images *images, struct decoded *decoded)
{
	decoded->images = images->values;
	decoded->count = images->count;
	decoded->faults = images->faults;
	free(images->scratch);
	*images = (struct images){0};
}

/* --- pixels ---------------------------------------------------------------------------------------------------------- */

/* Planes of size × size to normalised floats. */
static void pixels_normalise(const struct images *images, const uint8_t *planes, float *at)
{
	size_t area = images->image_values / 3;
	for (size_t c = 0; c < 3; c++)
		for (size_t i = 0; i < area; i++)
			at[c * area + i] = images->level[c][planes[c * area + i]];
}

/* One image of any size, from `planes` to `at`. */
static enum http_code planes_place(const struct images *images, const uint8_t *planes, int width, int height, float *at)
{
	int size = images->rules->image_size;
	if (width == size && height == size) {
		pixels_normalise(images, planes, at);
		return HTTP_OK;
	}
	uint8_t *resized = malloc(images->image_values);
	if (resized == NULL)
		return REFUSE(HTTP_NO_MEMORY, "no memory to scale an image");
	enum status status = image_resize(planes, width, height, size, resized);
	if (status == ST_OK)
		pixels_normalise(images, resized, at);
	free(resized);
	return http_of_status(status);
}

enum http_code images_take_planes(struct images *images, const uint8_t *planes, int width, int height)
{
	float *at;
	ALLOW(images_allow(images, 1));
	ALLOW(images_reserve(images, images->image_values, &at));
	ALLOW(planes_place(images, planes, width, height, at));
	return images_add(images, 1);
}

/* Decoding takes up to ten bytes a pixel. Large pictures wait for one another, so that many at a time cannot take all memory. */
enum { PICTURE_PIXELS_SHARED_MAX = 2 << 20 };
static pthread_mutex_t large_picture = PTHREAD_MUTEX_INITIALIZER;

/* A photograph has two to five pixels a byte; a file that a minute of work hides in has hundreds. So many are free for a body. */
enum { PICTURE_PIXELS_FREE = 32 << 20, PICTURE_PIXELS_A_BYTE_MAX = 8 };

static enum http_code pixels_allow(struct images *images, int width, int height, size_t bytes)
{
	uint64_t pixels = images->pixels + (uint64_t)width * (uint64_t)height, picture_bytes = images->picture_bytes + bytes;
	if (pixels > PICTURE_PIXELS_FREE + PICTURE_PIXELS_A_BYTE_MAX * picture_bytes)
		return REFUSE(HTTP_BAD_REQUEST, "image %zu: %d x %d pixels in %zu bytes; above %d, the pictures of a body may have %d pixels a byte",
			images->count + 1, width, height, bytes, PICTURE_PIXELS_FREE, PICTURE_PIXELS_A_BYTE_MAX);
	images->pixels = pixels;
	images->picture_bytes = picture_bytes;
	return HTTP_OK;
}

enum http_code images_take_picture(struct images *images, const uint8_t *bytes, size_t count)
{
	int width, height, size = images->rules->image_size;
	char name[32];
	snprintf(name, sizeof name, "image %zu", images->count + 1);
	ALLOW(images_allow(images, 1));
	ALLOW(http_of_status(image_measure(bytes, count, name, &width, &height)));
	ALLOW(pixels_allow(images, width, height, count));
	uint8_t *planes = malloc(images->image_values);
	if (planes == NULL)
		return REFUSE(HTTP_NO_MEMORY, "no memory for an image");
	bool large = (int64_t)width * height > PICTURE_PIXELS_SHARED_MAX;
	if (large)
		MUST(pthread_mutex_lock(&large_picture) == 0);
	enum http_code code = http_of_status(image_decode(bytes, count, name, size, planes));
	if (large)
		MUST(pthread_mutex_unlock(&large_picture) == 0);
	if (code == HTTP_OK)
		code = images_take_planes(images, planes, size, size);
	free(planes);
	return code;
}

/* --- numbers --------------------------------------------------------------------------------------------------------- */

/* How an array's numbers make up images. */
struct layout {
	size_t count;
	int width, height;
	bool channels_last;
};

static enum http_code shape_refuse(const struct images *images, int rank, const int64_t *shape)
{
	char text[200];
	int size = images->rules->image_size;
	tensor_shape_text(rank, shape, text, sizeof text);
	return REFUSE(HTTP_BAD_REQUEST, "image %zu: numbers of shape %s; expected [%d], [3, %d, %d] or [%d, %d, 3], or N of them in front", images->count + 1,
		text, 3 * size * size, size, size, size, size);
}

static enum http_code layout_find(const struct images *images, int rank, const int64_t *shape, struct layout *layout)
{
	struct layout found = {.count = 1, .width = images->rules->image_size, .height = images->rules->image_size};
	bool flat = rank == 1 || rank == 2;
	if (rank == 2 || rank == 4)
		found.count = (size_t)shape[0];
	const int64_t *one = shape + (rank == 2 || rank == 4);
	if (flat ? one[0] != (int64_t)images->image_values : (rank != 3 && rank != 4) || (one[0] != 3 && one[2] != 3))
		return shape_refuse(images, rank, shape);
	if (!flat) {
		found.channels_last = one[0] != 3;
		int64_t height = found.channels_last ? one[0] : one[1], width = found.channels_last ? one[1] : one[2];
		if (height < 1 || width < 1 || height > IMAGE_SIDE_MAX || width > IMAGE_SIDE_MAX)
			return shape_refuse(images, rank, shape);
		found.height = (int)height;
		found.width = (int)width;
	}
	if (found.count == 0)
		return REFUSE(HTTP_BAD_REQUEST, "an array of no images; expected at least one");
	*layout = found;
	return HTTP_OK;
}

static enum http_code pixels_check(const struct images *images, const float *values, size_t count, size_t image)
{
	for (size_t i = 0; i < count; i++)
		if (!(values[i] >= 0 && values[i] <= 255))
			return REFUSE(HTTP_BAD_REQUEST, "image %zu: %.9g is no pixel; whole numbers are pixels, 0 to 255; send other values as floats",
				images->count + 1 + image, (double)values[i]);
	return HTTP_OK;
}

static enum http_code floats_check(const struct images *images, const float *values, size_t count, size_t image)
{
	for (size_t i = 0; i < count; i++)
		if (!isfinite(values[i]))
			return REFUSE(HTTP_BAD_REQUEST, "image %zu: value %zu is %s; expected a finite number", images->count + 1 + image, i + 1,
				isnan(values[i]) ? "NaN" : "infinite or too large");
	return HTTP_OK;
}

/* Puts an image of floats in its place's layout and range. */
static void floats_normalise(const struct images *images, float *at, bool channels_last)
{
	const struct normalization *normalization = &images->rules->normalization;
	size_t area = images->image_values / 3;
	if (channels_last) {
		memcpy(images->scratch, at, images->image_values * sizeof *at);
		for (size_t c = 0; c < 3; c++)
			for (size_t i = 0; i < area; i++)
				at[c * area + i] = images->scratch[3 * i + c];
	}
	float unit = images->rules->floats == RANGE_PIXELS ? 255.0f : 1.0f;
	if (images->rules->floats != RANGE_PIXELS && images->rules->floats != RANGE_UNIT)
		return;
	for (size_t c = 0; c < 3; c++)
		for (size_t i = 0; i < area; i++)
			at[c * area + i] = (at[c * area + i] / unit - normalization->mean[c]) / normalization->std[c];
}

/* Image i of pixels written as floats, at `from`, to its place `at`. `planes` has room for one. */
static enum http_code pixels_place(const struct images *images, const struct layout *layout, const float *from, uint8_t *planes, float *at)
{
	size_t area = (size_t)layout->width * (size_t)layout->height, across = layout->channels_last ? 3 : 1, between = layout->channels_last ? 1 : area;
	for (size_t c = 0; c < 3; c++)
		for (size_t i = 0; i < area; i++)
			planes[c * area + i] = (uint8_t)from[c * between + i * across];
	return planes_place(images, planes, layout->width, layout->height, at);
}

static enum http_code pixels_take(struct images *images, const struct layout *layout)
{
	size_t given = 3 * (size_t)layout->width * (size_t)layout->height, kept = images->image_values;
	size_t start = images->count * kept;
	float *end;
	for (size_t i = 0; i < layout->count; i++)
		ALLOW(pixels_check(images, images->values + start + i * given, given, i));
	if (kept > given)
		ALLOW(images_reserve(images, (kept - given) * layout->count, &end));
	uint8_t *planes = malloc(given);
	if (planes == NULL)
		return REFUSE(HTTP_NO_MEMORY, "no memory for an image");
	enum http_code code = HTTP_OK;
	/* In place: images that grow are moved from the last on, so that none is written over before it was read. */
	for (size_t n = 0; n < layout->count && code == HTTP_OK; n++) {
		size_t i = kept > given ? layout->count - 1 - n : n;
		code = pixels_place(images, layout, images->values + start + i * given, planes, images->values + start + i * kept);
	}
	free(planes);
	return code;
}

enum http_code images_take_numbers(struct images *images, bool whole, int rank, const int64_t *shape)
{
	struct layout layout = {0};
	int size = images->rules->image_size;
	ALLOW(layout_find(images, rank, shape, &layout));
	ALLOW(images_allow(images, layout.count));
	if (whole) {
		ALLOW(pixels_take(images, &layout));
		return images_add(images, layout.count);
	}
	if (layout.width != size || layout.height != size)
		return REFUSE(HTTP_BAD_REQUEST, "image %zu: floats of %d x %d pixels, expected %d x %d; whole numbers (pixels) of any size are scaled",
			images->count + 1, layout.width, layout.height, size, size);
	for (size_t i = 0; i < layout.count; i++) {
		float *at = images->values + (images->count + i) * images->image_values;
		ALLOW(floats_check(images, at, images->image_values, i));
		floats_normalise(images, at, layout.channels_last);
	}
	return images_add(images, layout.count);
}
