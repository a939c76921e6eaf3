/* Goal: sums over ranks are right, the same bits on all ranks and from run to run, whatever the sizes and whoever comes late.
 * Method: forked processes on loopback (ranks_rig.h). Whole numbers small enough to be added exactly in any order are compared exactly; random
 * ones by a digest of their bits, and to a bound that follows from the number of roundings. */
#define _DEFAULT_SOURCE
#include "comm_rig.h"

#include "core/comm/add.h"
#include "test/unit/entries.h"
#include "test/unit/float_bits.h"

/* --- values --------------------------------------------------------------------------------------------------------- */

/* Whole, different for each rank and place, and their sum over 8 ranks fits 8 bits: exact in bf16 too. */
static int whole(int rank, size_t i)
{
	return (int)((i * 7 + (size_t)rank * 13) % 31) - 15;
}

static int whole_sum(int world, size_t i)
{
	int sum = 0;
	for (int rank = 0; rank < world; rank++)
		sum += whole(rank, i);
	return sum;
}

enum sort { SORT_FLOATS, SORT_DOUBLES, SORT_STARTED, SORTS };

static int size_check(struct comm *comm, struct control *control, enum sort sort, size_t count)
{
	size_t value_bytes = sort == SORT_DOUBLES ? sizeof(double) : sizeof(float);
	/* A guard after the end. */
	void *memory = malloc((count + 1) * value_bytes);
	HOLD(memory != NULL);
	double *doubles = memory;
	float *floats = memory;
	for (size_t i = 0; i <= count; i++) {
		if (sort == SORT_DOUBLES)
			doubles[i] = whole(control->rank, i);
		else
			floats[i] = (float)whole(control->rank, i);
	}
	if (sort == SORT_DOUBLES)
		HOLD_OK(comm_sum_doubles(comm, doubles, count));
	else if (sort == SORT_FLOATS)
		HOLD_OK(comm_sum_floats(comm, floats, count));
	else {
		/* In three pieces, summed in the order given. */
		HOLD_OK(comm_start(comm, floats, count / 3));
		HOLD_OK(comm_start(comm, floats + count / 3, count / 2));
		HOLD_OK(comm_start(comm, floats + count / 3 + count / 2, count - count / 3 - count / 2));
		HOLD_OK(comm_finish(comm));
	}
	for (size_t i = 0; i <= count; i++) {
		double value = sort == SORT_DOUBLES ? doubles[i] : (double)floats[i];
		double expected = i == count ? whole(control->rank, i) : whole_sum(control->world, i);
		if (value != expected)
			fprintf(stderr, "rank %d of %d: sort %d: value %zu of %zu is %g, expected %g\n", control->rank, control->world, sort, i, count, value,
				expected);
		HOLD(value == expected);
	}
	free(memory);
	return 0;
}

/* Under a sanitizer: fewer values, and fewer repeats of what is random. The largest sizes are the same code. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif

static int sums_rank(struct control *control, void *context)
{
	static const size_t counts[] = {0, 1, 2, 3, 7, 100, 1023, 65537, 300001, 3000000};
	struct plan *plan = context;
	size_t sizes = sizeof counts / sizeof *counts - (plan->schedule != COMM_BY_SIZE || SLOW);
	struct comm *comm;
	HOLD_OK(plan_open(plan, control, &comm));
	for (int sort = 0; sort < SORTS; sort++)
		for (size_t c = 0; c < sizes; c++)
			HOLD(size_check(comm, control, (enum sort)sort, counts[c]) == 0);
	struct comm_figures figures;
	comm_figures(comm, &figures);
	HOLD(figures.sums > 0 && figures.bytes_sent > 0 && figures.sum_seconds > 0 && figures.waited_seconds > 0);
	comm_close(comm);
	return 0;
}

static void sums_are_right(void **state)
{
	(void)state;
	for (int world = 2; world <= 5; world++)
		for (int schedule = COMM_BY_SIZE; schedule <= COMM_HALVING; schedule++)
			for (int type = COMM_FP32; type <= COMM_BF16; type++)
				all_end_well(world, sums_rank, &(struct plan){.schedule = (enum comm_schedule)schedule, .type = (enum comm_type)type});
}


/* --- order ---------------------------------------------------------------------------------------------------------- */

