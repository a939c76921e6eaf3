/* test_ref.c: the definition's derivatives are right, and it keeps the backend contract.
 *
 * Goal: every gradient of the whole network is the derivative of the loss; bits do not depend on threads; a forgotten call shows;
 * state goes in and comes out; the update, the average and the counters are as backend.h says. Method: central differences in
 * double along random directions, both stems; the rest by hand-made cases. Agreement with PyTorch is test_golden's. */
#include "test/unit/rig.h"

#include "core/backend/augment.h"
#include "core/backend/ref/ref.h"

/* Two evaluations a direction: one direction is enough for the sanitizers, which look for other mistakes. */
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1, DIRECTIONS = 1 };
#else
enum { SANITIZED = 0, DIRECTIONS = 3 };
#endif
enum { BATCH = 6, CLASSES = 10 };

static const struct backend *const ref = &backend_ref;

/* A batch with everything in it: mixup, cutmix, crops, flips, rotation. */
static void samples_mixed(const struct rig *rig, struct sample *samples)
{
	rig_samples(rig, 0, true, samples);
	for (int n = 0; n < rig->n; n++) {
		samples[n].image.shift_x = (int16_t)(n - 3);
		samples[n].image.flip = n % 3 == 0;
		samples[n].partner.rotation_radians = 0.2f;
		samples[n].weight = n == 0 ? 1.0f : 0.1f * (float)n;
		samples[n].cut_width = n % 2 == 0 ? 3 : 0;
		samples[n].cut_height = 4;
	}
}

static double loss_of(const struct rig *rig, const struct sample *samples)
{
	struct counters counters;
	OK(ref->counters_reset(rig->machine.state));
	OK(step_forward(&rig->machine, &rig->images, samples, rig->n, rig->n, 0.1f, true, WHICH_WEIGHTS));
	OK(ref->counters_read(rig->machine.state, &counters));
	return counters.loss / counters.images;
}

/* Which parameters a direction moves: of one kind (or any, -1) and one part of the network (a name's prefix). */
struct group {
	int kind;
	const char *prefix;
};

static bool group_has(const struct group *group, const struct param *param)
{
	return !param_is_buffer(param) && (group->kind < 0 || group->kind == (int)param->kind) && strncmp(param->name, group->prefix, strlen(group->prefix)) == 0;
}

/* Moves the group's weights by distance · direction from `start`, and hands out the derivative that the gradients claim along that
 * direction and how many tensors it moves. The direction is random signs, scaled so that each tensor's part of the derivative has
 * variance 1: a wrong gradient shows wherever it is, in a million weights or in 64. */
static void weights_move(const struct rig *rig, const struct group *group, const double *start, const double *gradients, uint32_t seed,
	double distance, double *derivative, int *tensors)
{
	*derivative = *tensors = 0;
	for (int index = 0; index < rig->layout.count; index++) {
		const struct param *param = &rig->layout.all[index];
		if (!group_has(group, param))
			continue;
		double squares = 0;
		for (size_t i = param->offset; i < param->offset + param->count; i++)
			squares += gradients[i] * gradients[i];
		assert_true(squares > 0);
		double scale = 1 / sqrt(squares);
		for (size_t i = param->offset; i < param->offset + param->count; i++) {
			double direction = golden_word(seed + (uint32_t)index, i) & 1 ? scale : -scale;
			rig->machine.state->weights[i] = start[i] + distance * direction;
			*derivative += gradients[i] * direction;
		}
		*tensors += 1;
	}
	assert_true(*tensors > 0);
}

static int double_compare(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;
	return (a > b) - (a < b);
}

/* The median over directions of |difference quotient − derivative| for one tensor's share of unit variance. The median, because a
 * direction may cross the edge of a ReLU or a maximum; with this step few do. */
