/* Goal: jobs reach the engine joined, in order, each with its own images, and come back once with their own logits to the bit; deadlines, full
 * queue, clients that left, large jobs in parts. Method: a fake engine whose logits are a function of the image alone, that counts its
 * runs and can be held up, so that what waits is known. */
#include "core/base/clock.h"
#include "core/base/random.h"
#include "serve/batch.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FLOATS = 6, CLASSES = 4, RUNS_MAX = 4096 };

/* The fake engine: one gate for all, so that a run can be held while others submit. */
struct engine_double {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool held;
	int inside; /* runs that have begun */
	size_t sizes[RUNS_MAX];
	const void *engines[RUNS_MAX];
};

static struct engine_double fake;
static struct metrics metrics;

static void logits_of(const float *image, float *logits)
{
	for (int k = 0; k < CLASSES; k++) {
		logits[k] = 0;
		for (int i = 0; i < FLOATS; i++)
			logits[k] += image[i] * (float)(i * CLASSES + k + 1) / 7.0f;
	}
}

static void fake_predict(void *engine, const float *const *images, size_t n, float *logits)
{
	pthread_mutex_lock(&fake.lock);
	fake.sizes[fake.inside % RUNS_MAX] = n;
	fake.engines[fake.inside % RUNS_MAX] = engine;
	fake.inside++;
	pthread_cond_broadcast(&fake.changed);
	while (fake.held)
		pthread_cond_wait(&fake.changed, &fake.lock);
	pthread_mutex_unlock(&fake.lock);
	for (size_t i = 0; i < n; i++)
		logits_of(images[i], logits + i * CLASSES);
}

static void fake_hold(bool held)
{
	pthread_mutex_lock(&fake.lock);
	fake.held = held;
	pthread_cond_broadcast(&fake.changed);
	pthread_mutex_unlock(&fake.lock);
}

static void fake_wait_inside(int runs)
{
	pthread_mutex_lock(&fake.lock);
	while (fake.inside < runs)
		pthread_cond_wait(&fake.changed, &fake.lock);
	pthread_mutex_unlock(&fake.lock);
}

static struct batch *start(size_t images_max, size_t places, int64_t wait_us_max)
{
	struct batch *batch = NULL;
	memset(&fake, 0, sizeof fake);
	pthread_mutex_init(&fake.lock, NULL);
	pthread_cond_init(&fake.changed, NULL);
	metrics_init(&metrics);
	struct batch_config config = {.images_max = images_max, .places = places, .wait_us_max = wait_us_max, .predict = fake_predict, .metrics = &metrics};
	assert_int_equal(batch_open(&config, &batch), ST_OK);
	return batch;
}