enum { ROUNDS = 8, DIGEST_COUNT_MAX = SLOW ? 100003 : 200003, LATE_RUNS = SLOW ? 1 : 3 };

static uint64_t digest_add(uint64_t digest, const void *bytes, size_t count)
{
	const uint8_t *byte = bytes;
	for (size_t i = 0; i < count; i++)
		digest = (digest ^ byte[i]) * 1099511628211u;
	return digest;
}

/* Random values of very different sizes, where another order of adding gives other bits. */
static double wild(int rank, int round, size_t i)
{
	struct random4 words = random_words((uint64_t)rank, RANDOM_TEST, (uint32_t)round, i);
	return ((double)words.word[0] / 2147483648.0 - 1) * ldexp(1, (int)(words.word[1] % 12));
}

static int bits_rank(struct control *control, void *context)
{
	static const size_t counts[] = {5, 1000, 70001, DIGEST_COUNT_MAX};
	struct plan *plan = context;
	struct comm *comm;
	struct random_stream random = random_open(plan->seed, RANDOM_TEST, 0, (uint64_t)control->rank);
	float *floats = malloc(DIGEST_COUNT_MAX * sizeof *floats);
	double *doubles = malloc(DIGEST_COUNT_MAX * sizeof *doubles);
	HOLD(floats != NULL && doubles != NULL);
	HOLD_OK(plan_open(plan, control, &comm));
	uint64_t digest = 14695981039346656037u;
	double error_worst = 0;
	for (int round = 0; round < ROUNDS; round++) {
		size_t count = counts[round % 4];
		for (size_t i = 0; i < count; i++) {
			doubles[i] = wild(control->rank, round, i);
			floats[i] = (float)doubles[i];
		}
		if (plan->late && random_below(&random, 2) == 0)
			rig_sleep(0.02 * random_unit(&random));
		HOLD_OK(comm_start(comm, floats, count / 2));
		HOLD_OK(comm_start(comm, floats + count / 2, count - count / 2));
		if (plan->late && random_below(&random, 2) == 0)
			rig_sleep(0.02 * random_unit(&random));
		HOLD_OK(comm_finish(comm));
		HOLD_OK(comm_sum_doubles(comm, doubles, count));
		digest = digest_add(digest, floats, count * sizeof *floats);
		digest = digest_add(digest, doubles, count * sizeof *doubles);
		/* Near the truth, too: each of `world` roundings (the value's own, and one an addition) is off by half a step of the sum of sizes at most. */
		for (size_t i = 0; i < count; i += 97) {
			double sizes = 0;
			for (int rank = 0; rank < control->world; rank++)
				sizes += fabs(wild(rank, round, i));
			double bound = sizes * 1.02 * control->world * ldexp(1, plan->type == COMM_BF16 ? -8 : -24);
			double error = fabs((double)floats[i] - doubles[i]) / bound;
			error_worst = error > error_worst ? error : error_worst;
		}
	}
	HOLD(error_worst > 0 && error_worst <= 1);
	if (control->rank == 0 && !plan->late)
		printf("    %d ranks, %s: error at most %.2f of its bound\n", control->world, plan->type == COMM_BF16 ? "bf16" : "fp32", error_worst);
	control->board->digests[control->rank] = digest;
	comm_close(comm);
	free(doubles);
	free(floats);
	return 0;
}

static uint64_t bits_digest(int world, struct plan *plan)
{
	struct rig rig;
	rig_start(&rig, world, bits_rank, plan);
	bool good = rig_wait(&rig, WAIT_SECONDS);
	uint64_t digest = rig.board->digests[0];
	for (int rank = 0; rank < world; rank++)
		good = good && rig.ends[rank] == 0 && rig.board->digests[rank] == digest;
	rig_free(&rig);
	assert_true(good);
	return digest;
}

