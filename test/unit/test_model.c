/* Goal: whatever a model directory holds becomes an engine with the right labels, normalisation and size, or a sentence says why not.
 * Method: directories as `train` writes them and as people bring them, whole, stripped of parts and spoiled one at a time; logits compared
 * with those of an engine made from the same numbers in memory. */
#include "serve/model.h"

#include "core/base/json.h"
#include "core/format/pth_write.h"
#include "core/model/state_dict.h"
#include "test/unit/scratch.h"
#include "train/artifact.h"

#include <math.h>

enum { CLASSES = 7, SIZE = 24, PIXELS = 3 * SIZE * SIZE };

/* A network with seeded weights. */
struct source {
	struct network network;
	struct params_layout layout;
	struct params params;
};

static void source_open(struct source *source, enum stem stem, int size, int classes)
{
	OK(network_build(&source->network, stem, size, classes));
	params_layout_build(&source->layout, &source->network);
	OK(params_alloc(&source->params, &source->layout));
	params_init(&source->params, &source->network, &source->layout, 5, false);
}

static void source_close(struct source *source)
{
	params_free(&source->params);
}

static char names[CLASSES][16];
static char *name_pointers[CLASSES];
static const struct normalization odd_normalization = {{0.25f, 0.5f, 0.75f}, {0.125f, 0.25f, 0.5f}};

/* As `train` leaves it. */
static void artifact_make(const struct source *source, const char *directory, unsigned formats)
{
	for (int i = 0; i < CLASSES; i++) {
		snprintf(names[i], sizeof names[i], "kind %d", i);
		name_pointers[i] = names[i];
	}
	const struct artifact_metric metric = {"validation:accuracy", 0.75};
	const struct artifact_content content = {.network = &source->network, .layout = &source->layout, .params = &source->params,
		.class_names = name_pointers, .normalization = odd_normalization, .recipe = "fast10", .metrics = &metric, .metrics_count = 1, .formats = formats};
	OK(artifact_write(directory, &content));
}

static struct threads *threads;
static const struct model_options usual = {.batch_max = 4};

/* The model gives the source's logits for an image. */
static void logits_check(const struct model *model, const struct source *source)
{
	static float image[PIXELS];
	float found[CLASSES], want[CLASSES];
	const float *tensors[PARAMS_MAX];
	struct engine *engine;
	const struct engine_config config = {.network = &source->network, .layout = &source->layout, .tensors = tensors, .batch_max = 1, .threads = threads};
	assert_true(model->network.image_size == SIZE && source->network.image_size == SIZE);
	for (int i = 0; i < PIXELS; i++)
		image[i] = (float)(i % 17) / 8 - 1;
	engine_tensors(&source->layout, &source->params, tensors);
	OK(engine_open(&config, &engine));
	engine_run(engine, (const float *const[]){image}, 1, want);
	engine_run(model->engine, (const float *const[]){image}, 1, found);
	assert_memory_equal(found, want, sizeof found);
	engine_close(engine);
}

static void text_write(const char *name, const char *text)
{
	scratch_write(name, text, strlen(text));
}

static void what_train_wrote_is_served(void **state)
{
	(void)state;
	for (int stem = STEM_IMAGENET; stem <= STEM_CIFAR; stem++) {
		struct source source;
		struct model *model;
		source_open(&source, (enum stem)stem, SIZE, CLASSES);
		artifact_make(&source, scratch, stem == STEM_IMAGENET ? ARTIFACT_SAFETENSORS | ARTIFACT_PTH : ARTIFACT_PTH);
		OK(model_open(scratch, &usual, threads, &model));
		assert_int_equal(model->network.stem, stem);
		assert_int_equal(model->network.head.classes, CLASSES);
		for (int i = 0; i < CLASSES; i++)
			assert_string_equal(model->class_names[i], names[i]);
		assert_memory_equal(&model->normalization, &odd_normalization, sizeof odd_normalization);
		logits_check(model, &source);
		assert_true(model->bytes > engine_bytes(model->engine));
		struct json *card;
		OK(json_parse("card", model->card, strlen(model->card), &card));
		assert_string_equal(json_string(json_member(card, "architecture")), "resnet34");
		assert_string_equal(json_string(json_member(card, "stem")), stem_name((enum stem)stem));
		assert_true(json_number(json_member(card, "image_size")) == SIZE);
		assert_true(json_number(json_member(card, "classes")) == CLASSES);
		assert_string_equal(json_string(json_member(card, "recipe")), "fast10");
		assert_true(json_number(json_member(json_member(card, "metrics"), "validation:accuracy")) == 0.75);
		assert_string_equal(json_string(json_member(card, "file")), stem == STEM_IMAGENET ? "model.safetensors" : "model.pth");
		assert_true(json_number(json_member(card, "parameters")) > 21e6);
		json_free(card);
		model_close(model);
		source_close(&source);
		remove(scratch_path("model.pth"));
		remove(scratch_path("model.safetensors"));
	}
}

