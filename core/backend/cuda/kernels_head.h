/* kernels_head.h: the mean over the map, the linear layer, the loss, and back (see kernels.h). Small, all in fp32. */
#pragma once

#include "core/backend/cuda/kernels_norm.h"

template <typename T> DEVICE void features_body(const struct features &a, struct block block)
{
	FOR_THREADS (thread) {
		struct spot spot = tile_spot(block, thread, a.C, 1);
		if (spot.c >= a.C || spot.pixel >= a.n)
			continue;
		float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
		for (int32_t i = 0; i < a.pixels_of_image; i++) {
			float x[8];
			load<T, 8>(a.x, (spot.pixel * a.pixels_of_image + i) * a.C + spot.c, x);
			UNROLL
			for (int k = 0; k < 8; k++)
				sum[k] += x[k];
		}
		UNROLL
		for (int k = 0; k < 8; k++)
			sum[k] /= (float)a.pixels_of_image;
		store<fp32, 8>(a.features, spot.pixel * a.C + spot.c, sum);
	}
}

/* --- products -------------------------------------------------------------------------------------------------------------- */

/* A matrix whose rows are multiplied with those of another: (row, k) is at row·row_step + k·k_step, one of the two being 1. The row behind
 * the last is ones, for a plain sum. */
struct operand {
	const float *values;
	int32_t rows, row_step, k_step;
};

enum { PRODUCT_DEPTH = 64 };

struct product_tile {
	float at[PRODUCT_TILE][PRODUCT_DEPTH + 1]; /* one more: rows start at different banks */
};

DEVICE void operand_load(const struct operand &operand, int32_t first_row, int32_t first_k, int32_t depth, unsigned thread, struct product_tile &tile)
{
	for (unsigned i = thread; i < PRODUCT_TILE * PRODUCT_DEPTH; i += KERNEL_THREADS) {
		/* Neighbouring threads read neighbouring values. */
		unsigned row = operand.k_step == 1 ? i / PRODUCT_DEPTH : i % PRODUCT_TILE, k = operand.k_step == 1 ? i % PRODUCT_DEPTH : i / PRODUCT_TILE;
		int32_t from_row = first_row + (int32_t)row, from_k = first_k + (int32_t)k;
		float value = from_row == operand.rows ? 1.0f : 0.0f;
		if (from_row < operand.rows && from_k < depth)
			value = operand.values[(int64_t)from_row * operand.row_step + (int64_t)from_k * operand.k_step];
		tile.at[row][k] = from_k < depth ? value : 0.0f;
	}
}

/* Σ over k < depth of left(row, k)·right(column, k), to store(row, column, sum): a thread a sum, in fp32 over 64 terms, those in double. */
template <typename Store>
DEVICE void product_body(const struct operand &left, const struct operand &right, int32_t depth, struct block block, const Store &store)
{
	SHARED(struct product_tile, left_tile, );
	SHARED(struct product_tile, right_tile, );
	PRIVATE(double, sum, 1);
	int32_t row0 = (int32_t)block.x * PRODUCT_TILE, column0 = (int32_t)block.y * PRODUCT_TILE;
	FOR_THREADS (thread)
		MINE(sum)[0] = 0;
	for (int32_t k0 = 0; k0 < depth; k0 += PRODUCT_DEPTH) {
		FOR_THREADS (thread) {
			operand_load(left, row0, k0, depth, thread, left_tile);
			operand_load(right, column0, k0, depth, thread, right_tile);
		}
		BARRIER;
		FOR_THREADS (thread) {
			const float *l = left_tile.at[thread / PRODUCT_TILE], *r = right_tile.at[thread % PRODUCT_TILE];
			float partial = 0;
			for (int k = 0; k < PRODUCT_DEPTH; k++)
				partial += l[k] * r[k];
			MINE(sum)[0] += (double)partial;
		}
		BARRIER;
	}
	FOR_THREADS (thread)
		store(row0 + (int32_t)(thread / PRODUCT_TILE), column0 + (int32_t)(thread % PRODUCT_TILE), MINE(sum)[0]);
}

struct logits_store {
	const struct logits &a;
	DEVICE_METHOD void operator()(int32_t n, int32_t j, double sum) const
	{
		if (n < a.n && j < a.classes)
			a.logits[(int64_t)n * a.classes + j] = (float)(sum + (double)a.bias[j]);
	}
};

DEVICE void logits_body(const struct logits &a, struct block block)
{
	product_body(operand{a.features, a.n, a.C, 1}, operand{a.weight, a.classes, a.C, 1}, a.C, block, logits_store{a});
}

struct head_weight_store {
	const struct head_weight_gradient &a;
	DEVICE_METHOD void operator()(int32_t j, int32_t c, double sum) const
	{
		if (j < a.classes && c < a.C)
			a.dweight[(int64_t)j * a.C + c] = (float)sum;
		if (j < a.classes && c == a.C)
			a.dbias[j] = (float)sum;
	}
};

DEVICE void head_weight_gradient_body(const struct head_weight_gradient &a, struct block block)
{
	product_body(operand{a.dlogits, a.classes, 1, a.classes}, operand{a.features, a.C, 1, a.C}, a.n, block, head_weight_store{a});
}

