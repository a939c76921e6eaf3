/* shards.c: see shards.h. Each host tells the others one JSON text and reads all of theirs, its own included; so all come to the same result or
 * the same error. */
#include "train/data/shards.h"

#include "core/base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- telling and hearing --------------------------------------------------------------------------------------------- */

/* What the hosts told, parsed. */
struct tellings {
	int count;
	struct json *hosts[];
};

static void tellings_free(struct tellings *tellings)
{
	for (int i = 0; tellings != NULL && i < tellings->count; i++)
		json_free(tellings->hosts[i]);
	free(tellings);
}

/* Gathers the text of all hosts; alone, there is only the own one. */
static enum status tellings_gather(struct control *control, const struct resource *resource, const struct text *own, struct tellings **tellings)
{
	enum status status = ST_OK;
	struct control_blobs blobs = {0};
	struct tellings *made = calloc(1, sizeof *made + (size_t)resource->hosts_count * sizeof made->hosts[0]);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for what %d hosts tell", resource->hosts_count);
	if (control != NULL)
		TRY_DONE(control_gather(control, own->data, own->length, &blobs));
	for (; made->count < resource->hosts_count; made->count++) {
		const void *bytes = control != NULL ? (const void *)blobs.blobs[made->count] : own->data;
		TRY_DONE(json_parse(resource->hosts[made->count], bytes, control != NULL ? blobs.counts[made->count] : own->length, &made->hosts[made->count]));
	}
	*tellings = made;
	made = NULL;
done:
	control_blobs_free(&blobs);
	tellings_free(made);
	return status;
}

static const struct json *member_of(const struct json *json, const char *name, enum json_kind kind)
{
	const struct json *member = json_member(json, name);
	return member != NULL && json_kind(member) == kind ? member : NULL;
}

/* A member that must be there; the hosts run the same version of the program (rendezvous), so this only guards against a damaged message. */
#define HEAR(to, json, name, kind) \
	do { \
		(to) = member_of((json), (name), (kind)); \
		if ((to) == NULL) \
			return FAIL(ST_DEVICE, "what a host told about its data has no %s", (name)); \
	} while (0)

#define COUNT_MOST 0x1p53 /* so far a double holds every whole number */

static enum status hear_count(const struct json *json, const char *name, double most, double *value)
{
	const struct json *member = member_of(json, name, JSON_NUMBER);
	if (member == NULL || !(json_number(member) >= 0 && json_number(member) <= most))
		return FAIL(ST_DEVICE, "what a host told about its data has no %s", name);
	*value = json_number(member);
	return ST_OK;
}

static void write_names(struct json_writer *json, const char *name, const struct cifar_names *names)
{
	json_write_array(json, name);
	for (size_t i = 0; i < names->count; i++)
		json_write_string(json, NULL, names->all[i]);
	json_write_end(json);
}

/* --- classes --------------------------------------------------------------------------------------------------------- */

