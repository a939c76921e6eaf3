/* backend_units.h: a backend against ref, unit by unit. */
#pragma once

#include "test/unit/backend_bed.h"

/* A backend as these tests drive it. */
struct inside {
	const struct backend *backend;
	const char *cpu; /* for runner_open */
	/* Puts (n, C, H, W) values into a tensor; values NULL: NaN, so that what is not written shows. */
	void (*put)(struct backend_state *state, int tensor, bool gradient, const float *values);
	double storage;  /* relative rounding error of a stored activation beyond fp32's; 0 for fp32 */
};

static inline void tensor_hand_over(const struct inside *inside, const struct runner *from, struct runner *to, const struct bed *bed, int tensor, bool gradient, int n)
{
	float *values = tensor_copy(from, bed, tensor, gradient, n);
	inside->put(to->machine.state, tensor, gradient, values);
	free(values);
}

static inline void tensor_check(const struct runner *found, const struct runner *wanted, const struct bed *bed, int tensor, bool gradient, int n,
	double tolerance, const char *what)
{
	float *left = tensor_copy(found, bed, tensor, gradient, n), *right = tensor_copy(wanted, bed, tensor, gradient, n);
	check_near(left, right, tensor_floats(bed, tensor, n), tolerance, "%s of tensor %d", what, tensor);
	free(left);
	free(right);
}

/* Rounding errors of M terms add up like a random walk: √M·ε of the result's length, with room for the norm's own sums. A norm over few
 * values that lie close together magnifies what came before by mean/deviation; these batches keep that under the factor. */
static inline double unit_tolerance(const struct unit *unit)
{
	return 16 * (sqrt((double)(unit->C * unit->R * unit->S)) + 8) * EPSILON;
}

/* dz rests on z − mean and on sums over the batch; dw and dx on dz. */
static inline double backward_tolerance(const struct unit *unit, int n)
{
	return unit_tolerance(unit) + 16 * sqrt((double)n * unit->P * unit->Q) * EPSILON;
}

static inline double head_tolerance(const struct network *network)
{
	return 16 * sqrt(network->head.C) * EPSILON;
}

/* Of all parameters at once, after all pieces went backwards: reading them takes longer than a unit. `more` is added to each tolerance. */
static inline void gradients_check(const struct runner *found, const struct runner *wanted, const struct bed *bed, int n, double more)
{
	float *left = zeros(bed->layout.weights_count, sizeof(float)), *right = zeros(bed->layout.weights_count, sizeof(float));
	assert_int_equal(found->machine.backend->gradients_read(found->machine.state, left), ST_OK);
	assert_int_equal(wanted->machine.backend->gradients_read(wanted->machine.state, right), ST_OK);
	for (int i = 0; i < bed->layout.count; i++) {
		const struct param *param = &bed->layout.all[i];
		if (param_is_buffer(param))
			continue;
		double tolerance = param->unit < 0 ? head_tolerance(&bed->network) : backward_tolerance(&bed->network.units[param->unit], n);
		check_near(left + param->offset, right + param->offset, param->count, tolerance + more, "gradient of %s", param->name);
	}
	free(left);
	free(right);
}

/* The pool's gradient by its definition from the activations that the backend holds: rounded ones tie where ref's do not, and the first of a tie
 * gets all. */
static inline void pool_gradient_check(const struct runner *it, const struct bed *bed, int n, double tolerance)
{
	const struct stem_pool *pool = &bed->network.pool;
	float *x = tensor_copy(it, bed, pool->x, false, n), *dy = tensor_copy(it, bed, pool->y, true, n), *dx = tensor_copy(it, bed, pool->x, true, n);
	float *wanted = zeros(tensor_floats(bed, pool->x, n), sizeof *wanted);
	for (int plane = 0, at = 0; plane < n * pool->C; plane++)
		for (int p = 0; p < pool->P; p++)
			for (int q = 0; q < pool->Q; q++, at++) {
				int best = -1;
				for (int h = 2 * p - 1; h <= 2 * p + 1; h++)
					for (int w = 2 * q - 1; w <= 2 * q + 1; w++) {
						int here = (plane * pool->H + h) * pool->W + w;
						if (h >= 0 && h < pool->H && w >= 0 && w < pool->W && (best < 0 || x[here] > x[best]))
							best = here;
					}
				wanted[best] += dy[at];
			}
	check_near(dx, wanted, tensor_floats(bed, pool->x, n), tolerance, "pool's gradient");
	free(x);
	free(dy);
	free(dx);
	free(wanted);
}

/* Every unit, the pool and the head of a network, forwards and backwards, fed with ref's own activations and gradients, so that each is judged
 * alone. */
