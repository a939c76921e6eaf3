/* bench_layers.c: how fast the cpu backend is, layer by layer and as a whole, as a share of this machine's measured peak.
 *
 *     bench_layers [--cpu WORD] [--stem imagenet|cifar] [--batch N] [--threads N] [--steps-only]
 *
 * For each instruction set that the machine has: the peak (a loop of multiply-adds on registers alone, on all threads at once), then for
 * each distinct unit of both networks the three passes (forward with running statistics, hence with norm, shortcut and ReLU; weights'
 * gradient; input's gradient), then whole training steps. GFLOP/s count 2 a multiply-accumulate: "live" only those that meet a pixel
 * (what is computed; the share of the peak is of these), "usual" as if padding were computed with too. Times are the minimum and
 * median of the repeats; compare numbers of one run only. */
#include "core/backend/cpu/cpu_backend.h"
#include "core/base/random.h"
#include "test/bench/measure.h"
#include "train/step.h"

enum { CLASSES = 100, SIZE = 32 };
static const double SECONDS_A_CASE = 0.25;

/* --- a network with data -------------------------------------------------------------------------------------------- */

struct subject {
	struct network network;
	struct params_layout layout;
	struct machine machine;
	struct images images;
	struct sample *samples;
	int batch, unit;
	struct update update;
};

static void subject_open(struct subject *subject, enum stem stem, int batch, struct threads *threads)
{
	MUST(network_build(&subject->network, stem, SIZE, CLASSES) == ST_OK);
	params_layout_build(&subject->layout, &subject->network);
	size_t pixels = (size_t)batch * 3 * SIZE * SIZE;
	uint8_t *bytes = malloc(pixels);
	uint16_t *labels = malloc((size_t)batch * sizeof *labels);
	subject->samples = calloc((size_t)batch, sizeof *subject->samples);
	MUST(bytes != NULL && labels != NULL && subject->samples != NULL);
	struct random_stream stream = random_open(1, RANDOM_TEST, 0, 0);
	for (size_t i = 0; i < pixels; i++)
		bytes[i] = (uint8_t)random_u32(&stream);
	for (int i = 0; i < batch; i++) {
		labels[i] = (uint16_t)random_below(&stream, CLASSES);
		subject->samples[i].image.index = (uint32_t)i;
		subject->samples[i].weight = 1;
	}
	subject->images = (struct images){bytes, labels, (size_t)batch, SIZE};
	subject->batch = batch;
	subject->update = (struct update){.lr = 0.01f, .momentum = 0.9f, .weight_decay = 5e-4f, .norm_bias_lr_scale = 1, .gradient_scale = 1, .first = true};
	struct backend_config config = {.network = &subject->network, .layout = &subject->layout, .batch_max = batch,
		.normalization = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}}, .threads = threads, .training = true, .norm_momentum = 0.1};
	subject->machine = (struct machine){.backend = &backend_cpu, .network = &subject->network};
	if (backend_cpu.open(&config, &subject->machine.state) != ST_OK) {
		log_error("%s", status_message());
		exit(1);
	}
	struct training_state start = {0};
	MUST(params_alloc(&start.params, &subject->layout) == ST_OK);
	params_init(&start.params, &subject->network, &subject->layout, 1, false);
	MUST(backend_cpu.state_write(subject->machine.state, &start) == ST_OK);
	params_free(&start.params);
}

static void subject_close(struct subject *subject)
{
	backend_cpu.close(subject->machine.state);
	free((void *)(uintptr_t)subject->images.pixels);
	free((void *)(uintptr_t)subject->images.labels);
	free(subject->samples);
}

/* --- layers --------------------------------------------------------------------------------------------------------- */

static void run_forward(void *context)
{
	struct subject *subject = context;
	MUST(cpu_unit_forward(subject->machine.state, subject->unit) == ST_OK);
}

static void run_weight_gradient(void *context)
{
	struct subject *subject = context;
	struct backend_state *state = subject->machine.state;
	size_t at = state->gradient_at[subject->layout.unit[subject->unit].weight];
	convolution_weight_gradient(state, &subject->network.units[subject->unit], state->z[subject->unit], state->gradients + at);
}

static void run_input_gradient(void *context)
{
	struct subject *subject = context;
	struct backend_state *state = subject->machine.state;
	size_t offset = subject->layout.all[subject->layout.unit[subject->unit].weight].offset;
	convolution_input_gradient(state, &subject->network.units[subject->unit], state->weights + offset, state->z[subject->unit], false);
}

