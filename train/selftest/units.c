/* units.c: see units.h. */
#include "train/selftest/units.h"

#include "core/base/clock.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TELLS_MAX = 8 }; /* of what failed in one network and precision */

/* The two side by side. */
struct pair {
	struct tested *tested;
	struct bed bed;
	struct machine cpu, gpu;
	enum precision precision;
	int n;
	double storage;     /* share by which storing an activation may round it, both ways */
	float *left, *right; /* as large as the largest tensor, or as all weights */
	double seconds, worst;
	int checks, failures;
};

/* --- comparing ----------------------------------------------------------------------------------------------------------- */

/* Rounding errors of M terms add up like a random walk: √M·ε of the result's length, on either side, with room for the norm's sums. */
static double unit_tolerance(const struct unit *unit)
{
	return 32 * (sqrt((double)(unit->C * unit->R * unit->S)) + 8) * 0x1p-24;
}

static double backward_tolerance(const struct unit *unit, int n)
{
	return unit_tolerance(unit) + 32 * sqrt((double)n * unit->P * unit->Q) * 0x1p-24;
}

static double head_tolerance(const struct network *network)
{
	return 32 * sqrt(network->head.C) * 0x1p-24;
}

/* The distance of the GPU's values from the CPU's, as a share of the latter's length, and what it may be. */
static void judge(struct pair *pair, const float *found, const float *wanted, size_t count, double tolerance, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
static void judge(struct pair *pair, const float *found, const float *wanted, size_t count, double tolerance, const char *format, ...)
{
	double distance = 0, length = 0;
	for (size_t i = 0; i < count; i++) {
		distance += ((double)found[i] - (double)wanted[i]) * ((double)found[i] - (double)wanted[i]);
		length += (double)wanted[i] * (double)wanted[i];
	}
	/* x, w, z and y are each rounded on their way. */
	double share = length > 0 ? sqrt(distance / length) : distance, allowed = tolerance + 8 * pair->storage;
	pair->checks++;
	if (share <= allowed) {
		pair->worst = share / allowed > pair->worst ? share / allowed : pair->worst;
		return;
	}
	char what[128];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(what, sizeof what, format, arguments);
	va_end(arguments);
	if (pair->failures++ < TELLS_MAX)
		siblings_tell(&pair->tested->place, "  WRONG %s, %s stem, %d images: %s is off by %.2g of its length, allowed %.2g\n", precision_name(pair->precision),
			stem_name(pair->bed.network.stem), pair->n, what, share, allowed);
}

static size_t tensor_floats(const struct pair *pair, int tensor)
{
	const struct tensor_shape *shape = &pair->bed.network.tensors[tensor];
	return (size_t)pair->n * (size_t)shape->C * (size_t)shape->H * (size_t)shape->W;
}

static enum status tensor_judge(struct pair *pair, int tensor, bool gradient, double tolerance, const char *name, const char *what)
{
	TRY(pair->gpu.backend->tensor_read(pair->gpu.state, tensor, gradient, pair->left));
	TRY(pair->cpu.backend->tensor_read(pair->cpu.state, tensor, gradient, pair->right));
	judge(pair, pair->left, pair->right, tensor_floats(pair, tensor), tolerance, "%s, %s", name, what);
	return ST_OK;
}

static enum status tensor_hand_over(struct pair *pair, int tensor, bool gradient)
{
	TRY(pair->cpu.backend->tensor_read(pair->cpu.state, tensor, gradient, pair->right));
	return pair->gpu.backend->tensor_write(pair->gpu.state, tensor, gradient, pair->right);
}

/* A call of the GPU's backend, with its time. */
#define TIMED(pair, call) \
	do { \
		double started = clock_seconds(); \
		TRY(call); \
		TRY((pair)->gpu.backend->sync((pair)->gpu.state)); \
		(pair)->seconds += clock_seconds() - started; \
	} while (0)

/* --- there and back -------------------------------------------------------------------------------------------------------- */

static enum status head_judge(struct pair *pair)
{
	const struct head *head = &pair->bed.network.head;
	struct counters found, wanted;
	TRY(tensor_hand_over(pair, head->x, false));
	TIMED(pair, pair->gpu.backend->head_forward(pair->gpu.state));
	TRY(pair->gpu.backend->logits_read(pair->gpu.state, pair->left));
	TRY(pair->cpu.backend->logits_read(pair->cpu.state, pair->right));
	judge(pair, pair->left, pair->right, (size_t)pair->n * (size_t)head->classes, head_tolerance(&pair->bed.network), "logits");
	TRY(pair->gpu.backend->counters_read(pair->gpu.state, &found));
	TRY(pair->cpu.backend->counters_read(pair->cpu.state, &wanted));
	const float left[] = {(float)found.loss, (float)found.images}, right[] = {(float)wanted.loss, (float)wanted.images};
	judge(pair, left, right, 2, 64 * 0x1p-24, "loss");
	return ST_OK;
}

static enum status forward(struct pair *pair)
{
	const struct network *network = &pair->bed.network;
	const struct backend *gpu = pair->gpu.backend;
	TRY(step_forward(&pair->cpu, &pair->bed.images, pair->bed.samples, pair->n, pair->n, 0.1f, true, WHICH_WEIGHTS));
	TRY(gpu->batch_begin(pair->gpu.state, pair->n, pair->n, true, WHICH_WEIGHTS));
	TIMED(pair, gpu->batch_gather(pair->gpu.state, &pair->bed.images, pair->bed.samples, 0.1f));
	TRY(tensor_judge(pair, 0, false, 4 * 0x1p-24, "augmented images", "gathered"));
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network->units[u];
		if (unit->x != 0)
			TRY(tensor_hand_over(pair, unit->x, false));
		if (unit->shortcut >= 0)
			TRY(tensor_hand_over(pair, unit->shortcut, false));
		TIMED(pair, gpu->unit_forward(pair->gpu.state, u));
		TRY(tensor_judge(pair, unit->y, false, unit_tolerance(unit), unit->convolution, "output"));
	}
	if (network->pool.present) {
		TRY(tensor_hand_over(pair, network->pool.x, false));
		TIMED(pair, gpu->pool_forward(pair->gpu.state));
		TRY(tensor_judge(pair, network->pool.y, false, 4 * 0x1p-24, "pool", "output"));
	}
	return head_judge(pair);
}

