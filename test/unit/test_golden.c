/* test_golden.c: every backend does what PyTorch does.
 *
 * Goal: logits, loss, hits, every gradient, ten SGD steps with their loss curve, trained weights, running statistics, evaluation
 * with them and with the moving average, for both stems. Method: golden files that torchvision's resnet34 made in double
 * (test/golden), from weights and images that both sides compute. `ref` must agree to near the rounding of double; `cpu`, on every
 * instruction set of this machine, within the rounding of float. */
#include "test/golden/golden.h"

#include "core/backend/ref/ref.h"
#include "train/step.h"

enum { BATCH_MAX = 8, CLASSES_MAX = 100, STEPS = 10, PARTNER = 5, SAMPLED = 4 };
enum { IMAGES_MAX = 3 * BATCH_MAX };

/* Ten steps of this network in double take minutes under the sanitizers, which see the same code in the first step and test_ref. */
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

struct rig {
	struct network network;
	struct params_layout layout;
	struct training_state start;
	struct threads *threads;
	struct backend_state *state;
	struct machine machine;
	struct images images;
	int n;
	float lr;
	struct golden golden;
};

static const struct {
	const char *path;
	enum stem stem;
	int size, n, classes;
	float lr;
} cases[] = {
	{"test/golden/resnet34_imagenet_32.txt", STEM_IMAGENET, 32, 8, 100, 0x1p-14f},
	{"test/golden/resnet34_cifar_16.txt", STEM_CIFAR, 16, 6, 10, 0x1p-9f},
};

static void rig_open(struct rig *rig, int index, const char *backend)
{
	static uint8_t pixels[IMAGES_MAX * 3 * 32 * 32];
	static uint16_t labels[IMAGES_MAX];
	*rig = (struct rig){.n = cases[index].n, .lr = cases[index].lr};
	OK(network_build(&rig->network, cases[index].stem, cases[index].size, cases[index].classes));
	params_layout_build(&rig->layout, &rig->network);
	OK(params_alloc(&rig->start.params, &rig->layout));
	golden_params(&rig->start.params, &rig->layout);
	rig->images = golden_images(pixels, labels, 3 * (size_t)rig->n, cases[index].size, cases[index].classes);
	rig->golden = golden_open(cases[index].path);
	OK(threads_open(0, &rig->threads));
	struct backend_config config = {.network = &rig->network, .layout = &rig->layout, .batch_max = rig->n,
		.normalization = golden_normalization, .padding = PADDING_ZERO, .threads = rig->threads, .ema = true, .training = true};
	OK(backend_find(backend, &rig->machine.backend));
	OK(rig->machine.backend->open(&config, &rig->state));
	rig->machine.state = rig->state;
	rig->machine.network = &rig->network;
	OK(rig->machine.backend->state_write(rig->state, &rig->start));
}

static void rig_close(struct rig *rig)
{
	rig->machine.backend->close(rig->state);
	threads_close(rig->threads);
	params_free(&rig->start.params);
	golden_close(&rig->golden);
}

/* The batch of one step, as make_golden.py's batch_of. */
static void batch_samples(const struct rig *rig, int step, bool mixed, struct sample *samples)
{
	uint32_t count = (uint32_t)rig->images.count;
	for (int n = 0; n < rig->n; n++) {
		uint32_t at = (uint32_t)(step * rig->n + n) % count;
		samples[n] = (struct sample){.image = {.index = at}, .partner = {.index = (at + PARTNER) % count}, .weight = mixed && n % 2 ? 0.75f : 1.0f};
	}
}

/* What a comparison allows, relative to the root mean square of the tensor (or to the loss). Roundings of random sign add up like
 * a walk: √(sums one after another, forward and back · longest sum) of them, here √(2 · 36 units · 512·3·3). The network itself
 * magnifies an error; ref against PyTorch, both in double, shows by how much: 20. Three times that is allowed. */
static double tolerance(const struct backend *backend)
{
	double unit_roundoff = backend == &backend_ref ? 0x1p-53 : 0x1p-24;
	return 64 * sqrt(2.0 * RESNET_UNITS * 512 * 3 * 3) * unit_roundoff;
}

/* The largest error so far, as a share of what is allowed; the worst one is printed. */
struct score {
	double worst;
	char what[96];
};

static void compare(struct score *score, const char *what, double got, double want, double allowed)
{
	double share = fabs(got - want) / allowed;
	if (!(share <= score->worst)) { /* NaN too */
		score->worst = share;
		snprintf(score->what, sizeof score->what, "%.60s: %.10g, PyTorch %.10g", what, got, want);
	}
}

