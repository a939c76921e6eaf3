/* test_cpu_convolution.c: the cpu backend's convolutions, on every instruction set that this machine has.
 *
 * Method: each pass on every unit's shape of both stems and on odd ones, against double sums at chosen outputs, with a tolerance derived
 * from the sum's length; everything that a pass may not read is NaN, and so is its output before. */
#include "test/unit/cpu_bed.h"

/* --- convolutions --------------------------------------------------------------------------------------------------- */

/* Random values for the batch's images, NaN for what lies beside them in the last block. */
static void tensor_fill(const struct backend_state *state, int tensor, float *values, uint32_t seed)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	uint32_t word = seed;
	if (tensor != 0)
		fill(values, state->blocks_max * tensor_block_floats(shape), NAN);
	for (size_t n = 0; n < state->n; n++)
		for (size_t h = 0; h < (size_t)shape->H; h++)
			for (size_t w = 0; w < (size_t)shape->W; w++)
				for (size_t c = 0; c < (size_t)shape->C; c++)
					values[place(state, tensor, n, c, h, w)] = uniform(&word);
}

struct convolution_case {
	struct backend_state *state;
	const struct unit *unit;
	const float *x, *w, *dz;
};

static size_t weight_place(const struct unit *unit, size_t k, size_t c, size_t r, size_t s)
{
	size_t taps = (size_t)(unit->R * unit->S);
	return ((k / TILE_CHANNELS * taps + r * (size_t)unit->S + s) * (size_t)unit->C + c) * TILE_CHANNELS + k % TILE_CHANNELS;
}

/* The same in the gradients, which hold live taps only. */
static size_t gradient_place(const struct unit *unit, size_t k, size_t c, size_t r, size_t s)
{
	size_t before = 0, live = 0;
	for (size_t tap = 0; tap < (size_t)(unit->R * unit->S); tap++) {
		bool is_live = unit->x == 0 || unit_tap_uses(unit, (int)tap / unit->S, (int)tap % unit->S) > 0;
		before += is_live && tap < r * (size_t)unit->S + s;
		live += is_live;
	}
	return ((k / TILE_CHANNELS * live + before) * (size_t)unit->C + c) * TILE_CHANNELS + k % TILE_CHANNELS;
}

/* The input pixel that tap (r, s) of output (p, q) meets; false in the padding. */
static bool meets(const struct unit *unit, size_t p, size_t q, size_t r, size_t s, size_t *h, size_t *w)
{
	int row = (int)(p * (size_t)unit->stride + r) - unit->padding, column = (int)(q * (size_t)unit->stride + s) - unit->padding;
	*h = (size_t)row;
	*w = (size_t)column;
	return row >= 0 && row < unit->H && column >= 0 && column < unit->W;
}

static double forward_sum(const struct convolution_case *it, size_t n, size_t k, size_t p, size_t q)
{
	double sum = 0;
	size_t h, w;
	for (size_t r = 0; r < (size_t)it->unit->R; r++)
		for (size_t s = 0; s < (size_t)it->unit->S; s++)
			for (size_t c = 0; meets(it->unit, p, q, r, s, &h, &w) && c < (size_t)it->unit->C; c++)
				sum += (double)it->x[place(it->state, it->unit->x, n, c, h, w)] * (double)it->w[weight_place(it->unit, k, c, r, s)];
	return sum;
}

static double weight_gradient_sum(const struct convolution_case *it, size_t k, size_t c, size_t r, size_t s)
{
	double sum = 0;
	size_t h, w;
	for (size_t n = 0; n < it->state->n; n++)
		for (size_t p = 0; p < (size_t)it->unit->P; p++)
			for (size_t q = 0; q < (size_t)it->unit->Q; q++)
				if (meets(it->unit, p, q, r, s, &h, &w))
					sum += (double)it->x[place(it->state, it->unit->x, n, c, h, w)] * (double)it->dz[place(it->state, it->unit->y, n, k, p, q)];
	return sum;
}

