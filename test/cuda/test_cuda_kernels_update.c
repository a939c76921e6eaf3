/* test_cuda_kernels_update.c: the kernels of the optimizer, as host code.
 *
 * Goal: the update is backend.h's, its rounded copy and its moving average too; gradients that are not finite change nothing but the loss scale;
 * dead taps get the bits that live ones with gradient 0 would. Method: the formulas in double, one step from random values; hand-made courses of
 * the loss scale; live and dead runs of many steps side by side. */
#include "test/cuda/kernel_bed.h"

/* --- sums of squares ----------------------------------------------------------------------------------------------------------- */

static double norm_squared_of(const float *gradients, size_t count)
{
	double partials[SQUARES_BLOCKS], sum = 0;
	RUN(squares, squares, .gradients = gradients, .count = (int64_t)count, .partials = partials);
	for (int i = 0; i < SQUARES_BLOCKS; i++)
		sum += partials[i];
	digest_add(partials, sizeof partials);
	return sum;
}

static void squares(void)
{
	static const size_t counts[] = {0, 1, 3, 4, 5, 1023, 65536, 262147};
	for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
		size_t count = counts[k];
		draws_from((uint32_t)k);
		float *gradients = floats_draw(count, 0, 3);
		double sum = 0;
		for (size_t i = 0; i < count; i++)
			sum += (double)gradients[i] * (double)gradients[i];
		assert_true(fabs(norm_squared_of(gradients, count) - sum) <= 1e-12 * sum);
		for (size_t at = 0; at < count; at += count / 3 + 1) { /* wherever it is */
			float kept = gradients[at];
			gradients[at] = 1e30f; /* its square is no float */
			assert_true(fabs(norm_squared_of(gradients, count) / 1e60 - 1) < 1e-6);
			gradients[at] = -INFINITY;
			assert_true(isinf(norm_squared_of(gradients, count)));
			gradients[at] = NAN;
			assert_true(isnan(norm_squared_of(gradients, count)));
			gradients[at] = kept;
		}
		if (count > 0) {
			gradients[count - 1] = NAN;
			assert_true(isnan(norm_squared_of(gradients, count)));
		}
		arrays_free();
	}
}

/* --- whether to update, and how --------------------------------------------------------------------------------------------------- */

/* norm: of the gradients without loss scale. */
static double prepare(struct update_control *control, double norm, bool dynamic, int growth_steps, double clip_norm)
{
	double partials[SQUARES_BLOCKS], norm_squared = -1;
	for (int i = 0; i < SQUARES_BLOCKS; i++)
		partials[i] = pow(norm * (double)control->loss_scale, 2) / SQUARES_BLOCKS;
	RUN(update_prepare, update_prepare, .partials = partials, .dynamic = dynamic, .growth_steps = growth_steps, .clip_norm = clip_norm,
		.norm_squared = &norm_squared, .control = control);
	return norm_squared;
}

static void clipping(void)
{
	static const struct {
		double norm, clip, scale;
	} cases[] = {{3, 0, 1}, {3, 5, 1}, {10, 5, 0.5}, {0, 5, 1}, {1e6, 1e-3, 1e-9}};
	for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
		struct update_control control = {.loss_scale = 512, .step_scale = NAN, .skip = 7, .clean_steps = 3, .skipped_steps = 2};
		double norm_squared = prepare(&control, cases[k].norm, false, 1, cases[k].clip);
		assert_true(fabs(norm_squared - cases[k].norm * cases[k].norm) <= 1e-9 * norm_squared);
		assert_true(fabs((double)control.step_scale * 512 / cases[k].scale - 1) < 2e-6);
		assert_true(control.skip == 0 && control.loss_scale == 512 && control.clean_steps == 3 && control.skipped_steps == 2);
	}
	/* Without a loss scale nothing is skipped: what is not finite shows in the weights. */
	struct update_control control = {.loss_scale = 1};
	assert_true(isnan(prepare(&control, (double)NAN, false, 1, 0)) && control.skip == 0 && control.loss_scale == 1);
	/* norm² need not be asked for. */
	double partials[SQUARES_BLOCKS] = {0};
	RUN(update_prepare, update_prepare, .partials = partials, .control = &control);
	assert_true(control.step_scale == 1);
}

