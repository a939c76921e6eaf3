/* planning.h: what the tests of planning share: cuDNN itself, on a machine that need not have a GPU.
 *
 * cuDNN offers engines that it compiles at run time only where it finds a libcuda.so.1: a stub stands in for it, in this process alone. */
#pragma once

#include "core/backend/cuda/plan.h"
#include "core/backend/cuda/unit_graphs.h"
#include "test/cuda/gpus.h"
#include "test/unit/scratch.h"

#include <dlfcn.h>

/* Beside the test programs: build/cuda13/test/libcuda.so.1. Before the first call of cuDNN; it stays loaded. */
static inline void libcuda_stub_load(void)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
	if (length < 0)
		fail_msg("/proc/self/exe cannot be read");
	path[length] = 0;
	strcpy(strrchr(path, '/') + 1, "libcuda.so.1");
	if (dlopen(path, RTLD_NOW | RTLD_GLOBAL) == NULL)
		fail_msg("%s: %s", path, dlerror());
	/* cuDNN loads the compiler and lets it go, and with it the name by which a search for leaks would know whose they are. */
	snprintf(path, sizeof path, "libnvrtc.so.%d", CUDA_FLAVOUR);
	if (dlopen(path, RTLD_NOW | RTLD_NODELETE) == NULL)
		fail_msg("%s", dlerror());
}

static inline const struct gpu *gpu_find(const char *name)
{
	for (int i = 0; i < GPUS; i++)
		if (strcmp(gpus[i].name, name) == 0)
			return &gpus[i];
	fail_msg("no GPU called %s", name);
	return NULL;
}

enum { WORKSPACE_BYTES_MAX = 256 << 20 }; /* as the backend allows */

static inline struct planner *planner_for(const struct gpu *gpu, const struct planner_config *flags)
{
	char json[GPU_JSON_BYTES];
	struct planner_config config = *flags;
	struct planner *planner = NULL;
	gpu_json(gpu, json);
	config.device_json = json;
	if (config.workspace_bytes_max == 0)
		config.workspace_bytes_max = WORKSPACE_BYTES_MAX;
	OK(planner_open(&config, &planner));
	return planner;
}

static inline const char *element_name(enum element element)
{
	return element == ELEMENT_FP32 ? "fp32" : element == ELEMENT_FP16 ? "fp16" : "bf16";
}

/* What cuDNN keeps until the process ends is not ours. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libcudnn\nleak:libcuda\nleak:libnvrtc\nleak:libnvJitLink\n";
}
