/* test_cuda_kernels_head.c: the kernels of the head and its loss, as host code.
 *
 * Goal: each does what kernels.h says, on odd sizes and odd values, with blocks and threads in any order. Method: core/backend/ref/ref_head.c's
 * formulas in double over the values as stored; the tolerance is the count of fp32 roundings. */
#include "test/cuda/kernel_bed.h"

/* A product adds up to 64 terms in fp32, then in double. */
enum { PRODUCT_ROUNDINGS = 66 };

static const struct {
	int n, C, classes, pixels;
} heads[] = {{1, 8, 1, 1}, {2, 24, 7, 16}, {17, 64, 100, 1}, {33, 72, 15, 9}, {16, 512, 100, 4}, {130, 16, 1000, 1}, {0, 512, 100, 16}};
enum { HEADS = sizeof heads / sizeof heads[0] };

/* --- products ---------------------------------------------------------------------------------------------------------------- */

/* Σ over k < depth of left[k·left_step]·right[k·right_step], and what the terms are altogether. */
static double product(const float *left, int left_step, const float *right, int right_step, int depth, double *sizes)
{
	double sum = 0;
	*sizes = 0;
	for (int k = 0; k < depth; k++) {
		double term = (double)left[k * left_step] * (double)right[k * right_step];
		sum += term;
		*sizes += fabs(term);
	}
	return sum;
}

static void forward(void)
{
	for (size_t k = 0; k < HEADS * ELEMENTS; k++) {
		int n = heads[k / 3].n, C = heads[k / 3].C, classes = heads[k / 3].classes, pixels = heads[k / 3].pixels;
		enum element element = elements[k % 3];
		draws_from((uint32_t)k);
		void *x = elements_draw(element, (size_t)(n * pixels * C), 0, 2);
		float *features = floats_new((size_t)(n * C)), *logits = floats_new((size_t)(n * classes));
		float *weight = floats_draw((size_t)(classes * C), 0, 1), *bias = floats_draw((size_t)classes, 0, 1);
		RUN_ELEMENT(element, features, features, .x = x, .n = n, .pixels_of_image = pixels, .C = C, .features = features);
		RUN(logits, logits, .features = features, .weight = weight, .bias = bias, .n = n, .C = C, .classes = classes, .logits = logits);
		for (int i = 0; i < n * C; i++) {
			double sum = 0, sizes = 0;
			for (int pixel = 0; pixel < pixels; pixel++) {
				double value = element_get(element, x, (size_t)((i / C * pixels + pixel) * C + i % C));
				sum += value, sizes += fabs(value);
			}
			check_float(features[i], sum / pixels, sizes / pixels, pixels + 1);
		}
		for (int i = 0; i < n * classes; i++) {
			double sizes, sum = product(features + i / classes * C, 1, weight + i % classes * C, 1, C, &sizes);
			check_float(logits[i], sum + (double)bias[i % classes], sizes, PRODUCT_ROUNDINGS);
		}
		digest_add(logits, (size_t)(n * classes) * sizeof *logits);
		arrays_free();
	}
}

