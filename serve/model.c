/* model.c: see model.h. */
#include "serve/model.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/text.h"
#include "core/format/weights.h"
#include "core/model/labels.h"
#include "core/model/state_dict.h"
#include "serve/description.h"

#include <malloc.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGE_SIZE_USUAL = 32, LABELS_BYTES_MAX = 16 << 20 };

/* --- the network ---------------------------------------------------------------------------------------------------- */

/* What the weights say, compared with what the description says. */
static enum status network_find(const struct weights *weights, const struct description *description, const struct model_options *options,
	struct network *network)
{
	int image_size = options->image_size != 0 ? options->image_size : description->image_size != 0 ? description->image_size : IMAGE_SIZE_USUAL;
	TRY(state_dict_network(weights->name, &weights->tensors, image_size, network));
	if (description->stem != NULL && strcmp(description->stem, stem_name(network->stem)) != 0)
		return FAIL(ST_DATA, "%s: its first convolution makes it stem=%s, but model.json beside it says \"%s\"", weights->name, stem_name(network->stem),
			description->stem);
	if (description->classes != 0 && description->classes != network->head.classes)
		return FAIL(ST_DATA, "%s: its head has %d classes, but model.json beside it says %d", weights->name, network->head.classes, description->classes);
	if (description->class_names != NULL && json_count(description->class_names) != (size_t)network->head.classes)
		return FAIL(ST_DATA, "%s: its head has %d classes, but model.json beside it names %zu", weights->name, network->head.classes,
			json_count(description->class_names));
	return ST_OK;
}

/* --- weights -------------------------------------------------------------------------------------------------------- */

/* The file's tensors as floats: where they lie if they can be read there, else converted. */
struct floats {
	const float *tensors[PARAMS_MAX];
	float *converted[PARAMS_MAX];
};

static void floats_free(struct floats *floats)
{
	for (int i = 0; i < PARAMS_MAX; i++)
		free(floats->converted[i]);
}

static enum status floats_read(const struct weights *weights, const struct params_layout *layout, const struct state_dict_match *match, struct floats *floats)
{
	for (int i = 0; i < layout->count; i++) {
		const struct param *param = &layout->all[i];
		const struct tensor_view *view = match->views[i];
		if (view->dtype == DTYPE_F32 && tensor_is_contiguous(view) && (uintptr_t)view->data % sizeof(float) == 0) {
			floats->tensors[i] = (const float *)(const void *)view->data;
		} else {
			floats->converted[i] = malloc(param->count * sizeof(float));
			if (floats->converted[i] == NULL)
				return FAIL(ST_MEMORY, "%s: no memory for a tensor of %zu numbers", weights->name, param->count);
			enum status status = tensor_read_floats(view, floats->converted[i]);
			if (status != ST_OK)
				return status_prefix(status, "%s", weights->name);
			floats->tensors[i] = floats->converted[i];
		}
		TRY(state_dict_numbers_check(weights->name, param, floats->tensors[i]));
	}
	return ST_OK;
}

static enum status engine_from_weights(struct model *model, const struct weights *weights, const struct model_options *options, struct threads *threads)
{
	struct params_layout layout;
	struct state_dict_match match;
	struct floats floats = {0};
	params_layout_build(&layout, &model->network);
	TRY(state_dict_match(weights->name, &weights->tensors, &model->network, &layout, &match));
	enum status status = floats_read(weights, &layout, &match, &floats);
	if (status == ST_OK) {
		const struct engine_config config = {.network = &model->network, .layout = &layout, .tensors = floats.tensors, .batch_max = options->batch_max,
			.bytes_max = options->bytes_max, .threads = threads};
		status = engine_open(&config, &model->engine);
		if (status != ST_OK)
			status = status_prefix(status, "%s", weights->name);
	}
	floats_free(&floats);
	return status;
}

/* One grey image through the network. */
static enum status self_check(const struct model *model, const char *name)
{
	size_t classes = (size_t)model->network.head.classes, pixels = 3 * (size_t)model->network.image_size * (size_t)model->network.image_size;
	float *image = calloc(pixels, sizeof *image), *logits = malloc(classes * sizeof *logits);
	enum status status = ST_OK;
	if (image == NULL || logits == NULL) {
		status = FAIL(ST_MEMORY, "no memory to try the model on an image");
		goto done;
	}
	engine_run(model->engine, (const float *const[]){image}, 1, logits);
	for (size_t k = 0; k < classes; k++)
		if (!isfinite(logits[k])) {
			status = FAIL(ST_DATA, "%s: tried on a grey image, class %zu comes out as %g: these weights cannot be those of a trained network", name, k,
				(double)logits[k]);
			goto done;
		}
done:
	free(image);
	free(logits);
	return status;
}

/* --- labels and normalisation --------------------------------------------------------------------------------------- */

static enum status name_set(struct model *model, int i, const char *name, size_t length)
{
	model->class_names[i] = strndup(name, length);
	if (model->class_names[i] == NULL)
		return FAIL(ST_MEMORY, "no memory for the names of the classes");
	model->bytes += length + 1;
	return ST_OK;
}

/* One name a line; spaces at a line's end and empty lines at the file's end do not count. */
static enum status names_split(struct model *model, const char *path, const char *text, size_t count)
{
	int line = 0, classes = model->network.head.classes;
	while (count > 0 && strchr(" \t\r\n", text[count - 1]) != NULL)
		count--;
	for (const char *at = text, *end = text + count; at < end; line++) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));
		stop = stop == NULL ? end : stop;
		size_t length = (size_t)(stop - at);
		while (length > 0 && strchr(" \t\r", at[length - 1]) != NULL)
			length--;
		if (length == 0)
			return FAIL(ST_DATA, "%s: line %d is empty, expected the name of class %d", path, line + 1, line);
		if (line < classes)
			TRY(name_set(model, line, at, length));
		at = stop < end ? stop + 1 : end;
	}
	if (line != classes)
		return FAIL(ST_DATA, "%s: %d lines, the model has %d classes; one line a class", path, line, classes);
	return ST_OK;
}

