/* batch.h: which images make up a batch, and what is done to each.
 *
 * In: the seed, the epoch, the place in it. Out: `struct sample`s for the backend. Everything is a pure function of
 * (seed, epoch, image index) or, for mixing, of (seed, epoch, step): nothing depends on rank, thread, clock or history, so any
 * batch can be rebuilt after a resume. */
#pragma once

#include "core/backend/backend.h"

#include <stdint.h>

enum flip { FLIP_NONE, FLIP_RANDOM, FLIP_ALTERNATING };

/* What may happen to a training image; a copy of the settings of the same names. */
struct augmentation {
	uint64_t seed;
	uint32_t image_first;   /* number of the data set's first image where this is a part of a larger one: draws go by the number in the whole */
	int image_size;
	int crop_padding;       /* the crop moves by −padding … +padding pixels each way */
	enum flip flip;         /* alternating: mirrored every other epoch, phase drawn once per image */
	double rotation_degrees; /* angle uniform in ± */
	double random_erase;    /* probability of torchvision's RandomErasing (area 0.02–0.33, aspect 0.3–3.3) */
	int cutout;             /* side of a square erased at a random place, 0: none (DeVries and Taylor, 2017) */
	double mixup_alpha, cutmix_alpha; /* 0: off; with both on, each batch takes either with equal odds */
	double mix_probability; /* of a batch being mixed at all */
};

/* The order of one epoch: a permutation of [0, count). indices: count entries, owned by the caller. */
void order_make(uint64_t seed, uint32_t epoch, uint32_t *indices, size_t count);

/* Fills samples[0..n) for the images indices[0..n) of a training batch. `step` is the batch's number within the epoch.
 * Returns whether the batch is mixed (targets of mixed batches are not smoothed as well). */
bool batch_make(const struct augmentation *augmentation, uint32_t epoch, uint32_t step, const uint32_t *indices, int n, struct sample *samples);

/* Fills samples[0..n) with images first … first + n − 1, untouched: for evaluation. */
void batch_plain(uint32_t first, int n, struct sample *samples);