static double input_gradient_sum(const struct convolution_case *it, size_t n, size_t c, size_t h, size_t w)
{
	double sum = 0;
	size_t row, column;
	for (size_t p = 0; p < (size_t)it->unit->P; p++)
		for (size_t q = 0; q < (size_t)it->unit->Q; q++)
			for (size_t r = 0; r < (size_t)it->unit->R; r++)
				for (size_t s = 0; s < (size_t)it->unit->S; s++)
					if (meets(it->unit, p, q, r, s, &row, &column) && row == h && column == w)
						for (size_t k = 0; k < (size_t)it->unit->K; k++)
							sum += (double)it->w[weight_place(it->unit, k, c, r, s)] * (double)it->dz[place(it->state, it->unit->y, n, k, p, q)];
	return sum;
}

/* Terms are at most 1. */
static void check_sum(float found, double wanted, double terms)
{
	double tolerance = (terms + 1) * EPSILON + EPSILON;
	assert_true(tolerance < 0.01);
	double used = fabs((double)found - wanted) / tolerance;
	if (!(used <= 1))
		fail_msg("found %.9g, wanted %.9g: %.2f times the tolerance", (double)found, wanted, used);
	used_max = used > used_max ? used : used_max;
}

static size_t below(struct random_stream *stream, int bound)
{
	return random_below(stream, (uint32_t)bound);
}

/* The three passes of one unit at `samples` random outputs each, the last of each axis among them. */
static void convolution_check(struct backend_state *state, int index, int samples)
{
	const struct unit *unit = &state->config.network->units[index];
	const struct params_layout *layout = state->config.layout;
	float *x = state->y[unit->x], *dz = state->z[index], *w = state->weights + layout->all[layout->unit[index].weight].offset;
	float *dw = state->gradients + state->gradient_at[layout->unit[index].weight], *z = state->dy[unit->y], *dx = state->dy[unit->x];
	size_t count = layout->all[layout->unit[index].weight].count, blocks = state->blocks;
	tensor_fill(state, unit->x, x, 2021);
	tensor_fill(state, unit->y, dz, 2022);
	struct random_stream stream = random_open(23, RANDOM_TEST, 0, 0);
	uint32_t word = 2023;
	for (size_t i = 0; i < count; i++)
		w[i] = uniform(&word);
	size_t gradients = state->gradient_at[layout->unit[index].gamma] - state->gradient_at[layout->unit[index].weight];
	float behind = dw[gradients] = 7;
	fill(dw, gradients, NAN);
	for (int r = 0; r < unit->R; r++) /* dead taps are read nowhere, and have no gradient */
		for (int s = 0; s < unit->S; s++)
			for (size_t k = 0; k < (size_t)unit->K; k++)
				for (size_t c = 0; c < (size_t)unit->C; c++) {
					if (unit_tap_uses(unit, r, s) == 0)
						w[weight_place(unit, k, c, (size_t)r, (size_t)s)] = NAN;
				}
	struct convolution_case it = {state, unit, x, w, dz};

	fill(z, state->blocks_max * tensor_block_floats(&state->config.network->tensors[unit->y]), NAN);
	for (size_t kt = 0; kt < (size_t)unit->K / TILE_CHANNELS; kt++)
		for (size_t row = 0; row < blocks * (size_t)unit->P; row++)
			convolution_row(state, unit, w, kt, row / (size_t)unit->P, row % (size_t)unit->P, z);
	convolution_weight_gradient(state, unit, dz, dw);
	if (unit->x != 0) {
		fill(dx, state->blocks_max * tensor_block_floats(&state->config.network->tensors[unit->x]), NAN);
		convolution_input_gradient(state, unit, w, dz, false);
	}
	for (int i = 0; i < samples; i++) {
		bool last = i == 0;
		size_t n = last ? state->n - 1 : random_below(&stream, (uint32_t)state->n), k = last ? (size_t)unit->K - 1 : below(&stream, unit->K);
		size_t c = last ? (size_t)unit->C - 1 : below(&stream, unit->C), p = last ? (size_t)unit->P - 1 : below(&stream, unit->P);
		size_t q = last ? (size_t)unit->Q - 1 : below(&stream, unit->Q), h = last ? (size_t)unit->H - 1 : below(&stream, unit->H);
		size_t u = last ? (size_t)unit->W - 1 : below(&stream, unit->W), r = below(&stream, unit->R), s = below(&stream, unit->S);
		check_sum(z[place(state, unit->y, n, k, p, q)], forward_sum(&it, n, k, p, q), (double)(unit->C * unit->R * unit->S));
		if (unit_tap_uses(unit, (int)r, (int)s) > 0)
			check_sum(dw[gradient_place(unit, k, c, r, s)], weight_gradient_sum(&it, k, c, r, s), (double)(state->n * (size_t)(unit->P * unit->Q)));
		if (unit->x != 0) {
			float *to = &dx[place(state, unit->x, n, c, h, u)];
			check_sum(*to, input_gradient_sum(&it, n, c, h, u), (double)(unit->K * unit->R * unit->S));
		}
	}
	/* Nothing was left out: every output of the batch's images is a number. */
	for (size_t i = 0; i < gradients; i++)
		assert_false(isnan(dw[i]));
	assert_true(dw[gradients] == behind);
	for (size_t n = 0; n < state->n; n++) {
		for (size_t i = 0; i < (size_t)(unit->K * unit->P * unit->Q); i++)
			assert_false(isnan(z[place(state, unit->y, n, i % (size_t)unit->K, i / (size_t)(unit->K * unit->Q), i / (size_t)unit->K % (size_t)unit->Q)]));
		for (size_t i = 0; unit->x != 0 && i < (size_t)(unit->C * unit->H * unit->W); i++)
			assert_false(isnan(dx[place(state, unit->x, n, i % (size_t)unit->C, i / (size_t)(unit->C * unit->W), i / (size_t)unit->C % (size_t)unit->W)]));
	}
	/* Added to, when asked: exactly twice. */
	if (unit->x != 0) {
		size_t at = place(state, unit->x, state->n - 1, 0, 0, 0);
		float once = dx[at];
		dx[at] = 2;
		convolution_input_gradient(state, unit, w, dz, true);
		check_sum(dx[at], 2 + (double)once, 8.0 * unit->K * unit->R * unit->S + 8); /* partial sums are larger than 1 here */
	}
}

