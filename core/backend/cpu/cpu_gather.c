/* cpu_gather.c: a batch from the data set into the image tensor.
 *
 * In: uint8 images and drawn samples. Out: the image tensor (padding stays the zero it was made as) and the targets. */
#include "core/backend/augment.h"
#include "core/backend/cpu/cpu_backend.h"

struct work {
	struct backend_state *state;
	const struct images *images;
	const struct sample *samples;
};

static void image_lay_out(const struct backend_state *state, const float *rendered, size_t n)
{
	size_t size = (size_t)state->config.network->image_size;
	for (size_t h = 0; h < size; h++) {
		float *row = state->y[0] + ((n / TILE_IMAGES * size + h) * TILE_IMAGES + n % TILE_IMAGES) * state->image_row
			+ state->image_padding * IMAGE_CHANNELS;
		for (size_t c = 0; c < IMAGE_CHANNELS; c++)
			for (size_t w = 0; w < size; w++)
				row[w * IMAGE_CHANNELS + c] = rendered[(c * size + h) * size + w];
	}
}

static void gather_task(void *context, size_t task)
{
	const struct work *work = context;
	struct backend_state *state = work->state;
	size_t size = (size_t)work->images->size;
	float *rendered = state->rendered + task * IMAGE_CHANNELS * size * size;
	for (size_t n = task; n < state->n; n += state->gather_tasks) {
		const struct sample *sample = &work->samples[n];
		sample_render(work->images, sample, &state->config.normalization, state->config.padding, rendered);
		image_lay_out(state, rendered, n);
		uint16_t label = work->images->labels[sample->image.index];
		bool mixed = sample->weight != 1.0f;
		state->targets[n] = (struct target){label, mixed ? work->images->labels[sample->partner.index] : label, sample->weight};
	}
}

enum status cpu_batch_gather(struct backend_state *state, const struct images *images, const struct sample *samples, float label_smoothing)
{
	MUST(images->size == state->config.network->image_size);
	struct work work = {state, images, samples};
	state->label_smoothing = label_smoothing;
	threads_run(state->config.threads, gather_task, &work, state->gather_tasks);
	return ST_OK;
}