static double gradient_error(const struct rig *rig, const struct sample *samples, const struct group *group, const double *start, const double *gradients)
{
	/* The loss rounds at about 1e-15: over 2·step that is 5e-8. The third derivative times step² / 6 is far below. */
	const double step = 1e-8;
	double errors[DIRECTIONS];
	for (uint32_t d = 0; d < DIRECTIONS; d++) {
		double derivative, losses[2];
		int tensors;
		for (int side = 0; side < 2; side++) {
			weights_move(rig, group, start, gradients, 1000003u * (d + 1), side == 0 ? -step : step, &derivative, &tensors);
			losses[side] = loss_of(rig, samples);
		}
		errors[d] = fabs((losses[1] - losses[0]) / (2 * step) - derivative) / sqrt(tensors);
	}
	memcpy(rig->machine.state->weights, start, rig->layout.weights_count * sizeof *start);
	qsort(errors, DIRECTIONS, sizeof errors[0], double_compare);
	return errors[DIRECTIONS / 2];
}

/* A hundred times smaller than what a gradient shows, on average, that is wrong by a percent in one tensor of 110. */
static const double gradient_tolerance = 1e-5;

/* Leaves the gradients of the batch in `gradients` and the weights they belong to in `start`; the caller frees both. */
static struct rig *gradients_open(enum stem stem, int size, struct sample *samples, double **start, double **gradients)
{
	struct rig *rig = rig_open(ref, stem, size, BATCH, CLASSES, false, 0);
	size_t bytes = rig->layout.weights_count * sizeof(double);
	samples_mixed(rig, samples);
	(void)loss_of(rig, samples);
	OK(step_backward(&rig->machine));
	*start = malloc(bytes);
	*gradients = malloc(bytes);
	assert_non_null(*start);
	assert_non_null(*gradients);
	memcpy(*start, rig->machine.state->weights, bytes);
	memcpy(*gradients, rig->machine.state->gradients, bytes);
	return rig;
}

static const struct stem_case {
	enum stem stem;
	int size;
} stem_cases[] = {{STEM_IMAGENET, 20}, {STEM_CIFAR, 8}}; /* 20: odd maps, 10 5 3 2 1 */

static void test_gradient_whole(void **state)
{
	(void)state;
	const struct group everything = {-1, ""};
	for (size_t i = 0; i < 2; i++) {
		struct sample samples[BATCH];
		double *start, *gradients;
		struct rig *rig = gradients_open(stem_cases[i].stem, stem_cases[i].size, samples, &start, &gradients);
		double error = gradient_error(rig, samples, &everything, start, gradients);
		print_message("           %s stem: error %.2g of the tolerance\n", stem_name(stem_cases[i].stem), error / gradient_tolerance);
		assert_true(error < gradient_tolerance);

		/* The check notices one tensor among 110 that is wrong by a percent. */
		const struct param *wrong = &rig->layout.all[params_find(&rig->layout, "layer2.1.bn2.bias")];
		for (size_t k = 0; k < wrong->count; k++)
			gradients[wrong->offset + k] *= 1.01;
		assert_true(gradient_error(rig, samples, &everything, start, gradients) > gradient_tolerance);
		free(start);
		free(gradients);
		rig_close(rig);
	}
}

static void test_gradient_by_group(void **state)
{
	(void)state;
	static const struct group groups[] = {
		{PARAM_CONVOLUTION, "conv1"}, {PARAM_CONVOLUTION, "layer1"}, {PARAM_CONVOLUTION, "layer2"}, {PARAM_CONVOLUTION, "layer3"},
		{PARAM_CONVOLUTION, "layer4"}, {PARAM_NORM_WEIGHT, "bn1"}, {PARAM_NORM_WEIGHT, "layer1"}, {PARAM_NORM_WEIGHT, "layer2"},
		{PARAM_NORM_WEIGHT, "layer3"}, {PARAM_NORM_WEIGHT, "layer4"}, {PARAM_NORM_BIAS, "bn1"}, {PARAM_NORM_BIAS, "layer1"},
		{PARAM_NORM_BIAS, "layer2"}, {PARAM_NORM_BIAS, "layer3"}, {PARAM_NORM_BIAS, "layer4"}, {PARAM_HEAD_WEIGHT, ""}, {PARAM_HEAD_BIAS, ""},
	};
	if (SANITIZED) {
		print_message("[  SKIPPED ] test_gradient_by_group: slow under the sanitizers; test_gradient_whole runs the same code there\n");
		skip();
	}
	struct sample samples[BATCH];
	double *start, *gradients, worst = 0;
	struct rig *rig = gradients_open(STEM_IMAGENET, 20, samples, &start, &gradients);
	for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
		double error = gradient_error(rig, samples, &groups[g], start, gradients);
		worst = fmax(worst, error);
		if (!(error < gradient_tolerance))
			fail_msg("gradient of %s, kind %d: error %.3g, allowed %.3g", groups[g].prefix, groups[g].kind, error, gradient_tolerance);
	}
	print_message("           worst error %.2g of the tolerance\n", worst / gradient_tolerance);
	free(start);
	free(gradients);
	rig_close(rig);
}

