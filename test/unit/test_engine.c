/* Goal: the engine's logits are the network's: those of ref's forward in double within float's rounding, PyTorch's within 1e-4; and an
 * image's logits are the same to the bit whatever else is computed with it, before it, or by how many threads. Method: random weights with
 * norms far from the identity, both stems, map sizes that leave odd edges, every instruction set of this machine; what must not matter is
 * changed and the bits are compared. */
#include "core/backend/backend.h"
#include "core/engine/engine.h"
#include "test/golden/golden.h"
#include "test/unit/cpu_bed.h"

enum { ROOM = 33, CLASSES_MAX = 100, GUARD = 8 };
static const float GUARD_VALUE = 12345.5f;

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

/* The subject's images become the normalised pictures of golden.h. */
static void images_golden(struct subject *subject, size_t n)
{
	size_t plane = (size_t)subject->network.image_size * (size_t)subject->network.image_size;
	for (size_t i = 0; i < n * 3 * plane; i++) {
		size_t c = i / plane % 3;
		subject->images[i] = ((float)(golden_word(GOLDEN_IMAGES, i) >> 24) / 255 - golden_normalization.mean[c]) / golden_normalization.std[c];
	}
}

/* What ref, in double, makes of golden.h's first n pictures: unfolded, with running statistics. */
static void reference_run(const struct subject *subject, size_t n, struct threads *threads, float *logits)
{
	struct backend_config config = {.network = &subject->network, .layout = &subject->layout, .batch_max = (int)n, .normalization = golden_normalization,
		.threads = threads};
	struct backend_state *state;
	const struct training_state start = {.params = subject->params};
	uint8_t *pixels = zeros(n * 3 * (size_t)subject->network.image_size * (size_t)subject->network.image_size, 1);
	uint16_t *labels = zeros(n, sizeof *labels);
	struct sample samples[ROOM] = {0};
	for (size_t i = 0; i < n; i++)
		samples[i] = (struct sample){.image.index = (uint32_t)i, .weight = 1};
	OK(backend_ref.open(&config, &state));
	OK(backend_ref.state_write(state, &start));
	const struct machine machine = {.backend = &backend_ref, .state = state, .network = &subject->network};
	const struct images images = golden_images(pixels, labels, n, subject->network.image_size, subject->network.head.classes);
	OK(step_evaluate(&machine, &images, samples, (int)n, WHICH_WEIGHTS));
	OK(backend_ref.logits_read(state, logits));
	backend_ref.close(state);
	free(pixels);
	free(labels);
}

/* Roundings of random sign add up like a walk: √(36 units · the longest sum) of them. */
static double tolerance(void)
{
	return sqrt((double)RESNET_UNITS * 512 * 9) * EPSILON;
}

static const struct {
	enum stem stem;
	int size, classes;
	size_t n;
	bool quick;
} cases[] = {{STEM_IMAGENET, 32, 100, 5, true}, {STEM_CIFAR, 32, 10, 2, false}, {STEM_IMAGENET, 24, 7, 3, false}, {STEM_IMAGENET, 40, 33, 13, false},
	{STEM_CIFAR, 24, 64, 3, false}, {STEM_IMAGENET, 8, 2, 4, true}, {STEM_CIFAR, 9, 31, 3, true}};
enum { CASES = sizeof cases / sizeof *cases };

static void test_against_ref(void **state)
{
	/* What ref says does not depend on the instruction set. */
	static float want[CASES][ROOM * CLASSES_MAX];
	static bool known[CASES];
	struct threads *threads;
	cpu_set(state);
	OK(threads_open(0, &threads));
	for (size_t i = 0; i < CASES; i++) {
		if (SLOW && !cases[i].quick)
			continue;
		struct subject subject;
		float found[ROOM * CLASSES_MAX];
		subject_open(&subject, cases[i].stem, cases[i].size, cases[i].classes, cases[i].n);
		images_golden(&subject, cases[i].n);
		if (!known[i])
			reference_run(&subject, cases[i].n, threads, want[i]);
		known[i] = true;
		struct engine *engine = engine_make(&subject, threads, 8);
		fill(found, ROOM * CLASSES_MAX, NAN);
		engine_run(engine, subject.image, cases[i].n, found);
		check_near(found, want[i], cases[i].n * (size_t)cases[i].classes, tolerance(), "%s stem, %d pixels, %d classes", stem_name(cases[i].stem), cases[i].size,
			cases[i].classes);
		engine_close(engine);
		subject_close(&subject);
	}
	used_print("engine against ref");
	threads_close(threads);
}

