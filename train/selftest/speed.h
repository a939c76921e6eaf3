/* speed.h: how fast a GPU is, and several together. */
#pragma once

#include "train/selftest/bed.h"

/* A line with images/s and TFLOP/s of training steps in one precision and, of the update, GB/s. seconds: what a training pass on n images took when it
 * was waited for piece by piece: it says whether the usual batch of 128 images can be measured in the time there is, a smaller one, or none. */
enum status speed_tell(struct tested *tested, enum stem stem, enum precision precision, int n, double seconds);

/* Collective. Sums every GPU's own gradients over all of them, compares with the sums of what each has told, and tells GB/s. */
enum status sums_check(struct tested *tested);
