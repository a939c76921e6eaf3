/* cudart_kernel.c: our kernels, by name. A library's bytes are not looked into: a kernel is what its host build does, its blocks in a random
 * order. */
#include "test/sim/cudart.h"

#include <stdlib.h>
#include <string.h>

enum { TABLES_MAX = 8, SHARED_BYTES_MAX = 48 << 10, BLOCK_THREADS_MAX = 1024 };

struct library {
	struct object object;
};

struct kernel {
	struct object object;
	const struct host_kernel *host;
	const struct library *library;
	int shared_bytes_max;
};

/* The program's own, when this library was linked with them. */
extern const struct host_kernel host_kernels[] __attribute__((weak));

static const struct host_kernel *tables[TABLES_MAX];
static size_t tables_count;

void sim_kernels_add(const struct host_kernel *kernels)
{
	lock_take();
	if (tables_count == TABLES_MAX)
		sim_abort("sim_kernels_add: more than %d tables", TABLES_MAX);
	tables[tables_count++] = kernels;
	lock_give();
}

static const struct host_kernel *kernel_find(const struct host_kernel *table, const char *name)
{
	for (; table && table->name; table++)
		if (!strcmp(table->name, name))
			return table;
	return NULL;
}

/* --- libraries -------------------------------------------------------------------------------------------------------------------- */

static cudaError_t library_load(cudaLibrary_t *handle, const void *code)
{
	if (!code)
		return cudaErrorInvalidValue;
	*handle = (cudaLibrary_t)object_make(OBJECT_LIBRARY, sizeof(struct library));
	return cudaSuccess;
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code, enum cudaJitOption *jit_options, void **jit_values, unsigned jit_count,
	enum cudaLibraryOption *options, void **values, unsigned count)
{
	(void)jit_options, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
	CALL("cudaLibraryLoadData", library_load(library, code));
}

static cudaError_t kernel_get(cudaKernel_t *handle, cudaLibrary_t library, const char *name)
{
	object_check(library, OBJECT_LIBRARY, "cudaLibraryGetKernel");
	const struct host_kernel *host = kernel_find(host_kernels, name);
	for (size_t i = 0; i < tables_count && !host; i++)
		host = kernel_find(tables[i], name);
	if (!host)
		return cudaErrorSymbolNotFound;
	struct kernel *kernel = object_make(OBJECT_KERNEL, sizeof *kernel);
	kernel->host = host;
	kernel->library = (const struct library *)library;
	kernel->shared_bytes_max = SHARED_BYTES_MAX;
	*handle = (cudaKernel_t)kernel;
	return cudaSuccess;
}

cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name)
{
	CALL("cudaLibraryGetKernel", kernel_get(kernel, library, name));
}

cudaError_t cudaLibraryUnload(cudaLibrary_t library)
{
	CALL("cudaLibraryUnload", (object_destroy(library, OBJECT_LIBRARY, "cudaLibraryUnload"), cudaSuccess));
}

static struct kernel *kernel_of(const void *handle, const char *call)
{
	object_check(handle, OBJECT_KERNEL, call);
	struct kernel *kernel = (struct kernel *)(uintptr_t)handle;
	object_check(kernel->library, OBJECT_LIBRARY, call);
	return kernel;
}

static cudaError_t kernel_attribute_set(struct kernel *kernel, enum cudaFuncAttribute attribute, int value)
{
	struct sim_device_info info;
	sim_device_info(&info);
	if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
		if (value < 0 || value > device_current()->model->shared_optin_kb << 10)
			return cudaErrorInvalidValue;
		kernel->shared_bytes_max = value;
	} else if (attribute != cudaFuncAttributePreferredSharedMemoryCarveout) {
		return cudaErrorInvalidValue;
	}
	return cudaSuccess;
}

cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t kernel, enum cudaFuncAttribute attribute, int value, int device)
{
	CALL("cudaKernelSetAttributeForDevice", device < 0 || device >= devices_count() ? cudaErrorInvalidDevice :
		kernel_attribute_set(kernel_of(kernel, "cudaKernelSetAttributeForDevice"), attribute, value));
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
	CALL("cudaFuncSetAttribute", kernel_attribute_set(kernel_of(kernel, "cudaFuncSetAttribute"), attribute, value));
}

static cudaError_t kernel_attributes(const struct kernel *kernel, struct cudaFuncAttributes *attributes)
{
	*attributes = (struct cudaFuncAttributes){.maxThreadsPerBlock = BLOCK_THREADS_MAX, .maxDynamicSharedSizeBytes = kernel->shared_bytes_max};
	return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *kernel)
{
	CALL("cudaFuncGetAttributes", kernel_attributes(kernel_of(kernel, "cudaFuncGetAttributes"), attributes));
}

/* --- launches ---------------------------------------------------------------------------------------------------------------------- */

struct launch {
	const struct host_kernel *host;
	unsigned grid_x, grid_y, block_x;
	_Alignas(16) unsigned char arguments[]; /* frozen when it was enqueued */
};

static enum sim_progress launch_run(void *context)
{
	const struct launch *launch = context;
	unsigned blocks = launch->grid_x * launch->grid_y, *order = sim_allocate(blocks, sizeof *order);
	for (unsigned i = 0; i < blocks; i++) {
		unsigned j = (unsigned)random_below(i + 1);
		order[i] = order[j];
		order[j] = i;
	}
	launch->host->run(launch->arguments, launch->grid_x, launch->grid_y, launch->block_x, order);
	free(order);
	return SIM_DONE;
}

static cudaError_t launch_push(const cudaLaunchConfig_t *config, const struct kernel *kernel, void **arguments)
{
	dim3 grid = config->gridDim, block = config->blockDim;
	if (!grid.x || !grid.y || !grid.z || grid.x > 2147483647 || grid.y > 65535 || !block.x || !block.y || !block.z
		|| (uint64_t)block.x * block.y * block.z > BLOCK_THREADS_MAX)
		return cudaErrorInvalidConfiguration;
	if (config->dynamicSmemBytes > (size_t)kernel->shared_bytes_max)
		return cudaErrorInvalidValue;
	if (grid.z != 1 || block.y != 1 || block.z != 1 || (uint64_t)grid.x * grid.y > UINT32_MAX)
		sim_abort("%s: a grid with z, a block with y or z, or more than 2^32 blocks is not simulated", kernel->host->name);
	size_t bytes = kernel->host->arguments_bytes;
	struct launch *launch = sim_allocate(1, sizeof *launch + bytes);
	*launch = (struct launch){kernel->host, grid.x, grid.y, block.x};
	if (bytes)
		memcpy(launch->arguments, arguments[0], bytes);
	struct sim_work work = {.name = kernel->host->name, .run = launch_run};
	cudaError_t error = stream_push(stream_of(config->stream, kernel->host->name), &work, launch, sizeof *launch + bytes);
	free(launch);
	return error;
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **arguments)
{
	CALL("cudaLaunchKernelExC", launch_push(config, kernel_of(kernel, "cudaLaunchKernelExC"), arguments));
}

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes, cudaStream_t stream)
{
	cudaLaunchConfig_t config = {.gridDim = grid, .blockDim = block, .dynamicSmemBytes = shared_bytes, .stream = stream};
	CALL("cudaLaunchKernel", launch_push(&config, kernel_of(kernel, "cudaLaunchKernel"), arguments));
}
