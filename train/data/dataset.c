/* dataset.c: see dataset.h. The channels are read by reader.c; here it is decided which images serve what, and whether they fit. */
#include "train/data/dataset.h"

#include "core/base/log.h"
#include "core/model/labels.h"
#include "train/data/collection.h"
#include "train/data/pipe.h"
#include "train/data/reader.h"
#include "train/data/split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { DISMISS_WAIT_MS = 500 };

/* What the three channels gave; the lists in it are moved on to the data set. */
struct gathered {
	struct collection train, validation, test;
};

static void list_move(struct image_list *from, struct image_list *to)
{
	*to = *from;
	*from = (struct image_list){0};
}

/* --- reading --------------------------------------------------------------------------------------------------------- */

/* A channel that is for one set alone: its own images, or else those that call themselves test, or else all it has. */
static struct image_list *only_list(struct collection *collection, enum set own)
{
	const enum set order[] = {own, SET_TEST, SET_VALIDATION, SET_TRAIN};
	for (size_t i = 0; i < sizeof order / sizeof *order; i++)
		if (collection->sets[order[i]].count > 0)
			return &collection->sets[order[i]];
	return &collection->sets[own];
}

static enum status channels_read(const struct dataset_request *request, struct gathered *gathered)
{
	const struct channel *train, *validation = channels_of(request->channels, CHANNEL_VALIDATION);
	const struct channel *test = channels_of(request->channels, CHANNEL_TEST);
	TRY(channels_require(request->channels, CHANNEL_TRAIN, &train));
	gathered->train.may_be_empty = train->sharded && request->agree != NULL;
	gathered->validation.may_be_empty = validation != NULL && validation->sharded && request->agree != NULL;
	TRY(channel_read(train, SET_TRAIN, &gathered->train));
	if (request->agree != NULL)
		TRY(request->agree(request->context, train->sharded, &gathered->train));
	if (gathered->train.sets[SET_TRAIN].count == 0 && !gathered->train.may_be_empty)
		return FAIL(ST_DATA, "channel %s: %s: only images that call themselves test or validation, none to train with", train->name, train->path);
	if (validation != NULL)
		TRY(channel_read(validation, SET_VALIDATION, &gathered->validation));
	if (test != NULL)
		TRY(channel_read(test, SET_TEST, &gathered->test));
	for (int i = 0; i < request->channels->count; i++) {
		const struct channel *other = &request->channels->all[i];
		if (other->pipe && other != train && other != validation && other != test)
			pipe_dismiss(other, DISMISS_WAIT_MS, request->stopped);
	}
	return ST_OK;
}

/* --- classes --------------------------------------------------------------------------------------------------------- */

