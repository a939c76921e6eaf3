/* cuda_arena.c: torchvision's layout outside, the device's inside.
 *
 * In: host arenas. Out: the device's, and back: live taps as (K, R, S, C) with the image's channels padded by zeros, dead taps apart. The
 * permutation is done on the host, one arena at a time, in a buffer of the device's layout. */
#include "core/backend/cuda/check.h"
#include "core/backend/cuda/cuda_backend.h"

#include <stdlib.h>
#include <string.h>

/* --- where everything lies -------------------------------------------------------------------------------------------- */

static int unit_channels(const struct backend_state *state, const struct unit *unit)
{
	return unit->x == 0 ? channels_padded(unit->C, state->element) : unit->C;
}

size_t unit_live_weights(const struct backend_state *state, int u)
{
	const struct unit *unit = &state->config.network->units[u];
	const struct live live = unit_live(unit);
	return (size_t)unit->K * (size_t)((live.r1 - live.r0) * (live.s1 - live.s0)) * (size_t)unit_channels(state, unit);
}

/* Live values of a parameter tensor on the device. */
static size_t param_live(const struct backend_state *state, const struct param *param)
{
	return param->kind == PARAM_CONVOLUTION ? unit_live_weights(state, param->unit) : param->count;
}

static bool tap_is_live(const struct live *live, int r, int s)
{
	return r >= live->r0 && r < live->r1 && s >= live->s0 && s < live->s1;
}

static void place(struct backend_state *state, int param)
{
	state->weight_at[param] = state->weights_count;
	size_t end = state->weights_count + param_live(state, &state->config.layout->all[param]);
	state->weights_count = (end + ALIGNMENT_FLOATS - 1) / ALIGNMENT_FLOATS * ALIGNMENT_FLOATS;
}

void arena_lay_out(struct backend_state *state)
{
	const struct params_layout *layout = state->config.layout;
	state->weights_count = state->dead_count = 0;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &state->config.network->units[u];
		const struct live live = unit_live(unit);
		place(state, layout->unit[u].weight);
		place(state, layout->unit[u].gamma);
		place(state, layout->unit[u].beta);
		state->dead_at[u] = state->dead_count;
		state->dead_count += (size_t)(unit->K * unit->C) * (size_t)(unit->R * unit->S - (live.r1 - live.r0) * (live.s1 - live.s0));
	}
	place(state, layout->head_weight);
	place(state, layout->head_bias);
}

enum status arena_ranges(struct backend_state *state)
{
	const struct params_layout *layout = state->config.layout;
	struct update_range *ranges = NULL;
	for (int fill = 0; fill < 2; fill++) {
		int count = 0;
		for (int i = 0; i < layout->count; i++) {
			const struct param *param = &layout->all[i];
			if (param_is_buffer(param))
				continue;
			size_t left = param_live(state, param), offset = state->weight_at[i];
			uint32_t kind = param_decays(param) ? 0 : param->kind == PARAM_NORM_BIAS ? 2 : 1;
			for (; left > 0; count++) {
				size_t piece = left < UPDATE_RANGE_VALUES_MAX ? left : UPDATE_RANGE_VALUES_MAX;
				if (fill)
					ranges[count] = (struct update_range){.offset = offset, .count = (uint32_t)piece, .kind = kind};
				offset += piece;
				left -= piece;
			}
		}
		state->ranges_count = count;
		if (!fill && (ranges = malloc((size_t)count * sizeof *ranges)) == NULL)
			return FAIL(ST_MEMORY, "cuda backend: no memory for %d ranges", count);
	}
	size_t bytes = (size_t)state->ranges_count * sizeof *ranges;
	enum status status = device_alloc(state, bytes, 1, (void **)&state->ranges);
	if (status == ST_OK)
		status = device_write(state, ranges, bytes, state->ranges);
	free(ranges);
	return status;
}

/* --- in and out ------------------------------------------------------------------------------------------------------- */

enum direction { TO_DEVICE, TO_HOST };

/* One convolution between the host's (K, C, R, S) and the device's live and dead parts. dead NULL, to the host: zeros. */
static void convolution_move(const struct backend_state *state, const struct unit *unit, float *host, float *inside_live, float *dead, enum direction direction)
{
	const struct live live = unit_live(unit);
	const int C = unit_channels(state, unit), rows = live.r1 - live.r0, columns = live.s1 - live.s0;
	for (int k = 0; k < unit->K; k++)
		for (int c = 0; c < unit->C; c++)
			for (int r = 0; r < unit->R; r++)
				for (int s = 0; s < unit->S; s++, host++) {
					float *inside = NULL;
					if (tap_is_live(&live, r, s))
						inside = inside_live + (((size_t)k * (size_t)rows + (size_t)(r - live.r0)) * (size_t)columns + (size_t)(s - live.s0)) * (size_t)C + (size_t)c;
					else if (dead != NULL)
						inside = dead++;
					if (direction == TO_DEVICE)
						*inside = *host;
					else
						*host = inside != NULL ? *inside : 0;
				}
}

