/* samples.h: a drawn sample in the form that the gather kernel reads. */
#pragma once

#include "core/backend/backend.h"
#include "core/backend/cuda/kernels.h"

#include <math.h>

static inline struct device_augment augment_convert(const struct augment *augment)
{
	return (struct device_augment){
		.index = augment->index,
		.shift_x = augment->shift_x,
		.shift_y = augment->shift_y,
		.flip = augment->flip,
		/* As augment.c rounds them. */
		.cosine = (float)cos((double)augment->rotation_radians),
		.sine = (float)sin((double)augment->rotation_radians),
		.rotated = augment->rotation_radians != 0.0f,
		.erase_x = augment->erase_x,
		.erase_y = augment->erase_y,
		.erase_width = augment->erase_width,
		.erase_height = augment->erase_height,
	};
}

static inline struct device_sample sample_convert(const struct sample *sample)
{
	struct device_sample converted = {.image = augment_convert(&sample->image), .weight = sample->weight, .cut_x = sample->cut_x, .cut_y = sample->cut_y,
		.cut_width = sample->cut_width, .cut_height = sample->cut_height};
	if (sample->weight != 1.0f)
		converted.partner = augment_convert(&sample->partner);
	return converted;
}
