/* check.h: NVIDIA's error codes as statuses, with the library's own words and the name of the call that met the error. That call need not be the
 * one that caused it: a device works later than it is asked to. */
#pragma once

#include "core/base/status.h"

#include <cuda_runtime_api.h>
#include <cudnn.h>

/* ST_OK; ST_MEMORY when device or host memory is short, else ST_DEVICE. `call` is the text of a call: what is left of its '(' is named. */
enum status cuda_status(cudaError_t error, const char *call);
/* The GPU that sentences name from now on; before anything else is asked of it. */
void cuda_status_device(int device);
enum status cudnn_status(cudnnStatus_t error, const char *call);

#define CUDA(call) cuda_status((call), #call)
#define CUDNN(call) cudnn_status((call), #call)
#define CUDA_TRY(call) TRY(CUDA(call))
#define CUDNN_TRY(call) TRY(CUDNN(call))
