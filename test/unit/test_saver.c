/* test_saver.c: steps go on while a checkpoint is written; the next one, a stop and the end wait for it; no failure is lost.
 * Method: the small files of checkpoint_bed.h and an fsync of our own, which waits at a gate or fails as told; no real one is needed. */
#include "test/unit/checkpoint_bed.h"
#include "train/saver.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool shut;
	int waiting;
	int failures; /* of the next calls */
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int fsync(int fd)
{
	(void)fd;
	pthread_mutex_lock(&gate.lock);
	gate.waiting++;
	pthread_cond_broadcast(&gate.changed);
	while (gate.shut)
		pthread_cond_wait(&gate.changed, &gate.lock);
	gate.waiting--;
	bool fails = gate.failures > 0;
	gate.failures -= fails;
	pthread_mutex_unlock(&gate.lock);
	errno = fails ? ENOSPC : errno;
	return fails ? -1 : 0;
}

static void gate_set(bool shut, int failures)
{
	pthread_mutex_lock(&gate.lock);
	gate.shut = shut;
	gate.failures = failures;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

/* Until the writer stands at the gate. */
static void gate_await(void)
{
	pthread_mutex_lock(&gate.lock);
	while (gate.waiting == 0)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
}

static void pause_briefly(void)
{
	nanosleep(&(struct timespec){0, 50 * 1000 * 1000}, NULL);
}

/* Opens the gate some time after the writer came to it: who does not wait for the writer is seen before. */
static void *gate_open_later(void *context)
{
	gate_await();
	pause_briefly();
	gate_set(false, 0);
	return context;
}

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

static struct saver *open_saver(const struct fixture *f, int keep)
{
	struct saver *saver = NULL;
	const struct saver_config config = {.directory = f->directory, .layout = &f->layout, .identity = &f->identity, .keep = keep};
	assert_int_equal(saver_open(&config, &saver), ST_OK);
	return saver;
}

static enum status save_at(struct fixture *f, struct saver *saver, int64_t step)
{
	f->position.step = step;
	const struct machine machine = {.backend = &fake, .state = (void *)&f->state};
	return saver_save(saver, &f->position, &machine);
}

#define NAME(step) "ckpt-00003-0000000" #step ".safetensors"

static void steps_go_on_while_the_disk_is_slow(void **context)
{
	struct fixture *f = *context;
	struct saver *saver = open_saver(f, 3);
	gate_set(true, 0);
	assert_int_equal(save_at(f, saver, 34), ST_OK);
	gate_await();
	f->state.params.weights[0] += 5; /* the steps */
	f->state.momentum[1] += 5;
	f->position.step = 35;
	assert_int_equal(saver_check(saver), ST_OK);
	assert_false(present(f, NAME(34)));
	gate_set(false, 0);
	assert_int_equal(saver_finish(saver), ST_OK);
	f->state.params.weights[0] -= 5;
	f->state.momentum[1] -= 5;
	struct position position;
	bool found;
	assert_int_equal(resume(f, &position, &found, true), ST_OK);
	assert_true(found);
	assert_int_equal(position.step, 34);
	saver_close(saver);
}

static void the_next_waits_and_so_does_the_end(void **context)
{
	struct fixture *f = *context;
	for (int closes = 0; closes < 2; closes++) {
		struct saver *saver = open_saver(f, 3);
		pthread_t opener;
		gate_set(true, 0);
		assert_int_equal(save_at(f, saver, 40), ST_OK);
		assert_int_equal(pthread_create(&opener, NULL, gate_open_later, NULL), 0);
		if (closes == 0)
			assert_int_equal(save_at(f, saver, 41), ST_OK);
		else
			saver_close(saver);
		assert_true(present(f, NAME(40)));
		pthread_join(opener, NULL);
		if (closes == 0) {
			assert_int_equal(saver_finish(saver), ST_OK);
			assert_true(present(f, NAME(41)));
			saver_close(saver);
			char path[600];
			path_of(f, NAME(40), path);
			assert_int_equal(unlink(path), 0);
		}
	}
}

static void a_full_disk_is_met_at_the_next_boundary(void **context)
{
	struct fixture *f = *context;
	struct saver *saver = open_saver(f, 3);
	assert_int_equal(save_at(f, saver, 50), ST_OK);
	assert_int_equal(saver_finish(saver), ST_OK);
	gate_set(false, 1000);
	assert_int_equal(save_at(f, saver, 51), ST_OK);
	while (saver_check(saver) == ST_OK)
		pause_briefly();
	assert_int_equal(saver_check(saver), ST_DISK);
	assert_non_null(strstr(status_message(), NAME(51)));
	assert_non_null(strstr(status_message(), "No space left"));
	gate_set(false, 0);
	assert_int_equal(saver_finish(saver), ST_DISK);
	assert_int_equal(save_at(f, saver, 52), ST_DISK);
	saver_close(saver);
	assert_true(present(f, NAME(50)));
	assert_false(present(f, NAME(51)) || present(f, NAME(52)));
}

static void room_is_made_on_a_full_disk(void **context)
{
	struct fixture *f = *context;
	struct saver *saver = open_saver(f, 3);
	char ahead[600];
	path_of(f, NAME(90), ahead); /* damaged, and so not what this run went on from */
	assert_int_equal(file_write(ahead, "x", 1), ST_OK);
	for (int64_t step = 60; step < 63; step++) {
		if (step == 62) {
			assert_int_equal(saver_finish(saver), ST_OK);
			gate_set(false, 1);
		}
		assert_int_equal(save_at(f, saver, step), ST_OK);
	}
	assert_int_equal(saver_finish(saver), ST_OK);
	saver_close(saver);
	assert_false(present(f, NAME(60)) || present(f, NAME(90)));
	assert_true(present(f, NAME(61)) && present(f, NAME(62)));
}

/* A run that failed meanwhile keeps its own sentence; the checkpoint's goes to the log. */
static void a_failure_nobody_asked_for_is_logged(void **context)
{
	struct fixture *f = *context;
	struct saver *saver = open_saver(f, 3);
	char line[4096] = "";
	FILE *file = tmpfile();
	assert_non_null(file);
	gate_set(false, 1000);
	assert_int_equal(save_at(f, saver, 70), ST_OK);
	assert_int_equal(FAIL(ST_INTERNAL, "diverged"), ST_INTERNAL);
	int before = dup(2);
	assert_true(dup2(fileno(file), 2) >= 0);
	saver_close(saver);
	assert_true(dup2(before, 2) >= 0);
	close(before);
	gate_set(false, 0);
	rewind(file);
	line[fread(line, 1, sizeof line - 1, file)] = 0;
	fclose(file);
	assert_string_equal(status_message(), "diverged");
	assert_non_null(strstr(line, "error: "));
	assert_non_null(strstr(line, "No space left"));
}

static enum status broken_snapshot(struct backend_state *state, struct training_state *to)
{
	(void)state;
	(void)to;
	return FAIL(ST_DEVICE, "the device is gone");
}

static void a_failed_copy_writes_nothing(void **context)
{
	struct fixture *f = *context;
	struct saver *saver = open_saver(f, 3);
	static const struct backend broken = {.name = "broken", .snapshot = broken_snapshot};
	const struct machine machine = {.backend = &broken};
	assert_int_equal(saver_save(saver, &f->position, &machine), ST_DEVICE);
	assert_int_equal(saver_finish(saver), ST_OK);
	saver_close(saver);
	assert_false(present(f, NAME(34)));
	saver_close(NULL);
	assert_int_equal(saver_check(NULL), ST_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(steps_go_on_while_the_disk_is_slow, setup, teardown),
		cmocka_unit_test_setup_teardown(the_next_waits_and_so_does_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_is_met_at_the_next_boundary, setup, teardown),
		cmocka_unit_test_setup_teardown(room_is_made_on_a_full_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failure_nobody_asked_for_is_logged, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failed_copy_writes_nothing, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