/* test/golden/engine.txt: PyTorch in double, the same weights and images. */
static void test_against_pytorch(void **state)
{
	static const struct {
		enum stem stem;
		int size, classes;
	} known[] = {{STEM_IMAGENET, 32, 100}, {STEM_IMAGENET, 40, 10}, {STEM_CIFAR, 32, 10}, {STEM_CIFAR, 24, 7}};
	enum { KNOWN_IMAGES = 2 };
	double worst = 0;
	struct threads *threads;
	cpu_set(state);
	OK(threads_open(0, &threads));
	struct golden golden = golden_open("test/golden/engine.txt");
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (SLOW && i > 0)
			break;
		struct subject subject;
		float found[KNOWN_IMAGES * CLASSES_MAX];
		double want[CLASSES_MAX];
		size_t classes = (size_t)known[i].classes;
		subject_open(&subject, known[i].stem, known[i].size, known[i].classes, KNOWN_IMAGES);
		golden_params(&subject.params, &subject.network, &subject.layout, false);
		golden_sharpen(&subject.params, &subject.layout);
		images_golden(&subject, KNOWN_IMAGES);
		struct engine *engine = engine_make(&subject, threads, 8);
		engine_run(engine, subject.image, KNOWN_IMAGES, found);
		for (size_t n = 0; n < KNOWN_IMAGES; n++) {
			char name[32];
			snprintf(name, sizeof name, "%s.%d.%zu", stem_name(known[i].stem), known[i].size, n);
			golden_read(&golden, name, want, classes);
			for (size_t k = 0; k < classes; k++) {
				double error = fabs((double)found[n * classes + k] - want[k]);
				if (!(error <= 1e-4))
					fail_msg("%s: class %zu: %.8g, PyTorch %.8g", name, k, (double)found[n * classes + k], want[k]);
				worst = error > worst ? error : worst;
			}
		}
		engine_close(engine);
		subject_close(&subject);
	}
	print_message("engine against PyTorch: off by %.2g at most\n", worst);
	golden_close(&golden);
	threads_close(threads);
}

/* --- bits ----------------------------------------------------------------------------------------------------------- */

/* Runs images `which` of the subject and compares with each one's own logits; nothing else is written. */
static void bits_check(const struct subject *subject, struct engine *engine, const size_t *which, size_t n, const float *alone, const char *what)
{
	size_t classes = (size_t)subject->network.head.classes;
	const float *images[ROOM] = {NULL};
	float found[GUARD + ROOM * CLASSES_MAX + GUARD];
	fill(found, sizeof found / sizeof *found, GUARD_VALUE);
	for (size_t i = 0; i < n; i++)
		images[i] = subject->image[which[i]];
	engine_run(engine, images, n, found + GUARD);
	for (size_t i = 0; i < n; i++)
		if (memcmp(found + GUARD + i * classes, alone + which[i] * classes, classes * sizeof(float)) != 0)
			fail_msg("%s stem, %s: image %zu at place %zu of %zu has other bits", stem_name(subject->network.stem), what, which[i], i, n);
	for (size_t i = 0; i < GUARD; i++)
		assert_true(found[i] == GUARD_VALUE && found[GUARD + n * classes + i] == GUARD_VALUE);
}

static void test_bits(void **state)
{
	static const struct {
		enum stem stem;
		int size, classes;
	} subjects[] = {{STEM_IMAGENET, 32, 33}, {STEM_CIFAR, 9, 10}, {STEM_IMAGENET, 40, 5}};
	static const size_t ns[] = {1, 2, 3, 4, 5, 11, 12, 13, 33};
	static const struct {
		unsigned threads;
		int batch_max;
	} ways[] = {{1, 64}, {2, 64}, {3, 4}, {2, 1}};
	static float alone[ROOM * CLASSES_MAX];
	cpu_set(state);
	for (size_t s = 0; s < (SLOW ? 1 : sizeof subjects / sizeof *subjects); s++) {
		struct subject subject;
		struct threads *threads;
		size_t which[ROOM];
		subject_open(&subject, subjects[s].stem, subjects[s].size, subjects[s].classes, ROOM);
		OK(threads_open(1, &threads));
		struct engine *engine = engine_make(&subject, threads, 1);
		for (size_t i = 0; i < ROOM; i++)
			engine_run(engine, &subject.image[i], 1, alone + i * (size_t)subjects[s].classes);
		engine_close(engine);
		threads_close(threads);
		for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
			OK(threads_open(ways[w].threads, &threads));
			engine = engine_make(&subject, threads, ways[w].batch_max);
			for (size_t i = 0; i < sizeof ns / sizeof *ns; i++) {
				if ((SLOW || s > 0) && ns[i] > 5 && w > 1)
					continue;
				char what[64];
				snprintf(what, sizeof what, "%u threads, parts of %d", ways[w].threads, ways[w].batch_max);
				for (size_t k = 0; k < ns[i]; k++)
					which[k] = (7 * k + 3 * i + w) % ROOM; /* each time in other places */
				bits_check(&subject, engine, which, ns[i], alone, what);
			}
			engine_close(engine);
			threads_close(threads);
		}
		subject_close(&subject);
	}
}

