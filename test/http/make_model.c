/* make_model.c: writes a model directory as `train` would, with weights from golden.h's hash, in a second instead of a training run.
 *
 *     make_model DIRECTORY STEM CLASSES
 *
 * What the network with the imagenet stem and 100 classes answers to golden.h's images is in test/golden/serve.txt (make_serve.py, whose
 * weights these are). Used by the tests of serve and by bench_serve. */
#include "core/base/log.h"
#include "core/model/labels.h"
#include "test/golden/golden.h"
#include "train/artifact.h"

#include <sys/stat.h>

enum { NAME_BYTES = 32 };

static enum status model_write(const char *directory, const char *stem_word, int classes)
{
	static char names[RESNET_CLASSES_MAX][NAME_BYTES];
	static char *pointers[RESNET_CLASSES_MAX];
	struct network network;
	struct params_layout layout;
	struct params params = {0};
	enum stem stem;
	TRY(stem_parse(stem_word, &stem));
	TRY(network_build(&network, stem, 32, classes));
	params_layout_build(&layout, &network);
	TRY(params_alloc(&params, &layout));
	golden_params(&params, &network, &layout, false);
	golden_sharpen(&params, &layout);
	for (int k = 0; k < classes; k++) {
		snprintf(names[k], NAME_BYTES, "%s", classes == CIFAR100_CLASSES ? labels_cifar100[k] : "");
		if (names[k][0] == '\0')
			snprintf(names[k], NAME_BYTES, "class %d", k);
		pointers[k] = names[k];
	}
	struct artifact_metric metric = {"validation:accuracy", 0.5};
	struct artifact_content content = {.network = &network, .layout = &layout, .params = &params, .class_names = pointers,
		.normalization = golden_normalization, .recipe = "none", .metrics = &metric, .metrics_count = 1,
		.formats = ARTIFACT_SAFETENSORS | ARTIFACT_PTH};
	enum status status = artifact_write(directory, &content);
	params_free(&params);
	return status;
}

int main(int count, char **words)
{
	if (count != 4) {
		log_error("usage: make_model DIRECTORY STEM CLASSES");
		return status_exit_code(ST_SETTINGS);
	}
	mkdir(words[1], 0777); /* if it cannot be made, writing into it says why */
	enum status status = model_write(words[1], words[2], atoi(words[3]));
	if (status != ST_OK)
		log_error("%s", status_message());
	return status_exit_code(status);
}
