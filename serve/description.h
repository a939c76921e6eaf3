/* description.h: model.json, which `train` writes beside the weights: what the weights alone do not say.
 *
 * In: the file's path. Out: checked values; whatever is not said is left at 0 or NULL. Members that are not known are passed over. */
#pragma once

#include "core/base/json.h"
#include "core/model/normalization.h"
#include "core/model/resnet.h"

struct description {
	struct json *json;   /* owned; NULL: there is no file */
	const char *stem;    /* NULL: not said */
	int image_size, classes;
	const struct json *class_names; /* a list of text */
	bool normalized;
	struct normalization normalization;
};

/* Reads directory/model.json; a directory without one gives an empty description. ST_DATA when it is damaged or for another architecture;
 * ST_MEMORY. description_close releases. */
enum status description_open(const char *directory, struct description *description);
void description_close(struct description *description); /* accepts {0} */
