/* test_golden.c: every backend does what PyTorch does.
 *
 * Goal: logits, loss, hits, every gradient, ten SGD steps with their loss curve, trained weights, running statistics, evaluation
 * with them and with the moving average, for both stems. Method: golden files that torchvision's resnet34 made in double
 * (test/golden), from weights and images that both sides compute. `ref` must agree to near the rounding of double; `cpu`, on every
 * instruction set of this machine, within the rounding of float. */
#include "test/unit/rig.h"

#include "core/backend/ref/ref.h"
#include "core/base/cpu.h"

enum { STEPS = 10, SAMPLED = 4 };

/* Under the sanitizers, which slow this twentyfold, only the first step of the imagenet stem runs; test_ref and test_cpu_backend run
 * the rest of the code there. */
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static const struct golden_case {
	const char *path;
	enum stem stem;
	int size, n, classes;
	float lr;
	bool steady;
	double magnification; /* see tolerance */
} cases[] = {
	{"test/golden/resnet34_imagenet_32.txt", STEM_IMAGENET, 32, 8, 100, 0x1p-14f, false, 64},
	{"test/golden/resnet34_cifar_16.txt", STEM_CIFAR, 16, 6, 10, 0x1p-9f, false, 64},
	{"test/golden/resnet34_imagenet_32_steady.txt", STEM_IMAGENET, 32, 8, 100, 0x1p-16f, true, 256},
	{"test/golden/resnet34_cifar_16_steady.txt", STEM_CIFAR, 16, 6, 10, 0x1p-13f, true, 256},
};

/* What a comparison allows, relative to the root mean square of the tensor (or to the loss). Roundings of random sign add up like
 * a walk: √(sums one after another, forward and back · longest sum) of them, here √(2 · 36 units · 512·3·3). The network itself
 * magnifies an error, by up to 20 (90 in the steady cases): so much differs ref from PyTorch, both in double. Three times that is
 * allowed, of the backend's own rounding. */
static double tolerance(const struct backend *backend, const struct golden_case *golden_case)
{
	double unit_roundoff = backend == &backend_ref ? 0x1p-53 : 0x1p-24;
	return golden_case->magnification * sqrt(2.0 * RESNET_UNITS * 512 * 3 * 3) * unit_roundoff;
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

/* Sum, two dot products with hash vectors, L2 norm. Errors of random sign, each a share of the tensor's root mean square, sum to that share
 * of its norm: that is what callers allow. */
static void compare_projections(struct score *score, const char *what, const double *values, size_t count, uint32_t index, const double want[4], double allowed)
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
		compare(score, what, got[i], want[i], allowed);
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
		const struct backend_state *ref = rig->machine.state;
		const double *from[] = {ref->weights, ref->gradients, ref->buffers};
		memcpy(values, from[arena], count * sizeof *values);
		return values;
	}
	float *floats = malloc(count * sizeof *floats);
	assert_non_null(floats);
	struct training_state snapshot = {.params = {.weights = arena == ARENA_WEIGHTS ? floats : NULL, .buffers = arena == ARENA_BUFFERS ? floats : NULL}};
	OK(arena == ARENA_GRADIENTS ? backend->gradients_read(rig->machine.state, floats) : backend->snapshot(rig->machine.state, &snapshot));
	for (size_t i = 0; i < count; i++)
		values[i] = (double)floats[i];
	free(floats);
	return values;
}

static void logits_compare(struct score *score, const struct rig *rig, const struct golden *golden, const char *what, int image, double relative)
{
	int classes = rig->network.head.classes;
	double want[RIG_CLASSES_MAX], norm = 0;
	float floats[RIG_BATCH_MAX * RIG_CLASSES_MAX];
	golden_read(golden, what, want, (size_t)classes);
	OK(rig->machine.backend->logits_read(rig->machine.state, floats));
	for (int j = 0; j < classes; j++)
		norm += want[j] * want[j];
	for (int j = 0; j < classes; j++) {
		size_t at = (size_t)(image * classes + j);
		compare(score, what, rig->machine.backend == &backend_ref ? rig->machine.state->logits[at] : (double)floats[at], want[j], relative * sqrt(norm / classes));
	}
}

/* Loss (relative) and hits (exact) since the last reset. */
static void counters_compare(struct score *score, const struct rig *rig, const char *what, double loss, double top1, double top5, double relative)
{
	struct counters counters;
	OK(rig->machine.backend->counters_read(rig->machine.state, &counters));
	OK(rig->machine.backend->counters_reset(rig->machine.state));
	assert_true(counters.images == rig->n);
	compare(score, what, counters.loss / counters.images, loss, relative * loss);
	if (counters.top1 != top1 || counters.top5 != top5)
		fail_msg("%s: hits %g and %g, PyTorch %g and %g", what, counters.top1, counters.top5, top1, top5);
}

