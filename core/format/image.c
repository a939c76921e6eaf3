/* image.c: see image.h. */
#include "core/format/image.h"

#include <stdlib.h>
#include <string.h>

#define STBI_NO_STDIO
#include <stb_image.h>
#include <stb_image_resize.h>
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>

bool image_sniff(const uint8_t *bytes, size_t count)
{
	return (count >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0) || (count >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) ||
		(count >= 2 && memcmp(bytes, "BM", 2) == 0);
}

/* torchvision's Resize(size) keeps the picture's shape: the longer side becomes size · long / short, rounded down. */
static enum status plane_resize(const uint8_t *plane, int width, int height, int size, uint8_t *resized)
{
	int shorter = width < height ? width : height;
	int wide = (int)((int64_t)size * width / shorter), high = (int)((int64_t)size * height / shorter);
	if (wide == width && high == height && wide == size && high == size) {
		memcpy(resized, plane, (size_t)size * (size_t)size);
		return ST_OK;
	}
	uint8_t *whole = malloc((size_t)wide * (size_t)high);
	if (whole == NULL || !stbir_resize_uint8_generic(plane, width, height, 0, whole, wide, high, 0, 1, STBIR_ALPHA_CHANNEL_NONE, 0,
		STBIR_EDGE_CLAMP, STBIR_FILTER_TRIANGLE, STBIR_COLORSPACE_LINEAR, NULL)) {
		free(whole);
		return FAIL(ST_MEMORY, "no memory to scale a picture of %d x %d", width, height);
	}
	/* CenterCrop rounds half a pixel to even, as Python does. */
	int left = (wide - size) / 2, top = (high - size) / 2;
	left += (wide - size) % 2 != 0 && left % 2 != 0;
	top += (high - size) % 2 != 0 && top % 2 != 0;
	for (int y = 0; y < size; y++)
		memcpy(resized + (size_t)y * (size_t)size, whole + (size_t)(top + y) * (size_t)wide + left, (size_t)size);
	free(whole);
	return ST_OK;
}

enum status image_resize(const uint8_t *planes, int width, int height, int size, uint8_t *resized)
{
	for (size_t c = 0; c < 3; c++)
		TRY(plane_resize(planes + c * (size_t)width * (size_t)height, width, height, size, resized + c * (size_t)size * (size_t)size));
	return ST_OK;
}

enum status image_decode(const uint8_t *bytes, size_t count, const char *name, int size, uint8_t *planes)
{
	enum status status = ST_OK;
	int width, height, channels;
	uint8_t *mixed = NULL, *apart = NULL;
	if (!image_sniff(bytes, count))
		return FAIL(ST_DATA, "%s: %zu bytes that are no PNG, JPEG or BMP picture", name, count);
	if (count > IMAGE_FILE_BYTES_MAX)
		return FAIL(ST_DATA, "%s: %zu bytes, a picture may have %d", name, count, IMAGE_FILE_BYTES_MAX);
	if (!stbi_info_from_memory(bytes, (int)count, &width, &height, &channels))
		return FAIL(ST_DATA, "%s: damaged picture, or a kind that is not read: %s", name, stbi_failure_reason());
	if (width < 1 || height < 1 || width > IMAGE_SIDE_MAX || height > IMAGE_SIDE_MAX || (int64_t)width * height * 4 > IMAGE_DECODE_BYTES_MAX ||
		width / height > size || height / width > size)
		return FAIL(ST_DATA, "%s: a picture of %d x %d pixels; at most %d a side, %d in all, and no thin strip", name, width, height, IMAGE_SIDE_MAX,
			IMAGE_DECODE_BYTES_MAX / 4);
	mixed = stbi_load_from_memory(bytes, (int)count, &width, &height, &channels, 3);
	if (mixed == NULL)
		return FAIL(ST_DATA, "%s: damaged picture, or cut off: %s", name, stbi_failure_reason());
	size_t area = (size_t)width * (size_t)height;
	apart = malloc(3 * area);
	if (apart == NULL) {
		status = FAIL(ST_MEMORY, "%s: no memory for a picture of %d x %d", name, width, height);
		goto done;
	}
	for (size_t i = 0; i < area; i++)
		for (size_t c = 0; c < 3; c++)
			apart[c * area + i] = mixed[3 * i + c];
	status = image_resize(apart, width, height, size, planes);
done:
	free(apart);
	stbi_image_free(mixed);
	return status;
}

struct png {
	uint8_t *bytes;
	size_t count;
	bool failed;
};

static void png_take(void *context, void *bytes, int count)
{
	struct png *png = context;
	uint8_t *larger = realloc(png->bytes, png->count + (size_t)count);
	if (larger == NULL) {
		png->failed = true;
		return;
	}
	memcpy(larger + png->count, bytes, (size_t)count);
	png->bytes = larger;
	png->count += (size_t)count;
}

enum status image_png_write(const uint8_t *planes, int width, int height, uint8_t **bytes, size_t *count)
{
	MUST(width > 0 && height > 0);
	size_t area = (size_t)width * (size_t)height;
	struct png png = {0};
	uint8_t *mixed = malloc(3 * area);
	if (mixed != NULL) {
		for (size_t i = 0; i < area; i++)
			for (size_t c = 0; c < 3; c++)
				mixed[3 * i + c] = planes[c * area + i];
		if (!stbi_write_png_to_func(png_take, &png, width, height, 3, mixed, 3 * width))
			png.failed = true;
	}
	free(mixed);
	if (png.failed || png.bytes == NULL) {
		free(png.bytes);
		return FAIL(ST_MEMORY, "no memory to write a picture of %d x %d", width, height);
	}
	*bytes = png.bytes;
	*count = png.count;
	return ST_OK;
}
