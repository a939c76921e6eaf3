/* kernel_bed.h: what the tests of the kernels' bodies share: running one on the host by name, arrays of elements, comparing.
 *
 * A case is run with blocks in ascending, descending and shuffled order; what it puts out must have the same bits each time. */
#pragma once

#include "core/backend/cuda/graph.h"
#include "core/backend/cuda/grids.h"
#include "core/backend/cuda/kernels_host.h"
#include "core/base/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double EPSILON = 0x1p-24;
static const enum element elements[] = {ELEMENT_FP32, ELEMENT_FP16, ELEMENT_BF16};
enum { ELEMENTS = 3 };

/* --- running ----------------------------------------------------------------------------------------------------------- */

enum order { ORDER_UP, ORDER_DOWN, ORDER_SHUFFLED, ORDERS };
static enum order order_now;
static uint64_t digest; /* of all that a case put out */
static double worst;    /* largest error as a share of what was allowed */

static inline void digest_add(const void *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		digest = (digest ^ ((const uint8_t *)bytes)[i]) * 0x100000001B3;
}

static inline const struct host_kernel *kernel_named(const char *name)
{
	for (const struct host_kernel *kernel = host_kernels; kernel->name != NULL; kernel++)
		if (strcmp(kernel->name, name) == 0)
			return kernel;
	fail_msg("no kernel %s", name);
	return NULL;
}

static inline void kernel_run(const char *name, const void *arguments, size_t arguments_bytes, struct grid grid)
{
	const struct host_kernel *kernel = kernel_named(name);
	unsigned blocks = grid.x * grid.y, *order = calloc(blocks + 1, sizeof *order);
	struct random_stream stream = random_open(7, RANDOM_TEST, blocks, 1);
	assert_int_equal(kernel->arguments_bytes, arguments_bytes);
	assert_non_null(order);
	for (unsigned i = 0; i < blocks; i++) {
		unsigned j = order_now == ORDER_UP ? i : order_now == ORDER_DOWN ? 0 : random_below(&stream, i + 1);
		memmove(order + j + 1, order + j, (i - j) * sizeof *order);
		order[j] = i;
	}
	kernel->run(arguments, grid.x, grid.y, KERNEL_THREADS, order);
	free(order);
}