/* Only a file of weights: classes from the head, stem from the first kernel, labels by their number. */
static void weights_alone_are_enough(void **state)
{
	(void)state;
	static const struct {
		int classes;
		const char *first, *last;
		const struct normalization *normalization;
	} cases[] = {{CLASSES, "0", "6", &normalization_cifar100}, {10, "airplane", "truck", &normalization_cifar10}, {100, "apple", "worm", &normalization_cifar100}};
	for (size_t i = 0; i < 3; i++) {
		struct source source;
		struct model *model;
		source_open(&source, STEM_IMAGENET, 32, cases[i].classes);
		struct file_writer writer;
		static struct state_dict dict;
		state_dict_make(&dict, &source.layout, &source.params);
		OK(file_begin(&writer, scratch_path("weights.ckpt"), FILE_TEMPORARY_SUFFIX));
		OK(pth_write(&writer, "archive", dict.views, (size_t)dict.count));
		OK(file_commit(&writer));
		OK(model_open(scratch, &usual, threads, &model));
		assert_int_equal(model->network.stem, STEM_IMAGENET);
		assert_int_equal(model->network.image_size, 32);
		assert_int_equal(model->network.head.classes, cases[i].classes);
		assert_string_equal(model->class_names[0], cases[i].first);
		assert_string_equal(model->class_names[cases[i].classes - 1], cases[i].last);
		assert_memory_equal(&model->normalization, cases[i].normalization, sizeof model->normalization);
		model_close(model);
		source_close(&source);
	}
}

static void options_win(void **state)
{
	(void)state;
	static const float mean[3] = {0.1f, 0.2f, 0.3f}, std[3] = {1, 2, 3};
	struct source source;
	struct model *model;
	source_open(&source, STEM_CIFAR, SIZE, CLASSES);
	artifact_make(&source, scratch_path("model"), ARTIFACT_SAFETENSORS);
	text_write("labels.txt", "ant\r\nbee \ncat\n\xc3\xa9l\xc3\xa9phant\nemu\nfly\ngnu\n\n");
	struct model_options options = {.labels_path = scratch_path("labels.txt"), .mean = mean, .batch_max = 2, .image_size = 16};
	OK(model_open(scratch_path("model"), &options, threads, &model));
	assert_string_equal(model->class_names[0], "ant");
	assert_string_equal(model->class_names[1], "bee");
	assert_string_equal(model->class_names[3], "\xc3\xa9l\xc3\xa9phant");
	assert_string_equal(model->class_names[6], "gnu");
	assert_int_equal(model->network.image_size, 16);
	assert_memory_equal(model->normalization.mean, mean, sizeof mean);
	assert_memory_equal(model->normalization.std, odd_normalization.std, sizeof std);
	size_t bytes = model->bytes;
	model_close(model);
	options = (struct model_options){.std = std, .batch_max = 2, .image_size = 16, .bytes_max = bytes};
	OK(model_open(scratch_path("model"), &options, threads, &model));
	assert_memory_equal(model->normalization.std, std, sizeof std);
	model_close(model);
	model = NULL;
	options.bytes_max = bytes / 2;
	FAILS(ST_MEMORY, "MB are allowed", model_open(scratch_path("model"), &options, threads, &model));
	options = usual;
	static const char *const spoiled[][2] = {{"ant\nbee\n", "2 lines, the model has 7 classes"}, {"1\n2\n3\n4\n5\n6\n7\n8\n", "8 lines"},
		{"1\n\n3\n4\n5\n6\n7\n", "line 2 is empty, expected the name of class 1"}, {"1\n\xff\n", "UTF-8"}, {"", "0 lines"}};
	options.labels_path = scratch_path("labels.txt");
	for (size_t i = 0; i < sizeof spoiled / sizeof *spoiled; i++) {
		text_write("labels.txt", spoiled[i][0]);
		FAILS(ST_DATA, spoiled[i][1], model_open(scratch_path("model"), &options, threads, &model));
	}
	options.labels_path = scratch_path("nowhere.txt");
	FAILS(ST_DATA, "nowhere.txt", model_open(scratch_path("model"), &options, threads, &model));
	assert_null(model);
	source_close(&source);
}

