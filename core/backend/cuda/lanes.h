/* lanes.h: the few words that kernels.cu is written in, with two meanings: code for the GPU's threads, or loops over those threads on the host.
 *
 * A kernel's body is phases: FOR_THREADS (thread) { … } is one, what follows BARRIER; sees its writes. What a thread keeps from phase to phase
 * is PRIVATE, what all threads of a block see is SHARED; neither is anything before it was written (the host poisons both). The host runs a
 * block's threads one after another in an order that differs from block to block, so what relies on an order shows.
 *
 * Elements (fp32, fp16, bf16) are loaded and stored eight or four at a time, 16 or 8 bytes; pointers are aligned to that. Rounding is to the
 * nearest, ties to even. mul, plus, minus, over are single operations that no compiler joins: where bits are promised, they are used. */
#pragma once

#include "core/backend/cuda/kernels.h"

/* One block of the grid. */
struct block {
	unsigned x, y;
	unsigned mix; /* the host's order of threads */
};

#ifdef __CUDACC__
/* --- on the device ---------------------------------------------------------------------------------------------------- */

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define DEVICE static __device__ __forceinline__
#define DEVICE_METHOD __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define UNROLL_SOME _Pragma("unroll 4")
#define UNROLL_NOT _Pragma("unroll 1")
#define FOR_THREADS(thread) for (unsigned thread = threadIdx.x, once = thread; once == thread; once = ~thread)
#define BARRIER __syncthreads()
#define SHARED(type, name, dimensions) __shared__ type name dimensions
#define PRIVATE(type, name, count) type name[count]
#define MINE(name) name

/* Enough blocks at once to wait for memory with: 64 registers a thread. */
enum { KERNEL_BLOCKS_AT_ONCE = 4 };
/* A kernel of this name that runs this body. */
#define KERNEL(name, arguments, body) \
	extern "C" __global__ void __launch_bounds__(KERNEL_THREADS, KERNEL_BLOCKS_AT_ONCE) name(const __grid_constant__ struct arguments a) \
	{ \
		body(a, block{blockIdx.x, blockIdx.y, 0}); \
	}

DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
DEVICE float plus(float a, float b) { return __fadd_rn(a, b); }
DEVICE float minus(float a, float b) { return __fsub_rn(a, b); }
DEVICE float over(float a, float b) { return __fdiv_rn(a, b); }

DEVICE float widen_fp16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
DEVICE uint16_t round_fp16(float value) { return __half_as_ushort(__float2half_rn(value)); }
DEVICE float widen_bf16(uint16_t bits) { return __uint_as_float((uint32_t)bits << 16); }
DEVICE uint16_t round_bf16(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }

/* Memory as a struct, in one access or two. */
template <typename Pack> DEVICE Pack memory_load(const void *from) { return *(const Pack *)from; }
template <typename Pack> DEVICE void memory_store(void *to, const Pack &pack) { *(Pack *)to = pack; }

#else
/* --- on the host ------------------------------------------------------------------------------------------------------ */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE static inline
#define DEVICE_METHOD inline
#define UNROLL
#define UNROLL_SOME
#define UNROLL_NOT
#define FOR_THREADS(thread) \
	for (unsigned thread = block.mix, step = 0; step < KERNEL_THREADS; step++, thread = step ^ block.mix)
#define BARRIER (void)0
#define SHARED(type, name, dimensions) \
	static thread_local type name dimensions; \
	memset(&name, 0xFF, sizeof name)
#define PRIVATE(type, name, count) SHARED(type, name, [KERNEL_THREADS][count])
#define MINE(name) name[thread]

/* Compiled with -ffp-contract=off. */
DEVICE float mul(float a, float b) { return a * b; }
DEVICE float plus(float a, float b) { return a + b; }
DEVICE float minus(float a, float b) { return a - b; }
DEVICE float over(float a, float b) { return a / b; }

DEVICE float float_of(uint32_t bits)
{
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

DEVICE uint32_t bits_of(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	return bits;
}

DEVICE float widen_bf16(uint16_t bits) { return float_of((uint32_t)bits << 16); }

DEVICE uint16_t round_bf16(float value)
{
	uint32_t bits = bits_of(value);
	if (value != value)
		return 0x7FFF;
	return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

DEVICE float widen_fp16(uint16_t bits)
{
	uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3FF;
	if (exponent == 31)
		return float_of(sign | 0x7F800000 | mantissa << 13);
	if (exponent == 0) {
		float magnitude = (float)mantissa * 0x1p-24f;
		return sign != 0 ? -magnitude : magnitude;
	}
	return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

DEVICE uint16_t round_fp16(float value)
{
	uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
	if (magnitude > 0x7F800000)
		return 0x7FFF;
	if (magnitude >= 0x477FF000) /* 65520, half way between the largest and what would follow: infinite */
		return (uint16_t)(sign | 0x7C00);
	if (magnitude < 0x38800000) { /* below 2^-14: a multiple of 2^-24; adding 0.5 leaves the last bit worth that much */
		uint32_t steps = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
		return (uint16_t)(sign | steps);
	}
	return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13));
}

template <typename Pack> DEVICE Pack memory_load(const void *from)
{
	if ((uintptr_t)from % alignof(Pack) != 0)
		abort();
	Pack pack;
	memcpy(&pack, from, sizeof pack);
	return pack;
}

template <typename Pack> DEVICE void memory_store(void *to, const Pack &pack)
{
	if ((uintptr_t)to % alignof(Pack) != 0)
		abort();
	memcpy(to, &pack, sizeof pack);
}

#endif

/* --- elements --------------------------------------------------------------------------------------------------------- */

struct fp32 {
	typedef float stored;
	DEVICE float widen(float value) { return value; }
	DEVICE float round(float value) { return value; }
};

struct fp16 {
	typedef uint16_t stored;
	DEVICE float widen(uint16_t bits) { return widen_fp16(bits); }
	DEVICE uint16_t round(float value) { return round_fp16(value); }
};

struct bf16 {
	typedef uint16_t stored;
	DEVICE float widen(uint16_t bits) { return widen_bf16(bits); }
	DEVICE uint16_t round(float value) { return round_bf16(value); }
};

/* COUNT elements side by side, as they are in memory. */
template <typename T, int COUNT> struct alignas(COUNT * sizeof(typename T::stored) < 16 ? COUNT * sizeof(typename T::stored) : 16) pack {
	typename T::stored values[COUNT];
};

/* Elements [at, at + COUNT) of an array. */
template <typename T, int COUNT> DEVICE pack<T, COUNT> pack_load(const void *array, int64_t at)
{
	return memory_load<pack<T, COUNT>>((const typename T::stored *)array + at);
}

template <typename T, int COUNT> DEVICE void widen(const pack<T, COUNT> &pack, float (&values)[COUNT])
{
	UNROLL
	for (int i = 0; i < COUNT; i++)
		values[i] = T::widen(pack.values[i]);
}

template <typename T, int COUNT> DEVICE void load(const void *array, int64_t at, float (&values)[COUNT])
{
	widen<T, COUNT>(pack_load<T, COUNT>(array, at), values);
}

template <typename T, int COUNT> DEVICE void store(void *array, int64_t at, const float (&values)[COUNT])
{
	pack<T, COUNT> rounded;
	UNROLL
	for (int i = 0; i < COUNT; i++)
		rounded.values[i] = T::round(values[i]);
	memory_store((typename T::stored *)array + at, rounded);
}

template <typename T> DEVICE float load_one(const void *array, int64_t at)
{
	return T::widen(((const typename T::stored *)array)[at]);
}

template <typename T> DEVICE void store_one(void *array, int64_t at, float value)
{
	((typename T::stored *)array)[at] = T::round(value);
}
