/* engine.c: see engine.h. Plans a network as a list of layers over a few buffers, and runs the list. */
#include "core/engine/engine.h"

#include "core/base/memory.h"
#include "core/engine/layer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = RESNET_UNITS + 1, BUFFERS_MAX = 6, MAPS_MAX = LAYERS, IMAGE_CHANNELS = 3, DEPTH_MAX = 512, ALIGNMENT_FLOATS = 16 };

/* Activations of more images than this many bytes in the largest tensor are computed in parts, so that they stay in a near cache. */
enum { PART_BYTES = 4 << 20 };

struct engine {
	struct network network;
	const struct kernels *kernels;
	struct threads *threads;
	size_t part_max; /* images computed at a time */
	struct layer layers[LAYERS]; /* the units, then the head */
	struct map maps[MAPS_MAX];
	size_t maps_count;
	float *buffers[BUFFERS_MAX]; /* 0: the images, rows zero left and right */
	size_t buffer_floats[BUFFERS_MAX], buffers_count; /* of one image */
	int buffer_of[RESNET_TENSORS]; /* which buffer holds a tensor while it is needed */
	int features, logits;          /* buffers */
	float *zeros;  /* DEPTH_MAX */
	float *arena;  /* holds all weights and buffers */
	size_t arena_floats, bytes;
	char description[256];
	const float *const *images; /* of the part that is being run */
};

void engine_tensors(const struct params_layout *layout, const struct params *params, const float **tensors)
{
	for (int i = 0; i < layout->count; i++)
		tensors[i] = params_data(params, &layout->all[i]);
}

/* --- planning ------------------------------------------------------------------------------------------------------- */

static size_t image_pitch(const struct network *network)
{
	const struct unit *stem = &network->units[0];
	return (size_t)(stem->W + 2 * stem->padding) * IMAGE_CHANNELS;
}

static size_t tensor_floats(const struct network *network, int tensor)
{
	const struct tensor_shape *shape = &network->tensors[tensor];
	return tensor == 0 ? (size_t)shape->H * image_pitch(network) : (size_t)shape->C * (size_t)shape->H * (size_t)shape->W;
}

/* True if the tensor is still read when unit `u` has its turn (or the stem's pool, whose turn is with unit 0). */
static bool is_needed(const struct network *network, int tensor, int u)
{
	bool needed = tensor == network->head.x || (u == 0 && network->pool.present && tensor == network->pool.x);
	for (; u < RESNET_UNITS; u++)
		needed = needed || network->units[u].x == tensor || network->units[u].shortcut == tensor;
	return needed;
}

static void buffer_enlarge(struct engine *engine, int buffer, size_t floats)
{
	MUST(buffer < BUFFERS_MAX);
	if ((size_t)buffer == engine->buffers_count)
		engine->buffers_count++;
	engine->buffer_floats[buffer] = floats > engine->buffer_floats[buffer] ? floats : engine->buffer_floats[buffer];
}

/* Puts a tensor that is written in unit u's turn into the first buffer whose tensor nobody needs any more. */
static void buffer_take(struct engine *engine, int *holds, int tensor, int u)
{
	int b = 1;
	while (b < (int)engine->buffers_count && is_needed(&engine->network, holds[b], u))
		b++;
	buffer_enlarge(engine, b, tensor_floats(&engine->network, tensor));
	holds[b] = tensor;
	engine->buffer_of[tensor] = b;
}

/* The first buffer that is neither of two others. */
static int buffer_beside(struct engine *engine, int one, int two, size_t floats)
{
	int b = 1;
	while (b == one || b == two)
		b++;
	buffer_enlarge(engine, b, floats);
	return b;
}

static void buffers_plan(struct engine *engine)
{
	const struct network *network = &engine->network;
	const struct head *head = &network->head;
	int holds[BUFFERS_MAX] = {0};
	buffer_enlarge(engine, 0, tensor_floats(network, 0));
	for (int u = 0; u < RESNET_UNITS; u++) {
		buffer_take(engine, holds, network->units[u].y, u);
		if (u == 0 && network->pool.present)
			buffer_take(engine, holds, network->pool.y, u);
	}
	int last = engine->buffer_of[head->x];
	engine->features = head->H * head->W == 1 ? last : buffer_beside(engine, last, last, (size_t)head->C);
	engine->logits = buffer_beside(engine, last, engine->features, engine->layers[RESNET_UNITS].blocks * TILE_CHANNELS);
}

