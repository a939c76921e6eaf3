/* siblings.c: see siblings.h. */
#include "train/selftest/siblings.h"

#include "core/base/clock.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_US = 60000000, BUCKET_BYTES = 8 << 20 };

enum status siblings_open(int world, struct siblings **siblings)
{
	FILE *file = tmpfile();
	void *memory = MAP_FAILED;
	if (file != NULL && ftruncate(fileno(file), sizeof(struct siblings)) == 0)
		memory = mmap(NULL, sizeof(struct siblings), PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
	if (file != NULL)
		(void)fclose(file); /* the mapping stays */
	if (memory == MAP_FAILED)
		return FAIL(ST_MEMORY, "no %zu bytes of memory to share between the processes of the self-test (they are taken from the temporary directory)",
			sizeof(struct siblings));
	*siblings = memory;
	(*siblings)->world = world;
	return ST_OK;
}

void siblings_close(struct siblings *siblings)
{
	if (siblings != NULL)
		(void)munmap(siblings, sizeof *siblings);
}

void siblings_tell(struct place_among *place, const char *format, ...)
{
	struct sibling *own = &place->shared->all[place->rank];
	size_t length = atomic_load(&own->length), left = sizeof own->report - length;
	va_list arguments;
	va_start(arguments, format);
	int count = vsnprintf(own->report + length, left, format, arguments);
	va_end(arguments);
	if (count > 0)
		atomic_store(&own->length, length + ((size_t)count < left ? (size_t)count : left - 1));
}

enum status siblings_meet(struct place_among *place)
{
	struct siblings *shared = place->shared;
	int64_t until_us = clock_us() + PATIENCE_US;
	place->meetings++;
	atomic_fetch_add(&shared->arrived, 1);
	while (atomic_load(&shared->arrived) < place->meetings * shared->world) {
		if (atomic_load(&shared->failed))
			return FAIL(ST_DEVICE, "the self-test of another GPU has failed");
		if (clock_us() > until_us)
			return FAIL(ST_DEVICE, "the self-test of another GPU is silent for more than %d s", PATIENCE_US / 1000000);
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	}
	return ST_OK;
}

static enum status blob_broadcast(void *context, void *bytes, size_t count, int root)
{
	struct place_among *place = context;
	MUST(count <= SIBLINGS_BLOB_BYTES);
	if (place->rank == root)
		memcpy(place->shared->blob, bytes, count);
	TRY(siblings_meet(place));
	memcpy(bytes, place->shared->blob, count);
	return siblings_meet(place); /* before the next one is written */
}

static enum status others_check(void *context)
{
	const struct place_among *place = context;
	return atomic_load(&place->shared->failed) ? FAIL(ST_DEVICE, "the self-test of another GPU has failed") : ST_OK;
}

struct reduction siblings_reduction(struct place_among *place)
{
	return (struct reduction){.rank = place->rank, .world = place->shared->world, .bucket_bytes = BUCKET_BYTES, .context = place, .broadcast = blob_broadcast,
		.check = others_check, .timeout_us = PATIENCE_US, .hosts = 1};
}
