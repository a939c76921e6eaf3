/* test_step.c: a training step that is stopped anywhere in it and done anew ends with the same bits as one that was not stopped.
 * Method: a counter stands for the stop signal; every point at which the step asks is tried. Both backends; small images. */
#include "train/step.h"

#include "train/batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIZE = 8, CLASSES = 3, BATCH = 4, COUNT = 4 };

static long asked, stop_at;

static bool stopped(void)
{
	return ++asked == stop_at;
}

static struct images images_make(void)
{
	static uint8_t pixels[COUNT * 3 * SIZE * SIZE];
	static const uint16_t labels[COUNT] = {0, 1, 2, 1};
	for (size_t i = 0; i < sizeof pixels; i++)
		pixels[i] = (uint8_t)(i * 2654435761u >> 13);
	return (struct images){pixels, labels, COUNT, SIZE};
}

static void state_compare(const struct backend *backend, struct backend_state *a, struct backend_state *b, const struct params_layout *layout)
{
	struct params x, y;
	assert_int_equal(params_alloc(&x, layout), ST_OK);
	assert_int_equal(params_alloc(&y, layout), ST_OK);
	struct training_state of_a = {.params = x}, of_b = {.params = y};
	assert_int_equal(backend->snapshot(a, &of_a), ST_OK);
	assert_int_equal(backend->snapshot(b, &of_b), ST_OK);
	assert_memory_equal(x.weights, y.weights, layout->weights_count * sizeof(float));
	assert_memory_equal(x.buffers, y.buffers, layout->buffers_count * sizeof(float));
	assert_int_equal(of_a.params.batches_tracked, of_b.params.batches_tracked);
	struct counters p, q;
	assert_int_equal(backend->counters_read(a, &p), ST_OK);
	assert_int_equal(backend->counters_read(b, &q), ST_OK);
	assert_memory_equal(&p, &q, sizeof p);
	params_free(&x);
	params_free(&y);
}

static void stop_anywhere(const struct backend *backend)
{
	static struct network network;
	static struct params_layout layout;
	struct threads *threads;
	struct params params;
	assert_int_equal(network_build(&network, STEM_IMAGENET, SIZE, CLASSES), ST_OK);
	params_layout_build(&layout, &network);
	assert_int_equal(threads_open(2, &threads), ST_OK);
	assert_int_equal(params_alloc(&params, &layout), ST_OK);
	params_init(&params, &network, &layout, 1, false);
	const struct backend_config config = {.network = &network, .layout = &layout, .batch_max = BATCH, .normalization = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}},
		.threads = threads, .training = true, .norm_momentum = 0.1};
	struct machine whole = {.backend = backend, .network = &network}, broken = {.backend = backend, .network = &network, .stopped = stopped};
	assert_int_equal(backend->open(&config, &whole.state), ST_OK);
	assert_int_equal(backend->open(&config, &broken.state), ST_OK);
	const struct training_state from = {.params = params};
	assert_int_equal(backend->state_write(whole.state, &from), ST_OK);
	assert_int_equal(backend->state_write(broken.state, &from), ST_OK);
	struct images images = images_make();
	struct sample samples[BATCH];
	batch_plain(0, BATCH, samples);
	struct update update = {.lr = 0.01f, .momentum = 0.9f, .weight_decay = 5e-4f, .norm_bias_lr_scale = 1, .gradient_scale = 1, .first = true};
	for (stop_at = 1; stop_at < 72; stop_at += 23) {
		assert_int_equal(step_train(&whole, &images, samples, BATCH, BATCH, 0, &update), ST_OK);
		asked = 0;
		assert_int_equal(step_train(&broken, &images, samples, BATCH, BATCH, 0, &update), ST_STOPPED);
		assert_int_equal(asked, stop_at);
		assert_int_equal(step_train(&broken, &images, samples, BATCH, BATCH, 0, &update), ST_OK);
		state_compare(backend, whole.state, broken.state, &layout);
		update.first = false;
	}
	params_free(&params);
	backend->close(whole.state);
	backend->close(broken.state);
	threads_close(threads);
}

static void stop_anywhere_ref(void **context)
{
	(void)context;
	stop_anywhere(&backend_ref);
}

static void stop_anywhere_cpu(void **context)
{
	(void)context;
	stop_anywhere(&backend_cpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stop_anywhere_ref),
		cmocka_unit_test(stop_anywhere_cpu),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
