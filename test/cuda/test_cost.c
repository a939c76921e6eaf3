/* Goal: the cost of a step on paper is that of the step: launches, FLOPs and bytes are what the network's table says they must be, times follow the
 * roofline's rules, and the tables in the backend's README are the program's own.
 * Method: the launches of jobs of both stems (test/cuda/cost) against sums made here from the network table alone; times of launches made by hand.
 * With SMELT_README=write (make cost) the tables are written instead of compared. */
#include "core/backend/cuda/unit_graphs.h"
#include "core/model/params.h"
#include "test/cuda/cost/roofline.h"
#include "test/cuda/cost/tables.h"
#include "test/unit/readme_section.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 20, CLASSES = 100, IMAGE_SIZE = 32 };

static const struct job jobs[] = {
	{STEM_IMAGENET, N, PRECISION_FP16, 1, 0, false},
	{STEM_CIFAR, N, PRECISION_FP16, 1, 0, false},
	{STEM_IMAGENET, N, PRECISION_FP32, 1, 0, false},
	{STEM_CIFAR, N, PRECISION_BF16, 1, 0, false},
	{STEM_IMAGENET, N, PRECISION_FP16, 4, 1 << 20, false},
	{STEM_CIFAR, N, PRECISION_FP16, 4, 4 << 20, true},
};
enum { JOBS = sizeof jobs / sizeof jobs[0] };

static struct launches launches;
static struct network network;

static void job_open(const struct job *job)
{
	assert_int_equal(network_build(&network, job->stem, IMAGE_SIZE, CLASSES), ST_OK);
	if (launches_of(job, &launches) != ST_OK)
		fail_msg("%s", status_message());
}

static int count_of(const char *name)
{
	int count = 0;
	for (int i = 0; i < launches.count; i++)
		count += strcmp(launches.list[i].name, name) == 0;
	return count;
}

static enum element element_of(const struct job *job)
{
	return job->precision == PRECISION_FP32 ? ELEMENT_FP32 : job->precision == PRECISION_BF16 ? ELEMENT_BF16 : ELEMENT_FP16;
}

/* Taps that the device computes, of all R·S. */
static int taps_of(const struct unit *unit)
{
	const struct live live = unit_live(unit);
	return (live.r1 - live.r0) * (live.s1 - live.s0);
}

static double channels_of(const struct unit *unit, const struct job *job)
{
	return channels_padded(unit->C, element_of(job));
}

/* --- launches --------------------------------------------------------------------------------------------------------- */

static void test_every_launch_is_counted(void **state)
{
	(void)state;
	for (int j = 0; j < JOBS; j++) {
		const struct job *job = &jobs[j];
		const bool imagenet = job->stem == STEM_IMAGENET, scaled = job->precision == PRECISION_FP16;
		job_open(job);
		int blocks = 0, total = 0;
		for (int u = 0; u < RESNET_UNITS; u++)
			blocks += network.units[u].shortcut >= 0;
		const struct {
			const char *name;
			int count;
		} wanted[] = {
			{"convolution", RESNET_UNITS}, {"input gradient", RESNET_UNITS - 1}, {"weight gradient", RESNET_UNITS},
			{"norm_sums", RESNET_UNITS}, {"norm_constants", RESNET_UNITS}, {"norm_apply", RESNET_UNITS},
			{"norm_backward_sums", RESNET_UNITS}, {"norm_backward_constants", RESNET_UNITS}, {"norm_backward_apply", RESNET_UNITS},
			{"add", blocks}, /* a block's input gets a gradient on two ways */
			{"pool_forward", imagenet}, {"pool_backward", imagenet},
			{"features", 1}, {"logits", 1}, {"loss", 1}, {"counters_add", 1}, {"head_weight_gradient", 1}, {"head_input_gradient", 1},
			{"gather", 1}, {"update_live", 1}, {"squares", scaled}, {"update_prepare", scaled},
			{"skip_note", scaled && imagenet}, {"update_dead", imagenet},
			{"share_out", job->world > 1}, {"share_back", job->world > 1},
		};
		for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
			if (count_of(wanted[i].name) != wanted[i].count)
				fail_msg("job %d: %d times %s, expected %d", j, count_of(wanted[i].name), wanted[i].name, wanted[i].count);
			total += wanted[i].count;
		}
		for (int i = 0; i < launches.count; i++)
			total -= launches.list[i].kind <= LAUNCH_PLAN;
		/* Sums in bf16 are rounded and widened, piece by piece. */
		assert_int_equal(-total, job->sums_in_bf16 ? 2 * (count_of("sum over ranks") - 1) : 0);
	}
}

static void test_the_pass_is_recorded_and_nothing_else(void **state)
{
	(void)state;
	for (int j = 0; j < JOBS; j++) {
		job_open(&jobs[j]);
		int first = -1, last = -1;
		for (int i = 0; i < launches.count; i++)
			if (launches.list[i].recorded) {
				first = first < 0 ? i : first;
				last = i;
			}
		assert_true(first > 0);
		for (int i = first; i <= last; i++)
			assert_true(launches.list[i].recorded);
		assert_string_equal(launches.list[first].name, "convolution");
		assert_string_equal(launches.list[first - 1].name, "gather");
		for (int i = last + 1; i < launches.count; i++)
			assert_true(launches.list[i].stream == launches.list[0].stream);
	}
}