static void loss_scale(void)
{
	enum { GROWTH = 3 };
	/* The norm that comes; then the scale in force afterwards, whether this step is skipped, clean steps, skipped ones so far. */
	const double inf = (double)INFINITY, nan = (double)NAN;
	const struct {
		double norm;
		float scale;
		unsigned skip, clean, skipped;
	} course[] = {
		{1, 4, 0, 1, 0}, {1, 4, 0, 2, 0}, {1, 8, 0, 0, 0}, {1, 8, 0, 1, 0}, {inf, 4, 1, 0, 1}, {nan, 2, 1, 0, 2}, {inf, 1, 1, 0, 3}, {inf, 1, 1, 0, 4},
		{1, 1, 0, 1, 4}, {1, 1, 0, 2, 4}, {inf, 1, 1, 0, 5}, {1, 1, 0, 1, 5}, {1, 1, 0, 2, 5}, {1, 2, 0, 0, 5},
	};
	struct update_control control = {.loss_scale = 4};
	for (size_t k = 0; k < sizeof course / sizeof course[0]; k++) {
		float before = control.loss_scale;
		prepare(&control, course[k].norm, true, GROWTH, 0);
		assert_true(control.loss_scale == course[k].scale && control.skip == course[k].skip);
		assert_int_equal(control.clean_steps, course[k].clean);
		assert_int_equal(control.skipped_steps, course[k].skipped);
		/* This step's gradients were made with the scale from before. */
		assert_true(control.skip || control.step_scale == 1 / before);
	}
	control = (struct update_control){.loss_scale = 0x1p24f, .clean_steps = GROWTH - 1};
	prepare(&control, 1, true, GROWTH, 0);
	assert_true(control.loss_scale == 0x1p24f && control.clean_steps == 0);
	/* What is noted for dead taps. */
	for (uint32_t skip = 0; skip < 2; skip++) {
		uint32_t noted[3] = {7, 7, 7};
		control.skip = skip;
		RUN(skip_note, skip_note, .control = &control, .skipped = noted, .index = 1);
		assert_true(noted[0] == 7 && noted[1] == skip && noted[2] == 7);
	}
}

/* --- live values ------------------------------------------------------------------------------------------------------------------ */

static const uint32_t range_counts[] = {1, 3, 4, 13, 4095, 4096, 1000, 1026};
enum { RANGES = sizeof range_counts / sizeof range_counts[0], GAP = 8 };

/* Ranges of all kinds with gaps between them; how many values the arena has. */
static size_t ranges_lay_out(struct update_range *ranges)
{
	size_t at = GAP;
	for (uint32_t i = 0; i < RANGES; i++) {
		ranges[i] = (struct update_range){.offset = at, .count = range_counts[i], .kind = i % UPDATE_KINDS};
		at = (at + range_counts[i] + GAP - 1) / GAP * GAP + GAP;
	}
	return at;
}

/* lr, momentum, decay, share of EMA: different for each kind. */
static void kinds_make(struct device_sgd *kinds, bool nesterov, bool first)
{
	memset(kinds, 0, UPDATE_KINDS * sizeof *kinds);
	for (int i = 0; i < UPDATE_KINDS; i++)
		kinds[i] = (struct device_sgd){.lr = 0.1f + 0.3f * (float)i, .momentum = 0.9f - 0.1f * (float)i, .decay = i == 1 ? 0 : 0.05f, .ema_share = 0.125f,
			.nesterov = nesterov, .first = first};
}

