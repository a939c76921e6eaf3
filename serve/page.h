/* page.h: the page for a person with a browser, and what it asks: GET /, GET /page/status, POST /page/classify. */
#pragma once

#include "serve/route.h"

/* The file serve/page/page.html, as it was when this program was built. */
enum turn page_begin(struct request *request);

/* {"model": card (serve/model.h) or null, "state", "reason": why it failed or null, "version", "uptime_seconds",
 *  "requests_per_second", "batch": {"images_per_second", "images_per_batch", "images_waiting"}, "latency_ms": {"p50", "p90", "p99"},
 *  "resident_bytes"}. Rates and percentiles are of the last ten seconds. */
enum turn page_status_begin(struct request *request);

/* After invoke_start, for one picture: {"crop": base64 of a PNG of what the network sees, "predictions": [{"label", "index",
 * "probability"} × 5], "ms": time on this machine}. */
void page_classify_finish(struct request *request);