/* A job with its memory, and a way to wait for it. */
struct order {
	struct batch_job job;
	float *images, *logits;
	_Atomic bool left;
	int done_count;
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

static struct order *of_job(struct batch_job *job)
{
	return (struct order *)(void *)job;
}

static void order_done(struct batch_job *job)
{
	struct order *order = of_job(job);
	pthread_mutex_lock(&order->lock);
	order->done_count++;
	pthread_cond_broadcast(&order->changed);
	pthread_mutex_unlock(&order->lock);
}

static bool order_gone(struct batch_job *job)
{
	return atomic_load(&of_job(job)->left);
}

static char engine_a, engine_b;

static struct order *order_new(size_t count, uint64_t seed)
{
	struct order *order = calloc(1, sizeof *order);
	assert_non_null(order);
	order->images = malloc(count * FLOATS * sizeof(float));
	order->logits = malloc(count * CLASSES * sizeof(float));
	assert_true(order->images != NULL && order->logits != NULL);
	struct random_stream stream = random_open(seed, RANDOM_TEST, 0, seed);
	for (size_t i = 0; i < count * FLOATS; i++)
		order->images[i] = (float)random_normal(&stream);
	for (size_t i = 0; i < count * CLASSES; i++)
		order->logits[i] = -1e30f;
	pthread_mutex_init(&order->lock, NULL);
	pthread_cond_init(&order->changed, NULL);
	order->job = (struct batch_job){.engine = &engine_a, .images = order->images, .count = count, .image_floats = FLOATS, .logits = order->logits,
		.classes = CLASSES, .deadline_us = INT64_MAX, .gone = order_gone, .done = order_done};
	return order;
}

static void order_wait(struct order *order)
{
	pthread_mutex_lock(&order->lock);
	while (order->done_count == 0)
		pthread_cond_wait(&order->changed, &order->lock);
	assert_int_equal(order->done_count, 1);
	pthread_mutex_unlock(&order->lock);
}

static void order_check(const struct order *order)
{
	assert_int_equal(order->job.outcome, BATCH_DONE);
	for (size_t i = 0; i < order->job.count; i++) {
		float wanted[CLASSES];
		logits_of(order->images + i * FLOATS, wanted);
		assert_memory_equal(order->logits + i * CLASSES, wanted, sizeof wanted);
	}
}

static void order_free(struct order *order)
{
	free(order->images);
	free(order->logits);
	free(order);
}

static void submit(struct batch *batch, struct order *order)
{
	assert_true(batch_enter(batch));
	batch_submit(batch, &order->job);
}

/* --- tests ------------------------------------------------------------------------------------------------------------- */

static void lone_job_leaves_at_once(void **state)
{
	(void)state;
	/* A wait of an hour: only a batch that leaves without waiting ends this test. */
	struct batch *batch = start(8, 4, (int64_t)3600 * 1000000);
	for (uint64_t i = 0; i < 3; i++) {
		struct order *order = order_new(1, i);
		submit(batch, order);
		order_wait(order);
		order_check(order);
		order_free(order);
	}
	assert_int_equal(fake.inside, 3);
	batch_close(batch);
}

static void waiting_jobs_are_joined_in_order(void **state)
{
	(void)state;
	struct batch *batch = start(8, 64, 0);
	struct order *orders[7];
	fake_hold(true);
	orders[0] = order_new(1, 0);
	submit(batch, orders[0]);
	fake_wait_inside(1);
	for (uint64_t i = 1; i < 7; i++) { /* 2 images each */
		orders[i] = order_new(2, i);
		submit(batch, orders[i]);
	}
	assert_int_equal(metrics.gauges[GAUGE_QUEUE], 12);
	fake_hold(false);
	for (int i = 0; i < 7; i++) {
		order_wait(orders[i]);
		order_check(orders[i]);
		order_free(orders[i]);
	}
	assert_int_equal(fake.inside, 3);
	assert_int_equal(fake.sizes[0], 1);
	assert_int_equal(fake.sizes[1], 8); /* full */
	assert_int_equal(fake.sizes[2], 4);
	assert_int_equal(metrics.gauges[GAUGE_QUEUE], 0);
	batch_close(batch);
}

static void company_is_waited_for(void **state)
{
	(void)state;
	/* After a batch of three jobs, two wait for a third, for as long as an hour. */
	struct batch *batch = start(8, 64, (int64_t)3600 * 1000000);
	struct order *orders[7];
	fake_hold(true);
	orders[0] = order_new(1, 0);
	submit(batch, orders[0]);
	fake_wait_inside(1);
	for (uint64_t i = 1; i < 4; i++) {
		orders[i] = order_new(1, i);
		submit(batch, orders[i]);
	}
	fake_hold(false);
	for (int i = 0; i < 4; i++)
		order_wait(orders[i]);
	for (uint64_t i = 4; i < 7; i++) {
		orders[i] = order_new(1, i);
		submit(batch, orders[i]);
	}
	for (int i = 0; i < 7; i++) {
		order_wait(orders[i]);
		order_check(orders[i]);
		order_free(orders[i]);
	}
	assert_int_equal(fake.inside, 3);
	assert_int_equal(fake.sizes[2], 3);
	batch_close(batch);
}

static void wait_has_an_end(void **state)
{
	(void)state;
	struct batch *batch = start(8, 64, 2000);
	struct order *orders[4];
	fake_hold(true);
	for (uint64_t i = 0; i < 3; i++) {
		orders[i] = order_new(1, i);
		submit(batch, orders[i]);
		if (i == 0)
			fake_wait_inside(1);
	}
	fake_hold(false);
	order_wait(orders[1]);
	order_wait(orders[2]);
	orders[3] = order_new(1, 3); /* alone, where two came together before: it leaves after 2 ms */
	submit(batch, orders[3]);
	order_wait(orders[3]);
	assert_true(orders[3]->job.queue_us >= 2000);
	for (int i = 0; i < 4; i++) {
		order_wait(orders[i]);
		order_check(orders[i]);
		order_free(orders[i]);
	}
	batch_close(batch);
}

static void large_job_lets_small_ones_in(void **state)
{
	(void)state;
	struct batch *batch = start(4, 64, 0);
	struct order *large = order_new(19, 1), *small = order_new(1, 2);
	fake_hold(true);
	submit(batch, large);
	fake_wait_inside(1);
	submit(batch, small);
	fake_hold(false);
	order_wait(small);
	order_wait(large);
	order_check(small);
	order_check(large);
	/* 4 of the large one; then the small one first and 3; then 4, 4, 4. */
	assert_int_equal(fake.inside, 5);
	assert_true(small->job.queue_us <= large->job.queue_us + large->job.predict_us);
	for (int i = 0; i < 5; i++)
		assert_int_equal(fake.sizes[i], 4);
	order_free(large);
	order_free(small);
	batch_close(batch);
}

static void engines_are_not_mixed(void **state)
{
	(void)state;
	struct batch *batch = start(16, 64, 0);
	struct order *orders[9];
	fake_hold(true);
	for (uint64_t i = 0; i < 9; i++) {
		orders[i] = order_new(1 + i % 2, i);
		orders[i]->job.engine = i % 3 == 1 ? &engine_b : &engine_a;
		submit(batch, orders[i]);
		if (i == 0)
			fake_wait_inside(1);
	}
	fake_hold(false);
	for (int i = 0; i < 9; i++) {
		order_wait(orders[i]);
		order_check(orders[i]);
		order_free(orders[i]);
	}
	assert_int_equal(fake.inside, 3);
	assert_ptr_equal(fake.engines[1], &engine_b); /* the first in the queue */
	assert_int_equal(fake.sizes[1], 4 + 1);
	assert_ptr_equal(fake.engines[2], &engine_a);
	assert_int_equal(fake.sizes[2], 1 + 2 + 1 + 1 + 2 + 0);
	batch_close(batch);
}

static void full_queue_refuses(void **state)
{
	(void)state;
	struct batch *batch = start(8, 2, 0);
	struct order *first = order_new(1, 1), *second = order_new(1, 2);
	fake_hold(true);
	submit(batch, first);
	fake_wait_inside(1);
	submit(batch, second);
	assert_false(batch_enter(batch));
	fake_hold(false);
	order_wait(first);
	order_wait(second);
	assert_true(batch_enter(batch)); /* places are free again */
	assert_true(batch_enter(batch));
	assert_false(batch_enter(batch));
	batch_leave(batch);
	assert_true(batch_enter(batch));
	order_free(first);
	order_free(second);
	batch_close(batch);
}

static void late_and_left_jobs_are_dropped(void **state)
{
	(void)state;
	struct batch *batch = start(8, 64, 0);
	struct order *first = order_new(1, 1), *late = order_new(2, 2), *left = order_new(3, 3), *good = order_new(1, 4);
	fake_hold(true);
	submit(batch, first);
	fake_wait_inside(1);
	late->job.deadline_us = clock_us() - 1;
	submit(batch, late);
	submit(batch, left);
	submit(batch, good);
	atomic_store(&left->left, true);
	fake_hold(false);
	order_wait(first);
	order_wait(late);
	order_wait(left);
	order_wait(good);
	assert_int_equal(late->job.outcome, BATCH_EXPIRED);
	assert_int_equal(left->job.outcome, BATCH_LEFT);
	order_check(first);
	order_check(good);
	assert_int_equal(fake.inside, 2);
	assert_int_equal(fake.sizes[1], 1);
	assert_true(late->logits[0] == -1e30f && left->logits[0] == -1e30f);
	order_free(first);
	order_free(late);
	order_free(left);
	order_free(good);
	batch_close(batch);
}

static void deadline_ends_a_large_job_between_its_parts(void **state)
{
	(void)state;
	struct batch *batch = start(2, 8, 0);
	struct order *large = order_new(100, 1);
	fake_hold(true);
	large->job.deadline_us = clock_us() + 3600 * (int64_t)1000000;
	submit(batch, large);
	fake_wait_inside(1);
	large->job.deadline_us = 0; /* the engine holds the job: nobody reads it now */
	fake_hold(false);
	order_wait(large);
	assert_int_equal(large->job.outcome, BATCH_EXPIRED);
	assert_int_equal(fake.inside, 1);
	assert_true(batch_enter(batch));
	order_free(large);
	batch_close(batch);
}

static void close_finishes_what_is_there(void **state)
{
	(void)state;
	struct batch *batch = start(4, 64, (int64_t)3600 * 1000000);
	struct order *orders[10];
	for (uint64_t i = 0; i < 10; i++) {
		orders[i] = order_new(1 + i, i);
		submit(batch, orders[i]);
	}
	batch_close(batch);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(orders[i]->done_count, 1);
		order_check(orders[i]);
		order_free(orders[i]);
	}
}

