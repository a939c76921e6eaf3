/* test_cuda_backend.c: the cuda backend against ref, on a simulated GPU.
 *
 * Goal: every layer computes what ref says, in each precision; recorded passes, postponed updates and abandoned batches change no bit. Method:
 * the backend's own objects over the simulated runtime, cuDNN and NCCL (test/sim), which run what is enqueued late and in any legal order. */
#include "core/backend/cuda/cuda_backend.h"
#include "test/unit/backend_units.h"

extern const struct backend smelt_backend_cuda;
static const struct backend *const cuda = &smelt_backend_cuda;

/* --- inside ------------------------------------------------------------------------------------------------------------ */

static void tensor_put(struct backend_state *state, int tensor, bool gradient, const float *values)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	const size_t count = (size_t)(state->n * shape->H * shape->W * shape->C);
	float *unwritten = zeros(count, sizeof *unwritten);
	fill(unwritten, count, NAN);
	assert_int_equal(cuda_tensor_write(state, tensor, gradient, values != NULL ? values : unwritten), ST_OK);
	free(unwritten);
}

/* --- units ------------------------------------------------------------------------------------------------------------- */

static void units_of_both_stems(const struct backend *backend, enum precision precision, double storage)
{
	const struct inside inside = {.backend = backend, .put = tensor_put, .storage = storage};
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 32, 0); /* with dead taps, a matrix product of a convolution, 1×1 maps */
	bed.precision = precision;
	units_check(&inside, &bed, SLOW ? 3 : 7);
	bed_close(&bed);
	bed_open(&bed, STEM_CIFAR, 9, 0); /* odd maps */
	bed.precision = precision;
	units_check(&inside, &bed, SLOW ? 2 : 5);
	bed_close(&bed);
	used_print("units of both stems");
}

static void test_units_fp32(void **state)
{
	(void)state;
	units_of_both_stems(cuda, PRECISION_FP32, 0);
}

static void test_units_tf32(void **state)
{
	(void)state;
	units_of_both_stems(cuda, PRECISION_TF32, 0x1p-11);
}

static void test_units_fp16(void **state)
{
	(void)state;
	units_of_both_stems(cuda, PRECISION_FP16, 0x1p-11);
}

static enum status narrow_open(const struct backend_config *config, struct backend_state **state)
{
	TRY(cuda->open(config, state));
	(*state)->weight_gradient = UNIT_WEIGHT_GRADIENT_NARROW;
	return ST_OK;
}

/* As on a V100. */
static void test_units_fp16_narrow(void **state)
{
	(void)state;
	struct backend narrow = *cuda;
	narrow.open = narrow_open;
	units_of_both_stems(&narrow, PRECISION_FP16, 0x1p-11);
}

static void test_units_bf16(void **state)
{
	(void)state;
	units_of_both_stems(cuda, PRECISION_BF16, 0x1p-8);
}

/* --- whole steps ------------------------------------------------------------------------------------------------------- */

static const struct update first_update = {.lr = 1e-3f, .momentum = 0.9f, .weight_decay = 0.05f, .nesterov = true, .norm_bias_lr_scale = 4,
	.gradient_scale = 0.5f, .gradient_clip_norm = 2, .ema_decay = 0.9f, .first = true};

static void states_equal(const struct training_state *a, const struct training_state *b, const struct params_layout *layout)
{
	const size_t weights = layout->weights_count * sizeof(float), buffers = layout->buffers_count * sizeof(float);
	assert_memory_equal(a->params.weights, b->params.weights, weights);
	assert_memory_equal(a->params.buffers, b->params.buffers, buffers);
	assert_memory_equal(a->momentum, b->momentum, weights);
	assert_memory_equal(a->ema.weights, b->ema.weights, weights);
	assert_memory_equal(a->ema.buffers, b->ema.buffers, buffers);
	assert_int_equal(a->params.batches_tracked, b->params.batches_tracked);
}

static void start_random(struct training_state *start, const struct bed *bed)
{
	state_alloc(start, &bed->layout, false);
	state_random(start, bed);
}

/* Steps on batches of n, and every third time of n − 1; an evaluation between. */
static void train(const struct bed *bed, const struct backend *backend, int n, int steps, struct training_state *end, struct counters *counters)
{
	struct training_state start;
	struct runner it;
	start_random(&start, bed);
	runner_open(&it, bed, backend, NULL, n, true);
	assert_int_equal(backend->state_write(it.machine.state, &start), ST_OK);
	struct update update = first_update;
	for (int i = 0; i < steps; i++) {
		int count = i % 3 == 2 ? n - 1 : n;
		assert_int_equal(step_train(&it.machine, &bed->images, bed->samples + i % 4, count, count, 0.1f, &update), ST_OK);
		update.first = false;
		update.lr *= 0.9f;
		assert_int_equal(step_evaluate(&it.machine, &bed->images, bed->samples + 5, n, i % 2 == 0 ? WHICH_WEIGHTS : WHICH_EMA), ST_OK);
	}
	state_alloc(end, &bed->layout, true);
	assert_int_equal(backend->snapshot(it.machine.state, end), ST_OK);
	assert_int_equal(backend->counters_read(it.machine.state, counters), ST_OK);
	assert_true(isfinite(counters->loss));
	runner_close(&it);
	state_free(&start);
}

