/* device.c: see device.h. */
#include "core/backend/cuda/device.h"

#include "core/backend/cuda/architectures.h"
#include "core/backend/cuda/check.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* --- rules ------------------------------------------------------------------------------------------------------------- */

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
	return "of that generation";
}

/* A driver runs programs of its own major version of CUDA, and of older ones. */
enum status driver_check(int driver_version, int runtime_version, const char *driver_release)
{
	const int major = runtime_version / 1000;
	if (driver_version == 0)
		return FAIL(ST_DEVICE, "no NVIDIA driver answers; has this machine a GPU, and was the container given it (docker run --gpus all)?");
	if (driver_version / 1000 < major)
		return FAIL(ST_DEVICE, "the NVIDIA driver%s%s can do CUDA %d.%d, this program runs with CUDA %d.%d: it needs a driver %s or newer",
			driver_release[0] ? " " : "", driver_release, driver_version / 1000, driver_version % 1000 / 10, major, runtime_version % 1000 / 10,
			driver_minimum(major));
	return ST_OK;
}

enum status cudnn_check(int running, int compiled)
{
	if (running / 10000 != compiled / 10000 || running < compiled)
		return FAIL(ST_DEVICE, "cuDNN %d.%d.%d answers, this program needs %d.%d.%d or a newer %d; is there an older one on LD_LIBRARY_PATH?",
			running / 10000, running / 100 % 100, running % 100, compiled / 10000, compiled / 100 % 100, compiled % 100, compiled / 10000);
	return ST_OK;
}

/* Code runs on GPUs of the same major number, and the same or a higher minor one. */
enum status device_check(const struct device_facts *device)
{
	bool runs = false;
	char known[128] = "";
#define ARCHITECTURE(capability_of) \
	runs |= device->capability / 10 == (capability_of) / 10 && device->capability >= (capability_of); \
	snprintf(known + strlen(known), sizeof known - strlen(known), "%s%d.%d", known[0] ? ", " : "", (capability_of) / 10, (capability_of) % 10);
	CUDA_ARCHITECTURES(ARCHITECTURE)
#undef ARCHITECTURE
	if (!runs)
		return FAIL(ST_DEVICE, "GPU %s (%s) has compute capability %d.%d; this program has code for %s and newer ones of the same major numbers%s",
			device->bus, device->name, device->capability / 10, device->capability % 10, known,
			device->capability == 70 ? "; for a V100 there is one with CUDA 12 (make cuda12)" : "; CUDA_VISIBLE_DEVICES can leave it out");
	return ST_OK;
}

/* --- facts ------------------------------------------------------------------------------------------------------------- */

/* The first word of the driver's line about itself that looks like a version: "NVRM version: … Kernel Module  580.65.06  Sun Jul …". */
static void driver_release_read(char release[DRIVER_RELEASE_BYTES])
{
	char line[256] = "";
	int major, minor;
	release[0] = 0;
	FILE *file = fopen("/proc/driver/nvidia/version", "r");
	if (file == NULL)
		return;
	if (fgets(line, sizeof line, file) == NULL)
		line[0] = 0;
	fclose(file);
	for (const char *word = line; *word != 0 && release[0] == 0; word += strcspn(word, " \n"), word += strspn(word, " \n"))
		if (sscanf(word, "%d.%d", &major, &minor) == 2)
			snprintf(release, DRIVER_RELEASE_BYTES, "%.*s", (int)strcspn(word, " \n"), word);
}

static enum status device_describe(int device, struct device_facts *facts)
{
	struct cudaDeviceProp properties;
	CUDA_TRY(cudaGetDeviceProperties(&properties, device));
	*facts = (struct device_facts){
		.capability = properties.major * 10 + properties.minor,
		.multiprocessors = properties.multiProcessorCount,
		.memory_bytes = properties.totalGlobalMem,
	};
	snprintf(facts->name, sizeof facts->name, "%s", properties.name);
	return CUDA(cudaDeviceGetPCIBusId(facts->bus, sizeof facts->bus, device));
}

enum status device_probe(struct device_list *list)
{
	struct device_list found = {.cudnn_version = (int)cudnnGetVersion()};
	CUDA_TRY(cudaDriverGetVersion(&found.driver_version));
	CUDA_TRY(cudaRuntimeGetVersion(&found.runtime_version));
	driver_release_read(found.driver_release);
	TRY(driver_check(found.driver_version, found.runtime_version, found.driver_release));
	TRY(cudnn_check(found.cudnn_version, CUDNN_VERSION));
	cudaError_t error = cudaGetDeviceCount(&found.count);
	if (error != cudaErrorNoDevice)
		TRY(cuda_status(error, "cudaGetDeviceCount"));
	if (found.count > DEVICES_MAX)
		found.count = DEVICES_MAX;
	for (int device = 0; device < found.count; device++) {
		TRY(device_describe(device, &found.devices[device]));
		TRY(device_check(&found.devices[device]));
	}
	*list = found;
	return ST_OK;
}