/* --- many clients ------------------------------------------------------------------------------------------------------ */

struct client {
	pthread_t thread;
	struct batch *batch;
	uint64_t seed;
	int refused, done;
};

static void *client_run(void *context)
{
	struct client *client = context;
	for (uint64_t i = 0; i < 60; i++) {
		struct order *order = order_new(1 + (client->seed * 7 + i) % 11, client->seed * 1000 + i);
		order->job.engine = (client->seed + i) % 5 == 0 ? &engine_b : &engine_a;
		if (!batch_enter(client->batch)) {
			client->refused++;
		} else {
			batch_submit(client->batch, &order->job);
			order_wait(order);
			order_check(order);
			client->done++;
		}
		order_free(order);
	}
	return NULL;
}

static void many_clients_get_their_own(void **state)
{
	(void)state;
	struct batch *batch = start(8, 12, 200);
	struct client clients[16];
	for (size_t i = 0; i < 16; i++) {
		clients[i] = (struct client){.batch = batch, .seed = i + 1};
		assert_int_equal(pthread_create(&clients[i].thread, NULL, client_run, &clients[i]), 0);
	}
	int total = 0;
	for (size_t i = 0; i < 16; i++) {
		pthread_join(clients[i].thread, NULL);
		assert_int_equal(clients[i].done + clients[i].refused, 60);
		total += clients[i].done;
	}
	assert_true(total > 0);
	assert_int_equal(metrics.gauges[GAUGE_QUEUE], 0);
	batch_close(batch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lone_job_leaves_at_once),
		cmocka_unit_test(waiting_jobs_are_joined_in_order),
		cmocka_unit_test(company_is_waited_for),
		cmocka_unit_test(wait_has_an_end),
		cmocka_unit_test(large_job_lets_small_ones_in),
		cmocka_unit_test(engines_are_not_mixed),
		cmocka_unit_test(full_queue_refuses),
		cmocka_unit_test(late_and_left_jobs_are_dropped),
		cmocka_unit_test(deadline_ends_a_large_job_between_its_parts),
		cmocka_unit_test(close_finishes_what_is_there),
		cmocka_unit_test(many_clients_get_their_own),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