static void backward(void)
{
	for (size_t k = 0; k < HEADS * ELEMENTS; k++) {
		int n = heads[k / 3].n, C = heads[k / 3].C, classes = heads[k / 3].classes, pixels = heads[k / 3].pixels;
		enum element element = elements[k % 3];
		draws_from((uint32_t)k);
		float *dlogits = floats_draw((size_t)(n * classes), 0, 1), *features = floats_draw((size_t)(n * C), 1, 1);
		float *weight = floats_draw((size_t)(classes * C), 0, 1), *dweight = floats_new((size_t)(classes * C)), *dbias = floats_new((size_t)classes);
		void *dx = elements_new(element, (size_t)(n * pixels * C));
		RUN(head_weight_gradient, head_weight_gradient, .dlogits = dlogits, .features = features, .n = n, .C = C, .classes = classes, .dweight = dweight,
			.dbias = dbias);
		RUN_ELEMENT(element, head_input_gradient, head_input_gradient, .dlogits = dlogits, .weight = weight, .n = n, .C = C, .classes = classes,
			.pixels_of_image = pixels, .dx = dx);
		for (int i = 0; i < classes * C; i++) { /* of no images: zero */
			double sizes, sum = product(dlogits + i / C, classes, features + i % C, C, n, &sizes);
			check_float(dweight[i], sum, sizes, PRODUCT_ROUNDINGS);
		}
		for (int j = 0; j < classes; j++) {
			double sum = 0, sizes = 0;
			for (int i = 0; i < n; i++)
				sum += (double)dlogits[i * classes + j], sizes += fabs((double)dlogits[i * classes + j]);
			check_float(dbias[j], sum, sizes, PRODUCT_ROUNDINGS);
		}
		for (int i = 0; i < n * C; i++) {
			double sizes, sum = product(dlogits + i / C * classes, 1, weight + i % C, C, classes, &sizes);
			for (int pixel = 0; pixel < pixels; pixel++)
				check_close(element_get(element, dx, (size_t)((i / C * pixels + pixel) * C + i % C)), sum / pixels, sizes / pixels, PRODUCT_ROUNDINGS, element);
		}
		digest_add(dx, (size_t)(n * pixels * C) * element_bytes(element));
		digest_add(dweight, (size_t)(classes * C) * sizeof *dweight);
		arrays_free();
	}
}

/* --- the loss ---------------------------------------------------------------------------------------------------------------- */

/* Of kinds of images in turn: mixed or not, with the same label twice, far apart logits, ties at the label, NaN. */
static void loss_inputs(float *logits, struct device_target *targets, int n, int classes, float smoothing)
{
	for (int i = 0; i < n; i++) {
		struct device_target *target = &targets[i];
		float *row = logits + i * classes;
		for (int j = 0; j < classes; j++)
			row[j] = (float)draw(0, i % 4 == 1 ? 40 : 1) + (i % 4 == 2 ? 1000.0f : 0);
		memset(target, 0, sizeof *target);
		target->label = target->partner = (uint16_t)random_below(&draws, (uint32_t)classes);
		target->weight = 1;
		target->smoothing = smoothing;
		if (i % 3 > 0)
			target->weight = (float)(random_unit(&draws) * 0.9);
		if (i % 3 > 1)
			target->partner = (uint16_t)random_below(&draws, (uint32_t)classes);
		for (int j = 0; j < classes && i % 5 == 3; j++) /* many equal ones */
			row[j] = (float)(int)row[j];
		if (i % 7 == 5)
			row[random_below(&draws, (uint32_t)classes)] = NAN;
	}
}

static void loss_check(const float *row, const struct device_target *target, int classes, double factor, const double *got, const float *dlogits)
{
	double largest = -(double)INFINITY, exponentials = 0, want = 0, label = (double)row[target->label], sizes = 0;
	size_t rank = isnan(label) ? 5 : 0; /* never a hit */
	bool nan = false;
	for (int j = 0; j < classes; j++) {
		largest = fmax(largest, (double)row[j]);
		nan |= isnan(row[j]);
		rank += (double)row[j] > label || ((double)row[j] == label && j < target->label);
	}
	assert_true(got[1] == (rank < 1) && got[2] == (rank < 5));
	if (nan) {
		assert_true(isnan(got[0]));
		return;
	}
	for (int j = 0; j < classes; j++)
		exponentials += exp((double)row[j] - largest);
	for (int j = 0; j < classes; j++) {
		double weight = (double)target->weight, smoothing = (double)target->smoothing;
		double share = (1 - smoothing) * ((j == target->label) * weight + (j == target->partner) * (1 - weight)) + smoothing / classes;
		double exponential = exp((double)row[j] - largest) / exponentials;
		want += share * (largest + log(exponentials) - (double)row[j]);
		sizes += share * 4;
		/* Its exponent is rounded, which moves the exponential by as much as the exponent is large; below 2^-126 there are fewer digits. */
		if (dlogits != NULL)
			check_float(dlogits[j], (exponential - share) * factor, (exponential + 0x1p-126) * factor, 8 + fabs((double)row[j] - largest));
	}
	check_float((float)(got[0] - want), 0, sizes, 4);
}

