/* Goal: weights from elsewhere start the network exactly, or a sentence names the tensor that does not fit and nothing has changed.
 * Method: small files for the whole network, written here as torch's legacy format: every tensor is one number repeated by stride
 * 0, tensor i being numbers[i]. Each case spoils one thing. */
#include "core/base/file.h"
#include "core/model/state_dict.h"
#include "train/pretrained.h"

#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { OURS = 5, NUMBERS = 256, FILE_BYTES = 1 << 17 };

/* What a file holds and how it differs from the network's own state dict. */
struct recipe {
	enum stem stem;
	int classes;
	const char *prefix;
	const char *missing;     /* left out */
	const char *extra;       /* one more of this name, shape [2] */
	const char *reshaped;    /* has shape [2, 3] */
	const char *spoiled;     /* holds this: */
	float value;
	bool counters;
};

static const struct recipe good = {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .counters = true};

struct program {
	uint8_t bytes[FILE_BYTES];
	size_t count;
};

static void add_bytes(struct program *program, const void *bytes, size_t count)
{
	assert_true(count <= FILE_BYTES - program->count);
	memcpy(program->bytes + program->count, bytes, count);
	program->count += count;
}

static void add(struct program *program, const char *text)
{
	add_bytes(program, text, strlen(text));
}

static void add_tensor(struct program *program, const char *prefix, const char *name, const char *storage, int offset, int rank, const int64_t *shape)
{
	char line[400];
	snprintf(line, sizeof line, "V%s%s\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\n%sStorage\nV%s\nVcpu\nI%d\ntQI%d\n(", prefix, name, storage,
		storage, strcmp(storage, "Long") == 0 ? 1 : NUMBERS, offset);
	add(program, line);
	for (int k = 0; k < rank; k++) {
		snprintf(line, sizeof line, "I%lld\n", (long long)shape[k]);
		add(program, line);
	}
	add(program, "t(");
	for (int k = 0; k < rank; k++)
		add(program, "I0\n");
	add(program, "tI00\n}tR");
}

static float number_of(int i)
{
	return (float)(i + 1) / 8;
}