/* Unit u from the CPU's activations and gradients, so that both agree which ReLUs are open. */
static enum status unit_backward(struct pair *pair, int u, bool *reached)
{
	const struct unit *unit = &pair->bed.network.units[u];
	const bool accumulate_shortcut = unit->shortcut >= 0 && reached[unit->shortcut], accumulate = reached[unit->x] || unit->shortcut == unit->x;
	TRY(tensor_hand_over(pair, unit->y, false));
	TRY(tensor_hand_over(pair, unit->y, true));
	if (reached[unit->x])
		TRY(tensor_hand_over(pair, unit->x, true));
	if (accumulate_shortcut)
		TRY(tensor_hand_over(pair, unit->shortcut, true));
	TRY(pair->cpu.backend->unit_backward(pair->cpu.state, u, accumulate, accumulate_shortcut));
	TIMED(pair, pair->gpu.backend->unit_backward(pair->gpu.state, u, accumulate, accumulate_shortcut));
	reached[unit->x] = true;
	if (unit->shortcut >= 0)
		reached[unit->shortcut] = true;
	if (unit->x != 0)
		TRY(tensor_judge(pair, unit->x, true, backward_tolerance(unit, pair->n), unit->convolution, "gradient of its input"));
	if (unit->shortcut >= 0 && unit->shortcut != unit->x)
		TRY(tensor_judge(pair, unit->shortcut, true, 8 * 0x1p-24, unit->convolution, "gradient of its shortcut"));
	return ST_OK;
}

static enum status gradients_judge(struct pair *pair)
{
	TRY(pair->gpu.backend->gradients_read(pair->gpu.state, pair->left));
	TRY(pair->cpu.backend->gradients_read(pair->cpu.state, pair->right));
	for (int i = 0; i < pair->bed.layout.count; i++) {
		const struct param *param = &pair->bed.layout.all[i];
		if (param->kind == PARAM_RUNNING_MEAN || param->kind == PARAM_RUNNING_VAR)
			continue;
		double tolerance = param->unit < 0 ? head_tolerance(&pair->bed.network) : backward_tolerance(&pair->bed.network.units[param->unit], pair->n);
		judge(pair, pair->left + param->offset, pair->right + param->offset, param->count, tolerance, "gradient of %s", param->name);
	}
	return ST_OK;
}

