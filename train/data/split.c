/* split.c: see split.h. */
#include "train/data/split.h"

#include "core/base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Marks `wanted` of the class's `count` images: a partial Fisher–Yates shuffle of their places. */
static void class_draw(const size_t *images, size_t count, size_t wanted, struct random_stream *random, size_t *places, bool *taken)
{
	for (size_t i = 0; i < count; i++)
		places[i] = i;
	for (size_t i = 0; i < wanted; i++) {
		size_t other = i + random_below(random, (uint32_t)(count - i));
		size_t place = places[other];
		places[other] = places[i];
		taken[images[place]] = true;
	}
}

/* Sets taken[i] for the images that go and returns how many. by_class, places: room for one number an image; starts: classes + 1. */
static size_t images_draw(const struct image_list *train, int classes, double share, uint64_t seed, size_t *by_class, size_t *places,
	size_t *starts, bool *taken)
{
	size_t total = 0;
	for (size_t i = 0; i < train->count; i++)
		starts[train->labels[i] + 1]++;
	for (int k = 0; k < classes; k++)
		starts[k + 1] += starts[k];
	memcpy(places, starts, (size_t)classes * sizeof *places);
	for (size_t i = 0; i < train->count; i++)
		by_class[places[train->labels[i]]++] = i;
	for (int k = 0; k < classes; k++) {
		size_t count = starts[k + 1] - starts[k];
		/* The difference of rounded running totals: each class is off by less than one, the sum is right. */
		size_t wanted = (size_t)(floor((double)starts[k + 1] * share + 0.5) - floor((double)starts[k] * share + 0.5));
		if (wanted >= count)
			wanted = count > 0 ? count - 1 : 0;
		struct random_stream random = random_open(seed, RANDOM_SPLIT, 0, (uint64_t)k);
		class_draw(by_class + starts[k], count, wanted, &random, places, taken);
		total += wanted;
	}
	return total;
}

enum status split_take(struct image_list *train, struct image_list *validation, int size, int classes, double share, uint64_t seed)
{
	enum status status = ST_OK;
	const size_t bytes = 3 * (size_t)size * (size_t)size, numbers = train->count > (size_t)classes ? train->count : (size_t)classes;
	size_t *by_class = malloc((numbers + 1) * sizeof *by_class), *places = malloc((numbers + 1) * sizeof *places);
	size_t *starts = calloc((size_t)classes + 1, sizeof *starts);
	bool *taken = calloc(train->count + 1, sizeof *taken);
	struct image_list chosen = {0};
	if (by_class == NULL || places == NULL || starts == NULL || taken == NULL) {
		status = FAIL(ST_MEMORY, "no memory to split %zu images", train->count);
		goto done;
	}
	chosen.count = images_draw(train, classes, share, seed, by_class, places, starts, taken);
	if (chosen.count == 0) {
		status = FAIL(ST_SETTINGS, "validation_split is %g: of %zu training images in %d classes that leaves none for validation", share, train->count,
			classes);
		goto done;
	}
	chosen.capacity = chosen.count;
	chosen.pixels = malloc(chosen.count * bytes);
	chosen.labels = malloc(chosen.count * sizeof *chosen.labels);
	if (chosen.pixels == NULL || chosen.labels == NULL) {
		status = FAIL(ST_MEMORY, "no memory for %zu validation images", chosen.count);
		goto done;
	}
	size_t kept = 0, gone = 0;
	for (size_t i = 0; i < train->count; i++) {
		const uint8_t *pixels = train->pixels + i * bytes;
		if (taken[i]) {
			memcpy(chosen.pixels + gone * bytes, pixels, bytes);
			chosen.labels[gone++] = train->labels[i];
			continue;
		}
		if (kept != i)
			memcpy(train->pixels + kept * bytes, pixels, bytes);
		train->labels[kept++] = train->labels[i];
	}
	train->count = kept;
	*validation = chosen;
	chosen = (struct image_list){0};
done:
	free(chosen.labels);
	free(chosen.pixels);
	free(taken);
	free(starts);
	free(places);
	free(by_class);
	return status;
}