static void loss(void)
{
	static const struct {
		int n, classes;
	} sizes[] = {{0, 100}, {1, 1}, {15, 2}, {40, 7}, {35, 100}, {11, 256}, {8, 257}, {35, 1000}};
	for (size_t k = 0; k < sizeof sizes / sizeof sizes[0] * 3; k++) {
		int n = sizes[k / 3].n, classes = sizes[k / 3].classes;
		bool training = k % 3 > 0, scaled = k % 3 > 1;
		draws_from((uint32_t)k);
		float *logits = floats_new((size_t)(n * classes)), *dlogits = training ? floats_new((size_t)(n * classes)) : NULL, scale = 1024;
		struct device_target *targets = array_new((size_t)n * sizeof *targets);
		double *rows = doubles_new((size_t)n * 3);
		loss_inputs(logits, targets, n, classes, k % 2 ? 0.1f : 0);
		RUN(loss, loss, .logits = logits, .targets = targets, .n = n, .classes = classes, .total = 3 * n + 1, .loss_scale = scaled ? &scale : NULL,
			.dlogits = dlogits, .rows = rows);
		for (int i = 0; i < n; i++)
			loss_check(logits + i * classes, &targets[i], classes, (scaled ? 1024.0 : 1) / (3 * n + 1), rows + 3 * i, training ? dlogits + i * classes : NULL);
		digest_add(rows, (size_t)n * 3 * sizeof *rows);
		digest_add(dlogits, training ? (size_t)(n * classes) * sizeof *dlogits : 0);
		arrays_free();
	}
}

/* The label's place among equal logits is its place in the row. */
static void ties(void)
{
	enum { CLASSES = 9 };
	float logits[CLASSES * CLASSES];
	struct device_target targets[CLASSES];
	double rows[CLASSES * 3];
	for (int i = 0; i < CLASSES * CLASSES; i++)
		logits[i] = 0.25f;
	for (int n = 0; n < CLASSES; n++)
		targets[n] = (struct device_target){.label = (uint16_t)n, .partner = (uint16_t)n, .weight = 1};
	RUN(loss, loss, .logits = logits, .targets = targets, .n = CLASSES, .classes = CLASSES, .total = 1, .rows = rows);
	for (int n = 0; n < CLASSES; n++) {
		assert_true(rows[n * 3 + 1] == (n < 1) && rows[n * 3 + 2] == (n < 5));
		check_float((float)rows[n * 3], log((double)CLASSES), log((double)CLASSES), 2);
	}
}

/* Sums of many images lose none: they are exact here, and come on top of what is there. */
static void counters(void)
{
	static const int counts[] = {0, 1, 2, 255, 256, 257, 1000};
	double counted[4] = {0.5, 3, 1, 2}, want[4] = {0.5, 3, 1, 2};
	for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
		int n = counts[k];
		draws_from((uint32_t)k);
		double *rows = doubles_new((size_t)n * 3);
		for (int i = 0; i < n; i++) {
			rows[i * 3] = (double)random_below(&draws, 4096) / 1024;
			rows[i * 3 + 1] = random_below(&draws, 2);
			rows[i * 3 + 2] = rows[i * 3 + 1] + random_below(&draws, 2) * (1 - rows[i * 3 + 1]);
			want[0] += rows[i * 3], want[2] += rows[i * 3 + 1], want[3] += rows[i * 3 + 2];
		}
		want[1] += n;
		RUN(counters_add, counters_add, .rows = rows, .n = n, .counters = counted);
		for (int i = 0; i < 4; i++)
			assert_true(counted[i] == want[i]);
		arrays_free();
	}
}

CASE(forward)
CASE(backward)
CASE(loss)
CASE(ties)
CASE(counters)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forward),
		cmocka_unit_test(test_backward),
		cmocka_unit_test(test_loss),
		cmocka_unit_test(test_ties),
		cmocka_unit_test(test_counters),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
