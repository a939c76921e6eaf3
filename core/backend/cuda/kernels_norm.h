/* kernels_norm.h: batch norm with shortcut and ReLU, forwards and backwards (see kernels.h).
 *
 * A block does tiles of 64 channels × 32 pixels (grids.h): 8 threads side by side, 8 channels each, so that a warp reads runs of 128 bytes or
 * more; the constants of its channels stay with a thread while it goes down the pixels. */
#pragma once

#include "core/backend/cuda/grids.h"
#include "core/backend/cuda/lanes.h"

enum { TILE_GROUPS = TILE_CHANNELS / 8 };

/* Pixels that a thread has under way; it loads all of them before it stores, as arrays may be the same. */
template <typename T> struct under_way {
	enum { COUNT = sizeof(typename T::stored) == 4 ? 1 : 2 };
};

/* Where a thread works. */
struct spot {
	int32_t c;     /* the first of its 8 channels; may be beyond the last */
	int64_t pixel; /* its first pixel; may be beyond the last */
};

/* Of block number x in a line of tiles, those of one run of pixels side by side. */
DEVICE struct spot tile_spot(struct block block, unsigned thread, int32_t C, int pixels_of_thread)
{
	unsigned tiles = (unsigned)(C + TILE_CHANNELS - 1) / TILE_CHANNELS;
	struct spot spot;
	spot.c = (int32_t)(block.x % tiles * TILE_CHANNELS + thread % TILE_GROUPS * 8);
	spot.pixel = (int64_t)(block.x / tiles) * (TILE_PIXELS * pixels_of_thread) + thread / TILE_GROUPS;
	return spot;
}

/* Of pixel i of a thread, or of the last one there is: what lies behind is read harmlessly, and not used. */
DEVICE int64_t pixel_inside(int64_t pixel, int i, int64_t pixels)
{
	pixel += (int64_t)i * TILE_PIXELS;
	return pixel < pixels ? pixel : pixels - 1;
}

/* --- sums over the pixels ---------------------------------------------------------------------------------------------- */

/* norm_sums and norm_backward_sums; forwards Σ z, Σ z², backwards Σ g, Σ g·(z − mean). */
struct sums {
	const void *z, *dy, *y;
	const float *mean;
	int64_t pixels;
	int32_t C, rows, relu;
	double *partials;
};

/* A thread's two sums in fp32 are of values less a pivot, so that a mean far from zero costs no digits: forwards the first value that it sees,
 * backwards the mean. */