static bool shape_seen(const struct network *network, int index)
{
	const struct unit *unit = &network->units[index];
	for (int u = 0; u < index; u++) {
		const struct unit *other = &network->units[u];
		if (unit->C == other->C && unit->K == other->K && unit->H == other->H && unit->W == other->W && unit->R == other->R && unit->S == other->S
			&& unit->stride == other->stride && unit->padding == other->padding && (unit->x == 0) == (other->x == 0))
			return true;
	}
	return false;
}

static void convolutions_check(const struct bed *bed, const char *cpu, int n, int samples)
{
	struct runner runner;
	runner_open(&runner, bed, &backend_cpu, cpu, n, false);
	assert_int_equal(backend_cpu.batch_begin(runner.machine.state, n, n, false, WHICH_WEIGHTS), ST_OK);
	for (int u = 0; u < RESNET_UNITS; u++)
		if (!shape_seen(&bed->network, u))
			convolution_check(runner.machine.state, u, samples);
	runner_close(&runner);
}

static void test_convolutions_of_resnet(void **state)
{
	for (int stem = 0; stem < 2; stem++) {
		struct bed bed;
		bed_open(&bed, (enum stem)stem, SLOW && stem == STEM_CIFAR ? 16 : 32, 0);
		convolutions_check(&bed, cpu_of(state), SLOW || stem == STEM_CIFAR ? 5 : 37, SLOW ? 3 : 20);
		bed_close(&bed);
	}
	used_print("convolutions of both stems");
}

static void test_convolutions_of_odd_shapes(void **state)
{
	struct bed bed;
	bed_open(&bed, STEM_CIFAR, 9, 0);
	odd_network(&bed.network);
	params_layout_build(&bed.layout, &bed.network);
	static const int batches[] = {1, 2, 31, 32, 33, 40};
	for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++)
		convolutions_check(&bed, cpu_of(state), batches[i], SLOW ? 20 : 300);
	bed_close(&bed);
	used_print("convolutions of odd shapes");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_convolutions_of_resnet), cmocka_unit_test(test_convolutions_of_odd_shapes)};
	return run_for_each_cpu(tests, sizeof tests / sizeof tests[0]);
}