static const struct update plain_update = {.lr = 0.01f, .momentum = 0.9f, .weight_decay = 0.001f, .nesterov = true,
	.norm_bias_lr_scale = 1, .gradient_scale = 1, .ema_decay = 0.5f, .first = true};

static void test_threads_same_bits(void **state)
{
	(void)state;
	struct rig *rigs[2];
	for (unsigned i = 0; i < 2; i++) {
		struct sample samples[BATCH];
		rigs[i] = rig_open(ref, STEM_IMAGENET, 20, BATCH, CLASSES, false, i == 0 ? 1 : 3);
		samples_mixed(rigs[i], samples);
		struct update update = plain_update;
		update.gradient_clip_norm = 1;
		for (int step = 0; step < 2; step++, update.first = false)
			OK(step_train(&rigs[i]->machine, &rigs[i]->images, samples, BATCH, BATCH, 0.1f, &update));
	}
	const struct backend_state *a = rigs[0]->machine.state, *b = rigs[1]->machine.state;
	size_t weights_bytes = rigs[0]->layout.weights_count * sizeof(double), buffers_bytes = rigs[0]->layout.buffers_count * sizeof(double);
	assert_memory_equal(a->weights, b->weights, weights_bytes);
	assert_memory_equal(a->momentum, b->momentum, weights_bytes);
	assert_memory_equal(a->ema_weights, b->ema_weights, weights_bytes);
	assert_memory_equal(a->buffers, b->buffers, buffers_bytes);
	assert_memory_equal(a->logits, b->logits, BATCH * CLASSES * sizeof(double));
	rig_close(rigs[0]);
	rig_close(rigs[1]);
}

/* A training batch given up half-way leaves no trace in what training goes on from. */
static void test_abandoned_batch_leaves_nothing(void **state)
{
	(void)state;
	struct rig *rig = rig_open(ref, STEM_CIFAR, 8, BATCH, CLASSES, false, 0);
	struct backend_state *s = rig->machine.state;
	struct sample samples[BATCH];
	struct counters counters;
	struct training_state out = {0};
	OK(params_alloc(&out.params, &rig->layout));
	samples_mixed(rig, samples);
	OK(ref->counters_reset(s));
	OK(step_train(&rig->machine, &rig->images, samples, BATCH, BATCH, 0, &plain_update));
	size_t bytes = rig->layout.buffers_count * sizeof(double);
	double *buffers = malloc(bytes);
	assert_non_null(buffers);
	memcpy(buffers, s->buffers, bytes);
	OK(step_forward(&rig->machine, &rig->images, samples, BATCH, BATCH, 0, true, WHICH_WEIGHTS));
	assert_memory_not_equal(buffers, s->buffers, bytes);
	OK(ref->batch_abandon(s));
	assert_memory_equal(buffers, s->buffers, bytes);
	OK(ref->counters_read(s, &counters));
	assert_true(counters.images == BATCH);
	OK(ref->snapshot(s, &out));
	assert_int_equal(out.params.batches_tracked, 1);
	free(buffers);
	params_free(&out.params);
	rig_close(rig);
}

