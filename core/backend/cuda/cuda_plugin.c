/* cuda_plugin.c: what smelt_cuda.so exports (core/backend/plugin.h). */
#include "core/backend/plugin.h"

#include "core/backend/cuda/cuda_backend.h"
#include "core/backend/cuda/device.h"

const struct plugin smelt_plugin = {.stamp = PLUGIN_STAMP, .backend = &smelt_backend_cuda, .probe = device_probe};
