/* Goal: the engine's logits are the network's: those of ref's forward in double within float's rounding, PyTorch's within 1e-4; and an
 * image's logits are the same to the bit whatever else is computed with it, before it, or by how many threads. Method: random weights with
 * norms far from the identity, both stems, map sizes that leave odd edges, every instruction set of this machine; what must not matter is
 * changed and the bits are compared. */
#include "core/backend/backend.h"
#include "core/engine/engine.h"
#include "test/golden/golden.h"
#include "test/unit/cpu_bed.h"

enum { ROOM = 33, CLASSES_MAX = 100, GUARD = 8 };

/* A network with random params, random normalised images, and an engine on it. */
struct subject {
	struct network network;
	struct params_layout layout;
	struct params params;
	float *images;
	const float *image[ROOM];
	size_t images_count;
};

static void params_random(struct subject *subject)
{
	struct bed bed = {.network = subject->network, .layout = subject->layout};
	struct training_state state;
	state_alloc(&state, &subject->layout, false);
	state_random(&state, &bed);
	subject->params = state.params;
	free(state.momentum);
}

static void subject_open(struct subject *subject, enum stem stem, int size, int classes, size_t images_count)
{
	assert_int_equal(network_build(&subject->network, stem, size, classes), ST_OK);
	params_layout_build(&subject->layout, &subject->network);
	params_random(subject);
	size_t floats = 3 * (size_t)size * (size_t)size;
	uint32_t word = 4711;
	subject->images_count = images_count;
	subject->images = zeros(images_count * floats, sizeof(float));
	for (size_t i = 0; i < images_count * floats; i++)
		subject->images[i] = 2 * uniform(&word);
	for (size_t i = 0; i < images_count; i++)
		subject->image[i] = subject->images + i * floats;
}

static void subject_close(struct subject *subject)
{
	params_free(&subject->params);
	free(subject->images);
}

static struct engine *engine_make(const struct subject *subject, struct threads *threads, int batch_max)
{
	const float *tensors[PARAMS_MAX];
	struct engine *engine;
	engine_tensors(&subject->layout, &subject->params, tensors);
	const struct engine_config config = {.network = &subject->network, .layout = &subject->layout, .tensors = tensors, .batch_max = batch_max, .threads = threads};
	OK(engine_open(&config, &engine));
	return engine;
}

static void cpu_set(void **state)
{
	assert_int_equal(setenv("SMELT_CPU", cpu_of(state), 1), 0);
}

/* --- values --------------------------------------------------------------------------------------------------------- */

/* What ref, in double, makes of the subject's first n images: unfolded, with running statistics. */
static void reference_run(const struct subject *subject, size_t n, struct threads *threads, float *logits)
{

	struct backend_config config = {.network = &subject->network, .layout = &subject->layout, .batch_max = (int)n,
		.normalization = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}}, .threads = threads};
	struct backend_state *state;
	struct training_state start = {.params = subject->params};
	size_t bytes = n * 3 * (size_t)subject->network.image_size * (size_t)subject->network.image_size;
	uint8_t *pixels = zeros(bytes, 1);
	uint16_t *labels = zeros(n, sizeof *labels);
	struct sample samples[ROOM] = {0};
	for (size_t i = 0; i < bytes; i++)
		pixels[i] = (uint8_t)(golden_word(9, i) >> 24);
	for (size_t i = 0; i < n; i++)
		samples[i] = (struct sample){.image.index = (uint32_t)i, .weight = 1};
	OK(backend_ref.open(&config, &state));
	OK(backend_ref.state_write(state, &start));
	const struct machine machine = {.backend = &backend_ref, .state = state, .network = &subject->network};
	const struct images images = {pixels, labels, n, subject->network.image_size};
	OK(step_evaluate(&machine, &images, samples, (int)n, WHICH_WEIGHTS));
	OK(backend_ref.tensor_read(state, 0, false, subject->images));
	OK(backend_ref.logits_read(state, logits));
	backend_ref.close(state);
	free(pixels);
	free(labels);
}

/* Roundings of random sign add up like a walk: √(36 units · the longest sum) of them; the network magnifies an error by some units, ten
 * times that is allowed. */
static double tolerance(void)
{
	return 10 * sqrt((double)RESNET_UNITS * 512 * 9) * EPSILON;
}

static void test_against_ref(void **state)
{
	static const struct {
		enum stem stem;
		int size, classes;
		size_t n;
	} cases[] = {{STEM_IMAGENET, 32, 100, 5}, {STEM_CIFAR, 32, 10, 2}, {STEM_IMAGENET, 24, 7, 3}, {STEM_IMAGENET, 40, 33, 13}, {STEM_CIFAR, 24, 64, 3},
		{STEM_IMAGENET, 8, 2, 4}, {STEM_CIFAR, 9, 31, 3}};
	struct threads *threads;
	cpu_set(state);
	OK(threads_open(0, &threads));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		if (SLOW && (cases[i].size > 24 || cases[i].stem == STEM_CIFAR) && i > 0)
			continue;
		struct subject subject;
		float want[ROOM * CLASSES_MAX], found[ROOM * CLASSES_MAX];
		subject_open(&subject, cases[i].stem, cases[i].size, cases[i].classes, cases[i].n);
		reference_run(&subject, cases[i].n, threads, want);
		struct engine *engine = engine_make(&subject, threads, 8);
		fill(found, ROOM * CLASSES_MAX, NAN);
		engine_run(engine, subject.image, cases[i].n, found);
		check_near(found, want, cases[i].n * (size_t)cases[i].classes, tolerance(), "%s stem, %d pixels, %d classes", stem_name(cases[i].stem), cases[i].size,
			cases[i].classes);
		engine_close(engine);
		subject_close(&subject);
	}
	used_print("engine against ref");
	threads_close(threads);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_ref),
	};
	return run_for_each_cpu(tests, sizeof tests / sizeof *tests);
}