/* A unit that is left out leaves NaN behind it, forward and backward. */
static void test_forgotten_call_shows(void **state)
{
	(void)state;
	struct rig *rig = rig_open(ref, STEM_IMAGENET, 20, BATCH, CLASSES, false, 0);
	struct backend_state *s = rig->machine.state;
	struct sample samples[BATCH];
	float logits[BATCH * CLASSES];
	double norm_squared;
	samples_mixed(rig, samples);
	OK(ref->batch_begin(s, BATCH, BATCH, true, WHICH_WEIGHTS));
	OK(ref->batch_gather(s, &rig->images, samples, 0));
	for (int u = 0; u < RESNET_UNITS; u++) {
		if (u != 4)
			OK(ref->unit_forward(s, u));
		if (u == 0)
			OK(ref->pool_forward(s));
	}
	OK(ref->head_forward(s));
	OK(ref->logits_read(s, logits));
	for (int i = 0; i < BATCH * CLASSES; i++)
		assert_true(isnan(logits[i]));

	(void)loss_of(rig, samples);
	OK(ref->head_backward(s));
	OK(ref->gradient_norm_squared(s, &norm_squared));
	assert_true(isnan(norm_squared));
	OK(step_backward(&rig->machine));
	OK(ref->gradient_norm_squared(s, &norm_squared));
	double sum = 0;
	for (size_t i = 0; i < rig->layout.weights_count; i++)
		sum += s->gradients[i] * s->gradients[i];
	assert_true(fabs(norm_squared - sum) < 1e-9 * sum);
	rig_close(rig);
}

static void arena_fill(float *values, size_t count, uint32_t stream)
{
	for (size_t i = 0; i < count; i++)
		values[i] = (float)golden_unit(stream, i) + 1.5f;
}

static void test_state_goes_in_and_out(void **state)
{
	(void)state;
	struct rig *rig = rig_open(ref, STEM_CIFAR, 8, BATCH, CLASSES, false, 0);
	size_t weights = rig->layout.weights_count, buffers = rig->layout.buffers_count;
	struct training_state in = {0}, out = {0};
	OK(params_alloc(&in.params, &rig->layout));
	OK(params_alloc(&in.ema, &rig->layout));
	OK(params_alloc(&out.params, &rig->layout));
	OK(params_alloc(&out.ema, &rig->layout));
	in.momentum = malloc(weights * sizeof *in.momentum);
	out.momentum = malloc(weights * sizeof *out.momentum);
	assert_non_null(in.momentum);
	assert_non_null(out.momentum);
	arena_fill(in.params.weights, weights, 50);
	arena_fill(in.params.buffers, buffers, 51);
	arena_fill(in.ema.weights, weights, 52);
	arena_fill(in.ema.buffers, buffers, 53);
	arena_fill(in.momentum, weights, 54);
	in.params.batches_tracked = 7;
	OK(ref->state_write(rig->machine.state, &in));
	OK(ref->snapshot(rig->machine.state, &out));
	assert_memory_equal(out.params.weights, in.params.weights, weights * sizeof(float));
	assert_memory_equal(out.params.buffers, in.params.buffers, buffers * sizeof(float));
	assert_memory_equal(out.ema.weights, in.ema.weights, weights * sizeof(float));
	assert_memory_equal(out.ema.buffers, in.ema.buffers, buffers * sizeof(float));
	assert_memory_equal(out.momentum, in.momentum, weights * sizeof(float));
	assert_int_equal(out.params.batches_tracked, 7);

	/* Absent momentum is zero, an absent average is a copy; a snapshot skips what is not asked for. */
	struct training_state bare = {.params = in.params}, only_momentum = {.momentum = out.momentum};
	OK(ref->state_write(rig->machine.state, &bare));
	OK(ref->snapshot(rig->machine.state, &out));
	assert_memory_equal(out.ema.weights, in.params.weights, weights * sizeof(float));
	assert_memory_equal(out.ema.buffers, in.params.buffers, buffers * sizeof(float));
	arena_fill(out.momentum, weights, 55);
	OK(ref->snapshot(rig->machine.state, &only_momentum));
	for (size_t i = 0; i < weights; i++)
		assert_true(out.momentum[i] == 0.0f);
	free(in.momentum);
	free(out.momentum);
	params_free(&in.params);
	params_free(&in.ema);
	params_free(&out.params);
	params_free(&out.ema);
	rig_close(rig);
}

