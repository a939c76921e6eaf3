/* tables.c: see tables.h. In: launches of jobs, the roofline. Out: Markdown. */
#include "test/cuda/cost/tables.h"

#include "test/cuda/cost/roofline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUCKET_BYTES ((size_t)4 << 20) /* the setting's default */
enum { STEMS = 2, BATCH = 128 };
static const int batches[] = {32, 128, 512};
enum { BATCHES = sizeof batches / sizeof batches[0] };

/* Both stems' launches of one job. */
struct pair {
	struct job jobs[STEMS];
	struct launches launches[STEMS];
};

static enum status pair_fill(struct pair *pair, struct job job)
{
	for (int stem = 0; stem < STEMS; stem++) {
		job.stem = (enum stem)stem;
		pair->jobs[stem] = job;
		TRY(launches_of(&job, &pair->launches[stem]));
	}
	return ST_OK;
}

/* More digits would say more than the model knows. */
static double digits_2(double value)
{
	double unit = value > 0 ? pow(10, floor(log10(value)) - 1) : 1;
	return round(value / unit) * unit;
}

/* --- what a step is made of ------------------------------------------------------------------------------------------- */

struct sums {
	double launches, flops, bytes;
};

/* Of launches with that name; NULL: of all. */
static struct sums sums_of(const struct launches *launches, const char *name)
{
	struct sums sums = {0};
	for (int i = 0; i < launches->count; i++) {
		const struct launch *launch = &launches->list[i];
		if (launch->kind > LAUNCH_COPY || (name != NULL && strcmp(launch->name, name) != 0))
			continue;
		sums.launches += 1.0 / launch->every;
		sums.flops += launch->flops / launch->every;
		sums.bytes += launch->bytes / launch->every;
	}
	return sums;
}

static enum status row_print(struct text *text, const char *name, const struct sums sums[STEMS])
{
	TRY(text_printf(text, "| %s |", name));
	for (int stem = 0; stem < STEMS; stem++)
		TRY(text_printf(text, " %.0f | %.1f | %.0f |", sums[stem].launches, sums[stem].flops / 1e9, sums[stem].bytes / 1e6));
	return text_add(text, "\n");
}

/* A name has a line of its own when it moves a hundredth of all. */
static enum status parts_print(struct text *text, const struct pair *pair)
{
	struct sums all[STEMS], rest[STEMS];
	for (int stem = 0; stem < STEMS; stem++)
		rest[stem] = all[stem] = sums_of(&pair->launches[stem], NULL);
	TRY(text_printf(text, "What a step of %d images in fp16 asks for: launches, GFLOP, MB read and written.\n\n", BATCH));
	TRY(text_add(text, "| | imagenet stem | GFLOP | MB | cifar stem | GFLOP | MB |\n|---|---|---|---|---|---|---|\n"));
	/* What the network with more kinds of launches has, in order of first use. */
	const struct launches *order = &pair->launches[STEM_IMAGENET];
	for (int i = 0; i < order->count; i++) {
		const char *name = order->list[i].name;
		struct sums sums[STEMS];
		bool seen = false, large = false;
		for (int j = 0; j < i && !seen; j++)
			seen = strcmp(order->list[j].name, name) == 0;
		for (int stem = 0; stem < STEMS; stem++) {
			sums[stem] = sums_of(&pair->launches[stem], name);
			large = large || sums[stem].bytes > all[stem].bytes / 100;
		}
		if (seen || !large)
			continue;
		for (int stem = 0; stem < STEMS; stem++) {
			rest[stem].launches -= sums[stem].launches;
			rest[stem].flops -= sums[stem].flops;
			rest[stem].bytes -= sums[stem].bytes;
		}
		TRY(row_print(text, name, sums));
	}
	TRY(row_print(text, "all others", rest));
	return row_print(text, "all", all);
}

/* --- images a second -------------------------------------------------------------------------------------------------- */

static enum status speeds_print(struct text *text, const struct pair by_batch[BATCHES])
{
	TRY(text_add(text, "\nImages/s of one GPU, fp16: expected (bound).\n\n| |"));
	for (int stem = 0; stem < STEMS; stem++)
		for (int b = 0; b < BATCHES; b++)
			TRY(text_printf(text, " %s, %d |", stem_name((enum stem)stem), batches[b]));
	TRY(text_add(text, "\n|---|---|---|---|---|---|---|\n"));
	for (int g = 0; g < GPUS; g++) {
		TRY(text_printf(text, "| %s |", gpus[g].name));
		for (int stem = 0; stem < STEMS; stem++)
			for (int b = 0; b < BATCHES; b++) {
				const struct launches *launches = &by_batch[b].launches[stem];
				const struct job *job = &by_batch[b].jobs[stem];
				TRY(text_printf(text, " %.0f (%.0f) |", digits_2(job->n / step_expected(launches, job, &gpus[g], NULL)),
					digits_2(job->n / step_bound(launches, job, &gpus[g]))));
			}
		TRY(text_add(text, "\n"));
	}
	return ST_OK;
}

