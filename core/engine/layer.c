/* layer.c: see layer.h. */
#include "core/engine/layer.h"

/* Weights that are read again for each tile of a task should lie in the second-level cache. */
enum { NEAR_BYTES = 384 << 10, TASKS_A_THREAD = 4 };

/* --- packing -------------------------------------------------------------------------------------------------------- */

struct packing {
	const struct layer *layer;
	const struct layer_source *source;
};

/* Block `index` of 32 outputs. */
static void pack_task(void *context, size_t index)
{
	const struct packing *packing = context;
	const struct layer *layer = packing->layer;
	const struct layer_source *source = packing->source;
	const struct map *map = layer->map;
	size_t C = source->C, S = source->S, RS = source->R * S, k_first = index * TILE_CHANNELS;
	size_t valid = source->K - k_first < TILE_CHANNELS ? source->K - k_first : TILE_CHANNELS;
	float *block = layer->weights + index * layer_block_floats(layer), *bias = layer->bias + k_first;
	double scale[TILE_CHANNELS] = {0};
	for (size_t k = 0; k < valid; k++)
		scale[k] = source->scale[k_first + k];
	for (size_t c = 0; c < C; c++)
		for (size_t t = 0; t < map->taps; t++)
			for (size_t s = 0; s < (source->rows_as_taps ? S : 1); s++) {
				size_t tap = source->rows_as_taps ? (size_t)map->tap[t] * S + s : (size_t)map->tap[t];
				float *to = block + (t * layer->depth + s * C + c) * TILE_CHANNELS;
				const float *from = source->w + (k_first * C + c) * RS + tap;
				for (size_t k = 0; k < valid; k++)
					to[k] = (float)((double)from[k * C * RS] * scale[k]);
				for (size_t k = valid; k < TILE_CHANNELS; k++)
					to[k] = 0;
			}
	/* Never −0: then a sum that a zero row has turned from −0 to 0 gives the same bits. */
	for (size_t k = 0; k < TILE_CHANNELS; k++)
		bias[k] = k < valid ? (float)source->bias[k_first + k] + 0.0f : 0.0f;
}

void layer_pack(const struct layer *layer, const struct layer_source *source, struct threads *threads)
{
	struct packing packing = {layer, source};
	threads_run(threads, pack_task, &packing, layer->blocks);
}

/* --- running -------------------------------------------------------------------------------------------------------- */

static void strip_compute(const struct layer_run *run, const struct map_tile *tile, size_t block, size_t blocks)
{
	const struct layer *layer = run->layer;
	const struct map *map = layer->map;
	const struct map_row *rows = map->rows + tile->first;
	float *const *buffers = run->work->buffers;
	const float *x[MAP_TAPS_MAX * STRIP_ROWS_MAX], *w[MAP_TAPS_MAX], *shortcut[STRIP_ROWS_MAX];
	float *y[STRIP_ROWS_MAX];
	size_t taps = 0, K = layer->blocks * TILE_CHANNELS;
	for (uint64_t left = tile->taps; left != 0; left &= left - 1, taps++) {
		size_t t = (size_t)__builtin_ctzll(left);
		w[taps] = layer->weights + block * layer_block_floats(layer) + t * layer->depth * TILE_CHANNELS;
		for (size_t m = 0; m < tile->rows; m++)
			x[taps * tile->rows + m] = map->classes[rows[m].class].taps >> t & 1 ? buffers[layer->x] + rows[m].x + map->tap_offset[t] : run->work->zeros;
	}
	for (size_t m = 0; m < tile->rows; m++) {
		size_t at = rows[m].y * K + block * TILE_CHANNELS;
		y[m] = buffers[layer->y] + at;
		shortcut[m] = layer->shortcut >= 0 ? buffers[layer->shortcut] + at : NULL;
	}
	const struct strip strip = {.rows = tile->rows, .taps = taps, .depth = layer->depth, .blocks = blocks, .x = x, .w = w,
		.w_step = layer_block_floats(layer), .bias = layer->bias + block * TILE_CHANNELS, .shortcut = layer->shortcut >= 0 ? shortcut : NULL,
		.relu = layer->relu, .y = y};
	run->work->kernels->strip(&strip);
}

static void run_task(void *context, size_t index)
{
	const struct layer_run *run = context;
	const struct layer *layer = run->layer;
	size_t block = index / run->chunks * run->blocks_together, chunk = index % run->chunks, tiles = layer->map->tiles_count;
	size_t blocks = layer->blocks - block < run->blocks_together ? layer->blocks - block : run->blocks_together;
	for (size_t t = tiles * chunk / run->chunks; t < tiles * (chunk + 1) / run->chunks; t++)
		strip_compute(run, &layer->map->tiles[t], block, blocks);
}

static size_t divide_up(size_t a, size_t b)
{
	return (a + b - 1) / b;
}

struct threads_step layer_step(const struct layer *layer, const struct layer_work *work, struct layer_run *run)
{
	size_t wanted = work->threads == 1 ? 1 : work->threads * TASKS_A_THREAD, tiles = layer->map->tiles_count;
	size_t together = NEAR_BYTES / (layer_block_floats(layer) * sizeof(float));
	together = together < 1 ? 1 : together > layer->blocks ? layer->blocks : together;
	while (together > 1 && divide_up(layer->blocks, together) * tiles < wanted)
		together = divide_up(together, 2);
	size_t groups = divide_up(layer->blocks, together), chunks = divide_up(wanted, groups);
	*run = (struct layer_run){layer, work, together, chunks < tiles ? chunks : tiles};
	return (struct threads_step){run_task, run, groups * run->chunks};
}
