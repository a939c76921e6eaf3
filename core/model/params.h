/* params.h: the network's named tensors in flat arenas.
 *
 * The trainable tensors lie in one fp32 arena in the order of execution (so a range is a run of layers: update, zeroing,
 * all-reduce buckets and saving are loops over ranges), the running statistics in a second. Gradients, momentum and the EMA are
 * arenas of the first one's shape. In these host arenas every tensor has torchvision's layout: (K, C, R, S) for a convolution,
 * (K) for a norm, (classes, C) and (classes) for the head, C order. A backend may keep a permuted copy; it converts at its edge.
 *
 * Names, shapes and their order in a file are torchvision's resnet34 state dict: formats.md §2 of the design notes. */
#pragma once

#include "core/base/status.h"
#include "core/model/resnet.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum param_kind {
	PARAM_CONVOLUTION,  /* (K, C, R, S) */
	PARAM_NORM_WEIGHT,  /* (K), gamma */
	PARAM_NORM_BIAS,    /* (K), beta */
	PARAM_HEAD_WEIGHT,  /* (classes, C) */
	PARAM_HEAD_BIAS,    /* (classes) */
	PARAM_RUNNING_MEAN, /* (K), in the buffer arena */
	PARAM_RUNNING_VAR,  /* (K), in the buffer arena; unbiased, as PyTorch keeps it */
};

struct param {
	char name[RESNET_NAME_BYTES + 16]; /* "layer1.0.bn1.running_mean" */
	enum param_kind kind;
	int unit; /* index in network.units, or -1 for the head */
	int rank;
	int64_t shape[4];
	size_t offset, count; /* floats, in the arena that `kind` says */
};

enum { PARAMS_MAX = RESNET_UNITS * 5 + 2 };

/* Where everything lies. `all` is in torchvision's file order, without num_batches_tracked (one counter for all). */
struct params_layout {
	struct param all[PARAMS_MAX];
	int count;
	size_t weights_count; /* floats of the trainable arena */
	size_t buffers_count; /* floats of the running statistics */
	/* Indices into `all` by unit, and of the head. */
	struct {
		int weight, gamma, beta, running_mean, running_var;
	} unit[RESNET_UNITS];
	int head_weight, head_bias;
};

void params_layout_build(struct params_layout *layout, const struct network *network);

static inline bool param_is_buffer(const struct param *param)
{
	return param->kind == PARAM_RUNNING_MEAN || param->kind == PARAM_RUNNING_VAR;
}

/* Weight decay touches these kinds only, unless the setting decay_norm_and_bias asks for all: convolution and head weights. */
static inline bool param_decays(const struct param *param)
{
	return param->kind == PARAM_CONVOLUTION || param->kind == PARAM_HEAD_WEIGHT;
}

/* The arenas of one network on the host. All are owned; params_free releases them and accepts {0}. */
struct params {
	float *weights;  /* weights_count */
	float *buffers;  /* buffers_count */
	int64_t batches_tracked; /* PyTorch's num_batches_tracked, the same for every norm */
};

enum status params_alloc(struct params *params, const struct params_layout *layout);
void params_free(struct params *params);

/* torchvision's initialisation: convolutions Kaiming-normal with fan-out K·R·S and gain √2; gamma 1 (0 for the last norm of each
 * block when zero_gamma), beta 0; head uniform in ±1/√C (PyTorch's Linear); running mean 0, variance 1. The values depend on
 * (seed, tensor, element) alone. */
void params_init(struct params *params, const struct network *network, const struct params_layout *layout, uint64_t seed, bool zero_gamma);
/* The same for the head alone (a pretrained file with another number of classes). */
void params_init_head(struct params *params, const struct network *network, const struct params_layout *layout, uint64_t seed);

/* The floats of one tensor inside `params`. */
float *params_data(const struct params *params, const struct param *param);
/* Index in layout->all of the tensor called `name`, or -1. */
int params_find(const struct params_layout *layout, const char *name);
