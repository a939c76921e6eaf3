/* resnet.h: the network as one table.
 *
 * ResNet34 (He et al., "Deep residual learning for image recognition", 2015) with torchvision's names and shapes: 36 units, an
 * optional stem pool, a head. Everything that knows the network is a loop over this table: initialisation, parameter names, the
 * training pass, the printed summary, the check of a loaded file, an inference plan. Another depth is another table.
 *
 * Letters, here and everywhere: N batch, C input channels, H W input rows and columns, K output channels, P Q output rows and
 * columns, R S kernel rows and columns. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stem {
	STEM_IMAGENET, /* 7×7 stride 2, then 3×3 max-pool stride 2: torchvision's */
	STEM_CIFAR,    /* 3×3 stride 1, no pool */
};

enum {
	RESNET_UNITS = 36,             /* 1 stem + 16 blocks × 2 + 3 downsamples */
	RESNET_TENSORS = RESNET_UNITS + 2, /* the image, each unit's output, the pooled stem */
	RESNET_NAME_BYTES = 48,
	RESNET_CLASSES_MAX = 65535,
	RESNET_IMAGE_SIZE_MIN = 8,
	RESNET_IMAGE_SIZE_MAX = 512,
};

/* Batch normalisation's constant, torchvision's (PyTorch's default). */
#define NORM_EPSILON 1e-5

/* An activation of the network: shape of one image in it. */
struct tensor_shape {
	int C, H, W;
};

/* convolution (no bias) → batch norm → (+ shortcut) → (ReLU). y = relu(norm(conv(x)) + shortcut). */
struct unit {
	char convolution[RESNET_NAME_BYTES]; /* "layer1.0.conv1" */
	char norm[RESNET_NAME_BYTES];        /* "layer1.0.bn1" */
	int C, H, W;                         /* input */
	int K, P, Q;                         /* output */
	int R, S, stride, padding;           /* kernel */
	int x, y;                            /* tensor numbers of input and output */
	int shortcut;                        /* tensor number of what is added before the ReLU, or -1 */
	bool relu;
	int file_rank; /* place in torchvision's order (a downsample comes after the block's second convolution there) */
};

/* 3×3 max-pool, stride 2, padding 1, after unit 0; only with STEM_IMAGENET. */
struct stem_pool {
	bool present;
	int C, H, W, P, Q, x, y;
};

/* Global average pool over (H, W), then a linear layer with bias: logits = W·features + b. */
struct head {
	int C, H, W, x, classes;
};

struct network {
	enum stem stem;
	int image_size; /* images are 3 × image_size × image_size */
	struct unit units[RESNET_UNITS]; /* in order of execution */
	struct stem_pool pool;
	struct head head;
	struct tensor_shape tensors[RESNET_TENSORS]; /* 0 is the image */
	int tensors_count;
};

/* Fills `network`. ST_SETTINGS if classes is not 2..RESNET_CLASSES_MAX or image_size not
 * RESNET_IMAGE_SIZE_MIN..RESNET_IMAGE_SIZE_MAX. */
enum status network_build(struct network *network, enum stem stem, int image_size, int classes);

/* "imagenet", "cifar". */
const char *stem_name(enum stem stem);
/* ST_SETTINGS when `name` is neither. */
enum status stem_parse(const char *name, enum stem *stem);

/* How often each kernel tap (r, s) of a unit meets a pixel, not padding: P·Q at most. 0 for a dead tap. */
int64_t unit_tap_uses(const struct unit *unit, int r, int s);
/* Multiply-accumulates of one image: all taps counted, or only those that meet a pixel. */
int64_t unit_macs(const struct unit *unit);
int64_t unit_macs_live(const struct unit *unit);
/* Taps of the unit that meet a pixel at least once. */
int unit_taps_live(const struct unit *unit);

/* Writes the table that `train --summary` prints: a line a layer with shapes, parameters, MACs real and live, and totals. */
struct text;
enum status network_summary(const struct network *network, struct text *text);