static void score_check(const struct score *score, const char *title)
{
	print_message("           %s: worst error %.3g of the tolerance (%s)\n", title, score->worst, score->what);
	if (!(score->worst <= 1))
		fail_msg("%s: %s: error %.3g times the tolerance", title, score->what, score->worst);
}

/* Sum, two dot products with hash vectors, L2 norm; compared relative to the norm: a sum of `count` errors of random sign, each
 * `relative` of the tensor's root mean square, is relative · norm. */
static void compare_projections(struct score *score, const char *what, const double *values, size_t count, uint32_t index, const double want[4], double relative)
{
	double got[4] = {0};
	for (size_t i = 0; i < count; i++) {
		got[0] += values[i];
		got[1] += values[i] * golden_unit(GOLDEN_DOT1 + index, i);
		got[2] += values[i] * golden_unit(GOLDEN_DOT2 + index, i);
		got[3] += values[i] * values[i];
	}
	got[3] = sqrt(got[3]);
	for (int i = 0; i < 4; i++)
		compare(score, what, got[i], want[i], relative * want[3]);
}


enum arena { ARENA_WEIGHTS, ARENA_GRADIENTS, ARENA_BUFFERS };

/* A copy of an arena as doubles; the caller frees it. ref's is not rounded to float on the way. */
static double *arena_read(const struct rig *rig, enum arena arena)
{
	const struct backend *backend = rig->machine.backend;
	size_t count = arena == ARENA_BUFFERS ? rig->layout.buffers_count : rig->layout.weights_count;
	double *values = malloc(count * sizeof *values);
	assert_non_null(values);
	if (backend == &backend_ref) {
		const double *from[] = {rig->state->weights, rig->state->gradients, rig->state->buffers};
		memcpy(values, from[arena], count * sizeof *values);
		return values;
	}
	float *floats = malloc(count * sizeof *floats);
	assert_non_null(floats);
	struct training_state snapshot = {.params = {.weights = arena == ARENA_WEIGHTS ? floats : NULL, .buffers = arena == ARENA_BUFFERS ? floats : NULL}};
	OK(arena == ARENA_GRADIENTS ? backend->gradients_read(rig->state, floats) : backend->snapshot(rig->state, &snapshot));
	for (size_t i = 0; i < count; i++)
		values[i] = (double)floats[i];
	free(floats);
	return values;
}

static void logits_compare(struct score *score, const struct rig *rig, const char *what, int image, double relative)
{
	int classes = rig->network.head.classes;
	double want[CLASSES_MAX], norm = 0;
	float floats[BATCH_MAX * CLASSES_MAX];
	golden_read(&rig->golden, what, want, (size_t)classes);
	OK(rig->machine.backend->logits_read(rig->state, floats));
	for (int j = 0; j < classes; j++)
		norm += want[j] * want[j];
	for (int j = 0; j < classes; j++) {
		size_t at = (size_t)(image * classes + j);
		compare(score, what, rig->machine.backend == &backend_ref ? rig->state->logits[at] : (double)floats[at], want[j], relative * sqrt(norm / classes));
	}
}

/* Loss (relative) and hits (exact) since the last reset. */
static void counters_compare(struct score *score, const struct rig *rig, const char *what, double loss, double top1, double top5, double relative)
{
	struct counters counters;
	OK(rig->machine.backend->counters_read(rig->state, &counters));
	OK(rig->machine.backend->counters_reset(rig->state));
	assert_true(counters.images == rig->n);
	compare(score, what, counters.loss / counters.images, loss, relative * loss);
	if (counters.top1 != top1 || counters.top5 != top5)
		fail_msg("%s: hits %g and %g, PyTorch %g and %g", what, counters.top1, counters.top5, top1, top5);
}

