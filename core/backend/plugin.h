/* plugin.h: a backend that is no part of the program: smelt_cuda.so, opened while the program runs, only when it is asked for.
 *
 * So the program starts without any file of the device's vendor. The library exports one table, `smelt_plugin`; what it needs of the program
 * (status, log) the program exports. Both are built from the same sources: the table begins with a stamp, and a library with another one is
 * refused. */
#pragma once

#include "core/backend/backend.h"
#include "core/backend/cuda/device.h"

#include <stdint.h>

/* Changed by hand when what a call means has changed; the sizes notice by themselves when what travels between the two has another shape. */
struct plugin_stamp {
	char mark[16];
	uint32_t meaning;
	uint32_t backend_bytes, config_bytes, reduction_bytes, network_bytes, layout_bytes, sample_bytes, list_bytes;
};
#define PLUGIN_STAMP \
	{.mark = "smelt plugin", .meaning = 1, .backend_bytes = sizeof(struct backend), .config_bytes = sizeof(struct backend_config), \
		.reduction_bytes = sizeof(struct reduction), .network_bytes = sizeof(struct network), .layout_bytes = sizeof(struct params_layout), \
		.sample_bytes = sizeof(struct sample), .list_bytes = sizeof(struct device_list)}

struct plugin {
	struct plugin_stamp stamp; /* first */
	const struct backend *backend;
	/* device_probe of core/backend/cuda/device.h, which also refuses devices that the library has no code for. It runs in a process of its own
	 * (core/backend/devices.h). */
	enum status (*probe)(struct device_list *list);
};

#define PLUGIN_SYMBOL "smelt_plugin"
extern const struct plugin smelt_plugin; /* the library's: core/backend/cuda/cuda_plugin.c */

/* Opens the library, once a process: the one that $SMELT_CUDA_LIBRARY names, else the first smelt_cuda.so that is there beside the program, in
 * ../lib/smelt or (in a build folder) in ../cuda13 from there. It stays open. ST_DEVICE: none is there, a library that it needs is missing, or it
 * belongs to another smelt; the sentence says which file and what to do. One thread. */
enum status plugin_open(const struct plugin **plugin);
