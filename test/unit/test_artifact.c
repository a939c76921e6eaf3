/* Goal: the model directory holds one whole model, the same for every program that reads it, or a failure says why it does not.
 * Method: both stems' networks with seeded weights written and read back through the reader of foreign files; model.json through the JSON
 * reader; failures by an unwritable directory and a file that cannot be replaced; a file damaged afterwards is noticed. What torch
 * makes of model.pth was seen with test/golden/weights/check_own.py. */
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/format/weights.h"
#include "core/model/state_dict.h"
#include "train/artifact.h"

#include <setjmp.h>
#include <stdarg.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { CLASSES = 3 };

struct model {
	char directory[64];
	struct network network;
	struct params_layout layout;
	struct params params;
	struct artifact_content content;
};

static char apple[] = "apple", pear[] = "\"pear\"\n", plum[] = "pl\xc3\xbcm";
static char *const class_names[CLASSES] = {apple, pear, plum};
static const struct artifact_metric metrics[] = {{"validation:accuracy", 0.625}, {"validation:loss", (double)NAN}, {"epochs", 3}};

static void model_make(struct model *model, enum stem stem, unsigned formats)
{
	snprintf(model->directory, sizeof model->directory, "/tmp/test_artifact_XXXXXX");
	assert_non_null(mkdtemp(model->directory));
	assert_int_equal(network_build(&model->network, stem, 32, CLASSES), ST_OK);
	params_layout_build(&model->layout, &model->network);
	assert_int_equal(params_alloc(&model->params, &model->layout), ST_OK);
	/* Cheap, distinct in every element nearby, and not what an initialisation gives. */
	for (size_t i = 0; i < model->layout.weights_count; i++)
		model->params.weights[i] = (float)(i % 9973) * 0.5f - 17;
	for (size_t i = 0; i < model->layout.buffers_count; i++)
		model->params.buffers[i] = (float)(i % 4999) * 0.25f;
	model->params.batches_tracked = 1234567890123;
	model->content = (struct artifact_content){.network = &model->network, .layout = &model->layout, .params = &model->params, .class_names = class_names,
		.normalization = {{0.507f, 0.487f, 0.441f}, {0.267f, 0.256f, 0.276f}}, .recipe = "fast10", .metrics = metrics, .metrics_count = 3, .formats = formats};
}

static void model_free(struct model *model)
{
	char command[128];
	params_free(&model->params);
	snprintf(command, sizeof command, "rm -rf %s", model->directory);
	assert_int_equal(system(command), 0);
}

static const char *in(const struct model *model, const char *name)
{
	static char path[256];
	snprintf(path, sizeof path, "%s/%s", model->directory, name);
	return path;
}

static int files_count(const char *path)
{
	int count = 0;
	DIR *directory = opendir(path);
	assert_non_null(directory);
	for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count;
}

static void weights_check(const struct model *model, const char *name)
{
	struct weights weights = {0};
	assert_int_equal(weights_open(in(model, name), &weights), ST_OK);
	assert_int_equal(weights.tensors.count, 218);
	for (int i = 0; i < model->layout.count; i++) {
		const struct param *param = &model->layout.all[i];
		const struct tensor_view *view = tensor_list_find(&weights.tensors, param->name);
		assert_non_null(view);
		assert_int_equal(view->dtype, DTYPE_F32);
		assert_true(tensor_same_shape(view, param->rank, param->shape));
		assert_memory_equal(view->data, params_data(&model->params, param), param->count * sizeof(float));
	}
	int64_t counter = 0;
	assert_int_equal(tensor_read_integer(tensor_list_find(&weights.tensors, "layer4.2.bn2.num_batches_tracked"), &counter), ST_OK);
	assert_true(counter == 1234567890123);
	weights_close(&weights);
}

static void both_stems_come_back_to_the_bit(void **state)
{
	(void)state;
	for (int stem = STEM_IMAGENET; stem <= STEM_CIFAR; stem++) {
		struct model model;
		model_make(&model, (enum stem)stem, ARTIFACT_SAFETENSORS | ARTIFACT_PTH);
		if (artifact_write(model.directory, &model.content) != ST_OK)
			fail_msg("%s", status_message());
		assert_int_equal(files_count(model.directory), 3);
		weights_check(&model, "model.safetensors");
		weights_check(&model, "model.pth");
		struct stat about;
		assert_int_equal(stat(in(&model, "model.pth"), &about), 0);
		assert_int_equal(about.st_mode & 0777, 0644);
		model_free(&model);
	}
}

