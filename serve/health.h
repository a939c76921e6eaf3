/* health.h: what is answered at once on the I/O thread: /ping, /execution-parameters, /metrics. */
#pragma once

#include "serve/route.h"

/* 200 with nothing when ready; 503 while loading or draining; 500 with one line of JSON saying why when loading failed. */
enum turn ping_begin(struct request *request);
/* {"MaxConcurrentTransforms", "MaxPayloadInMB"}; no BatchStrategy, which the SDK's local mode would not take. */
enum turn parameters_begin(struct request *request);
enum turn metrics_begin(struct request *request);
