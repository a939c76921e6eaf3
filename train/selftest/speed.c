/* speed.c: see speed.h. */
#include "train/selftest/speed.h"

#include "core/base/clock.h"

#include <math.h>
#include <stdlib.h>

enum { IMAGES = 128, WARM_STEPS = 3, SUMS = 5, SUMS_IMAGES = 8 };

/* Of a training step that is measured at all, and how long to measure. */
static const double STEP_SECONDS_MAX = 1, MEASURE_SECONDS = 0.4;

static const struct update tiny_update = {.lr = 1e-6f, .momentum = 0.9f, .weight_decay = 1e-4f, .norm_bias_lr_scale = 1, .gradient_scale = 1};

/* Of the convolutions for one image, multiply and add counted as two, taps that meet padding not counted: forward, and backward twice but for
 * the image. */
static double image_flop(const struct network *network)
{
	double flop = 0;
	for (int u = 0; u < RESNET_UNITS; u++)
		flop += 2.0 * (double)unit_macs_live(&network->units[u]) * (network->units[u].x == 0 ? 2 : 3);
	return flop;
}

/* Read and written by an update: gradient, weight and momentum, the latter two back. */
static double update_bytes(const struct bed *bed)
{
	double values = 0;
	for (int i = 0; i < bed->layout.count; i++) {
		const struct param *param = &bed->layout.all[i];
		if (param->kind == PARAM_CONVOLUTION) /* only taps that ever meet a pixel are updated each step */
			values += (double)bed->network.units[param->unit].K * bed->network.units[param->unit].C * unit_taps_live(&bed->network.units[param->unit]);
		else if (param->kind != PARAM_RUNNING_MEAN && param->kind != PARAM_RUNNING_VAR)
			values += (double)param->count;
	}
	return values * 5 * sizeof(float);
}

static enum status steps_measure(const struct bed *bed, const struct machine *machine, int n, double *step_seconds, double *update_seconds)
{
	struct update update = tiny_update;
	double started;
	int steps = 0;
	update.first = true;
	for (int i = 0; i < WARM_STEPS; i++, update.first = false)
		TRY(step_train(machine, &bed->images, bed->samples, n, n, 0.1f, &update));
	TRY(machine->backend->sync(machine->state));
	started = clock_seconds();
	for (; clock_seconds() - started < MEASURE_SECONDS; steps += 4) {
		for (int i = 0; i < 4; i++)
			TRY(step_train(machine, &bed->images, bed->samples, n, n, 0.1f, &update));
		TRY(machine->backend->sync(machine->state));
	}
	*step_seconds = (clock_seconds() - started) / steps;
	started = clock_seconds();
	for (steps = 0; clock_seconds() - started < MEASURE_SECONDS / 2; steps += 16) {
		for (int i = 0; i < 16; i++)
			TRY(machine->backend->optimizer_step(machine->state, &update));
		TRY(machine->backend->sync(machine->state));
	}
	*update_seconds = (clock_seconds() - started) / steps;
	return ST_OK;
}

enum status speed_tell(struct tested *tested, enum stem stem, enum precision precision, int n, double seconds)
{
	struct bed bed = {0};
	struct machine machine = {0};
	enum status status = ST_OK;
	double step_seconds, update_seconds;
	if (seconds > 0 && seconds * IMAGES / n <= STEP_SECONDS_MAX)
		n = IMAGES;
	if (seconds > STEP_SECONDS_MAX || clock_seconds() > tested->until_seconds) {
		tested->place.shared->all[tested->place.rank].left_out++;
		return ST_OK;
	}
	TRY_DONE(bed_open(&bed, stem, (size_t)n, 6));
	TRY_DONE(bed_machine(&bed, tested, tested->cuda, precision, n, false, NULL, &machine));
	TRY_DONE(steps_measure(&bed, &machine, n, &step_seconds, &update_seconds));
	siblings_tell(&tested->place, "  speed, %s, %s stem, %d images a step: %.0f images/s, convolutions %.3g TFLOP/s, update %.3g GB/s\n", precision_name(precision),
		stem_name(stem), n, n / step_seconds, image_flop(&bed.network) * n / step_seconds / 1e12, update_bytes(&bed) / update_seconds / 1e9);
done:
	machine_close(&machine);
	bed_close(&bed);
	return status;
}

/* --- sums over GPUs ------------------------------------------------------------------------------------------------------ */

static enum status hold_back(struct backend_state *state, int unit)
{
	(void)state, (void)unit;
	return ST_OK;
}

static enum status hold_back_rest(struct backend_state *state)
{
	(void)state;
	return ST_OK;
}

