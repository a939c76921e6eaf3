/* artifact.h: the trained model as files that others read.
 *
 * In: the network, its params, what a program must know to use them. Out, in the model directory:
 *   model.safetensors, model.pth   the state dict with torchvision's names, shapes and order of keys; fp32, num_batches_tracked int64.
 *       With the imagenet stem, torchvision.models.resnet34().load_state_dict(torch.load("model.pth", weights_only=True)) takes it.
 *   model.json   architecture, stem, image_size, classes, class_names, normalization, recipe, metrics, files, versions.
 * Which weight files: bits of ARTIFACT_LIST (settings.h); one that is not asked for but lies there from an earlier run is removed, so that
 * the directory never holds two models. Equal content gives equal bytes: no times, no host names. */
#pragma once

#include "core/backend/backend.h"
#include "train/settings/settings.h"

struct artifact_metric {
	const char *name; /* "validation:accuracy" */
	double value;     /* null in model.json when it is not finite */
};

struct artifact_content {
	const struct network *network;
	const struct params_layout *layout;
	const struct params *params;
	char *const *class_names; /* network->head.classes of them, in the order of the labels */
	struct normalization normalization;
	const char *recipe;
	const struct artifact_metric *metrics;
	size_t metrics_count;
	unsigned formats; /* ARTIFACT_SAFETENSORS | ARTIFACT_PTH */
};

/* Writes the files, each under a temporary name first, and reads each back: when this returns ST_OK, what lies there has been compared with
 * `content` to the bit. Files of an earlier model are replaced. ST_DISK: not enough room (looked at before writing), or a write or
 * the reading back failed; no temporary file is left then. ST_MEMORY. */
enum status artifact_write(const char *model_directory, const struct artifact_content *content);
