/* test_reduction.c: backends that train one network on several ranks.
 *
 * Goal: what backend.h says of sums over ranks, for ref and cpu. Method: each rank is a backend of its own, driven by a thread of its own for
 * one step at a time (rank_bed.h).
 * - With synchronised batch norm the ranks together are one backend on the whole batch: compared step after step, for equal and unequal
 *   shares and ranks without images.
 * - Without, they are backends that each see their share alone, averaged with the weights n/total.
 * - All ranks have the same bits, whatever the buckets, threads and runs; what travels is what is live; a failing sum ends the step.
 * The network is a ResNet34 with few channels: its wiring, its dead taps and its 1×1 maps are all there. */
#include "test/unit/rank_bed.h"

enum { STEPS = SLOW ? 2 : 3 };

/* --- synchronised: one batch ---------------------------------------------------------------------------------------- */

struct shares {
	int world, n[RANKS_MAX];
};

static double relative_distance(const float *found, const float *wanted, size_t count)
{
	double distance = 0, length = 0;
	for (size_t i = 0; i < count; i++) {
		distance += ((double)found[i] - (double)wanted[i]) * ((double)found[i] - (double)wanted[i]);
		length += (double)wanted[i] * (double)wanted[i];
	}
	return sqrt(distance / length);
}

static void held_near(const struct held *found, const struct held *wanted, const struct bed *bed, double tolerance)
{
	for (int i = 0; i < bed->layout.count; i++) {
		const struct param *param = &bed->layout.all[i];
		if (!param_is_buffer(param))
			check_near(found->gradients + param->offset, wanted->gradients + param->offset, param->count, tolerance, "gradient of %s", param->name);
		check_near(params_data(&found->state.params, param), params_data(&wanted->state.params, param), param->count, tolerance, "%s", param->name);
		check_near(params_data(&found->state.ema, param), params_data(&wanted->state.ema, param), param->count, tolerance, "average of %s", param->name);
	}
	check_near(found->state.momentum, wanted->state.momentum, bed->layout.weights_count, tolerance, "momentum");
	assert_true(fabs(found->norm_squared - wanted->norm_squared) <= 2 * tolerance * wanted->norm_squared);
	assert_true(fabs(found->counters.loss - wanted->counters.loss) <= tolerance * wanted->counters.loss);
	assert_true(found->counters.images == wanted->counters.images);
	assert_int_equal(found->state.params.batches_tracked, wanted->state.params.batches_tracked);
}

/* ref: everything is computed in double, and rounded to float where it is read: by 2^-24 on both sides; three steps magnify 2^-53 to far less.
 * cpu: what rounds differently on the two sides passes through all units, and each adds what unit_tolerance of test_cpu_backend allows it, as
 * a random walk. */
static double walk_tolerance(const struct backend *backend, const struct bed *bed)
{
	double terms = 9.0 * bed->network.head.C;
	return backend == &backend_ref ? 2 * EPSILON : sqrt(RESNET_UNITS) * 16 * (sqrt(terms) + 8) * EPSILON;
}

/* Each of cpu's steps starts from the same state, so that it is judged alone. In these images no ReLU is so close to its edge that it opens on one
 * side only. */
static void check_synchronized(const struct backend *backend, const struct shares *shares)
{
	struct bed bed;
	struct training_state start;
	struct group group, own;
	struct held found, wanted, apart;
	narrow_bed_open(&bed);
	double tolerance = walk_tolerance(backend, &bed);
	state_alloc(&start, &bed.layout, false);
	state_random(&start, &bed);
	group_open(&group, &bed, backend, shares->world, true, 100000, &start);
	group_open(&own, &bed, backend, shares->world, false, 100000, &start);
	held_alloc(&found, &bed);
	held_alloc(&wanted, &bed);
	held_alloc(&apart, &bed);
	struct backend_config config = config_of(&bed, bed.threads);
	config.sync_batch_norm = true; /* alone it means nothing */
	struct machine whole = {.backend = backend, .network = &bed.network};
	assert_int_equal(backend->open(&config, &whole.state), ST_OK);
	assert_int_equal(backend->state_write(whole.state, &start), ST_OK);

	for (int step = 0; step < STEPS; step++) {
		struct update update = plain_update;
		update.first = step == 0;
		assert_int_equal(step_train(&whole, &bed.images, bed.samples + step * TOTAL, TOTAL, TOTAL, 0.1f, &update), ST_OK);
		group_run(&group, step, shares->n, false);
		held_read(&wanted, &whole);
		group_read(&group, &found);
		held_near(&found, &wanted, &bed, tolerance);
		assert_true(wanted.norm_squared > CLIP_NORM * CLIP_NORM); /* clipping took part */
		for (int r = 0; r < shares->world && backend == &backend_cpu; r++)
			assert_int_equal(backend->state_write(group.ranks[r].machine.state, &wanted.state), ST_OK);
	}
	/* The comparison would see it if each rank had statistics of its own. */
	bool lonely = false;
	for (int r = 0; r < shares->world; r++)
		lonely = lonely || shares->n[r] == 1 || shares->n[r] == TOTAL;
	if (!lonely) {
		assert_int_equal(backend->state_write(whole.state, &start), ST_OK);
		assert_int_equal(step_train(&whole, &bed.images, bed.samples, TOTAL, TOTAL, 0.1f, &plain_update), ST_OK);
		held_read(&wanted, &whole);
		group_run(&own, 0, shares->n, false);
		group_read(&own, &apart);
		assert_true(relative_distance(apart.gradients, wanted.gradients, bed.layout.weights_count) > 0.1);
	}
	backend->close(whole.state);
	group_close(&group);
	group_close(&own);
	held_free(&found);
	held_free(&wanted);
	held_free(&apart);
	state_free(&start);
	bed_close(&bed);
}