static enum status gradients_sum(const struct machine *machine)
{
	for (int u = RESNET_UNITS; u >= 0; u--)
		TRY(machine->backend->reduce_start(machine->state, u));
	return machine->backend->reduce_finish(machine->state);
}

/* Own gradients, before any sum: as many of them as there is room for are told to the others. */
static enum status gradients_publish(struct tested *tested, const struct bed *bed, const struct machine *machine, float *gradients)
{
	struct backend alone = *machine->backend;
	struct machine unsummed = *machine;
	const size_t stride = bed->layout.weights_count / SIBLINGS_SAMPLES;
	alone.reduce_start = hold_back;
	alone.reduce_finish = hold_back_rest;
	unsummed.backend = &alone;
	TRY(step_forward(&unsummed, &bed->images, bed->samples, SUMS_IMAGES, SUMS_IMAGES * tested->place.shared->world, 0.1f, true, WHICH_WEIGHTS));
	TRY(step_backward(&unsummed));
	TRY(machine->backend->gradients_read(machine->state, gradients));
	for (size_t i = 0; i < SIBLINGS_SAMPLES; i++)
		tested->place.shared->all[tested->place.rank].samples[i] = gradients[i * stride];
	return siblings_meet(&tested->place);
}

static void sums_judge(struct tested *tested, const struct bed *bed, const float *gradients)
{
	const struct siblings *shared = tested->place.shared;
	const size_t stride = bed->layout.weights_count / SIBLINGS_SAMPLES;
	size_t wrong = 0;
	for (size_t i = 0; i < SIBLINGS_SAMPLES; i++) {
		double sum = 0, sizes = 0;
		for (int rank = 0; rank < shared->world; rank++) {
			sum += (double)shared->all[rank].samples[i];
			sizes += fabs((double)shared->all[rank].samples[i]);
		}
		wrong += !(fabs((double)gradients[i * stride] - sum) <= shared->world * 0x1p-23 * sizes);
	}
	struct sibling *own = &tested->place.shared->all[tested->place.rank];
	own->checks++;
	own->failures += wrong > 0;
	siblings_tell(&tested->place, "  sums over %d GPUs: %s%zu of %d gradients looked at are right\n", shared->world, wrong > 0 ? "WRONG, " : "",
		SIBLINGS_SAMPLES - wrong, SIBLINGS_SAMPLES);
}

static enum status sums_run(struct tested *tested, const struct bed *bed, const struct machine *machine, float *gradients)
{
	const int world = tested->place.shared->world;
	TRY(gradients_publish(tested, bed, machine, gradients));
	TRY(gradients_sum(machine));
	TRY(machine->backend->gradients_read(machine->state, gradients));
	sums_judge(tested, bed, gradients);
	TRY(siblings_meet(&tested->place));
	double started = clock_seconds();
	for (int i = 0; i < SUMS; i++)
		TRY(gradients_sum(machine));
	TRY(machine->backend->sync(machine->state));
	/* What nccl-tests call bus bandwidth: what each link carries. */
	double bytes = (double)bed->layout.weights_count * sizeof(float), seconds = (clock_seconds() - started) / SUMS;
	siblings_tell(&tested->place, "  speed, sums over %d GPUs: %.1f MB in %.2f ms, %.3g GB/s (%.3g GB/s of bus)\n", world, bytes / 1e6, seconds * 1e3,
		bytes / seconds / 1e9, bytes / seconds / 1e9 * 2 * (world - 1) / world);
	return siblings_meet(&tested->place);
}

enum status sums_check(struct tested *tested)
{
	struct bed bed = {0};
	struct machine machine = {0};
	const struct reduction reduction = siblings_reduction(&tested->place);
	enum status status = ST_OK;
	float *gradients = NULL;
	if (reduction.world == 1)
		return ST_OK;
	/* The cifar stem's weights are all alive, so all travel. Each GPU has other weights and images, hence other gradients. */
	TRY_DONE(bed_open(&bed, STEM_CIFAR, SUMS_IMAGES, 7 + (uint64_t)tested->place.rank));
	gradients = malloc(bed.layout.weights_count * sizeof *gradients);
	if (gradients == NULL)
		TRY_DONE(FAIL(ST_MEMORY, "no memory for %zu gradients", bed.layout.weights_count));
	TRY_DONE(bed_machine(&bed, tested, tested->cuda, PRECISION_FP32, SUMS_IMAGES, true, &reduction, &machine));
	TRY_DONE(sums_run(tested, &bed, &machine, gradients));
done:
	machine_close(&machine);
	free(gradients);
	bed_close(&bed);
	return status;
}
