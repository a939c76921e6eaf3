/* golden.h: what the tests share with make_golden.py: numbers from an integer hash, and the reader of its files.
 *
 * The hash gives both sides the same weights and images exactly; what PyTorch made of them is in the .txt files. Tests run in the
 * repository's root. */
#pragma once

#include "core/base/file.h"
#include "core/backend/backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What the hash's numbers are for; a parameter's place in torchvision's order is added. As in make_golden.py. */
enum { GOLDEN_IMAGES = 1, GOLDEN_LABELS = 2, GOLDEN_ELEMENTS = 3, GOLDEN_WEIGHTS = 1000, GOLDEN_DOT1 = 2000, GOLDEN_DOT2 = 3000 };

static const struct normalization golden_normalization = {{0.507f, 0.487f, 0.441f}, {0.267f, 0.256f, 0.276f}};

#define OK(call) \
	do { \
		if ((call) != ST_OK) \
			fail_msg("%s: %s", #call, status_message()); \
	} while (0)

static inline uint32_t golden_mix(uint32_t h)
{
	h ^= h >> 16;
	h *= 0x85EBCA6Bu;
	h ^= h >> 13;
	h *= 0xC2B2AE35u;
	return h ^ h >> 16;
}

static inline uint32_t golden_word(uint32_t stream, size_t i)
{
	return golden_mix((uint32_t)i ^ golden_mix(stream + 0x9E3779B9u));
}

/* Uniform in [-1, 1), 24 bits: exact in float. */
static inline double golden_unit(uint32_t stream, size_t i)
{
	return ((double)(golden_word(stream, i) >> 8) - 0x1p23) * 0x1p-23;
}

/* Uniform with Kaiming's fan-out variance; gamma 1 ± 1/4, beta ± 1/8; head ± 1/√C. Rounded once, to float. Steady: beta is
 * moved by +4 or −4 where nothing but a ReLU follows, so that channels are well on or well off, else by 2. */
static inline void golden_params(struct params *params, const struct network *network, const struct params_layout *layout, bool steady)
{
	for (int index = 0; index < layout->count; index++) {
		const struct param *param = &layout->all[index];
		float *data = params_data(params, param);
		double centre = 0, bound = 0;
		bool alone = param->unit >= 0 && network->units[param->unit].relu && network->units[param->unit].shortcut < 0;
		switch (param->kind) {
		case PARAM_CONVOLUTION: bound = (double)(float)sqrt(6.0 / (double)(param->shape[0] * param->shape[2] * param->shape[3])); break;
		case PARAM_NORM_WEIGHT: centre = 1, bound = 0.25; break;
		case PARAM_NORM_BIAS: bound = 0.125; break;
		case PARAM_HEAD_WEIGHT:
		case PARAM_HEAD_BIAS: bound = (double)(float)(1 / sqrt(512.0)); break;
		case PARAM_RUNNING_MEAN: break;
		case PARAM_RUNNING_VAR: centre = 1; break;
		}
		for (size_t i = 0; i < param->count; i++) {
			double u = golden_unit(GOLDEN_WEIGHTS + (uint32_t)index, i);
			if (param->kind == PARAM_NORM_BIAS && steady)
				centre = !alone ? 2 : u < 0 ? -4 : 4;
			data[i] = (float)(centre + u * bound);
		}
	}
	params->batches_tracked = 0;
}

/* Plain golden weights answer all images alike: mean-free kernels, real statistics and a larger head tell images apart. */
static inline void golden_sharpen(struct params *params, const struct params_layout *layout)
{
	for (int index = 0; index < layout->count; index++) {
		const struct param *param = &layout->all[index];
		float *data = params_data(params, param);
		size_t kernel = param->kind == PARAM_CONVOLUTION ? param->count / (size_t)param->shape[0] : 1;
		for (size_t first = 0; first < param->count; first += kernel) {
			double unit = golden_unit(GOLDEN_WEIGHTS + (uint32_t)index, first), mean = 0;
			for (size_t i = first; i < first + kernel; i++)
				mean += (double)data[i] / (double)kernel;
			for (size_t i = first; i < first + kernel && param->kind == PARAM_CONVOLUTION; i++)
				data[i] = (float)((double)data[i] - mean);
			if (param->kind == PARAM_RUNNING_MEAN)
				data[first] = (float)(unit / 4);
			if (param->kind == PARAM_RUNNING_VAR)
				data[first] = (float)(1 + unit / 2);
			if (param->kind == PARAM_HEAD_WEIGHT)
				data[first] *= 4;
		}
	}
}

/* Both arrays are the caller's: count × 3 × size × size and count. */
static inline struct images golden_images(uint8_t *pixels, uint16_t *labels, size_t count, int size, int classes)
{
	size_t bytes = count * 3 * (size_t)size * (size_t)size;
	for (size_t i = 0; i < bytes; i++)
		pixels[i] = (uint8_t)(golden_word(GOLDEN_IMAGES, i) >> 24);
	for (size_t i = 0; i < count; i++)
		labels[i] = (uint16_t)(golden_word(GOLDEN_LABELS, i) % (uint32_t)classes);
	return (struct images){pixels, labels, count, size};
}

/* A golden file in memory; golden_close releases. */
struct golden {
	const char *path;
	char *text;
};

static inline struct golden golden_open(const char *path)
{
	uint8_t *bytes = NULL;
	size_t count = 0;
	OK(file_read(path, 1 << 20, &bytes, &count));
	return (struct golden){path, (char *)bytes};
}

static inline void golden_close(struct golden *golden)
{
	free(golden->text);
}

/* The numbers of the line that starts with `name`; the test fails when there are not exactly `count`. */
static inline void golden_read(const struct golden *golden, const char *name, double *values, size_t count)
{
	size_t length = strlen(name), got = 0;
	char *at = golden->text;
	while (at != NULL && !(strncmp(at, name, length) == 0 && at[length] == ' ')) {
		at = strchr(at, '\n');
		at = at == NULL ? NULL : at + 1;
	}
	if (at == NULL)
		fail_msg("%s: no line \"%s\"", golden->path, name);
	at += length;
	while (*at == ' ') {
		double value = strtod(at, &at);
		if (got < count)
			values[got] = value;
		got++;
	}
	if (got != count || *at != '\n')
		fail_msg("%s: line \"%s\" has %zu numbers, expected %zu", golden->path, name, got, count);
}

static inline double golden_number(const struct golden *golden, const char *name)
{
	double value = 0;
	golden_read(golden, name, &value, 1);
	return value;
}
