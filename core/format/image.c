/* image.c: see image.h. */
#include "core/format/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STBI_NO_STDIO
#include <stb_image.h>
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>

bool image_sniff(const uint8_t *bytes, size_t count)
{
	return (count >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0) || (count >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) ||
		(count >= 2 && memcmp(bytes, "BM", 2) == 0);
}

/* --- scaling --------------------------------------------------------------------------------------------------------- */

/* stb_image_resize stops the program at an assertion for some ordinary sizes (268 x 24 to 178 x 16), so scaling is done here: a triangle
 * filter as wide as the larger of the two pixels, weights in fixed point, columns first and then rows, each rounded to 8 bits. That is
 * what Pillow does, to the bit. */
enum { WEIGHT_BITS = 22 };

/* How the outputs first..first+count of a line of `length` pixels scaled to `scaled` are made from it. */
struct weights {
	int *from;       /* first pixel of each output */
	int *used;       /* how many pixels it takes */
	int32_t *values; /* width_max for each output */
	int width_max;
};

static void weights_free(struct weights *weights)
{
	free(weights->from);
	free(weights->used);
	free(weights->values);
}

static enum status weights_make(struct weights *weights, int length, int scaled, int first, int count)
{
	double scale = (double)length / scaled, reach = scale > 1 ? scale : 1;
	*weights = (struct weights){.width_max = 2 * (int)ceil(reach) + 1};
	weights->from = calloc((size_t)count, sizeof *weights->from);
	weights->used = calloc((size_t)count, sizeof *weights->used);
	weights->values = calloc((size_t)count * (size_t)weights->width_max, sizeof *weights->values);
	double *exact = calloc((size_t)weights->width_max, sizeof *exact);
	if (weights->from == NULL || weights->used == NULL || weights->values == NULL || exact == NULL) {
		weights_free(weights);
		free(exact);
		return FAIL(ST_MEMORY, "no memory to scale a picture");
	}
	for (int i = 0; i < count; i++) {
		double centre = (first + i + 0.5) * scale, sum = 0;
		int from = (int)(centre - reach + 0.5), end = (int)(centre + reach + 0.5);
		from = from > 0 ? from : 0;
		end = end < length ? end : length;
		for (int x = from; x < end; x++) {
			double distance = fabs((x - centre + 0.5) / reach);
			exact[x - from] = distance < 1 ? 1 - distance : 0;
			sum += exact[x - from];
		}
		for (int x = 0; x < end - from; x++)
			weights->values[(size_t)i * (size_t)weights->width_max + (size_t)x] = (int32_t)(exact[x] / sum * (1 << WEIGHT_BITS) + 0.5);
		weights->from[i] = from;
		weights->used[i] = end - from;
	}
	free(exact);
	return ST_OK;
}

/* Output i of a line whose pixels lie `step` bytes apart. */
static uint8_t weigh(const struct weights *weights, int i, const uint8_t *line, size_t step)
{
	const int32_t *values = weights->values + (size_t)i * (size_t)weights->width_max;
	const uint8_t *pixel = line + (size_t)weights->from[i] * step;
	int32_t sum = 1 << (WEIGHT_BITS - 1);
	for (int x = 0; x < weights->used[i]; x++)
		sum += pixel[(size_t)x * step] * values[x];
	sum >>= WEIGHT_BITS;
	return (uint8_t)(sum < 255 ? sum : 255);
}

/* Where CenterCrop starts: half of what is left over, half a pixel to the even side as Python rounds. */
static int crop_start(int scaled, int size)
{
	int half = (scaled - size) / 2;
	return half + ((scaled - size) % 2 != 0 && half % 2 != 0);
}