/* Buffers full of NaN from images before, and neighbours of NaN, change nothing: whatever is read has been written for this image. */
static void test_poison(void **state)
{
	for (int stem = STEM_IMAGENET; stem <= STEM_CIFAR; stem++) {
		enum { N = 5, SICK = 2 };
		struct subject subject;
		struct threads *threads;
		const size_t which[N] = {0, 1, 3, 4, 5};
		static float alone[ROOM * CLASSES_MAX], found[N * CLASSES_MAX];
		cpu_set(state);
		subject_open(&subject, (enum stem)stem, 9 + 15 * (stem == STEM_IMAGENET), 10, N + 1);
		OK(threads_open(2, &threads));
		struct engine *fresh = engine_make(&subject, threads, 8), *engine = engine_make(&subject, threads, 8);
		for (size_t i = 0; i < N + 1; i++)
			engine_run(fresh, &subject.image[i], 1, alone + i * 10);
		size_t floats = 3 * (size_t)subject.network.image_size * (size_t)subject.network.image_size;
		fill(subject.images + SICK * floats, floats, NAN);
		const float *const sick[N] = {subject.image[SICK], subject.image[SICK], subject.image[SICK], subject.image[SICK], subject.image[SICK]};
		engine_run(engine, sick, N, found);
		for (size_t i = 0; i < N * 10; i++)
			assert_true(isnan(found[i]));
		bits_check(&subject, engine, which, N, alone, "after images of NaN");
		const float *const mixed[3] = {subject.image[0], subject.image[SICK], subject.image[1]};
		engine_run(engine, mixed, 3, found);
		assert_memory_equal(found, alone, 10 * sizeof(float));
		assert_memory_equal(found + 20, alone + 10, 10 * sizeof(float));
		engine_close(fresh);
		engine_close(engine);
		threads_close(threads);
		subject_close(&subject);
	}
}

/* --- opening -------------------------------------------------------------------------------------------------------- */

static void test_open(void **state)
{
	struct subject subject;
	struct threads *threads;
	struct engine *engine = NULL;
	const float *tensors[PARAMS_MAX];
	cpu_set(state);
	subject_open(&subject, STEM_IMAGENET, 32, 10, 1);
	OK(threads_open(2, &threads));
	engine_tensors(&subject.layout, &subject.params, tensors);
	struct engine_config config = {.network = &subject.network, .layout = &subject.layout, .tensors = tensors, .batch_max = 8, .threads = threads};
	OK(engine_open(&config, &engine));
	size_t bytes = engine_bytes(engine);
	assert_in_range(bytes, 40000000, 45000000); /* dead taps take no memory: all weights are 85 MB */
	const char *const parts[] = {"imagenet stem", "32x32", "fp32", cpu_of(state), "2 threads", "41.1 million", "MB"};
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (strstr(engine_description(engine), parts[i]) == NULL)
			fail_msg("\"%s\" does not say \"%s\"", engine_description(engine), parts[i]);
	engine_close(engine);
	engine = NULL;
	config.bytes_max = bytes;
	OK(engine_open(&config, &engine));
	engine_close(engine);
	engine = NULL;
	config.bytes_max = bytes - 1;
	assert_int_equal(engine_open(&config, &engine), ST_MEMORY);
	assert_non_null(strstr(status_message(), "MB are allowed"));
	config.bytes_max = 0;
	config.batch_max = 0;
	assert_int_equal(engine_open(&config, &engine), ST_SETTINGS);
	config.batch_max = 8;
	setenv("SMELT_CPU", "abacus", 1);
	assert_int_equal(engine_open(&config, &engine), ST_SETTINGS);
	assert_non_null(strstr(status_message(), "abacus"));
	assert_null(engine);
	engine_close(NULL);
	threads_close(threads);
	subject_close(&subject);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_ref),
		cmocka_unit_test(test_against_pytorch),
		cmocka_unit_test(test_bits),
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_open),
	};
	return run_for_each_cpu(tests, sizeof tests / sizeof *tests);
}