template <typename T, bool BACKWARD> DEVICE void sums_body(const struct sums &a, struct block block)
{
	enum { AHEAD = BACKWARD ? 1 : under_way<T>::COUNT };
	PRIVATE(float, first, 8);
	PRIVATE(float, second, 8);
	PRIVATE(float, pivot, 8);
	PRIVATE(int32_t, seen, 1);
	/* [pixel of the tile][channel of the thread][thread of the run]; 8 apart, so that no bank is asked twice at once. */
	SHARED(double, shared, [TILE_PIXELS][TILE_CHANNELS + 8]);
	unsigned tiles = (unsigned)(a.C + TILE_CHANNELS - 1) / TILE_CHANNELS, row = block.x / tiles, c0 = block.x % tiles * TILE_CHANNELS;
	int64_t share = (a.pixels + a.rows - 1) / a.rows, begin = row * share, end = begin + share < a.pixels ? begin + share : a.pixels;

	FOR_THREADS (thread) {
		int32_t c = (int32_t)(c0 + thread % TILE_GROUPS * 8);
		int64_t start = begin + thread / TILE_GROUPS;
		bool works = c < a.C && start < end;
		UNROLL
		for (int k = 0; k < 8; k++)
			MINE(first)[k] = MINE(second)[k] = MINE(pivot)[k] = 0;
		MINE(seen)[0] = works ? (int32_t)((end - start + TILE_PIXELS - 1) / TILE_PIXELS) : 0;
		if (!works)
			continue;
		if (BACKWARD)
			load<fp32, 8>(a.mean, c, MINE(pivot));
		else
			load<T, 8>(a.z, start * a.C + c, MINE(pivot));
		UNROLL_NOT
		for (int64_t pixel = start; pixel < end; pixel += AHEAD * TILE_PIXELS) {
			pack<T, 8> z[AHEAD], dy[AHEAD], y[AHEAD];
			UNROLL
			for (int i = 0; i < AHEAD; i++) {
				int64_t at = pixel_inside(pixel, i, end) * a.C + c;
				z[i] = pack_load<T, 8>(a.z, at);
				if (BACKWARD) {
					dy[i] = pack_load<T, 8>(a.dy, at);
					y[i] = a.relu ? pack_load<T, 8>(a.y, at) : z[i];
				}
			}
			UNROLL
			for (int i = 0; i < AHEAD; i++) {
				if (pixel + i * TILE_PIXELS >= end)
					continue;
				UNROLL
				for (int k = 0; k < 8; k++) {
					float distance = T::widen(z[i].values[k]) - MINE(pivot)[k], left = distance;
					if (BACKWARD)
						left = a.relu && T::widen(y[i].values[k]) <= 0 ? 0 : T::widen(dy[i].values[k]);
					MINE(first)[k] += left;
					MINE(second)[k] += left * distance;
				}
			}
		}
	}
	BARRIER;

	UNROLL_NOT
	for (int which = 0; which < 2; which++) {
		FOR_THREADS (thread) {
			UNROLL
			for (int k = 0; k < 8; k++) {
				double value = which == 0 ? (double)MINE(first)[k] : (double)MINE(second)[k];
				if (!BACKWARD) { /* of z itself again */
					double p = (double)MINE(pivot)[k], n = MINE(seen)[0];
					value += which == 0 ? n * p : 2 * p * (double)MINE(first)[k] + n * p * p;
				}
				shared[thread / TILE_GROUPS][k * TILE_GROUPS + thread % TILE_GROUPS] = value;
			}
		}
		BARRIER;
		FOR_THREADS (thread) { /* a quarter of the pixels into its first row */
			unsigned column = thread % TILE_CHANNELS, quarter = thread / TILE_CHANNELS * (TILE_PIXELS / 4);
			double sum = 0;
			for (unsigned i = 0; i < TILE_PIXELS / 4; i++)
				sum += shared[quarter + i][column];
			shared[quarter][column] = sum;
		}
		BARRIER;
		FOR_THREADS (thread) {
			int32_t c = (int32_t)(c0 + thread % TILE_GROUPS * 8 + thread / TILE_GROUPS);
			if (thread >= TILE_CHANNELS || c >= a.C)
				continue;
			double sum = 0;
			for (unsigned i = 0; i < TILE_PIXELS; i += TILE_PIXELS / 4)
				sum += shared[i][thread];
			a.partials[((int64_t)row * 2 + which) * a.C + c] = sum;
		}
		BARRIER;
	}
}

template <typename T> DEVICE void norm_sums_body(const struct norm_sums &a, struct block block)
{
	struct sums sums = {a.z, NULL, NULL, NULL, a.pixels, a.C, a.rows, 0, a.partials};
	sums_body<T, false>(sums, block);
}

template <typename T> DEVICE void norm_backward_sums_body(const struct norm_backward_sums &a, struct block block)
{
	struct sums sums = {a.z, a.dy, a.y, a.mean, a.pixels, a.C, a.rows, a.relu, a.partials};
	sums_body<T, true>(sums, block);
}

/* --- from sums to constants: a block does FOLD_CHANNELS channels, 32 threads each ---------------------------------------- */

enum { FOLD_ROWS = KERNEL_THREADS / FOLD_CHANNELS };

struct fold {
	double at[2][FOLD_ROWS][FOLD_CHANNELS]; /* in [·][0]: the sums */
};

