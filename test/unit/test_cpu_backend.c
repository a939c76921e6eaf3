/* test_cpu_backend.c: the cpu backend against ref, on every instruction set that this machine has.
 *
 * Method, from the inside out:
 * - convolutions: each pass on every unit's shape of both stems and on odd ones, against double sums at chosen outputs, with a tolerance
 *   derived from the sum's length; everything that a pass may not read is NaN, and so is its output before;
 * - units: fed with ref's own activations and gradients, so that each is judged alone, by the distance of whole tensors;
 * - steps: two whole training steps, an evaluation, the EMA;
 * - what must be exact is compared bit by bit: thread counts, postponed updates, the way in and out of the packed layout. */
#include "core/backend/cpu/cpu_backend.h"
#include "core/base/random.h"
#include "train/step.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CLASSES = 7, IMAGES = 40 };
static const double EPSILON = 0x1p-24;

/* --- a backend with a network and data ------------------------------------------------------------------------------ */

struct bed {
	struct network network;
	struct params_layout layout;
	struct threads *threads;
	struct images images;
	struct sample samples[IMAGES];
};

struct runner {
	struct machine machine;
	struct backend_config config;
};

static void *zeros(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);
	assert_non_null(memory);
	return memory;
}

/* Uniform in ±1 from a quick generator (Marsaglia, "Xorshift RNGs", 2003): tens of millions are needed. `word` is not 0. */
static float uniform(uint32_t *word)
{
	*word ^= *word << 13;
	*word ^= *word >> 17;
	*word ^= *word << 5;
	return (float)(*word >> 8) * 0x1p-23f - 1;
}

static void bed_open(struct bed *bed, enum stem stem, int size, unsigned threads)
{
	assert_int_equal(network_build(&bed->network, stem, size, CLASSES), ST_OK);
	params_layout_build(&bed->layout, &bed->network);
	assert_int_equal(threads_open(threads, &bed->threads), ST_OK);
	size_t count = (size_t)(IMAGES * 3 * size * size);
	uint8_t *pixels = zeros(count, 1);
	uint16_t *labels = zeros(IMAGES, sizeof *labels);
	struct random_stream stream = random_open(3, RANDOM_TEST, 0, 0);
	for (size_t i = 0; i < count; i++)
		pixels[i] = (uint8_t)random_u32(&stream);
	for (int i = 0; i < IMAGES; i++)
		labels[i] = (uint16_t)random_below(&stream, CLASSES);
	bed->images = (struct images){pixels, labels, IMAGES, size};
	for (uint32_t i = 0; i < IMAGES; i++)
		bed->samples[i] = (struct sample){.image.index = i, .weight = 1};
	/* One of each kind of mixing. */
	bed->samples[1] = (struct sample){.image = {.index = 1, .flip = true}, .partner.index = 5, .weight = 0.7f};
	bed->samples[2] = (struct sample){.image = {.index = 2, .shift_x = 2, .shift_y = -1}, .partner.index = 9, .weight = 0.75f, .cut_width = 4, .cut_height = 4};
}

static void bed_close(struct bed *bed)
{
	threads_close(bed->threads);
	free((void *)(uintptr_t)bed->images.pixels);
	free((void *)(uintptr_t)bed->images.labels);
}

static void runner_open(struct runner *runner, const struct bed *bed, const struct backend *backend, const char *cpu, int batch, bool ema)
{
	assert_int_equal(setenv("SMELT_CPU", cpu, 1), 0);
	runner->config = (struct backend_config){.network = &bed->network, .layout = &bed->layout, .batch_max = batch,
		.normalization = {{0.5f, 0.4f, 0.3f}, {0.2f, 0.25f, 0.3f}}, .threads = bed->threads, .ema = ema, .training = true};
	runner->machine = (struct machine){.backend = backend, .network = &bed->network};
	assert_int_equal(backend->open(&runner->config, &runner->machine.state), ST_OK);
}

static void runner_close(struct runner *runner)
{
	runner->machine.backend->close(runner->machine.state);
}

static void state_alloc(struct training_state *state, const struct params_layout *layout, bool ema)
{
	*state = (struct training_state){0};
	assert_int_equal(params_alloc(&state->params, layout), ST_OK);
	state->momentum = zeros(layout->weights_count, sizeof(float));
	if (ema)
		assert_int_equal(params_alloc(&state->ema, layout), ST_OK);
}

static void state_free(struct training_state *state)
{
	params_free(&state->params);
	params_free(&state->ema);
	free(state->momentum);
}

/* Everything random: convolutions and head uniform with the deviation √(2 / fan-in), beta and running means in ±0.5, gamma and
 * running variances in 0.5 … 1.5, but a fifth of that for the gamma before a shortcut: then blocks are nearly the identity and the network
 * magnifies rounding errors less. */
static void state_random(struct training_state *state, const struct bed *bed)
{
	for (int i = 0; i < bed->layout.count; i++) {
		const struct param *param = &bed->layout.all[i];
		bool weight = param->kind == PARAM_CONVOLUTION || param->kind == PARAM_HEAD_WEIGHT;
		bool about_one = param->kind == PARAM_NORM_WEIGHT || param->kind == PARAM_RUNNING_VAR;
		float scale = weight ? sqrtf(6.0f * (float)param->shape[0] / (float)param->count) : 0.5f;
		uint32_t word = 77777 + (uint32_t)i;
		float *data = params_data(&state->params, param);
		for (size_t j = 0; j < param->count; j++) {
			data[j] = scale * uniform(&word) + (about_one ? 1 : 0);
			if (param->kind == PARAM_NORM_WEIGHT && bed->network.units[param->unit].shortcut >= 0)
				data[j] *= 0.2f;
			if (!param_is_buffer(param))
				state->momentum[param->offset + j] = 1e-4f * uniform(&word);
		}
	}
}

/* --- comparing ------------------------------------------------------------------------------------------------------ */

static double used_max;

