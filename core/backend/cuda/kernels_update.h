/* kernels_update.h: the optimizer, and plain arrays (see kernels.h). */
#pragma once

#include "core/backend/cuda/grids.h"
#include "core/backend/cuda/kernels_head.h"

/* --- whether and how to update ------------------------------------------------------------------------------------------------- */

DEVICE void squares_body(const struct squares &a, struct block block)
{
	SHARED(struct thread_sums, sums, );
	FOR_THREADS (thread) {
		double sum[4] = {0, 0, 0, 0};
		int64_t packs = a.count / 4, at = (int64_t)block.x * KERNEL_THREADS + thread;
		UNROLL_SOME
		for (int64_t i = at; i < packs; i += SQUARES_BLOCKS * KERNEL_THREADS) {
			float g[4];
			load<fp32, 4>(a.gradients, i * 4, g);
			UNROLL
			for (int k = 0; k < 4; k++)
				sum[k] += (double)g[k] * (double)g[k];
		}
		if (at < a.count % 4)
			sum[0] += (double)a.gradients[packs * 4 + at] * (double)a.gradients[packs * 4 + at];
		sums.at[thread] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
	}
	BARRIER;
	sums_fold(sums, block);
	FOR_THREADS (thread)
		if (thread == 0)
			a.partials[block.x] = sums.at[0];
}

DEVICE void update_prepare_body(const struct update_prepare &a, struct block block)
{
	static_assert((int)SQUARES_BLOCKS == (int)KERNEL_THREADS, "a thread a partial sum");
	const float scale_max = 16777216.0f;
	SHARED(struct thread_sums, sums, );
	FOR_THREADS (thread)
		sums.at[thread] = a.partials[thread];
	BARRIER;
	sums_fold(sums, block);
	FOR_THREADS (thread) {
		if (thread > 0)
			continue;
		struct update_control control = *a.control;
		double loss_scale = (double)control.loss_scale, norm_squared = sums.at[0] / (loss_scale * loss_scale);
		bool finite = norm_squared - norm_squared == 0;
		double clip = a.clip_norm > 0 ? a.clip_norm / (sqrt(norm_squared) + 1e-6) : 1;
		control.step_scale = (float)((clip < 1 ? clip : 1) / loss_scale);
		control.skip = a.dynamic && !finite;
		if (a.dynamic && !finite) {
			control.loss_scale = control.loss_scale / 2 > 1 ? control.loss_scale / 2 : 1;
			control.clean_steps = 0;
			control.skipped_steps++;
		} else if (a.dynamic && ++control.clean_steps >= (uint32_t)a.growth_steps) {
			control.loss_scale = control.loss_scale * 2 < scale_max ? control.loss_scale * 2 : scale_max;
			control.clean_steps = 0;
		}
		*a.control = control;
		if (a.norm_squared != NULL)
			*a.norm_squared = norm_squared;
	}
}

DEVICE void skip_note_body(const struct skip_note &a, struct block block)
{
	(void)block;
	FOR_THREADS (thread)
		if (thread == 0)
			a.skipped[a.index] = a.control->skip;
}

/* --- updates ------------------------------------------------------------------------------------------------------------------- */

/* One value. Single operations: a dead tap, whose updates are carried out later, gets the bits that a live one with gradient 0 would. */
DEVICE void sgd_step(const struct device_sgd &sgd, float gradient, float &weight, float &momentum)
{
	float d = plus(gradient, mul(sgd.decay, weight));
	momentum = sgd.first ? d : plus(mul(sgd.momentum, momentum), d);
	float step = sgd.nesterov ? plus(d, mul(sgd.momentum, momentum)) : momentum;
	weight = minus(weight, mul(sgd.lr, step));
}

DEVICE float average_step(float average, float value, float share)
{
	return plus(average, mul(share, minus(value, average)));
}

template <typename T, int COUNT> DEVICE void update_values(const struct update_live &a, const struct device_sgd &sgd, float scale, int64_t at)
{
	float g[COUNT], w[COUNT], v[COUNT], ema[COUNT] = {};
	load<fp32, COUNT>(a.gradients, at, g);
	load<fp32, COUNT>(a.weights, at, w);
	load<fp32, COUNT>(a.momentum, at, v);
	if (a.ema != NULL)
		load<fp32, COUNT>(a.ema, at, ema);
	UNROLL
	for (int k = 0; k < COUNT; k++) {
		sgd_step(sgd, mul(g[k], scale), w[k], v[k]);
		if (a.ema != NULL)
			ema[k] = average_step(ema[k], w[k], sgd.ema_share);
	}
	store<fp32, COUNT>(a.weights, at, w);
	store<fp32, COUNT>(a.momentum, at, v);
	if (a.ema != NULL)
		store<fp32, COUNT>(a.ema, at, ema);
	if (a.half != NULL)
		store<T, COUNT>(a.half, at, w);
}

