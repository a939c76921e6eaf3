/* map.c: see map.h. */
#include "core/engine/map.h"

#include <stdbool.h>
#include <stdlib.h>

/* As many rows take no longer than the reading of their weights. */
enum { ROWS_FREE = 4 };

static int input_row(const struct map_shape *shape, int p, int r)
{
	return p * shape->stride - shape->padding_h + r;
}

static int input_column(const struct map_shape *shape, int q, int s)
{
	return q * shape->stride - shape->padding_w + s;
}

static bool meets_pixel(const struct map_shape *shape, int p, int q, int r, int s)
{
	int h = input_row(shape, p, r), w = input_column(shape, q, s);
	return h >= 0 && h < shape->H && w >= 0 && w < shape->W;
}

static void taps_find(struct map *map)
{
	const struct map_shape *shape = &map->shape;
	for (int r = 0; r < shape->R; r++)
		for (int s = 0; s < shape->S; s++) {
			bool live = false;
			for (int p = 0; p < shape->P; p++)
				for (int q = 0; q < shape->Q && !live; q++)
					live = meets_pixel(shape, p, q, r, s);
			if (!live)
				continue;
			map->tap[map->taps] = r * shape->S + s;
			map->tap_offset[map->taps++] = (ptrdiff_t)((size_t)r * shape->pitch + (size_t)s * shape->step);
		}
}

static uint64_t pixel_taps(const struct map *map, int p, int q)
{
	uint64_t taps = 0;
	for (size_t t = 0; t < map->taps; t++)
		taps |= (uint64_t)meets_pixel(&map->shape, p, q, map->tap[t] / map->shape.S, map->tap[t] % map->shape.S) << t;
	return taps;
}

/* Sorts one image's pixels by class; classes come in the order of their first pixel, rows of the map before columns. */
static void pixels_sort(struct map *map)
{
	const struct map_shape *shape = &map->shape;
	for (int p = 0; p < shape->P; p++)
		for (int q = 0; q < shape->Q; q++) {
			uint64_t taps = pixel_taps(map, p, q);
			size_t c = 0;
			while (c < map->classes_count && map->classes[c].taps != taps)
				c++;
			if (c == map->classes_count) {
				MUST(c < MAP_TAPS_MAX);
				map->classes[map->classes_count++] = (struct map_class){.taps = taps};
			}
			map->classes[c].count++;
		}
	size_t at = 0;
	for (size_t c = 0; c < map->classes_count; c++) {
		struct map_class *class = &map->classes[c];
		class->first = at;
		for (int p = 0; p < shape->P; p++)
			for (int q = 0; q < shape->Q; q++)
				if (pixel_taps(map, p, q) == class->taps)
					map->pixels[at++] = (struct map_row){
						.x = (ptrdiff_t)input_row(shape, p, 0) * (ptrdiff_t)shape->pitch + (ptrdiff_t)input_column(shape, q, 0) * (ptrdiff_t)shape->step,
						.y = (uint32_t)(p * shape->Q + q), .class = (uint32_t)c};
	}
}

enum status map_make(struct map *map, const struct map_shape *shape, size_t n_max, size_t rows_max)
{
	MUST(shape->R * shape->S <= MAP_TAPS_MAX);
	struct map made = {.shape = *shape, .rows_max = rows_max};
	size_t pixels = (size_t)shape->P * (size_t)shape->Q, rows = n_max * pixels, tiles = rows / rows_max + MAP_TAPS_MAX;
	made.pixels = malloc(pixels * sizeof *made.pixels);
	made.rows = malloc(rows * sizeof *made.rows);
	made.tiles = malloc(tiles * sizeof *made.tiles);
	made.bytes = (pixels + rows) * sizeof *made.rows + tiles * sizeof *made.tiles;
	if (made.pixels == NULL || made.rows == NULL || made.tiles == NULL) {
		map_free(&made);
		return FAIL(ST_MEMORY, "no memory for the plan of a layer: %zu bytes", made.bytes);
	}
	taps_find(&made);
	pixels_sort(&made);
	*map = made;
	return ST_OK;
}

void map_free(struct map *map)
{
	free(map->pixels);
	free(map->rows);
	free(map->tiles);
	*map = (struct map){0};
}

/* --- cutting -------------------------------------------------------------------------------------------------------- */

/* What is left of a class after its full tiles: its last `rows` rows. */
struct rest {
	size_t class, rows;
};

/* Appends rows [first, first + count) of a class, counted image after image. */
static void rows_add(struct map *map, size_t *end, size_t class_number, size_t first, size_t count)
{
	const struct map_class *class = &map->classes[class_number];
	size_t image_floats = (size_t)map->shape.H * map->shape.pitch, image_pixels = (size_t)map->shape.P * (size_t)map->shape.Q;
	for (size_t i = first; i < first + count; i++) {
		size_t image = i / class->count;
		struct map_row row = map->pixels[class->first + i % class->count];
		row.x += (ptrdiff_t)(image * image_floats);
		row.y += (uint32_t)(image * image_pixels);
		map->rows[(*end)++] = row;
	}
}

static size_t tile_cost(uint64_t taps, size_t rows)
{
	return (size_t)__builtin_popcountll(taps) * (rows < ROWS_FREE ? ROWS_FREE : rows);
}

/* Joins neighbouring rests into tiles such that the whole costs least; of equals the one with fewer tiles. */
static void rests_join(struct map *map, const struct rest *rests, size_t count, size_t *end)
{
	size_t cost[MAP_TAPS_MAX + 1] = {0}, from[MAP_TAPS_MAX + 1], next[MAP_TAPS_MAX + 1];
	for (size_t i = 1; i <= count; i++) {
		uint64_t taps = 0;
		size_t rows = 0;
		cost[i] = SIZE_MAX;
		for (size_t j = i; j-- > 0 && rows + rests[j].rows <= map->rows_max;) {
			taps |= map->classes[rests[j].class].taps;
			rows += rests[j].rows;
			if (cost[j] + tile_cost(taps, rows) <= cost[i]) {
				cost[i] = cost[j] + tile_cost(taps, rows);
				from[i] = j;
			}
		}
	}
	for (size_t i = count; i > 0; i = from[i])
		next[from[i]] = i;
	for (size_t i = 0; i < count; i = next[i]) {
		struct map_tile *tile = &map->tiles[map->tiles_count++];
		*tile = (struct map_tile){.first = (uint32_t)*end};
		for (size_t j = i; j < next[i]; j++) {
			const struct map_class *class = &map->classes[rests[j].class];
			tile->taps |= class->taps;
			rows_add(map, end, rests[j].class, map->n * class->count - rests[j].rows, rests[j].rows);
		}
		tile->rows = (uint32_t)*end - tile->first;
	}
}

void map_cut(struct map *map, size_t n)
{
	if (map->n == n)
		return;
	size_t rows_max = map->rows_max;
	struct rest rests[MAP_TAPS_MAX];
	size_t rests_count = 0, end = 0;
	map->n = n;
	map->tiles_count = 0;
	for (size_t c = 0; c < map->classes_count; c++) {
		size_t rows = n * map->classes[c].count, full = rows / rows_max * rows_max;
		for (size_t first = 0; first < full; first += rows_max)
			map->tiles[map->tiles_count++] = (struct map_tile){(uint32_t)(end + first), (uint32_t)rows_max, map->classes[c].taps};
		rows_add(map, &end, c, 0, full);
		if (rows > full)
			rests[rests_count++] = (struct rest){c, rows - full};
	}
	rests_join(map, rests, rests_count, &end);
}
