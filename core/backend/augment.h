/* augment.h: what `struct sample` means, in plain C, for every backend that gathers on the host.
 *
 * One definition: ref and cpu call it; the device backend's kernel is compared with it. */
#pragma once

#include "core/backend/backend.h"

/* Writes the augmented, normalised, mixed image as planar floats out[c·size·size + y·size + x]. Arithmetic in float, the same
 * operations in the same order everywhere. */
void sample_render(const struct images *images, const struct sample *sample, const struct normalization *normalization,
	enum padding_mode padding, float *out);