template <typename T> struct head_input_store {
	const struct head_input_gradient &a;
	DEVICE_METHOD void operator()(int32_t n, int32_t c, double sum) const
	{
		float gradient = (float)(sum / (double)a.pixels_of_image);
		for (int32_t i = 0; n < a.n && c < a.C && i < a.pixels_of_image; i++)
			store_one<T>(a.dx, ((int64_t)n * a.pixels_of_image + i) * a.C + c, gradient);
	}
};

template <typename T> DEVICE void head_input_gradient_body(const struct head_input_gradient &a, struct block block)
{
	product_body(operand{a.dlogits, a.n, a.classes, 1}, operand{a.weight, a.C, 1, a.C}, a.classes, block, head_input_store<T>{a});
}

/* --- sums over a block's threads ---------------------------------------------------------------------------------------------- */

struct thread_sums {
	double at[KERNEL_THREADS];
};

/* at[0] = the sum, in a fixed tree. Written by all threads, before a BARRIER. */
DEVICE void sums_fold(struct thread_sums &sums, struct block block)
{
	(void)block;
	for (unsigned half = KERNEL_THREADS / 2; half > 0; half /= 2) {
		FOR_THREADS (thread)
			if (thread < half)
				sums.at[thread] += sums.at[thread + half];
		BARRIER;
	}
}

/* --- the loss ------------------------------------------------------------------------------------------------------------------ */

/* What the soft target has at class j. */
DEVICE double target_share(const struct device_target &target, int32_t j, int32_t classes)
{
	double weight = (double)target.weight, smoothing = (double)target.smoothing;
	double hard = (j == target.label ? weight : 0) + (j == target.partner ? 1 - weight : 0);
	return (1 - smoothing) * hard + smoothing / (double)classes;
}

DEVICE void loss_body(const struct loss &a, struct block block)
{
	SHARED(float, largest, [KERNEL_THREADS]);
	SHARED(struct thread_sums, exponentials, );
	SHARED(struct thread_sums, losses, );
	SHARED(struct thread_sums, before, );
	int32_t n = (int32_t)block.x;
	const float *logits = a.logits + (int64_t)n * a.classes;
	const struct device_target target = a.targets[n];
	FOR_THREADS (thread) {
		float most = logits[0];
		for (int32_t j = (int32_t)thread; j < a.classes; j += KERNEL_THREADS)
			most = logits[j] > most ? logits[j] : most;
		largest[thread] = most;
	}
	BARRIER;
	for (unsigned half = KERNEL_THREADS / 2; half > 0; half /= 2) {
		FOR_THREADS (thread)
			if (thread < half && largest[thread + half] > largest[thread])
				largest[thread] = largest[thread + half];
		BARRIER;
	}
	FOR_THREADS (thread) {
		float label = logits[target.label];
		double sum = 0, rank = label != label ? (double)a.classes : 0;
		for (int32_t j = (int32_t)thread; j < a.classes; j += KERNEL_THREADS) {
			sum += (double)expf(logits[j] - largest[0]);
			rank += logits[j] > label || (logits[j] == label && j < target.label);
		}
		exponentials.at[thread] = sum;
		before.at[thread] = rank;
	}
	BARRIER;
	sums_fold(exponentials, block);
	sums_fold(before, block);
	FOR_THREADS (thread) {
		double sum = exponentials.at[0], logarithm = (double)largest[0] + log(sum), loss = 0;
		double scale = (a.loss_scale != NULL ? (double)*a.loss_scale : 1) / a.total;
		for (int32_t j = (int32_t)thread; j < a.classes; j += KERNEL_THREADS) {
			double share = target_share(target, j, a.classes);
			loss += share * (logarithm - (double)logits[j]);
			if (a.dlogits != NULL)
				a.dlogits[(int64_t)n * a.classes + j] = (float)(((double)expf(logits[j] - largest[0]) / sum - share) * scale);
		}
		losses.at[thread] = loss;
	}
	BARRIER;
	sums_fold(losses, block);
	FOR_THREADS (thread) {
		if (thread > 0)
			continue;
		a.rows[(int64_t)n * 3] = losses.at[0];
		a.rows[(int64_t)n * 3 + 1] = before.at[0] < 1;
		a.rows[(int64_t)n * 3 + 2] = before.at[0] < 5;
	}
}

DEVICE void counters_add_body(const struct counters_add &a, struct block block)
{
	SHARED(struct thread_sums, sums, );
	for (int i = 0; i < 3; i++) {
		FOR_THREADS (thread) {
			double sum = 0;
			for (int32_t n = (int32_t)thread; n < a.n; n += KERNEL_THREADS)
				sum += a.rows[(int64_t)n * 3 + i];
			sums.at[thread] = sum;
		}
		BARRIER;
		sums_fold(sums, block);
		FOR_THREADS (thread) {
			if (thread > 0)
				continue;
			a.counters[i == 0 ? 0 : i + 1] += sums.at[0];
			a.counters[1] += i == 0 ? a.n : 0;
		}
		BARRIER;
	}
}