static void bits_are_the_same_on_all_ranks_and_from_run_to_run(void **state)
{
	(void)state;
	for (int world = 2; world <= 5; world++)
		for (int type = COMM_FP32; type <= COMM_BF16; type++) {
			uint64_t digest = bits_digest(world, &(struct plan){.type = (enum comm_type)type});
			for (uint64_t seed = 1; seed <= LATE_RUNS; seed++)
				assert_int_equal(bits_digest(world, &(struct plan){.type = (enum comm_type)type, .seed = seed, .late = true}), digest);
		}
}

/* --- bf16 ----------------------------------------------------------------------------------------------------------- */

static void bf16_rounds_to_nearest_even(void **state)
{
	(void)state;
	static const uint32_t tails[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
	for (uint32_t head = 0; head < 65536; head++)
		for (size_t t = 0; t < sizeof tails / sizeof *tails; t++) {
			float value = float_of_bits(head << 16 | tails[t]), back;
			uint16_t rounded;
			bf16_from_floats(&rounded, &value, 1);
			floats_from_bf16(&back, &rounded, 1);
			if (isnan(value)) {
				assert_true(isnan(back));
				continue;
			}
			/* The neighbour nearer to zero, and the other one; a tie goes to the even. */
			uint32_t expected = tails[t] > 0x8000 || (tails[t] == 0x8000 && (head & 1) != 0) ? head + 1 : head;
			assert_int_equal(rounded, expected);
			assert_int_equal(bits_of_float(back), expected << 16);
			if (isinf(value))
				assert_true(back == value);
		}
	uint16_t a = 0x3f80, b = 0x3f80, sum;
	add_bf16(&sum, &a, &b, 1);
	assert_int_equal(sum, 0x4000); /* 1 + 1 */
	b = 0x3b80;                    /* 2^-8: half a step of 1 */
	add_bf16(&sum, &a, &b, 1);
	assert_int_equal(sum, 0x3f80); /* stays: even */
}

static int special_rank(struct control *control, void *context)
{
	struct plan *plan = context;
	struct comm *comm;
	HOLD_OK(plan_open(plan, control, &comm));
	for (int who = 0; who < control->world; who++) {
		float values[6] = {1, 1, 1, 1, -0.0f, 1};
		if (control->rank == who) {
			values[0] = NAN;
			values[1] = INFINITY;
			values[2] = -INFINITY;
			values[3] = 3.4e38f; /* no longer finite as bf16 */
		}
		if (control->rank == (who + 1) % control->world)
			values[5] = INFINITY;
		else if (control->rank == who)
			values[5] = -INFINITY;
		HOLD_OK(comm_start(comm, values, 6));
		HOLD_OK(comm_finish(comm));
		HOLD(isnan(values[0]) && values[1] == INFINITY && values[2] == -INFINITY);
		HOLD(plan->type == COMM_BF16 ? values[3] == INFINITY : isfinite(values[3]));
		HOLD(values[4] == 0 && signbit(values[4]) && isnan(values[5]));
	}
	comm_close(comm);
	return 0;
}

static void nan_and_infinity_survive(void **state)
{
	(void)state;
	for (int type = COMM_FP32; type <= COMM_BF16; type++)
		for (int schedule = COMM_RING; schedule <= COMM_HALVING; schedule++)
			all_end_well(3, special_rank, &(struct plan){.type = (enum comm_type)type, .schedule = (enum comm_schedule)schedule});
}

/* --- broadcast, figures, many at once, opening and closing ---------------------------------------------------------- */

static int broadcast_rank(struct control *control, void *context)
{
	static const size_t counts[] = {0, 1, 3, 4097, SLOW ? 8400003 : 20000003}; /* the last in more than one piece */
	struct comm *comm;
	uint8_t *bytes = malloc(counts[4] + 1);
	HOLD(bytes != NULL);
	HOLD_OK(plan_open(context, control, &comm));
	for (int root = 0; root < control->world; root++)
		for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
			for (size_t i = 0; i <= counts[c]; i++)
				bytes[i] = (uint8_t)(whole(control->rank, i) + root);
			HOLD_OK(comm_broadcast(comm, bytes, counts[c], root));
			for (size_t i = 0; i < counts[c]; i++)
				HOLD(bytes[i] == (uint8_t)(whole(root, i) + root));
			HOLD(bytes[counts[c]] == (uint8_t)(whole(control->rank, counts[c]) + root));
		}
	comm_close(comm);
	free(bytes);
	return 0;
}

