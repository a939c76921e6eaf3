/* engine.h: inference on one CPU: a network folded, pruned, packed and planned once, then run on any number of images.
 *
 * In: the network table, its tensors, a pool of threads. Out: logits. Batch norm is folded into weights and bias, taps that only meet
 * padding are dropped, weights are packed in the order in which the kernels read them; the tensors are not needed after engine_open.
 * The logits of an image do not depend, to the bit, on the other images of the call, on their number or on the number of threads.
 * It knows no request, no file, no label. */
#pragma once

#include "core/base/status.h"
#include "core/base/threads.h"
#include "core/model/params.h"
#include "core/model/resnet.h"

#include <stddef.h>

struct engine;

struct engine_config {
	const struct network *network; /* copied */
	const struct params_layout *layout;
	const float *const *tensors; /* layout->count of them, in the order and with the shapes of layout->all; finite */
	int batch_max;           /* images computed at a time at most; memory grows with it, engine_run takes any number */
	size_t bytes_max;        /* 0: no limit */
	struct threads *threads; /* lent until engine_close; may be shared by any number of engines */
};

/* The tensors of `params` as engine_config wants them: PARAMS_MAX pointers at most. */
void engine_tensors(const struct params_layout *layout, const struct params *params, const float **tensors);

/* ST_MEMORY, also when more than bytes_max would be held; ST_SETTINGS when SMELT_CPU asks for instructions that are not there or batch_max is below 1. */
enum status engine_open(const struct engine_config *config, struct engine **engine);
void engine_close(struct engine *engine); /* accepts NULL */

/* logits[i · classes + k] of images[i], each 3 × S × S planar (C, H, W) normalised floats, i < n, n ≥ 1. No allocation. One caller at a
 * time for an engine; engines that share threads take turns layer by layer. */
void engine_run(struct engine *engine, const float *const *images, size_t n, float *logits);

/* Memory that the engine holds. */
size_t engine_bytes(const struct engine *engine);
/* One line for the log: instruction set, threads, multiply-accumulates of an image, bytes. Owned by the engine. */
const char *engine_description(const struct engine *engine);