static void keys_of_pth_are_in_torchvision_order(void **state)
{
	(void)state;
	struct model model;
	struct weights weights = {0};
	model_make(&model, STEM_IMAGENET, ARTIFACT_PTH);
	assert_int_equal(artifact_write(model.directory, &model.content), ST_OK);
	assert_int_equal(weights_open(in(&model, "model.pth"), &weights), ST_OK);
	static const struct {
		int place;
		const char *name;
	} known[] = {{0, "conv1.weight"}, {1, "bn1.weight"}, {4, "bn1.running_var"}, {5, "bn1.num_batches_tracked"}, {6, "layer1.0.conv1.weight"},
		{42, "layer2.0.conv1.weight"}, {48, "layer2.0.conv2.weight"}, {54, "layer2.0.downsample.0.weight"}, {59, "layer2.0.downsample.1.num_batches_tracked"},
		{216, "fc.weight"}, {217, "fc.bias"}};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		assert_string_equal(weights.tensors.views[known[i].place].name, known[i].name);
	weights_close(&weights);
	model_free(&model);
}

static void model_json_says_how_to_use_it(void **state)
{
	(void)state;
	struct model model;
	uint8_t *text;
	size_t count;
	struct json *json;
	model_make(&model, STEM_CIFAR, ARTIFACT_SAFETENSORS);
	assert_int_equal(artifact_write(model.directory, &model.content), ST_OK);
	assert_int_equal(file_read(in(&model, "model.json"), 1 << 20, &text, &count), ST_OK);
	assert_non_null(strstr((const char *)text, "0.507")); /* as the user wrote it, not as the float nearest to it */
	assert_null(strstr((const char *)text, "0.50700"));
	assert_int_equal(json_parse("model.json", text, count, &json), ST_OK);
	assert_string_equal(json_string(json_member(json, "architecture")), "resnet34");
	assert_string_equal(json_string(json_member(json, "stem")), "cifar");
	assert_true(json_number(json_member(json, "image_size")) == 32);
	assert_true(json_number(json_member(json, "classes")) == CLASSES);
	const struct json *name = json_first(json_member(json, "class_names"));
	for (int i = 0; i < CLASSES; i++, name = json_next(name))
		assert_string_equal(json_string(name), class_names[i]);
	assert_null(name);
	const struct json *std = json_member(json_member(json, "normalization"), "std");
	assert_true((float)json_number(json_next(json_first(std))) == 0.256f);
	assert_string_equal(json_string(json_member(json, "recipe")), "fast10");
	assert_true(json_number(json_member(json_member(json, "metrics"), "validation:accuracy")) == 0.625);
	assert_int_equal(json_kind(json_member(json_member(json, "metrics"), "validation:loss")), JSON_NULL);
	const struct json *file = json_first(json_member(json, "files"));
	struct stat about;
	assert_string_equal(json_string(json_member(file, "name")), "model.safetensors");
	assert_int_equal(stat(in(&model, "model.safetensors"), &about), 0);
	assert_true(json_number(json_member(file, "bytes")) == (double)about.st_size);
	assert_null(json_next(file));
	assert_non_null(json_member(json, "version"));
	assert_non_null(json_member(json, "commit"));
	json_free(json);
	free(text);
	model_free(&model);
}

static void an_older_model_is_replaced_whole(void **state)
{
	(void)state;
	struct model model;
	model_make(&model, STEM_CIFAR, ARTIFACT_SAFETENSORS | ARTIFACT_PTH);
	assert_int_equal(artifact_write(model.directory, &model.content), ST_OK);
	/* A leftover of a run that was killed; other files in the directory are not ours to touch. */
	assert_int_equal(file_write(in(&model, "model.safetensors.tmp"), "half", 4), ST_OK);
	assert_int_equal(file_write(in(&model, "notes.txt"), "mine", 4), ST_OK);
	model.content.formats = ARTIFACT_SAFETENSORS;
	model.params.weights[0] = 4321;
	assert_int_equal(artifact_write(model.directory, &model.content), ST_OK);
	weights_check(&model, "model.safetensors");
	assert_false(file_exists(in(&model, "model.pth")));
	assert_true(file_exists(in(&model, "notes.txt")));
	assert_int_equal(files_count(model.directory), 3);
	model_free(&model);
}

