/* check.c: see check.h. */
#include "core/backend/cuda/check.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int name_length(const char *call)
{
	return (int)strcspn(call, "(");
}

/* A process has one. cudaGetDevice would not do: it fails, too, when the device is dead. */
static int status_device = -1;

void cuda_status_device(int device)
{
	status_device = device;
}

enum status cuda_status(cudaError_t error, const char *call)
{
	if (error == cudaSuccess)
		return ST_OK;
	char where[24] = "";
	if (status_device >= 0)
		snprintf(where, sizeof where, "GPU %d: ", status_device);
	return FAIL(error == cudaErrorMemoryAllocation ? ST_MEMORY : ST_DEVICE, "%s%.*s: %s (%s)", where, name_length(call), call, cudaGetErrorString(error),
		cudaGetErrorName(error));
}

enum status cudnn_status(cudnnStatus_t error, const char *call)
{
	char words[STATUS_MESSAGE_BYTES_MAX / 2] = "";
	if (error == CUDNN_STATUS_SUCCESS)
		return ST_OK;
	cudnnGetLastErrorString(words, sizeof words);
	for (char *end = words + strlen(words); end > words && (end[-1] == '\n' || end[-1] == ' ');)
		*--end = 0;
	bool memory = error == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED || error == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
	return FAIL(memory ? ST_MEMORY : ST_DEVICE, "%.*s: %s%s%s", name_length(call), call, cudnnGetErrorString(error), words[0] ? ": " : "", words);
}
