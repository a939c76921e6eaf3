/* plugin.h: a backend that is no part of the program: smelt_cuda.so, opened while the program runs, only when it is asked for.
 *
 * So the program starts without any file of the device's vendor. The library exports one table, `smelt_plugin`; what it needs of the program
 * (status, log) the program exports. Both are built from the same sources: the table begins with a stamp, and a library with another one is
 * refused. */
#pragma once

#include "core/backend/backend.h"

#include <stdint.h>

/* One device of this machine, in plain words. */
struct device_facts {
	char name[128];          /* "NVIDIA A10G" */
	int major, minor;        /* compute capability: 7, 5 for a T4 */
	uint64_t memory_bytes;
	int driver_version, runtime_version; /* CUDA's count: 13000 is 13.0. The driver's is the newest that it can do */
};

enum { DEVICES_MAX = 64 };

/* Changed by hand when what a call means has changed; the sizes notice by themselves when what travels between the two has another shape. */
struct plugin_stamp {
	char mark[16];
	uint32_t meaning;
	uint32_t backend_bytes, config_bytes, reduction_bytes, network_bytes, layout_bytes, sample_bytes, facts_bytes;
};
#define PLUGIN_STAMP \
	{.mark = "smelt plugin", .meaning = 1, .backend_bytes = sizeof(struct backend), .config_bytes = sizeof(struct backend_config), \
		.reduction_bytes = sizeof(struct reduction), .network_bytes = sizeof(struct network), .layout_bytes = sizeof(struct params_layout), \
		.sample_bytes = sizeof(struct sample), .facts_bytes = sizeof(struct device_facts)}

struct plugin {
	struct plugin_stamp stamp; /* first */
	const struct backend *backend;
	/* Fills facts[0..max) with the devices that answer, *count of them, at most max; ST_OK with 0: there is a driver and no device. ST_DEVICE: no
	 * driver, or one too old; or a device that this library has no code for. Touches the driver, so it runs in a process of its own
	 * (core/backend/devices.h). */
	enum status (*devices)(struct device_facts *facts, int max, int *count);
};

#define PLUGIN_SYMBOL "smelt_plugin"
extern const struct plugin smelt_plugin; /* the library's: core/backend/cuda/cuda_plugin.c */

/* Opens the library, once a process: the one that $SMELT_CUDA_LIBRARY names, else the first smelt_cuda.so that is there beside the program, in
 * ../lib/smelt or (in a build folder) in ../cuda13 from there. It stays open. ST_DEVICE: none is there, a library that it needs is missing, or it
 * belongs to another smelt; the sentence says which file and what to do. One thread. */
enum status plugin_open(const struct plugin **plugin);

/* Whether plugin_open finds a file to open. */
bool plugin_exists(void);