static const struct backend *backend_of(void **state)
{
	return *state;
}

static void test_synchronized_ranks_are_one_batch(void **state)
{
	static const struct shares cases[] = {{2, {5, 3}}, {2, {TOTAL, 0}}, {2, {1, 7}}, {4, {2, 2, 2, 2}}, {4, {3, 1, 0, 4}}};
	for (size_t i = SLOW ? 4 : 0; i < sizeof cases / sizeof cases[0]; i++)
		check_synchronized(backend_of(state), &cases[i]);
	used_print("synchronised ranks");
}

/* --- apart: the mean of what each would do alone -------------------------------------------------------------------- */

/* Forwards, a rank computes the bits of a backend that is alone; backwards it starts from other numbers, divided by the total, not by n. */
static void check_apart(const struct backend *backend, const struct shares *shares)
{
	struct bed bed;
	struct group group;
	struct held found, alone, before;
	narrow_bed_open(&bed);
	held_alloc(&found, &bed);
	held_alloc(&alone, &bed);
	held_alloc(&before, &bed);
	state_random(&before.state, &bed);
	memcpy(before.state.ema.weights, before.state.params.weights, bed.layout.weights_count * sizeof(float));
	memcpy(before.state.ema.buffers, before.state.params.buffers, bed.layout.buffers_count * sizeof(float));
	group_open(&group, &bed, backend, shares->world, false, 0, &before.state);
	struct backend_config config = config_of(&bed, bed.threads);
	struct machine one = {.backend = backend, .network = &bed.network};
	assert_int_equal(backend->open(&config, &one.state), ST_OK);
	size_t weights = bed.layout.weights_count, buffers = bed.layout.buffers_count;
	double *sums = zeros(weights + buffers, sizeof *sums);
	float *means = zeros(weights + buffers, sizeof *means);

	for (int step = 0; step < STEPS; step++) {
		const struct sample *samples = bed.samples + step * TOTAL;
		/* Both sides start from the same floats. */
		for (int r = 0; r < shares->world; r++)
			assert_int_equal(backend->state_write(group.ranks[r].machine.state, &before.state), ST_OK);
		group_run(&group, step, shares->n, false);
		group_read(&group, &found);
		memset(sums, 0, (weights + buffers) * sizeof *sums);
		for (int r = 0; r < shares->world; r++) {
			if (shares->n[r] == 0)
				continue;
			double share = (double)shares->n[r] / TOTAL;
			assert_int_equal(backend->state_write(one.state, &before.state), ST_OK);
			assert_int_equal(step_train(&one, &bed.images, samples, shares->n[r], shares->n[r], 0.1f, &plain_update), ST_OK);
			held_read(&alone, &one);
			for (size_t i = 0; i < weights; i++)
				sums[i] += share * (double)alone.gradients[i];
			for (size_t i = 0; i < buffers; i++)
				sums[weights + i] += share * (double)alone.state.params.buffers[i];
			samples += shares->n[r];
		}
		for (size_t i = 0; i < weights + buffers; i++)
			means[i] = (float)sums[i];
		for (int i = 0; i < bed.layout.count; i++) {
			const struct param *param = &bed.layout.all[i];
			if (param_is_buffer(param))
				check_near(found.state.params.buffers + param->offset, means + weights + param->offset, param->count, 2 * EPSILON, "%s", param->name);
			else
				check_near(found.gradients + param->offset, means + param->offset, param->count, walk_tolerance(backend, &bed), "gradient of %s", param->name);
		}
		memcpy(before.state.params.weights, found.state.params.weights, weights * sizeof(float));
		memcpy(before.state.params.buffers, found.state.params.buffers, buffers * sizeof(float));
		memcpy(before.state.momentum, found.state.momentum, weights * sizeof(float));
	}
	/* Counters are each rank's own: nothing for one without images. */
	for (int r = 0; r < shares->world; r++) {
		struct counters counters;
		assert_int_equal(backend->counters_read(group.ranks[r].machine.state, &counters), ST_OK);
		assert_true(counters.images == STEPS * shares->n[r]);
		assert_true((counters.loss > 0) == (shares->n[r] > 0));
	}
	backend->close(one.state);
	group_close(&group);
	free(sums);
	free(means);
	held_free(&found);
	held_free(&alone);
	held_free(&before);
	bed_close(&bed);
}