static void arena_move(const struct backend_state *state, float *host, float *live, float *dead, enum direction direction)
{
	const struct params_layout *layout = state->config.layout;
	for (int i = 0; i < layout->count; i++) {
		const struct param *param = &layout->all[i];
		float *outside = host + param->offset, *inside = live + state->weight_at[i];
		if (param->kind == PARAM_CONVOLUTION)
			convolution_move(state, &state->config.network->units[param->unit], outside, inside, dead != NULL ? dead + state->dead_at[param->unit] : NULL,
				direction);
		else if (!param_is_buffer(param))
			memcpy(direction == TO_DEVICE ? inside : outside, direction == TO_DEVICE ? outside : inside, param->count * sizeof *inside);
	}
}

/* A host copy of a device arena and its dead part. */
struct staging {
	float *live, *dead;
};

static enum status staging_open(const struct backend_state *state, struct staging *staging)
{
	/* Zeros: padding between tensors, and the channels that the image does not have. */
	staging->live = calloc(state->weights_count + state->dead_count, sizeof *staging->live);
	if (staging->live == NULL)
		return FAIL(ST_MEMORY, "cuda backend: no memory for %zu values on their way to or from the device", state->weights_count + state->dead_count);
	staging->dead = staging->live + state->weights_count;
	return ST_OK;
}

/* host NULL: zeros. */
static enum status arena_write(struct backend_state *state, struct staging *staging, const float *host, float *live, float *dead)
{
	size_t live_bytes = state->weights_count * sizeof *live, dead_bytes = state->dead_count * sizeof *dead;
	if (host == NULL) {
		CUDA_TRY(cudaMemsetAsync(live, 0, live_bytes, state->stream));
		CUDA_TRY(cudaMemsetAsync(dead, 0, dead_bytes, state->stream));
		return ST_OK;
	}
	arena_move(state, (float *)(uintptr_t)host, staging->live, staging->dead, TO_DEVICE);
	TRY(device_write(state, staging->live, live_bytes, live));
	return device_write(state, staging->dead, dead_bytes, dead);
}

static enum status arena_read(struct backend_state *state, struct staging *staging, const float *live, const float *dead, float *host)
{
	if (host == NULL)
		return ST_OK;
	TRY(device_read(state, live, state->weights_count * sizeof *live, staging->live));
	if (dead != NULL)
		TRY(device_read(state, dead, state->dead_count * sizeof *dead, staging->dead));
	arena_move(state, host, staging->live, dead != NULL ? staging->dead : NULL, TO_HOST);
	return ST_OK;
}

static enum status weights_round(struct backend_state *state, const float *weights, void *half)
{
	if (half == NULL)
		return ST_OK;
	return launch_from_float(&state->launch, &(struct convert){.from = weights, .to = half, .count = (int64_t)state->weights_count});
}

enum status cuda_state_write(struct backend_state *state, const struct training_state *from)
{
	size_t buffers_bytes = state->config.layout->buffers_count * sizeof *state->buffers;
	struct staging staging;
	enum status status;
	state->history_count = 0;
	TRY(staging_open(state, &staging));
	TRY_DONE(arena_write(state, &staging, from->params.weights, state->weights, state->dead_weights));
	TRY_DONE(device_write(state, from->params.buffers, buffers_bytes, state->buffers));
	TRY_DONE(weights_round(state, state->weights, state->half));
	state->batches_tracked = from->params.batches_tracked;
	if (state->config.training)
		TRY_DONE(arena_write(state, &staging, from->momentum, state->momentum, state->dead_momentum));
	if (state->config.ema) {
		const struct params *ema = from->ema.weights != NULL ? &from->ema : &from->params;
		TRY_DONE(arena_write(state, &staging, ema->weights, state->ema, state->dead_ema));
		TRY_DONE(device_write(state, ema->buffers, buffers_bytes, state->buffers_ema));
		state->half_ema_stale = true;
	}
	status = cuda_sync(state);
done:
	free(staging.live);
	return status;
}

