/* launch.c: kernels by name, through the runtime's library interface, so that no host file needs NVIDIA's compiler. */
#include "core/backend/cuda/launch.h"

#include "core/backend/cuda/check.h"
#include "core/backend/cuda/grids.h"
#include "core/backend/cuda/kernels_images.h"

#include <stdlib.h>

/* --- the list of kernels: plain ones, then three of each for elements ---------------------------------------------------- */

enum {
#define X(name, arguments) KERNEL_##name,
	KERNELS_PLAIN(X)
#undef X
#define X(name, arguments) KERNEL_##name##_fp32, KERNEL_##name##_fp16, KERNEL_##name##_bf16,
	KERNELS_ELEMENT(X)
#undef X
	KERNELS_COUNT
};

static const char *const kernel_names[KERNELS_COUNT] = {
#define X(name, arguments) #name,
	KERNELS_PLAIN(X)
#undef X
#define X(name, arguments) #name "_fp32", #name "_fp16", #name "_bf16",
	KERNELS_ELEMENT(X)
#undef X
};

/* --- loading ----------------------------------------------------------------------------------------------------------------- */

struct kernels_loaded {
	cudaLibrary_t library;
	cudaKernel_t kernels[KERNELS_COUNT];
};

/* The code for a GPU of that compute capability: of the same major number, the highest minor one that is not above. */
static enum status image_find(int major, int minor, const struct kernels_image **image)
{
	const struct kernels_image *best = NULL;
	for (size_t i = 0; i < kernels_images_count; i++)
		if (kernels_images[i].capability / 10 == major && kernels_images[i].capability % 10 <= minor)
			best = &kernels_images[i];
	if (best == NULL)
		return FAIL(ST_DEVICE, "a GPU of compute capability %d.%d: this program has no kernels for it", major, minor);
	*image = best;
	return ST_OK;
}

static enum status kernels_find(struct kernels_loaded *loaded)
{
	int device, major, minor;
	const struct kernels_image *image = NULL;
	CUDA_TRY(cudaGetDevice(&device));
	CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
	CUDA_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
	TRY(image_find(major, minor, &image));
	CUDA_TRY(cudaLibraryLoadData(&loaded->library, image->bytes, NULL, NULL, 0, NULL, NULL, 0));
	for (int i = 0; i < KERNELS_COUNT; i++) {
		/* Asking for its attributes brings a kernel to the device now: later might be while a graph is recorded. */
		struct cudaFuncAttributes attributes;
		enum status status = CUDA(cudaLibraryGetKernel(&loaded->kernels[i], loaded->library, kernel_names[i]));
		if (status == ST_OK)
			status = CUDA(cudaFuncGetAttributes(&attributes, (const void *)loaded->kernels[i]));
		if (status != ST_OK)
			return status_prefix(status, "kernel %s", kernel_names[i]);
	}
	return ST_OK;
}

enum status kernels_load(struct kernels_loaded **kernels)
{
	struct kernels_loaded *loaded = calloc(1, sizeof *loaded);
	if (loaded == NULL)
		return FAIL(ST_MEMORY, "the table of GPU kernels: out of memory");
	enum status status = kernels_find(loaded);
	if (status != ST_OK) {
		kernels_unload(loaded);
		return status;
	}
	*kernels = loaded;
	return ST_OK;
}

void kernels_unload(struct kernels_loaded *kernels)
{
	if (kernels == NULL)
		return;
	if (kernels->library != NULL)
		cudaLibraryUnload(kernels->library);
	free(kernels);
}

/* --- launching --------------------------------------------------------------------------------------------------------------- */

static enum status kernel_launch(const struct launcher *launcher, int kernel, struct grid grid, const void *arguments)
{
	if (grid.x == 0 || grid.y == 0)
		return ST_OK;
	/* The runtime's interface is older than const. */
	const union {
		const void *in;
		void *out;
	} argument = {.in = arguments};
	const cudaLaunchConfig_t config = {.gridDim = {grid.x, grid.y, 1}, .blockDim = {KERNEL_THREADS, 1, 1}, .stream = launcher->stream};
	const cudaError_t launched = cudaLaunchKernelExC(&config, (const void *)launcher->kernels->kernels[kernel], (void *[]){argument.out});
	return launched == cudaSuccess ? ST_OK : status_prefix(cuda_status(launched, "cudaLaunchKernelExC"), "kernel %s, %u x %u blocks",
		kernel_names[kernel], grid.x, grid.y);
}

/* Of the three kernels for elements that begin at `first`. */
static int kernel_of_element(int first, enum element element)
{
	MUST(element == ELEMENT_FP32 || element == ELEMENT_FP16 || element == ELEMENT_BF16);
	return first + (element == ELEMENT_FP32 ? 0 : element == ELEMENT_FP16 ? 1 : 2);
}

#define LAUNCH_PLAIN(name, arguments) \
	enum status launch_##name(const struct launcher *launcher, const struct arguments *a) \
	{ \
		return kernel_launch(launcher, KERNEL_##name, grid_##name(a), a); \
	}
#define LAUNCH_ELEMENT(name, arguments) \
	enum status launch_##name(const struct launcher *launcher, const struct arguments *a) \
	{ \
		return kernel_launch(launcher, kernel_of_element(KERNEL_##name##_fp32, launcher->element), grid_##name(a), a); \
	}
KERNELS_PLAIN(LAUNCH_PLAIN)
KERNELS_ELEMENT(LAUNCH_ELEMENT)