/* Distance of two tensors, as a share of the wanted one's length, against a tolerance that must itself be small. */
static void check_near(const float *found, const float *wanted, size_t count, double tolerance, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
static void check_near(const float *found, const float *wanted, size_t count, double tolerance, const char *format, ...)
{
	double distance = 0, length = 0;
	for (size_t i = 0; i < count; i++) {
		distance += ((double)found[i] - (double)wanted[i]) * ((double)found[i] - (double)wanted[i]);
		length += (double)wanted[i] * (double)wanted[i];
	}
	assert_true(tolerance < 0.01);
	double used = length > 0 ? sqrt(distance / length) / tolerance : distance;
	if (!(used <= 1)) {
		char what[128];
		va_list arguments;
		va_start(arguments, format);
		vsnprintf(what, sizeof what, format, arguments);
		va_end(arguments);
		fail_msg("%s: %.2f times the tolerance of %.2g", what, used, tolerance);
	}
	used_max = used > used_max ? used : used_max;
}

static void used_print(const char *what)
{
	print_message("%s: %.3f of the tolerance used\n", what, used_max);
	used_max = 0;
}

static size_t tensor_floats(const struct bed *bed, int tensor, int n)
{
	const struct tensor_shape *shape = &bed->network.tensors[tensor];
	return (size_t)n * (size_t)(shape->C * shape->H * shape->W);
}

static float *tensor_copy(const struct runner *runner, const struct bed *bed, int tensor, bool gradient, int n)
{
	float *values = zeros(tensor_floats(bed, tensor, n), sizeof(float));
	assert_int_equal(runner->machine.backend->tensor_read(runner->machine.state, tensor, gradient, values), ST_OK);
	return values;
}

/* --- convolutions --------------------------------------------------------------------------------------------------- */

static void fill(float *values, size_t count, float value)
{
	for (size_t i = 0; values != NULL && i < count; i++)
		values[i] = value;
}

/* The place of image n, channel c at (h, w) of a tensor; of the image tensor too. */
static size_t place(const struct backend_state *state, int tensor, size_t n, size_t c, size_t h, size_t w)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	size_t block = n / TILE_IMAGES, image = n % TILE_IMAGES;
	if (tensor == 0)
		return ((block * (size_t)shape->H + h) * TILE_IMAGES + image) * state->image_row + (w + state->image_padding) * 3 + c;
	return pixel_offset(shape, block, h, w) + c / TILE_CHANNELS * TILE_FLOATS + image * TILE_CHANNELS + c % TILE_CHANNELS;
}

/* Random values for the batch's images, NaN for what lies beside them in the last block. */
static void tensor_fill(const struct backend_state *state, int tensor, float *values, uint32_t seed)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	uint32_t word = seed;
	if (tensor != 0)
		fill(values, state->blocks_max * tensor_block_floats(shape), NAN);
	for (size_t n = 0; n < state->n; n++)
		for (size_t h = 0; h < (size_t)shape->H; h++)
			for (size_t w = 0; w < (size_t)shape->W; w++)
				for (size_t c = 0; c < (size_t)shape->C; c++)
					values[place(state, tensor, n, c, h, w)] = uniform(&word);
}

struct convolution_case {
	struct backend_state *state;
	const struct unit *unit;
	const float *x, *w, *dz;
};

static size_t weight_place(const struct unit *unit, size_t k, size_t c, size_t r, size_t s)
{
	size_t taps = (size_t)(unit->R * unit->S);
	return ((k / TILE_CHANNELS * taps + r * (size_t)unit->S + s) * (size_t)unit->C + c) * TILE_CHANNELS + k % TILE_CHANNELS;
}

/* The input pixel that tap (r, s) of output (p, q) meets; false in the padding. */
static bool meets(const struct unit *unit, size_t p, size_t q, size_t r, size_t s, size_t *h, size_t *w)
{
	int row = (int)(p * (size_t)unit->stride + r) - unit->padding, column = (int)(q * (size_t)unit->stride + s) - unit->padding;
	*h = (size_t)row;
	*w = (size_t)column;
	return row >= 0 && row < unit->H && column >= 0 && column < unit->W;
}

static double forward_sum(const struct convolution_case *it, size_t n, size_t k, size_t p, size_t q)
{
	double sum = 0;
	size_t h, w;
	for (size_t r = 0; r < (size_t)it->unit->R; r++)
		for (size_t s = 0; s < (size_t)it->unit->S; s++)
			for (size_t c = 0; meets(it->unit, p, q, r, s, &h, &w) && c < (size_t)it->unit->C; c++)
				sum += (double)it->x[place(it->state, it->unit->x, n, c, h, w)] * (double)it->w[weight_place(it->unit, k, c, r, s)];
	return sum;
}

static double weight_gradient_sum(const struct convolution_case *it, size_t k, size_t c, size_t r, size_t s)
{
	double sum = 0;
	size_t h, w;
	for (size_t n = 0; n < it->state->n; n++)
		for (size_t p = 0; p < (size_t)it->unit->P; p++)
			for (size_t q = 0; q < (size_t)it->unit->Q; q++)
				if (meets(it->unit, p, q, r, s, &h, &w))
					sum += (double)it->x[place(it->state, it->unit->x, n, c, h, w)] * (double)it->dz[place(it->state, it->unit->y, n, k, p, q)];
	return sum;
}

static double input_gradient_sum(const struct convolution_case *it, size_t n, size_t c, size_t h, size_t w)
{
	double sum = 0;
	size_t row, column;
	for (size_t p = 0; p < (size_t)it->unit->P; p++)
		for (size_t q = 0; q < (size_t)it->unit->Q; q++)
			for (size_t r = 0; r < (size_t)it->unit->R; r++)
				for (size_t s = 0; s < (size_t)it->unit->S; s++)
					if (meets(it->unit, p, q, r, s, &row, &column) && row == h && column == w)
						for (size_t k = 0; k < (size_t)it->unit->K; k++)
							sum += (double)it->w[weight_place(it->unit, k, c, r, s)] * (double)it->dz[place(it->state, it->unit->y, n, k, p, q)];
	return sum;
}

/* Terms are at most 1. */
static void check_sum(float found, double wanted, double terms)
{
	double tolerance = (terms + 1) * EPSILON + EPSILON;
	assert_true(tolerance < 0.01);
	double used = fabs((double)found - wanted) / tolerance;
	if (!(used <= 1))
		fail_msg("found %.9g, wanted %.9g: %.2f times the tolerance", (double)found, wanted, used);
	used_max = used > used_max ? used : used_max;
}

