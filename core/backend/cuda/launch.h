/* launch.h: our kernels, loaded for this device and started on a stream.
 *
 * Each function computes the grid from the arguments and enqueues one kernel; it may be captured. ST_DEVICE with CUDA's words. */
#pragma once

#include "core/backend/cuda/graph.h"
#include "core/backend/cuda/kernels.h"
#include "core/base/status.h"

#include <cuda_runtime_api.h>

struct kernels_loaded;

/* For the current device. ST_DEVICE when no image in this program is for it: names its architecture and those that there are. */
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
LAUNCH_DECLARE(gather, gather)
LAUNCH_DECLARE(norm_sums, norm_sums)
LAUNCH_DECLARE(norm_fold, norm_fold)
LAUNCH_DECLARE(norm_constants, norm_constants)
LAUNCH_DECLARE(norm_constants_running, norm_constants_running)
LAUNCH_DECLARE(norm_apply, norm_apply)
LAUNCH_DECLARE(norm_backward_sums, norm_backward_sums)
LAUNCH_DECLARE(norm_backward_constants, norm_backward_constants)
LAUNCH_DECLARE(norm_backward_apply, norm_backward_apply)
LAUNCH_DECLARE(add, add)
LAUNCH_DECLARE(pool_forward, pool_forward)
LAUNCH_DECLARE(pool_backward, pool_backward)
LAUNCH_DECLARE(features, features)
LAUNCH_DECLARE(logits, logits)
LAUNCH_DECLARE(loss, loss)
LAUNCH_DECLARE(counters_add, counters_add)
LAUNCH_DECLARE(head_weight_gradient, head_weight_gradient)
LAUNCH_DECLARE(head_input_gradient, head_input_gradient)
LAUNCH_DECLARE(squares, squares)
LAUNCH_DECLARE(update_prepare, update_prepare)
LAUNCH_DECLARE(update_live, update_live)
LAUNCH_DECLARE(update_dead, update_dead)
LAUNCH_DECLARE(skip_note, skip_note)
LAUNCH_DECLARE(average, average)
LAUNCH_DECLARE(from_float, convert)
LAUNCH_DECLARE(to_float, convert)
LAUNCH_DECLARE(share_out, share)
LAUNCH_DECLARE(share_back, share)
