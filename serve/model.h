/* model.h: a model directory → an engine that answers, with labels and normalisation.
 *
 * In: what `train` wrote (model.json, model.safetensors or model.pth), or only a weight file that core/format/weights.h can read of a torchvision-style
 * ResNet34: classes from the head, stem from the first convolution's shape. Read-only. */
#pragma once

#include "core/base/threads.h"
#include "core/engine/engine.h"
#include "core/model/normalization.h"
#include "core/model/resnet.h"

#include <stddef.h>

/* What a person may say about a model that does not say it itself; all from the environment (serve/options.h). */
struct model_options {
	const char *labels_path;   /* a text file, one class a line; NULL: model.json's, else CIFAR-100's or CIFAR-10's by count, else numbers */
	const float *mean, *std;   /* 3 each; NULL: model.json's, else CIFAR's */
	int image_size;            /* 0: model.json's, else 32 */
	int batch_max;
	size_t bytes_max;          /* 0: no limit; else ST_MEMORY when the model would take more */
};

struct model {
	struct network network;
	struct normalization normalization;
	char **class_names; /* network.head.classes of them */
	struct engine *engine;
	char *card;         /* what the page shows: a JSON object: architecture, stem, image_size, classes, recipe, metrics, file, parameters,
	                     * engine */
	size_t bytes;       /* held in memory */
};

/* Reads, checks and plans, then runs one image through it (self-check: the logits are finite). ST_DATA with a sentence when there is
 * no model, it is damaged or no ResNet34; ST_MEMORY. */
enum status model_open(const char *directory, const struct model_options *options, struct threads *threads, struct model **model);
void model_close(struct model *model); /* accepts NULL */