enum status image_resize(const uint8_t *planes, int width, int height, int size, uint8_t *resized)
{
	enum status status = ST_OK;
	/* Resize(size) keeps the picture's shape: the longer side becomes size · long / short, rounded down. */
	int shorter = width < height ? width : height;
	int wide = (int)((int64_t)size * width / shorter), high = (int)((int64_t)size * height / shorter);
	struct weights across = {0}, down = {0};
	uint8_t *narrow = malloc((size_t)height * (size_t)size);
	if (narrow == NULL) {
		status = FAIL(ST_MEMORY, "no memory to scale a picture of %d x %d", width, height);
		goto done;
	}
	TRY_DONE(weights_make(&across, width, wide, crop_start(wide, size), size));
	TRY_DONE(weights_make(&down, height, high, crop_start(high, size), size));
	for (size_t c = 0; c < 3; c++) {
		const uint8_t *plane = planes + c * (size_t)width * (size_t)height;
		for (int y = 0; y < height; y++)
			for (int x = 0; x < size; x++)
				narrow[(size_t)y * (size_t)size + (size_t)x] = weigh(&across, x, plane + (size_t)y * (size_t)width, 1);
		for (int y = 0; y < size; y++)
			for (int x = 0; x < size; x++)
				*resized++ = weigh(&down, y, narrow + x, (size_t)size);
	}
done:
	weights_free(&down);
	weights_free(&across);
	free(narrow);
	return status;
}

/* --- JPEG's tables --------------------------------------------------------------------------------------------------- */

/* A table of Huffman codes has at most 256 symbols; stb_image 2.27 takes up to 4080 and writes them over what lies behind. So no file
 * with a larger table reaches it. `at` is the table segment's length field. */
static bool huffman_is_sound(const uint8_t *bytes, size_t count, size_t at)
{
	if (count - at < 2)
		return true; /* cut off: refused later */
	size_t length = (size_t)bytes[at] << 8 | bytes[at + 1], done = 2;
	while (done < length && count - at > done && count - at - done >= 17) {
		size_t symbols = 0;
		for (size_t i = 1; i <= 16; i++)
			symbols += bytes[at + done + i];
		if (symbols > 256)
			return false;
		done += 17 + symbols;
	}
	return true;
}

/* Why stb gave up; it does not always say. */
static const char *decoder_reason(void)
{
	const char *reason = stbi_failure_reason();
	return reason != NULL && reason[0] != '\0' ? reason : "its decoder gives no reason";
}

/* Looks at every table that stb_image can come to. Up to the first scan the segments are walked by their lengths, as it does. From there
 * on it may take up the walk anywhere, so every 0xff 0xc4 counts: in a scan's data a 0xff is followed by no such byte. Nor by 0xd9, the
 * picture's end: without it the file is cut off, and stb_image would fill up with grey. Four components are inks; which ones, and that they
 * are inverted, is in Adobe's segment, and without it stb_image would drop the fourth and take the others for Y Cb Cr. */
static enum status jpeg_check(const uint8_t *bytes, size_t count, const char *name)
{
	enum { FRAME = 0xc0, FRAME_LAST = 0xc2, TABLES = 0xc4, SCAN = 0xda, END = 0xd9, ADOBE = 0xee };
	enum { COMPONENTS_AT = 7, TRANSFORM_AT = 13, CMYK = 0, YCCK = 2 };
	bool in_scan = false, ended = false, inks = false, inks_known = false;
	for (size_t at = 2; at + 1 < count;) {
		unsigned marker = bytes[at + 1];
		if (bytes[at] != 0xff || marker == 0xff) {
			at++;
			continue;
		}
		at += 2;
		if (marker == TABLES && !huffman_is_sound(bytes, count, at))
			return FAIL(ST_DATA, "%s: damaged picture: a Huffman table with more than 256 symbols", name);
		if (marker >= FRAME && marker <= FRAME_LAST && !in_scan && count - at > COMPONENTS_AT)
			inks = bytes[at + COMPONENTS_AT] == 4;
		if (marker == ADOBE && !in_scan && count - at > TRANSFORM_AT && memcmp(bytes + at + 2, "Adobe", 5) == 0)
			inks_known = bytes[at + TRANSFORM_AT] == CMYK || bytes[at + TRANSFORM_AT] == YCCK;
		ended = ended || (in_scan && marker == END);
		in_scan = in_scan || marker == SCAN;
		if (!in_scan && count - at >= 2)
			at += (size_t)bytes[at] << 8 | bytes[at + 1];
	}
	if (!ended)
		return FAIL(ST_DATA, "%s: damaged picture, or cut off: a JPEG file without its end", name);
	if (inks && !inks_known)
		return FAIL(ST_DATA, "%s: a JPEG file of four components that does not say (in an Adobe segment) whether they are CMYK or YCCK; save it as RGB", name);
	return ST_OK;
}

