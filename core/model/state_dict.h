/* state_dict.h: the network's tensors as PyTorch names and orders them: what `train` writes, and what is expected of a file of weights.
 *
 * The list is torchvision's resnet34 state dict: layout->all with "num_batches_tracked" (int64, one counter for all norms) after each
 * running variance. */
#pragma once

#include "core/format/tensor.h"
#include "core/model/params.h"

/* --- writing -------------------------------------------------------------------------------------------------------- */

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

/* --- reading -------------------------------------------------------------------------------------------------------- */

/* A file's tensors beside the network's. */
struct state_dict_match {
	const struct tensor_view *views[PARAMS_MAX]; /* in the order of layout->all; into the file's list */
	bool head;               /* false: the file's head is for another number of classes, of the same width */
	int64_t batches_tracked; /* 0 when the file has no counters */
};

/* The network that a file is for: stem from the shape of conv1.weight, classes from fc.weight's. `file` goes into sentences. ST_DATA when
 * these are not there or have no shape of a resnet34. */
enum status state_dict_network(const char *file, const struct tensor_list *tensors, int image_size, struct network *network);

/* Every tensor of the network is there with its shape, and nothing else. ST_DATA otherwise. */
enum status state_dict_match(const char *file, const struct tensor_list *tensors, const struct network *network, const struct params_layout *layout,
	struct state_dict_match *match);

/* Every number is one that a network can have: finite, no negative variance. ST_DATA otherwise. */
enum status state_dict_numbers_check(const char *file, const struct param *param, const float *numbers);