static size_t below(struct random_stream *stream, int bound)
{
	return random_below(stream, (uint32_t)bound);
}

/* The three passes of one unit at `samples` random outputs each, the last of each axis among them. */
static void convolution_check(struct backend_state *state, int index, int samples)
{
	const struct unit *unit = &state->config.network->units[index];
	const struct params_layout *layout = state->config.layout;
	float *x = state->y[unit->x], *dz = state->z[index], *w = state->weights + layout->all[layout->unit[index].weight].offset;
	float *dw = state->gradients + layout->all[layout->unit[index].weight].offset, *z = state->dy[unit->y], *dx = state->dy[unit->x];
	size_t count = layout->all[layout->unit[index].weight].count, blocks = state->blocks;
	tensor_fill(state, unit->x, x, 2021);
	tensor_fill(state, unit->y, dz, 2022);
	struct random_stream stream = random_open(23, RANDOM_TEST, 0, 0);
	uint32_t word = 2023;
	for (size_t i = 0; i < count; i++)
		w[i] = uniform(&word);
	for (int r = 0; r < unit->R; r++) /* dead taps are read nowhere; their gradient is the zero that it was */
		for (int s = 0; s < unit->S; s++)
			for (size_t k = 0; k < (size_t)unit->K; k++)
				for (size_t c = 0; c < (size_t)unit->C; c++) {
					bool dead = unit_tap_uses(unit, r, s) == 0;
					if (dead)
						w[weight_place(unit, k, c, (size_t)r, (size_t)s)] = NAN;
					dw[weight_place(unit, k, c, (size_t)r, (size_t)s)] = dead ? 0 : NAN;
				}
	struct convolution_case it = {state, unit, x, w, dz};

	fill(z, state->blocks_max * tensor_block_floats(&state->config.network->tensors[unit->y]), NAN);
	for (size_t kt = 0; kt < (size_t)unit->K / TILE_CHANNELS; kt++)
		for (size_t row = 0; row < blocks * (size_t)unit->P; row++)
			convolution_row(state, unit, w, kt, row / (size_t)unit->P, row % (size_t)unit->P, z);
	convolution_weight_gradient(state, unit, dz, dw);
	if (unit->x != 0) {
		fill(dx, state->blocks_max * tensor_block_floats(&state->config.network->tensors[unit->x]), NAN);
		convolution_input_gradient(state, unit, w, dz, false);
	}
	for (int i = 0; i < samples; i++) {
		bool last = i == 0;
		size_t n = last ? state->n - 1 : random_below(&stream, (uint32_t)state->n), k = last ? (size_t)unit->K - 1 : below(&stream, unit->K);
		size_t c = last ? (size_t)unit->C - 1 : below(&stream, unit->C), p = last ? (size_t)unit->P - 1 : below(&stream, unit->P);
		size_t q = last ? (size_t)unit->Q - 1 : below(&stream, unit->Q), h = last ? (size_t)unit->H - 1 : below(&stream, unit->H);
		size_t u = last ? (size_t)unit->W - 1 : below(&stream, unit->W), r = below(&stream, unit->R), s = below(&stream, unit->S);
		check_sum(z[place(state, unit->y, n, k, p, q)], forward_sum(&it, n, k, p, q), (double)(unit->C * unit->R * unit->S));
		check_sum(dw[weight_place(unit, k, c, r, s)], weight_gradient_sum(&it, k, c, r, s), (double)(state->n * (size_t)(unit->P * unit->Q)));
		if (unit->x != 0) {
			float *to = &dx[place(state, unit->x, n, c, h, u)];
			check_sum(*to, input_gradient_sum(&it, n, c, h, u), (double)(unit->K * unit->R * unit->S));
		}
	}
	/* Nothing was left out: every output of the batch's images is a number. */
	for (size_t i = 0; i < count; i++)
		assert_false(isnan(dw[i]));
	for (size_t n = 0; n < state->n; n++) {
		for (size_t i = 0; i < (size_t)(unit->K * unit->P * unit->Q); i++)
			assert_false(isnan(z[place(state, unit->y, n, i % (size_t)unit->K, i / (size_t)(unit->K * unit->Q), i / (size_t)unit->K % (size_t)unit->Q)]));
		for (size_t i = 0; unit->x != 0 && i < (size_t)(unit->C * unit->H * unit->W); i++)
			assert_false(isnan(dx[place(state, unit->x, n, i % (size_t)unit->C, i / (size_t)(unit->C * unit->W), i / (size_t)unit->C % (size_t)unit->W)]));
	}
	/* Added to, when asked: exactly twice. */
	if (unit->x != 0) {
		size_t at = place(state, unit->x, state->n - 1, 0, 0, 0);
		float once = dx[at];
		dx[at] = 2;
		convolution_input_gradient(state, unit, w, dz, true);
		check_sum(dx[at], 2 + (double)once, 8.0 * unit->K * unit->R * unit->S + 8); /* partial sums are larger than 1 here */
	}
}

static bool shape_seen(const struct network *network, int index)
{
	const struct unit *unit = &network->units[index];
	for (int u = 0; u < index; u++) {
		const struct unit *other = &network->units[u];
		if (unit->C == other->C && unit->K == other->K && unit->H == other->H && unit->W == other->W && unit->R == other->R && unit->S == other->S
			&& unit->stride == other->stride && unit->padding == other->padding && (unit->x == 0) == (other->x == 0))
			return true;
	}
	return false;
}

static void convolutions_check(const struct bed *bed, const char *cpu, int n, int samples)
{
	struct runner runner;
	runner_open(&runner, bed, &backend_cpu, cpu, n, false);
	assert_int_equal(backend_cpu.batch_begin(runner.machine.state, n, false, WHICH_WEIGHTS), ST_OK);
	for (int u = 0; u < RESNET_UNITS; u++)
		if (!shape_seen(&bed->network, u))
			convolution_check(runner.machine.state, u, samples);
	runner_close(&runner);
}

static const char *cpu_of(void **state)
{
	return cpu_word(*(const enum cpu *)*state);
}

