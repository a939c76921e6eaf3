/* test_checkpoint.c: a checkpoint comes back bit for bit; a damaged one is passed over; nothing foreign is touched.
 * Method: a hand-made layout of three tensors, so that files are small, in a temporary directory. Damage is tried at every byte.
 * The machine is a backend that only knows how to give a snapshot of the fixture's state. */
#include "core/base/file.h"
#include "train/checkpoint.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* The backend's state is a struct training_state. */
static enum status fake_snapshot(struct backend_state *backend_state, struct training_state *to)
{
	const struct training_state *from = (const void *)backend_state;
	float *const wanted[] = {to->params.weights, to->params.buffers, to->momentum, to->ema.weights, to->ema.buffers};
	const float *const held[] = {from->params.weights, from->params.buffers, from->momentum, from->ema.weights, from->ema.buffers};
	for (int i = 0; i < 5; i++)
		if (wanted[i] != NULL)
			memcpy(wanted[i], held[i], (i == 1 || i == 4 ? BUFFERS : WEIGHTS) * sizeof(float));
	to->params.batches_tracked = to->ema.batches_tracked = from->params.batches_tracked;
	return ST_OK;
}

static const struct backend fake = {.name = "fake", .snapshot = fake_snapshot};

static struct training_state state_make(float value)
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

static void state_free(struct training_state *state)
{
	params_free(&state->params);
	params_free(&state->ema);
	free(state->momentum);
}

static void assert_states_equal(const struct training_state *a, const struct training_state *b)
{
	assert_memory_equal(a->params.weights, b->params.weights, WEIGHTS * sizeof(float));
	assert_memory_equal(a->params.buffers, b->params.buffers, BUFFERS * sizeof(float));
	assert_memory_equal(a->momentum, b->momentum, WEIGHTS * sizeof(float));
	assert_memory_equal(a->ema.weights, b->ema.weights, WEIGHTS * sizeof(float));
	assert_memory_equal(a->ema.buffers, b->ema.buffers, BUFFERS * sizeof(float));
	assert_int_equal(a->params.batches_tracked, b->params.batches_tracked);
}

static int setup(void **context)
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

static int teardown(void **context)
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

static enum status write_at(struct fixture *f, int64_t epoch, int64_t step, int keep)
{
	f->position.epoch = epoch;
	f->position.step = step;
	const struct machine machine = {.backend = &fake, .state = (void *)&f->state};
	return checkpoint_write(f->directory, &f->layout, &f->identity, &f->position, &machine, keep);
}

static void path_of(const struct fixture *f, const char *name, char path[600])
{
	snprintf(path, 600, "%s/%s", f->directory, name);
}

static void touch(const struct fixture *f, const char *name)
{
	char path[600];
	path_of(f, name, path);
	assert_int_equal(file_write(path, "x", 1), ST_OK);
}

/* Without the syncs of file_write, of which the test below would need thousands. */
static void overwrite(const char *path, const uint8_t *bytes, size_t count)
{
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, count, file), count);
	assert_int_equal(fclose(file), 0);
}

static bool present(const struct fixture *f, const char *name)
{
	char path[600];
	path_of(f, name, path);
	return file_exists(path);
}

/* Resumes into a state of other values and says what came of it. */
static enum status resume(const struct fixture *f, struct position *position, bool *found, bool equal_wanted)
{
	struct training_state state = state_make(-9);
	*position = (struct position){0};
	enum status status = checkpoint_resume(f->directory, &f->layout, &f->identity, position, &state, found);
	if (status == ST_OK && *found && equal_wanted)
		assert_states_equal(&f->state, &state);
	state_free(&state);
	return status;
}

static void round_trip(void **context)
{
	struct fixture *f = *context;
	assert_int_equal(write_at(f, 3, 34, 2), ST_OK);
	assert_true(present(f, "ckpt-00003-000000034.safetensors"));
	assert_false(present(f, "ckpt-00003-000000034.safetensors.sagemaker-ignore"));
	struct position position;
	bool found;
	assert_int_equal(resume(f, &position, &found, true), ST_OK);
	assert_true(found);
	assert_int_equal(position.epoch, 3);
	assert_int_equal(position.step, 34);
	assert_int_equal(position.step_in_epoch, 4);
	assert_true(position.train.loss == 1.0 / 3);
	assert_true(position.last.validation.accuracy == 0.25);
	assert_true(position.last.validated);
	assert_int_equal(position.best_epoch, 2);
}

static void empty_or_missing_directory(void **context)
{
	struct fixture *f = *context;
	struct position position;
	bool found = true;
	assert_int_equal(resume(f, &position, &found, false), ST_OK);
	assert_false(found);
	rmdir(f->directory);
	found = true;
	assert_int_equal(resume(f, &position, &found, false), ST_OK);
	assert_false(found);
	assert_int_equal(write_at(f, 0, 1, 2), ST_OK); /* made again when needed */
}

/* Every truncation and every flipped bit of the newest falls back to the older one. */
static void damage_falls_back(void **context)
{
	struct fixture *f = *context;
	assert_int_equal(write_at(f, 1, 10, 5), ST_OK);
	assert_int_equal(write_at(f, 2, 20, 5), ST_OK);
	char path[600];
	path_of(f, "ckpt-00002-000000020.safetensors", path);
	uint8_t *bytes = NULL;
	size_t count = 0;
	assert_int_equal(file_read(path, 1 << 20, &bytes, &count), ST_OK);
	int saved = dup(STDERR_FILENO);
	assert_non_null(freopen("/dev/null", "w", stderr)); /* a warning each */
	for (size_t i = 0; i < count; i++) {
		struct position position;
		bool found;
		overwrite(path, bytes, i);
		assert_int_equal(resume(f, &position, &found, true), ST_OK);
		assert_true(found && position.step == 10);
		bytes[i] ^= (uint8_t)(1 << i % 8);
		overwrite(path, bytes, count);
		bytes[i] ^= (uint8_t)(1 << i % 8);
		assert_int_equal(resume(f, &position, &found, true), ST_OK);
		assert_true(found && position.step == 10);
	}
	dup2(saved, STDERR_FILENO);
	close(saved);
	free(bytes);
}