static void test_ranks_apart_are_a_weighted_mean(void **state)
{
	static const struct shares cases[] = {{2, {5, 3}}, {2, {0, TOTAL}}, {4, {2, 2, 2, 2}}, {4, {3, 0, 2, 3}}};
	for (size_t i = SLOW ? 3 : 0; i < sizeof cases / sizeof cases[0]; i++)
		check_apart(backend_of(state), &cases[i]);
	used_print("ranks apart");
}

/* --- bits ----------------------------------------------------------------------------------------------------------- */

/* Three steps of four ranks; what they hold at the end. */
static void course_run(const struct bed *bed, const struct backend *backend, bool sync, size_t bucket_bytes, bool abandon, struct held *end)
{
	static const int shares[] = {3, 0, 2, 3};
	struct training_state start;
	struct group group;
	state_alloc(&start, &bed->layout, false);
	state_random(&start, bed);
	group_open(&group, bed, backend, 4, sync, bucket_bytes, &start);
	for (int step = 0; step < STEPS; step++) {
		if (abandon) {
			group_run(&group, (step + 1) % STEPS, shares, true);
			for (int r = 0; r < group.world; r++)
				assert_int_equal(backend->batch_abandon(group.ranks[r].machine.state), ST_OK);
		}
		group_run(&group, step, shares, false);
	}
	group_read(&group, end);
	group_close(&group);
	state_free(&start);
}

static void test_same_bits_again(void **state)
{
	struct bed bed;
	struct held first, again;
	narrow_bed_open(&bed);
	held_alloc(&first, &bed);
	held_alloc(&again, &bed);
	for (int sync = 0; sync < 2; sync++) {
		static const struct {
			size_t bucket_bytes;
			bool abandon;
		} cases[] = {{100000, false}, {0, false}, {(size_t)1 << 40, false}, {100000, true}};
		course_run(&bed, backend_of(state), sync != 0, 100000, false, &first);
		for (size_t i = SLOW ? 2 : 0; i < sizeof cases / sizeof cases[0]; i++) {
			course_run(&bed, backend_of(state), sync != 0, cases[i].bucket_bytes, cases[i].abandon, &again);
			held_equal(&first, &again, &bed.layout);
			assert_memory_equal(&first.counters, &again.counters, sizeof first.counters);
		}
	}
	held_free(&first);
	held_free(&again);
	bed_close(&bed);
}

/* --- a reduction of one rank ---------------------------------------------------------------------------------------- */

/* Sums of one rank are what they were. The call number fail_at fails. */
struct single {
	long calls, fail_at;
};

static enum status single_call(struct single *single)
{
	return ++single->calls == single->fail_at ? FAIL(ST_DEVICE, "call %ld of the reduction fails", single->calls) : ST_OK;
}

static enum status single_start(void *context, float *values, size_t count)
{
	(void)values;
	(void)count;
	return single_call(context);
}

static enum status single_finish(void *context)
{
	return single_call(context);
}

static enum status single_sum(void *context, double *values, size_t count)
{
	(void)values;
	(void)count;
	return single_call(context);
}

static void test_one_rank_is_alone_and_failures_end_the_step(void **state)
{
	const struct backend *backend = backend_of(state);
	struct bed bed;
	struct training_state start;
	struct held found, wanted;
	narrow_bed_open(&bed);
	state_alloc(&start, &bed.layout, false);
	state_random(&start, &bed);
	held_alloc(&found, &bed);
	held_alloc(&wanted, &bed);
	struct single single = {0};
	struct reduction reduction = {.world = 1, .context = &single, .start = single_start, .finish = single_finish, .sum = single_sum};
	for (int kind = 0; kind < 3; kind++) { /* alone; with a reduction; and synchronised */
		struct backend_config config = config_of(&bed, bed.threads);
		config.reduction = kind > 0 ? &reduction : NULL;
		config.sync_batch_norm = kind == 2;
		struct machine machine = {.backend = backend, .network = &bed.network, .shared = kind > 0};
		assert_int_equal(backend->open(&config, &machine.state), ST_OK);
		assert_int_equal(backend->state_write(machine.state, &start), ST_OK);
		single.calls = single.fail_at = 0;
		assert_int_equal(step_train(&machine, &bed.images, bed.samples, TOTAL, TOTAL, 0.1f, &plain_update), ST_OK);
		held_read(kind == 0 ? &wanted : &found, &machine);
		if (kind == 1)
			held_equal(&found, &wanted, &bed.layout);
		long calls = single.calls;
		assert_true(kind == 0 ? calls == 0 : calls > 1);
		for (long at = 1; at <= calls; at += SLOW ? 31 : 1) {
			single = (struct single){.fail_at = at};
			assert_int_equal(step_train(&machine, &bed.images, bed.samples, TOTAL, TOTAL, 0.1f, &plain_update), ST_DEVICE);
			assert_int_equal(single.calls, at);
			assert_non_null(strstr(status_message(), "of the reduction fails"));
		}
		backend->close(machine.state);
	}
	held_free(&found);
	held_free(&wanted);
	state_free(&start);
	bed_close(&bed);
}

