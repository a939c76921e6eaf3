/* gpus.h: GPUs that SageMaker has, described to cuDNN as it would describe them itself if they were here.
 *
 * The numbers are from NVIDIA's data sheets and the CUDA programming guide's table of compute capabilities. */
#pragma once

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

struct gpu {
	const char *name; /* as the tests call it */
	const char *full_name;
	int capability;   /* × 10 */
	int multiprocessors, shared_bytes_optin, shared_bytes_reserved, blocks_per_multiprocessor, threads_per_multiprocessor;
	int l2_bytes, clock_khz, memory_clock_khz;
	int64_t memory_bytes;
};

static const struct gpu gpus[] = {
#if CUDA_FLAVOUR == 12
	{"V100", "Tesla V100-SXM2-16GB", 70, 80, 98304, 0, 32, 2048, 6291456, 1530000, 877000, 16935682048},
#endif
	{"T4", "Tesla T4", 75, 40, 65536, 0, 16, 1024, 4194304, 1590000, 5001000, 15843721216},
	{"A10G", "NVIDIA A10G", 86, 80, 101376, 1024, 16, 1536, 6291456, 1710000, 6251000, 23836098560},
	{"L4", "NVIDIA L4", 89, 58, 101376, 1024, 24, 1536, 50331648, 2040000, 6251000, 23836098560},
	{"A100", "NVIDIA A100-SXM4-40GB", 80, 108, 166912, 1024, 32, 2048, 41943040, 1410000, 1215000, 42331013120},
	{"H100", "NVIDIA H100 80GB HBM3", 90, 132, 232448, 1024, 32, 2048, 52428800, 1980000, 2619000, 84942979072},
	{"B200", "NVIDIA B200", 100, 148, 232448, 1024, 32, 2048, 132644864, 1965000, 3996000, 191514411008},
};
enum { GPUS = sizeof gpus / sizeof gpus[0], GPU_JSON_BYTES = 1536 };

static inline void gpu_json(const struct gpu *gpu, char json[GPU_JSON_BYTES])
{
	snprintf(json, GPU_JSON_BYTES,
		"{\"deviceName\":\"%s\",\"deviceVer\":%d,\"cudaDeviceId\":0,\"pciDeviceId\":4,\"isTccDriver\":0,\"driverVer\":%d,\"supportCoopLaunch\":1,"
		"\"multiProcessorCount\":%d,\"warpSize\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,\"maxCtasPerSM\":%d,"
		"\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,\"maxRegistersPerSM\":65536,"
		"\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%d,\"reservedSharedMemoryPerBlock\":%d,"
		"\"totalGlobalMem\":%" PRId64 ",\"smClockRateKHz\":%d,\"memClockRateKHz\":%d,\"l2CacheSize\":%d}",
		gpu->full_name, gpu->capability * 10, CUDA_FLAVOUR * 1000, gpu->multiprocessors, gpu->threads_per_multiprocessor, gpu->blocks_per_multiprocessor,
		gpu->shared_bytes_optin, gpu->shared_bytes_reserved, gpu->memory_bytes, gpu->clock_khz, gpu->memory_clock_khz, gpu->l2_bytes);
}
