/* Goal: a map's tiles cover every output pixel of every image once, with the input pixels and taps that it needs. Method: every shape of both
 * networks at several sizes, numbers of images and tile sizes, against the definition of a convolution; the cutting's promises on small cases. */
#include "core/engine/map.h"

#include "core/model/resnet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct map_shape shape_of(const struct unit *unit)
{
	return (struct map_shape){unit->H, unit->W, unit->P, unit->Q, unit->R, unit->S, unit->stride, unit->padding, unit->padding, (size_t)(unit->W * unit->C),
		(size_t)unit->C};
}

static bool meets(const struct map_shape *shape, int p, int q, int r, int s)
{
	int h = p * shape->stride - shape->padding_h + r, w = q * shape->stride - shape->padding_w + s;
	return h >= 0 && h < shape->H && w >= 0 && w < shape->W;
}

static void row_check(const struct map *map, const struct map_tile *tile, const struct map_row *row)
{
	const struct map_shape *shape = &map->shape;
	size_t pixels = (size_t)(shape->P * shape->Q), image = row->y / pixels, image_floats = (size_t)shape->H * shape->pitch;
	int p = (int)(row->y % pixels) / shape->Q, q = (int)(row->y % pixels) % shape->Q;
	uint64_t taps = map->classes[row->class].taps;
	for (int r = 0; r < shape->R; r++)
		for (int s = 0; s < shape->S; s++) {
			size_t t = 0;
			while (t < map->taps && map->tap[t] != r * shape->S + s)
				t++;
			bool needed = t < map->taps && taps >> t & 1;
			assert_int_equal(needed, meets(shape, p, q, r, s));
			if (!needed)
				continue;
			assert_true(tile->taps >> t & 1);
			int h = p * shape->stride - shape->padding_h + r, w = q * shape->stride - shape->padding_w + s;
			assert_true(row->x + map->tap_offset[t] == (ptrdiff_t)(image * image_floats + (size_t)h * shape->pitch + (size_t)w * shape->step));
		}
}

static void map_check(const struct map_shape *shape, size_t n_max, size_t rows_max)
{
	struct map map;
	size_t pixels = (size_t)(shape->P * shape->Q);
	uint8_t *seen = malloc(n_max * pixels);
	assert_non_null(seen);
	assert_int_equal(map_make(&map, shape, n_max, rows_max), ST_OK);
	/* Dead taps are not in the list, live ones are, once and in order. */
	for (size_t t = 1; t < map.taps; t++)
		assert_true(map.tap[t] > map.tap[t - 1]);
	for (size_t n = 1; n <= n_max; n++) {
		size_t rows = 0;
		memset(seen, 0, n_max * pixels);
		map_cut(&map, n);
		for (size_t i = 0; i < map.tiles_count; i++) {
			const struct map_tile *tile = &map.tiles[i];
			uint64_t taps = 0;
			assert_true(tile->rows >= 1 && tile->rows <= rows_max);
			for (size_t m = tile->first; m < tile->first + tile->rows; m++) {
				assert_true(map.rows[m].y < n * pixels);
				assert_int_equal(seen[map.rows[m].y]++, 0);
				taps |= map.classes[map.rows[m].class].taps;
				row_check(&map, tile, &map.rows[m]);
			}
			assert_true(taps == tile->taps);
			rows += tile->rows;
		}
		assert_int_equal(rows, n * pixels);
	}
	map_free(&map);
	free(seen);
}

static void every_pixel_is_made_once_of_what_it_needs(void **state)
{
	(void)state;
	static const int sizes[] = {8, 9, 24, 32, 40};
	static const size_t rows_max[] = {12, 6, 4, 1};
	for (int stem = STEM_IMAGENET; stem <= STEM_CIFAR; stem++)
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			struct network network;
			assert_int_equal(network_build(&network, (enum stem)stem, sizes[i], 10), ST_OK);
			for (int u = 0; u < RESNET_UNITS; u++) {
				struct map_shape shape = shape_of(&network.units[u]);
				map_check(&shape, shape.P > 8 ? 2 : 14, rows_max[(size_t)u % 4]);
			}
		}
	/* The image's rows as taps; more padding than map; a stride that skips pixels. */
	const struct map_shape odd[] = {{32, 38, 16, 16, 7, 1, 2, 3, 0, 38 * 3, 3}, {2, 2, 4, 3, 3, 4, 1, 2, 2, 64, 32}, {5, 5, 2, 2, 2, 2, 3, 0, 0, 160, 32}};
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
		map_check(&odd[i], 5, 12);
}

static size_t work(const struct map *map)
{
	size_t sum = 0;
	for (size_t i = 0; i < map->tiles_count; i++)
		sum += (size_t)__builtin_popcountll(map->tiles[i].taps) * map->tiles[i].rows;
	return sum;
}

/* A 2×2 map with a 3×3 kernel: each pixel needs four of the nine taps. */
static void few_rows_share_weights_and_many_skip_padding(void **state)
{
	(void)state;
	const struct map_shape shape = {2, 2, 2, 2, 3, 3, 1, 1, 1, 64, 32};
	struct map map;
	assert_int_equal(map_make(&map, &shape, 64, 12), ST_OK);
	assert_int_equal(map.taps, 9);
	assert_int_equal(map.classes_count, 4);
	map_cut(&map, 1);
	assert_int_equal(map.tiles_count, 1); /* weights are read once, for four rows */
	map_cut(&map, 12);
	assert_int_equal(map.tiles_count, 4);
	assert_int_equal(work(&map), 12 * 16); /* nothing is multiplied with padding */
	map_free(&map);
	/* A 1×1 map: only the kernel's middle is live. */
	const struct map_shape single = {1, 1, 1, 1, 3, 3, 1, 1, 1, 512, 512};
	assert_int_equal(map_make(&map, &single, 1, 12), ST_OK);
	assert_int_equal(map.taps, 1);
	assert_int_equal(map.tap[0], 4);
	map_free(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_pixel_is_made_once_of_what_it_needs),
		cmocka_unit_test(few_rows_share_weights_and_many_skip_padding),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
