/* selftest.h: `train --selftest`: does what this machine's GPUs compute agree with the CPU, and how fast are they? */
#pragma once

#include "core/base/status.h"

/* Tries every GPU of the machine, all at once, each in a process of its own, in a minute: every unit of both networks in every precision
 * against the cpu backend, sums over the GPUs, speeds. Writes the report to standard output, line by line as it comes. The process must have no other
 * threads. ST_DEVICE: no GPU answers (core/backend/devices.h), or something in the report went wrong. */
enum status selftest_run(void);