static struct map_shape unit_map_shape(const struct network *network, const struct unit *unit)
{
	struct map_shape shape = {unit->H, unit->W, unit->P, unit->Q, unit->R, unit->S, unit->stride, unit->padding, unit->padding,
		(size_t)unit->W * (size_t)unit->C, (size_t)unit->C};
	if (unit->x == 0) { /* a tap is a row of the kernel, whose pixels lie side by side */
		shape.W += 2 * unit->padding;
		shape.S = 1;
		shape.padding_w = 0;
		shape.pitch = image_pitch(network);
		shape.step = IMAGE_CHANNELS;
	}
	return shape;
}

static enum status map_find(struct engine *engine, const struct map_shape *shape, struct map **map)
{
	for (size_t i = 0; i < engine->maps_count; i++) {
		const struct map_shape *there = &engine->maps[i].shape;
		if (there->H == shape->H && there->W == shape->W && there->P == shape->P && there->Q == shape->Q && there->R == shape->R && there->S == shape->S &&
			there->stride == shape->stride && there->padding_h == shape->padding_h && there->padding_w == shape->padding_w &&
			there->pitch == shape->pitch && there->step == shape->step) {
			*map = &engine->maps[i];
			return ST_OK;
		}
	}
	*map = &engine->maps[engine->maps_count];
	TRY(map_make(*map, shape, engine->part_max, engine->kernels->strip_rows));
	engine->bytes += (*map)->bytes;
	engine->maps_count++;
	return ST_OK;
}

/* Everything of the layers but where they read and write. */
static enum status layers_plan(struct engine *engine)
{
	const struct network *network = &engine->network;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network->units[u];
		struct map_shape shape = unit_map_shape(network, unit);
		struct layer *layer = &engine->layers[u];
		*layer = (struct layer){.depth = (size_t)(unit->x == 0 ? unit->S * unit->C : unit->C), .blocks = (size_t)unit->K / TILE_CHANNELS,
			.shortcut = -1, .relu = unit->relu};
		MUST(layer->depth <= DEPTH_MAX && unit->K % TILE_CHANNELS == 0);
		TRY(map_find(engine, &shape, &layer->map));
	}
	const struct head *head = &network->head;
	const struct map_shape shape = {1, 1, 1, 1, 1, 1, 1, 0, 0, (size_t)head->C, (size_t)head->C};
	struct layer *layer = &engine->layers[RESNET_UNITS];
	*layer = (struct layer){.depth = (size_t)head->C, .blocks = ((size_t)head->classes + TILE_CHANNELS - 1) / TILE_CHANNELS, .shortcut = -1};
	return map_find(engine, &shape, &layer->map);
}

static void layers_connect(struct engine *engine)
{
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &engine->network.units[u];
		struct layer *layer = &engine->layers[u];
		layer->x = engine->buffer_of[unit->x];
		layer->y = engine->buffer_of[unit->y];
		layer->shortcut = unit->shortcut >= 0 ? engine->buffer_of[unit->shortcut] : -1;
	}
	engine->layers[RESNET_UNITS].x = engine->features;
	engine->layers[RESNET_UNITS].y = engine->logits;
}

/* Images computed at a time: the largest tensor of so many fits in PART_BYTES. */
static size_t part_size(const struct network *network, int batch_max)
{
	size_t largest = 1;
	for (int t = 0; t < network->tensors_count; t++)
		largest = tensor_floats(network, t) > largest ? tensor_floats(network, t) : largest;
	size_t images = PART_BYTES / (largest * sizeof(float));
	return images < 1 ? 1 : images > (size_t)batch_max ? (size_t)batch_max : images;
}

/* --- memory --------------------------------------------------------------------------------------------------------- */

/* Gives *floats its place in the arena, or only counts while there is no arena. */
static void place(struct engine *engine, size_t count, float **floats)
{
	*floats = engine->arena == NULL ? NULL : engine->arena + engine->arena_floats;
	engine->arena_floats += (count + ALIGNMENT_FLOATS - 1) / ALIGNMENT_FLOATS * ALIGNMENT_FLOATS;
}

static void memory_place(struct engine *engine)
{
	engine->arena_floats = 0;
	for (int l = 0; l < LAYERS; l++) {
		struct layer *layer = &engine->layers[l];
		place(engine, layer->blocks * layer_block_floats(layer), &layer->weights);
		place(engine, layer->blocks * TILE_CHANNELS, &layer->bias);
	}
	for (size_t b = 0; b < engine->buffers_count; b++)
		place(engine, engine->part_max * engine->buffer_floats[b], &engine->buffers[b]);
	place(engine, DEPTH_MAX, &engine->zeros);
}

