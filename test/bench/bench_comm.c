/* bench_comm.c: what a sum over ranks costs on one machine: processes joined by loopback, each with a core or less of its own.
 *
 *     build/release/bench/bench_comm            the gradients of both networks, 2 and 4 ranks, as fp32 and as bf16
 *     build/release/bench/bench_comm schedules  the two schedules by size: where comm.c's RING_BYTES_MIN comes from
 *
 * MB/s is bytes of fp32 gradients by time, whatever travels, so rows can be compared. Bytes are in millions. */
#define _DEFAULT_SOURCE
#include "test/unit/ranks_rig.h"

#include "core/comm/comm.h"
#include "core/model/params.h"
#include "measure.h"

struct plan {
	size_t count; /* floats; gradients that a step really makes */
	enum comm_type type;
	enum comm_schedule schedule;
	double seconds_max;
};

/* Floats of the gradient that are not always zero: taps that only meet padding have none. */
static size_t live_count(enum stem stem, size_t *all)
{
	struct network network;
	struct params_layout layout;
	MUST(network_build(&network, stem, 32, 100) == ST_OK);
	params_layout_build(&layout, &network);
	size_t live = layout.weights_count;
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &network.units[u];
		live -= (size_t)unit->K * (size_t)unit->C * (size_t)(unit->R * unit->S - unit_taps_live(unit));
	}
	*all = layout.weights_count;
	return live;
}

static int sum_rank(struct control *control, void *context)
{
	struct plan *plan = context;
	struct comm *comm;
	struct comm_config config = {.control = control, .rank = control->rank, .world = control->world, .address = "127.0.0.1", .type = plan->type,
		.schedule = plan->schedule, .timeout_us = 60 * 1000 * 1000};
	float *values = calloc(plan->count, sizeof *values);
	if (values == NULL || comm_open(&config, &comm) != ST_OK) {
		fprintf(stderr, "rank %d: %s\n", control->rank, status_message());
		free(values);
		return 1;
	}
	/* All ranks must agree on the number of repeats: rank 0 tells after each. */
	double times[REPEATS_MAX + 1], begin = now(), go_on = 1;
	int count = 0;
	while (go_on != 0) {
		double start = now();
		if (comm_start(comm, values, plan->count) != ST_OK || comm_finish(comm) != ST_OK)
			break;
		times[count++] = now() - start;
		go_on = control->rank == 0 && (count < 5 || (count < REPEATS_MAX && now() - begin < plan->seconds_max));
		if (comm_sum_doubles(comm, &go_on, 1) != ST_OK)
			break;
	}
	struct comm_figures figures;
	comm_figures(comm, &figures);
	if (go_on != 0)
		fprintf(stderr, "rank %d: %s\n", control->rank, status_message());
	/* The first one warms up. */
	qsort(times + 1, (size_t)count - 1, sizeof *times, compare);
	control->board->numbers[control->rank][0] = times[1];
	control->board->numbers[control->rank][1] = times[1 + (count - 1) / 2];
	control->board->numbers[control->rank][2] = (double)figures.bytes_sent / count;
	comm_close(comm);
	free(values);
	return go_on != 0;
}

static bool sum_measure(int world, struct plan *plan, double numbers[4])
{
	struct rig rig;
	rig_start(&rig, world, sum_rank, plan);
	bool good = rig_wait(&rig, 300);
	for (int rank = 0; rank < world; rank++)
		good = good && rig.ends[rank] == 0;
	memcpy(numbers, rig.board->numbers[0], sizeof rig.board->numbers[0]);
	rig_free(&rig);
	return good;
}

static int gradients_show(void)
{
	static const char *const type_names[] = {"fp32", "bf16"};
	printf("sum of a step's gradients over ranks on this machine (%u cores)\n", threads_available());
	printf("%-10s %6s %10s %6s %9s %9s %8s %12s\n", "stem", "ranks", "MB fp32", "as", "min ms", "median ms", "MB/s", "MB sent/rank");
	for (int stem = 0; stem < 2; stem++) {
		size_t all, live = live_count((enum stem)stem, &all);
		for (int world = 2; world <= 4; world += 2)
			for (int type = COMM_FP32; type <= COMM_BF16; type++) {
				double numbers[4];
				struct plan plan = {live, (enum comm_type)type, COMM_BY_SIZE, 4};
				if (!sum_measure(world, &plan, numbers))
					return 1;
				printf("%-10s %6d %10.2f %6s %9.1f %9.1f %8.0f %12.2f\n", stem_name((enum stem)stem), world, 4e-6 * (double)live, type_names[type],
					1e3 * numbers[0], 1e3 * numbers[1], 4e-6 * (double)live / numbers[1], 1e-6 * numbers[2]);
				fflush(stdout);
			}
		printf("%-10s %zu of %zu gradients live\n", stem_name((enum stem)stem), live, all);
	}
	return 0;
}

static int schedules_show(void)
{
	printf("%6s %12s %14s %14s %14s %14s\n", "ranks", "bytes", "ring min us", "median", "halving min us", "median");
	for (int world = 2; world <= 4; world++)
		for (size_t count = 64; count <= 16 << 20; count *= 4) {
			double ring[4], halving[4];
			struct plan plan = {count, COMM_FP32, COMM_RING, 1};
			if (!sum_measure(world, &plan, ring))
				return 1;
			plan.schedule = COMM_HALVING;
			if (!sum_measure(world, &plan, halving))
				return 1;
			printf("%6d %12zu %14.0f %14.0f %14.0f %14.0f\n", world, count * sizeof(float), 1e6 * ring[0], 1e6 * ring[1], 1e6 * halving[0], 1e6 * halving[1]);
			fflush(stdout);
		}
	return 0;
}

int main(int argc, char **argv)
{
	return argc > 1 && strcmp(argv[1], "schedules") == 0 ? schedules_show() : gradients_show();
}