static double sums_bytes(const struct launches *launches)
{
	double bytes = 0;
	for (int i = 0; i < launches->count; i++)
		bytes += launches->list[i].kind == LAUNCH_SUM ? launches->list[i].bytes : 0;
	return bytes;
}

static enum status four_print(struct text *text, const struct pair *alone, const struct pair by_sums[2])
{
	static const struct {
		enum gpu_name gpu;
		enum link_name link;
	} rows[] = {{GPU_V100, LINK_NVLINK_V100}, {GPU_A100, LINK_NVLINK_A100}, {GPU_A10G, LINK_PCIE}, {GPU_T4, LINK_PCIE}, {GPU_T4, LINK_10},
		{GPU_V100, LINK_10}, {GPU_V100, LINK_25}, {GPU_V100, LINK_100}};
	TRY(text_printf(text, "\nFour GPUs, one rank each, %d images a rank, fp16: expected images/s and share of four times one. Summed over ranks in a step:"
		" imagenet %.1f MB (its dead taps stay at home), cifar %.1f MB; rounded to bf16 %.1f and %.1f MB.\n\n", BATCH,
		sums_bytes(&by_sums[0].launches[0]) / 1e6, sums_bytes(&by_sums[0].launches[1]) / 1e6, sums_bytes(&by_sums[1].launches[0]) / 1e6,
		sums_bytes(&by_sums[1].launches[1]) / 1e6));
	TRY(text_add(text, "| | imagenet, fp32 sums | bf16 sums | cifar, fp32 sums | bf16 sums |\n|---|---|---|---|---|\n"));
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const struct gpu *gpu = &gpus[rows[i].gpu];
		TRY(text_printf(text, "| %s, %s |", gpu->name, links[rows[i].link].name));
		for (int stem = 0; stem < STEMS; stem++)
			for (int rounded = 0; rounded < 2; rounded++) {
				double one = step_expected(&alone->launches[stem], &alone->jobs[stem], gpu, NULL);
				double four = step_expected(&by_sums[rounded].launches[stem], &by_sums[rounded].jobs[stem], gpu, &links[rows[i].link]);
				TRY(text_printf(text, " %.0f, %.0f %% |", digits_2(4 * BATCH / four), 100 * one / four));
			}
		TRY(text_add(text, "\n"));
	}
	return ST_OK;
}

static enum status gpus_print(struct text *text)
{
	TRY(text_add(text, "\nWhat this rests on: TFLOP/s of the data sheet and, in brackets, the share of it that convolutions are expected to reach when all"
		" multiprocessors are busy; the same of memory, GB/s. Only calibrated shares have met a measurement, other people's of another network.\n\n"
		"| | fp32 | TF32 | fp16 | memory | shares |\n|---|---|---|---|---|---|\n"));
	for (int g = 0; g < GPUS; g++) {
		TRY(text_printf(text, "| %s |", gpus[g].name));
		for (int rate = 0; rate < 3; rate++)
			if (gpus[g].flops[rate] > 0)
				TRY(text_printf(text, " %.0f (%.2f) |", gpus[g].flops[rate] / 1e12, gpus[g].flops_share[rate]));
			else
				TRY(text_add(text, " none |"));
		TRY(text_printf(text, " %.0f (%.2f) | %s |\n", gpus[g].bytes / 1e9, gpus[g].bytes_share, gpus[g].basis));
	}
	return ST_OK;
}

/* --- all -------------------------------------------------------------------------------------------------------------- */

struct tables {
	struct pair alone[BATCHES], four[2];
};

static enum status tables_print(struct text *text, struct tables *tables)
{
	const struct pair *middle = &tables->alone[1];
	for (int b = 0; b < BATCHES; b++)
		TRY(pair_fill(&tables->alone[b], (struct job){.n = batches[b], .precision = PRECISION_FP16, .world = 1}));
	for (int rounded = 0; rounded < 2; rounded++)
		TRY(pair_fill(&tables->four[rounded], (struct job){.n = BATCH, .precision = PRECISION_FP16, .world = 4, .bucket_bytes = BUCKET_BYTES,
			.sums_in_bf16 = rounded}));
	TRY(parts_print(text, middle));
	TRY(speeds_print(text, tables->alone));
	TRY(four_print(text, middle, tables->four));
	return gpus_print(text);
}

enum status cost_markdown(struct text *text)
{
	struct tables *tables = calloc(1, sizeof *tables);
	if (tables == NULL)
		return FAIL(ST_MEMORY, "cost: no memory for the tables");
	enum status status = tables_print(text, tables);
	free(tables);
	return status;
}