static enum status classes_tell(const struct collection *train, bool sharded, struct text *text)
{
	struct json_writer json = {.text = text};
	int numbers = 0;
	for (int set = 0; set < SETS; set++)
		for (size_t i = 0; i < train->sets[set].count; i++)
			if (train->sets[set].labels[i] >= numbers)
				numbers = train->sets[set].labels[i] + 1;
	json_write_object(&json, NULL);
	json_write_bool(&json, "sharded", sharded);
	json_write_integer(&json, "kind", train->kind);
	json_write_integer(&json, "numbers", numbers);
	write_names(&json, "folders", &train->folders);
	write_names(&json, "names", &train->names);
	return json_write_end_all(&json);
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum status names_add(const struct json *list, const char *host, struct cifar_names *names)
{
	if (list == NULL)
		return FAIL(ST_DEVICE, "what host %s told about its classes has no list of names", host);
	for (const struct json *item = json_first(list); item != NULL; item = json_next(item)) {
		if (json_kind(item) != JSON_STRING)
			return FAIL(ST_DEVICE, "what host %s told about its classes is no list of names", host);
		TRY(cifar_names_add(names, json_string(item), strlen(json_string(item)), host));
	}
	return ST_OK;
}

/* Sorted, each once. */
static void names_unite(struct cifar_names *names)
{
	size_t kept = 0;
	if (names->count > 1)
		qsort(names->all, names->count, sizeof *names->all, compare_strings);
	for (size_t i = 0; i < names->count; i++) {
		if (kept > 0 && strcmp(names->all[kept - 1], names->all[i]) == 0)
			free(names->all[i]);
		else
			names->all[kept++] = names->all[i];
	}
	names->count = kept;
}

/* Labels are indices into `from`; makes them indices into the sorted list `to`, which holds all of these names. */
static void labels_renumber(struct collection *train, const struct cifar_names *from, const struct cifar_names *to)
{
	for (int set = 0; set < SETS; set++)
		for (size_t i = 0; i < train->sets[set].count; i++) {
			uint16_t *label = &train->sets[set].labels[i];
			char **place = bsearch(&from->all[*label], to->all, to->count, sizeof *to->all, compare_strings);
			MUST(place != NULL);
			*label = (uint16_t)(place - to->all);
		}
}

static enum status kind_unite(const struct tellings *tellings, const struct resource *resource, bool sharded, enum collection_kind *kind)
{
	int first = -1;
	for (int host = 0; host < tellings->count; host++) {
		const struct json *says;
		double number;
		HEAR(says, tellings->hosts[host], "sharded", JSON_BOOL);
		TRY(hear_count(tellings->hosts[host], "kind", COLLECTION_KINDS - 1, &number));
		if (json_bool(says) != sharded)
			return FAIL(ST_SETTINGS, "the training channel is %s on host %s and %s on host %s; inputdataconfig.json must say the same on all", sharded ? "sharded" :
				"replicated", resource_host(resource), sharded ? "replicated" : "sharded", resource->hosts[host]);
		enum collection_kind here = (enum collection_kind)number;
		if (here == COLLECTION_EMPTY)
			continue;
		if (first >= 0 && here != *kind)
			return FAIL(ST_DATA, "the training channel holds %s on host %s, but %s on host %s; all hosts must train on one data set",
				collection_kind_text(*kind), resource->hosts[first], collection_kind_text(here), resource->hosts[host]);
		*kind = here;
		first = host;
	}
	if (first < 0)
		return FAIL(ST_DATA, "the training channel is empty on all %d hosts", resource->hosts_count);
	return ST_OK;
}

enum status shards_classes(struct control *control, const struct resource *resource, bool sharded, struct collection *train)
{
	enum status status = ST_OK;
	struct tellings *tellings = NULL;
	struct text own = {0};
	struct cifar_names folders = {0}, names = {0};
	enum collection_kind kind = COLLECTION_EMPTY;
	TRY_DONE(classes_tell(train, sharded, &own));
	TRY_DONE(tellings_gather(control, resource, &own, &tellings));
	TRY_DONE(kind_unite(tellings, resource, sharded, &kind));
	train->kind = kind;
	if (!sharded || resource->hosts_count == 1)
		goto done;
	for (int host = 0; host < tellings->count; host++) {
		double numbers;
		TRY_DONE(names_add(member_of(tellings->hosts[host], "folders", JSON_ARRAY), resource->hosts[host], &folders));
		if (names.count == 0) /* one host may have the file of names */
			TRY_DONE(names_add(member_of(tellings->hosts[host], "names", JSON_ARRAY), resource->hosts[host], &names));
		TRY_DONE(hear_count(tellings->hosts[host], "numbers", UINT16_MAX + 1, &numbers));
		train->numbers = numbers > train->numbers ? (int)numbers : train->numbers;
	}
	names_unite(&folders);
	if (folders.count > 0)
		labels_renumber(train, &train->folders, &folders);
	struct cifar_names old = train->folders, old_names = train->names;
	train->folders = folders;
	train->names = names;
	folders = old;
	names = old_names;
done:
	cifar_names_free(&folders);
	cifar_names_free(&names);
	tellings_free(tellings);
	text_free(&own);
	return status;
}

/* --- images ---------------------------------------------------------------------------------------------------------- */

/* Sums over pixels, by colour. Exact as doubles up to 2⁵³: some 10¹¹ pixels. */
struct pixel_sums {
	double pixels, sum[3], squares[3];
};

static void pixel_sums_take(const struct images *images, struct pixel_sums *sums)
{
	size_t plane = (size_t)images->size * (size_t)images->size;
	*sums = (struct pixel_sums){.pixels = (double)images->count * (double)plane};
	for (size_t c = 0; c < 3; c++) {
		uint64_t sum = 0, squares = 0;
		for (size_t i = 0; i < images->count; i++) {
			const uint8_t *pixels = images->pixels + (i * 3 + c) * plane;
			for (size_t p = 0; p < plane; p++) {
				sum += pixels[p];
				squares += (uint64_t)pixels[p] * pixels[p];
			}
		}
		sums->sum[c] = (double)sum;
		sums->squares[c] = (double)squares;
	}
}

/* Mean and standard deviation of each colour. */
static struct normalization normalization_of(const struct pixel_sums *sums)
{
	struct normalization result;
	for (int c = 0; c < 3; c++) {
		double mean = sums->sum[c] / sums->pixels, variance = sums->squares[c] / sums->pixels - mean * mean;
		result.mean[c] = (float)(mean / 255);
		/* A set of one plain colour has no deviation: its pixels are left unscaled. */
		result.std[c] = variance > 0 ? (float)(sqrt(variance) / 255) : 1.0f;
	}
	return result;
}

static enum status data_tell(const struct dataset *dataset, struct text *text)
{
	struct json_writer json = {.text = text};
	struct pixel_sums sums;
	char fingerprint[2][17];
	enum status status;
	uint64_t *counts = calloc((size_t)dataset->classes, sizeof *counts);
	if (counts == NULL)
		return FAIL(ST_MEMORY, "no memory for %d classes", dataset->classes);
	images_count_classes(&dataset->train, counts);
	pixel_sums_take(&dataset->train, &sums);
	snprintf(fingerprint[0], sizeof fingerprint[0], "%016" PRIx64, dataset->fingerprint);
	snprintf(fingerprint[1], sizeof fingerprint[1], "%016" PRIx64, images_fingerprint(&dataset->validation));
	json_write_object(&json, NULL);
	json_write_string(&json, "fingerprint", fingerprint[0]);
	json_write_string(&json, "validation_fingerprint", fingerprint[1]);
	json_write_bool(&json, "validation_sharded", dataset->validation_sharded);
	json_write_integer(&json, "train", (int64_t)dataset->train.count);
	json_write_integer(&json, "validation", (int64_t)dataset->validation.count);
	json_write_number(&json, "pixels", sums.pixels);
	json_write_array(&json, "sums");
	for (int c = 0; c < 3; c++) {
		json_write_number(&json, NULL, sums.sum[c]);
		json_write_number(&json, NULL, sums.squares[c]);
	}
	json_write_end(&json);
	json_write_array(&json, "classes");
	for (int k = 0; k < dataset->classes; k++)
		json_write_integer(&json, NULL, (int64_t)counts[k]);
	json_write_end(&json);
	status = json_write_end_all(&json);
	free(counts);
	return status;
}

/* The numbers of a list, added to sums[0..count). */
static enum status numbers_add(const struct json *list, double *sums, size_t count)
{
	if (json_count(list) != count)
		return FAIL(ST_DEVICE, "what a host told about its data has %zu numbers in place of %zu", json_count(list), count);
	for (const struct json *item = json_first(list); item != NULL; item = json_next(item), sums++) {
		if (json_kind(item) != JSON_NUMBER || !(json_number(item) >= 0))
			return FAIL(ST_DEVICE, "what a host told about its data is not a number from 0 on");
		*sums += json_number(item);
	}
	return ST_OK;
}

static enum status same_check(const struct tellings *tellings, const struct resource *resource, const char *fingerprint, const char *what)
{
	const struct json *first, *other;
	HEAR(first, tellings->hosts[0], fingerprint, JSON_STRING);
	for (int host = 1; host < tellings->count; host++) {
		HEAR(other, tellings->hosts[host], fingerprint, JSON_STRING);
		if (strcmp(json_string(first), json_string(other)) != 0)
			return FAIL(ST_DATA, "hosts %s and %s hold different %s images; with S3DistributionType FullyReplicated all must hold the same, and parts of "
				"a data set need ShardedByS3Key", resource->hosts[0], resource->hosts[host], what);
	}
	return ST_OK;
}

static enum status classes_check(const struct tellings *tellings, const struct dataset *dataset)
{
	size_t classes = (size_t)dataset->classes;
	enum status status = ST_OK;
	double *sums = calloc(classes, sizeof *sums);
	uint64_t *counts = calloc(classes, sizeof *counts);
	if (sums == NULL || counts == NULL) {
		status = FAIL(ST_MEMORY, "no memory for %d classes", dataset->classes);
		goto done;
	}
	for (int host = 0; host < tellings->count; host++)
		TRY_DONE(numbers_add(member_of(tellings->hosts[host], "classes", JSON_ARRAY), sums, classes));
	for (size_t k = 0; k < classes; k++)
		counts[k] = (uint64_t)(sums[k] < COUNT_MOST ? sums[k] : COUNT_MOST);
	status = dataset_check_classes(dataset, counts, " on any host");
done:
	free(sums);
	free(counts);
	return status;
}

/* Adds what a host told. */
static enum status host_join(const struct json *json, bool before, struct shards *shards, struct pixel_sums *sums)
{
	const struct json *fingerprint;
	double pixels, train, numbers[6] = {0};
	HEAR(fingerprint, json, "fingerprint", JSON_STRING);
	TRY(hear_count(json, "train", COUNT_MOST, &train));
	TRY(hear_count(json, "pixels", COUNT_MOST, &pixels));
	TRY(numbers_add(member_of(json, "sums", JSON_ARRAY), numbers, 6));
	sums->pixels += pixels;
	for (int c = 0; c < 3; c++) {
		sums->sum[c] += numbers[2 * c];
		sums->squares[c] += numbers[2 * c + 1];
	}
	shards->images_before += before ? (uint64_t)train : 0;
	shards->fingerprint = (shards->fingerprint << 7 | shards->fingerprint >> 57) ^ strtoull(json_string(fingerprint), NULL, 16); /* their order counts */
	return ST_OK;
}

static enum status images_join(const struct tellings *tellings, const struct resource *resource, const struct dataset *dataset, struct shards *shards)
{
	struct pixel_sums sums = {0};
	for (int host = 0; host < tellings->count; host++) {
		const struct json *json = tellings->hosts[host];
		double train, validation;
		TRY(hear_count(json, "train", COUNT_MOST, &train));
		TRY(hear_count(json, "validation", COUNT_MOST, &validation));
		shards->images[host] = (uint64_t)train;
		shards->validation_images[host] = (uint64_t)validation;
		if (host == 0 || shards->sharded)
			TRY(host_join(json, shards->sharded && host < resource->rank, shards, &sums));
	}
	shards->normalization = normalization_of(&sums);
	if (shards->sharded && !shards->validation_sharded)
		TRY(same_check(tellings, resource, "validation_fingerprint", "validation"));
	if (!shards->sharded)
		return same_check(tellings, resource, "fingerprint", "training or validation");
	return classes_check(tellings, dataset);
}

enum status shards_join(struct control *control, const struct resource *resource, const struct dataset *dataset, struct shards *shards)
{
	enum status status = ST_OK;
	struct tellings *tellings = NULL;
	struct text own = {0};
	bool several = resource->hosts_count > 1;
	struct shards made = {.sharded = dataset->sharded && several, .validation_sharded = dataset->validation_sharded && several};
	made.images = calloc((size_t)resource->hosts_count, sizeof *made.images);
	made.validation_images = calloc((size_t)resource->hosts_count, sizeof *made.validation_images);
	if (made.images == NULL || made.validation_images == NULL) {
		status = FAIL(ST_MEMORY, "no memory for the shares of %d hosts", resource->hosts_count);
		goto done;
	}
	TRY_DONE(data_tell(dataset, &own));
	TRY_DONE(tellings_gather(control, resource, &own, &tellings));
	TRY_DONE(images_join(tellings, resource, dataset, &made));
	*shards = made;
	made = (struct shards){0};
done:
	shards_free(&made);
	tellings_free(tellings);
	text_free(&own);
	return status;
}

void shards_free(struct shards *shards)
{
	free(shards->images);
	free(shards->validation_images);
	*shards = (struct shards){0};
}
