/* Goal: each outlet gets every epoch once, trouble with what training can do without is a warning and no more, other ranks are silent.
 * Method: report.h with real files in a temporary directory, trouble by a file where a directory is needed. */
#include "train/report/report.h"

#include "core/base/file.h"
#include "test/unit/scratch.h"
#include "train/report/metrics_file.h"
#include "train/report/progress.h"
#include "train/report/sheet.h"

#include <math.h>
#include <time.h>

static struct report_epoch epoch_number(int64_t number)
{
	return (struct report_epoch){
		.epoch = number,
		.step = 100 * number,
		.train = {5.0 / (double)number, 0.125, 0.5},
		.validated = number % 2 == 0,
		.validation = {4.5, 0.25, 0.5},
		.lr = 0.1,
		.images_per_second = 500,
		.epoch_seconds = 2,
	};
}

static char *content(const char *name)
{
	char path[256];
	uint8_t *bytes;
	size_t count;
	assert_int_equal(path_join(path, sizeof path, scratch, name), ST_OK);
	assert_int_equal(file_read(path, 1 << 20, &bytes, &count), ST_OK);
	return (char *)bytes;
}

static void content_write(const char *name, const char *text)
{
	char path[256];
	assert_int_equal(path_join(path, sizeof path, scratch, name), ST_OK);
	assert_int_equal(file_write(path, text, strlen(text)), ST_OK);
}

static void test_metrics_directory_gets_a_line_a_metric(void **state)
{
	(void)state;
	struct metrics_file file;
	char path[128], name[64];
	snprintf(path, sizeof path, "%s/made/here", scratch);
	assert_int_equal(metrics_file_open(&file, path), ST_OK);
	struct report_epoch epoch = epoch_number(2);
	epoch.train.loss = (double)NAN;
	assert_int_equal(metrics_file_add(&file, &epoch), ST_OK);
	epoch = epoch_number(3);
	assert_int_equal(metrics_file_add(&file, &epoch), ST_OK);
	metrics_file_close(&file);
	snprintf(name, sizeof name, "made/here/%ld.json", (long)getpid());
	char *lines = content(name);
	int count = 0;
	long iteration_before = 0;
	double now = (double)time(NULL);
	for (char *line = lines, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, count++) {
		char metric[64];
		double value, timestamp;
		long iteration;
		int length = -1;
		int found = sscanf(line, "{\"MetricName\":\"%63[^\"]\",\"Value\":%lf,\"Timestamp\":%lf,\"IterationNumber\":%ld}%n", metric, &value,
			&timestamp, &iteration, &length);
		assert_int_equal(found, 4);
		assert_int_equal(length, end - line);
		assert_true(timestamp > now - 60 && timestamp < now + 60);
		assert_true(iteration >= iteration_before);
		iteration_before = iteration;
	}
	/* Epoch 2: all but the NaN loss and the EMA; epoch 3: not validated. */
	assert_int_equal(count, (METRIC_COUNT - 2) + (METRIC_COUNT - 4));
	free(lines);
}

static int lines_of(const char *text)
{
	int count = 0;
	for (; (text = strchr(text, '\n')) != NULL; text++)
		count++;
	return count;
}

static void test_report_goes_on_without_what_it_can_do_without(void **state)
{
	(void)state;
	struct report *report;
	char data[128], blocked[128];
	content_write("file", "");
	snprintf(data, sizeof data, "%s/data", scratch);
	snprintf(blocked, sizeof blocked, "%s/file/x", scratch);
	const struct report_config config = {
		.data_directory = data,
		.metrics_directory = blocked,
		.tensorboard_directory = blocked,
		.log_every_steps = 1,
		.steps_total = 200,
		.epochs_total = 2,
	};
	assert_int_equal(report_open(&config, &report), ST_OK);
	assert_false(report_wants_images(report));
	for (int64_t i = 1; i <= 2; i++) {
		struct report_epoch epoch = epoch_number(i);
		const struct report_step step = {.epoch = i, .step = 100 * i, .step_in_epoch = 100, .steps_in_epoch = 100, .loss = 3, .lr = 0.1};
		report_step(report, &step);
		assert_int_equal(report_epoch(report, &epoch), ST_OK);
	}
	report_note(report, "checkpoint %d", 7);
	report_close(report, ST_OK);
	char *json = content("data/history.jsonl");
	assert_int_equal(lines_of(json), 2);
	free(json);
}