/* The pool's gradient by its definition from what the GPU holds: rounded activations tie where the CPU's do not, and the first of a tie gets all. */
static enum status pool_judge(struct pair *pair)
{
	const struct stem_pool *pool = &pair->bed.network.pool;
	const struct backend *gpu = pair->gpu.backend;
	const size_t pixels = tensor_floats(pair, pool->x);
	float *x = malloc(pixels * sizeof *x);
	enum status status = x != NULL ? ST_OK : FAIL(ST_MEMORY, "no memory for %zu values of a self-test", pixels);
	if (status == ST_OK)
		status = gpu->tensor_read(pair->gpu.state, pool->x, false, x);
	if (status == ST_OK)
		status = gpu->tensor_read(pair->gpu.state, pool->y, true, pair->left);
	memset(pair->right, 0, pixels * sizeof *pair->right);
	for (int plane = 0, at = 0; status == ST_OK && plane < pair->n * pool->C; plane++)
		for (int p = 0; p < pool->P; p++)
			for (int q = 0; q < pool->Q; q++, at++) {
				int best = -1;
				for (int h = 2 * p - 1; h <= 2 * p + 1; h++)
					for (int w = 2 * q - 1; w <= 2 * q + 1; w++) {
						int here = (plane * pool->H + h) * pool->W + w;
						if (h >= 0 && h < pool->H && w >= 0 && w < pool->W && (best < 0 || x[here] > x[best]))
							best = here;
					}
				pair->right[best] += pair->left[at];
			}
	if (status == ST_OK)
		status = gpu->tensor_read(pair->gpu.state, pool->x, true, pair->left);
	if (status == ST_OK)
		judge(pair, pair->left, pair->right, pixels, 8 * 0x1p-24, "pool, gradient of its input");
	free(x);
	return status;
}

static enum status backward(struct pair *pair)
{
	const struct network *network = &pair->bed.network;
	bool reached[RESNET_TENSORS] = {false};
	TRY(pair->cpu.backend->head_backward(pair->cpu.state));
	TIMED(pair, pair->gpu.backend->head_backward(pair->gpu.state));
	TRY(tensor_judge(pair, network->head.x, true, head_tolerance(network), "head", "gradient of its input"));
	reached[network->head.x] = true;
	for (int u = RESNET_UNITS - 1; u >= 0; u--) {
		if (u == 0 && network->pool.present) {
			TRY(tensor_hand_over(pair, network->pool.y, true));
			TRY(pair->cpu.backend->pool_backward(pair->cpu.state, false));
			TIMED(pair, pair->gpu.backend->pool_backward(pair->gpu.state, false));
			TRY(pool_judge(pair));
		}
		TRY(unit_backward(pair, u, reached));
	}
	return gradients_judge(pair);
}

static enum status pair_open(struct pair *pair, enum stem stem)
{
	TRY(bed_open(&pair->bed, stem, (size_t)pair->n, 5));
	size_t largest = pair->bed.layout.weights_count;
	for (int t = 0; t < pair->bed.network.tensors_count; t++)
		largest = tensor_floats(pair, t) > largest ? tensor_floats(pair, t) : largest;
	pair->left = malloc(largest * sizeof(float));
	pair->right = malloc(largest * sizeof(float));
	if (pair->left == NULL || pair->right == NULL)
		return FAIL(ST_MEMORY, "no memory for %zu values of a self-test", largest);
	TRY(bed_machine(&pair->bed, pair->tested, &backend_cpu, PRECISION_AUTO, pair->n, true, NULL, &pair->cpu));
	return bed_machine(&pair->bed, pair->tested, pair->tested->cuda, pair->precision, pair->n, true, NULL, &pair->gpu);
}

enum status units_check(struct tested *tested, enum stem stem, int n, enum precision precision, double *seconds)
{
	static const double storages[] = {[PRECISION_FP32] = 0, [PRECISION_TF32] = 0x1p-11, [PRECISION_BF16] = 0x1p-8, [PRECISION_FP16] = 0x1p-11};
	struct pair pair = {.tested = tested, .precision = precision, .n = n, .storage = storages[precision]};
	struct sibling *own = &tested->place.shared->all[tested->place.rank];
	enum status status = ST_OK;
	TRY_DONE(pair_open(&pair, stem));
	TRY_DONE(forward(&pair));
	TRY_DONE(backward(&pair));
	own->checks += pair.checks;
	own->failures += pair.failures;
	siblings_tell(&tested->place, "  %s, %s stem, %d images: %d of %d values agree with the CPU's, worst %.2f of the tolerance\n", precision_name(precision),
		stem_name(stem), n, pair.checks - pair.failures, pair.checks, pair.worst);
	*seconds = pair.seconds;
done:
	machine_close(&pair.gpu);
	machine_close(&pair.cpu);
	free(pair.left);
	free(pair.right);
	bed_close(&pair.bed);
	return status;
}
