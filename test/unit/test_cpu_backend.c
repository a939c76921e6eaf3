/* test_cpu_backend.c: the cpu backend against ref, on every instruction set that this machine has.
 *
 * Method, from the inside out (convolutions alone: test_cpu_convolution.c):
 * - units: fed with ref's own activations and gradients, so that each is judged alone, by the distance of whole tensors;
 * - steps: two whole training steps, evaluations, the EMA;
 * - what must be exact is compared bit by bit: thread counts, postponed updates, an abandoned batch, the way in and out of the packed
 *   layout. */
#include "test/unit/backend_units.h"
#include "test/unit/cpu_bed.h"

/* --- units ---------------------------------------------------------------------------------------------------------- */

/* Puts (n, C, H, W) values into a tensor of the cpu backend; the other images of its last block become NaN, or all when values is NULL. */
static void tensor_put(struct backend_state *state, int tensor, bool gradient, const float *values)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	float *to = gradient ? state->dy[tensor] : state->y[tensor];
	if (tensor != 0)
		fill(to, state->blocks_max * tensor_block_floats(shape), NAN);
	for (size_t n = 0; n < state->n && values != NULL; n++)
		for (size_t c = 0; c < (size_t)shape->C; c++)
			for (size_t h = 0; h < (size_t)shape->H; h++)
				for (size_t w = 0; w < (size_t)shape->W; w++)
					to[place(state, tensor, n, c, h, w)] = *values++;
}

static struct inside inside_of(void **state)
{
	return (struct inside){.backend = &backend_cpu, .cpu = cpu_of(state), .put = tensor_put};
}

static void test_units_against_ref(void **state)
{
	const struct inside inside = inside_of(state);
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 16, 0);
	units_check(&inside, &bed, SLOW ? 3 : 33); /* a whole block of images and one more */
	bed_close(&bed);
	bed_open(&bed, STEM_CIFAR, 9, 0); /* odd maps */
	units_check(&inside, &bed, SLOW ? 2 : 5);
	bed_close(&bed);
	used_print("units of both stems");
}

/* --- whole steps ---------------------------------------------------------------------------------------------------- */

static const struct update first_update = {.lr = 1e-3f, .momentum = 0.9f, .weight_decay = 0.05f, .nesterov = true, .norm_bias_lr_scale = 4,
	.gradient_scale = 0.5f, .ema_decay = 0.9f, .first = true};

/* What a step moved: `end` minus `start`, in place. */
static void movement(struct training_state *end, const struct training_state *start, const struct params_layout *layout)
{
	for (size_t i = 0; i < layout->weights_count; i++) {
		end->params.weights[i] -= start->params.weights[i];
		end->ema.weights[i] -= start->ema.weights[i];
	}
	for (size_t i = 0; i < layout->buffers_count; i++) {
		end->params.buffers[i] -= start->params.buffers[i];
		end->ema.buffers[i] -= start->ema.buffers[i];
	}
}

/* A step from `start`, and two evaluations of what it reached. */
struct step_case {
	struct update update;
	int n;
	struct training_state start, end; /* end: ref's */
	double norm_squared;
	struct counters counters;
};

/* Runs the step on a backend. The evaluations take place at ref's end, so that they too are judged alone: an untrained network magnifies
 * rounding from step to step. */
static void step_run(const struct bed *bed, const struct runner *runner, const struct step_case *step, struct training_state *end,
	double *norm_squared, struct counters *counters)
{
	const struct backend *backend = runner->machine.backend;
	struct backend_state *run = runner->machine.state;
	assert_int_equal(backend->state_write(run, &step->start), ST_OK);
	assert_int_equal(backend->counters_reset(run), ST_OK);
	assert_int_equal(step_train(&runner->machine, &bed->images, bed->samples, step->n, step->n, 0.1f, &step->update), ST_OK);
	assert_int_equal(backend->gradient_norm_squared(run, norm_squared), ST_OK);
	assert_int_equal(backend->snapshot(run, end), ST_OK);
	assert_int_equal(backend->state_write(run, &step->end), ST_OK);
	assert_int_equal(step_evaluate(&runner->machine, &bed->images, bed->samples, step->n - 1, WHICH_WEIGHTS), ST_OK);
	assert_int_equal(step_evaluate(&runner->machine, &bed->images, bed->samples, step->n - 2, WHICH_EMA), ST_OK);
	assert_int_equal(backend->counters_read(run, counters), ST_OK);
	assert_int_equal(backend->sync(run), ST_OK);
}