static enum status names_from_file(struct model *model, const char *path)
{
	uint8_t *bytes;
	size_t count;
	TRY(file_read(path, LABELS_BYTES_MAX, &bytes, &count));
	enum status status = !text_is_utf8(bytes, count) || memchr(bytes, 0, count) != NULL
		? FAIL(ST_DATA, "%s: not a text in UTF-8", path)
		: names_split(model, path, (const char *)bytes, count);
	free(bytes);
	return status;
}

static enum status names_find(struct model *model, const struct description *description, const struct model_options *options)
{
	int classes = model->network.head.classes;
	model->class_names = calloc((size_t)classes, sizeof *model->class_names);
	if (model->class_names == NULL)
		return FAIL(ST_MEMORY, "no memory for the names of %d classes", classes);
	model->bytes += (size_t)classes * sizeof *model->class_names;
	if (options->labels_path != NULL)
		return names_from_file(model, options->labels_path);
	const struct json *given = description->class_names == NULL ? NULL : json_first(description->class_names);
	const char *const *known = classes == CIFAR100_CLASSES ? labels_cifar100 : classes == CIFAR10_CLASSES ? labels_cifar10 : NULL;
	for (int i = 0; i < classes; i++) {
		char number[16];
		snprintf(number, sizeof number, "%d", i);
		const char *name = given != NULL ? json_string(given) : known != NULL ? known[i] : number;
		TRY(name_set(model, i, name, strlen(name)));
		given = given == NULL ? NULL : json_next(given);
	}
	return ST_OK;
}

static void normalization_find(struct model *model, const struct description *description, const struct model_options *options)
{
	model->normalization = description->normalized ? description->normalization
		: model->network.head.classes == CIFAR10_CLASSES ? normalization_cifar10 : normalization_cifar100;
	for (int c = 0; c < 3; c++) {
		if (options->mean != NULL)
			model->normalization.mean[c] = options->mean[c];
		if (options->std != NULL)
			model->normalization.std[c] = options->std[c];
	}
}

/* --- the card ------------------------------------------------------------------------------------------------------- */

static enum status card_make(struct model *model, const struct description *description, const struct weights *weights)
{
	struct text text = {0};
	struct json_writer json = {.text = &text};
	int64_t parameters = 0;
	struct params_layout layout;
	params_layout_build(&layout, &model->network);
	for (int i = 0; i < layout.count; i++)
		parameters += param_is_buffer(&layout.all[i]) ? 0 : (int64_t)layout.all[i].count;
	const struct json *recipe = json_member(description->json, "recipe"), *metrics = json_member(description->json, "metrics");
	const char *file = strrchr(weights->name, '/');
	json_write_object(&json, NULL);
	json_write_string(&json, "architecture", "resnet34");
	json_write_string(&json, "stem", stem_name(model->network.stem));
	json_write_integer(&json, "image_size", model->network.image_size);
	json_write_integer(&json, "classes", model->network.head.classes);
	json_write_string(&json, "recipe", recipe != NULL && json_kind(recipe) == JSON_STRING ? json_string(recipe) : NULL);
	json_write_object(&json, "metrics");
	for (const struct json *metric = metrics != NULL && json_kind(metrics) == JSON_OBJECT ? json_first(metrics) : NULL; metric != NULL; metric = json_next(metric))
		if (json_kind(metric) == JSON_NUMBER)
			json_write_number(&json, json_name(metric), json_number(metric));
	json_write_end(&json);
	json_write_string(&json, "file", file == NULL ? weights->name : file + 1);
	json_write_integer(&json, "parameters", parameters);
	json_write_string(&json, "engine", engine_description(model->engine));
	enum status status = json_write_end_all(&json);
	if (status == ST_OK && (model->card = strdup(text_string(&text))) == NULL)
		status = FAIL(ST_MEMORY, "no memory for the model's card");
	if (status == ST_OK)
		model->bytes += text.length + 1;
	text_free(&text);
	return status;
}

/* --- open and close ------------------------------------------------------------------------------------------------- */

enum status model_open(const char *directory, const struct model_options *options, struct threads *threads, struct model **model)
{
	enum status status = ST_OK;
	struct weights weights = {0};
	struct description description = {0};
	struct model *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for a model");
	made->bytes = sizeof *made;
	TRY_DONE(description_open(directory, &description));
	TRY_DONE(weights_open(directory, &weights));
	TRY_DONE(network_find(&weights, &description, options, &made->network));
	TRY_DONE(names_find(made, &description, options));
	normalization_find(made, &description, options);
	TRY_DONE(engine_from_weights(made, &weights, options, threads));
	made->bytes += engine_bytes(made->engine);
	TRY_DONE(self_check(made, weights.name));
	TRY_DONE(card_make(made, &description, &weights));
	*model = made;
	made = NULL;
done:
	weights_close(&weights);
	description_close(&description);
	model_close(made);
	malloc_trim(0); /* a file's bytes and what was made of them on the way are not kept */
	return status;
}

void model_close(struct model *model)
{
	if (model == NULL)
		return;
	for (int i = 0; model->class_names != NULL && i < model->network.head.classes; i++)
		free(model->class_names[i]);
	free(model->class_names);
	engine_close(model->engine);
	free(model->card);
	free(model);
	malloc_trim(0);
}