/* --- arithmetic and traffic ------------------------------------------------------------------------------------------- */

static void test_flops_are_the_networks(void **state)
{
	(void)state;
	for (int j = 0; j < JOBS; j++) {
		const struct job *job = &jobs[j];
		double wanted = 0, found = 0;
		job_open(job);
		for (int u = 0; u < RESNET_UNITS; u++) {
			const struct unit *unit = &network.units[u];
			double macs = (double)unit_macs(unit) * taps_of(unit) / (unit->R * unit->S) * channels_of(unit, job) / unit->C;
			wanted += 2 * N * macs * (unit->x == 0 ? 2 : 3); /* forward, weights' gradient; the input's, but the image has none */
		}
		for (int i = 0; i < launches.count; i++)
			found += launches.list[i].kind == LAUNCH_PLAN ? launches.list[i].flops : 0;
		assert_true(found == wanted);
		for (int i = 0; i < launches.count; i++)
			if (launches.list[i].kind == LAUNCH_PLAN) {
				const struct product *p = &launches.list[i].product;
				/* A strided convolution's input gradient meets each pixel with a share of the taps; their number is rounded nowhere. */
				assert_true(fabs(2 * p->rows * p->columns * p->depth / launches.list[i].flops - 1) < 1e-12);
			}
	}
}

static double bytes_of(const char *name)
{
	double bytes = 0;
	for (int i = 0; i < launches.count; i++)
		bytes += strcmp(launches.list[i].name, name) == 0 ? launches.list[i].bytes : 0;
	return bytes;
}

static void test_bytes_are_the_tensors(void **state)
{
	(void)state;
	for (int j = 0; j < JOBS; j++) {
		const struct job *job = &jobs[j];
		const double T = (double)element_bytes(element_of(job));
		double forward = 0, input_gradient = 0, weight_gradient = 0, apply = 0, backward_apply = 0, adds = 0;
		job_open(job);
		for (int u = 0; u < RESNET_UNITS; u++) {
			const struct unit *unit = &network.units[u];
			double x = N * channels_of(unit, job) * unit->H * unit->W, z = (double)N * unit->K * unit->P * unit->Q;
			double w = unit->K * channels_of(unit, job) * taps_of(unit), shortcut = unit->shortcut >= 0;
			forward += T * (x + w + z);
			weight_gradient += T * (x + z) + 4 * w;
			input_gradient += unit->x == 0 ? 0 : T * (z + w + x);
			apply += T * (2 + shortcut) * z + 8 * unit->K;
			/* The shortcut's gradient is the first that its tensor gets. */
			backward_apply += T * (3 + unit->relu + shortcut) * z + 12 * unit->K;
			if (shortcut > 0) {
				/* The block's first convolution adds to its input's gradient. */
				int before = u - 1;
				while (network.units[before].y != unit->x)
					before--;
				const struct unit *first = &network.units[before];
				adds += 3 * T * N * first->C * first->H * first->W;
			}
		}
		assert_true(bytes_of("convolution") == forward);
		assert_true(bytes_of("input gradient") == input_gradient);
		assert_true(bytes_of("weight gradient") == weight_gradient);
		assert_true(bytes_of("norm_apply") == apply);
		assert_true(bytes_of("norm_backward_apply") == backward_apply);
		assert_true(bytes_of("add") == adds);
	}
}

/* All live parameters travel once, and the running statistics as doubles. */
static void test_sums_are_the_live_parameters(void **state)
{
	(void)state;
	for (int j = 0; j < JOBS; j++) {
		const struct job *job = &jobs[j];
		struct params_layout layout;
		double gradients = 0, statistics = 0, smallest = 1e18, last = 0;
		job_open(job);
		params_layout_build(&layout, &network);
		for (int i = 0; i < launches.count; i++) {
			const struct launch *launch = &launches.list[i];
			if (launch->kind != LAUNCH_SUM)
				continue;
			if (launch->element == ELEMENT_FP64) {
				statistics += launch->bytes;
				continue;
			}
			if (last > 0 && last < smallest)
				smallest = last;
			last = launch->bytes;
			gradients += launch->bytes;
		}
		if (job->world == 1) {
			assert_true(gradients == 0 && statistics == 0);
			continue;
		}
		double live = (double)layout.weights_count;
		for (int u = 0; u < RESNET_UNITS; u++) {
			const struct unit *unit = &network.units[u];
			live += unit->K * (channels_of(unit, job) * taps_of(unit) - (double)unit->C * unit->R * unit->S);
		}
		/* Each tensor begins at a multiple of 8 values; the 100 biases of the head are all that do not fill theirs. */
		assert_true(gradients == (live + 4) * (job->sums_in_bf16 ? 2 : 4));
		assert_true(statistics == 8 * (double)layout.buffers_count);
		assert_true(smallest * (job->sums_in_bf16 ? 2 : 1) >= (double)job->bucket_bytes);
	}
}

