/* Goal: what is counted comes out, as Prometheus text and as recent figures, also when many threads count. Method: known amounts, the text
 * read back line by line. */
#include "serve/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct metrics metrics;

/* The value of the line that starts with `name` and a blank. */
static double sample(const struct text *text, const char *name)
{
	size_t length = strlen(name);
	for (const char *line = text_string(text); line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, length) == 0 && line[length] == ' ')
			return strtod(line + length, NULL);
	}
	fail_msg("no sample %s", name);
	return 0;
}

static void counters_and_gauges(void **state)
{
	(void)state;
	struct text text = {0};
	metrics_init(&metrics);
	metrics_count(&metrics, COUNTER_BYTES_IN, 12345);
	metrics_count(&metrics, COUNTER_BYTES_IN, 1);
	metrics_move(&metrics, GAUGE_QUEUE, 7);
	metrics_move(&metrics, GAUGE_QUEUE, -9);
	assert_int_equal(metrics_text(&metrics, &text), ST_OK);
	assert_true(sample(&text, "smelt_body_bytes_in_total") == 12346);
	assert_true(sample(&text, "smelt_queue_depth") == -2);
	assert_true(sample(&text, "smelt_connections_total") == 0);
	assert_true(sample(&text, "smelt_resident_memory_bytes") > 1e5);
	assert_true(sample(&text, "smelt_open_descriptors") >= 3);
	text_free(&text);
}

static void histograms_are_cumulated(void **state)
{
	(void)state;
	struct text text = {0};
	metrics_init(&metrics);
	metrics_stage(&metrics, STAGE_DECODE, -1); /* a clock that stood still */
	metrics_stage(&metrics, STAGE_DECODE, 100);
	metrics_stage(&metrics, STAGE_DECODE, 101);
	metrics_stage(&metrics, STAGE_DECODE, 1000000);
	metrics_stage(&metrics, STAGE_DECODE, (int64_t)3600 * 1000000);
	metrics_batch(&metrics, 1);
	metrics_batch(&metrics, 5);
	metrics_batch(&metrics, 100000);
	assert_int_equal(metrics_text(&metrics, &text), ST_OK);
	assert_true(sample(&text, "smelt_stage_seconds_bucket{stage=\"decode\",le=\"0.0001\"}") == 2);
	assert_true(sample(&text, "smelt_stage_seconds_bucket{stage=\"decode\",le=\"0.00015\"}") == 3);
	assert_true(sample(&text, "smelt_stage_seconds_bucket{stage=\"decode\",le=\"0.7\"}") == 3);
	assert_true(sample(&text, "smelt_stage_seconds_bucket{stage=\"decode\",le=\"1\"}") == 4);
	assert_true(sample(&text, "smelt_stage_seconds_bucket{stage=\"decode\",le=\"600\"}") == 4);
	assert_true(sample(&text, "smelt_stage_seconds_bucket{stage=\"decode\",le=\"+Inf\"}") == 5);
	assert_true(sample(&text, "smelt_stage_seconds_count{stage=\"decode\"}") == 5);
	assert_true(sample(&text, "smelt_stage_seconds_sum{stage=\"decode\"}") > 3601);
	assert_true(sample(&text, "smelt_batch_images_bucket{le=\"4\"}") == 1);
	assert_true(sample(&text, "smelt_batch_images_bucket{le=\"8\"}") == 2);
	assert_true(sample(&text, "smelt_batch_images_bucket{le=\"+Inf\"}") == 3);
	assert_true(sample(&text, "smelt_batch_images_sum") == 100006);
	assert_true(sample(&text, "smelt_batches_total") == 3);
	text_free(&text);
}

static void answers_by_status(void **state)
{
	(void)state;
	struct text text = {0};
	metrics_init(&metrics);
	metrics_answered(&metrics, 200, 3, 1500);
	metrics_answered(&metrics, 200, 4, 1500);
	metrics_answered(&metrics, 415, 0, 10);
	metrics_answered(&metrics, 1 << 20, 0, 10); /* no status: counted nowhere, and nothing is written beyond the table */
	assert_int_equal(metrics_text(&metrics, &text), ST_OK);
	assert_true(sample(&text, "smelt_invocations_total{status=\"200\"}") == 2);
	assert_true(sample(&text, "smelt_invocations_total{status=\"415\"}") == 1);
	assert_true(sample(&text, "smelt_records_total") == 7);
	text_free(&text);
}

static void recent_figures(void **state)
{
	(void)state;
	metrics_init(&metrics);
	struct recent recent = metrics_recent(&metrics);
	assert_true(recent.requests_per_s == 0 && recent.latency_ms_p99 == 0 && recent.batch_images_mean == 0);
	for (int i = 0; i < 90; i++)
		metrics_answered(&metrics, 200, 1, 1800);
	for (int i = 0; i < 10; i++)
		metrics_answered(&metrics, 200, 1, 90000);
	metrics_batch(&metrics, 30);
	metrics_batch(&metrics, 70);
	recent = metrics_recent(&metrics);
	assert_true(recent.requests_per_s > 0 && recent.images_per_s == recent.requests_per_s);
	assert_true(recent.batch_images_mean == 50);
	/* A percentile lies in its bucket. */
	assert_true(recent.latency_ms_p50 > 1.5 && recent.latency_ms_p50 <= 2);
	assert_true(recent.latency_ms_p99 > 70 && recent.latency_ms_p99 <= 100);
	metrics_tick(&metrics); /* cleans what is to come, not what is there */
	assert_true(metrics_recent(&metrics).latency_ms_p50 == recent.latency_ms_p50);
}

static void *count_thread(void *context)
{
	(void)context;
	for (int i = 0; i < 10000; i++) {
		metrics_count(&metrics, COUNTER_RECORDS, 2);
		metrics_stage(&metrics, STAGE_QUEUE, i);
		metrics_move(&metrics, GAUGE_REQUESTS, i % 2 == 0 ? 1 : -1);
		if (i % 1000 == 0)
			metrics_recent(&metrics);
	}
	return NULL;
}

static void many_threads_count(void **state)
{
	(void)state;
	pthread_t threads[4];
	struct text text = {0};
	metrics_init(&metrics);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_thread, NULL), 0);
	for (int i = 0; i < 4; i++) {
		metrics_tick(&metrics);
		pthread_join(threads[i], NULL);
	}
	assert_int_equal(metrics_text(&metrics, &text), ST_OK);
	assert_true(sample(&text, "smelt_records_total") == 80000);
	assert_true(sample(&text, "smelt_stage_seconds_count{stage=\"queue\"}") == 40000);
	assert_true(sample(&text, "smelt_requests_in_flight") == 0);
	text_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counters_and_gauges),
		cmocka_unit_test(histograms_are_cumulated),
		cmocka_unit_test(answers_by_status),
		cmocka_unit_test(recent_figures),
		cmocka_unit_test(many_threads_count),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
