/* test_cuda_kernels_norm.c: the kernels of batch norm and of the pool, as host code.
 *
 * Goal: each does what kernels.h says, on odd sizes and odd values, with blocks and threads in any order. Method: plain loops in double over
 * the values as stored; the tolerance is the count of fp32 roundings. */
#include "test/cuda/kernel_bed.h"

static const struct {
	size_t pixels, C;
} shapes[] = {{1, 8}, {5, 24}, {33, 64}, {130, 72}, {1000, 8}, {4, 512}, {300, 136}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* --- batch norm ------------------------------------------------------------------------------------------------------------- */

/* Sums of a channel over partial rows. */
static double rows_sum(const double *partials, int rows, size_t C, size_t which, size_t c)
{
	double sum = 0;
	for (size_t row = 0; row < (size_t)rows; row++)
		sum += partials[(row * 2 + which) * C + c];
	return sum;
}

static void sums(void)
{
	static const struct {
		double mean, deviation;
	} spreads[] = {{0, 1}, {100, 0.25}, {-3, 2}};
	for (size_t e = 0; e < ELEMENTS; e++)
		for (size_t k = 0; k < SHAPES * 3; k++) {
			size_t pixels = shapes[k / 3].pixels, C = shapes[k / 3].C;
			draws_from((uint32_t)k);
			int rows = norm_partial_rows((int64_t)pixels, (int32_t)C);
			void *z = elements_draw(elements[e], pixels * C, spreads[k % 3].mean, spreads[k % 3].deviation);
			double *partials = doubles_new((size_t)rows * 2 * C), *folded = doubles_new(2 * C), runs = (double)pixels / rows / 32 + 3;
			RUN_ELEMENT(elements[e], norm_sums, norm_sums, .z = z, .pixels = (int64_t)pixels, .C = (int32_t)C, .rows = rows, .partials = partials);
			RUN(norm_fold, norm_fold, .partials = partials, .C = (int32_t)C, .rows = rows, .sums = folded);
			for (size_t c = 0; c < C; c++) {
				double sum = 0, squares = 0, least = (double)INFINITY, most = -(double)INFINITY;
				for (size_t i = 0; i < pixels; i++) {
					double value = element_get(elements[e], z, i * C + c);
					sum += value;
					least = fmin(least, value), most = fmax(most, value);
				}
				double n = (double)pixels, mean = sum / n, spread = most - least;
				for (size_t i = 0; i < pixels; i++)
					squares += (element_get(elements[e], z, i * C + c) - mean) * (element_get(elements[e], z, i * C + c) - mean);
				assert_true(fabs(rows_sum(partials, rows, C, 0, c) - folded[c]) <= 1e-12 * fabs(folded[c]) + 1e-300);
				assert_true(fabs(rows_sum(partials, rows, C, 1, c) - folded[C + c]) <= 1e-12 * fabs(folded[C + c]) + 1e-300);
				/* Errors are of the size of the spread, not of the mean. */
				check_float((float)(folded[c] - sum), 0, n * spread + fabs(sum) * 1e-6, runs);
				check_float((float)(folded[C + c] / n - folded[c] / n * (folded[c] / n) - squares / n), 0, spread * spread + mean * mean * 1e-7, 3 * runs);
			}
			digest_add(partials, (size_t)rows * 2 * C * sizeof *partials);
			arrays_free();
		}
	double none[16];
	RUN_ELEMENT(ELEMENT_FP16, norm_sums, norm_sums, .pixels = 0, .C = 8, .rows = 1, .partials = none);
	for (int i = 0; i < 16; i++)
		assert_true(none[i] == 0);
}

static void constants(void)
{
	enum { C = 40, ROWS = 37 };
	for (int kept = 0; kept < 2; kept++) {
		draws_from((uint32_t)kept);
		double *partials = doubles_new(2 * ROWS * C), count = kept ? 500 : 1, epsilon = 1e-5, share = 0.1;
		float *gamma = floats_draw(C, 1, 0.5), *beta = floats_draw(C, 0, 1), *running_mean = floats_draw(C, 1, 1), *running_var = floats_draw(C, 3, 1);
		float *mean_before = memcpy(floats_new(C), running_mean, C * sizeof(float)), *var_before = memcpy(floats_new(C), running_var, C * sizeof(float));
		float *made[4] = {floats_new(C), floats_new(C), floats_new(C), floats_new(C)}, *recalled[2] = {floats_new(C), floats_new(C)};
		for (size_t i = 0; i < ROWS * C; i++) {
			partials[i / C * 2 * C + i % C] = draw(2, 1) * count / ROWS;
			partials[i / C * 2 * C + C + i % C] = i % C == 3 ? 0 : draw(30, 3) * count / ROWS; /* 3: a variance below zero */
		}
		RUN(norm_constants, norm_constants, .partials = partials, .C = C, .rows = ROWS, .count = count, .epsilon = epsilon, .share = share, .gamma = gamma,
			.beta = beta, .running_mean = running_mean, .running_var = running_var, .mean = made[0], .inverse_deviation = made[1], .scale = made[2],
			.bias = made[3]);
		RUN(norm_constants_running, norm_constants_running, .C = C, .epsilon = epsilon, .gamma = gamma, .beta = beta, .running_mean = mean_before,
			.running_var = var_before, .scale = recalled[0], .bias = recalled[1]);
		for (size_t c = 0; c < C; c++) {
			double mean = rows_sum(partials, ROWS, C, 0, c) / count, variance = fmax(0, rows_sum(partials, ROWS, C, 1, c) / count - mean * mean);
			double inverse = 1 / sqrt(variance + epsilon), scale = (double)gamma[c] * inverse, remembered = (double)gamma[c] / sqrt((double)var_before[c] + epsilon);
			check_float(made[0][c], mean, 0, 0);
			check_float(made[1][c], inverse, inverse, 0.01);
			check_float(made[2][c], scale, fabs(scale), 0.01);
			check_float(made[3][c], (double)beta[c] - mean * scale, fabs(mean * scale), 0.01);
			check_float(running_mean[c], (double)mean_before[c] * (1 - share) + share * mean, 10, 0.01);
			check_float(running_var[c], count > 1 ? (double)var_before[c] * (1 - share) + share * variance * count / (count - 1) : (double)var_before[c], 100, 0.01);
			check_float(recalled[0][c], remembered, 0, 0);
			check_float(recalled[1][c], (double)beta[c] - (double)mean_before[c] * remembered, 10, 0.01);
		}
		RUN(norm_constants, norm_constants, .partials = partials, .C = C, .rows = ROWS, .count = count, .epsilon = epsilon, .gamma = gamma, .beta = beta,
			.mean = made[0], .inverse_deviation = made[1], .scale = made[2], .bias = made[3]); /* none are kept */
		digest_add(made[2], C * sizeof(float));
		arrays_free();
	}
}

static void apply(void)
{
	for (size_t e = 0; e < ELEMENTS; e++)
		for (size_t k = 0; k < SHAPES * 8; k++) {
			size_t pixels = shapes[k / 8].pixels, C = shapes[k / 8].C, count = pixels * C;
			bool relu = k & 1, added = k & 2, in_place = k & 4;
			draws_from((uint32_t)k);
			void *z = elements_draw(elements[e], count, 0, 3), *before = elements_copy(elements[e], z, count);
			void *shortcut = added ? elements_draw(elements[e], count, 0, 2) : NULL, *y = in_place ? z : elements_new(elements[e], count);
			float *scale = floats_draw(C, 1, 1), *bias = floats_draw(C, 0, 1);
			element_put(elements[e], z, count - 1, (double)NAN);
			RUN_ELEMENT(elements[e], norm_apply, norm_apply, .z = z, .shortcut = shortcut, .scale = scale, .bias = bias, .pixels = (int64_t)pixels,
				.C = (int32_t)C, .relu = relu, .y = y);
			for (size_t i = 0; i + 1 < count; i++) {
				double product = element_get(elements[e], before, i) * (double)scale[i % C], more = added ? element_get(elements[e], shortcut, i) : 0;
				double want = product + (double)bias[i % C] + more, magnitude = fabs(product) + fabs((double)bias[i % C]) + fabs(more);
				check_close(element_get(elements[e], y, i), relu ? fmax(0, want) : want, magnitude, 3, elements[e]);
			}
			assert_true(isnan(element_get(elements[e], y, count - 1)));
			digest_add(y, count * element_bytes(elements[e]));
			arrays_free();
		}
}

static void backward(void)
{
	for (size_t e = 0; e < ELEMENTS; e++)
		for (size_t k = 0; k < SHAPES * 8; k++) {
			size_t pixels = shapes[k / 8].pixels, C = shapes[k / 8].C, count = pixels * C;
			bool relu = k & 1, shortcut = k & 2, accumulate = k & 4, in_place = k % 3 == 0;
			draws_from((uint32_t)k);
			int rows = norm_partial_rows((int64_t)pixels, (int32_t)C);
			double *partials = doubles_new((size_t)rows * 2 * C), n = (double)pixels, runs = n / rows / 32 + 3;
			void *dy = elements_draw(elements[e], count, 0, 1), *y = elements_draw(elements[e], count, 0, 1), *z = elements_draw(elements[e], count, 2, 1);
			void *z_before = elements_copy(elements[e], z, count), *dz = in_place ? z : elements_new(elements[e], count);
			void *dshortcut = elements_draw(elements[e], count, 0, 1), *dshortcut_before = elements_copy(elements[e], dshortcut, count);
			float *mean = floats_draw(C, 2, 0.1), *inverse = floats_draw(C, 1, 0.2), *gamma = floats_draw(C, 1, 0.3);
			float *dgamma = floats_new(C), *dbeta = floats_new(C), *by_g = floats_new(C), *by_z = floats_new(C), *constant = floats_new(C);
			RUN_ELEMENT(elements[e], norm_backward_sums, norm_backward_sums, .dy = dy, .y = relu ? y : NULL, .z = z, .mean = mean, .pixels = (int64_t)pixels,
				.C = (int32_t)C, .rows = rows, .relu = relu, .partials = partials);
			RUN(norm_backward_constants, norm_backward_constants, .own = partials, .own_rows = rows, .shared = partials, .shared_rows = rows, .C = (int32_t)C,
				.count = n, .gradient_scale = 0.5f, .gamma = gamma, .mean = mean, .inverse_deviation = inverse, .dgamma = dgamma, .dbeta = dbeta,
				.by_g = by_g, .by_z = by_z, .constant = constant);
			RUN_ELEMENT(elements[e], norm_backward_apply, norm_backward_apply, .dy = dy, .y = relu ? y : NULL, .z = z, .by_g = by_g, .by_z = by_z,
				.constant = constant, .pixels = (int64_t)pixels, .C = (int32_t)C, .relu = relu, .accumulate = accumulate, .dz = dz,
				.dshortcut = shortcut ? dshortcut : NULL);
			for (size_t c = 0; c < C; c++) {
				double sum = 0, product = 0, sizes = 0, product_sizes = 0;
				for (size_t i = c; i < count; i += C) {
					double g = relu && element_get(elements[e], y, i) <= 0 ? 0 : element_get(elements[e], dy, i);
					double distance = element_get(elements[e], z_before, i) - (double)mean[c];
					sum += g, product += g * distance;
					sizes += fabs(g), product_sizes += fabs(g * distance) + fabs(g) * 4;
				}
				double h = (double)inverse[c], s = (double)gamma[c] * h;
				check_float(dbeta[c], sum / 2, sizes, runs);
				check_float(dgamma[c], product * h / 2, product_sizes * h, runs);
				for (size_t i = c; i < count; i += C) {
					double g = relu && element_get(elements[e], y, i) <= 0 ? 0 : element_get(elements[e], dy, i);
					double distance = element_get(elements[e], z_before, i) - (double)mean[c];
					double want = s * (g - sum / n - distance * h * h * product / n);
					double magnitude = fabs(s) * (fabs(g) + sizes / n + (fabs(distance) + 4) * h * h * product_sizes / n);
					check_close(element_get(elements[e], dz, i), want, magnitude, 2 * runs + 6, elements[e]);
					float before = shortcut && !accumulate ? 0 : (float)element_get(elements[e], dshortcut_before, i);
					double passed = shortcut ? element_round(elements[e], (double)(before + (float)g)) : (double)before;
					assert_true(element_get(elements[e], dshortcut, i) == passed);
				}
			}
			digest_add(dz, count * element_bytes(elements[e]));
			arrays_free();
		}
}

/* Other ranks' sums decide dz, this one's alone dgamma and dbeta: also those of a rank without images. */
static void backward_shared(void)
{
	double own[2 * 2 * 8], shared[2 * 8];
	float ones[8], dgamma[8], dbeta[8], by_g[8], by_z[8], constant[8];
	for (int i = 0; i < 8; i++) {
		ones[i] = 1;
		own[i] = own[16 + i] = 1, own[8 + i] = own[24 + i] = 3;
		shared[i] = 10, shared[8 + i] = 20;
	}
	RUN(norm_backward_constants, norm_backward_constants, .own = own, .own_rows = 2, .shared = shared, .shared_rows = 1, .C = 8, .count = 5,
		.gradient_scale = 1, .gamma = ones, .mean = ones, .inverse_deviation = ones, .dgamma = dgamma, .dbeta = dbeta, .by_g = by_g, .by_z = by_z,
		.constant = constant);
	for (int i = 0; i < 8; i++)
		assert_true(dbeta[i] == 2 && dgamma[i] == 6 && by_g[i] == 1 && by_z[i] == -4 && constant[i] == 2);
	RUN_ELEMENT(ELEMENT_BF16, norm_backward_sums, norm_backward_sums, .mean = ones, .pixels = 0, .C = 8, .rows = 1, .partials = own);
	for (int i = 0; i < 16; i++)
		assert_true(own[i] == 0);
}

/* --- the pool ----------------------------------------------------------------------------------------------------------------- */

static void pool(void)
{
	static const struct {
		int n, H, W, C;
	} maps[] = {{1, 1, 1, 8}, {2, 5, 4, 24}, {3, 8, 7, 64}, {1, 16, 16, 72}};
	for (size_t e = 0; e < ELEMENTS; e++)
		for (size_t k = 0; k < sizeof maps / sizeof maps[0] * 2; k++) {
			int n = maps[k / 2].n, H = maps[k / 2].H, W = maps[k / 2].W, C = maps[k / 2].C, P = (H + 1) / 2, Q = (W + 1) / 2;
			size_t in = (size_t)(n * H * W * C), out = (size_t)(n * P * Q * C);
			draws_from((uint32_t)k);
			void *x = elements_draw(elements[e], in, 0, 1), *y = elements_new(elements[e], out), *dy = elements_draw(elements[e], out, 0, 1);
			void *dx = elements_draw(elements[e], in, 0, 1), *dx_before = elements_copy(elements[e], dx, in);
			uint8_t *tap = array_new(out);
			for (size_t i = 0; i < in; i += 11) /* equal ones, NaN, −∞ */
				element_put(elements[e], x, i, i % 3 == 0 ? (double)NAN : i % 3 == 1 ? -(double)INFINITY : 1.5);
			double *want = calloc(in, sizeof *want);
			assert_non_null(want);
			for (size_t i = 0; i < in && k % 2; i++)
				want[i] = element_get(elements[e], dx_before, i);
			RUN_ELEMENT(elements[e], pool_forward, pool_forward, .x = x, .n = n, .H = H, .W = W, .C = C, .P = P, .Q = Q, .y = y, .tap = tap);
			RUN_ELEMENT(elements[e], pool_backward, pool_backward, .dy = dy, .tap = tap, .n = n, .H = H, .W = W, .C = C, .P = P, .Q = Q,
				.accumulate = k % 2, .dx = dx);
			for (size_t at = 0; at < out; at++) {
				int c = (int)at % C, q = (int)at / C % Q, p = (int)at / C / Q % P, image = (int)at / C / Q / P, best = -1;
				size_t from = 0;
				double value = 0;
				for (int t = 0; t < 9; t++) {
					int h = p * 2 - 1 + t / 3, w = q * 2 - 1 + t % 3;
					if (h < 0 || h >= H || w < 0 || w >= W)
						continue;
					size_t i = (size_t)(((image * H + h) * W + w) * C + c);
					double candidate = element_get(elements[e], x, i);
					if (best < 0 || candidate > value || (isnan(candidate) && !isnan(value)))
						best = t, value = candidate, from = i;
				}
				assert_int_equal(tap[at], best);
				assert_true(element_get(elements[e], y, at) == value || (isnan(value) && isnan(element_get(elements[e], y, at))));
				want[from] += element_get(elements[e], dy, at);
			}
			for (size_t i = 0; i < in; i++)
				check_close(element_get(elements[e], dx, i), want[i], 16, 5, elements[e]);
			void *again = elements_new(elements[e], out);
			RUN_ELEMENT(elements[e], pool_forward, pool_forward, .x = x, .n = n, .H = H, .W = W, .C = C, .P = P, .Q = Q, .y = again); /* evaluation */
			assert_memory_equal(again, y, out * element_bytes(elements[e]));
			digest_add(dx, in * element_bytes(elements[e]));
			free(want);
			arrays_free();
		}
}

CASE(sums)
CASE(constants)
CASE(apply)
CASE(backward)
CASE(backward_shared)
CASE(pool)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sums),
		cmocka_unit_test(test_constants),
		cmocka_unit_test(test_apply),
		cmocka_unit_test(test_backward),
		cmocka_unit_test(test_backward_shared),
		cmocka_unit_test(test_pool),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
