/* pretrained.h: starts a network from weights that somebody trained before.
 *
 * In: a weight file, an archive of one, or a directory with one (core/format/weights.h says which), and the network's layout. Out: filled
 * params. The file must be this network: torchvision's names (after the wrappers' prefixes), every shape equal; only the head may
 * be for another number of classes. */
#pragma once

#include "core/model/params.h"

#include <stdbool.h>

/* Copies every tensor of `path` into `params` (allocated and initialised by the caller). When the file's head has another number of
 * classes, the head in `params` stays as it is, *head_loaded is false and a line says so. num_batches_tracked may be missing (0).
 * ST_DATA, with `params` untouched, when the file cannot be read or does not fit: a missing or strange tensor, a shape (found and
 * wanted are named), a number that is not finite, a negative variance. ST_MEMORY. */
enum status pretrained_load(const char *path, const struct network *network, const struct params_layout *layout, struct params *params, bool *head_loaded);
