/* image.h: a picture file's bytes ↔ planar RGB.
 *
 * Planar means (C, H, W): all red, then all green, then all blue, each row-major. Sizes are bounded before anything is decoded. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	IMAGE_SIDE_MAX = 16384,             /* pixels, of a picture that is read */
	IMAGE_FILE_BYTES_MAX = 64 << 20,    /* of one picture file */
	IMAGE_DECODE_BYTES_MAX = 256 << 20, /* of any one piece of memory that decoding takes */
};

/* True if these first bytes (8 are enough) are those of a PNG, JPEG or BMP file. */
bool image_sniff(const uint8_t *bytes, size_t count);

/* Width and height of a picture file, read from its head. ST_DATA if the bytes are no such picture or too large a one; `name` is for the
 * sentence. */
enum status image_measure(const uint8_t *bytes, size_t count, const char *name, int *width, int *height);

/* Decodes PNG, JPEG or BMP (grey, CMYK and YCCK become RGB, transparency is dropped, 16 bits become 8), scales the shorter side to `size`
 * with a triangle filter and takes the centre: torchvision's Resize(size) and CenterCrop(size) of a Pillow picture, to the bit. Writes
 * 3 × size × size bytes to `planes`. A picture is taken as its file stores it, as Pillow's Image.open does: EXIF's orientation does not
 * turn it. ST_DATA as above. */
enum status image_decode(const uint8_t *bytes, size_t count, const char *name, int size, uint8_t *planes);

/* The same scaling and cropping for 3 planes of height × width. ST_MEMORY. */
enum status image_resize(const uint8_t *planes, int width, int height, int size, uint8_t *resized);

/* Encodes 3 planes of height × width as PNG. *bytes is malloc'ed; the caller frees it. ST_MEMORY. */
enum status image_png_write(const uint8_t *planes, int width, int height, uint8_t **bytes, size_t *count);
