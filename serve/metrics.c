/* metrics.c: see metrics.h. */
#include "serve/metrics.h"

#include "core/base/clock.h"
#include "core/base/version.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { RECENT_WINDOW_S = 10, AHEAD_S = 4 };

/* Upper bounds of the latency buckets, microseconds: six a decade from 0.1 ms, then up to ten minutes. */
static const uint32_t bounds_us[METRIC_BUCKETS] = {
	100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 7000, 10000, 15000, 20000, 30000, 50000, 70000, 100000, 150000, 200000,
	300000, 500000, 700000, 1000000, 1500000, 2000000, 3000000, 5000000, 7000000, 10000000, 15000000, 20000000, 30000000, 60000000,
	120000000, 300000000, 600000000,
};

struct name {
	const char *name, *help;
};
#define ROW(constant, label, help) {label, help},
static const struct name stages[] = {STAGE_LIST(ROW)};
static const struct name counters[] = {COUNTER_LIST(ROW)};
static const struct name gauges[] = {GAUGE_LIST(ROW)};

static void add(_Atomic uint64_t *value, uint64_t amount)
{
	atomic_fetch_add_explicit(value, amount, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static size_t bucket(int64_t us)
{
	size_t b = 0;
	while (b < METRIC_BUCKETS && us > (int64_t)bounds_us[b])
		b++;
	return b;
}

static int64_t second_now(void)
{
	return clock_us() / 1000000;
}

void metrics_init(struct metrics *metrics)
{
	memset(metrics, 0, sizeof *metrics);
	metrics->started_us = clock_us();
	atomic_store(&metrics->cleared_s, second_now() + AHEAD_S);
}

void metrics_count(struct metrics *metrics, enum counter counter, uint64_t amount)
{
	add(&metrics->counters[counter], amount);
}

void metrics_move(struct metrics *metrics, enum gauge gauge, int64_t by)
{
	atomic_fetch_add_explicit(&metrics->gauges[gauge], by, memory_order_relaxed);
}

void metrics_stage(struct metrics *metrics, enum stage stage, int64_t us)
{
	add(&metrics->stages[stage].buckets[bucket(us)], 1);
	add(&metrics->stages[stage].sum_us, us > 0 ? (uint64_t)us : 0);
}

void metrics_batch(struct metrics *metrics, size_t images)
{
	size_t b = 0;
	while (b < METRIC_BATCH_BUCKETS - 1 && images > (size_t)1 << b)
		b++;
	add(&metrics->batch_images[b], 1);
	add(&metrics->batch_images_sum, images);
	metrics_count(metrics, COUNTER_BATCHES, 1);
	size_t slot = (size_t)second_now() % METRIC_RECENT_SECONDS;
	add(&metrics->recent[slot].batches, 1);
	add(&metrics->recent[slot].images, images);
}

void metrics_answered(struct metrics *metrics, int http_status, size_t images, int64_t total_us)
{
	if (http_status >= 0 && http_status < METRIC_STATUS_COUNT)
		add(&metrics->statuses[http_status], 1);
	metrics_count(metrics, COUNTER_RECORDS, images);
	metrics_stage(metrics, STAGE_TOTAL, total_us);
	size_t slot = (size_t)second_now() % METRIC_RECENT_SECONDS;
	add(&metrics->recent[slot].requests, 1);
	add(&metrics->recent[slot].latency[bucket(total_us)], 1);
}

void metrics_tick(struct metrics *metrics)
{
	int64_t cleared = atomic_load(&metrics->cleared_s), wanted = second_now() + AHEAD_S;
	if (wanted - cleared > METRIC_RECENT_SECONDS)
		cleared = wanted - METRIC_RECENT_SECONDS;
	for (int64_t s = cleared + 1; s <= wanted; s++) {
		size_t slot = (size_t)s % METRIC_RECENT_SECONDS;
		atomic_store(&metrics->recent[slot].requests, 0);
		atomic_store(&metrics->recent[slot].images, 0);
		atomic_store(&metrics->recent[slot].batches, 0);
		for (size_t b = 0; b <= METRIC_BUCKETS; b++)
			atomic_store(&metrics->recent[slot].latency[b], 0);
	}
	atomic_store(&metrics->cleared_s, wanted);
}

/* The latency below which `share` of the counted requests stayed, by linear interpolation inside its bucket. */
static double percentile_ms(const uint64_t *buckets, double share)
{
	uint64_t total = 0, before = 0;
	for (size_t b = 0; b <= METRIC_BUCKETS; b++)
		total += buckets[b];
	double rank = share * (double)total;
	for (size_t b = 0; b < METRIC_BUCKETS; b++) {
		if (buckets[b] > 0 && (double)(before + buckets[b]) >= rank) {
			double low = b > 0 ? bounds_us[b - 1] : 0, high = bounds_us[b];
			return (low + (high - low) * (rank - (double)before) / (double)buckets[b]) / 1e3;
		}
		before += buckets[b];
	}
	return total > 0 ? bounds_us[METRIC_BUCKETS - 1] / 1e3 : 0;
}

struct recent metrics_recent(const struct metrics *metrics)
{
	uint64_t latency[METRIC_BUCKETS + 1] = {0}, requests = 0, images = 0, batches = 0;
	int64_t now = second_now(), first = metrics->started_us / 1000000;
	int64_t seconds = now - first < 1 ? 1 : now - first < RECENT_WINDOW_S ? now - first : RECENT_WINDOW_S;
	/* A young server counts its current second too, or its first figures would be zero. */
	for (int64_t s = now - seconds; s < now || (s == now && now - first <= 1); s++) {
		size_t slot = (size_t)s % METRIC_RECENT_SECONDS;
		requests += get(&metrics->recent[slot].requests);
		images += get(&metrics->recent[slot].images);
		batches += get(&metrics->recent[slot].batches);
		for (size_t b = 0; b <= METRIC_BUCKETS; b++)
			latency[b] += get(&metrics->recent[slot].latency[b]);
	}
	return (struct recent){
		.requests_per_s = (double)requests / (double)seconds,
		.images_per_s = (double)images / (double)seconds,
		.batch_images_mean = batches > 0 ? (double)images / (double)batches : 0,
		.latency_ms_p50 = percentile_ms(latency, 0.5),
		.latency_ms_p90 = percentile_ms(latency, 0.9),
		.latency_ms_p99 = percentile_ms(latency, 0.99),
		.uptime_s = (double)(clock_us() - metrics->started_us) / 1e6,
	};
}

uint64_t metrics_resident_bytes(void)
{
	unsigned long long total = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");
	if (file == NULL)
		return 0;
	int fields = fscanf(file, "%llu %llu", &total, &resident);
	fclose(file);
	return fields == 2 ? resident * (unsigned long long)sysconf(_SC_PAGESIZE) : 0;
}

static size_t descriptors_open(void)
{
	DIR *directory = opendir("/proc/self/fd");
	if (directory == NULL)
		return 0;
	size_t count = 0;
	while (readdir(directory) != NULL)
		count++;
	closedir(directory);
	return count > 3 ? count - 3 : 0; /* ".", ".." and the directory itself */
}

/* --- Prometheus text --------------------------------------------------------------------------------------------------- */

static enum status head(struct text *text, const char *name, const char *type, const char *help)
{
	return text_printf(text, "# HELP smelt_%s %s\n# TYPE smelt_%s %s\n", name, help, name, type);
}

static enum status value(struct text *text, const char *name, const char *type, const char *help, double number)
{
	TRY(head(text, name, type, help));
	return text_printf(text, "smelt_%s %.15g\n", name, number);
}

static enum status stage_text(const struct histogram *histogram, const struct name *stage, struct text *text)
{
	uint64_t sum = 0;
	for (size_t b = 0; b < METRIC_BUCKETS; b++) {
		sum += get(&histogram->buckets[b]);
		TRY(text_printf(text, "smelt_stage_seconds_bucket{stage=\"%s\",le=\"%g\"} %llu\n", stage->name, bounds_us[b] / 1e6, (unsigned long long)sum));
	}
	sum += get(&histogram->buckets[METRIC_BUCKETS]);
	TRY(text_printf(text, "smelt_stage_seconds_bucket{stage=\"%s\",le=\"+Inf\"} %llu\n", stage->name, (unsigned long long)sum));
	TRY(text_printf(text, "smelt_stage_seconds_sum{stage=\"%s\"} %.6f\n", stage->name, (double)get(&histogram->sum_us) / 1e6));
	return text_printf(text, "smelt_stage_seconds_count{stage=\"%s\"} %llu\n", stage->name, (unsigned long long)sum);
}

static enum status batch_text(const struct metrics *metrics, struct text *text)
{
	uint64_t sum = 0;
	TRY(head(text, "batch_images", "histogram", "Images of a run of the engine"));
	for (size_t b = 0; b < METRIC_BATCH_BUCKETS - 1; b++) {
		sum += get(&metrics->batch_images[b]);
		TRY(text_printf(text, "smelt_batch_images_bucket{le=\"%u\"} %llu\n", 1u << b, (unsigned long long)sum));
	}
	sum += get(&metrics->batch_images[METRIC_BATCH_BUCKETS - 1]);
	TRY(text_printf(text, "smelt_batch_images_bucket{le=\"+Inf\"} %llu\n", (unsigned long long)sum));
	TRY(text_printf(text, "smelt_batch_images_sum %llu\n", (unsigned long long)get(&metrics->batch_images_sum)));
	return text_printf(text, "smelt_batch_images_count %llu\n", (unsigned long long)sum);
}

enum status metrics_text(const struct metrics *metrics, struct text *text)
{
	TRY(head(text, "build_info", "gauge", "Version and commit"));
	TRY(text_printf(text, "smelt_build_info{version=\"%s\",commit=\"%s\"} 1\n", smelt_version(), smelt_commit()));
	for (size_t i = 0; i < COUNTER_COUNT; i++)
		TRY(value(text, counters[i].name, "counter", counters[i].help, (double)get(&metrics->counters[i])));
	for (size_t i = 0; i < GAUGE_COUNT; i++)
		TRY(value(text, gauges[i].name, "gauge", gauges[i].help, (double)atomic_load_explicit(&metrics->gauges[i], memory_order_relaxed)));
	TRY(value(text, "resident_memory_bytes", "gauge", "Memory of the process in RAM", (double)metrics_resident_bytes()));
	TRY(value(text, "open_descriptors", "gauge", "File descriptors of the process", (double)descriptors_open()));
	TRY(value(text, "uptime_seconds", "gauge", "Time since the process started", (double)(clock_us() - metrics->started_us) / 1e6));
	TRY(head(text, "invocations_total", "counter", "Invocations by HTTP status; 499: the client left"));
	for (int s = 0; s < METRIC_STATUS_COUNT; s++)
		if (get(&metrics->statuses[s]) > 0)
			TRY(text_printf(text, "smelt_invocations_total{status=\"%d\"} %llu\n", s, (unsigned long long)get(&metrics->statuses[s])));
	TRY(head(text, "stage_seconds", "histogram", "Time of an invocation by stage"));
	for (size_t i = 0; i < STAGE_COUNT; i++)
		TRY(stage_text(&metrics->stages[i], &stages[i], text));
	return batch_text(metrics, text);
}