/* Under a sanitizer everything is tens of times slower. */
#if defined __SANITIZE_ADDRESS__
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif

static void test_convolutions_of_resnet(void **state)
{
	for (int stem = 0; stem < 2; stem++) {
		struct bed bed;
		bed_open(&bed, (enum stem)stem, SLOW && stem == STEM_CIFAR ? 16 : 32, 0);
		convolutions_check(&bed, cpu_of(state), SLOW || stem == STEM_CIFAR ? 5 : 37, SLOW ? 3 : 20);
		bed_close(&bed);
	}
	used_print("convolutions of both stems");
}

/* A table of small units, each on a tensor of its own shape: odd maps, kernels and strides. */
static void odd_network(struct network *network)
{
	static const struct unit odd[] = {
		{.C = 3, .H = 9, .W = 9, .K = 32, .P = 5, .Q = 5, .R = 5, .S = 5, .stride = 2, .padding = 2},
		{.C = 32, .H = 5, .W = 5, .K = 96, .P = 2, .Q = 2, .R = 2, .S = 2, .stride = 2, .padding = 0}, /* reaches not every pixel */
		{.C = 96, .H = 2, .W = 2, .K = 32, .P = 4, .Q = 3, .R = 3, .S = 4, .stride = 1, .padding = 2}, /* more padding than map */
		{.C = 32, .H = 4, .W = 3, .K = 64, .P = 2, .Q = 1, .R = 1, .S = 1, .stride = 3, .padding = 0},
		{.C = 64, .H = 2, .W = 1, .K = 64, .P = 2, .Q = 1, .R = 3, .S = 3, .stride = 1, .padding = 1}, /* dead columns */
		{.C = 64, .H = 2, .W = 1, .K = 32, .P = 1, .Q = 1, .R = 7, .S = 7, .stride = 4, .padding = 3},
	};
	enum { ODD = sizeof odd / sizeof odd[0] };
	*network = (struct network){.stem = STEM_CIFAR, .image_size = 9, .tensors_count = RESNET_UNITS + 1};
	network->tensors[0] = (struct tensor_shape){3, 9, 9};
	for (int u = 0; u < RESNET_UNITS; u++) {
		/* The rest of the table: 1×1 convolutions of the last tensor. */
		struct unit *unit = &network->units[u];
		*unit = u < ODD ? odd[u] : (struct unit){.C = 32, .H = 1, .W = 1, .K = 32, .P = 1, .Q = 1, .R = 1, .S = 1, .stride = 1};
		snprintf(unit->convolution, sizeof unit->convolution, "odd%d", u);
		snprintf(unit->norm, sizeof unit->norm, "norm%d", u);
		unit->x = u;
		unit->y = u + 1;
		unit->shortcut = -1;
		unit->file_rank = u;
		network->tensors[u + 1] = unit_output(unit);
	}
	network->head = (struct head){32, 1, 1, RESNET_UNITS, CLASSES};
}

static void test_convolutions_of_odd_shapes(void **state)
{
	struct bed bed;
	bed_open(&bed, STEM_CIFAR, 9, 0);
	odd_network(&bed.network);
	params_layout_build(&bed.layout, &bed.network);
	static const int batches[] = {1, 2, 31, 32, 33, 40};
	for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++)
		convolutions_check(&bed, cpu_of(state), batches[i], SLOW ? 20 : 300);
	bed_close(&bed);
	used_print("convolutions of odd shapes");
}

/* --- units ---------------------------------------------------------------------------------------------------------- */

/* Puts (n, C, H, W) values into a tensor of the cpu backend; the other images of its last block become NaN. */
static void tensor_put(struct backend_state *state, int tensor, bool gradient, const float *values)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	float *to = gradient ? state->dy[tensor] : state->y[tensor];
	if (tensor != 0)
		fill(to, state->blocks_max * tensor_block_floats(shape), NAN);
	for (size_t n = 0; n < state->n; n++)
		for (size_t c = 0; c < (size_t)shape->C; c++)
			for (size_t h = 0; h < (size_t)shape->H; h++)
				for (size_t w = 0; w < (size_t)shape->W; w++)
					to[place(state, tensor, n, c, h, w)] = *values++;
}

static void tensor_hand_over(const struct runner *from, struct runner *to, const struct bed *bed, int tensor, bool gradient, int n)
{
	float *values = tensor_copy(from, bed, tensor, gradient, n);
	tensor_put(to->machine.state, tensor, gradient, values);
	free(values);
}

static void tensor_check(const struct runner *found, const struct runner *wanted, const struct bed *bed, int tensor, bool gradient, int n,
	double tolerance, const char *what)
{
	float *left = tensor_copy(found, bed, tensor, gradient, n), *right = tensor_copy(wanted, bed, tensor, gradient, n);
	check_near(left, right, tensor_floats(bed, tensor, n), tolerance, "%s of tensor %d", what, tensor);
	free(left);
	free(right);
}

static void gradients_check(const struct runner *found, const struct runner *wanted, const struct bed *bed, const int *params, int count,
	double tolerance)
{
	float *left = zeros(bed->layout.weights_count, sizeof(float)), *right = zeros(bed->layout.weights_count, sizeof(float));
	assert_int_equal(found->machine.backend->gradients_read(found->machine.state, left), ST_OK);
	assert_int_equal(wanted->machine.backend->gradients_read(wanted->machine.state, right), ST_OK);
	for (int i = 0; i < count; i++) {
		const struct param *param = &bed->layout.all[params[i]];
		check_near(left + param->offset, right + param->offset, param->count, tolerance, "gradient of %s", param->name);
	}
	free(left);
	free(right);
}

/* Rounding errors of M terms add up like a random walk: √M·ε of the result's length, with room for the norm's own sums. A norm over few
 * values that lie close together magnifies what came before by mean/deviation; these batches keep that under the factor. */
static double unit_tolerance(const struct unit *unit)
{
	return 16 * (sqrt((double)(unit->C * unit->R * unit->S)) + 8) * EPSILON;
}

