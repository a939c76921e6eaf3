/* engine.h: inference on one CPU: a network folded, pruned, packed and planned once, then run on any number of images.
 *
 * In: the network table, its params, a pool of threads. Out: logits. Batch norm is folded into weights and bias, taps that only meet
 * padding are dropped, weights are packed in the order in which the kernels read them; the params are not needed after engine_open.
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
	const struct params *params;
	int batch_max;           /* images computed at a time at most; memory grows with it, engine_run takes any number */
	struct threads *threads; /* lent until engine_close; may be shared by engines that do not run at the same time */
};

/* ST_MEMORY; ST_SETTINGS when the network cannot be done here (the sentence says what). */
enum status engine_open(const struct engine_config *config, struct engine **engine);
void engine_close(struct engine *engine); /* accepts NULL */

/* logits[i · classes + k] of images[i], each 3 × S × S planar (C, H, W) normalised floats, i < n, n ≥ 1. No allocation. One caller at a
 * time for engines that share threads. */
void engine_run(struct engine *engine, const float *const *images, size_t n, float *logits);

/* Memory that the engine holds. */
size_t engine_bytes(const struct engine *engine);
/* One line for the log: instruction set, threads, multiply-accumulates of an image, bytes. Owned by the engine. */
const char *engine_description(const struct engine *engine);
