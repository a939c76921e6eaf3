/* roofline.c: see roofline.h. */
#include "test/cuda/cost/roofline.h"

#include <math.h>
#include <string.h>

/* Rates: the makers' data sheets, dense, at boost clock; A10G's are the cloud's part, half of an A10 in tensor products. Shares: with V100's a model of
 * this form (norms fused, though) gives NVIDIA's published ResNet-50 training in fp16, 1376 images/s, and with A100's 83 % of it, 2850 of 3410 (Deep
 * Learning Examples, MXNet); in fp32 84 % on V100 and in TF32 120 % on A100. The other rows are guesses from these two. */
#define TERA 1e12
#define GIGA 1e9
const struct gpu gpus[GPUS] = {
	[GPU_V100] = {"V100", 80, {15.7 * TERA, 0, 125 * TERA}, 900 * GIGA, {.75, 0, .60}, .75, "calibrated"},
	[GPU_T4] = {"T4", 40, {8.1 * TERA, 0, 65 * TERA}, 320 * GIGA, {.60, 0, .50}, .70, "as V100, less for its 70 W"},
	[GPU_A10G] = {"A10G", 80, {31.2 * TERA, 35 * TERA, 70 * TERA}, 600 * GIGA, {.50, .70, .70}, .75, "as A100, more: few tensor cores to feed"},
	[GPU_L4] = {"L4", 58, {30.3 * TERA, 60 * TERA, 121 * TERA}, 300 * GIGA, {.50, .50, .50}, .75, "as A10G, less for its 72 W"},
	[GPU_A100] = {"A100", 108, {19.5 * TERA, 156 * TERA, 312 * TERA}, 1555 * GIGA, {.75, .45, .60}, .80, "calibrated"},
	[GPU_H100] = {"H100", 132, {67 * TERA, 494 * TERA, 989 * TERA}, 3350 * GIGA, {.60, .40, .50}, .75, "as A100, less: harder to feed"},
	[GPU_B200] = {"B200", 148, {75 * TERA, 1100 * TERA, 2250 * TERA}, 7700 * GIGA, {.60, .35, .40}, .70, "as H100, less: harder to feed"},
};

/* NCCL's own tuning constants for NVLink (two rings' worth on p3, all on p4d), what TCP carries of a network, and a PCIe 3 x16 bus shared by four. */
const struct link links[LINKS] = {
	[LINK_NVLINK_V100] = {"NVLink (p3)", 60 * GIGA, 29e-6},
	[LINK_NVLINK_A100] = {"NVLink (p4d)", 230 * GIGA, 29e-6},
	[LINK_PCIE] = {"PCIe 3", 9 * GIGA, 40e-6},
	[LINK_10] = {"10 Gb/s", 1.17 * GIGA, 144e-6},
	[LINK_25] = {"25 Gb/s", 2.9 * GIGA, 144e-6},
	[LINK_100] = {"100 Gb/s", 10 * GIGA, 124e-6},
};

/* From the end of one kernel to the beginning of the next that waits for it, as node of a graph; the host is ahead of the few that are not. */
static const double node_seconds = 2e-6;
/* Kernels that sum over ranks take multiprocessors away meanwhile. */
static const double beside_sums = 1.04;

static int rate_of(enum precision precision)
{
	return precision == PRECISION_FP32 ? RATE_FP32 : precision == PRECISION_TF32 ? RATE_TF32 : RATE_HALF;
}

double gpu_flops(const struct gpu *gpu, enum precision precision)
{
	/* TF32 and bf16 came together. */
	if (precision == PRECISION_BF16 && gpu->flops[RATE_TF32] == 0)
		return 0;
	return gpu->flops[rate_of(precision)];
}

/* Tensor cores are cuDNN's convolutions' alone: our own products are fp32 whatever the activations are. */
static bool is_convolution(const struct launch *launch)
{
	return launch->kind == LAUNCH_PLAN && launch->product.rows > 0;
}