static void units_check(const struct bed *bed, const char *cpu, int n)
{
	struct runner ref, it;
	struct training_state start;
	state_alloc(&start, &bed->layout, false);
	state_random(&start, bed);
	runner_open(&ref, bed, &backend_ref, cpu, n, false);
	runner_open(&it, bed, &backend_cpu, cpu, n, false);
	assert_int_equal(backend_ref.state_write(ref.machine.state, &start), ST_OK);
	assert_int_equal(backend_cpu.state_write(it.machine.state, &start), ST_OK);
	assert_int_equal(step_forward(&ref.machine, &bed->images, bed->samples, n, 0.1f, true, WHICH_WEIGHTS), ST_OK);
	assert_int_equal(backend_cpu.batch_begin(it.machine.state, n, true, WHICH_WEIGHTS), ST_OK);
	assert_int_equal(backend_cpu.batch_gather(it.machine.state, &bed->images, bed->samples, 0.1f), ST_OK);
	tensor_check(&it, &ref, bed, 0, false, n, EPSILON, "gathered image");

	const struct network *network = &bed->network;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network->units[u];
		if (unit->x != 0)
			tensor_hand_over(&ref, &it, bed, unit->x, false, n);
		if (unit->shortcut >= 0)
			tensor_hand_over(&ref, &it, bed, unit->shortcut, false, n);
		fill(it.machine.state->y[unit->y], it.machine.state->blocks_max * tensor_block_floats(&network->tensors[unit->y]), NAN);
		assert_int_equal(backend_cpu.unit_forward(it.machine.state, u), ST_OK);
		tensor_check(&it, &ref, bed, unit->y, false, n, unit_tolerance(unit), "output");
	}
	if (network->pool.present) {
		tensor_hand_over(&ref, &it, bed, network->pool.x, false, n);
		assert_int_equal(backend_cpu.pool_forward(it.machine.state), ST_OK);
		tensor_check(&it, &ref, bed, network->pool.y, false, n, EPSILON, "pooled");
	}
	tensor_hand_over(&ref, &it, bed, network->head.x, false, n);
	assert_int_equal(backend_cpu.head_forward(it.machine.state), ST_OK);
	float left[IMAGES * CLASSES], right[IMAGES * CLASSES];
	assert_int_equal(backend_cpu.logits_read(it.machine.state, left), ST_OK);
	assert_int_equal(backend_ref.logits_read(ref.machine.state, right), ST_OK);
	double head_tolerance = 16 * sqrt(network->head.C) * EPSILON;
	check_near(left, right, (size_t)(n * CLASSES), head_tolerance, "logits");
	struct counters found, wanted;
	assert_int_equal(backend_cpu.counters_read(it.machine.state, &found), ST_OK);
	assert_int_equal(backend_ref.counters_read(ref.machine.state, &wanted), ST_OK);
	assert_true(fabs(found.loss - wanted.loss) <= 16 * EPSILON * wanted.loss);
	assert_true(found.images == wanted.images && found.top1 == wanted.top1 && found.top5 == wanted.top5);

	/* Backwards, each piece from ref's gradients and ref's activations, so that both agree which ReLUs are open. */
	assert_int_equal(backend_ref.head_backward(ref.machine.state), ST_OK);
	assert_int_equal(backend_cpu.head_backward(it.machine.state), ST_OK);
	tensor_check(&it, &ref, bed, network->head.x, true, n, head_tolerance, "gradient");
	const int head_params[] = {bed->layout.head_weight, bed->layout.head_bias};
	gradients_check(&it, &ref, bed, head_params, 2, head_tolerance);
	bool reached[RESNET_TENSORS] = {false};
	reached[network->head.x] = true;
	for (int u = RESNET_UNITS - 1; u >= 0; u--) {
		const struct unit *unit = &network->units[u];
		if (u == 0 && network->pool.present) {
			tensor_hand_over(&ref, &it, bed, network->pool.y, true, n);
			fill(it.machine.state->dy[network->pool.x], it.machine.state->blocks_max * tensor_block_floats(&network->tensors[network->pool.x]), NAN);
			assert_int_equal(backend_ref.pool_backward(ref.machine.state, false), ST_OK);
			assert_int_equal(backend_cpu.pool_backward(it.machine.state, false), ST_OK);
			tensor_check(&it, &ref, bed, network->pool.x, true, n, 4 * EPSILON, "pool's gradient");
		}
		bool accumulate_shortcut = unit->shortcut >= 0 && reached[unit->shortcut];
		tensor_hand_over(&ref, &it, bed, unit->y, false, n);
		tensor_hand_over(&ref, &it, bed, unit->y, true, n);
		if (reached[unit->x])
			tensor_hand_over(&ref, &it, bed, unit->x, true, n);
		if (accumulate_shortcut)
			tensor_hand_over(&ref, &it, bed, unit->shortcut, true, n);
		bool accumulate = reached[unit->x] || unit->shortcut == unit->x;
		assert_int_equal(backend_ref.unit_backward(ref.machine.state, u, accumulate, accumulate_shortcut), ST_OK);
		assert_int_equal(backend_cpu.unit_backward(it.machine.state, u, accumulate, accumulate_shortcut), ST_OK);
		if (unit->shortcut >= 0)
			reached[unit->shortcut] = true;
		reached[unit->x] = true;
		/* dz rests on z − mean and on sums over the batch; dw and dx on dz. */
		double tolerance = unit_tolerance(unit) + 16 * sqrt((double)n * unit->P * unit->Q) * EPSILON;
		const int params[] = {bed->layout.unit[u].weight, bed->layout.unit[u].gamma, bed->layout.unit[u].beta};
		gradients_check(&it, &ref, bed, params, 3, tolerance);
		if (unit->x != 0)
			tensor_check(&it, &ref, bed, unit->x, true, n, tolerance, "gradient");
		if (unit->shortcut >= 0)
			tensor_check(&it, &ref, bed, unit->shortcut, true, n, 4 * EPSILON, "shortcut's gradient");
	}
	runner_close(&ref);
	runner_close(&it);
	state_free(&start);
}

static void test_units_against_ref(void **state)
{
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 16, 0);
	units_check(&bed, cpu_of(state), SLOW ? 3 : 33); /* a whole block of images and one more */
	bed_close(&bed);
	bed_open(&bed, STEM_CIFAR, 9, 0); /* odd maps */
	units_check(&bed, cpu_of(state), SLOW ? 2 : 5);
	bed_close(&bed);
	used_print("units of both stems");
}