DEVICE void rows_fold(const double *partials, int32_t C, int32_t rows, struct block block, struct fold &fold)
{
	FOR_THREADS (thread) {
		unsigned column = thread % FOLD_CHANNELS, first = thread / FOLD_CHANNELS;
		int32_t c = (int32_t)(block.x * FOLD_CHANNELS + column);
		double sums[2] = {0, 0};
		for (int32_t row = (int32_t)first; c < C && row < rows; row += FOLD_ROWS) {
			sums[0] += partials[(int64_t)row * 2 * C + c];
			sums[1] += partials[((int64_t)row * 2 + 1) * C + c];
		}
		fold.at[0][first][column] = sums[0];
		fold.at[1][first][column] = sums[1];
	}
	BARRIER;
	FOR_THREADS (thread) {
		if (thread >= 2 * FOLD_CHANNELS)
			continue;
		unsigned which = thread / FOLD_CHANNELS, column = thread % FOLD_CHANNELS;
		double sum = 0;
		for (unsigned i = 0; i < FOLD_ROWS; i++)
			sum += fold.at[which][i][column];
		fold.at[which][0][column] = sum;
	}
	BARRIER;
}

/* The channel that a thread finishes, or one beyond the last. */
DEVICE int32_t fold_channel(struct block block, unsigned thread, int32_t C)
{
	return thread < FOLD_CHANNELS ? (int32_t)(block.x * FOLD_CHANNELS + thread) : C;
}

DEVICE void norm_fold_body(const struct norm_fold &a, struct block block)
{
	SHARED(struct fold, fold, );
	rows_fold(a.partials, a.C, a.rows, block, fold);
	FOR_THREADS (thread) {
		int32_t c = fold_channel(block, thread, a.C);
		if (c >= a.C)
			continue;
		a.sums[c] = fold.at[0][0][thread];
		a.sums[a.C + c] = fold.at[1][0][thread];
	}
}

DEVICE void norm_constants_body(const struct norm_constants &a, struct block block)
{
	SHARED(struct fold, fold, );
	rows_fold(a.partials, a.C, a.rows, block, fold);
	FOR_THREADS (thread) {
		int32_t c = fold_channel(block, thread, a.C);
		if (c >= a.C)
			continue;
		double mean = fold.at[0][0][thread] / a.count, variance = fold.at[1][0][thread] / a.count - mean * mean;
		variance = variance < 0 ? 0 : variance;
		double inverse_deviation = 1 / sqrt(variance + a.epsilon), scale = (double)a.gamma[c] * inverse_deviation;
		a.mean[c] = (float)mean;
		a.inverse_deviation[c] = (float)inverse_deviation;
		a.scale[c] = (float)scale;
		a.bias[c] = (float)((double)a.beta[c] - mean * scale);
		if (a.running_mean == NULL)
			continue;
		double running_mean = (double)a.running_mean[c], running_var = (double)a.running_var[c];
		a.running_mean[c] = (float)(running_mean + a.share * (mean - running_mean));
		if (a.count > 1)
			a.running_var[c] = (float)(running_var + a.share * (variance * a.count / (a.count - 1) - running_var));
	}
}

DEVICE void norm_constants_running_body(const struct norm_constants_running &a, struct block block)
{
	FOR_THREADS (thread) {
		int32_t c = (int32_t)(block.x * KERNEL_THREADS + thread);
		if (c >= a.C)
			continue;
		double scale = (double)a.gamma[c] / sqrt((double)a.running_var[c] + a.epsilon);
		a.scale[c] = (float)scale;
		a.bias[c] = (float)((double)a.beta[c] - (double)a.running_mean[c] * scale);
	}
}

/* With s = gamma·inverse_deviation, h = (z − mean)·inverse_deviation and m values:
 * dz = s·(g − Σg/m − h·Σ(g·h)/m), sorted by g and z. */
