/* bench_engine.c: how fast the engine answers, as a share of this machine's measured peak.
 *
 *     bench_engine [--cpu WORD] [--stem imagenet|cifar] [--batch N] [--threads N]
 *
 * For both stems at 32×32 and 100 classes: images a second and milliseconds a call for calls of 1, 8, 32 and 128 images (or of N), and the
 * share of the peak (a loop of multiply-adds on registers alone, on all threads at once); 2 GFLOP a multiply-accumulate that meets a pixel.
 * One image is bound by the reading of its weights: the rate of that is printed, too. Times are the minimum and median of the repeats. */
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/engine/engine.h"
#include "test/bench/measure.h"

#include <stdio.h>
#include <string.h>

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

static void run(void *context)
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
	struct timing timing = measure(run, subject, SECONDS_A_CASE);
	printf("%5zu images: %9.3f ms (median %9.3f) %8.1f images/s (median %8.1f) %5.1f%% of peak", n, timing.min * 1e3, timing.median * 1e3, (double)n / timing.min,
		(double)n / timing.median, 200e-9 * macs * (double)n / timing.min / peak);
	if (n == 1)
		printf(", weights at %.1f GB/s", 4e-9 * weights / timing.min);
	printf("\n");
}

int main(int argc, char **argv)
{
	const char *only_cpu = NULL, *only_stem = NULL;
	size_t batch = 0;
	unsigned threads_wanted = 0;
	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		if (strcmp(argv[i], "--cpu") == 0)
			only_cpu = value;
		else if (strcmp(argv[i], "--stem") == 0)
			only_stem = value;
		else if (strcmp(argv[i], "--batch") == 0)
			batch = (size_t)atoi(value);
		else if (strcmp(argv[i], "--threads") == 0)
			threads_wanted = (unsigned)atoi(value);
		else {
			log_error("unknown argument %s: see the first lines of bench_engine.c", argv[i]);
			return 2;
		}
	}
	struct threads *threads;
	if (batch > IMAGES || threads_open(threads_wanted, &threads) != ST_OK) {
		log_error("%s", batch > IMAGES ? "--batch: 128 at most" : status_message());
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%s, %u threads\n", cpu_model(), threads_count(threads));
	for (int c = CPU_GENERIC; c <= CPU_AVX512; c++) {
		enum cpu cpu = (enum cpu)c;
		if (only_cpu != NULL && strcmp(only_cpu, cpu_word(cpu)) != 0)
			continue;
		if (cpu > cpu_detect()) {
			printf("%s: skipped, this machine lacks %s\n", cpu_word(cpu), cpu_needs(cpu));
			continue;
		}
		setenv("SMELT_CPU", cpu_word(cpu), 1);
		double peak = peak_measure(threads, cpu);
		printf("\n%s: peak %.1f GFLOP/s\n", cpu_word(cpu), peak);
		for (int s = 0; s < 2; s++) {
			static const size_t usual[] = {1, 8, 32, 128};
			static struct subject subject;
			if (only_stem != NULL && strcmp(only_stem, stem_name((enum stem)s)) != 0)
				continue;
			subject_open(&subject, (enum stem)s, threads);
			for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
				if (batch == 0 || batch == usual[i] || i == 0)
					subject_measure(&subject, batch == 0 ? usual[i] : batch, peak);
			engine_close(subject.engine);
			free(subject.images);
		}
	}
	threads_close(threads);
	return 0;
}
