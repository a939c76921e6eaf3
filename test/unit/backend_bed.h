/* backend_bed.h: what the tests of a backend share: a network with data, a backend opened on it, random state, comparing. */
#pragma once

#include "core/backend/backend.h"
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
	enum precision precision; /* for a backend that has a choice */
};

struct runner {
	struct machine machine;
	struct backend_config config;
};

static inline void *zeros(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);
	assert_non_null(memory);
	return memory;
}

/* Uniform in ±1 from a quick generator (Marsaglia, "Xorshift RNGs", 2003): tens of millions are needed. `word` is not 0. */
static inline float uniform(uint32_t *word)
{
	*word ^= *word << 13;
	*word ^= *word >> 17;
	*word ^= *word << 5;
	return (float)(*word >> 8) * 0x1p-23f - 1;
}

static inline void bed_open(struct bed *bed, enum stem stem, int size, unsigned threads)
{
	bed->precision = PRECISION_AUTO;
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

static inline void bed_close(struct bed *bed)
{
	threads_close(bed->threads);
	free((void *)(uintptr_t)bed->images.pixels);
	free((void *)(uintptr_t)bed->images.labels);
}

/* cpu: the instruction set; NULL: as it is. */
static inline void runner_open(struct runner *runner, const struct bed *bed, const struct backend *backend, const char *cpu, int batch, bool ema)
{
	if (cpu != NULL)
		assert_int_equal(setenv("SMELT_CPU", cpu, 1), 0);
	runner->config = (struct backend_config){.network = &bed->network, .layout = &bed->layout, .batch_max = batch,
		.normalization = {{0.5f, 0.4f, 0.3f}, {0.2f, 0.25f, 0.3f}}, .threads = bed->threads, .ema = ema, .training = true, .norm_momentum = 0.3,
		.precision = bed->precision, .deterministic = true};
	runner->machine = (struct machine){.backend = backend, .network = &bed->network};
	assert_int_equal(backend->open(&runner->config, &runner->machine.state), ST_OK);
}

static inline void runner_close(struct runner *runner)
{
	runner->machine.backend->close(runner->machine.state);
}

static inline void state_alloc(struct training_state *state, const struct params_layout *layout, bool ema)
{
	*state = (struct training_state){0};
	assert_int_equal(params_alloc(&state->params, layout), ST_OK);
	state->momentum = zeros(layout->weights_count, sizeof(float));
	if (ema)
		assert_int_equal(params_alloc(&state->ema, layout), ST_OK);
}

static inline void state_free(struct training_state *state)
{
	params_free(&state->params);
	params_free(&state->ema);
	free(state->momentum);
}

/* Everything random: convolutions and head uniform with the deviation √(2 / fan-in), beta and running means in ±0.5, gamma and
 * running variances in 0.5 … 1.5, but a fifth of that for the gamma before a shortcut: then blocks are nearly the identity and the network
 * magnifies rounding errors less. */
static inline void state_random(struct training_state *state, const struct bed *bed)
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
static inline void check_near(const float *found, const float *wanted, size_t count, double tolerance, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
static inline void check_near(const float *found, const float *wanted, size_t count, double tolerance, const char *format, ...)
{
	double distance = 0, length = 0;
	for (size_t i = 0; i < count; i++) {
		distance += ((double)found[i] - (double)wanted[i]) * ((double)found[i] - (double)wanted[i]);
		length += (double)wanted[i] * (double)wanted[i];
	}
	assert_true(tolerance < 0.1);
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

static inline void used_print(const char *what)
{
	print_message("%s: %.3f of the tolerance used\n", what, used_max);
	used_max = 0;
}

static inline size_t tensor_floats(const struct bed *bed, int tensor, int n)
{
	const struct tensor_shape *shape = &bed->network.tensors[tensor];
	return (size_t)n * (size_t)(shape->C * shape->H * shape->W);
}

static inline float *tensor_copy(const struct runner *runner, const struct bed *bed, int tensor, bool gradient, int n)
{
	float *values = zeros(tensor_floats(bed, tensor, n), sizeof(float));
	assert_int_equal(runner->machine.backend->tensor_read(runner->machine.state, tensor, gradient, values), ST_OK);
	return values;
}

static inline void fill(float *values, size_t count, float value)
{
	for (size_t i = 0; values != NULL && i < count; i++)
		values[i] = value;
}

/* Under a sanitizer everything is tens of times slower. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif
