/* kernels.c: which table serves which instruction set. */
#include "core/kernels/kernels.h"

const struct kernels *kernels_find(enum cpu cpu)
{
	if (cpu >= CPU_AVX512)
		return &kernels_avx512;
	return cpu == CPU_AVX2 ? &kernels_avx2 : &kernels_generic;
}