static enum status classes_count(const struct dataset_request *request, const struct collection *train, int *classes)
{
	const struct image_list *images = &train->sets[SET_TRAIN];
	int found = 0;
	switch (train->kind) {
	case COLLECTION_CIFAR_100:
		found = CIFAR100_CLASSES;
		break;
	case COLLECTION_CIFAR_10:
		found = CIFAR10_CLASSES;
		break;
	case COLLECTION_FOLDERS:
		found = (int)train->folders.count;
		break;
	case COLLECTION_NUMBERED:
		/* Numbers alone cannot tell how many there are meant to be; num_classes can. */
		for (size_t i = 0; i < images->count; i++)
			if (images->labels[i] >= found)
				found = images->labels[i] + 1;
		if (found < train->numbers)
			found = train->numbers;
		if (found < request->classes)
			found = request->classes;
		break;
	case COLLECTION_EMPTY:
	case COLLECTION_KINDS:
		break;
	}
	if (request->classes != 0 && request->classes != found)
		return FAIL(ST_SETTINGS, "num_classes is %d, but the training data (%s) have %d classes; leave it at auto or correct it", request->classes,
			collection_kind_text(train->kind), found);
	if (found < 2)
		return FAIL(ST_DATA, "the training data (%s) have %d class; at least 2 are needed", collection_kind_text(train->kind), found);
	*classes = found;
	return ST_OK;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum status names_check_distinct(char *const *names, int classes)
{
	char **sorted = malloc((size_t)classes * sizeof *sorted);
	if (sorted == NULL)
		return FAIL(ST_MEMORY, "no memory for %d class names", classes);
	memcpy(sorted, names, (size_t)classes * sizeof *sorted);
	qsort(sorted, (size_t)classes, sizeof *sorted, compare_names);
	enum status status = ST_OK;
	for (int i = 1; i < classes && status == ST_OK; i++)
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			status = FAIL(ST_DATA, "two classes are called \"%s\"; class names must differ", sorted[i]);
	free(sorted);
	return status;
}

/* The name of class i, in the caller's buffer or elsewhere. */
static const char *class_name(const struct collection *train, int i, char number[16])
{
	if (train->kind == COLLECTION_FOLDERS)
		return train->folders.all[i];
	if (train->names.count > 0)
		return train->names.all[i];
	if (train->kind == COLLECTION_CIFAR_100)
		return labels_cifar100[i];
	if (train->kind == COLLECTION_CIFAR_10)
		return labels_cifar10[i];
	snprintf(number, 16, "%d", i);
	return number;
}

static enum status names_make(const struct collection *train, struct dataset *dataset)
{
	char number[16];
	if (train->kind != COLLECTION_FOLDERS && train->names.count > 0 && train->names.count != (size_t)dataset->classes)
		return FAIL(ST_DATA, "the training channel's file of names has %zu names, but the data (%s) have %d classes", train->names.count,
			collection_kind_text(train->kind), dataset->classes);
	dataset->class_names = calloc((size_t)dataset->classes, sizeof *dataset->class_names);
	for (int i = 0; i < dataset->classes && dataset->class_names != NULL; i++) {
		dataset->class_names[i] = strdup(class_name(train, i, number));
		if (dataset->class_names[i] == NULL)
			return FAIL(ST_MEMORY, "no memory for class names");
	}
	if (dataset->class_names == NULL)
		return FAIL(ST_MEMORY, "no memory for class names");
	return names_check_distinct(dataset->class_names, dataset->classes);
}

void images_count_classes(const struct images *images, uint64_t *counts)
{
	for (size_t i = 0; i < images->count; i++)
		counts[images->labels[i]]++;
}

enum status dataset_check_classes(const struct dataset *dataset, const uint64_t *counts, const char *where)
{
	int missing = 0, first = 0;
	for (int k = dataset->classes; k-- > 0;)
		if (counts[k] == 0) {
			missing++;
			first = k;
		}
	if (missing > 0)
		return FAIL(ST_DATA, "%d of %d classes have no training image%s, the first is %d (%s); each class needs at least one", missing, dataset->classes,
			where, first, dataset->class_names[first]);
	return ST_OK;
}

/* Every class needs an image to learn from. */
static enum status classes_check(const struct dataset *dataset, const struct image_list *train)
{
	const struct images images = {.labels = train->labels, .count = train->count};
	uint64_t *counts = calloc((size_t)dataset->classes, sizeof *counts);
	if (counts == NULL)
		return FAIL(ST_MEMORY, "no memory for %d classes", dataset->classes);
	images_count_classes(&images, counts);
	enum status status = dataset_check_classes(dataset, counts, "");
	free(counts);
	return status;
}

/* Labels of another channel in terms of the training set's classes. */
static enum status labels_match(const struct collection *train, const struct channel *channel, int classes, const struct collection *other,
	struct image_list *images)
{
	if (other->kind == COLLECTION_EMPTY)
		return ST_OK;
	if (other->kind != train->kind)
		return FAIL(ST_DATA, "channel %s: %s, but the training channel holds %s", channel->name, collection_kind_text(other->kind),
			collection_kind_text(train->kind));
	for (size_t i = 0; i < images->count; i++) {
		if (other->kind == COLLECTION_FOLDERS) {
			const char *name = other->folders.all[images->labels[i]];
			char **place = bsearch(&name, train->folders.all, train->folders.count, sizeof *train->folders.all, compare_names);
			if (place == NULL)
				return FAIL(ST_DATA, "channel %s: class \"%s\" is not among the %d classes of the training channel", channel->name, name, classes);
			images->labels[i] = (uint16_t)(place - train->folders.all);
		} else if (images->labels[i] >= classes) {
			return FAIL(ST_DATA, "channel %s: image %zu has label %u, but the training channel's labels are 0 to %d", channel->name, i,
				images->labels[i], classes - 1);
		}
	}
	return ST_OK;
}

/* --- which images serve what ----------------------------------------------------------------------------------------- */

static enum status split(const struct dataset_request *request, struct image_list lists[SETS], int classes, double share)
{
	if (lists[SET_TRAIN].count == 0) /* a shard without images */
		return ST_OK;
	return split_take(&lists[SET_TRAIN], &lists[SET_VALIDATION], request->image_size, classes, share, request->seed);
}

static enum status sets_choose(const struct dataset_request *request, struct gathered *gathered, struct dataset *dataset, struct image_list lists[SETS])
{
	struct collection *train = &gathered->train;
	const struct channel *validation_channel = channels_of(request->channels, CHANNEL_VALIDATION);
	const struct channel *test_channel = channels_of(request->channels, CHANNEL_TEST);
	struct image_list *test = &train->sets[SET_TEST];
	list_move(&train->sets[SET_TRAIN], &lists[SET_TRAIN]);
	for (enum set set = SET_VALIDATION; set <= SET_TEST; set++)
		TRY(labels_match(train, channels_of(request->channels, CHANNEL_TRAIN), dataset->classes, train, &train->sets[set]));
	if (test_channel != NULL) {
		test = only_list(&gathered->test, SET_TEST);
		TRY(labels_match(train, test_channel, dataset->classes, &gathered->test, test));
	}
	const bool train_sharded = channels_of(request->channels, CHANNEL_TRAIN)->sharded;
	dataset->validation_source = "none";
	dataset->validation_sharded = train_sharded;
	if (validation_channel != NULL) {
		struct image_list *validation = only_list(&gathered->validation, SET_VALIDATION);
		TRY(labels_match(train, validation_channel, dataset->classes, &gathered->validation, validation));
		list_move(validation, &lists[SET_VALIDATION]);
		dataset->validation_source = "validation channel";
		dataset->validation_sharded = validation_channel->sharded;
	} else if (train->sets[SET_VALIDATION].count > 0) {
		list_move(&train->sets[SET_VALIDATION], &lists[SET_VALIDATION]);
		dataset->validation_source = "validation folder of the training channel";
	} else if (request->validation_split > 0) {
		TRY(split(request, lists, dataset->classes, request->validation_split));
		dataset->validation_source = "split of the training images";
	} else if (train->sets[SET_TEST].count > 0) {
		list_move(&train->sets[SET_TEST], &lists[SET_VALIDATION]);
		dataset->validation_source = "test files of the training channel";
	} else if (test_channel != NULL) {
		list_move(test, &lists[SET_VALIDATION]);
		dataset->validation_source = "test channel";
		dataset->validation_sharded = test_channel->sharded;
	} else if (request->validation_split_default > 0) {
		TRY(split(request, lists, dataset->classes, request->validation_split_default));
		dataset->validation_source = "split of the training images";
	}
	list_move(test, &lists[SET_TEST]);
	return ST_OK;
}

static uint64_t fingerprint_take(const struct images *train, const struct images *validation)
{
	const struct images *const sets[] = {train, validation};
	uLong pixels = crc32_z(0, NULL, 0), labels = pixels;
	for (size_t s = 0; s < 2; s++) {
		const struct images *set = sets[s];
		uint64_t about[2] = {set->count, (uint64_t)set->size};
		labels = crc32_z(labels, (const Bytef *)about, sizeof about);
		if (set->count == 0)
			continue;
		pixels = crc32_z(pixels, set->pixels, set->count * 3 * (size_t)set->size * (size_t)set->size);
		labels = crc32_z(labels, (const Bytef *)set->labels, set->count * sizeof *set->labels);
	}
	return (uint64_t)pixels << 32 | labels;
}

uint64_t images_fingerprint(const struct images *images)
{
	return fingerprint_take(images, &(const struct images){.size = images->size});
}

/* The data set owns the memory from here on. */
static struct images list_hand_over(struct image_list *list, int size)
{
	struct images images = {.pixels = list->pixels, .labels = list->labels, .count = list->count, .size = size};
	list->pixels = NULL;
	list->labels = NULL;
	return images;
}

enum status dataset_load(const struct dataset_request *request, struct dataset *dataset)
{
	enum status status = ST_OK;
	struct gathered gathered;
	struct image_list lists[SETS] = {0};
	struct dataset new = {0};
	collection_open(&gathered.train, request->image_size, request->stopped);
	collection_open(&gathered.validation, request->image_size, request->stopped);
	collection_open(&gathered.test, request->image_size, request->stopped);
	if (!(request->validation_split >= 0 && request->validation_split < 1)) {
		status = FAIL(ST_SETTINGS, "validation_split is %g, expected 0 or more and less than 1", request->validation_split);
		goto done;
	}
	TRY_DONE(channels_read(request, &gathered));
	TRY_DONE(classes_count(request, &gathered.train, &new.classes));
	TRY_DONE(names_make(&gathered.train, &new));
	new.sharded = channels_of(request->channels, CHANNEL_TRAIN)->sharded;
	if (!new.sharded)
		TRY_DONE(classes_check(&new, &gathered.train.sets[SET_TRAIN]));
	TRY_DONE(sets_choose(request, &gathered, &new, lists));
	new.kind = collection_kind_text(gathered.train.kind);
	new.train = list_hand_over(&lists[SET_TRAIN], request->image_size);
	new.validation = list_hand_over(&lists[SET_VALIDATION], request->image_size);
	new.test = list_hand_over(&lists[SET_TEST], request->image_size);
	new.fingerprint = fingerprint_take(&new.train, &new.validation);
	log_info("data: %s, %d classes; %zu images to train, %zu to validate (%s), %zu to test; fingerprint %016llx", new.kind, new.classes, new.train.count,
		new.validation.count, new.validation_source, new.test.count, (unsigned long long)new.fingerprint);
	*dataset = new;
	new = (struct dataset){0};
done:
	dataset_free(&new);
	for (int set = 0; set < SETS; set++)
		image_list_free(&lists[set]);
	collection_free(&gathered.test);
	collection_free(&gathered.validation);
	collection_free(&gathered.train);
	return status;
}

void dataset_free(struct dataset *dataset)
{
	struct images *const sets[] = {&dataset->train, &dataset->validation, &dataset->test};
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
		free((void *)sets[i]->pixels);
		free((void *)sets[i]->labels);
	}
	for (int i = 0; dataset->class_names != NULL && i < dataset->classes; i++)
		free(dataset->class_names[i]);
	free(dataset->class_names);
	*dataset = (struct dataset){0};
}