#define RUN(kernel, arguments, ...) \
	do { \
		const struct arguments run_arguments = {__VA_ARGS__}; \
		kernel_run(#kernel, &run_arguments, sizeof run_arguments, grid_##kernel(&run_arguments)); \
	} while (0)

static inline const char *element_name(enum element element)
{
	return element == ELEMENT_FP32 ? "fp32" : element == ELEMENT_FP16 ? "fp16" : "bf16";
}

#define RUN_ELEMENT(element, kernel, arguments, ...) \
	do { \
		const struct arguments run_arguments = {__VA_ARGS__}; \
		char run_name[64]; \
		snprintf(run_name, sizeof run_name, #kernel "_%s", element_name(element)); \
		kernel_run(run_name, &run_arguments, sizeof run_arguments, grid_##kernel(&run_arguments)); \
	} while (0)

static inline void in_all_orders(void (*test)(void))
{
	uint64_t first = 0;
	worst = 0;
	for (order_now = 0; order_now < ORDERS; order_now++) {
		digest = 0xCBF29CE484222325;
		test();
		if (order_now == ORDER_UP)
			first = digest;
		assert_true(digest == first);
	}
	if (worst > 0)
		print_message("           worst error %.2g of the tolerance\n", worst);
}

#define CASE(name) \
	static void test_##name(void **state) \
	{ \
		(void)state; \
		in_all_orders(name); \
	}

/* --- elements, by their definition ------------------------------------------------------------------------------------------ */

/* Bits of precision, the least exponent, the largest value. */
static inline int element_digits(enum element element)
{
	return element == ELEMENT_FP32 ? 24 : element == ELEMENT_FP16 ? 11 : 8;
}

static inline double element_round(enum element element, double value)
{
	if (value == 0 || !isfinite(value))
		return value;
	int exponent, least = element == ELEMENT_FP16 ? -13 : -125;
	frexp(value, &exponent);
	double quantum = ldexp(1, (exponent < least ? least : exponent) - element_digits(element));
	double rounded = rint(value / quantum) * quantum, limit = element == ELEMENT_FP16 ? 0x1p16 : 0x1p128;
	return fabs(rounded) >= limit ? copysign((double)INFINITY, value) : rounded;
}

static inline double element_get(enum element element, const void *array, size_t i)
{
	if (element == ELEMENT_FP32)
		return (double)((const float *)array)[i];
	uint16_t bits = ((const uint16_t *)array)[i];
	int mantissa_bits = element_digits(element) - 1, exponent_bits = 15 - mantissa_bits, top = (1 << exponent_bits) - 1;
	int mantissa = bits & ((1 << mantissa_bits) - 1), exponent = bits >> mantissa_bits & top, bias = top / 2;
	double magnitude = exponent == top ? (mantissa ? (double)NAN : (double)INFINITY)
		: exponent == 0 ? ldexp(mantissa, 1 - bias - mantissa_bits) : ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
	return bits >> 15 ? -magnitude : magnitude;
}

/* value is one that the element can hold. */
static inline void element_put(enum element element, void *array, size_t i, double value)
{
	if (element == ELEMENT_FP32) {
		((float *)array)[i] = (float)value;
		return;
	}
	int mantissa_bits = element_digits(element) - 1, top = (1 << (15 - mantissa_bits)) - 1, bias = top / 2, exponent;
	unsigned bits = signbit(value) ? 0x8000 : 0;
	double magnitude = fabs(value);
	if (isnan(value))
		bits = 0x7FFF;
	else if (isinf(value))
		bits |= (unsigned)top << mantissa_bits;
	else if (magnitude < ldexp(1, 1 - bias))
		bits |= (unsigned)ldexp(magnitude, bias - 1 + mantissa_bits);
	else if (frexp(magnitude, &exponent) > 0)
		bits |= (unsigned)(exponent - 1 + bias) << mantissa_bits | ((unsigned)ldexp(magnitude, mantissa_bits + 1 - exponent) & ((1u << mantissa_bits) - 1));
	((uint16_t *)array)[i] = (uint16_t)bits;
}

/* --- arrays ------------------------------------------------------------------------------------------------------------------ */

static void *owned[64];
static size_t owned_count;

/* Exactly as long as said, so that a sanitizer sees an overrun; filled with NaNs. */
static inline void *array_new(size_t bytes)
{
	void *memory = malloc(bytes > 0 ? bytes : 1);
	assert_non_null(memory);
	assert_true(owned_count < sizeof owned / sizeof owned[0]);
	memset(memory, 0xFF, bytes);
	return owned[owned_count++] = memory;
}

static inline void arrays_free(void)
{
	while (owned_count > 0)
		free(owned[--owned_count]);
}

static inline float *floats_new(size_t count)
{
	return array_new(count * sizeof(float));
}

static inline double *doubles_new(size_t count)
{
	return array_new(count * sizeof(double));
}

static struct random_stream draws;

static inline void draws_from(uint32_t seed)
{
	draws = random_open(seed, RANDOM_TEST, 0, 0);
}

/* Of values around `mean`; one in eight is 0, one in sixteen −0. */
static inline double draw(double mean, double deviation)
{
	uint32_t kind = random_below(&draws, 16);
	double value = mean + deviation * (random_unit(&draws) * 4 - 2);
	return mean != 0 || kind > 2 ? value : kind == 2 ? -0.0 : 0;
}

static inline float *floats_draw(size_t count, double mean, double deviation)
{
	float *array = floats_new(count);
	for (size_t i = 0; i < count; i++)
		array[i] = (float)draw(mean, deviation);
	return array;
}

static inline void *elements_new(enum element element, size_t count)
{
	return array_new(count * element_bytes(element));
}

static inline void *elements_draw(enum element element, size_t count, double mean, double deviation)
{
	void *array = elements_new(element, count);
	for (size_t i = 0; i < count; i++)
		element_put(element, array, i, element_round(element, draw(mean, deviation)));
	return array;
}

static inline void *elements_copy(enum element element, const void *from, size_t count)
{
	return memcpy(elements_new(element, count), from, count * element_bytes(element));
}

/* --- comparing ------------------------------------------------------------------------------------------------------------------ */

/* got was computed in fp32: `roundings` of numbers up to `magnitude`; then rounded to the element. */
static inline void check_close(double got, double want, double magnitude, double roundings, enum element element)
{
	double least = element == ELEMENT_FP16 ? 0x1p-25 : 0x1p-150;
	double allowed = roundings * EPSILON * magnitude + fabs(want) * ldexp(1, -element_digits(element)) * 1.01 + least, error = fabs(got - want);
	if (!(error <= allowed))
		fail_msg("%.9g, expected %.9g, allowed %.3g off", got, want, allowed);
	worst = error / allowed > worst ? error / allowed : worst;
}

static inline void check_float(float got, double want, double magnitude, double roundings)
{
	check_close((double)got, want, magnitude, roundings, ELEMENT_FP32);
}