/* Two steps that ref took once, for every instruction set to be compared with. Units agree to some 1e-6 (see above), but a ReLU whose
 * input is nearly zero may open on one side only, which moves a layer's gradient by some 1e-3: hence the wide tolerance. What this test
 * looks for, a piece left out or wired wrongly, shows as 0.1 to 1. */
static struct {
	struct bed bed;
	struct step_case steps[2];
} course;
enum { COURSE_IMAGES = SLOW ? 8 : 33 };

static void course_open(void)
{
	bed_open(&course.bed, STEM_IMAGENET, 32, 0);
	const struct params_layout *layout = &course.bed.layout;
	struct runner ref;
	runner_open(&ref, &course.bed, &backend_ref, "generic", COURSE_IMAGES, true);
	for (int i = 0; i < 2; i++) {
		struct step_case *step = &course.steps[i];
		state_alloc(&step->start, layout, true);
		state_alloc(&step->end, layout, true);
		step->update = first_update;
		step->n = COURSE_IMAGES - i;
		if (i == 0) {
			state_random(&step->start, &course.bed);
			memcpy(step->start.ema.weights, step->start.params.weights, layout->weights_count * sizeof(float));
			memcpy(step->start.ema.buffers, step->start.params.buffers, layout->buffers_count * sizeof(float));
		} else {
			assert_int_equal(backend_ref.snapshot(ref.machine.state, &step->start), ST_OK);
			step->update.first = false;
			step->update.nesterov = false;
			step->update.decay_all = true;
		}
		step_run(&course.bed, &ref, step, &step->end, &step->norm_squared, &step->counters);
	}
	runner_close(&ref);
}

static void course_close(void)
{
	for (int i = 0; i < 2; i++) {
		state_free(&course.steps[i].start);
		state_free(&course.steps[i].end);
	}
	bed_close(&course.bed);
}

static void test_steps_against_ref(void **state)
{
	if (course.bed.threads == NULL)
		course_open();
	const struct params_layout *layout = &course.bed.layout;
	struct runner it;
	runner_open(&it, &course.bed, &backend_cpu, cpu_of(state), COURSE_IMAGES, true);
	for (int i = 0; i < 2; i++) {
		const struct step_case *step = &course.steps[i];
		struct training_state found, wanted;
		state_alloc(&found, layout, true);
		state_alloc(&wanted, layout, true);
		double norm_squared, tolerance = 9e-3;
		struct counters counters;
		step_run(&course.bed, &it, step, &found, &norm_squared, &counters);
		assert_true(fabs(norm_squared - step->norm_squared) <= tolerance * step->norm_squared);
		assert_true(fabs(counters.loss - step->counters.loss) <= tolerance * step->counters.loss);
		assert_true(counters.images == 3 * step->n - 3 && step->counters.images == counters.images);
		check_near(found.momentum, step->end.momentum, layout->weights_count, tolerance, "momentum");
		/* Of everything else the movement is compared. */
		memcpy(wanted.params.weights, step->end.params.weights, layout->weights_count * sizeof(float));
		memcpy(wanted.params.buffers, step->end.params.buffers, layout->buffers_count * sizeof(float));
		memcpy(wanted.ema.weights, step->end.ema.weights, layout->weights_count * sizeof(float));
		memcpy(wanted.ema.buffers, step->end.ema.buffers, layout->buffers_count * sizeof(float));
		movement(&found, &step->start, layout);
		movement(&wanted, &step->start, layout);
		check_near(found.params.weights, wanted.params.weights, layout->weights_count, tolerance, "movement of weights");
		check_near(found.params.buffers, wanted.params.buffers, layout->buffers_count, tolerance, "movement of running statistics");
		check_near(found.ema.weights, wanted.ema.weights, layout->weights_count, tolerance, "movement of EMA");
		check_near(found.ema.buffers, wanted.ema.buffers, layout->buffers_count, tolerance, "movement of EMA of running statistics");
		assert_int_equal(found.params.batches_tracked, i + 1);
		state_free(&found);
		state_free(&wanted);
	}
	used_print("two steps");
	runner_close(&it);
}