enum status cuda_snapshot(struct backend_state *state, struct training_state *to)
{
	size_t buffers_bytes = state->config.layout->buffers_count * sizeof *state->buffers;
	struct staging staging;
	enum status status;
	MUST(to->momentum == NULL || state->config.training);
	MUST(to->ema.weights == NULL || state->config.ema);
	TRY(dead_finish(state));
	TRY(staging_open(state, &staging));
	TRY_DONE(arena_read(state, &staging, state->weights, state->dead_weights, to->params.weights));
	TRY_DONE(arena_read(state, &staging, state->momentum, state->dead_momentum, to->momentum));
	TRY_DONE(arena_read(state, &staging, state->ema, state->dead_ema, to->ema.weights));
	if (to->params.buffers != NULL)
		TRY_DONE(device_read(state, state->buffers, buffers_bytes, to->params.buffers));
	if (to->ema.buffers != NULL)
		TRY_DONE(device_read(state, state->buffers_ema, buffers_bytes, to->ema.buffers));
	to->params.batches_tracked = to->ema.batches_tracked = state->batches_tracked;
	status = ST_OK;
done:
	free(staging.live);
	return status;
}

/* --- for tests and tools ---------------------------------------------------------------------------------------------- */

/* What gradients are multiplied by at present. */
static enum status loss_scale_read(struct backend_state *state, float *scale)
{
	struct update_control control;
	TRY(device_read(state, state->control, sizeof control, &control));
	*scale = control.loss_scale;
	return ST_OK;
}

enum status cuda_gradients_read(struct backend_state *state, float *gradients)
{
	struct staging staging;
	enum status status;
	float scale = 1;
	MUST(state->config.training);
	TRY(loss_scale_read(state, &scale));
	TRY(staging_open(state, &staging));
	TRY_DONE(arena_read(state, &staging, state->gradients, NULL, gradients));
	for (size_t i = 0; i < state->config.layout->weights_count; i++)
		gradients[i] /= scale;
done:
	free(staging.live);
	return status;
}

enum status cuda_tensor_read(struct backend_state *state, int tensor, bool gradient, float *values)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	size_t pixels = (size_t)shape->H * (size_t)shape->W, C = (size_t)(tensor == 0 ? channels_padded(shape->C, state->element) : shape->C);
	size_t count = (size_t)state->n * pixels * C;
	const void *from = gradient ? state->dy[tensor] : state->y[tensor];
	float scale = 1;
	MUST(from != NULL);
	TRY(launch_to_float(&state->launch, &(struct convert){.from = from, .to = state->values, .count = (int64_t)count}));
	float *inside = malloc(count * sizeof *inside);
	enum status status = inside != NULL ? ST_OK : FAIL(ST_MEMORY, "cuda backend: no memory for %zu values of a tensor", count);
	if (status == ST_OK)
		status = device_read(state, state->values, count * sizeof *inside, inside);
	if (status == ST_OK && gradient)
		status = loss_scale_read(state, &scale);
	for (size_t n = 0; status == ST_OK && n < (size_t)state->n; n++)
		for (size_t c = 0; c < (size_t)shape->C; c++)
			for (size_t pixel = 0; pixel < pixels; pixel++)
				*values++ = inside[(n * pixels + pixel) * C + c] / scale;
	free(inside);
	return status;
}

enum status cuda_tensor_write(struct backend_state *state, int tensor, bool gradient, const float *values)
{
	const struct tensor_shape *shape = &state->config.network->tensors[tensor];
	size_t pixels = (size_t)shape->H * (size_t)shape->W, C = (size_t)shape->C, count = (size_t)state->n * pixels * C;
	void *to = gradient ? state->dy[tensor] : state->y[tensor];
	float scale = 1;
	MUST(to != NULL && tensor != 0); /* the image has channels that no one sees */
	if (gradient)
		TRY(loss_scale_read(state, &scale));
	float *inside = malloc(count * sizeof *inside);
	if (inside == NULL)
		return FAIL(ST_MEMORY, "cuda backend: no memory for %zu values of a tensor", count);
	for (size_t n = 0; n < (size_t)state->n; n++)
		for (size_t c = 0; c < C; c++)
			for (size_t pixel = 0; pixel < pixels; pixel++)
				inside[(n * pixels + pixel) * C + c] = *values++ * scale;
	enum status status = device_write(state, inside, count * sizeof *inside, state->values);
	free(inside);
	return status == ST_OK ? launch_from_float(&state->launch, &(struct convert){.from = state->values, .to = to, .count = (int64_t)count}) : status;
}
