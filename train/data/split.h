/* split.h: takes a share of the training images for validation.
 *
 * Stratified: each class gives its share, rounded so that the total is right, and keeps at least one image. Which images go depends on
 * (seed, class, how many the class has) alone; the order within both halves stays. */
#pragma once

#include "train/data/collection.h"

/* Moves images from `train` to the empty list `validation`. 0 < share < 1. ST_SETTINGS when that leaves no image for validation;
 * ST_MEMORY. */
enum status split_take(struct image_list *train, struct image_list *validation, int size, int classes, double share, uint64_t seed);
