/* bench_engine.c: how fast the engine answers, as a share of this machine's measured peak.
 *
 *     bench_engine [--cpu WORD] [--stem imagenet|cifar] [--batch N] [--threads N]
 *
 * For both stems at 32×32 and 100 classes: images a second and milliseconds a call for calls of 1, 8, 32 and 128 images (or of N), and the
 * share of the peak (a loop of multiply-adds on registers alone, on all threads at once); 2 GFLOP a multiply-accumulate that meets a pixel.
 * One image is bound by the reading of its weights: the rate of that is printed, too. Times are the minimum and median of the repeats. */
#include "core/base/random.h"
#include "core/engine/engine.h"
#include "test/bench/measure.h"

enum { CLASSES = 100, SIZE = 32, IMAGES = 128, BATCH_MAX = 128, PIXELS = 3 * SIZE * SIZE };
static const double SECONDS_A_CASE = 1;

struct subject {
	struct network network;
	struct engine *engine;
	float *images;
	const float *image[IMAGES];
	size_t n;
	float logits[IMAGES * CLASSES];
};

static void subject_open(struct subject *subject, enum stem stem, struct threads *threads)
{
	struct params_layout layout;
	struct params params;
	const float *tensors[PARAMS_MAX];
	MUST(network_build(&subject->network, stem, SIZE, CLASSES) == ST_OK);
	params_layout_build(&layout, &subject->network);
	MUST(params_alloc(&params, &layout) == ST_OK);
	params_init(&params, &subject->network, &layout, 1, false);
	engine_tensors(&layout, &params, tensors);
	const struct engine_config config = {.network = &subject->network, .layout = &layout, .tensors = tensors, .batch_max = BATCH_MAX, .threads = threads};
	double begin = now();
	MUST(engine_open(&config, &subject->engine) == ST_OK);
	printf("%s; opened in %.1f ms\n", engine_description(subject->engine), (now() - begin) * 1e3);
	params_free(&params);
	subject->images = malloc(sizeof(float) * IMAGES * PIXELS);
	MUST(subject->images != NULL);
	struct random_stream stream = random_open(1, RANDOM_TEST, 0, 0);
	for (size_t i = 0; i < IMAGES * PIXELS; i++)
		subject->images[i] = (float)random_unit(&stream) * 4 - 2;
	for (size_t i = 0; i < IMAGES; i++)
		subject->image[i] = subject->images + i * PIXELS;
}

static void run_once(void *context)
{
	struct subject *subject = context;
	engine_run(subject->engine, subject->image, subject->n, subject->logits);
}

static void subject_measure(struct subject *subject, size_t n, double peak)
{
	double macs = (double)subject->network.head.C * CLASSES, weights = macs;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &subject->network.units[u];
		macs += (double)unit_macs_live(unit);
		weights += (double)unit_taps_live(unit) * unit->C * unit->K;
	}
	subject->n = n;
	struct timing timing = measure(run_once, subject, SECONDS_A_CASE);
	printf("%5zu images: %9.3f ms (median %9.3f) %8.1f images/s (median %8.1f) %5.1f%% of peak", n, timing.min * 1e3, timing.median * 1e3, (double)n / timing.min,
		(double)n / timing.median, 200e-9 * macs * (double)n / timing.min / peak);
	if (n == 1)
		printf(", weights at %.1f GB/s", 4e-9 * weights / timing.min);
	printf("\n");
}

static void run_stem(const struct bench *bench, enum cpu cpu, enum stem stem, double peak)
{
	static const size_t usual[] = {1, 8, 32, 128};
	static struct subject subject;
	(void)cpu;
	subject_open(&subject, stem, bench->threads);
	if (bench->batch != 0)
		subject_measure(&subject, (size_t)bench->batch, peak);
	else
		for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
			subject_measure(&subject, usual[i], peak);
	engine_close(subject.engine);
	free(subject.images);
}

int main(int argc, char **argv)
{
	struct bench bench = {.source = "bench_engine.c", .run = run_stem, .batch_max = IMAGES};
	return bench_main(&bench, argc, argv);
}