static void check_first_step(struct rig *rig)
{
	double relative = tolerance(rig->machine.backend);
	struct sample samples[BATCH_MAX];
	struct score forward = {0}, gradient = {0};
	double hits[2];
	batch_samples(rig, 0, true, samples);
	OK(rig->machine.backend->counters_reset(rig->state));
	OK(step_forward(&rig->machine, &rig->images, samples, rig->n, 0.1f, true, WHICH_WEIGHTS));
	golden_read(&rig->golden, "hits", hits, 2);
	counters_compare(&forward, rig, "loss", golden_number(&rig->golden, "loss"), hits[0], hits[1], relative);
	for (int n = 0; n < rig->n; n++) {
		char name[32];
		snprintf(name, sizeof name, "logits.%d", n);
		logits_compare(&forward, rig, name, n, relative);
	}
	score_check(&forward, "loss and logits");

	OK(step_backward(&rig->machine));
	double *gradients = arena_read(rig, ARENA_GRADIENTS);
	int compared = 0;
	for (int index = 0; index < rig->layout.count; index++) {
		const struct param *param = &rig->layout.all[index];
		if (param_is_buffer(param))
			continue;
		char name[96];
		double want[4 + SAMPLED];
		snprintf(name, sizeof name, "gradient.%s", param->name);
		golden_read(&rig->golden, name, want, 4 + SAMPLED);
		const double *g = gradients + param->offset;
		compare_projections(&gradient, name, g, param->count, (uint32_t)index, want, relative);
		for (size_t i = 0; i < SAMPLED; i++) {
			double value = g[golden_word(GOLDEN_ELEMENTS + (uint32_t)index * 16, i) % param->count];
			compare(&gradient, name, value, want[4 + i], relative * want[3]);
		}
		compared++;
	}
	free(gradients);
	assert_int_equal(compared, 110);
	score_check(&gradient, "gradients");
}

static void check_ten_steps(struct rig *rig)
{
	double relative = tolerance(rig->machine.backend);
	struct sample samples[BATCH_MAX];
	struct score curve = {0}, trained = {0}, evaluated = {0};
	double losses[STEPS], want[4];
	struct update update = {.lr = rig->lr, .momentum = 0.875f, .weight_decay = 0x1p-8f, .nesterov = true, .norm_bias_lr_scale = 2,
		.gradient_scale = 1, .ema_decay = 0.75f, .first = true};
	golden_read(&rig->golden, "curve", losses, STEPS);
	for (int step = 0; step < STEPS; step++) {
		struct counters counters;
		batch_samples(rig, step, true, samples);
		OK(rig->machine.backend->counters_reset(rig->state));
		OK(step_train(&rig->machine, &rig->images, samples, rig->n, 0.1f, 0, &update));
		OK(rig->machine.backend->counters_read(rig->state, &counters));
		char name[32];
		snprintf(name, sizeof name, "loss of step %d", step);
		compare(&curve, name, counters.loss / counters.images, losses[step], relative * losses[step]);
		update.first = false;
	}
	score_check(&curve, "loss curve");

	double *weights = arena_read(rig, ARENA_WEIGHTS), *buffers = arena_read(rig, ARENA_BUFFERS);
	for (int index = 0; index < rig->layout.count; index++) {
		const struct param *param = &rig->layout.all[index];
		char name[96];
		snprintf(name, sizeof name, "trained.%s", param->name);
		golden_read(&rig->golden, name, want, 4);
		compare_projections(&trained, name, (param_is_buffer(param) ? buffers : weights) + param->offset, param->count, (uint32_t)index, want, relative);
	}
	free(weights);
	free(buffers);
	score_check(&trained, "trained weights and running statistics");

	batch_samples(rig, 0, false, samples);
	const char *const names[] = {[WHICH_WEIGHTS] = "evaluated", [WHICH_EMA] = "evaluated_average"};
	for (int which = 0; which < 2; which++) {
		char name[32];
		OK(rig->machine.backend->counters_reset(rig->state));
		OK(step_evaluate(&rig->machine, &rig->images, samples, rig->n, (enum which)which));
		golden_read(&rig->golden, names[which], want, 3);
		counters_compare(&evaluated, rig, names[which], want[0], want[1], want[2], relative);
		snprintf(name, sizeof name, "%s.logits", names[which]);
		logits_compare(&evaluated, rig, name, 0, relative);
	}
	score_check(&evaluated, "evaluation");
}

static void test_ref_first_step(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct rig rig;
		rig_open(&rig, i, "ref");
		check_first_step(&rig);
		rig_close(&rig);
	}
}

static void test_ref_ten_steps(void **state)
{
	(void)state;
	if (SANITIZED) {
		print_message("[  SKIPPED ] test_ref_ten_steps: minutes under the sanitizers; test_ref runs the same code there\n");
		skip();
	}
	for (int i = 0; i < 2; i++) {
		struct rig rig;
		rig_open(&rig, i, "ref");
		check_ten_steps(&rig);
		rig_close(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ref_first_step),
		cmocka_unit_test(test_ref_ten_steps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