/* Half the numbers, and not where floats may lie: converted on the way. */
static void other_element_types_are_converted(void **state)
{
	(void)state;
	struct source source;
	struct model *model;
	static struct state_dict dict;
	source_open(&source, STEM_CIFAR, SIZE, CLASSES);
	uint16_t *halves = malloc(source.layout.weights_count * sizeof *halves);
	assert_non_null(halves);
	for (size_t i = 0; i < source.layout.weights_count; i++) {
		uint32_t bits;
		memcpy(&bits, &source.params.weights[i], sizeof bits);
		bits &= 0xffff0000u;
		memcpy(&source.params.weights[i], &bits, sizeof bits);
		halves[i] = (uint16_t)(bits >> 16);
	}
	state_dict_make(&dict, &source.layout, &source.params);
	for (int i = 0; i < dict.count; i++) {
		int at = params_find(&source.layout, dict.views[i].name);
		if (at >= 0 && !param_is_buffer(&source.layout.all[at]))
			dict.views[i] = tensor_view_make(dict.views[i].name, DTYPE_BF16, dict.views[i].rank, dict.views[i].shape, halves + source.layout.all[at].offset);
	}
	struct file_writer writer;
	OK(file_begin(&writer, scratch_path("half.pth"), FILE_TEMPORARY_SUFFIX));
	OK(pth_write(&writer, "archive", dict.views, (size_t)dict.count));
	OK(file_commit(&writer));
	const struct model_options options = {.batch_max = 1, .image_size = SIZE};
	OK(model_open(scratch, &options, threads, &model));
	logits_check(model, &source);
	model_close(model);
	free(halves);
	source_close(&source);
}

static void what_is_no_model_is_named(void **state)
{
	(void)state;
	struct source source;
	struct model *model = NULL;
	FAILS(ST_DATA, "no weight file is in it", model_open(scratch, &usual, threads, &model));
	FAILS(ST_DATA, "nowhere", model_open(scratch_path("nowhere"), &usual, threads, &model));
	text_write("model.safetensors", "not at all");
	FAILS(ST_DATA, "model.safetensors", model_open(scratch, &usual, threads, &model));

	source_open(&source, STEM_IMAGENET, SIZE, CLASSES);
	artifact_make(&source, scratch, ARTIFACT_SAFETENSORS);
	uint8_t *bytes;
	size_t count;
	OK(file_read(scratch_path("model.safetensors"), 1 << 30, &bytes, &count));
	static const size_t cuts[] = {4, 1000, 100000, 50000000};
	for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
		scratch_write("model.safetensors", bytes, cuts[i]);
		FAILS(ST_DATA, "model.safetensors", model_open(scratch, &usual, threads, &model));
	}
	scratch_write("model.safetensors", bytes, count - 1);
	FAILS(ST_DATA, "model.safetensors", model_open(scratch, &usual, threads, &model));
	free(bytes);

	/* Not a ResNet34. */
	const int64_t shape[4] = {64, 3, 5, 5}, head[2] = {7, 512}, one[1] = {1};
	static const float zeros[64 * 3 * 5 * 5];
	const struct tensor_view views[][2] = {
		{tensor_view_make("conv1.weight", DTYPE_F32, 4, shape, zeros), tensor_view_make("fc.weight", DTYPE_F32, 2, head, zeros)},
		{tensor_view_make("features.0.weight", DTYPE_F32, 1, one, zeros), tensor_view_make("classifier.weight", DTYPE_F32, 1, one, zeros)},
		{tensor_view_make("conv1.weight", DTYPE_F32, 4, (const int64_t[]){64, 3, 3, 3}, zeros), tensor_view_make("fc.weight", DTYPE_F32, 1, one, zeros)},
		{tensor_view_make("conv1.weight", DTYPE_F32, 4, (const int64_t[]){64, 3, 3, 3}, zeros), tensor_view_make("fc.weight", DTYPE_F32, 2, head, zeros)}};
	static const char *const sentences[] = {"\"conv1.weight\" has shape [64, 3, 5, 5]", "\"conv1.weight\" is missing", "\"fc.weight\" has shape [1]",
		"\"bn1.weight\" is missing"};
	remove(scratch_path("model.safetensors"));
	remove(scratch_path("model.json"));
	for (size_t i = 0; i < 4; i++) {
		struct file_writer writer;
		OK(file_begin(&writer, scratch_path("model.pth"), FILE_TEMPORARY_SUFFIX));
		OK(pth_write(&writer, "archive", views[i], 2));
		OK(file_commit(&writer));
		FAILS(ST_DATA, sentences[i], model_open(scratch, &usual, threads, &model));
	}
	remove(scratch_path("model.pth"));

	/* Numbers that no training leaves; finite ones whose logits are not. */
	float *gamma = params_data(&source.params, &source.layout.all[source.layout.unit[3].gamma]);
	gamma[5] = NAN;
	artifact_make(&source, scratch, ARTIFACT_SAFETENSORS);
	FAILS(ST_DATA, "holds nan", model_open(scratch, &usual, threads, &model));
	float *bias = params_data(&source.params, &source.layout.all[source.layout.head_bias]);
	gamma[5] = 1;
	for (int u = 0; u < RESNET_UNITS; u++)
		for (int k = 0; k < source.network.units[u].K; k++)
			params_data(&source.params, &source.layout.all[source.layout.unit[u].beta])[k] = 1e38f;
	bias[0] = 3e38f;
	artifact_make(&source, scratch, ARTIFACT_SAFETENSORS);
	FAILS(ST_DATA, "tried on a grey image", model_open(scratch, &usual, threads, &model));
	assert_null(model);
	source_close(&source);
	model_close(NULL);
}

