/* cpu_bed.h: what the tests of the cpu backend share besides backend_bed.h: they look inside it (cpu_backend.h), on every instruction set, and
 * at a network of odd shapes. */
#pragma once

#include "core/backend/cpu/cpu_backend.h"
#include "test/unit/backend_bed.h"

/* The place of image n, channel c at (h, w) of a tensor; of the image tensor too. */
static inline size_t place(const struct backend_state *state, int tensor, size_t n, size_t c, size_t h, size_t w)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	size_t block = n / TILE_IMAGES, image = n % TILE_IMAGES;
	if (tensor == 0)
		return ((block * (size_t)shape->H + h) * TILE_IMAGES + image) * state->image_row + (w + state->image_padding) * 3 + c;
	return pixel_offset(shape, block, h, w) + c / TILE_CHANNELS * TILE_FLOATS + image * TILE_CHANNELS + c % TILE_CHANNELS;
}

static inline const char *cpu_of(void **state)
{
	return cpu_word(*(const enum cpu *)*state);
}

/* A table of small units, each on a tensor of its own shape: odd maps, kernels and strides. */
static inline void odd_network(struct network *network)
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

/* Runs the tests of each instruction set by cmocka, with the set as their state; for one that this machine lacks, prints a line for each. */
static inline int run_for_each_cpu(const struct CMUnitTest *tests, size_t count)
{
	static enum cpu cpus[] = {CPU_GENERIC, CPU_AVX2, CPU_AVX512};
	int failed = 0;
	for (size_t i = 0; i < sizeof cpus / sizeof cpus[0]; i++) {
		struct CMUnitTest here[16];
		assert_true(count <= sizeof here / sizeof here[0]);
		for (size_t j = 0; j < count; j++) {
			here[j] = tests[j];
			here[j].initial_state = &cpus[i];
			if (cpus[i] > cpu_detect())
				printf("[  SKIPPED ] %s %s: this machine lacks %s\n", tests[j].name, cpu_word(cpus[i]), cpu_needs(cpus[i]));
		}
		if (cpus[i] <= cpu_detect())
			failed += _cmocka_run_group_tests(cpu_word(cpus[i]), here, count, NULL, NULL);
	}
	return failed;
}