/* A beta's gradient is a sum whose terms may cancel altogether (a later norm takes the mean out again): what is left is measured
 * by the gradient of its gamma, which sums terms of the same size. */
static double norm_scale(const struct rig *rig, const struct golden *golden, int unit, double norm)
{
	char name[96];
	double gamma[4 + SAMPLED];
	snprintf(name, sizeof name, "gradient.%s", rig->layout.all[rig->layout.unit[unit].gamma].name);
	golden_read(golden, name, gamma, 4 + SAMPLED);
	return fmax(norm, gamma[3]);
}

static void check_forward(const struct rig *rig, const struct golden *golden, const struct golden_case *golden_case)
{
	double relative = tolerance(rig->machine.backend, golden_case);
	struct sample samples[RIG_BATCH_MAX];
	struct score forward = {0};
	double hits[2];
	rig_samples(rig, 0, true, samples);
	OK(rig->machine.backend->counters_reset(rig->machine.state));
	OK(step_forward(&rig->machine, &rig->images, samples, rig->n, rig->n, 0.1f, true, WHICH_WEIGHTS));
	golden_read(golden, "hits", hits, 2);
	counters_compare(&forward, rig, "loss", golden_number(golden, "loss"), hits[0], hits[1], relative);
	for (int n = 0; n < rig->n; n++) {
		char name[32];
		snprintf(name, sizeof name, "logits.%d", n);
		logits_compare(&forward, rig, golden, name, n, relative);
	}
	score_check(&forward, "loss and logits");
}

/* After check_forward. */
static void check_backward(const struct rig *rig, const struct golden *golden, const struct golden_case *golden_case)
{
	double relative = tolerance(rig->machine.backend, golden_case);
	struct score gradient = {0};
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
		golden_read(golden, name, want, 4 + SAMPLED);
		const double *g = gradients + param->offset;
		double scale = param->kind == PARAM_NORM_BIAS ? norm_scale(rig, golden, param->unit, want[3]) : want[3];
		compare_projections(&gradient, name, g, param->count, (uint32_t)index, want, relative * scale);
		for (size_t i = 0; i < SAMPLED; i++) {
			double value = g[golden_word(GOLDEN_ELEMENTS + (uint32_t)index * 16, i) % param->count];
			compare(&gradient, name, value, want[4 + i], relative * scale);
		}
		compared++;
	}
	free(gradients);
	assert_int_equal(compared, 110);
	score_check(&gradient, "gradients");
}

static void check_ten_steps(const struct rig *rig, const struct golden *golden, const struct golden_case *golden_case)
{
	double relative = tolerance(rig->machine.backend, golden_case);
	struct sample samples[RIG_BATCH_MAX];
	struct score curve = {0}, trained = {0}, evaluated = {0};
	double losses[STEPS], want[4];
	struct update update = {.lr = golden_case->lr, .momentum = 0.875f, .weight_decay = 0x1p-8f, .nesterov = true, .norm_bias_lr_scale = 2,
		.gradient_scale = 1, .ema_decay = 0.75f, .first = true};
	golden_read(golden, "curve", losses, STEPS);
	for (int step = 0; step < STEPS; step++) {
		struct counters counters;
		rig_samples(rig, step, true, samples);
		OK(rig->machine.backend->counters_reset(rig->machine.state));
		OK(step_train(&rig->machine, &rig->images, samples, rig->n, rig->n, 0.1f, &update));
		OK(rig->machine.backend->counters_read(rig->machine.state, &counters));
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
		golden_read(golden, name, want, 4);
		compare_projections(&trained, name, (param_is_buffer(param) ? buffers : weights) + param->offset, param->count, (uint32_t)index, want, relative * want[3]);
	}
	free(weights);
	free(buffers);
	score_check(&trained, "trained weights and running statistics");

	rig_samples(rig, 0, false, samples);
	const char *const names[] = {[WHICH_WEIGHTS] = "evaluated", [WHICH_EMA] = "evaluated_average"};
	for (int which = 0; which < 2; which++) {
		char name[32];
		OK(rig->machine.backend->counters_reset(rig->machine.state));
		OK(step_evaluate(&rig->machine, &rig->images, samples, rig->n, (enum which)which));
		golden_read(golden, names[which], want, 3);
		counters_compare(&evaluated, rig, names[which], want[0], want[1], want[2], relative);
		snprintf(name, sizeof name, "%s.logits", names[which]);
		logits_compare(&evaluated, rig, golden, name, 0, relative);
	}
	score_check(&evaluated, "evaluation");
}

/* What runs: a backend, and for cpu the instruction set it is held to. */
struct variant {
	const struct backend *backend;
	enum cpu cpu;
};

