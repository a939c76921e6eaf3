/* rig.h: a network on a backend with hash-made weights and images, for tests of whole passes. */
#pragma once

#include "test/golden/golden.h"
#include "train/step.h"

enum { RIG_BATCH_MAX = 8, RIG_IMAGES = 3 * RIG_BATCH_MAX, RIG_SIZE_MAX = 32, RIG_CLASSES_MAX = 100 };

struct rig {
	struct network network;
	struct params_layout layout;
	struct training_state start; /* golden.h's weights; no momentum, no average */
	struct threads *threads;
	struct machine machine;
	struct images images; /* 3 batches */
	int n;
	uint8_t pixels[RIG_IMAGES * 3 * RIG_SIZE_MAX * RIG_SIZE_MAX];
	uint16_t labels[RIG_IMAGES];
};

/* Ready to train on batches of n. Close with rig_close. */
static inline struct rig *rig_open(const struct backend *backend, enum stem stem, int size, int n, int classes, bool steady, unsigned threads)
{
	struct rig *rig = calloc(1, sizeof *rig);
	assert_non_null(rig);
	assert_true(n <= RIG_BATCH_MAX && size <= RIG_SIZE_MAX && classes <= RIG_CLASSES_MAX);
	rig->n = n;
	OK(network_build(&rig->network, stem, size, classes));
	params_layout_build(&rig->layout, &rig->network);
	OK(params_alloc(&rig->start.params, &rig->layout));
	golden_params(&rig->start.params, &rig->network, &rig->layout, steady);
	rig->images = golden_images(rig->pixels, rig->labels, 3 * (size_t)n, size, classes);
	OK(threads_open(threads, &rig->threads));
	struct backend_config config = {.network = &rig->network, .layout = &rig->layout, .batch_max = n,
		.normalization = golden_normalization, .padding = PADDING_ZERO, .threads = rig->threads, .ema = true, .training = true, .norm_momentum = 0.1};
	rig->machine.backend = backend;
	rig->machine.network = &rig->network;
	OK(backend->open(&config, &rig->machine.state));
	OK(backend->state_write(rig->machine.state, &rig->start));
	return rig;
}

static inline void rig_close(struct rig *rig)
{
	rig->machine.backend->close(rig->machine.state);
	threads_close(rig->threads);
	params_free(&rig->start.params);
	free(rig);
}

/* Images step·n … of the set; when mixed, every second one 3/4 to 1/4 with the one five places on. As make_golden.py's batch_of. */
static inline void rig_samples(const struct rig *rig, int step, bool mixed, struct sample *samples)
{
	uint32_t count = (uint32_t)rig->images.count;
	for (int n = 0; n < rig->n; n++) {
		uint32_t at = (uint32_t)(step * rig->n + n) % count;
		samples[n] = (struct sample){.image = {.index = at}, .partner = {.index = (at + 5) % count}, .weight = mixed && n % 2 ? 0.75f : 1.0f};
	}
}