DEVICE void norm_backward_constants_body(const struct norm_backward_constants &a, struct block block)
{
	SHARED(struct fold, fold, );
	rows_fold(a.own, a.C, a.own_rows, block, fold);
	FOR_THREADS (thread) {
		int32_t c = fold_channel(block, thread, a.C);
		if (c >= a.C)
			continue;
		a.dbeta[c] = (float)(fold.at[0][0][thread] * (double)a.gradient_scale);
		a.dgamma[c] = (float)(fold.at[1][0][thread] * (double)a.inverse_deviation[c] * (double)a.gradient_scale);
	}
	BARRIER;
	if (a.shared != a.own)
		rows_fold(a.shared, a.C, a.shared_rows, block, fold);
	FOR_THREADS (thread) {
		int32_t c = fold_channel(block, thread, a.C);
		if (c >= a.C)
			continue;
		double inverse_deviation = (double)a.inverse_deviation[c], scale = (double)a.gamma[c] * inverse_deviation;
		double by_z = -scale * inverse_deviation * inverse_deviation * fold.at[1][0][thread] / a.count;
		a.by_g[c] = (float)scale;
		a.by_z[c] = (float)by_z;
		a.constant[c] = (float)(-scale * fold.at[0][0][thread] / a.count - by_z * (double)a.mean[c]);
	}
}

/* --- one value at a time ------------------------------------------------------------------------------------------------- */

template <typename T> DEVICE void norm_apply_body(const struct norm_apply &a, struct block block)
{
	enum { AHEAD = under_way<T>::COUNT };
	FOR_THREADS (thread) {
		struct spot spot = tile_spot(block, thread, a.C, APPLY_PIXELS);
		if (spot.c >= a.C)
			continue;
		float scale[8], bias[8];
		load<fp32, 8>(a.scale, spot.c, scale);
		load<fp32, 8>(a.bias, spot.c, bias);
		UNROLL_NOT
		for (int first = 0; first < APPLY_PIXELS; first += AHEAD) {
			pack<T, 8> z[AHEAD], shortcut[AHEAD];
			UNROLL
			for (int i = 0; i < AHEAD; i++) {
				int64_t at = pixel_inside(spot.pixel, first + i, a.pixels) * a.C + spot.c;
				z[i] = pack_load<T, 8>(a.z, at);
				shortcut[i] = a.shortcut != NULL ? pack_load<T, 8>(a.shortcut, at) : z[i];
			}
			UNROLL
			for (int i = 0; i < AHEAD; i++) {
				int64_t pixel = spot.pixel + (first + i) * TILE_PIXELS;
				float y[8];
				UNROLL
				for (int k = 0; k < 8; k++) {
					y[k] = T::widen(z[i].values[k]) * scale[k] + bias[k];
					y[k] += a.shortcut != NULL ? T::widen(shortcut[i].values[k]) : 0;
					y[k] = a.relu && y[k] < 0 ? 0 : y[k];
				}
				if (pixel < a.pixels)
					store<T, 8>(a.y, pixel * a.C + spot.c, y);
			}
		}
	}
}

template <typename T> DEVICE void norm_backward_apply_body(const struct norm_backward_apply &a, struct block block)
{
	FOR_THREADS (thread) {
		struct spot spot = tile_spot(block, thread, a.C, BACKWARD_APPLY_PIXELS);
		if (spot.c >= a.C)
			continue;
		float by_g[8], by_z[8], constant[8];
		load<fp32, 8>(a.by_g, spot.c, by_g);
		load<fp32, 8>(a.by_z, spot.c, by_z);
		load<fp32, 8>(a.constant, spot.c, constant);
		UNROLL_NOT
		for (int i = 0; i < BACKWARD_APPLY_PIXELS; i++) {
			int64_t pixel = spot.pixel + i * TILE_PIXELS, at = pixel * a.C + spot.c;
			float g[8], dz[8];
			if (pixel >= a.pixels)
				continue;
			pack<T, 8> dy = pack_load<T, 8>(a.dy, at), z = pack_load<T, 8>(a.z, at), y = a.relu ? pack_load<T, 8>(a.y, at) : z;
			UNROLL
			for (int k = 0; k < 8; k++) {
				g[k] = a.relu && T::widen(y.values[k]) <= 0 ? 0 : T::widen(dy.values[k]);
				dz[k] = by_g[k] * g[k] + (by_z[k] * T::widen(z.values[k]) + constant[k]);
			}
			store<T, 8>(a.dz, at, dz);
			if (a.dshortcut == NULL)
				continue;
			pack<T, 8> before = {};
			if (a.accumulate)
				before = pack_load<T, 8>(a.dshortcut, at);
			UNROLL
			for (int k = 0; k < 8; k++)
				g[k] += a.accumulate ? T::widen(before.values[k]) : 0;
			store<T, 8>(a.dshortcut, at, g);
		}
	}
}

