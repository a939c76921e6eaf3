/* test_cuda_kernels.c: the list of kernels, conversions and plain arrays, as host code.
 *
 * Goal: each kernel is there under its name and takes the struct of kernels.h; an element is rounded as its format says. Method: the host build's
 * table; all bit patterns, and values at and beside the middle between neighbours, against the formats' definitions. */
#include "test/cuda/kernel_bed.h"

/* --- the list ------------------------------------------------------------------------------------------------------------ */

static void test_all_are_there(void **state)
{
	(void)state;
	size_t count = 0;
#define PLAIN(name, arguments) assert_int_equal(kernel_named(#name)->arguments_bytes, sizeof(struct arguments)), count++;
#define ELEMENT(name, arguments) PLAIN(name##_fp32, arguments) PLAIN(name##_fp16, arguments) PLAIN(name##_bf16, arguments)
	KERNELS_PLAIN(PLAIN)
	KERNELS_ELEMENT(ELEMENT)
#undef PLAIN
#undef ELEMENT
	for (size_t i = 0; i < count; i++)
		assert_non_null(host_kernels[i].name);
	assert_null(host_kernels[count].name);
}

/* --- conversions ---------------------------------------------------------------------------------------------------------- */

/* All 65536 patterns to float and back; then floats at and beside the middle between neighbours. */
static void conversions(void)
{
	enum { PATTERNS = 1 << 16, BESIDE = 3 * PATTERNS };
	for (size_t e = 1; e < ELEMENTS; e++) {
		uint16_t *from = array_new(PATTERNS * sizeof *from), *back = array_new(BESIDE * sizeof *back);
		float *values = floats_new(PATTERNS), *beside = floats_new(BESIDE);
		for (unsigned i = 0; i < PATTERNS; i++)
			from[i] = (uint16_t)i;
		RUN_ELEMENT(elements[e], to_float, convert, .from = from, .to = values, .count = PATTERNS);
		RUN_ELEMENT(elements[e], from_float, convert, .from = values, .to = back, .count = PATTERNS);
		for (unsigned i = 0; i < PATTERNS; i++) {
			double value = element_get(elements[e], from, i);
			if (isnan(value)) {
				assert_true(isnan(values[i]) && isnan(element_get(elements[e], back, i)));
				continue;
			}
			assert_true((double)values[i] == value && !signbit(values[i]) == !signbit(value));
			assert_int_equal(back[i], from[i]);
		}
		for (unsigned i = 0; i < PATTERNS; i++) {
			float next = isfinite(values[i]) && i % 0x8000 < 0x7FFF && isfinite(values[i + 1]) ? values[i + 1] : values[i] * 1.5f;
			float middle = (values[i] + next) / 2;
			beside[i] = isnan(middle) ? 0 : middle;
			beside[PATTERNS + i] = nextafterf(beside[i], INFINITY);
			beside[2 * PATTERNS + i] = nextafterf(beside[i], -INFINITY);
		}
		RUN_ELEMENT(elements[e], from_float, convert, .from = beside, .to = back, .count = BESIDE);
		for (unsigned i = 0; i < BESIDE; i++)
			assert_true(element_get(elements[e], back, i) == element_round(elements[e], (double)beside[i]));
		arrays_free();
	}
}

static void arrays(void)
{
	static const size_t counts[] = {0, 1, 7, 8, 9, 2048, 2049, 5003};
	for (size_t e = 0; e < ELEMENTS; e++)
		for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
			size_t count = counts[k];
			draws_from((uint32_t)count);
			void *from = elements_draw(elements[e], count, 0, 2), *to = elements_draw(elements[e], count, 0, 2), *before = elements_copy(elements[e], to, count);
			float *values = floats_draw(count, 1, 2), *values_back = floats_new(count);
			double *shared = doubles_new(count);
			RUN_ELEMENT(elements[e], add, add, .from = from, .to = to, .count = (int64_t)count);
			RUN(share_out, share, .values = values, .shared = shared, .factor = 0.25, .count = (int64_t)count);
			RUN(share_back, share, .values = values_back, .shared = shared, .count = (int64_t)count);
			for (size_t i = 0; i < count; i++) {
				float sum = (float)element_get(elements[e], from, i) + (float)element_get(elements[e], before, i);
				assert_true(element_get(elements[e], to, i) == element_round(elements[e], (double)sum));
				assert_true(shared[i] == 0.25 * (double)values[i] && values_back[i] == 0.25f * values[i]);
			}
			digest_add(to, count * element_bytes(elements[e]));
			arrays_free();
		}
}

CASE(conversions)
CASE(arrays)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_are_there),
		cmocka_unit_test(test_conversions),
		cmocka_unit_test(test_arrays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