/* --- figures and rules ---------------------------------------------------------------------------------------------- */

static void test_only_what_is_live_travels(void **state)
{
	const struct backend *backend = backend_of(state);
	static const int shares[] = {5, 3};
	struct bed bed;
	struct training_state start;
	narrow_bed_open(&bed);
	state_alloc(&start, &bed.layout, false);
	state_random(&start, &bed);
	size_t weights = bed.layout.weights_count, buffers = bed.layout.buffers_count, live = live_count(&bed);
	assert_true(live < weights * 3 / 4);
	for (int sync = 0; sync < 2; sync++) {
		struct group group;
		group_open(&group, &bed, backend, 2, sync != 0, 100000, &start);
		group_run(&group, 0, shares, false);
		for (int r = 0; r < 2; r++) {
			const struct rank *rank = &group.ranks[r];
			bool cpu = backend == &backend_cpu;
			/* Of batch norm: pairs of sums, forwards and backwards; half as many channels as running statistics. */
			size_t norm = sync ? 2 * buffers : 0;
			assert_int_equal(rank->floats_started, cpu ? live : 0);
			assert_int_equal(rank->doubles_summed, norm + (cpu ? buffers : weights + buffers));
			assert_int_equal(rank->sums, (cpu ? 1 : 2) + (sync ? (cpu ? 2 : 3) * RESNET_UNITS : 0));
			assert_int_equal(rank->finishes, cpu ? 1 : 0);
		}
		group_close(&group);
	}
	state_free(&start);
	bed_close(&bed);
}

static void test_a_single_value_has_no_variance(void **state)
{
	const struct backend *backend = backend_of(state);
	struct bed bed;
	narrow_bed_open(&bed);
	struct single single = {0};
	struct reduction reduction = {.world = 2, .context = &single, .start = single_start, .finish = single_finish, .sum = single_sum};
	for (int sync = 0; sync < 2; sync++) {
		struct backend_config config = config_of(&bed, bed.threads);
		config.reduction = &reduction;
		config.sync_batch_norm = sync != 0;
		struct backend_state *it;
		assert_int_equal(backend->open(&config, &it), ST_OK);
		assert_int_equal(backend->batch_begin(it, 1, TOTAL, true, WHICH_WEIGHTS), sync ? ST_OK : ST_SETTINGS);
		assert_true(sync || strstr(status_message(), "1 image on this rank") != NULL);
		assert_int_equal(backend->batch_begin(it, 1, 1, true, WHICH_WEIGHTS), ST_SETTINGS);
		assert_int_equal(backend->batch_begin(it, 0, 1, true, WHICH_WEIGHTS), sync ? ST_SETTINGS : ST_OK);
		assert_int_equal(backend->batch_begin(it, 0, 2, true, WHICH_WEIGHTS), ST_OK);
		assert_int_equal(backend->batch_begin(it, 0, 0, false, WHICH_EMA), ST_OK);
		backend->close(it);
	}
	bed_close(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_synchronized_ranks_are_one_batch),
		cmocka_unit_test(test_ranks_apart_are_a_weighted_mean),
		cmocka_unit_test(test_same_bits_again),
		cmocka_unit_test(test_one_rank_is_alone_and_failures_end_the_step),
		cmocka_unit_test(test_only_what_is_live_travels),
		cmocka_unit_test(test_a_single_value_has_no_variance),
	};
	enum { TESTS = sizeof tests / sizeof tests[0] };
	int failed = 0;
	const struct backend *const backends[] = {&backend_ref, &backend_cpu};
	for (size_t b = 0; b < 2; b++) {
		struct CMUnitTest here[TESTS];
		for (size_t i = 0; i < TESTS; i++) {
			here[i] = tests[i];
			here[i].initial_state = (void *)(uintptr_t)backends[b];
		}
		print_message("%s\n", backends[b]->name);
		failed += cmocka_run_group_tests(here, NULL, NULL);
	}
	return failed;
}
