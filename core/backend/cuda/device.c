/* device.c: see device.h. */
#include "core/backend/cuda/device.h"

#include "core/backend/cuda/check.h"

#include <stdio.h>
#include <string.h>

/* --- versions ---------------------------------------------------------------------------------------------------------- */

/* The oldest driver that runs a major version of CUDA. */
static const struct driver_minimum {
	int major;
	const char *release;
} minimums[] = {{12, "525.60.13"}, {13, "580.65.06"}};

static const char *driver_minimum(int major)
{
	for (size_t i = 0; i < sizeof minimums / sizeof minimums[0]; i++)
		if (minimums[i].major == major)
			return minimums[i].release;
	return "one of a newer generation";
}

/* A driver runs programs of its own major version of CUDA, and of older ones. */
enum status driver_check(int driver_version, int runtime_version, const char *release)
{
	const int major = runtime_version / 1000;
	if (driver_version == 0)
		return FAIL(ST_DEVICE, "no NVIDIA driver answers; has this machine a GPU, and was the container given it (docker run --gpus all)?");
	if (driver_version / 1000 < major)
		return FAIL(ST_DEVICE, "the NVIDIA driver%s%s can do CUDA %d.%d, this program needs CUDA %d: driver %s or newer", release[0] ? " " : "", release,
			driver_version / 1000, driver_version % 1000 / 10, major, driver_minimum(major));
	return ST_OK;
}

enum status cudnn_check(size_t running, size_t compiled)
{
	if (running / 10000 != compiled / 10000 || running < compiled)
		return FAIL(ST_DEVICE, "cuDNN %zu.%zu.%zu is installed, this program needs %zu.%zu.%zu or a newer %zu", running / 10000, running / 100 % 100,
			running % 100, compiled / 10000, compiled / 100 % 100, compiled % 100, compiled / 10000);
	return ST_OK;
}

/* "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun …": the first word with two dots of digits. */
static void driver_release(char release[32])
{
	char line[256] = "";
	release[0] = 0;
	FILE *file = fopen("/proc/driver/nvidia/version", "r");
	if (file == NULL)
		return;
	if (fgets(line, sizeof line, file) == NULL)
		line[0] = 0;
	fclose(file);
	int major, minor;
	for (const char *word = line; *word != 0; word += strcspn(word, " "), word += strspn(word, " "))
		if (sscanf(word, "%d.%d", &major, &minor) == 2) {
			snprintf(release, 32, "%.*s", (int)strcspn(word, " \n"), word);
			return;
		}
}

/* --- devices ----------------------------------------------------------------------------------------------------------- */

static enum status device_describe(int device, int driver_version, int runtime_version, struct device_facts *facts)
{
	struct cudaDeviceProp properties;
	CUDA_TRY(cudaGetDeviceProperties(&properties, device));
	*facts = (struct device_facts){
		.major = properties.major,
		.minor = properties.minor,
		.memory_bytes = properties.totalGlobalMem,
		.driver_version = driver_version,
		.runtime_version = runtime_version,
	};
	snprintf(facts->name, sizeof facts->name, "%s", properties.name);
	return ST_OK;
}

enum status devices_probe(struct device_facts *facts, int max, int *count)
{
	int driver, runtime, found = 0;
	char release[32];
	CUDA_TRY(cudaDriverGetVersion(&driver));
	CUDA_TRY(cudaRuntimeGetVersion(&runtime));
	driver_release(release);
	TRY(driver_check(driver, runtime, release));
	TRY(cudnn_check(cudnnGetVersion(), CUDNN_VERSION));
	cudaError_t error = cudaGetDeviceCount(&found);
	if (error != cudaErrorNoDevice)
		TRY(cuda_status(error, "cudaGetDeviceCount"));
	if (found > max)
		found = max;
	for (int device = 0; device < found; device++)
		TRY(device_describe(device, driver, runtime, &facts[device]));
	*count = found;
	return ST_OK;
}