/* --- whole steps ---------------------------------------------------------------------------------------------------- */

static const struct update first_update = {.lr = 1e-3f, .momentum = 0.9f, .weight_decay = 0.05f, .nesterov = true, .norm_bias_lr_scale = 4,
	.gradient_scale = 0.5f, .ema_decay = 0.9f, .first = true};

/* What a step moved: `end` minus `start`, in place. */
static void movement(struct training_state *end, const struct training_state *start, const struct params_layout *layout)
{
	for (size_t i = 0; i < layout->weights_count; i++) {
		end->params.weights[i] -= start->params.weights[i];
		end->ema.weights[i] -= start->ema.weights[i];
	}
	for (size_t i = 0; i < layout->buffers_count; i++) {
		end->params.buffers[i] -= start->params.buffers[i];
		end->ema.buffers[i] -= start->ema.buffers[i];
	}
}

/* A step from `start`, and two evaluations of what it reached. */
struct step_case {
	struct update update;
	int n;
	struct training_state start, end; /* end: ref's */
	double norm_squared;
	struct counters counters;
};

/* Runs the step on a backend. The evaluations take place at ref's end, so that they too are judged alone: an untrained network magnifies
 * rounding from step to step. */
static void step_run(const struct bed *bed, const struct runner *runner, const struct step_case *step, struct training_state *end,
	double *norm_squared, struct counters *counters)
{
	const struct backend *backend = runner->machine.backend;
	struct backend_state *run = runner->machine.state;
	assert_int_equal(backend->state_write(run, &step->start), ST_OK);
	assert_int_equal(backend->counters_reset(run), ST_OK);
	assert_int_equal(step_train(&runner->machine, &bed->images, bed->samples, step->n, 0.1f, 0, &step->update), ST_OK);
	assert_int_equal(backend->gradient_norm_squared(run, norm_squared), ST_OK);
	assert_int_equal(backend->snapshot(run, end), ST_OK);
	assert_int_equal(backend->state_write(run, &step->end), ST_OK);
	assert_int_equal(step_evaluate(&runner->machine, &bed->images, bed->samples, step->n - 1, WHICH_WEIGHTS), ST_OK);
	assert_int_equal(step_evaluate(&runner->machine, &bed->images, bed->samples, step->n - 2, WHICH_EMA), ST_OK);
	assert_int_equal(backend->counters_read(run, counters), ST_OK);
	assert_int_equal(backend->sync(run), ST_OK);
}

/* Two steps that ref took once, for every instruction set to be compared with. Units agree to some 1e-6 (see above), but a ReLU whose
 * input is nearly zero may open on one side only, which moves a layer's gradient by some 1e-3: hence the wide tolerance. What this test
 * looks for, a piece left out or wired wrongly, shows as 0.1 to 1. */
static struct {
	struct bed bed;
	struct step_case steps[2];
} course;
enum { COURSE_IMAGES = SLOW ? 8 : 33 };

static void course_open(void)
{
	bed_open(&course.bed, STEM_IMAGENET, 32, 0);
	const struct params_layout *layout = &course.bed.layout;
	struct runner ref;
	runner_open(&ref, &course.bed, &backend_ref, "generic", COURSE_IMAGES, true);
	for (int i = 0; i < 2; i++) {
		struct step_case *step = &course.steps[i];
		state_alloc(&step->start, layout, true);
		state_alloc(&step->end, layout, true);
		step->update = first_update;
		step->n = COURSE_IMAGES - i;
		if (i == 0) {
			state_random(&step->start, &course.bed);
			memcpy(step->start.ema.weights, step->start.params.weights, layout->weights_count * sizeof(float));
			memcpy(step->start.ema.buffers, step->start.params.buffers, layout->buffers_count * sizeof(float));
		} else {
			assert_int_equal(backend_ref.snapshot(ref.machine.state, &step->start), ST_OK);
			step->update.first = false;
			step->update.nesterov = false;
			step->update.decay_all = true;
		}
		step_run(&course.bed, &ref, step, &step->end, &step->norm_squared, &step->counters);
	}
	runner_close(&ref);
}

static void course_close(void)
{
	for (int i = 0; i < 2; i++) {
		state_free(&course.steps[i].start);
		state_free(&course.steps[i].end);
	}
	bed_close(&course.bed);
}

static void test_steps_against_ref(void **state)
{
	if (course.bed.threads == NULL)
		course_open();
	const struct params_layout *layout = &course.bed.layout;
	struct runner it;
	runner_open(&it, &course.bed, &backend_cpu, cpu_of(state), COURSE_IMAGES, true);
	for (int i = 0; i < 2; i++) {
		const struct step_case *step = &course.steps[i];
		struct training_state found, wanted;
		state_alloc(&found, layout, true);
		state_alloc(&wanted, layout, true);
		double norm_squared, tolerance = 9e-3;
		struct counters counters;
		step_run(&course.bed, &it, step, &found, &norm_squared, &counters);
		assert_true(fabs(norm_squared - step->norm_squared) <= tolerance * step->norm_squared);
		assert_true(fabs(counters.loss - step->counters.loss) <= tolerance * step->counters.loss);
		assert_true(counters.images == 3 * step->n - 3 && step->counters.images == counters.images);
		check_near(found.momentum, step->end.momentum, layout->weights_count, tolerance, "momentum");
		/* Of everything else the movement is compared. */
		memcpy(wanted.params.weights, step->end.params.weights, layout->weights_count * sizeof(float));
		memcpy(wanted.params.buffers, step->end.params.buffers, layout->buffers_count * sizeof(float));
		memcpy(wanted.ema.weights, step->end.ema.weights, layout->weights_count * sizeof(float));
		memcpy(wanted.ema.buffers, step->end.ema.buffers, layout->buffers_count * sizeof(float));
		movement(&found, &step->start, layout);
		movement(&wanted, &step->start, layout);
		check_near(found.params.weights, wanted.params.weights, layout->weights_count, tolerance, "movement of weights");
		check_near(found.params.buffers, wanted.params.buffers, layout->buffers_count, tolerance, "movement of running statistics");
		check_near(found.ema.weights, wanted.ema.weights, layout->weights_count, tolerance, "movement of EMA");
		check_near(found.ema.buffers, wanted.ema.buffers, layout->buffers_count, tolerance, "movement of EMA of running statistics");
		assert_int_equal(found.params.batches_tracked, i + 1);
		state_free(&found);
		state_free(&wanted);
	}
	used_print("two steps");
	runner_close(&it);
}