static inline void units_check(const struct inside *inside, const struct bed *bed, int n)
{
	const struct backend *backend = inside->backend;
	/* x, w, z and y are each rounded on their way. */
	const double few = 6 * inside->storage;
	struct runner ref, it;
	struct training_state start;
	state_alloc(&start, &bed->layout, false);
	state_random(&start, bed);
	runner_open(&ref, bed, &backend_ref, inside->cpu, n, false);
	runner_open(&it, bed, backend, inside->cpu, n, false);
	assert_int_equal(backend_ref.state_write(ref.machine.state, &start), ST_OK);
	assert_int_equal(backend->state_write(it.machine.state, &start), ST_OK);
	assert_int_equal(step_forward(&ref.machine, &bed->images, bed->samples, n, n, 0.1f, true, WHICH_WEIGHTS), ST_OK);
	assert_int_equal(backend->batch_begin(it.machine.state, n, n, true, WHICH_WEIGHTS), ST_OK);
	assert_int_equal(backend->batch_gather(it.machine.state, &bed->images, bed->samples, 0.1f), ST_OK);
	tensor_check(&it, &ref, bed, 0, false, n, EPSILON + few, "gathered image");

	const struct network *network = &bed->network;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network->units[u];
		if (unit->x != 0)
			tensor_hand_over(inside, &ref, &it, bed, unit->x, false, n);
		if (unit->shortcut >= 0)
			tensor_hand_over(inside, &ref, &it, bed, unit->shortcut, false, n);
		inside->put(it.machine.state, unit->y, false, NULL);
		assert_int_equal(backend->unit_forward(it.machine.state, u), ST_OK);
		tensor_check(&it, &ref, bed, unit->y, false, n, unit_tolerance(unit) + few, "output");
	}
	if (network->pool.present) {
		tensor_hand_over(inside, &ref, &it, bed, network->pool.x, false, n);
		assert_int_equal(backend->pool_forward(it.machine.state), ST_OK);
		tensor_check(&it, &ref, bed, network->pool.y, false, n, EPSILON + few, "pooled");
	}
	tensor_hand_over(inside, &ref, &it, bed, network->head.x, false, n);
	assert_int_equal(backend->head_forward(it.machine.state), ST_OK);
	float left[IMAGES * CLASSES], right[IMAGES * CLASSES];
	assert_int_equal(backend->logits_read(it.machine.state, left), ST_OK);
	assert_int_equal(backend_ref.logits_read(ref.machine.state, right), ST_OK);
	check_near(left, right, (size_t)(n * CLASSES), head_tolerance(network) + few, "logits");
	struct counters found, wanted;
	assert_int_equal(backend->counters_read(it.machine.state, &found), ST_OK);
	assert_int_equal(backend_ref.counters_read(ref.machine.state, &wanted), ST_OK);
	assert_true(fabs(found.loss - wanted.loss) <= (16 * EPSILON + few) * wanted.loss);
	assert_true(found.images == wanted.images && found.top1 == wanted.top1 && found.top5 == wanted.top5);

	/* Backwards, each piece from ref's gradients and ref's activations, so that both agree which ReLUs are open. */
	assert_int_equal(backend_ref.head_backward(ref.machine.state), ST_OK);
	assert_int_equal(backend->head_backward(it.machine.state), ST_OK);
	tensor_check(&it, &ref, bed, network->head.x, true, n, head_tolerance(network) + few, "gradient");
	bool reached[RESNET_TENSORS] = {false};
	reached[network->head.x] = true;
	for (int u = RESNET_UNITS - 1; u >= 0; u--) {
		const struct unit *unit = &network->units[u];
		if (u == 0 && network->pool.present) {
			tensor_hand_over(inside, &ref, &it, bed, network->pool.y, true, n);
			inside->put(it.machine.state, network->pool.x, true, NULL);
			assert_int_equal(backend_ref.pool_backward(ref.machine.state, false), ST_OK);
			assert_int_equal(backend->pool_backward(it.machine.state, false), ST_OK);
			pool_gradient_check(&it, bed, n, 4 * EPSILON + few);
		}
		bool accumulate_shortcut = unit->shortcut >= 0 && reached[unit->shortcut];
		tensor_hand_over(inside, &ref, &it, bed, unit->y, false, n);
		tensor_hand_over(inside, &ref, &it, bed, unit->y, true, n);
		if (reached[unit->x])
			tensor_hand_over(inside, &ref, &it, bed, unit->x, true, n);
		if (accumulate_shortcut)
			tensor_hand_over(inside, &ref, &it, bed, unit->shortcut, true, n);
		bool accumulate = reached[unit->x] || unit->shortcut == unit->x;
		assert_int_equal(backend_ref.unit_backward(ref.machine.state, u, accumulate, accumulate_shortcut), ST_OK);
		assert_int_equal(backend->unit_backward(it.machine.state, u, accumulate, accumulate_shortcut), ST_OK);
		if (unit->shortcut >= 0)
			reached[unit->shortcut] = true;
		reached[unit->x] = true;
		if (unit->x != 0)
			tensor_check(&it, &ref, bed, unit->x, true, n, backward_tolerance(unit, n) + few, "gradient");
		if (unit->shortcut >= 0)
			tensor_check(&it, &ref, bed, unit->shortcut, true, n, 4 * EPSILON + few, "shortcut's gradient");
	}
	gradients_check(&it, &ref, bed, n, few);
	runner_close(&ref);
	runner_close(&it);
	state_free(&start);
}
