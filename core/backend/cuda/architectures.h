/* architectures.h: the one table of GPU architectures that kernels are compiled for. Code for 8.0 also runs on 8.9 and so on within a major
 * number; those that have a line of their own are scheduled for. A GPU whose major number is not here is refused. */
#pragma once

#if CUDA_FLAVOUR == 12
#define CUDA_ARCHITECTURES_VOLTA(X) X(70) /* V100; CUDA 13 cannot make code for it */
#elif CUDA_FLAVOUR == 13
#define CUDA_ARCHITECTURES_VOLTA(X)
#else
#error CUDA_FLAVOUR must be 12 or 13
#endif

/* compute capability × 10 */
#define CUDA_ARCHITECTURES(X) \
	CUDA_ARCHITECTURES_VOLTA(X) \
	X(75)  /* T4 */ \
	X(80)  /* A100 */ \
	X(86)  /* A10G */ \
	X(89)  /* L4, L40S */ \
	X(90)  /* H100, H200 */ \
	X(100) /* B200; B300 as well */ \
	X(120) /* RTX 50, RTX PRO */
