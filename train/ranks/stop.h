/* stop.h: being asked to stop.
 *
 * SIGTERM (StopTrainingJob, a spot interruption, MaxRuntime) and SIGINT set a flag that loops poll between steps; the platform
 * kills after 120 seconds. System calls that wait return EINTR, so nothing has to be polled while blocked. */
#pragma once

#include "core/comm/control.h"

#include <stdbool.h>

/* Installs the handlers, also as process 1 (where the kernel drops signals that have none). From here on SIGPIPE and SIGHUP are ignored
 * (a log that nobody reads is no reason to die) and so is SIGXFSZ (a file-size limit shows as a failed write). Once, before threads
 * start. ST_INTERNAL. */
enum status stop_install(void);

/* From now on a stop of the whole training (core/comm/control.h) counts as one asked of this process; NULL: no more. */
void stop_follow(struct control *control);

/* Signals that this process itself was sent: 0, 1, or 2 for more. Any thread, and unlike those below no matter who is followed: whose
 * channel may be closed by another thread meanwhile. */
int stop_signals(void);

/* True after the first signal: finish the step, write checkpoint and model, end with ST_STOPPED. Any thread. */
bool stop_requested(void);
/* True after the second: leave as fast as possible; what is not written yet is lost. Any thread. */
bool stop_now(void);