/* Writes the file and returns its path. */
static const char *make_file(const struct recipe *recipe)
{
	static char path[64];
	static struct network network;
	static struct params_layout layout;
	static struct program program;
	static const int64_t two[] = {2, 3};
	float numbers[NUMBERS];
	program.count = 0;
	assert_int_equal(network_build(&network, recipe->stem, 32, recipe->classes), ST_OK);
	params_layout_build(&layout, &network);
	add_bytes(&program, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02M\xe9\x03.\x80\x02}.(", 26);
	for (int i = 0; i < layout.count; i++) {
		const struct param *param = &layout.all[i];
		bool reshaped = recipe->reshaped != NULL && strcmp(param->name, recipe->reshaped) == 0;
		numbers[i] = number_of(i);
		if (recipe->spoiled != NULL && strcmp(param->name, recipe->spoiled) == 0)
			numbers[i] = recipe->value;
		if (recipe->missing == NULL || strcmp(param->name, recipe->missing) != 0)
			add_tensor(&program, recipe->prefix, param->name, "Float", i, reshaped ? 2 : param->rank, reshaped ? two : param->shape);
		if (param->kind == PARAM_RUNNING_VAR && recipe->counters) {
			char name[128];
			state_dict_counter_name(param, name, sizeof name);
			add_tensor(&program, recipe->prefix, name, "Long", 0, 0, NULL);
		}
	}
	if (recipe->extra != NULL)
		add_tensor(&program, recipe->prefix, recipe->extra, "Float", 0, 1, two);
	add(&program, "d.(VFloat\n");
	add(&program, recipe->counters ? "VLong\nl." : "l.");
	add_bytes(&program, (const int64_t[]){NUMBERS}, 8);
	add_bytes(&program, numbers, sizeof numbers);
	if (recipe->counters)
		add_bytes(&program, (const int64_t[]){1, 77}, 16);
	snprintf(path, sizeof path, "/tmp/test_pretrained_XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(file_write(path, program.bytes, program.count), ST_OK);
	return path;
}

struct model {
	struct network network;
	struct params_layout layout;
	struct params params;
	bool head_loaded;
	enum status status;
};

/* Loads a file of that recipe into a network (imagenet stem, OURS classes) whose every number is -1. */
static void load(const struct recipe *recipe, struct model *model)
{
	assert_int_equal(network_build(&model->network, STEM_IMAGENET, 32, OURS), ST_OK);
	params_layout_build(&model->layout, &model->network);
	assert_int_equal(params_alloc(&model->params, &model->layout), ST_OK);
	for (size_t i = 0; i < model->layout.weights_count; i++)
		model->params.weights[i] = -1;
	for (size_t i = 0; i < model->layout.buffers_count; i++)
		model->params.buffers[i] = -1;
	model->params.batches_tracked = 3;
	model->head_loaded = false;
	const char *path = make_file(recipe);
	model->status = pretrained_load(path, &model->network, &model->layout, &model->params, &model->head_loaded);
	unlink(path);
}

static void check_numbers(const struct model *model, bool head)
{
	for (int i = 0; i < model->layout.count; i++) {
		const struct param *param = &model->layout.all[i];
		float wanted = param->unit >= 0 || head ? number_of(i) : -1;
		for (size_t k = 0; k < param->count; k++)
			assert_true(params_data(&model->params, param)[k] == wanted);
	}
}

static void good_files_fill_every_number(void **state)
{
	(void)state;
	static const char *const prefixes[] = {"", "model.", "module.", "net.", "backbone.", "_orig_mod.module.model."};
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
		struct model model;
		struct recipe recipe = good;
		recipe.prefix = prefixes[i];
		load(&recipe, &model);
		if (model.status != ST_OK)
			fail_msg("%s", status_message());
		assert_true(model.head_loaded);
		assert_int_equal(model.params.batches_tracked, 77);
		check_numbers(&model, true);
		params_free(&model.params);
	}
}

static void counters_may_be_missing(void **state)
{
	(void)state;
	struct model model;
	struct recipe recipe = good;
	recipe.counters = false;
	load(&recipe, &model);
	assert_int_equal(model.status, ST_OK);
	assert_int_equal(model.params.batches_tracked, 0);
	check_numbers(&model, true);
	params_free(&model.params);
}

static void another_number_of_classes_leaves_the_head_alone(void **state)
{
	(void)state;
	struct model model;
	struct recipe recipe = good;
	recipe.classes = 1000;
	load(&recipe, &model);
	assert_int_equal(model.status, ST_OK);
	assert_false(model.head_loaded);
	check_numbers(&model, false);
	params_free(&model.params);
}

static void what_does_not_fit_is_named_and_changes_nothing(void **state)
{
	(void)state;
	const struct {
		const char *what;
		struct recipe recipe;
		const char *sentences[3];
	} cases[] = {
		{"stem", {.stem = STEM_CIFAR, .classes = OURS, .prefix = ""}, {"\"conv1.weight\" has shape [64, 3, 3, 3]", "needs [64, 3, 7, 7]", "stem=cifar"}},
		{"missing", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .missing = "layer3.4.bn2.running_var"}, {"\"layer3.4.bn2.running_var\" is missing"}},
		{"no head", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .missing = "fc.bias"}, {"\"fc.bias\" is missing"}},
		{"foreign prefix", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "encoder."}, {"\"conv1.weight\" is missing", "\"encoder.conv1.weight\""}},
		{"extra", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .extra = "layer5.0.conv1.weight"}, {"\"layer5.0.conv1.weight\" is not in this network"}},
		{"shape", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .reshaped = "layer2.0.downsample.0.weight"},
			{"\"layer2.0.downsample.0.weight\" has shape [2, 3]", "needs [128, 64, 1, 1]"}},
		{"half a head", {.stem = STEM_IMAGENET, .classes = 7, .prefix = "", .reshaped = "fc.bias"}, {"\"fc.weight\" has shape [7, 512]", "needs [5, 512]"}},
		{"head's width", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .reshaped = "fc.weight"}, {"\"fc.weight\" has shape [2, 3]"}},
		{"NaN", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .spoiled = "fc.weight", .value = NAN}, {"\"fc.weight\" holds nan", "finite"}},
		{"infinity", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .spoiled = "bn1.bias", .value = INFINITY}, {"\"bn1.bias\" holds inf"}},
		{"variance", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .spoiled = "bn1.running_var", .value = -1}, {"\"bn1.running_var\" holds -1", "variance"}},
		{"counter's name", {.stem = STEM_IMAGENET, .classes = OURS, .prefix = "", .extra = "bn1.num_batches_tracked"}, {"\"bn1.num_batches_tracked\"", "one whole number"}},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct model model;
		load(&cases[i].recipe, &model);
		for (int s = 0; s < 3; s++)
			if (model.status != ST_DATA || (cases[i].sentences[s] != NULL && strstr(status_message(), cases[i].sentences[s]) == NULL))
				fail_msg("%s: %s, \"%s\", expected \"%s\"", cases[i].what, status_name(model.status), status_message(), cases[i].sentences[s]);
		for (size_t k = 0; k < model.layout.weights_count; k++)
			assert_true(model.params.weights[k] == -1);
		for (size_t k = 0; k < model.layout.buffers_count; k++)
			assert_true(model.params.buffers[k] == -1);
		assert_int_equal(model.params.batches_tracked, 3);
		params_free(&model.params);
	}
}

static void a_path_that_is_not_there_says_so(void **state)
{
	(void)state;
	struct model model = {.head_loaded = true};
	assert_int_equal(network_build(&model.network, STEM_IMAGENET, 32, OURS), ST_OK);
	params_layout_build(&model.layout, &model.network);
	assert_int_equal(pretrained_load("/nonexistent/model.pth", &model.network, &model.layout, &model.params, &model.head_loaded), ST_DATA);
	assert_non_null(strstr(status_message(), "/nonexistent/model.pth"));
	assert_true(model.head_loaded);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_files_fill_every_number),
		cmocka_unit_test(counters_may_be_missing),
		cmocka_unit_test(another_number_of_classes_leaves_the_head_alone),
		cmocka_unit_test(what_does_not_fit_is_named_and_changes_nothing),
		cmocka_unit_test(a_path_that_is_not_there_says_so),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