/* --- the pool ------------------------------------------------------------------------------------------------------------ */

enum { POOL_SIZE = 3, POOL_STRIDE = 2, POOL_PADDING = 1 };

struct alignas(8) taps {
	uint8_t at[8];
};

template <typename T> DEVICE void pool_forward_body(const struct pool_forward &a, struct block block)
{
	FOR_THREADS (thread) {
		struct spot spot = tile_spot(block, thread, a.C, 1);
		if (spot.c >= a.C || spot.pixel >= (int64_t)a.n * a.P * a.Q)
			continue;
		unsigned pixel = (unsigned)spot.pixel, q = pixel % (unsigned)a.Q, p = pixel / (unsigned)a.Q % (unsigned)a.P;
		int64_t n = pixel / (unsigned)a.Q / (unsigned)a.P;
		float best[8] = {0, 0, 0, 0, 0, 0, 0, 0};
		struct taps taps = {};
		bool found = false;
		UNROLL
		for (int tap = 0; tap < POOL_SIZE * POOL_SIZE; tap++) {
			int32_t h = (int32_t)p * POOL_STRIDE - POOL_PADDING + tap / POOL_SIZE, w = (int32_t)q * POOL_STRIDE - POOL_PADDING + tap % POOL_SIZE;
			if (h < 0 || h >= a.H || w < 0 || w >= a.W)
				continue;
			float x[8];
			load<T, 8>(a.x, ((n * a.H + h) * a.W + w) * a.C + spot.c, x);
			UNROLL
			for (int k = 0; k < 8; k++) {
				bool better = !found || x[k] > best[k] || (x[k] != x[k] && best[k] == best[k]);
				best[k] = better ? x[k] : best[k];
				taps.at[k] = better ? (uint8_t)tap : taps.at[k];
			}
			found = true;
		}
		int64_t to = spot.pixel * a.C + spot.c;
		store<T, 8>(a.y, to, best);
		if (a.tap != NULL)
			memory_store(a.tap + to, taps);
	}
}

template <typename T> DEVICE void pool_backward_body(const struct pool_backward &a, struct block block)
{
	FOR_THREADS (thread) {
		struct spot spot = tile_spot(block, thread, a.C, 1);
		if (spot.c >= a.C || spot.pixel >= (int64_t)a.n * a.H * a.W)
			continue;
		unsigned pixel = (unsigned)spot.pixel;
		int32_t w = (int32_t)(pixel % (unsigned)a.W), h = (int32_t)(pixel / (unsigned)a.W % (unsigned)a.H);
		int64_t n = pixel / (unsigned)a.W / (unsigned)a.H, to = spot.pixel * a.C + spot.c;
		float dx[8] = {0, 0, 0, 0, 0, 0, 0, 0};
		if (a.accumulate)
			load<T, 8>(a.dx, to, dx);
		/* The windows that hold it: at most two rows of two. */
		UNROLL
		for (int i = 0; i < 4; i++) {
			int32_t p = h / POOL_STRIDE + i / 2, q = w / POOL_STRIDE + i % 2;
			int32_t r = h + POOL_PADDING - p * POOL_STRIDE, s = w + POOL_PADDING - q * POOL_STRIDE;
			if (r < 0 || s < 0 || p >= a.P || q >= a.Q)
				continue;
			float dy[8];
			int64_t from = ((n * a.P + p) * a.Q + q) * a.C + spot.c;
			struct taps taps = memory_load<struct taps>(a.tap + from);
			load<T, 8>(a.dy, from, dy);
			UNROLL
			for (int k = 0; k < 8; k++)
				dx[k] += taps.at[k] == r * POOL_SIZE + s ? dy[k] : 0;
		}
		store<T, 8>(a.dx, to, dx);
	}
}
