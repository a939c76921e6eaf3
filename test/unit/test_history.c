/* Goal: the history holds every epoch once, also after a resume, and disk trouble is ST_DISK. Method: real files in a temporary
 * directory; trouble by a file where a directory is needed, and by a directory that vanishes. */
#include "train/report/history.h"

#include "core/base/file.h"
#include "test/unit/scratch.h"

#include <math.h>

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

#define CSV_HEADER \
	"epoch,step,train_loss,train_accuracy,train_top5_accuracy,validation_loss,validation_accuracy,validation_top5_accuracy," \
	"validation_ema_accuracy,learning_rate,images_per_second,epoch_seconds\n"

static void test_a_line_an_epoch_in_both_files(void **state)
{
	(void)state;
	struct history history;
	assert_int_equal(history_open(&history, scratch, 0), ST_OK);
	for (int64_t i = 1; i <= 2; i++) {
		struct report_epoch epoch = epoch_number(i);
		assert_int_equal(history_add(&history, &epoch), ST_OK);
	}
	history_close(&history);
	char *json = content("history.jsonl"), *csv = content("history.csv");
	assert_string_equal(json, "{\"epoch\":1,\"step\":100,\"train_loss\":5,\"train_accuracy\":0.125,\"train_top5_accuracy\":0.5,"
		"\"validation_loss\":null,\"validation_accuracy\":null,\"validation_top5_accuracy\":null,\"validation_ema_accuracy\":null,\"learning_rate\":0.1,"
		"\"images_per_second\":500,\"epoch_seconds\":2}\n"
		"{\"epoch\":2,\"step\":200,\"train_loss\":2.5,\"train_accuracy\":0.125,\"train_top5_accuracy\":0.5,"
		"\"validation_loss\":4.5,\"validation_accuracy\":0.25,\"validation_top5_accuracy\":0.5,\"validation_ema_accuracy\":null,\"learning_rate\":0.1,"
		"\"images_per_second\":500,\"epoch_seconds\":2}\n");
	assert_string_equal(csv, CSV_HEADER "1,100,5,0.125,0.5,,,,,0.1,500,2\n2,200,2.5,0.125,0.5,4.5,0.25,0.5,,0.1,500,2\n");
	free(json);
	free(csv);
}

static void test_nan_becomes_null(void **state)
{
	(void)state;
	struct history history;
	struct report_epoch epoch = epoch_number(1);
	epoch.train.loss = (double)NAN;
	assert_int_equal(history_open(&history, scratch, 0), ST_OK);
	assert_int_equal(history_add(&history, &epoch), ST_OK);
	history_close(&history);
	char *json = content("history.jsonl"), *csv = content("history.csv");
	assert_non_null(strstr(json, "\"train_loss\":null,"));
	assert_non_null(strstr(csv, "\n1,100,,0.125,"));
	free(json);
	free(csv);
}

static void test_resume_keeps_what_lies_before_it(void **state)
{
	(void)state;
	struct history history;
	assert_int_equal(history_open(&history, scratch, 0), ST_OK);
	for (int64_t i = 1; i <= 3; i++) {
		struct report_epoch epoch = epoch_number(i);
		assert_int_equal(history_add(&history, &epoch), ST_OK);
	}
	history_close(&history);
	char *json_whole = content("history.jsonl"), *csv_whole = content("history.csv");
	/* The third epoch is trained again from step 250. */
	assert_int_equal(history_open(&history, scratch, 250), ST_OK);
	struct report_epoch epoch = epoch_number(3);
	assert_int_equal(history_add(&history, &epoch), ST_OK);
	history_close(&history);
	char *json = content("history.jsonl"), *csv = content("history.csv");
	assert_string_equal(json, json_whole);
	assert_string_equal(csv, csv_whole);
	free(json_whole);
	free(csv_whole);
	free(json);
	free(csv);
}

static void test_a_fresh_run_starts_anew(void **state)
{
	(void)state;
	struct history history;
	struct report_epoch epoch = epoch_number(1);
	content_write("history.jsonl", "{\"epoch\":9,\"step\":1,}\n");
	content_write("history.csv", CSV_HEADER "9,1,\n");
	assert_int_equal(history_open(&history, scratch, 0), ST_OK);
	assert_int_equal(history_add(&history, &epoch), ST_OK);
	history_close(&history);
	char *json = content("history.jsonl"), *csv = content("history.csv");
	assert_null(strstr(json, "\"epoch\":9"));
	assert_null(strstr(csv, "\n9,"));
	free(json);
	free(csv);
}

static void test_foreign_and_half_lines_are_left_out(void **state)
{
	(void)state;
	struct history history;
	struct report_epoch epoch = epoch_number(5);
	content_write("history.jsonl", "\n{}\nnonsense %s\n{\"epoch\":1,\"step\":100,\"train_loss\":5}\n{\"epoch\":2,\"step\":20");
	content_write("history.csv", "epoch,step,other\n1,100,5\n,,\n");
	assert_int_equal(history_open(&history, scratch, 400), ST_OK);
	assert_int_equal(history_add(&history, &epoch), ST_OK);
	history_close(&history);
	char *json = content("history.jsonl"), *csv = content("history.csv");
	assert_true(text_starts_with(json, "{\"epoch\":1,\"step\":100,\"train_loss\":5}\n{\"epoch\":5,"));
	assert_true(text_starts_with(csv, CSV_HEADER "1,100,5\n5,500,"));
	free(json);
	free(csv);
}

static void test_unwritable_history_is_a_disk_failure(void **state)
{
	(void)state;
	struct history history;
	char path[128];
	content_write("file", "");
	snprintf(path, sizeof path, "%s/file/data", scratch);
	assert_int_equal(history_open(&history, path, 0), ST_DISK);
	/* A directory that vanishes after the open. */
	snprintf(path, sizeof path, "%s/data", scratch);
	assert_int_equal(history_open(&history, path, 0), ST_OK);
	assert_int_equal(rmdir(path), 0);
	struct report_epoch epoch = epoch_number(1);
	assert_int_equal(history_add(&history, &epoch), ST_DISK);
	history_close(&history);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_a_line_an_epoch_in_both_files),
		SCRATCH_TEST(test_nan_becomes_null),
		SCRATCH_TEST(test_resume_keeps_what_lies_before_it),
		SCRATCH_TEST(test_a_fresh_run_starts_anew),
		SCRATCH_TEST(test_foreign_and_half_lines_are_left_out),
		SCRATCH_TEST(test_unwritable_history_is_a_disk_failure),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
