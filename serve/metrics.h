/* metrics.h: what is counted, and how it is shown: as Prometheus text, and as the page's recent figures.
 *
 * Counting is a relaxed atomic add, from any thread, without a lock. Reading takes no snapshot: counters of one text may be a request
 * apart. */
#pragma once

#include "core/base/text.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Parts of an invocation's time: constant, label, what it spans. */
#define STAGE_LIST(X) \
	X(STAGE_RECEIVE, "receive", "first byte of the body to the last") \
	X(STAGE_DECODE, "decode", "body to images, with the wait for a worker") \
	X(STAGE_QUEUE, "queue", "wait for the engine") \
	X(STAGE_PREDICT, "predict", "the engine, shared with others") \
	X(STAGE_ENCODE, "encode", "scores to the answer's body, with the wait for a worker") \
	X(STAGE_TOTAL, "total", "end of the head to the end of the answer's body")

enum stage {
#define X(name, label, help) name,
	STAGE_LIST(X)
#undef X
	STAGE_COUNT
};

/* Counters: constant, name after "smelt_", help. */
#define COUNTER_LIST(X) \
	X(COUNTER_CONNECTIONS, "connections_total", "Connections accepted") \
	X(COUNTER_BYTES_IN, "body_bytes_in_total", "Bytes of request bodies") \
	X(COUNTER_BYTES_OUT, "body_bytes_out_total", "Bytes of answers' bodies") \
	X(COUNTER_RECORDS, "records_total", "Images computed for invocations that were answered") \
	X(COUNTER_BATCHES, "batches_total", "Runs of the engine") \
	X(COUNTER_EXPIRED, "expired_total", "Invocations dropped because their deadline passed while they waited") \
	X(COUNTER_LEFT, "clients_left_total", "Invocations dropped because their client had gone") \
	X(COUNTER_REFUSED, "queue_full_total", "Invocations answered 503 because the queue was full") \
	X(COUNTER_SLOW, "slow_clients_total", "Connections closed because a request did not arrive in time")

enum counter {
#define X(name, label, help) name,
	COUNTER_LIST(X)
#undef X
	COUNTER_COUNT
};

/* Values that rise and fall. */
#define GAUGE_LIST(X) \
	X(GAUGE_CONNECTIONS, "connections", "Connections open") \
	X(GAUGE_REQUESTS, "requests_in_flight", "Requests whose head was read and whose answer has not left") \
	X(GAUGE_QUEUE, "queue_depth", "Images waiting for the engine") \
	X(GAUGE_BODY_BYTES, "body_bytes_held", "Memory held by request bodies") \
	X(GAUGE_MODELS, "models", "Models loaded") \
	X(GAUGE_MODEL_BYTES, "model_bytes", "Memory held by models")

enum gauge {
#define X(name, label, help) name,
	GAUGE_LIST(X)
#undef X
	GAUGE_COUNT
};

enum { METRIC_BUCKETS = 38, METRIC_BATCH_BUCKETS = 14, METRIC_RECENT_SECONDS = 16, METRIC_STATUS_COUNT = 600 };

struct histogram {
	_Atomic uint64_t buckets[METRIC_BUCKETS + 1]; /* not cumulated; the last is what exceeds all bounds */
	_Atomic uint64_t sum_us;
};

struct metrics {
	_Atomic uint64_t counters[COUNTER_COUNT];
	_Atomic int64_t gauges[GAUGE_COUNT];
	_Atomic uint64_t statuses[METRIC_STATUS_COUNT]; /* invocations by HTTP status */
	struct histogram stages[STAGE_COUNT];
	_Atomic uint64_t batch_images[METRIC_BATCH_BUCKETS]; /* by size: 1, 2, 4 … */
	_Atomic uint64_t batch_images_sum;
	/* One slot a second, cleared ahead by metrics_tick: invocations, images, batches and the latencies of the last seconds. */
	struct {
		_Atomic uint64_t requests, images, batches;
		_Atomic uint64_t latency[METRIC_BUCKETS + 1];
	} recent[METRIC_RECENT_SECONDS];
	int64_t started_us;
	_Atomic int64_t cleared_s; /* the latest second whose slot is clean */
};

/* All zero; time starts. */
void metrics_init(struct metrics *metrics);

void metrics_count(struct metrics *metrics, enum counter counter, uint64_t amount);
void metrics_move(struct metrics *metrics, enum gauge gauge, int64_t by);
void metrics_stage(struct metrics *metrics, enum stage stage, int64_t us);
void metrics_batch(struct metrics *metrics, size_t images);
/* An invocation was answered; for the counters by status and the recent figures. */
void metrics_answered(struct metrics *metrics, int http_status, size_t images, int64_t total_us);

/* Cleans the slots of the seconds to come. To be called at least every few seconds, by one thread at a time. */
void metrics_tick(struct metrics *metrics);

/* Figures of the last ten whole seconds. */
struct recent {
	double requests_per_s, images_per_s, batch_images_mean;
	double latency_ms_p50, latency_ms_p90, latency_ms_p99; /* 0 when there was no request */
	double uptime_s;
};
struct recent metrics_recent(const struct metrics *metrics);

/* Memory of this process that is in RAM, bytes; 0 when the system does not say. */
uint64_t metrics_resident_bytes(void);

/* Appends everything in Prometheus' text format 0.0.4. ST_MEMORY. */
enum status metrics_text(const struct metrics *metrics, struct text *text);