static void live_check(const struct device_sgd *sgd, double g, const float before[3], const float after[3], double half, enum element element)
{
	double w = (double)before[0], v = (double)before[1], ema = (double)before[2];
	double d = g + (double)sgd->decay * w, magnitude = fabs(g) + fabs((double)sgd->decay * w);
	v = sgd->first ? d : (double)sgd->momentum * v + d;
	magnitude += sgd->first ? 0 : fabs((double)before[1]);
	check_float(after[1], v, magnitude, 6);
	double step = (double)sgd->lr * (sgd->nesterov ? d + (double)sgd->momentum * v : v);
	check_float(after[0], w - step, fabs(w) + 2 * (double)sgd->lr * magnitude, 9);
	ema += (double)sgd->ema_share * ((double)after[0] - ema);
	check_float(after[2], ema, fabs(ema) + fabs((double)after[0]), 3);
	assert_true(half == element_round(element, (double)after[0]));
}

static void live(void)
{
	struct update_range ranges[RANGES];
	const size_t count = ranges_lay_out(ranges);
	for (size_t k = 0; k < ELEMENTS * 16; k++) {
		enum element element = elements[k / 16];
		bool nesterov = k & 1, first = k & 2, ema = k & 4, skip = (k & 15) == 15;
		draws_from((uint32_t)k);
		struct device_sgd kinds[UPDATE_KINDS];
		kinds_make(kinds, nesterov, first);
		struct update_control control = {.loss_scale = 1024, .step_scale = 0.25f, .skip = skip};
		float *arenas[4], *before[4]; /* weights, momentum, EMA, gradients */
		for (int i = 0; i < 4; i++) {
			arenas[i] = floats_draw(count, 0, 1);
			for (size_t at = 0; first && i == 1 && at < count; at++)
				arenas[i][at] = NAN; /* undefined before the first update */
			before[i] = memcpy(floats_new(count), arenas[i], count * sizeof(float));
		}
		void *half = element == ELEMENT_FP32 ? NULL : elements_draw(element, count, 0, 1);
		void *half_before = half == NULL ? NULL : elements_copy(element, half, count);
		RUN_ELEMENT(element, update_live, update_live, .ranges = ranges, .ranges_count = RANGES, .kinds = {kinds[0], kinds[1], kinds[2]}, .gradient_scale = 0.5f,
			.control = &control, .gradients = arenas[3], .weights = arenas[0], .momentum = arenas[1], .ema = ema ? arenas[2] : NULL, .half = half);
		size_t range = 0;
		for (size_t at = 0; at < count; at++) {
			while (range < RANGES && at >= ranges[range].offset + ranges[range].count)
				range++;
			bool inside = !skip && range < RANGES && at >= ranges[range].offset;
			for (int i = 0; i < 4; i++)
				if (!inside || i == 3 || (i == 2 && !ema))
					assert_memory_equal(&arenas[i][at], &before[i][at], sizeof(float));
			if (!inside && half != NULL)
				assert_true(element_get(element, half, at) == element_get(element, half_before, at));
			if (!inside)
				continue;
			const struct device_sgd *sgd = &kinds[ranges[range].kind];
			const float from[3] = {before[0][at], before[1][at], before[2][at]};
			float to[3] = {arenas[0][at], arenas[1][at], arenas[2][at]};
			if (!ema)
				to[2] = (float)((double)from[2] + (double)sgd->ema_share * ((double)to[0] - (double)from[2]));
			live_check(sgd, (double)arenas[3][at] * 0.125, from, to, half == NULL ? (double)to[0] : element_get(element, half, at), element);
		}
		digest_add(arenas[0], count * sizeof(float));
		digest_add(half, half == NULL ? 0 : count * element_bytes(element));
		arrays_free();
	}
}

/* --- dead values -------------------------------------------------------------------------------------------------------------------- */