template <typename T> DEVICE void update_live_body(const struct update_live &a, struct block block)
{
	FOR_THREADS (thread) {
		if (a.control->skip)
			continue;
		const struct update_range range = a.ranges[block.x];
		const struct device_sgd sgd = a.kinds[range.kind];
		const float scale = mul(a.gradient_scale, a.control->step_scale);
		int64_t offset = (int64_t)range.offset;
		for (uint32_t i = thread * 4; i < range.count; i += KERNEL_THREADS * 4) {
			if (i + 4 <= range.count)
				update_values<T, 4>(a, sgd, scale, offset + i);
			else
				for (uint32_t j = i; j < range.count; j++)
					update_values<T, 1>(a, sgd, scale, offset + j);
		}
	}
}

DEVICE void update_dead_body(const struct update_dead &a, struct block block)
{
	FOR_THREADS (thread) {
		for (int k = 0; k < ARRAY_VALUES; k++) {
			int64_t at = ((int64_t)block.x * ARRAY_VALUES + k) * KERNEL_THREADS + thread;
			if (at >= a.count)
				continue;
			float w = a.weights[at], v = a.momentum[at], ema = a.ema != NULL ? a.ema[at] : 0;
			for (int32_t i = 0; i < a.history_count; i++) {
				if (a.skipped != NULL && a.skipped[i])
					continue;
				sgd_step(a.history[i], 0, w, v);
				ema = average_step(ema, w, a.history[i].ema_share);
			}
			a.weights[at] = w;
			a.momentum[at] = v;
			if (a.ema != NULL)
				a.ema[at] = ema;
		}
	}
}

DEVICE void average_body(const struct average &a, struct block block)
{
	FOR_THREADS (thread) {
		for (int k = 0; k < ARRAY_VALUES && !a.control->skip; k++) {
			int64_t at = ((int64_t)block.x * ARRAY_VALUES + k) * KERNEL_THREADS + thread;
			if (at < a.count)
				a.ema[at] = average_step(a.ema[at], a.values[at], a.ema_share);
		}
	}
}

/* --- plain arrays -------------------------------------------------------------------------------------------------------------- */

/* From one element to another, or added to it. */
template <typename From, typename To, bool ADD> DEVICE void array_body(const void *from, void *to, int64_t count, struct block block)
{
	FOR_THREADS (thread) {
		int64_t first = ((int64_t)block.x * KERNEL_THREADS + thread) * ARRAY_VALUES;
		if (first + ARRAY_VALUES <= count) {
			float values[ARRAY_VALUES], before[ARRAY_VALUES];
			load<From, ARRAY_VALUES>(from, first, values);
			if (ADD) {
				load<To, ARRAY_VALUES>(to, first, before);
				UNROLL
				for (int k = 0; k < ARRAY_VALUES; k++)
					values[k] += before[k];
			}
			store<To, ARRAY_VALUES>(to, first, values);
		} else {
			for (int64_t at = first; at < count; at++)
				store_one<To>(to, at, load_one<From>(from, at) + (ADD ? load_one<To>(to, at) : 0));
		}
	}
}

template <typename T> DEVICE void add_body(const struct add &a, struct block block)
{
	array_body<T, T, true>(a.from, a.to, a.count, block);
}

template <typename T> DEVICE void from_float_body(const struct convert &a, struct block block)
{
	array_body<fp32, T, false>(a.from, a.to, a.count, block);
}

template <typename T> DEVICE void to_float_body(const struct convert &a, struct block block)
{
	array_body<T, fp32, false>(a.from, a.to, a.count, block);
}

DEVICE void share_out_body(const struct share &a, struct block block)
{
	FOR_THREADS (thread) {
		for (int k = 0; k < ARRAY_VALUES; k++) {
			int64_t at = ((int64_t)block.x * ARRAY_VALUES + k) * KERNEL_THREADS + thread;
			if (at < a.count)
				a.shared[at] = a.factor * (double)a.values[at];
		}
	}
}

DEVICE void share_back_body(const struct share &a, struct block block)
{
	FOR_THREADS (thread) {
		for (int k = 0; k < ARRAY_VALUES; k++) {
			int64_t at = ((int64_t)block.x * ARRAY_VALUES + k) * KERNEL_THREADS + thread;
			if (at < a.count)
				a.values[at] = (float)a.shared[at];
		}
	}
}