/* stb_image takes rows that are not there for black. */
static enum status bmp_check(const uint8_t *bytes, size_t count, int width, int height, const char *name)
{
	enum { OFFSET_AT = 10, HEAD_AT = 14, OLD_HEAD_BYTES = 12, OLD_BITS_AT = 24, BITS_AT = 28 };
	if (count < BITS_AT + 2)
		return FAIL(ST_DATA, "%s: damaged picture, or cut off: a BMP file of %zu bytes", name, count);
	size_t bits_at = bytes[HEAD_AT] == OLD_HEAD_BYTES ? OLD_BITS_AT : BITS_AT, bits = bytes[bits_at] | (size_t)bytes[bits_at + 1] << 8;
	size_t offset = bytes[OFFSET_AT] | (size_t)bytes[OFFSET_AT + 1] << 8 | (size_t)bytes[OFFSET_AT + 2] << 16 | (size_t)bytes[OFFSET_AT + 3] << 24;
	size_t row_bytes = ((size_t)width * bits + 31) / 32 * 4;
	if (offset > count || (size_t)height * row_bytes > count - offset)
		return FAIL(ST_DATA, "%s: damaged picture, or cut off: a BMP file of %zu bytes for %d x %d pixels", name, count, width, height);
	return ST_OK;
}

/* --- files ----------------------------------------------------------------------------------------------------------- */

enum status image_measure(const uint8_t *bytes, size_t count, const char *name, int *width, int *height)
{
	int wide, high, channels;
	if (!image_sniff(bytes, count))
		return FAIL(ST_DATA, "%s: %zu bytes that are no PNG, JPEG or BMP picture", name, count);
	if (count > IMAGE_FILE_BYTES_MAX)
		return FAIL(ST_DATA, "%s: %zu bytes, a picture may have %d", name, count, IMAGE_FILE_BYTES_MAX);
	if (bytes[0] == 0xff)
		TRY(jpeg_check(bytes, count, name));
	if (!stbi_info_from_memory(bytes, (int)count, &wide, &high, &channels))
		return FAIL(ST_DATA, "%s: damaged picture, more than %d pixels a side, or a kind that is not read: %s", name, IMAGE_SIDE_MAX, decoder_reason());
	if (wide < 1 || high < 1 || wide > IMAGE_SIDE_MAX || high > IMAGE_SIDE_MAX || (int64_t)wide * high * 4 > IMAGE_DECODE_BYTES_MAX)
		return FAIL(ST_DATA, "%s: a picture of %d x %d pixels; at most %d a side and %d in all", name, wide, high, IMAGE_SIDE_MAX,
			IMAGE_DECODE_BYTES_MAX / 4);
	if (bytes[0] == 'B')
		TRY(bmp_check(bytes, count, wide, high, name));
	*width = wide;
	*height = high;
	return ST_OK;
}

enum status image_decode(const uint8_t *bytes, size_t count, const char *name, int size, uint8_t *planes)
{
	enum status status = ST_OK;
	int width, height, channels;
	uint8_t *mixed = NULL, *apart = NULL;
	TRY(image_measure(bytes, count, name, &width, &height));
	mixed = stbi_load_from_memory(bytes, (int)count, &width, &height, &channels, 3);
	if (mixed == NULL)
		return FAIL(ST_DATA, "%s: damaged picture, or cut off: %s", name, decoder_reason());
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
