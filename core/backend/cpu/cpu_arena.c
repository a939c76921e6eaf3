/* cpu_arena.c: torchvision's layout outside, packed inside.
 *
 * In: host arenas, or packed ones. Out: the other. Both are permutations within each tensor, so offsets agree; but for gradients, which lack
 * what is always zero. */
#include "core/backend/cpu/cpu_backend.h"

#include <string.h>

struct work {
	const struct params_layout *layout;
	const float *from;
	float *to;
	bool pack;
};

/* (K, C, taps) ↔ (K/32, taps, C, 32). In the host's order: what a channel tile has of the packed tensor stays in a near cache. */
static void convolution_permute(const struct param *param, const float *from, float *to, bool pack)
{
	size_t K = (size_t)param->shape[0], C = (size_t)param->shape[1], taps = (size_t)(param->shape[2] * param->shape[3]), host = 0;
	for (size_t k = 0; k < K; k++)
		for (size_t c = 0; c < C; c++)
			for (size_t tap = 0; tap < taps; tap++, host++) {
				size_t packed = ((k / TILE_CHANNELS * taps + tap) * C + c) * TILE_CHANNELS + k % TILE_CHANNELS;
				if (pack)
					to[packed] = from[host];
				else
					to[host] = from[packed];
			}
}

static void param_permute(void *context, size_t index)
{
	const struct work *work = context;
	const struct param *param = &work->layout->all[index];
	if (param->kind == PARAM_CONVOLUTION)
		convolution_permute(param, work->from + param->offset, work->to + param->offset, work->pack);
	else if (!param_is_buffer(param))
		memcpy(work->to + param->offset, work->from + param->offset, param->count * sizeof *work->to);
}

void arena_pack(struct backend_state *state, const float *host, float *packed)
{
	struct work work = {state->config.layout, host, packed, true};
	threads_run(state->config.threads, param_permute, &work, (size_t)work.layout->count);
}

void arena_unpack(struct backend_state *state, const float *packed, float *host)
{
	struct work work = {state->config.layout, packed, host, false};
	threads_run(state->config.threads, param_permute, &work, (size_t)work.layout->count);
}

/* --- gradients ------------------------------------------------------------------------------------------------------ */

size_t gradients_lay_out(const struct backend_config *config, size_t at[PARAMS_MAX])
{
	const struct params_layout *layout = config->layout;
	size_t end = 0, numbers[KERNEL_TAPS_MAX];
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &config->network->units[u];
		at[layout->unit[u].weight] = end;
		end += (size_t)(unit->K * unit->C) * taps_number(unit, numbers);
		at[layout->unit[u].gamma] = end;
		end += (size_t)unit->K;
		at[layout->unit[u].beta] = end;
		end += (size_t)unit->K;
	}
	at[layout->head_weight] = end;
	end += layout->all[layout->head_weight].count;
	at[layout->head_bias] = end;
	return end + layout->all[layout->head_bias].count;
}

struct gradients_work {
	const struct backend_state *state;
	float *host;
};

static void gradient_unpack_task(void *context, size_t index)
{
	const struct gradients_work *work = context;
	const struct param *param = &work->state->config.layout->all[index];
	if (param_is_buffer(param))
		return;
	const float *from = work->state->gradients + work->state->gradient_at[index];
	float *to = work->host + param->offset;
	if (param->kind != PARAM_CONVOLUTION) {
		memcpy(to, from, param->count * sizeof *to);
		return;
	}
	const struct unit *unit = &work->state->config.network->units[param->unit];
	size_t C = (size_t)unit->C, taps = (size_t)(unit->R * unit->S), numbers[KERNEL_TAPS_MAX], live = taps_number(unit, numbers);
	for (size_t k = 0; k < (size_t)unit->K; k++)
		for (size_t c = 0; c < C; c++)
			for (size_t tap = 0; tap < taps; tap++)
				*to++ = tap_is_live(unit, tap) ? from[((k / TILE_CHANNELS * live + numbers[tap]) * C + c) * TILE_CHANNELS + k % TILE_CHANNELS] : 0;
}

void gradients_unpack(struct backend_state *state, float *host)
{
	struct gradients_work work = {state, host};
	threads_run(state->config.threads, gradient_unpack_task, &work, (size_t)state->config.layout->count);
}

/* --- activations ---------------------------------------------------------------------------------------------------- */

void tensor_unpack(const struct backend_state *state, int tensor, const float *from, float *values)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	size_t C = (size_t)shape->C, H = (size_t)shape->H, W = (size_t)shape->W;
	for (size_t n = 0; n < state->n; n++)
		for (size_t c = 0; c < C; c++)
			for (size_t h = 0; h < H; h++)
				for (size_t w = 0; w < W; w++) {
					size_t block = n / TILE_IMAGES, image = n % TILE_IMAGES, at;
					if (tensor == 0)
						at = ((block * H + h) * TILE_IMAGES + image) * state->image_row + (w + state->image_padding) * IMAGE_CHANNELS + c;
					else
						at = pixel_offset(shape, block, h, w) + c / TILE_CHANNELS * TILE_FLOATS + image * TILE_CHANNELS + c % TILE_CHANNELS;
					*values++ = from[at];
				}
}
