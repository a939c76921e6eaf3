/* share.c: see share.h. */
#include "train/share.h"

struct share share_of(size_t count, int parts, int part)
{
	size_t takers = count / SHARE_IMAGES_MIN, p = (size_t)part;
	takers = takers < 1 ? 1 : takers > (size_t)parts ? (size_t)parts : takers;
	if (p >= takers)
		return (struct share){count, 0};
	size_t first = count * p / takers;
	return (struct share){first, count * (p + 1) / takers - first};
}

uint64_t course_images(const struct course *course)
{
	uint64_t sum = 0;
	for (int host = 0; host < (course->sharded ? course->hosts : 1); host++)
		sum += course->images[host];
	return sum;
}

int64_t course_steps(const struct course *course)
{
	uint64_t images = course_images(course), batch = (uint64_t)course->batch_size, whole = images / batch;
	bool partial = images % batch != 0 && !course->drop_last;
	return (int64_t)(whole + partial);
}

/* Images of a host that are due before a step: its part, such that no step has one alone: an even number is left for the later ones. */
static uint64_t shard_due(uint64_t images, uint64_t step, uint64_t steps)
{
	uint64_t due = images * step / steps;
	due -= due > 0 && (images - due) % SHARE_IMAGES_MIN != 0;
	return due < SHARE_IMAGES_MIN && due < images ? 0 : due;
}

static struct share shard_step(const struct course *course, int host, int64_t step)
{
	uint64_t images = course->images[host], steps = (uint64_t)course_steps(course);
	uint64_t first = shard_due(images, (uint64_t)step, steps);
	return (struct share){(size_t)first, (size_t)(shard_due(images, (uint64_t)step + 1, steps) - first)};
}

struct course_step course_step(const struct course *course, int64_t step)
{
	struct course_step result = {.total = 0};
	if (course->sharded) {
		for (int host = 0; host < course->hosts; host++)
			result.total += shard_step(course, host, step).count;
		result.batch = shard_step(course, course->host, step);
		result.own = share_of(result.batch.count, course->devices, course->local);
	} else {
		size_t first = (size_t)step * (size_t)course->batch_size, left = (size_t)course->images[0] - first;
		result.batch = (struct share){first, left < (size_t)course->batch_size ? left : (size_t)course->batch_size};
		result.total = result.batch.count;
		result.own = share_of(result.total, course->world, course->rank);
	}
	return result;
}

struct course_most course_most(const struct course *course)
{
	struct course_most most = {0, 1};
	for (int64_t s = 0, steps = course_steps(course); s < steps; s++) {
		struct course_step step = course_step(course, s);
		most.batch = step.batch.count > most.batch ? step.batch.count : most.batch;
		most.own = (int)step.own.count > most.own ? (int)step.own.count : most.own;
	}
	return most;
}