/* False, with the reason printed, when this machine lacks the instruction set. */
static bool variant_ready(const struct variant *variant, const char *test)
{
	if (variant->backend == &backend_ref)
		return true;
	if (variant->cpu > cpu_detect()) {
		print_message("[  SKIPPED ] %s: this machine has no %s\n", test, cpu_needs(variant->cpu));
		return false;
	}
	assert_int_equal(setenv("SMELT_CPU", cpu_word(variant->cpu), 1), 0);
	return true;
}

typedef void check(const struct rig *rig, const struct golden *golden, const struct golden_case *golden_case);

static void cases_run(const struct variant *variant, const char *test, check *run)
{
	if (!variant_ready(variant, test))
		skip();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (SANITIZED && cases[i].stem != STEM_IMAGENET)
			continue;
		print_message("           %s\n", cases[i].path);
		struct rig *rig = rig_open(variant->backend, cases[i].stem, cases[i].size, cases[i].n, cases[i].classes, cases[i].steady, 0);
		struct golden golden = golden_open(cases[i].path);
		run(rig, &golden, &cases[i]);
		golden_close(&golden);
		rig_close(rig);
	}
}

/* In float, one activation that rounds across a ReLU's edge changes the gradients before it by a percent. Behind the loss, cpu is
 * compared in the steady cases, whose activations keep away from the edges. */
static void first_step(const struct rig *rig, const struct golden *golden, const struct golden_case *golden_case)
{
	check_forward(rig, golden, golden_case);
	if (rig->machine.backend == &backend_ref || golden_case->steady)
		check_backward(rig, golden, golden_case);
}

static void ten_steps(const struct rig *rig, const struct golden *golden, const struct golden_case *golden_case)
{
	/* For cpu one stem is enough: they differ in what the first step has compared already. */
	bool compared = rig->machine.backend == &backend_ref ? !golden_case->steady : golden_case->steady && golden_case->stem == STEM_IMAGENET;
	if (compared)
		check_ten_steps(rig, golden, golden_case);
}

static void sanitized_skip(const char *test)
{
	if (SANITIZED) {
		print_message("[  SKIPPED ] %s: minutes under the sanitizers\n", test);
		skip();
	}
}

static void test_first_step(void **state)
{
	cases_run(*state, "first step", first_step);
}

static void test_ten_steps(void **state)
{
	const struct variant *variant = *state;
	sanitized_skip("ten steps");
	cases_run(variant, "ten steps", ten_steps);
}

/* One batch over and over: the loss must all but vanish. Finds wiring that a few steps would not show. */
static void test_overfit(void **state)
{
	const struct variant *variant = *state;
	sanitized_skip("overfit");
	assert_int_equal(unsetenv("SMELT_CPU"), 0);
	struct rig *rig = rig_open(variant->backend, STEM_IMAGENET, 32, 8, 10, false, 0);
	struct sample samples[RIG_BATCH_MAX];
	struct counters counters;
	struct update update = {.lr = 0.01f, .momentum = 0.9f, .norm_bias_lr_scale = 1, .gradient_scale = 1, .first = true};
	rig_samples(rig, 0, false, samples);
	for (int step = 0; step < 40; step++, update.first = false) {
		OK(variant->backend->counters_reset(rig->machine.state));
		OK(step_train(&rig->machine, &rig->images, samples, rig->n, rig->n, 0, &update));
		OK(variant->backend->counters_read(rig->machine.state, &counters));
	}
	print_message("           loss after 40 steps: %.3g\n", counters.loss / counters.images);
	assert_true(counters.loss / counters.images < 0.01);
	assert_true(counters.top1 == counters.images);
	rig_close(rig);
}

int main(void)
{
	static struct variant ref = {&backend_ref, CPU_GENERIC}, generic = {&backend_cpu, CPU_GENERIC}, avx2 = {&backend_cpu, CPU_AVX2},
		avx512 = {&backend_cpu, CPU_AVX512};
	const struct CMUnitTest tests[] = {
		{"first_step_ref", test_first_step, NULL, NULL, &ref},
		{"ten_steps_ref", test_ten_steps, NULL, NULL, &ref},
		{"first_step_generic", test_first_step, NULL, NULL, &generic},
		{"ten_steps_generic", test_ten_steps, NULL, NULL, &generic},
		{"first_step_avx2", test_first_step, NULL, NULL, &avx2},
		{"ten_steps_avx2", test_ten_steps, NULL, NULL, &avx2},
		{"first_step_avx512", test_first_step, NULL, NULL, &avx512},
		{"ten_steps_avx512", test_ten_steps, NULL, NULL, &avx512},
		{"overfit", test_overfit, NULL, NULL, &avx512},
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
