/* state_dict.h: the network's tensors as PyTorch names and orders them: what artifact.c writes and pretrained.c expects.
 *
 * The list is torchvision's resnet34 state dict: layout->all with "num_batches_tracked" (int64, one counter for all norms) after each
 * running variance. */
#pragma once

#include "core/format/tensor.h"
#include "core/model/params.h"

enum { STATE_DICT_TENSORS = PARAMS_MAX + RESNET_UNITS };

struct state_dict {
	struct tensor_view views[STATE_DICT_TENSORS];
	int count;
	int64_t batches_tracked; /* what the counters' views point to */
	char counter_names[RESNET_UNITS][RESNET_NAME_BYTES + 24];
};

/* Views into `layout` and `params`, which must outlive it; `state` must not be moved. */
void state_dict_make(struct state_dict *state, const struct params_layout *layout, const struct params *params);

/* Writes the counter's name that belongs to a running variance: "bn1.running_var" → "bn1.num_batches_tracked". */
void state_dict_counter_name(const struct param *running_var, char *name, size_t bytes);