/* Two training steps. */
static void train(const struct bed *bed, const char *cpu, int n, struct training_state *end, float *logits)
{
	struct training_state start;
	state_alloc(&start, &bed->layout, true);
	state_random(&start, bed);
	params_free(&start.ema);
	start.ema = (struct params){0};
	struct runner it;
	runner_open(&it, bed, &backend_cpu, cpu, n, true);
	assert_int_equal(backend_cpu.state_write(it.machine.state, &start), ST_OK);
	struct update update = first_update;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(step_train(&it.machine, &bed->images, bed->samples, n - i % 2, 0.1f, 0, &update), ST_OK);
		update.first = false;
	}
	assert_int_equal(backend_cpu.snapshot(it.machine.state, end), ST_OK);
	assert_int_equal(backend_cpu.logits_read(it.machine.state, logits), ST_OK);
	assert_true(isfinite(logits[0]));
	runner_close(&it);
	state_free(&start);
}

static void states_equal(const struct training_state *a, const struct training_state *b, const struct params_layout *layout)
{
	size_t weights = layout->weights_count * sizeof(float), buffers = layout->buffers_count * sizeof(float);
	assert_memory_equal(a->params.weights, b->params.weights, weights);
	assert_memory_equal(a->params.buffers, b->params.buffers, buffers);
	assert_memory_equal(a->momentum, b->momentum, weights);
	assert_memory_equal(a->ema.weights, b->ema.weights, weights);
	assert_memory_equal(a->ema.buffers, b->ema.buffers, buffers);
}

static void test_thread_counts_agree(void **state)
{
	for (int stem = 0; stem < 2; stem++) {
		struct training_state ends[2];
		float logits[2][IMAGES * CLASSES] = {0};
		for (unsigned threads = 1; threads <= 3; threads++) {
			struct bed bed;
			bed_open(&bed, (enum stem)stem, 16, threads);
			struct training_state *end = &ends[threads > 1];
			state_alloc(end, &bed.layout, true);
			train(&bed, cpu_of(state), SLOW ? 5 : 35, end, logits[threads > 1]);
			if (threads > 1) {
				assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
				states_equal(&ends[0], &ends[1], &bed.layout);
				state_free(end);
			}
			bed_close(&bed);
		}
		state_free(&ends[0]);
	}
}

/* One gradient, many updates with it: more than are postponed at most; in the second run some are carried out early by a snapshot. */
static void test_postponed_updates_are_exact(void **state)
{
	enum { N = 3, UPDATES = UPDATE_HISTORY_MAX + 5 };
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 16, 0);
	struct training_state start, ends[2];
	state_alloc(&start, &bed.layout, false);
	state_random(&start, &bed);
	for (int i = 0; i < 2; i++) {
		struct runner it;
		state_alloc(&ends[i], &bed.layout, true);
		runner_open(&it, &bed, &backend_cpu, cpu_of(state), N, true);
		assert_int_equal(backend_cpu.state_write(it.machine.state, &start), ST_OK);
		struct update update = first_update;
		assert_int_equal(step_train(&it.machine, &bed.images, bed.samples, N, 0.1f, 0, &update), ST_OK);
		update.first = false;
		for (int j = 1; j < UPDATES; j++) {
			update.lr = 1e-3f / (float)j;
			update.nesterov = j % 2;
			assert_int_equal(backend_cpu.optimizer_step(it.machine.state, &update), ST_OK);
			if (i == 1 && (j == 1 || j == 40))
				assert_int_equal(backend_cpu.snapshot(it.machine.state, &ends[i]), ST_OK);
		}
		assert_int_equal(backend_cpu.snapshot(it.machine.state, &ends[i]), ST_OK);
		runner_close(&it);
	}
	states_equal(&ends[0], &ends[1], &bed.layout);
	/* A dead tap has decayed. */
	const struct unit *unit = &bed.network.units[RESNET_UNITS - 1];
	size_t at = bed.layout.all[bed.layout.unit[RESNET_UNITS - 1].weight].offset;
	assert_int_equal(unit_tap_uses(unit, 0, 0), 0);
	assert_true(fabsf(ends[0].params.weights[at]) < fabsf(start.params.weights[at]));
	state_free(&start);
	state_free(&ends[0]);
	state_free(&ends[1]);
	bed_close(&bed);
}

static void test_abandoned_batch_leaves_nothing(void **state)
{
	enum { N = 3 };
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 16, 0);
	struct training_state start, ends[2];
	state_alloc(&start, &bed.layout, false);
	state_random(&start, &bed);
	struct counters counters[2];
	for (int i = 0; i < 2; i++) {
		struct runner it;
		state_alloc(&ends[i], &bed.layout, true);
		runner_open(&it, &bed, &backend_cpu, cpu_of(state), N, true);
		assert_int_equal(backend_cpu.state_write(it.machine.state, &start), ST_OK);
		if (i == 1) {
			assert_int_equal(step_forward(&it.machine, &bed.images, bed.samples + N, N, 0, true, WHICH_WEIGHTS), ST_OK);
			assert_int_equal(backend_cpu.batch_abandon(it.machine.state), ST_OK);
		}
		assert_int_equal(step_train(&it.machine, &bed.images, bed.samples, N, 0, 0, &first_update), ST_OK);
		assert_int_equal(backend_cpu.snapshot(it.machine.state, &ends[i]), ST_OK);
		assert_int_equal(backend_cpu.counters_read(it.machine.state, &counters[i]), ST_OK);
		runner_close(&it);
	}
	states_equal(&ends[0], &ends[1], &bed.layout);
	assert_int_equal(ends[1].params.batches_tracked, 1);
	assert_memory_equal(&counters[0], &counters[1], sizeof counters[0]);
	state_free(&start);
	state_free(&ends[0]);
	state_free(&ends[1]);
	bed_close(&bed);
}

