/* map.h: which input pixels make which output pixels, and how the output is cut into strips.
 *
 * A convolution's output pixels fall into classes by the kernel taps that meet a pixel there, not padding: corners, edges, interior. A tile
 * is a few output pixels, of any images; it is computed with the taps that any of them needs, and a zero row stands in where a pixel does
 * not need one (x·0 adds nothing, to the bit). Full tiles are of one class; what is left of the classes is joined where that saves work.
 * Layers of equal shape share a map. Knows no weights, no threads. */
#pragma once

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { MAP_TAPS_MAX = 64 };

/* Input (h, w) of an image lies at h·pitch + w·step floats; output (p, q) reads rows p·stride − padding_h + r, columns
 * q·stride − padding_w + s. */
struct map_shape {
	int H, W, P, Q, R, S, stride, padding_h, padding_w;
	size_t pitch, step;
};

struct map_row {
	ptrdiff_t x;   /* where tap (0, 0) of this pixel lies in the input, in floats; may be outside of the image */
	uint32_t y;    /* the output pixel: image · P · Q + p · Q + q */
	uint32_t class;
};

struct map_tile {
	uint32_t first, rows;
	uint64_t taps; /* bit t: tap t is live in one of the rows */
};

struct map_class {
	size_t first, count; /* in pixels */
	uint64_t taps;
};

struct map {
	struct map_shape shape;
	/* Taps that meet a pixel somewhere, in the order of (r, s). Numbers of taps below are places in this list. */
	size_t taps;
	int tap[MAP_TAPS_MAX];              /* r · S + s */
	ptrdiff_t tap_offset[MAP_TAPS_MAX]; /* floats from tap (0, 0) */
	struct map_class classes[MAP_TAPS_MAX];
	size_t classes_count;
	struct map_row *pixels; /* of one image, by class */
	size_t rows_max; /* of a tile */
	/* For n images: */
	size_t n;
	struct map_row *rows;
	struct map_tile *tiles;
	size_t tiles_count;
	size_t bytes;
};

/* A map with room for n_max images, to be cut into tiles of at most rows_max rows; map_free releases it. ST_MEMORY. */
enum status map_make(struct map *map, const struct map_shape *shape, size_t n_max, size_t rows_max);
void map_free(struct map *map); /* accepts {0} */

/* Cuts the output of n ≤ n_max images into tiles. */
void map_cut(struct map *map, size_t n);