/* Two training steps. */
static void train(const struct bed *bed, const char *cpu, int n, const struct training_state *start, struct training_state *end, float *logits)
{
	struct runner it;
	runner_open(&it, bed, &backend_cpu, cpu, n, true);
	assert_int_equal(backend_cpu.state_write(it.machine.state, start), ST_OK);
	struct update update = first_update;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(step_train(&it.machine, &bed->images, bed->samples, n - i % 2, n - i % 2, 0.1f, &update), ST_OK);
		update.first = false;
	}
	assert_int_equal(backend_cpu.snapshot(it.machine.state, end), ST_OK);
	assert_int_equal(backend_cpu.logits_read(it.machine.state, logits), ST_OK);
	assert_true(isfinite(logits[0]));
	runner_close(&it);
}

static void states_equal(const struct training_state *a, const struct training_state *b, const struct params_layout *layout)
{
	size_t weights = layout->weights_count * sizeof(float), buffers = layout->buffers_count * sizeof(float);
	assert_memory_equal(a->params.weights, b->params.weights, weights);
	assert_memory_equal(a->params.buffers, b->params.buffers, buffers);
	assert_memory_equal(a->momentum, b->momentum, weights);
	assert_memory_equal(a->ema.weights, b->ema.weights, weights);
	assert_memory_equal(a->ema.buffers, b->ema.buffers, buffers);
}

static void test_thread_counts_agree(void **state)
{
	for (int stem = 0; stem < 2; stem++) {
		struct bed bed;
		struct training_state start, ends[2];
		float logits[2][IMAGES * CLASSES] = {0};
		bed_open(&bed, (enum stem)stem, stem == STEM_CIFAR ? 9 : 16, 1); /* blocks and channels are shared out, whatever the map */
		state_alloc(&start, &bed.layout, false);
		state_random(&start, &bed);
		state_alloc(&ends[0], &bed.layout, true);
		state_alloc(&ends[1], &bed.layout, true);
		for (unsigned threads = 1; threads <= 3; threads++) {
			struct training_state *end = &ends[threads > 1];
			threads_close(bed.threads);
			assert_int_equal(threads_open(threads, &bed.threads), ST_OK);
			train(&bed, cpu_of(state), SLOW ? 5 : 35, &start, end, logits[threads > 1]);
			if (threads > 1) {
				assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
				states_equal(&ends[0], &ends[1], &bed.layout);
			}
		}
		state_free(&start);
		state_free(&ends[0]);
		state_free(&ends[1]);
		bed_close(&bed);
	}
}

