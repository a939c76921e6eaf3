/* kernels_images.h: our kernels' machine code, which is part of the library: what compile_kernels made of kernels.cu. */
#pragma once

#include <stddef.h>

/* One architecture's code, an ELF file as cudaLibraryLoadData takes it. It runs on GPUs of the same major number and the same or a higher
 * minor one. */
struct kernels_image {
	int capability; /* compute capability × 10: 86 for 8.6 */
	const unsigned char *bytes, *end;
};

extern const struct kernels_image kernels_images[]; /* ascending */
extern const size_t kernels_images_count;
