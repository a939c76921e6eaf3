/* test_share.c: every image of an epoch is computed by exactly one rank, whatever the numbers of hosts, ranks and images; parts are never one
 * image alone where it can be avoided; without shards the batches do not depend on the ranks. Counted out, over many shapes. */
#include "train/share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { HOSTS_MAX = 4, IMAGES_MAX = 400 };

static void parts_follow_each_other(void **unused)
{
	(void)unused;
	for (size_t count = 0; count < 70; count++)
		for (int parts = 1; parts <= 9; parts++) {
			size_t next = 0, least = SIZE_MAX, most = 0;
			for (int part = 0; part < parts; part++) {
				struct share share = share_of(count, parts, part);
				if (share.count == 0)
					continue;
				assert_int_equal(share.first, next);
				next += share.count;
				least = share.count < least ? share.count : least;
				most = share.count > most ? share.count : most;
			}
			assert_int_equal(next, count);
			if (count > 0)
				assert_true(most - least <= 1);
			if (count > 1)
				assert_true(least >= SHARE_IMAGES_MIN);
		}
}

/* Walks through an epoch with all ranks of all hosts and counts how often each image of each host's is computed. */
static void walk(const uint64_t *images, int hosts, const int *devices, bool sharded, int batch_size, bool drop_last)
{
	static int seen[HOSTS_MAX][IMAGES_MAX];
	memset(seen, 0, sizeof seen);
	int world = 0, rank = 0;
	for (int host = 0; host < hosts; host++)
		world += devices[host];
	int64_t steps = -1;
	static size_t sums[IMAGES_MAX], totals[IMAGES_MAX];
	memset(sums, 0, sizeof sums);
	for (int host = 0; host < hosts; host++)
		for (int local = 0; local < devices[host]; local++, rank++) {
			const struct course course = {.rank = rank, .world = world, .local = local, .devices = devices[host], .host = host, .hosts = hosts,
				.images = images, .sharded = sharded, .batch_size = batch_size, .drop_last = drop_last};
			assert_true(steps < 0 || steps == course_steps(&course));
			steps = course_steps(&course);
			for (int64_t s = 0; s < steps; s++) {
				struct course_step step = course_step(&course, s);
				assert_true(step.own.count == 0 || step.own.first + step.own.count <= step.batch.count);
				assert_true((int)step.own.count <= course_most(&course).own);
				assert_true(step.batch.count <= course_most(&course).batch);
				assert_true(step.own.count != 1 || step.total == 1 || (sharded && images[host] == 1));
				totals[s] = step.total;
				sums[s] += step.own.count;
				for (size_t i = 0; i < step.own.count; i++)
					seen[sharded ? host : 0][step.batch.first + step.own.first + i]++;
			}
		}
	for (int64_t s = 0; s < steps; s++) {
		assert_int_equal(sums[s], totals[s]);
		if (!sharded)
			assert_true(totals[s] == (size_t)batch_size || (s == steps - 1 && !drop_last));
		else
			assert_true(totals[s] <= (size_t)batch_size * (drop_last ? 2 : 1) + 2 * (size_t)hosts);
	}
	for (int host = 0; host < (sharded ? hosts : 1); host++)
		for (uint64_t i = 0; i < images[host]; i++)
			assert_int_equal(seen[host][i], sharded || !drop_last || i < (uint64_t)steps * (uint64_t)batch_size ? 1 : 0);
}

static void every_image_once(void **unused)
{
	(void)unused;
	const int devices[HOSTS_MAX] = {1, 3, 2, 4};
	for (uint64_t count = 8; count < 120; count += 7)
		for (int hosts = 1; hosts <= HOSTS_MAX; hosts++)
			for (int batch = 2; batch <= 8; batch += 3)
				for (int drop = 0; drop < 2; drop++) {
					const uint64_t same[HOSTS_MAX] = {count, count, count, count};
					const uint64_t parts[HOSTS_MAX] = {count, 3 * count, hosts > 2 ? 0 : 5, 1};
					walk(same, hosts, devices, false, batch, drop);
					walk(parts, hosts, devices, true, batch, drop);
				}
}

/* What is in a step, not who computes it. */
static void batches_are_the_same_for_any_ranks(void **unused)
{
	(void)unused;
	const uint64_t images[2] = {101, 101};
	const struct course alone = {.world = 1, .devices = 1, .hosts = 1, .images = images, .batch_size = 16};
	const struct course eighth = {.rank = 5, .world = 8, .local = 1, .devices = 4, .host = 1, .hosts = 2, .images = images, .batch_size = 16};
	assert_int_equal(course_steps(&alone), 7);
	assert_int_equal(course_steps(&eighth), 7);
	for (int64_t s = 0; s < 7; s++) {
		struct course_step one = course_step(&alone, s), other = course_step(&eighth, s);
		assert_int_equal(one.batch.first, other.batch.first);
		assert_int_equal(one.batch.count, other.batch.count);
		assert_int_equal(one.own.count, one.total);
		assert_int_equal(other.total, one.total);
	}
	assert_int_equal(course_step(&eighth, 6).own.count, 0); /* five images: two ranks have two or three each, the others none */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parts_follow_each_other),
		cmocka_unit_test(every_image_once),
		cmocka_unit_test(batches_are_the_same_for_any_ranks),
	};
	return cmocka_run_group_tests_name("share", tests, NULL, NULL);
}
