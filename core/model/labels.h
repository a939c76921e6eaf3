/* labels.h: the class names of CIFAR-100 and CIFAR-10, in the order of their labels.
 *
 * Source: the name files and the meta pickles of the two data sets (Krizhevsky, "Learning multiple layers of features from tiny
 * images", 2009). */
#pragma once

#include <stdint.h>

enum { CIFAR100_CLASSES = 100, CIFAR100_COARSE_CLASSES = 20, CIFAR10_CLASSES = 10 };

extern const char *const labels_cifar100[CIFAR100_CLASSES];
extern const char *const labels_cifar10[CIFAR10_CLASSES];

/* The coarse label (0..19) that stands beside each fine label in every CIFAR-100 file. */
extern const uint8_t labels_cifar100_coarse[CIFAR100_CLASSES];
