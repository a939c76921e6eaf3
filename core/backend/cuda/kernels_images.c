/* kernels_images.c: takes the files that compile_kernels wrote, CUBINS/sm_75.cubin and so on, into the library. */
#include "core/backend/cuda/kernels_images.h"

#include "core/backend/cuda/architectures.h"

#define X(sm) \
	__asm__(".pushsection .rodata\n.balign 64\nkernels_sm_" #sm ":\n.incbin \"" CUBINS "/sm_" #sm ".cubin\"\nkernels_sm_" #sm "_end:\n.popsection\n"); \
	extern const unsigned char kernels_sm_##sm[], kernels_sm_##sm##_end[];
CUDA_ARCHITECTURES(X)
#undef X

const struct kernels_image kernels_images[] = {
#define X(sm) {sm, kernels_sm_##sm, kernels_sm_##sm##_end},
	CUDA_ARCHITECTURES(X)
#undef X
};
const size_t kernels_images_count = sizeof kernels_images / sizeof kernels_images[0];
