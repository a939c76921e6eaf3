/* device.h: which GPUs this machine has, and why they cannot be used. No vendor's type is in here. */
#pragma once

#include "core/backend/plugin.h"
#include "core/base/status.h"

/* What struct plugin's `devices` is, for the GPUs that CUDA shows. It starts CUDA in this process, which then must not fork. ST_DEVICE: no driver,
 * one too old (the sentence names it and the oldest that will do), cuDNN of another version than was compiled with, or a GPU that no code is for. */
enum status devices_probe(struct device_facts *facts, int max, int *count);

/* The rule on drivers by itself. driver_version: the newest CUDA that the driver can do, 0 when there is no driver; release: what the driver calls
 * itself ("580.65.06"), "" when that is not known. */
enum status driver_check(int driver_version, int runtime_version, const char *release);

/* The rule on cuDNN: what runs is of the major version that was compiled with, and not older. Versions are 10000·major + 100·minor + patch. */
enum status cudnn_check(size_t running, size_t compiled);