static enum status memory_get(struct engine *engine, size_t bytes_max)
{
	memory_place(engine);
	size_t bytes = engine->arena_floats * sizeof(float);
	engine->bytes += bytes;
	if (bytes_max != 0 && engine->bytes > bytes_max)
		return FAIL(ST_MEMORY, "the network needs %.1f MB, %.1f MB are allowed", (double)engine->bytes / 1e6, (double)bytes_max / 1e6);
	engine->arena = aligned_alloc(ALIGNMENT_FLOATS * sizeof(float), bytes);
	if (engine->arena == NULL)
		return FAIL(ST_MEMORY, "no memory for the network: %.1f MB", (double)bytes / 1e6);
	memory_prefer_large_pages(engine->arena, bytes);
	memory_place(engine);
	memset(engine->buffers[0], 0, engine->part_max * engine->buffer_floats[0] * sizeof(float)); /* the images' borders */
	memset(engine->zeros, 0, DEPTH_MAX * sizeof(float));
	return ST_OK;
}

/* --- weights -------------------------------------------------------------------------------------------------------- */

/* Batch norm as a factor and a bias: y = (z − mean) · gamma / √(variance + ε) + beta. */
static void unit_pack(struct engine *engine, const struct engine_config *config, int u, double *scale, double *bias)
{
	const struct unit *unit = &engine->network.units[u];
	const float *gamma = config->tensors[config->layout->unit[u].gamma], *beta = config->tensors[config->layout->unit[u].beta];
	const float *mean = config->tensors[config->layout->unit[u].running_mean], *var = config->tensors[config->layout->unit[u].running_var];
	for (int k = 0; k < unit->K; k++) {
		scale[k] = (double)gamma[k] / sqrt((double)var[k] + NORM_EPSILON);
		bias[k] = (double)beta[k] - (double)mean[k] * scale[k];
	}
	const struct layer_source source = {.w = config->tensors[config->layout->unit[u].weight], .K = (size_t)unit->K, .C = (size_t)unit->C,
		.R = (size_t)unit->R, .S = (size_t)unit->S, .scale = scale, .bias = bias, .rows_as_taps = unit->x == 0};
	layer_pack(&engine->layers[u], &source, engine->threads);
}

static enum status weights_pack(struct engine *engine, const struct engine_config *config)
{
	const struct head *head = &engine->network.head;
	const float *head_bias = config->tensors[config->layout->head_bias];
	size_t widest = (size_t)head->classes;
	for (int u = 0; u < RESNET_UNITS; u++)
		widest = (size_t)engine->network.units[u].K > widest ? (size_t)engine->network.units[u].K : widest;
	double *constants = malloc(2 * widest * sizeof *constants), *scale = constants, *bias = constants + widest;
	if (constants == NULL)
		return FAIL(ST_MEMORY, "no memory for the constants of %zu channels", widest);
	for (int u = 0; u < RESNET_UNITS; u++)
		unit_pack(engine, config, u, scale, bias);
	for (int k = 0; k < head->classes; k++) {
		scale[k] = 1;
		bias[k] = (double)head_bias[k];
	}
	const struct layer_source source = {.w = config->tensors[config->layout->head_weight], .K = (size_t)head->classes, .C = (size_t)head->C,
		.R = 1, .S = 1, .scale = scale, .bias = bias};
	layer_pack(&engine->layers[RESNET_UNITS], &source, engine->threads);
	free(constants);
	return ST_OK;
}

/* --- open and close ------------------------------------------------------------------------------------------------- */

static void describe(struct engine *engine)
{
	double macs = (double)engine->network.head.C * engine->network.head.classes;
	for (int u = 0; u < RESNET_UNITS; u++)
		macs += (double)unit_macs_live(&engine->network.units[u]);
	snprintf(engine->description, sizeof engine->description, "resnet34, %s stem, %dx%d, fp32 on %s, %u threads, %.1f million multiply-accumulates an image, %.1f MB",
		stem_name(engine->network.stem), engine->network.image_size, engine->network.image_size, engine->kernels->name, threads_count(engine->threads),
		macs / 1e6, (double)engine->bytes / 1e6);
}

enum status engine_open(const struct engine_config *config, struct engine **engine)
{
	enum status status = ST_OK;
	enum cpu cpu;
	TRY(cpu_choose(&cpu));
	if (config->batch_max < 1)
		return FAIL(ST_SETTINGS, "a batch of at most %d images: must be 1 or more", config->batch_max);
	struct engine *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for an engine");
	made->network = *config->network;
	made->kernels = kernels_find(cpu);
	made->threads = config->threads;
	made->part_max = part_size(&made->network, config->batch_max);
	made->bytes = sizeof *made;
	TRY_DONE(layers_plan(made));
	buffers_plan(made);
	layers_connect(made);
	TRY_DONE(memory_get(made, config->bytes_max));
	TRY_DONE(weights_pack(made, config));
	describe(made);
	*engine = made;
	made = NULL;
done:
	engine_close(made);
	return status;
}