/* The update by hand, without Nesterov, with every switch that the golden steps leave alone. */
static void test_update_by_hand(void **state)
{
	(void)state;
	struct rig *rig = rig_open(ref, STEM_CIFAR, 8, BATCH, CLASSES, false, 0);
	struct backend_state *s = rig->machine.state;
	const struct update update = {.lr = 0.5f, .momentum = 0.75f, .weight_decay = 0.25f, .decay_all = true, .norm_bias_lr_scale = 4,
		.gradient_scale = 0.125f, .ema_decay = 0.875f};
	for (size_t i = 0; i < rig->layout.weights_count; i++) {
		s->gradients[i] = 8;
		s->momentum[i] = 2;
		s->weights[i] = 4;
		s->ema_weights[i] = 1;
	}
	for (size_t i = 0; i < rig->layout.buffers_count; i++) {
		s->buffers[i] = 3;
		s->ema_buffers[i] = 11;
	}
	OK(ref->optimizer_step(s, &update));
	/* d = 8/8 + 4/4 = 2; v = 0.75·2 + 2 = 3.5; w = 4 − lr·3.5, four times that for a beta */
	for (int index = 0; index < rig->layout.count; index++) {
		const struct param *param = &rig->layout.all[index];
		double weight = param->kind == PARAM_NORM_BIAS ? 4 - 4 * 1.75 : 4 - 1.75;
		for (size_t i = param->offset; i < param->offset + param->count; i++) {
			if (param_is_buffer(param)) {
				assert_true(s->ema_buffers[i] == 11 + 0.125 * (3 - 11));
				continue;
			}
			assert_true(s->momentum[i] == 3.5);
			assert_true(s->weights[i] == weight);
			assert_true(s->ema_weights[i] == 1 + 0.125 * (weight - 1));
		}
	}
	rig_close(rig);
}

/* With all logits equal, the ties are ranked by class: label 0 is a hit at once, labels up to 4 within five. */
static void test_ties_are_ranked_by_class(void **state)
{
	(void)state;
	struct rig *rig = rig_open(ref, STEM_CIFAR, 8, BATCH, CLASSES, false, 0);
	const struct param *weight = &rig->layout.all[rig->layout.head_weight], *bias = &rig->layout.all[rig->layout.head_bias];
	memset(rig->machine.state->weights + weight->offset, 0, weight->count * sizeof(double));
	memset(rig->machine.state->weights + bias->offset, 0, bias->count * sizeof(double));
	struct sample samples[BATCH];
	struct counters counters;
	for (int n = 0; n < BATCH; n++) {
		samples[n] = (struct sample){.image.index = (uint32_t)n, .weight = 1};
		rig->labels[n] = (uint16_t)n;
	}
	OK(ref->counters_reset(rig->machine.state));
	OK(step_evaluate(&rig->machine, &rig->images, samples, BATCH, WHICH_WEIGHTS));
	OK(ref->counters_read(rig->machine.state, &counters));
	assert_true(counters.images == BATCH);
	assert_true(counters.top1 == 1);
	assert_true(counters.top5 == 5);
	assert_true(fabs(counters.loss - BATCH * log(CLASSES)) < 1e-12);
	rig_close(rig);
}