static void broadcast_reaches_all(void **state)
{
	(void)state;
	for (int world = 2; world <= 5; world++)
		all_end_well(world, broadcast_rank, &(struct plan){0});
}

static int figures_rank(struct control *control, void *context)
{
	enum { COUNT = 2 * 3 * 4 * 5 * 1000 };
	struct comm *comm;
	struct comm_figures figures;
	static float values[COUNT];
	HOLD_OK(plan_open(context, control, &comm));
	comm_figures(comm, &figures);
	HOLD(figures.bytes_sent == 0 && figures.sums == 0 && figures.sum_seconds == 0 && figures.waited_seconds == 0);
	/* A ring moves 2·(W − 1)/W of the values over each line, and no rank can do with less. */
	HOLD_OK(comm_sum_floats(comm, values, COUNT));
	comm_figures(comm, &figures);
	HOLD(figures.bytes_sent == 2 * sizeof values / (size_t)control->world * (size_t)(control->world - 1));
	HOLD(figures.sums == 1 && figures.sum_seconds > 0 && figures.waited_seconds > 0); /* who calls it waits */
	/* More than the queue holds. */
	for (int i = 0; i < 3 * COMM_STARTED_MAX; i++)
		HOLD_OK(comm_start(comm, values + i, 1));
	HOLD_OK(comm_finish(comm));
	HOLD_OK(comm_finish(comm));
	comm_figures(comm, &figures);
	HOLD(figures.sums == 1 + 3 * COMM_STARTED_MAX && figures.waited_seconds > 0);
	comm_close(comm);
	return 0;
}

static void figures_count_what_travels(void **state)
{
	(void)state;
	for (int world = 2; world <= 5; world++)
		all_end_well(world, figures_rank, &(struct plan){.schedule = COMM_RING});
}

static int reopened_rank(struct control *control, void *context)
{
	struct plan *plan = context;
	struct random_stream random = random_open(plan->seed, RANDOM_TEST, 1, (uint64_t)control->rank);
	int files = entries_count("/proc/self/fd"), threads = entries_count("/proc/self/task");
	for (int i = 0; i < RIG_GATHERS_MAX; i++) {
		struct comm *comm;
		float values[3] = {1, 2, 3};
		HOLD_OK(plan_open(plan, control, &comm));
		HOLD_OK(comm_sum_floats(comm, values, 3));
		HOLD(values[2] == (float)(3 * control->world));
		/* The first to be done leaves at once, and takes nothing from the others. */
		if (random_below(&random, 2) == 0)
			rig_sleep(0.005 * random_unit(&random));
		comm_close(comm);
	}
	HOLD(files > 0 && entries_settle("/proc/self/fd", files));
	HOLD(threads > 0 && entries_settle("/proc/self/task", threads + 1)); /* ThreadSanitizer has one of its own */
	comm_close(NULL);
	return 0;
}

static void who_leaves_takes_nothing_along(void **state)
{
	(void)state;
	for (int world = 2; world <= 4; world++)
		all_end_well(world, reopened_rank, &(struct plan){.seed = (uint64_t)world});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bf16_rounds_to_nearest_even),
		cmocka_unit_test(sums_are_right),
		cmocka_unit_test(bits_are_the_same_on_all_ranks_and_from_run_to_run),
		cmocka_unit_test(nan_and_infinity_survive),
		cmocka_unit_test(broadcast_reaches_all),
		cmocka_unit_test(figures_count_what_travels),
		cmocka_unit_test(who_leaves_takes_nothing_along),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
