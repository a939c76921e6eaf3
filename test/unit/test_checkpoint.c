/* test_checkpoint.c: a checkpoint comes back bit for bit; a damaged one is passed over; nothing foreign is touched.
 * Method: the small files of checkpoint_bed.h. Damage is tried at every byte. */
#include "test/unit/checkpoint_bed.h"

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

static enum status write_at(struct fixture *f, int64_t epoch, int64_t step, int keep)
{
	f->position.epoch = epoch;
	f->position.step = step;
	return checkpoint_write(f->directory, &f->layout, &f->identity, &f->position, &f->state, keep);
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

/* Later steps, damaged or of a run begun again, go first; never the file just written. */
static void what_lies_ahead_is_pruned_first(void **context)
{
	struct fixture *f = *context;
	touch(f, "ckpt-00009-000000090.safetensors");
	touch(f, "ckpt-00008-000000080.safetensors");
	touch(f, "ckpt-00007-000000070.safetensors");
	char foreign[600];
	path_of(f, "ckpt-00006-000000060.safetensors", foreign);
	assert_int_equal(mkdir(foreign, 0755), 0);
	assert_int_equal(write_at(f, 1, 10, 3), ST_OK);
	assert_true(present(f, "ckpt-00001-000000010.safetensors"));
	assert_false(present(f, "ckpt-00007-000000070.safetensors"));
	assert_int_equal(write_at(f, 2, 20, 3), ST_OK);
	assert_int_equal(write_at(f, 3, 30, 3), ST_OK);
	for (int step = 10; step <= 30; step += 10) {
		char name[64];
		snprintf(name, sizeof name, "ckpt-%05d-%09d.safetensors", step / 10, step);
		assert_true(present(f, name));
	}
	assert_false(present(f, "ckpt-00008-000000080.safetensors") || present(f, "ckpt-00009-000000090.safetensors"));
	assert_true(directory_exists(foreign));
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
		cmocka_unit_test_setup_teardown(what_lies_ahead_is_pruned_first, setup, teardown),
		cmocka_unit_test_setup_teardown(other_network_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(other_settings_go_on, setup, teardown),
		cmocka_unit_test_setup_teardown(ema_may_come_and_go, setup, teardown),
		cmocka_unit_test(names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
