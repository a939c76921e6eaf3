/* checkpoint_bed.h: a hand-made layout of three tensors, so that files are small, in a temporary directory, and a state to save and find again. */
#pragma once

#include "core/base/file.h"
#include "train/checkpoint.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { WEIGHTS = 12, BUFFERS = 3 };

struct fixture {
	char directory[256];
	struct params_layout layout;
	struct run_identity identity;
	struct position position;
	struct training_state state;
};

static inline struct training_state state_make(float value)
{
	struct training_state state = {0};
	state.params.weights = malloc(WEIGHTS * sizeof(float));
	state.params.buffers = malloc(BUFFERS * sizeof(float));
	state.momentum = malloc(WEIGHTS * sizeof(float));
	state.ema.weights = malloc(WEIGHTS * sizeof(float));
	state.ema.buffers = malloc(BUFFERS * sizeof(float));
	for (int i = 0; i < WEIGHTS; i++) {
		state.params.weights[i] = value + (float)i;
		state.momentum[i] = -value * (float)i;
		state.ema.weights[i] = value / (float)(i + 3);
	}
	for (int i = 0; i < BUFFERS; i++) {
		state.params.buffers[i] = value * 0.5f + (float)i;
		state.ema.buffers[i] = value * 0.25f - (float)i;
	}
	state.params.batches_tracked = (int64_t)value * 7;
	return state;
}

static inline void assert_states_equal(const struct training_state *a, const struct training_state *b)
{
	assert_memory_equal(a->params.weights, b->params.weights, WEIGHTS * sizeof(float));
	assert_memory_equal(a->params.buffers, b->params.buffers, BUFFERS * sizeof(float));
	assert_memory_equal(a->momentum, b->momentum, WEIGHTS * sizeof(float));
	assert_memory_equal(a->ema.weights, b->ema.weights, WEIGHTS * sizeof(float));
	assert_memory_equal(a->ema.buffers, b->ema.buffers, BUFFERS * sizeof(float));
	assert_int_equal(a->params.batches_tracked, b->params.batches_tracked);
}

static inline int setup(void **context)
{
	struct fixture *f = calloc(1, sizeof *f);
	snprintf(f->directory, sizeof f->directory, "/tmp/smelt_checkpoint_XXXXXX");
	if (f == NULL || mkdtemp(f->directory) == NULL)
		return 1;
	/* Placed out of order on purpose: the file follows the offsets, the list torchvision's order. */
	f->layout.count = 3;
	f->layout.all[0] = (struct param){.name = "b.weight", .kind = PARAM_CONVOLUTION, .rank = 4, .shape = {2, 1, 2, 2}, .offset = 4, .count = 8};
	f->layout.all[1] = (struct param){.name = "a.weight", .kind = PARAM_NORM_WEIGHT, .rank = 1, .shape = {4}, .offset = 0, .count = 4};
	f->layout.all[2] = (struct param){.name = "a.running_mean", .kind = PARAM_RUNNING_MEAN, .rank = 1, .shape = {3}, .offset = 0, .count = 3};
	f->layout.weights_count = WEIGHTS;
	f->layout.buffers_count = BUFFERS;
	f->identity = (struct run_identity){.stem = STEM_CIFAR, .image_size = 32, .classes = 100, .ema = true, .steps_per_epoch = 10, .data_fingerprint = 77};
	snprintf(f->identity.settings, sizeof f->identity.settings, "lr=0.1\npretrained=a \"quoted\" name\n");
	f->position = (struct position){.epoch = 3, .step_in_epoch = 4, .step = 34, .train = {1.0 / 3, 512, 7, 9}, .best_value = 0.1, .best_epoch = 2};
	f->position.last = (struct report_epoch){.epoch = 3, .step = 30, .validated = true, .validation = {2.5, 0.25, 0.5}, .lr = 0.1};
	f->state = state_make(1.5f);
	*context = f;
	return 0;
}

static inline int teardown(void **context)
{
	struct fixture *f = *context;
	DIR *stream = opendir(f->directory);
	for (struct dirent *entry; stream != NULL && (entry = readdir(stream)) != NULL;) {
		char path[600];
		snprintf(path, sizeof path, "%s/%s", f->directory, entry->d_name);
		if (entry->d_name[0] != '.')
			remove(path);
	}
	if (stream != NULL)
		closedir(stream);
	rmdir(f->directory);
	state_free(&f->state);
	free(f);
	return 0;
}

static inline void path_of(const struct fixture *f, const char *name, char path[600])
{
	snprintf(path, 600, "%s/%s", f->directory, name);
}

static inline bool present(const struct fixture *f, const char *name)
{
	char path[600];
	path_of(f, name, path);
	return file_exists(path);
}

/* Resumes into a state of other values and says what came of it. */
static inline enum status resume(const struct fixture *f, struct position *position, bool *found, bool equal_wanted)
{
	struct training_state state = state_make(-9);
	*position = (struct position){0};
	enum status status = checkpoint_resume(f->directory, &f->layout, &f->identity, position, &state, found);
	if (status == ST_OK && *found && equal_wanted)
		assert_states_equal(&f->state, &state);
	state_free(&state);
	return status;
}