/* The same bits, whether passes are walked each time or recorded and replayed. */
static void test_recorded_passes_are_exact(void **state)
{
	(void)state;
	struct backend walking = *cuda;
	struct training_state ends[2];
	struct counters counters[2];
	struct bed bed;
	walking.pass_begin = NULL;
	walking.pass_end = NULL;
	bed_open(&bed, STEM_IMAGENET, 32, 0);
	train(&bed, cuda, 4, SLOW ? 7 : 10, &ends[0], &counters[0]);
	train(&bed, &walking, 4, SLOW ? 7 : 10, &ends[1], &counters[1]);
	states_equal(&ends[0], &ends[1], &bed.layout);
	assert_memory_equal(&counters[0], &counters[1], sizeof counters[0]);
	state_free(&ends[0]);
	state_free(&ends[1]);
	bed_close(&bed);
}

/* One step from the same place, clipped, all parts together. A ReLU whose input is nearly zero may open on one side only, which moves a layer's
 * gradient by some 1e-3: hence the wide tolerance. A piece left out or wired wrongly shows as 0.1 to 1. */
static void test_step_against_ref(void **state)
{
	(void)state;
	enum { N = 8 };
	struct bed bed;
	bed_open(&bed, STEM_IMAGENET, 32, 0);
	bed.precision = PRECISION_FP32;
	const struct params_layout *layout = &bed.layout;
	struct training_state start, ends[2];
	struct counters counters[2];
	start_random(&start, &bed);
	for (int i = 0; i < 2; i++) {
		const struct backend *backend = i == 0 ? cuda : &backend_ref;
		struct runner it;
		runner_open(&it, &bed, backend, NULL, N, true);
		assert_int_equal(backend->state_write(it.machine.state, &start), ST_OK);
		assert_int_equal(step_train(&it.machine, &bed.images, bed.samples, N, N, 0.1f, &first_update), ST_OK);
		assert_int_equal(backend->counters_read(it.machine.state, &counters[i]), ST_OK);
		state_alloc(&ends[i], layout, true);
		assert_int_equal(backend->snapshot(it.machine.state, &ends[i]), ST_OK);
		runner_close(&it);
	}
	assert_true(fabs(counters[0].loss - counters[1].loss) <= 1e-4 * counters[1].loss);
	for (size_t i = 0; i < layout->weights_count; i++)
		for (int j = 0; j < 2; j++) {
			ends[j].params.weights[i] -= start.params.weights[i];
			ends[j].ema.weights[i] -= start.params.weights[i];
		}
	check_near(ends[0].params.weights, ends[1].params.weights, layout->weights_count, 9e-3, "movement of weights");
	check_near(ends[0].ema.weights, ends[1].ema.weights, layout->weights_count, 9e-3, "movement of EMA");
	check_near(ends[0].momentum, ends[1].momentum, layout->weights_count, 9e-3, "momentum");
	check_near(ends[0].params.buffers, ends[1].params.buffers, layout->buffers_count, 1e-4, "running statistics");
	check_near(ends[0].ema.buffers, ends[1].ema.buffers, layout->buffers_count, 1e-4, "EMA of running statistics");
	used_print("a step");
	state_free(&start);
	state_free(&ends[0]);
	state_free(&ends[1]);
	bed_close(&bed);
}