static int launch_rate(const struct launch *launch, const struct job *job)
{
	return is_convolution(launch) ? rate_of(job->precision) : RATE_FP32;
}

double step_bound(const struct launches *launches, const struct job *job, const struct gpu *gpu)
{
	double seconds = 0;
	for (int i = 0; i < launches->count; i++) {
		const struct launch *launch = &launches->list[i];
		if (launch->kind <= LAUNCH_COPY)
			seconds += fmax(launch->flops / gpu->flops[launch_rate(launch, job)], launch->bytes / gpu->bytes) / launch->every;
	}
	return seconds;
}

/* The best share of the multiprocessors that tiles of a product keep busy: large tiles feed them better, small ones and a divided depth fill the last
 * wave better. Tiles of such sizes are what cuDNN's and CUTLASS's kernels have; the price of each is a guess. */
static double product_share(const struct product *product, int multiprocessors)
{
	static const struct tile {
		double rows, columns, price;
	} tiles[] = {{256, 128, 1}, {128, 128, .97}, {128, 64, .88}, {64, 64, .75}, {64, 32, .60}};
	static const double depth_min = 64, price_of_halving = .96;
	double best = 0;
	for (size_t i = 0; i < sizeof tiles / sizeof tiles[0]; i++) {
		const struct tile *tile = &tiles[i];
		double count = ceil(product->rows / tile->rows) * ceil(product->columns / tile->columns);
		double full = product->rows * product->columns / (count * tile->rows * tile->columns), price = tile->price;
		for (int parts = 1; parts == 1 || (parts <= 32 && product->depth / parts >= depth_min); parts *= 2, price *= price_of_halving) {
			double blocks = count * parts, waves = ceil(blocks / multiprocessors);
			best = fmax(best, blocks / (waves * multiprocessors) * price * full);
		}
	}
	return best;
}

/* Few blocks do not draw all that the memory gives. */
static double blocks_share(const struct launch *launch, const struct gpu *gpu)
{
	return launch->kind == LAUNCH_KERNEL && launch->blocks < gpu->multiprocessors ? launch->blocks / gpu->multiprocessors : 1;
}

static double launch_expected(const struct launch *launch, const struct job *job, const struct gpu *gpu, const struct link *link)
{
	if (launch->kind > LAUNCH_SUM)
		return 0;
	if (launch->kind == LAUNCH_SUM)
		return link->latency + launch->bytes * 2 * (job->world - 1) / job->world / link->bytes;
	const int rate = launch_rate(launch, job);
	double flops = gpu->flops[rate] * gpu->flops_share[rate] * (is_convolution(launch) ? product_share(&launch->product, gpu->multiprocessors) : blocks_share(launch, gpu));
	double bytes = gpu->bytes * gpu->bytes_share * blocks_share(launch, gpu);
	double slower = job->world > 1 && launch->recorded ? beside_sums : 1;
	return (fmax(launch->flops / flops, launch->bytes / bytes) * slower + node_seconds) / launch->every;
}

double step_expected(const struct launches *launches, const struct job *job, const struct gpu *gpu, const struct link *link)
{
	enum { STREAMS_MAX = 8, EVENTS_MAX = 16 };
	double streams[STREAMS_MAX] = {0}, events[EVENTS_MAX] = {0}, end = 0;
	for (int i = 0; i < launches->count; i++) {
		const struct launch *launch = &launches->list[i];
		MUST(launch->stream < STREAMS_MAX && launch->event < EVENTS_MAX);
		double *now = &streams[launch->stream];
		*now += launch_expected(launch, job, gpu, link);
		if (launch->kind == LAUNCH_MARK)
			events[launch->event] = *now;
		if (launch->kind == LAUNCH_WAIT)
			*now = fmax(*now, events[launch->event]);
		end = fmax(end, *now);
	}
	return end;
}