/* --- edges ---------------------------------------------------------------------------------------------------------- */

static void test_state_comes_back(void **state)
{
	(void)state;
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 32, 0);
	struct training_state from, to;
	state_alloc(&from, &bed.layout, true);
	state_alloc(&to, &bed.layout, true);
	state_random(&from, &bed);
	for (size_t i = 0; i < bed.layout.weights_count; i++)
		from.ema.weights[i] = (float)i;
	for (size_t i = 0; i < bed.layout.buffers_count; i++)
		from.ema.buffers[i] = -(float)i;
	from.params.batches_tracked = 5;
	struct runner it;
	runner_open(&it, &bed, &backend_cpu, "generic", 2, true);
	assert_int_equal(backend_cpu.state_write(it.machine.state, &from), ST_OK);
	assert_int_equal(backend_cpu.snapshot(it.machine.state, &to), ST_OK);
	states_equal(&from, &to, &bed.layout);
	assert_int_equal(to.params.batches_tracked, 5);
	/* A snapshot skips what its caller does not want. */
	struct training_state nothing = {0};
	assert_int_equal(backend_cpu.snapshot(it.machine.state, &nothing), ST_OK);
	/* Without momentum it is zero; without an EMA, a copy. */
	struct training_state bare = {.params = from.params};
	assert_int_equal(backend_cpu.state_write(it.machine.state, &bare), ST_OK);
	assert_int_equal(backend_cpu.snapshot(it.machine.state, &to), ST_OK);
	for (size_t i = 0; i < bed.layout.weights_count; i++)
		assert_true(to.momentum[i] == 0);
	assert_memory_equal(to.ema.weights, from.params.weights, bed.layout.weights_count * sizeof(float));
	runner_close(&it);
	state_free(&from);
	state_free(&to);
	bed_close(&bed);
}

/* Opening must fail with ST_SETTINGS and a sentence that holds `word`, and leave the result alone. */
static void refused(const struct backend_config *config, const char *word)
{
	struct backend_state *untouched = (struct backend_state *)(uintptr_t)8, *result = untouched;
	assert_int_equal(backend_cpu.open(config, &result), ST_SETTINGS);
	assert_ptr_equal(result, untouched);
	assert_non_null(strstr(status_message(), word));
}

static void test_refusals(void **state)
{
	(void)state;
	struct bed bed;
	bed_open(&bed, STEM_CIFAR, 9, 1);
	assert_int_equal(setenv("SMELT_CPU", "generic", 1), 0);
	struct network odd;
	struct backend_config config = {.network = &odd, .layout = &bed.layout, .batch_max = 4, .threads = bed.threads, .training = true};
	odd_network(&odd);
	config.batch_max = 0;
	refused(&config, "batch_max 0");
	config.batch_max = 4;
	config.threads = NULL;
	refused(&config, "thread pool");
	config.threads = bed.threads;
	odd.units[1].C = 48;
	refused(&config, "odd1 has 48 input channels");
	odd_network(&odd);
	odd.units[0].C = 4;
	refused(&config, "odd0 has 4 input channels");
	odd_network(&odd);
	odd.units[3].K = 20;
	refused(&config, "odd3 has 20 output channels");
	odd_network(&odd);
	odd.units[5].S = 17;
	refused(&config, "odd5 has a 7x17 kernel");
	odd_network(&odd);
	odd.units[0].S = 11;
	refused(&config, "odd0 has a 5x11 kernel");
	odd_network(&odd);
	odd.units[4] = odd.units[0];
	odd.units[4].padding = 1;
	refused(&config, "pads the image by 1");
	assert_int_equal(setenv("SMELT_CPU", "abacus", 1), 0);
	odd_network(&odd);
	refused(&config, "abacus");

	/* A single image on a 1×1 map has no variance. */
	struct bed one;
	bed_open(&one, STEM_IMAGENET, 32, 1);
	struct runner it;
	runner_open(&it, &one, &backend_cpu, "generic", 1, false);
	assert_int_equal(backend_cpu.batch_begin(it.machine.state, 1, true, WHICH_WEIGHTS), ST_SETTINGS);
	assert_int_equal(backend_cpu.batch_begin(it.machine.state, 1, false, WHICH_WEIGHTS), ST_OK);
	runner_close(&it);
	backend_cpu.close(NULL);
	bed_close(&one);
	bed_close(&bed);
}

/* The tests of one instruction set, by cmocka; or a line for each that this machine cannot run. */
static int run_all(enum cpu *cpu)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_convolutions_of_resnet, cpu),
		cmocka_unit_test_prestate(test_convolutions_of_odd_shapes, cpu),
		cmocka_unit_test_prestate(test_units_against_ref, cpu),
		cmocka_unit_test_prestate(test_steps_against_ref, cpu),
		cmocka_unit_test_prestate(test_thread_counts_agree, cpu),
		cmocka_unit_test_prestate(test_postponed_updates_are_exact, cpu),
		cmocka_unit_test_prestate(test_abandoned_batch_leaves_nothing, cpu),
	};
	enum cpu best = cpu_detect() < CPU_AVX512 ? cpu_detect() : CPU_AVX512;
	if (*cpu == best || (*cpu < best && !SLOW))
		return cmocka_run_group_tests_name(cpu_word(*cpu), tests, NULL, NULL);
	if (*cpu < best) {
		printf("[  SKIPPED ] everything on %s: minutes under a sanitizer, and test_kernels has its loops there\n", cpu_word(*cpu));
		return 0;
	}
	for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
		printf("[  SKIPPED ] %s %s: this machine lacks %s\n", tests[i].name, cpu_word(*cpu), cpu_needs(*cpu));
	return 0;
}

int main(void)
{
	static enum cpu cpus[] = {CPU_GENERIC, CPU_AVX2, CPU_AVX512};
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_state_comes_back), cmocka_unit_test(test_refusals)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	for (size_t i = 0; i < sizeof cpus / sizeof cpus[0]; i++)
		failed += run_all(&cpus[i]);
	if (course.bed.threads != NULL)
		course_close();
	return failed;
}
