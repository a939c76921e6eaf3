/* step.h: one training step and one evaluation step, written out over the network table on any backend. */
#pragma once

#include "core/backend/backend.h"

/* What runs where; all lent. */
struct machine {
	const struct backend *backend;
	struct backend_state *state;
	const struct network *network;
	bool (*stopped)(void); /* asked between units; when true, a training step is abandoned. NULL: never */
	bool shared; /* the backend has a reduction: then a step is never abandoned half way, since the other ranks wait in its sums */
};

/* One SGD step on a batch of `total` images over all ranks, samples[0..n) of them here (n = total when alone): gather, forward, backward, sums
 * over ranks, clip, update. Counters gain n images. ST_STOPPED: abandoned, nothing has changed. */
enum status step_train(const struct machine *machine, const struct images *images, const struct sample *samples, int n, int total,
	float label_smoothing, const struct update *update);

/* Forward only, with running statistics of `which`. Counters gain n images. */
enum status step_evaluate(const struct machine *machine, const struct images *images, const struct sample *samples, int n, enum which which);

/* The two halves of step_train, for tests: forward leaves loss and logits, backward leaves gradients (summed over ranks). */
enum status step_forward(const struct machine *machine, const struct images *images, const struct sample *samples, int n, int total,
	float label_smoothing, bool training, enum which which);
enum status step_backward(const struct machine *machine);
