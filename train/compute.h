/* compute.h: what this host computes with.
 *
 * In: settings, and what this machine has. Out: the backend, how many devices of it, the precision: nothing of it is `auto` any more. All hosts of
 * a training must come to the same backend and precision; their devices may be of other kinds and numbers. */
#pragma once

#include "core/backend/backend.h"
#include "core/backend/cuda/device.h"
#include "core/base/opt_ml.h"
#include "core/comm/control.h"
#include "train/settings/settings.h"

struct compute {
	const char *backend;      /* for backend_find */
	enum precision precision;
	int devices;              /* at least 1; ranks of this host */
	struct device_list gpus;  /* that answered; count 0: none is used. The first `devices` are */
	char cache_directory[OPT_ML_PATH_BYTES]; /* for choices that take time to make (core/backend/backend.h); "": none */
};

/* Asks for GPUs (core/backend/devices.h) unless the settings do without; call it before there are other threads. A machine without them costs
 * nothing. ST_SETTINGS: a precision that the backend or a device does not have, more devices than there are; ST_DEVICE: backend=cuda and none
 * answers; ST_STOPPED. With backend=auto what is wrong with GPUs is a warning, and the CPU computes. */
enum status compute_choose(const struct settings *settings, bool (*stopped)(void), struct compute *compute);

/* Appends the lines that all hosts must have alike (core/comm/rendezvous.h), beside settings_common. ST_MEMORY. */
enum status compute_common(const struct compute *compute, struct text *text);

/* One gather of all hosts' loaders: a warning on the first host when GPUs differ. control_gather's statuses. */
enum status compute_compare(const struct compute *compute, struct control *control, int host, int hosts);

/* "device backend=… …": the line that says what rank `local` of this host computes with, on `threads` threads. ST_SETTINGS: SMELT_CPU. */
enum status compute_tell(const struct compute *compute, int local, unsigned threads);