/* A network that has blown up is right about nothing, even with fewer classes than five. */
static void test_nan_is_no_hit(void **state)
{
	static const struct backend *const both[] = {&backend_ref, &backend_cpu};
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct rig *rig = rig_open(both[i], STEM_CIFAR, 8, BATCH, 2, false, 0);
		struct backend_state *s = rig->machine.state;
		struct sample samples[BATCH];
		struct counters counters;
		rig_samples(rig, 0, false, samples);
		for (int j = 0; j < 2; j++)
			params_data(&rig->start.params, &rig->layout.all[rig->layout.head_bias])[j] = NAN;
		OK(both[i]->state_write(s, &rig->start));
		OK(both[i]->counters_reset(s));
		OK(step_evaluate(&rig->machine, &rig->images, samples, BATCH, WHICH_WEIGHTS));
		OK(both[i]->counters_read(s, &counters));
		assert_true(counters.images == BATCH && counters.top1 == 0 && counters.top5 == 0 && isnan(counters.loss));
		rig_close(rig);
	}
}

/* In evaluation an image's logits do not depend on its neighbours or place; the image tensor is what sample_render says. */
static void test_evaluation_is_by_image(void **state)
{
	(void)state;
	struct rig *rig = rig_open(ref, STEM_CIFAR, 8, BATCH, CLASSES, false, 0);
	struct sample samples[BATCH];
	float together[BATCH * CLASSES], alone[CLASSES], rendered[3 * 8 * 8], tensor[BATCH * 3 * 8 * 8];
	rig_samples(rig, 1, false, samples);
	OK(step_evaluate(&rig->machine, &rig->images, samples, BATCH, WHICH_EMA));
	OK(ref->logits_read(rig->machine.state, together));
	OK(ref->tensor_read(rig->machine.state, 0, false, tensor));
	for (int n = 0; n < BATCH; n++) {
		sample_render(&rig->images, &samples[n], &golden_normalization, PADDING_ZERO, rendered);
		assert_memory_equal(tensor + n * 3 * 8 * 8, rendered, sizeof rendered);
		OK(step_evaluate(&rig->machine, &rig->images, samples + n, 1, WHICH_EMA));
		OK(ref->logits_read(rig->machine.state, alone));
		assert_memory_equal(alone, together + n * CLASSES, sizeof alone);
	}
	rig_close(rig);
}

static void test_refusals(void **state)
{
	(void)state;
	struct network network;
	static struct params_layout layout;
	const struct backend *found = NULL;
	struct backend_state *opened = NULL;
	OK(network_build(&network, STEM_IMAGENET, 32, CLASSES));
	params_layout_build(&layout, &network);
	struct backend_config config = {.network = &network, .layout = &layout, .batch_max = 0, .normalization = golden_normalization};
	assert_int_equal(ref->open(&config, &opened), ST_SETTINGS);
	config.batch_max = 4;
	config.training = true;
	assert_int_equal(ref->open(&config, &opened), ST_SETTINGS);
	assert_non_null(strstr(status_message(), "norm_momentum 0"));
	assert_null(opened);
	assert_int_equal(backend_find("gpu", &found), ST_SETTINGS);
	assert_null(found);
	OK(backend_find("ref", &found));
	assert_ptr_equal(found, ref);
	ref->close(NULL);

	struct rig *rig = rig_open(ref, STEM_IMAGENET, 20, BATCH, CLASSES, false, 0);
	assert_int_equal(ref->batch_begin(rig->machine.state, 1, 1, true, WHICH_WEIGHTS), ST_SETTINGS);
	OK(ref->batch_begin(rig->machine.state, 1, 1, false, WHICH_WEIGHTS));
	rig_close(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gradient_whole),
		cmocka_unit_test(test_gradient_by_group),
		cmocka_unit_test(test_threads_same_bits),
		cmocka_unit_test(test_abandoned_batch_leaves_nothing),
		cmocka_unit_test(test_forgotten_call_shows),
		cmocka_unit_test(test_state_goes_in_and_out),
		cmocka_unit_test(test_update_by_hand),
		cmocka_unit_test(test_ties_are_ranked_by_class),
		cmocka_unit_test(test_nan_is_no_hit),
		cmocka_unit_test(test_evaluation_is_by_image),
		cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
