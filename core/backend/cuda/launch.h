/* launch.h: our kernels, loaded for this device and started on a stream.
 *
 * Each function computes the grid from the arguments and enqueues one kernel; it may be captured. ST_DEVICE with CUDA's words. */
#pragma once

#include "core/backend/cuda/graph.h"
#include "core/backend/cuda/kernels.h"
#include "core/base/status.h"

#include <cuda_runtime_api.h>

struct kernels_loaded;

/* For the current device. ST_DEVICE when no image in this program is for it (which device_check of device.h finds out before). */
enum status kernels_load(struct kernels_loaded **kernels);
void kernels_unload(struct kernels_loaded *kernels); /* accepts NULL */

/* How kernels are started: which ones, for which element, where. */
struct launcher {
	const struct kernels_loaded *kernels;
	enum element element;
	cudaStream_t stream;
};

/* launch_gather(launcher, &arguments), and so on for each kernel of kernels.h. */
#define LAUNCH_DECLARE(name, arguments) enum status launch_##name(const struct launcher *launcher, const struct arguments *a);
KERNELS_PLAIN(LAUNCH_DECLARE)
KERNELS_ELEMENT(LAUNCH_DECLARE)
#undef LAUNCH_DECLARE