static void all_damaged_starts_anew(void **context)
{
	struct fixture *f = *context;
	touch(f, "ckpt-00002-000000020.safetensors");
	struct position position;
	bool found = true;
	assert_int_equal(resume(f, &position, &found, false), ST_OK);
	assert_false(found);
}

static void pruning_keeps_what_it_must(void **context)
{
	struct fixture *f = *context;
	touch(f, "model.safetensors");
	touch(f, "ckpt-1-2.safetensors");
	touch(f, "ckpt-00001-000000001.safetensors.bak");
	for (int i = 1; i <= 5; i++) {
		if (i == 2) {
			touch(f, "ckpt-00001-000000010.safetensors.sagemaker-uploading");
		}
		assert_int_equal(write_at(f, i, i * 10, 2), ST_OK);
	}
	assert_true(present(f, "ckpt-00005-000000050.safetensors"));
	assert_true(present(f, "ckpt-00004-000000040.safetensors"));
	assert_false(present(f, "ckpt-00003-000000030.safetensors"));
	assert_false(present(f, "ckpt-00002-000000020.safetensors"));
	assert_true(present(f, "ckpt-00001-000000010.safetensors")); /* being uploaded */
	touch(f, "ckpt-00001-000000010.safetensors.sagemaker-uploaded");
	assert_int_equal(write_at(f, 6, 60, 2), ST_OK);
	assert_false(present(f, "ckpt-00001-000000010.safetensors"));
	assert_true(present(f, "model.safetensors"));
	assert_true(present(f, "ckpt-1-2.safetensors"));
	assert_true(present(f, "ckpt-00001-000000001.safetensors.bak"));
	assert_true(present(f, "ckpt-00001-000000010.safetensors.sagemaker-uploading"));
}

static void other_network_is_refused(void **context)
{
	struct fixture *f = *context;
	assert_int_equal(write_at(f, 1, 10, 2), ST_OK);
	f->identity.classes = 10;
	struct position position;
	bool found;
	assert_int_equal(resume(f, &position, &found, false), ST_SETTINGS);
	assert_non_null(strstr(status_message(), "100 classes"));
	assert_non_null(strstr(status_message(), "10 classes"));
}

static void other_settings_go_on(void **context)
{
	struct fixture *f = *context;
	f->position.finished = true;
	assert_int_equal(write_at(f, 1, 10, 2), ST_OK);
	snprintf(f->identity.settings, sizeof f->identity.settings, "lr=0.2\npretrained=a \"quoted\" name\n");
	struct position position;
	bool found;
	assert_int_equal(resume(f, &position, &found, true), ST_OK);
	assert_true(found);
	assert_false(position.finished); /* by the older settings it was */
	assert_int_equal(position.step_in_epoch, 4);
	f->identity.steps_per_epoch = 11; /* the place within the epoch means nothing now */
	assert_int_equal(resume(f, &position, &found, true), ST_OK);
	assert_int_equal(position.step_in_epoch, 0);
	assert_true(position.train.images == 0);
}

static void ema_may_come_and_go(void **context)
{
	struct fixture *f = *context;
	f->identity.ema = false;
	assert_int_equal(write_at(f, 1, 10, 2), ST_OK);
	f->identity.ema = true;
	struct training_state state = state_make(-9);
	struct position position;
	bool found;
	assert_int_equal(checkpoint_resume(f->directory, &f->layout, &f->identity, &position, &state, &found), ST_OK);
	assert_true(found);
	assert_memory_equal(state.ema.weights, f->state.params.weights, WEIGHTS * sizeof(float));
	assert_memory_equal(state.ema.buffers, f->state.params.buffers, BUFFERS * sizeof(float));
	state_free(&state);
}

static void names(void **context)
{
	(void)context;
	int64_t epoch, step;
	assert_true(checkpoint_name_parse("ckpt-00003-000000034.safetensors", &epoch, &step));
	assert_int_equal(epoch, 3);
	assert_int_equal(step, 34);
	assert_true(checkpoint_name_parse("ckpt-123456-1234567890.safetensors", &epoch, &step));
	assert_int_equal(step, 1234567890);
	const char *const wrong[] = {"ckpt-3-34.safetensors", "ckpt-00003-000000034.safetensors.sagemaker-ignore", "ckpt-00003-000000034", "ckpt--0003-000000034.safetensors",
		"ckpt-00003-00000003x.safetensors", "xckpt-00003-000000034.safetensors", "", "ckpt-00003-000000034.safetensors.sagemaker-uploaded"};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_false(checkpoint_name_parse(wrong[i], NULL, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(empty_or_missing_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(damage_falls_back, setup, teardown),
		cmocka_unit_test_setup_teardown(all_damaged_starts_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(pruning_keeps_what_it_must, setup, teardown),
		cmocka_unit_test_setup_teardown(other_network_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(other_settings_go_on, setup, teardown),
		cmocka_unit_test_setup_teardown(ema_may_come_and_go, setup, teardown),
		cmocka_unit_test(names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