static void a_description_must_fit_its_weights(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"{\"architecture\": \"resnet50\"}", "\"architecture\" is \"resnet50\", only resnet34"},
		{"{\"stem\": \"cifar\"}", "stem=imagenet, but model.json beside it says \"cifar\""},
		{"{\"stem\": 7}", "\"stem\" is a number, expected a string"},
		{"{\"classes\": 8}", "7 classes, but model.json beside it says 8"},
		{"{\"classes\": 2.5}", "\"classes\" is 2.5, expected a whole number"},
		{"{\"image_size\": 4}", "\"image_size\" is 4, expected a whole number from 8 to 512"},
		{"{\"image_size\": \"32\"}", "\"image_size\" is a string"},
		{"{\"class_names\": [\"a\", \"b\"]}", "7 classes, but model.json beside it names 2"},
		{"{\"classes\": 7, \"class_names\": [\"a\", \"b\"]}", "\"class_names\" has 2 names, \"classes\" is 7"},
		{"{\"class_names\": [1]}", "\"class_names\" holds a number"},
		{"{\"normalization\": []}", "\"normalization\" is a list"},
		{"{\"normalization\": {\"mean\": [0, 0, 0]}}", "\"std\" is not a list of three numbers"},
		{"{\"normalization\": {\"mean\": [0, 0], \"std\": [1, 1, 1]}}", "\"mean\" is not a list of three numbers"},
		{"{\"normalization\": {\"mean\": [0, 0, \"0\"], \"std\": [1, 1, 1]}}", "\"mean\" is not a list of three numbers"},
		{"{\"normalization\": {\"mean\": [0, 0, 0], \"std\": [1, 1, 0]}}", "\"std\" is not a list of three numbers"},
		{"[1]", "it holds a list, expected an object"},
		{"{\"classes\": ", "model.json"},
	};
	struct source source;
	struct model *model = NULL;
	source_open(&source, STEM_IMAGENET, SIZE, CLASSES);
	artifact_make(&source, scratch, ARTIFACT_SAFETENSORS);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		text_write("model.json", cases[i][0]);
		FAILS(ST_DATA, cases[i][1], model_open(scratch, &usual, threads, &model));
		assert_null(model);
	}
	/* Nothing in it must be there. */
	text_write("model.json", "{\"something\": [1, 2], \"recipe\": 3, \"metrics\": {\"a\": null, \"b\": 2}}");
	OK(model_open(scratch, &usual, threads, &model));
	assert_int_equal(model->network.image_size, 32);
	assert_non_null(strstr(model->card, "\"recipe\": null"));
	assert_non_null(strstr(model->card, "\"metrics\": {\"b\": 2}"));
	model_close(model);
	source_close(&source);
}

static int pool_open(void **state)
{
	(void)state;
	return threads_open(2, &threads) != ST_OK;
}

static int pool_close(void **state)
{
	(void)state;
	threads_close(threads);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(what_train_wrote_is_served),
		SCRATCH_TEST(weights_alone_are_enough),
		SCRATCH_TEST(options_win),
		SCRATCH_TEST(other_element_types_are_converted),
		SCRATCH_TEST(what_is_no_model_is_named),
		SCRATCH_TEST(a_description_must_fit_its_weights),
	};
	return cmocka_run_group_tests(tests, pool_open, pool_close);
}