/* More updates than are postponed; in the second run some are carried out early by a snapshot. */
static void test_postponed_updates_are_exact(void **state)
{
	(void)state;
	enum { N = 3, UPDATES = UPDATE_HISTORY_MAX_DEVICE + 5 };
	struct bed bed;
	struct training_state start, ends[2];
	bed_open(&bed, STEM_IMAGENET, 32, 0);
	start_random(&start, &bed);
	for (int i = 0; i < 2; i++) {
		struct runner it;
		state_alloc(&ends[i], &bed.layout, true);
		runner_open(&it, &bed, cuda, NULL, N, true);
		assert_int_equal(cuda->state_write(it.machine.state, &start), ST_OK);
		struct update update = first_update;
		update.gradient_clip_norm = 0;
		assert_int_equal(step_train(&it.machine, &bed.images, bed.samples, N, N, 0.1f, &update), ST_OK);
		update.first = false;
		for (int j = 1; j < UPDATES; j++) {
			update.lr = 1e-3f / (float)j;
			update.nesterov = j % 2;
			assert_int_equal(cuda->optimizer_step(it.machine.state, &update), ST_OK);
			if (i == 1 && (j == 1 || j == 40))
				assert_int_equal(cuda->snapshot(it.machine.state, &ends[i]), ST_OK);
		}
		assert_int_equal(cuda->snapshot(it.machine.state, &ends[i]), ST_OK);
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
	(void)state;
	enum { N = 3 };
	struct bed bed;
	struct training_state start, ends[2];
	struct counters counters[2];
	bed_open(&bed, STEM_IMAGENET, 16, 0);
	start_random(&start, &bed);
	for (int i = 0; i < 2; i++) {
		struct runner it;
		state_alloc(&ends[i], &bed.layout, true);
		runner_open(&it, &bed, cuda, NULL, N, true);
		assert_int_equal(cuda->state_write(it.machine.state, &start), ST_OK);
		if (i == 1) {
			assert_int_equal(step_forward(&it.machine, &bed.images, bed.samples + N, N, N, 0, true, WHICH_WEIGHTS), ST_OK);
			assert_int_equal(cuda->batch_abandon(it.machine.state), ST_OK);
		}
		assert_int_equal(step_train(&it.machine, &bed.images, bed.samples, N, N, 0, &first_update), ST_OK);
		assert_int_equal(cuda->snapshot(it.machine.state, &ends[i]), ST_OK);
		assert_int_equal(cuda->counters_read(it.machine.state, &counters[i]), ST_OK);
		runner_close(&it);
	}
	states_equal(&ends[0], &ends[1], &bed.layout);
	assert_memory_equal(&counters[0], &counters[1], sizeof counters[0]);
	state_free(&start);
	state_free(&ends[0]);
	state_free(&ends[1]);
	bed_close(&bed);
}

/* fp16: a step whose gradients overflow changes nothing but the loss scale. */
static void test_overflow_is_skipped(void **state)
{
	(void)state;
	enum { N = 3 };
	struct bed bed;
	struct training_state start, end;
	struct runner it;
	bed_open(&bed, STEM_IMAGENET, 16, 0);
	bed.precision = PRECISION_FP16;
	start_random(&start, &bed);
	state_alloc(&end, &bed.layout, true);
	runner_open(&it, &bed, cuda, NULL, N, true);
	assert_int_equal(cuda->state_write(it.machine.state, &start), ST_OK);
	struct update_control control = {.loss_scale = 0x1p24f, .step_scale = 1};
	assert_int_equal(device_write(it.machine.state, &control, sizeof control, it.machine.state->control), ST_OK);
	assert_int_equal(step_train(&it.machine, &bed.images, bed.samples, N, N, 0, &first_update), ST_OK);
	assert_int_equal(cuda->snapshot(it.machine.state, &end), ST_OK);
	assert_memory_equal(end.params.weights, start.params.weights, bed.layout.weights_count * sizeof(float));
	assert_memory_equal(end.momentum, start.momentum, bed.layout.weights_count * sizeof(float));
	assert_int_equal(device_read(it.machine.state, it.machine.state->control, sizeof control, &control), ST_OK);
	assert_true(control.loss_scale == 0x1p23f && control.skipped_steps == 1);
	for (int i = 0; i < 24 && control.skip; i++) {
		assert_int_equal(step_train(&it.machine, &bed.images, bed.samples, N, N, 0, &first_update), ST_OK);
		assert_int_equal(device_read(it.machine.state, it.machine.state->control, sizeof control, &control), ST_OK);
	}
	assert_true(!control.skip && control.loss_scale >= 1 && control.skipped_steps > 1);
	assert_int_equal(cuda->snapshot(it.machine.state, &end), ST_OK);
	assert_memory_not_equal(end.params.weights, start.params.weights, bed.layout.weights_count * sizeof(float));
	for (size_t i = 0; i < bed.layout.weights_count; i++)
		assert_true(isfinite(end.params.weights[i]));
	runner_close(&it);
	state_free(&start);
	state_free(&end);
	bed_close(&bed);
}

/* --- edges ------------------------------------------------------------------------------------------------------------- */

static void test_state_comes_back(void **state)
{
	(void)state;
	struct bed bed;
	struct training_state in, out;
	struct runner it;
	bed_open(&bed, STEM_IMAGENET, 32, 0);
	state_alloc(&in, &bed.layout, true);
	state_random(&in, &bed);
	for (size_t i = 0; i < bed.layout.weights_count; i++)
		in.ema.weights[i] = (float)i;
	in.params.batches_tracked = in.ema.batches_tracked = 12;
	state_alloc(&out, &bed.layout, true);
	runner_open(&it, &bed, cuda, NULL, 2, true);
	assert_int_equal(cuda->state_write(it.machine.state, &in), ST_OK);
	assert_int_equal(cuda->snapshot(it.machine.state, &out), ST_OK);
	states_equal(&in, &out, &bed.layout);
	runner_close(&it);
	state_free(&in);
	state_free(&out);
	bed_close(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_state_comes_back),
		cmocka_unit_test(test_units_fp32),
		cmocka_unit_test(test_units_tf32),
		cmocka_unit_test(test_units_fp16),
		cmocka_unit_test(test_units_fp16_narrow),
		cmocka_unit_test(test_units_bf16),
		cmocka_unit_test(test_step_against_ref),
		cmocka_unit_test(test_recorded_passes_are_exact),
		cmocka_unit_test(test_postponed_updates_are_exact),
		cmocka_unit_test(test_abandoned_batch_leaves_nothing),
		cmocka_unit_test(test_overflow_is_skipped),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
