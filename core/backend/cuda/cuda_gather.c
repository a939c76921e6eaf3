/* cuda_gather.c: a batch's images and targets.
 *
 * In: an image set on the host, which is copied to the device the first time it is seen, and drawn samples. Out: the image tensor and targets.
 * The samples go through one of a few pinned slots, so the host may be some batches ahead of the device and never waits for it otherwise. */
#include "core/backend/cuda/check.h"
#include "core/backend/cuda/cuda_backend.h"
#include "core/backend/cuda/samples.h"

static enum status set_find(struct backend_state *state, const struct images *images, const struct device_set **found)
{
	for (int i = 0; i < SETS_MAX; i++) {
		struct device_set *set = &state->sets[i];
		if (set->host == images->pixels) {
			*found = set;
			return ST_OK;
		}
		if (set->host != NULL)
			continue;
		size_t pixels = images->count * IMAGE_CHANNELS * (size_t)images->size * (size_t)images->size;
		TRY(device_alloc(state, pixels, 1, (void **)&set->pixels));
		TRY(device_alloc(state, images->count, sizeof *set->labels, (void **)&set->labels));
		CUDA_TRY(cudaMemcpyAsync(set->pixels, images->pixels, pixels, cudaMemcpyHostToDevice, state->stream));
		CUDA_TRY(cudaMemcpyAsync(set->labels, images->labels, images->count * sizeof *set->labels, cudaMemcpyHostToDevice, state->stream));
		set->host = images->pixels;
		*found = set;
		return cuda_sync(state);
	}
	return FAIL(ST_INTERNAL, "cuda backend: more than %d sets of images", SETS_MAX);
}

enum status cuda_batch_gather(struct backend_state *state, const struct images *images, const struct sample *samples, float label_smoothing)
{
	const struct device_set *set = NULL;
	const struct normalization *normalization = &state->config.normalization;
	if (state->n == 0)
		return ST_OK;
	for (int i = 0; i < state->n; i++)
		MUST(samples[i].image.index < images->count && (samples[i].weight == 1.0f || samples[i].partner.index < images->count));
	TRY(set_find(state, images, &set));
	state->slot = (state->slot + 1) % GATHER_SLOTS;
	struct device_sample *slot = state->samples_host[state->slot];
	CUDA_TRY(cudaEventSynchronize(state->slot_free[state->slot]));
	for (int i = 0; i < state->n; i++)
		slot[i] = sample_convert(&samples[i]);
	CUDA_TRY(cudaMemcpyAsync(state->samples, slot, (size_t)state->n * sizeof *slot, cudaMemcpyHostToDevice, state->stream));
	CUDA_TRY(cudaEventRecord(state->slot_free[state->slot], state->stream));
	const struct gather gather = {
		.pixels = set->pixels,
		.labels = set->labels,
		.samples = state->samples,
		.n = state->n,
		.size = images->size,
		.C = channels_padded(IMAGE_CHANNELS, state->element),
		.reflect = state->config.padding == PADDING_REFLECT,
		.label_smoothing = label_smoothing,
		.mean = {normalization->mean[0], normalization->mean[1], normalization->mean[2]},
		.std = {normalization->std[0], normalization->std[1], normalization->std[2]},
		.y = state->y[0],
		.targets = state->targets,
	};
	return launch_gather(&state->launch, &gather);
}
