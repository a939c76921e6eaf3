/* device.h: which GPUs this machine has, as plain data, and why they cannot be used. No vendor's type is in here. */
#pragma once

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { DEVICES_MAX = 32, DEVICE_NAME_BYTES = 128, DEVICE_BUS_BYTES = 32 };

struct device_facts {
	char name[DEVICE_NAME_BYTES]; /* "NVIDIA A10G" */
	char bus[DEVICE_BUS_BYTES];   /* "0000:00:1e.0" */
	int capability;               /* compute capability × 10: 86 for 8.6 */
	int multiprocessors;
	uint64_t memory_bytes;
};

/* Versions as CUDA writes them: 1000·major + 10·minor; of cuDNN 10000·major + 100·minor + patch. */
struct device_list {
	int driver_version;  /* the newest CUDA that the driver can run; 0: there is none */
	int runtime_version; /* CUDA that this program runs with */
	int cudnn_version;
	char driver_release[32]; /* "580.65.06"; "" when the system does not tell */
	int count;
	struct device_facts devices[DEVICES_MAX];
};

/* Fills the list and refuses what cannot work. It starts CUDA in this process, which then must not fork: call it in a child that ends soon after.
 * ST_DEVICE: no driver; a driver that is too old (names it and the oldest that will do); no GPU; cuDNN of another version than was
 * compiled with. */
enum status device_probe(struct device_list *list);

/* ST_DEVICE when code for none of `capabilities` (compute capability × 10) runs on that device: the sentence names it and all of them. Code runs
 * on the same major number and the same or a higher minor one. */
enum status device_supported(const struct device_facts *device, const int capabilities[], int count);

/* The rule on versions by itself, for device_probe and tests. */
enum status driver_sufficient(int driver_version, int runtime_version, const char *driver_release);
