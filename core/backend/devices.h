/* devices.h: which devices of the plugin (core/backend/plugin.h) this machine has.
 *
 * Asking starts the driver in the process that asks, and a process whose driver has started must not fork. So a child asks, tells through a pipe
 * and is gone; whether it crashes or hangs, the caller learns of it as a failure. */
#pragma once

#include "core/backend/plugin.h"

#include <stdbool.h>

/* Whether it is worth asking: a driver's device file is there, or the user names a library. Costs nothing. */
bool devices_possible(void);

/* ST_DEVICE: no library (plugin_open), no driver, no device, one that does not fit, or no answer within timeout_us. ST_STOPPED as soon as
 * `stopped` says so after a signal. The process must have no other threads. */
enum status devices_find(int64_t timeout_us, bool (*stopped)(void), struct device_list *list);