static bool same_shape(const struct unit *a, const struct unit *b)
{
	return a->C == b->C && a->K == b->K && a->H == b->H && a->W == b->W && a->R == b->R && a->S == b->S && a->stride == b->stride
		&& (a->x == 0) == (b->x == 0);
}

static void bench_layers(struct subject *subject, double peak)
{
	static const struct {
		const char *name;
		void (*run)(void *context);
	} passes[] = {{"forward", run_forward}, {"dw", run_weight_gradient}, {"dx", run_input_gradient}};
	struct backend_state *state = subject->machine.state;
	printf("%-24s %-20s %5s %-8s %9s %9s %8s %8s %7s\n", "unit", "shape", "count", "pass", "min ms", "median ms", "live", "usual", "of peak");
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &subject->network.units[u];
		int count = 0;
		bool seen = false;
		for (int v = 0; v < RESNET_UNITS; v++) {
			bool same = same_shape(unit, &subject->network.units[v]);
			count += same;
			seen = seen || (same && v < u);
		}
		if (seen)
			continue;
		subject->unit = u;
		char shape[64];
		snprintf(shape, sizeof shape, "%d>%d %dx%d/%d %d>%d", unit->C, unit->K, unit->R, unit->S, unit->stride, unit->H, unit->P);
		for (size_t i = 0; i < sizeof passes / sizeof passes[0]; i++) {
			if (unit->x == 0 && passes[i].run == run_input_gradient)
				continue;
			state->training = passes[i].run != run_forward;
			struct timing timing = measure(passes[i].run, subject, SECONDS_A_CASE);
			double live = 2e-9 * (double)unit_macs_live(unit) * subject->batch / timing.min, usual = 2e-9 * (double)unit_macs(unit) * subject->batch / timing.min;
			printf("%-24s %-20s %5d %-8s %9.3f %9.3f %8.1f %8.1f %6.1f%%\n", unit->convolution, shape, count, passes[i].name, timing.min * 1e3,
				timing.median * 1e3, live, usual, 100 * live / peak);
		}
	}
}

/* --- steps ---------------------------------------------------------------------------------------------------------- */

static void run_step(void *context)
{
	struct subject *subject = context;
	if (step_train(&subject->machine, &subject->images, subject->samples, subject->batch, subject->batch, 0.1f, &subject->update) != ST_OK) {
		log_error("%s", status_message());
		exit(1);
	}
	subject->update.first = false;
}

static void run_evaluation(void *context)
{
	struct subject *subject = context;
	MUST(step_evaluate(&subject->machine, &subject->images, subject->samples, subject->batch, WHICH_WEIGHTS) == ST_OK);
}

static void bench_steps(struct subject *subject, double peak)
{
	static const struct {
		const char *name;
		void (*run)(void *context);
		double passes;
	} kinds[] = {{"training step", run_step, 3}, {"evaluation", run_evaluation, 1}};
	double macs = 0, batch = (double)subject->batch;
	for (int u = 0; u < RESNET_UNITS; u++)
		macs += (double)unit_macs_live(&subject->network.units[u]);
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		struct timing timing = measure(kinds[i].run, subject, 2);
		printf("%s, stem %s, batch %d: %.1f images/s (median %.1f), %.1f ms, %.1f%% of peak on live products\n", kinds[i].name,
			stem_name(subject->network.stem), subject->batch, batch / timing.min, batch / timing.median, timing.min * 1e3,
			100 * 2e-9 * macs * kinds[i].passes * batch / timing.min / peak);
	}
}

static void run_stem(const struct bench *bench, enum cpu cpu, enum stem stem, double peak)
{
	/* Plain C takes a minute a step with the 3×3 stem. */
	int batch = cpu == CPU_GENERIC && stem == STEM_CIFAR && bench->batch > 32 ? 32 : bench->batch;
	struct subject subject = {0};
	subject_open(&subject, stem, batch, bench->threads);
	run_evaluation(&subject);
	if (!bench->flagged)
		bench_layers(&subject, peak);
	bench_steps(&subject, peak);
	subject_close(&subject);
}

int main(int argc, char **argv)
{
	struct bench bench = {.source = "bench_layers.c", .flag = "--steps-only", .run = run_stem, .batch = 128, .batch_max = 4096};
	return bench_main(&bench, argc, argv);
}