static void equal_models_are_equal_files(void **state)
{
	(void)state;
	uint8_t *bytes[2];
	size_t count[2];
	for (int run = 0; run < 2; run++) {
		struct model model;
		model_make(&model, STEM_CIFAR, ARTIFACT_PTH);
		assert_int_equal(artifact_write(model.directory, &model.content), ST_OK);
		assert_int_equal(file_read(in(&model, "model.pth"), (size_t)1 << 30, &bytes[run], &count[run]), ST_OK);
		model_free(&model);
	}
	assert_int_equal(count[0], count[1]);
	assert_memory_equal(bytes[0], bytes[1], count[0]);
	free(bytes[0]);
	free(bytes[1]);
}

static void failures_leave_no_half_file(void **state)
{
	(void)state;
	struct model model;
	model_make(&model, STEM_CIFAR, ARTIFACT_SAFETENSORS);
	/* A directory stands where the file should be. */
	assert_int_equal(mkdir(in(&model, "model.safetensors"), 0755), 0);
	assert_int_equal(artifact_write(model.directory, &model.content), ST_DISK);
	assert_non_null(strstr(status_message(), "model.safetensors"));
	assert_int_equal(files_count(model.directory), 1);
	/* The model directory is a file. */
	assert_int_equal(file_write(in(&model, "file"), "x", 1), ST_OK);
	char file[256];
	snprintf(file, sizeof file, "%s", in(&model, "file"));
	assert_int_equal(artifact_write(file, &model.content), ST_DISK);
	model_free(&model);
}

static void a_disk_that_is_too_small_is_noticed_before(void **state)
{
	(void)state;
	struct model model;
	char command[160];
	model_make(&model, STEM_CIFAR, ARTIFACT_SAFETENSORS | ARTIFACT_PTH);
	snprintf(command, sizeof command, "mount -t tmpfs -o size=8m none %s 2>/dev/null", model.directory);
	if (system(command) != 0) {
		model_free(&model);
		print_message("a tmpfs cannot be mounted here\n");
		skip();
	}
	enum status status = artifact_write(model.directory, &model.content);
	int files = files_count(model.directory);
	snprintf(command, sizeof command, "umount %s", model.directory);
	assert_int_equal(system(command), 0);
	assert_int_equal(status, ST_DISK);
	assert_non_null(strstr(status_message(), "VolumeSizeInGB"));
	assert_int_equal(files, 0);
	model_free(&model);
}

static void damage_is_seen_when_reading_back(void **state)
{
	(void)state;
	struct model model;
	struct state_dict *dict = malloc(sizeof *dict);
	assert_non_null(dict);
	model_make(&model, STEM_CIFAR, ARTIFACT_SAFETENSORS | ARTIFACT_PTH);
	assert_int_equal(artifact_write(model.directory, &model.content), ST_OK);
	state_dict_make(dict, &model.layout, &model.params);
	static const char *const names[] = {"model.safetensors", "model.pth"};
	for (int i = 0; i < 2; i++) {
		assert_int_equal(weights_verify(in(&model, names[i]), dict->views, (size_t)dict->count), ST_OK);
		assert_int_equal(weights_verify(in(&model, names[i]), dict->views, (size_t)dict->count - 1), ST_DISK);
		FILE *file = fopen(in(&model, names[i]), "r+b");
		assert_non_null(file);
		assert_int_equal(fseek(file, 1000000, SEEK_SET), 0);
		int byte = fgetc(file);
		assert_int_equal(fseek(file, 1000000, SEEK_SET), 0);
		fputc(byte ^ 1, file);
		fclose(file);
		assert_int_equal(weights_verify(in(&model, names[i]), dict->views, (size_t)dict->count), ST_DISK);
		assert_int_equal(truncate(in(&model, names[i]), 5000000), 0);
		assert_int_equal(weights_verify(in(&model, names[i]), dict->views, (size_t)dict->count), ST_DISK);
	}
	free(dict);
	model_free(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_stems_come_back_to_the_bit),
		cmocka_unit_test(keys_of_pth_are_in_torchvision_order),
		cmocka_unit_test(model_json_says_how_to_use_it),
		cmocka_unit_test(an_older_model_is_replaced_whole),
		cmocka_unit_test(equal_models_are_equal_files),
		cmocka_unit_test(failures_leave_no_half_file),
		cmocka_unit_test(a_disk_that_is_too_small_is_noticed_before),
		cmocka_unit_test(damage_is_seen_when_reading_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