/* Steps of all sorts, some skipped: one at a time on live values without gradient, all together on dead ones. */
static void dead_is_live(void)
{
	static const size_t counts[] = {0, 1, 7, 2047, 2048, 2049, 4096};
	static const int lengths[] = {0, 1, 5, UPDATE_HISTORY_MAX_DEVICE};
	for (size_t k = 0; k < sizeof counts / sizeof counts[0] * 8; k++) {
		size_t count = counts[k / 8];
		int steps = lengths[k % 4];
		bool ema = k & 4, skips = k % 3 > 0;
		draws_from((uint32_t)k);
		float *gradients = floats_new(count), *alive[3], *dead[3];
		for (size_t i = 0; i < count; i++)
			gradients[i] = 0;
		for (int i = 0; i < 3; i++) {
			alive[i] = floats_draw(count, 0, 1);
			dead[i] = memcpy(floats_new(count), alive[i], count * sizeof(float));
		}
		struct update_dead late = {.history_count = steps, .count = (int64_t)count, .weights = dead[0], .momentum = dead[1], .ema = ema ? dead[2] : NULL};
		uint32_t skipped[UPDATE_HISTORY_MAX_DEVICE];
		for (int i = 0; i < steps; i++) {
			skipped[i] = skips && random_below(&draws, 3) == 0;
			struct device_sgd sgd = {.lr = (float)random_unit(&draws), .momentum = 0.9f, .decay = (float)random_unit(&draws) * 0.1f, .ema_share = 0.01f,
				.nesterov = random_below(&draws, 2) != 0, .first = i == 0 && k % 2};
			struct update_range range = {.count = (uint32_t)count};
			struct update_control control = {.loss_scale = 1, .step_scale = (float)random_unit(&draws), .skip = skipped[i]};
			late.history[i] = sgd;
			RUN_ELEMENT(ELEMENT_FP32, update_live, update_live, .ranges = &range, .ranges_count = 1, .kinds = {sgd, sgd, sgd}, .gradient_scale = 1, .control = &control,
				.gradients = gradients, .weights = alive[0], .momentum = alive[1], .ema = ema ? alive[2] : NULL);
		}
		late.skipped = skips ? skipped : NULL;
		kernel_run("update_dead", &late, sizeof late, grid_update_dead(&late));
		for (int i = 0; i < 3; i++) {
			assert_memory_equal(alive[i], dead[i], count * sizeof(float));
			digest_add(dead[i], count * sizeof(float));
		}
		arrays_free();
	}
}

/* --- averages of what is not trained ------------------------------------------------------------------------------------------------- */

static void average(void)
{
	static const size_t counts[] = {0, 1, 2047, 2049, 17024};
	for (size_t k = 0; k < sizeof counts / sizeof counts[0] * 2; k++) {
		size_t count = counts[k / 2];
		draws_from((uint32_t)k);
		float *values = floats_draw(count, 0, 1), *ema = floats_draw(count, 0, 1), *before = memcpy(floats_new(count), ema, count * sizeof *ema);
		struct update_control control = {.skip = k % 2};
		RUN(average, average, .values = values, .ema = ema, .ema_share = 0.125f, .count = (int64_t)count, .control = &control);
		for (size_t i = 0; i < count; i++) {
			double want = (double)before[i] + 0.125 * ((double)values[i] - (double)before[i]);
			if (control.skip)
				assert_memory_equal(&ema[i], &before[i], sizeof *ema);
			else
				check_float(ema[i], want, fabs((double)before[i]) + fabs((double)values[i]), 1.5);
		}
		digest_add(ema, count * sizeof *ema);
		arrays_free();
	}
}

CASE(squares)
CASE(clipping)
CASE(loss_scale)
CASE(live)
CASE(dead_is_live)
CASE(average)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_squares),
		cmocka_unit_test(test_clipping),
		cmocka_unit_test(test_loss_scale),
		cmocka_unit_test(test_live),
		cmocka_unit_test(test_dead_is_live),
		cmocka_unit_test(test_average),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