/* --- times ------------------------------------------------------------------------------------------------------------ */

static void close_to(double found, double wanted)
{
	if (!(fabs(found - wanted) <= 1e-9 * wanted))
		fail_msg("%.12g, expected %.12g", found, wanted);
}

static void test_the_roofline(void **state)
{
	(void)state;
	const struct gpu *gpu = &gpus[GPU_A100];
	const struct job job = {STEM_CIFAR, N, PRECISION_FP16, 1, 0, false};
	/* 108 tiles of 128 × 128 fill one wave exactly. */
	struct launches made = {.count = 2, .list = {
		{.kind = LAUNCH_PLAN, .stream = 1, .flops = 312e9, .bytes = 1, .product = {108 * 128, 128, 64}, .every = 1},
		{.kind = LAUNCH_KERNEL, .stream = 1, .flops = 1, .bytes = 1555e6, .blocks = 54, .every = 1},
	}};
	close_to(step_bound(&made, &job, gpu), 1e-3 + 1e-3);
	close_to(step_expected(&made, &job, gpu, NULL), 1e-3 / .60 / .97 + 2e-6 + 1e-3 / .80 / .5 + 2e-6);
	/* The same product in another precision; the kernel once in four steps. */
	const struct job exact = {STEM_CIFAR, N, PRECISION_FP32, 1, 0, false};
	made.list[1].every = 4;
	close_to(step_bound(&made, &exact, gpu), 1e-3 * 312 / 19.5 + 1e-3 / 4);
}

static void test_sums_run_beside(void **state)
{
	(void)state;
	const struct gpu *gpu = &gpus[GPU_A100];
	const struct link *link = &links[LINK_10];
	const struct job job = {STEM_CIFAR, N, PRECISION_FP16, 4, 0, false};
	const double bytes = 1e7, sum = link->latency + bytes * 1.5 / link->bytes, copy = 1e-3 / gpu->bytes_share + 2e-6;
	struct launches made = {.list = {
		{.kind = LAUNCH_COPY, .stream = 1, .bytes = 1555e6, .every = 1},
		{.kind = LAUNCH_MARK, .stream = 1, .event = 1},
		{.kind = LAUNCH_WAIT, .stream = 2, .event = 1},
		{.kind = LAUNCH_SUM, .stream = 2, .bytes = bytes, .every = 1},
		{.kind = LAUNCH_MARK, .stream = 2, .event = 2},
		{.kind = LAUNCH_COPY, .stream = 1, .bytes = 1555e6, .every = 1},
		{.kind = LAUNCH_WAIT, .stream = 1, .event = 2},
		{.kind = LAUNCH_COPY, .stream = 1, .bytes = 1555e6, .every = 1},
	}, .count = 8};
	assert_true(sum > copy); /* so the last copy waits for it */
	close_to(step_expected(&made, &job, gpu, link), copy + sum + copy);
	made.list[3].bytes = 0;
	close_to(step_expected(&made, &job, gpu, link), 3 * copy);
}

static void test_every_gpu(void **state)
{
	(void)state;
	for (int j = 0; j < JOBS; j++) {
		job_open(&jobs[j]);
		for (int g = 0; g < GPUS; g++) {
			const struct gpu *gpu = &gpus[g];
			if (gpu_flops(gpu, jobs[j].precision) == 0) {
				assert_true((g == GPU_V100 || g == GPU_T4) && jobs[j].precision == PRECISION_BF16);
				continue;
			}
			double bound = step_bound(&launches, &jobs[j], gpu), before = 0;
			assert_true(isfinite(bound) && bound > 0);
			for (int l = LINKS - 1; l >= 0; l--) {
				double expected = step_expected(&launches, &jobs[j], gpu, &links[l]);
				assert_true(isfinite(expected) && expected > bound);
				if (jobs[j].world == 1)
					assert_true(before == 0 || expected == before);
				before = expected;
			}
		}
	}
}

/* --- the README ------------------------------------------------------------------------------------------------------- */

static void test_the_readme_is_true(void **state)
{
	(void)state;
	struct text made = {0};
	if (cost_markdown(&made) != ST_OK)
		fail_msg("%s", status_message());
	readme_section_check("core/backend/cuda/README.md", "cost", "make cost", text_string(&made));
	text_free(&made);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_launch_is_counted),
		cmocka_unit_test(test_the_pass_is_recorded_and_nothing_else),
		cmocka_unit_test(test_flops_are_the_networks),
		cmocka_unit_test(test_bytes_are_the_tensors),
		cmocka_unit_test(test_sums_are_the_live_parameters),
		cmocka_unit_test(test_the_roofline),
		cmocka_unit_test(test_sums_run_beside),
		cmocka_unit_test(test_every_gpu),
		cmocka_unit_test(test_the_readme_is_true),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
