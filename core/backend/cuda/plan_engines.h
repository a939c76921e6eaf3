/* plan_engines.h: cuDNN's offers for a graph, one after the other, the most promising first. */
#pragma once

#include "core/backend/cuda/cudnn_graph.h"
#include "core/base/status.h"

#include <cudnn.h>
#include <stdbool.h>

/* Whom cuDNN plans for: a device that is here (handle), or a description of one (properties). The other is NULL. */
struct plan_target {
	cudnnHandle_t handle;
	cudnnBackendDescriptor_t properties;
};

/* An engine with its parameters set. */
struct engine {
	cudnnBackendDescriptor_t config;
	int64_t index;
	bool nondeterministic, tensor_cores, inputs_rounded, sums_rounded, winograd_13x13, runtime_compiled;
};

enum { ENGINES_MAX = 64 };
struct engines {
	struct engine engines[ENGINES_MAX];
	int count;
};

/* What heuristics of that mode offer: at most ENGINES_MAX, perhaps none. When it fails there is nothing to free. */
enum status engines_ask(const struct plan_target *target, const struct cudnn_graph *graph, cudnnBackendHeurMode_t mode, struct engines *engines);
void engines_free(struct engines *engines);