void engine_close(struct engine *engine)
{
	if (engine == NULL)
		return;
	for (size_t m = 0; m < engine->maps_count; m++)
		map_free(&engine->maps[m]);
	free(engine->arena);
	free(engine);
}

size_t engine_bytes(const struct engine *engine)
{
	return engine->bytes;
}

const char *engine_description(const struct engine *engine)
{
	return engine->description;
}

/* --- running -------------------------------------------------------------------------------------------------------- */

/* An image, planar → channels side by side, between the zero borders. */
static void gather_task(void *context, size_t image)
{
	const struct engine *engine = context;
	const struct unit *stem = &engine->network.units[0];
	size_t H = (size_t)stem->H, W = (size_t)stem->W, pitch = image_pitch(&engine->network);
	for (size_t h = 0; h < H; h++) {
		const float *from = engine->images[image] + h * W;
		float *to = engine->buffers[0] + (image * H + h) * pitch + (size_t)stem->padding * IMAGE_CHANNELS;
		for (size_t w = 0; w < W; w++)
			for (size_t c = 0; c < IMAGE_CHANNELS; c++)
				to[w * IMAGE_CHANNELS + c] = from[c * H * W + w];
	}
}

/* Output row p of the stem's pool. */
static void pool_task(void *context, size_t index)
{
	const struct engine *engine = context;
	const struct stem_pool *pool = &engine->network.pool;
	size_t C = (size_t)pool->C, H = (size_t)pool->H, W = (size_t)pool->W, P = (size_t)pool->P, image = index / P;
	const float *x = engine->buffers[engine->buffer_of[pool->x]] + image * H * W * C;
	float *y = engine->buffers[engine->buffer_of[pool->y]] + index * (size_t)pool->Q * C;
	for (int q = 0; q < pool->Q; q++) {
		const float *pixels[9];
		size_t count = 0;
		for (int h = (int)(index % P) * 2 - 1, h_end = h + 3; h < h_end; h++)
			for (int w = q * 2 - 1, w_end = w + 3; w < w_end; w++)
				if (h >= 0 && h < pool->H && w >= 0 && w < pool->W)
					pixels[count++] = x + ((size_t)h * W + (size_t)w) * C;
		engine->kernels->maximum_rows(pixels, count, C, y + (size_t)q * C);
	}
}

/* Global average of an image. */
static void average_task(void *context, size_t image)
{
	const struct engine *engine = context;
	const struct head *head = &engine->network.head;
	size_t C = (size_t)head->C, pixels = (size_t)head->H * (size_t)head->W;
	const float *x = engine->buffers[engine->buffer_of[head->x]] + image * pixels * C;
	float *y = engine->buffers[engine->features] + image * C;
	memcpy(y, x, C * sizeof *y);
	for (size_t i = 1; i < pixels; i++)
		for (size_t c = 0; c < C; c++)
			y[c] += x[i * C + c];
	for (size_t c = 0; c < C; c++)
		y[c] /= (float)pixels;
}

static void logits_write(const struct engine *engine, size_t n, float *logits)
{
	size_t classes = (size_t)engine->network.head.classes, K = engine->layers[RESNET_UNITS].blocks * TILE_CHANNELS;
	for (size_t i = 0; i < n; i++)
		memcpy(logits + i * classes, engine->buffers[engine->logits] + i * K, classes * sizeof *logits);
}

static void part_run(struct engine *engine, const float *const *images, size_t n)
{
	const struct network *network = &engine->network;
	const struct layer_work work = {engine->kernels, engine->buffers, engine->zeros, threads_count(engine->threads)};
	struct layer_run runs[LAYERS];
	struct threads_step steps[LAYERS + 3];
	size_t count = 0;
	engine->images = images;
	for (size_t m = 0; m < engine->maps_count; m++)
		map_cut(&engine->maps[m], n);
	steps[count++] = (struct threads_step){gather_task, engine, n};
	for (int l = 0; l < LAYERS; l++) {
		if (l == RESNET_UNITS && engine->features != engine->buffer_of[network->head.x])
			steps[count++] = (struct threads_step){average_task, engine, n};
		steps[count++] = layer_step(&engine->layers[l], &work, &runs[l]);
		if (l == 0 && network->pool.present)
			steps[count++] = (struct threads_step){pool_task, engine, n * (size_t)network->pool.P};
	}
	threads_run_steps(engine->threads, steps, count);
}

void engine_run(struct engine *engine, const float *const *images, size_t n, float *logits)
{
	size_t parts = (n + engine->part_max - 1) / engine->part_max, classes = (size_t)engine->network.head.classes;
	for (size_t i = 0; i < parts; i++) {
		size_t first = n * i / parts, count = n * (i + 1) / parts - first;
		part_run(engine, images + first, count);
		logits_write(engine, count, logits + first * classes);
	}
}