static void test_other_ranks_are_silent(void **state)
{
	(void)state;
	struct report *report;
	char data[128], metrics[128], tensorboard[128];
	snprintf(data, sizeof data, "%s/data", scratch);
	snprintf(metrics, sizeof metrics, "%s/metrics", scratch);
	snprintf(tensorboard, sizeof tensorboard, "%s/tensorboard", scratch);
	const struct report_config config = {
		.rank = 1,
		.data_directory = data,
		.metrics_directory = metrics,
		.tensorboard_directory = tensorboard,
		.log_every_steps = 1,
	};
	assert_int_equal(report_open(&config, &report), ST_OK);
	struct report_epoch epoch = epoch_number(1);
	assert_int_equal(report_epoch(report, &epoch), ST_OK);
	report_close(report, ST_STOPPED);
	report_close(NULL, ST_OK);
	assert_false(directory_exists(data) || directory_exists(metrics) || directory_exists(tensorboard));
}

static void test_report_fails_when_the_history_cannot_be_made(void **state)
{
	(void)state;
	struct report *report = NULL;
	char data[128];
	content_write("file", "");
	snprintf(data, sizeof data, "%s/file/data", scratch);
	const struct report_config config = {.data_directory = data};
	assert_int_equal(report_open(&config, &report), ST_DISK);
	assert_null(report);
}

static void test_no_live_line_for_the_platform(void **state)
{
	(void)state;
	/* stdout is a file or a pipe under the test runner; with a terminal the variable alone must decide. */
	assert_int_equal(setenv("TRAINING_JOB_NAME", "job", 1), 0);
	assert_false(report_terminal());
	assert_int_equal(unsetenv("TRAINING_JOB_NAME"), 0);
}

static void test_durations_are_readable(void **state)
{
	(void)state;
	static const struct {
		double seconds;
		const char *text;
	} cases[] = {{-1, "0 s"}, {0.4, "0 s"}, {59.4, "59 s"}, {59.6, "1 min 00 s"}, {185, "3 min 05 s"}, {7620, "2 h 07 min"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[DURATION_BYTES];
		duration_write(cases[i].seconds, text);
		assert_string_equal(text, cases[i].text);
	}
}

static void test_sheet_places_each_picture(void **state)
{
	(void)state;
	/* Five 1×1 pictures in two rows of three, doubled. */
	const uint8_t images[5 * 3] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	struct sheet sheet;
	assert_int_equal(sheet_build(images, 5, 1, 0, 2, &sheet), ST_OK);
	assert_int_equal(sheet.width, 14);
	assert_int_equal(sheet.height, 10);
	for (int c = 0; c < 3; c++)
		for (int y = 0; y < 10; y++)
			for (int x = 0; x < 14; x++) {
				int row = y / 4, column = x / 4, picture = row * 3 + column;
				bool gap = y % 4 < 2 || x % 4 < 2 || picture > 4;
				assert_int_equal(sheet.planes[(c * 10 + y) * 14 + x], gap ? 255 : images[picture * 3 + c]);
			}
	free(sheet.planes);
	assert_int_equal(sheet_build(images, 5, 1, 0, SHEET_SIDE_MAX, &sheet), ST_MEMORY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_metrics_directory_gets_a_line_a_metric),
		SCRATCH_TEST(test_report_goes_on_without_what_it_can_do_without),
		SCRATCH_TEST(test_other_ranks_are_silent),
		SCRATCH_TEST(test_report_fails_when_the_history_cannot_be_made),
		cmocka_unit_test(test_no_live_line_for_the_platform),
		cmocka_unit_test(test_durations_are_readable),
		cmocka_unit_test(test_sheet_places_each_picture),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
