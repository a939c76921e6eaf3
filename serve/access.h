/* access.h: one line for an invocation that was answered: who, how it ended, how much, and where the time went. Bodies are never logged. */
#pragma once

#include "serve/request.h"

/* access path=/invocations status=200 id=… bytes_in=12416 bytes_out=1830 records=1 receive_ms=0.031 … encode_ms=0.040 total_ms=4.512 */
void access_log(const struct request *request, size_t bytes_out, int64_t total_us);