/* One gradient, many updates with it: more than are postponed at most; in the second run some are carried out early by a snapshot. */
static void test_postponed_updates_are_exact(void **state)
{
	enum { N = 3, UPDATES = UPDATE_HISTORY_MAX + 5 };
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 16, 0);
	struct training_state start, ends[2];
	state_alloc(&start, &bed.layout, false);
	state_random(&start, &bed);
	for (int i = 0; i < 2; i++) {
		struct runner it;
		state_alloc(&ends[i], &bed.layout, true);
		runner_open(&it, &bed, &backend_cpu, cpu_of(state), N, true);
		assert_int_equal(backend_cpu.state_write(it.machine.state, &start), ST_OK);
		struct update update = first_update;
		assert_int_equal(step_train(&it.machine, &bed.images, bed.samples, N, N, 0.1f, &update), ST_OK);
		update.first = false;
		for (int j = 1; j < UPDATES; j++) {
			update.lr = 1e-3f / (float)j;
			update.nesterov = j % 2;
			assert_int_equal(backend_cpu.optimizer_step(it.machine.state, &update), ST_OK);
			if (i == 1 && (j == 1 || j == 40))
				assert_int_equal(backend_cpu.snapshot(it.machine.state, &ends[i]), ST_OK);
		}
		assert_int_equal(backend_cpu.snapshot(it.machine.state, &ends[i]), ST_OK);
		runner_close(&it);
	}
	states_equal(&ends[0], &ends[1], &bed.layout);
	/* A dead tap has decayed. */
	const struct unit *unit = &bed.network.units[RESNET_UNITS - 1];
	size_t at = bed.layout.all[bed.layout.unit[RESNET_UNITS - 1].weight].offset;
	assert_int_equal(unit_tap_uses(unit, 0, 0), 0);
	assert_true(fabsf(ends[0].params.weights[at]) < fabsf(start.params.weights[at]));
	state_free(&start);
	state_free(&ends[0]);
	state_free(&ends[1]);
	bed_close(&bed);
}

static void test_abandoned_batch_leaves_nothing(void **state)
{
	enum { N = 3 };
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 16, 0);
	struct training_state start, ends[2];
	state_alloc(&start, &bed.layout, false);
	state_random(&start, &bed);
	struct counters counters[2];
	for (int i = 0; i < 2; i++) {
		struct runner it;
		state_alloc(&ends[i], &bed.layout, true);
		runner_open(&it, &bed, &backend_cpu, cpu_of(state), N, true);
		assert_int_equal(backend_cpu.state_write(it.machine.state, &start), ST_OK);
		if (i == 1) {
			assert_int_equal(step_forward(&it.machine, &bed.images, bed.samples + N, N, N, 0, true, WHICH_WEIGHTS), ST_OK);
			assert_int_equal(backend_cpu.batch_abandon(it.machine.state), ST_OK);
		}
		assert_int_equal(step_train(&it.machine, &bed.images, bed.samples, N, N, 0, &first_update), ST_OK);
		assert_int_equal(backend_cpu.snapshot(it.machine.state, &ends[i]), ST_OK);
		assert_int_equal(backend_cpu.counters_read(it.machine.state, &counters[i]), ST_OK);
		runner_close(&it);
	}
	states_equal(&ends[0], &ends[1], &bed.layout);
	assert_int_equal(ends[1].params.batches_tracked, 1);
	assert_memory_equal(&counters[0], &counters[1], sizeof counters[0]);
	state_free(&start);
	state_free(&ends[0]);
	state_free(&ends[1]);
	bed_close(&bed);
}

/* --- edges ---------------------------------------------------------------------------------------------------------- */

static void test_state_comes_back(void **state)
{
	(void)state;
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 32, 0);
	struct training_state from, to;
	state_alloc(&from, &bed.layout, true);
	state_alloc(&to, &bed.layout, true);
	state_random(&from, &bed);
	for (size_t i = 0; i < bed.layout.weights_count; i++)
		from.ema.weights[i] = (float)i;
	for (size_t i = 0; i < bed.layout.buffers_count; i++)
		from.ema.buffers[i] = -(float)i;
	from.params.batches_tracked = 5;
	struct runner it;
	runner_open(&it, &bed, &backend_cpu, "generic", 2, true);
	assert_int_equal(backend_cpu.state_write(it.machine.state, &from), ST_OK);
	assert_int_equal(backend_cpu.snapshot(it.machine.state, &to), ST_OK);
	states_equal(&from, &to, &bed.layout);
	assert_int_equal(to.params.batches_tracked, 5);
	/* A snapshot skips what its caller does not want. */
	struct training_state nothing = {0};
	assert_int_equal(backend_cpu.snapshot(it.machine.state, &nothing), ST_OK);
	/* Without momentum it is zero; without an EMA, a copy. */
	struct training_state bare = {.params = from.params};
	assert_int_equal(backend_cpu.state_write(it.machine.state, &bare), ST_OK);
	assert_int_equal(backend_cpu.snapshot(it.machine.state, &to), ST_OK);
	for (size_t i = 0; i < bed.layout.weights_count; i++)
		assert_true(to.momentum[i] == 0);
	assert_memory_equal(to.ema.weights, from.params.weights, bed.layout.weights_count * sizeof(float));
	runner_close(&it);
	state_free(&from);
	state_free(&to);
	bed_close(&bed);
}

