/* kernels_host.h: the bodies of kernels.cu as host code, for tests and for the simulated device. Not part of any program. */
#pragma once

#include <stddef.h>

struct host_kernel {
	const char *name;
	size_t arguments_bytes;
	/* Runs all blocks, one after another: block i is number block_order[i] (y·grid_x + x); NULL: ascending. block_x is KERNEL_THREADS. Any
	 * thread, several at once. */
	void (*run)(const void *arguments, unsigned grid_x, unsigned grid_y, unsigned block_x, const unsigned *block_order);
};

#ifdef __cplusplus
extern "C" {
#endif
extern const struct host_kernel host_kernels[]; /* ends with a NULL name */
#ifdef __cplusplus
}
#endif
