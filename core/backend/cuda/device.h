/* device.h: which GPUs this machine has, as plain data, and why they cannot be used. No vendor's type is in here. */
#pragma once

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { DEVICES_MAX = 32, DEVICE_NAME_BYTES = 128, DEVICE_BUS_BYTES = 32, DRIVER_RELEASE_BYTES = 32 };

struct device_facts {
	char name[DEVICE_NAME_BYTES]; /* "NVIDIA A10G" */
	char bus[DEVICE_BUS_BYTES];   /* "0000:00:1E.0" */
	int capability;               /* compute capability × 10: 86 for 8.6 */
	int multiprocessors;
	uint64_t memory_bytes;
};

/* Versions as CUDA writes them: 1000·major + 10·minor; of cuDNN 10000·major + 100·minor + patch. */
struct device_list {
	int driver_version;  /* the newest CUDA that the driver can do */
	int runtime_version; /* CUDA that this program runs with */
	int cudnn_version;
	char driver_release[DRIVER_RELEASE_BYTES]; /* "580.65.06"; "" when the system does not tell */
	int count;           /* 0: there is a driver and no GPU */
	struct device_facts devices[DEVICES_MAX];
};

/* Fills the list and refuses what cannot work. It starts CUDA in this process, which then must not fork: call it in a child that ends soon after.
 * ST_DEVICE: no driver; a driver that is too old (the sentence names it and the oldest that will do); cuDNN of another version than was compiled
 * with; a GPU that this program has no code for (the sentence names it and those that there is code for). */
enum status device_probe(struct device_list *list);

/* The rules by themselves. */
enum status driver_check(int driver_version, int runtime_version, const char *driver_release);
enum status cudnn_check(int running, int compiled); /* the same major version, and not older */
enum status device_check(const struct device_facts *device);