/* Opening must fail with ST_SETTINGS and a sentence that holds `word`, and leave the result alone. */
static void refused(const struct backend_config *config, const char *word)
{
	struct backend_state *untouched = (struct backend_state *)(uintptr_t)8, *result = untouched;
	assert_int_equal(backend_cpu.open(config, &result), ST_SETTINGS);
	assert_ptr_equal(result, untouched);
	assert_non_null(strstr(status_message(), word));
}

static void test_refusals(void **state)
{
	(void)state;
	struct bed bed;
	bed_open(&bed, STEM_CIFAR, 9, 1);
	assert_int_equal(setenv("SMELT_CPU", "generic", 1), 0);
	struct network odd;
	struct backend_config config = {.network = &odd, .layout = &bed.layout, .batch_max = 4, .threads = bed.threads, .training = true, .norm_momentum = 0.1};
	odd_network(&odd);
	config.batch_max = 0;
	refused(&config, "batch_max 0");
	config.batch_max = 4;
	config.norm_momentum = 1.5;
	refused(&config, "norm_momentum 1.5");
	config.norm_momentum = 0.1;
	config.threads = NULL;
	refused(&config, "thread pool");
	config.threads = bed.threads;
	odd.units[1].C = 48;
	refused(&config, "odd1 has 48 input channels");
	odd_network(&odd);
	odd.units[0].C = 4;
	refused(&config, "odd0 has 4 input channels");
	odd_network(&odd);
	odd.units[3].K = 20;
	refused(&config, "odd3 has 20 output channels");
	odd_network(&odd);
	odd.units[5].S = 17;
	refused(&config, "odd5 has a 7x17 kernel");
	odd_network(&odd);
	odd.units[0].S = 11;
	refused(&config, "odd0 has a 5x11 kernel");
	odd_network(&odd);
	odd.units[4] = odd.units[0];
	odd.units[4].padding = 1;
	refused(&config, "pads the image by 1");
	assert_int_equal(setenv("SMELT_CPU", "abacus", 1), 0);
	odd_network(&odd);
	refused(&config, "abacus");

	/* A single image on a 1×1 map has no variance. */
	struct bed one;
	bed_open(&one, STEM_IMAGENET, 32, 1);
	struct runner it;
	runner_open(&it, &one, &backend_cpu, "generic", 1, false);
	assert_int_equal(backend_cpu.batch_begin(it.machine.state, 1, 1, true, WHICH_WEIGHTS), ST_SETTINGS);
	assert_int_equal(backend_cpu.batch_begin(it.machine.state, 1, 1, false, WHICH_WEIGHTS), ST_OK);
	runner_close(&it);
	backend_cpu.close(NULL);
	bed_close(&one);
	bed_close(&bed);
}

int main(void)
{
	const struct CMUnitTest edges[] = {cmocka_unit_test(test_state_comes_back), cmocka_unit_test(test_refusals)};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_units_against_ref),
		cmocka_unit_test(test_steps_against_ref),
		cmocka_unit_test(test_thread_counts_agree),
		cmocka_unit_test(test_postponed_updates_are_exact),
		cmocka_unit_test(test_abandoned_batch_leaves_nothing),
	};
	int failed = cmocka_run_group_tests(edges, NULL, NULL) + run_for_each_cpu(tests, sizeof tests / sizeof tests[0]);
	if (course.bed.threads != NULL)
		course_close();
	return failed;
}
