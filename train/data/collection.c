/* collection.c: see collection.h. */
#include "train/data/collection.h"

#include "core/model/resnet.h"

#include <stdlib.h>
#include <string.h>

enum { IMAGES_FIRST = 1024 };

const char *collection_kind_text(enum collection_kind kind)
{
	static const char *const texts[] = {
#define X(kind, text) text,
		COLLECTION_KIND_LIST(X)
#undef X
	};
	return texts[kind];
}

static size_t image_bytes(const struct collection *collection)
{
	return 3 * (size_t)collection->size * (size_t)collection->size;
}

void collection_open(struct collection *collection, int size, bool (*stopped)(void))
{
	*collection = (struct collection){.size = size, .stopped = stopped};
}

void image_list_free(struct image_list *list)
{
	for (size_t i = 0; i < list->pieces_count; i++)
		free(list->pieces[i].name);
	free(list->pieces);
	free(list->pixels);
	free(list->labels);
	*list = (struct image_list){0};
}

void collection_free(struct collection *collection)
{
	for (int set = 0; set < SETS; set++)
		image_list_free(&collection->sets[set]);
	cifar_names_free(&collection->folders);
	cifar_names_free(&collection->names);
}

enum status collection_kind_set(struct collection *collection, enum collection_kind kind, const char *name)
{
	if (collection->kind != COLLECTION_EMPTY && collection->kind != kind)
		return FAIL(ST_DATA, "%s: %s, but what came before it is %s; a channel holds one data set", name, collection_kind_text(kind),
			collection_kind_text(collection->kind));
	collection->kind = kind;
	return ST_OK;
}

enum status collection_class(struct collection *collection, const char *folder, size_t length, const char *name, unsigned *label)
{
	const struct cifar_names *names = &collection->folders;
	for (size_t k = 0; k < names->count; k++) {
		size_t i = (collection->last_class + k) % names->count;
		if (strlen(names->all[i]) == length && memcmp(names->all[i], folder, length) == 0) {
			collection->last_class = i;
			*label = (unsigned)i;
			return ST_OK;
		}
	}
	if (names->count == RESNET_CLASSES_MAX)
		return FAIL(ST_DATA, "%s: more than %d classes", name, RESNET_CLASSES_MAX);
	TRY(cifar_names_add(&collection->folders, folder, length, name));
	collection->last_class = names->count - 1;
	*label = (unsigned)collection->last_class;
	return ST_OK;
}

static enum status fail_memory(const struct image_list *list)
{
	return FAIL(ST_MEMORY, "no memory for more than %zu images", list->count);
}

enum status collection_piece(struct collection *collection, enum set set, const char *name)
{
	struct image_list *list = &collection->sets[set];
	if (list->pieces_count > 0 && strcmp(list->pieces[list->pieces_count - 1].name, name) == 0)
		return ST_OK;
	if (list->pieces_count == list->pieces_capacity) {
		size_t capacity = list->pieces_capacity == 0 ? 16 : 2 * list->pieces_capacity;
		struct piece *larger = realloc(list->pieces, capacity * sizeof *larger);
		if (larger == NULL)
			return fail_memory(list);
		list->pieces = larger;
		list->pieces_capacity = capacity;
	}
	char *copy = strdup(name);
	if (copy == NULL)
		return fail_memory(list);
	list->pieces[list->pieces_count++] = (struct piece){.name = copy, .first = list->count};
	return ST_OK;
}

/* realloc of a large array moves pages, not bytes, and pages that were never written take no memory: so room may be ample. */
static enum status list_resize(struct image_list *list, size_t capacity, size_t bytes_one)
{
	size_t bytes;
	if (__builtin_mul_overflow(capacity, bytes_one, &bytes))
		return fail_memory(list);
	uint8_t *pixels = realloc(list->pixels, bytes);
	if (pixels == NULL)
		return fail_memory(list);
	list->pixels = pixels;
	uint16_t *labels = realloc(list->labels, capacity * sizeof *labels);
	if (labels == NULL)
		return fail_memory(list);
	list->labels = labels;
	list->capacity = capacity;
	return ST_OK;
}

enum status collection_add(struct collection *collection, enum set set, unsigned label, uint8_t **pixels)
{
	struct image_list *list = &collection->sets[set];
	MUST(label < RESNET_CLASSES_MAX);
	if (list->count == list->capacity)
		TRY(list_resize(list, list->capacity == 0 ? IMAGES_FIRST : list->capacity + list->capacity / 2, image_bytes(collection)));
	*pixels = list->pixels + list->count * image_bytes(collection);
	list->labels[list->count++] = (uint16_t)label;
	return ST_OK;
}

/* --- order ----------------------------------------------------------------------------------------------------------- */

struct sorted_piece {
	const char *name;
	size_t first, count;
};

static int compare_pieces(const void *a, const void *b)
{
	const struct sorted_piece *x = a, *y = b;
	int order = strcmp(x->name, y->name);
	return order != 0 ? order : (x->first > y->first) - (x->first < y->first);
}

/* Puts image from[i] at place i, for all i, with the memory of one image more: each cycle of the permutation is walked once. */
static void list_permute(struct image_list *list, size_t *from, size_t bytes_one, uint8_t *spare)
{
	for (size_t start = 0; start < list->count; start++) {
		if (from[start] == start)
			continue;
		memcpy(spare, list->pixels + start * bytes_one, bytes_one);
		uint16_t spare_label = list->labels[start];
		size_t to = start;
		while (from[to] != start) {
			size_t source = from[to];
			memcpy(list->pixels + to * bytes_one, list->pixels + source * bytes_one, bytes_one);
			list->labels[to] = list->labels[source];
			from[to] = to;
			to = source;
		}
		memcpy(list->pixels + to * bytes_one, spare, bytes_one);
		list->labels[to] = spare_label;
		from[to] = to;
	}
}

static enum status list_sort(struct image_list *list, size_t bytes_one)
{
	enum status status = ST_OK;
	bool sorted = true;
	for (size_t i = 1; sorted && i < list->pieces_count; i++)
		sorted = strcmp(list->pieces[i - 1].name, list->pieces[i].name) <= 0;
	if (sorted)
		return ST_OK;
	struct sorted_piece *pieces = malloc(list->pieces_count * sizeof *pieces);
	size_t *from = malloc((list->count + 1) * sizeof *from);
	uint8_t *spare = malloc(bytes_one);
	if (pieces == NULL || from == NULL || spare == NULL) {
		status = fail_memory(list);
		goto done;
	}
	for (size_t i = 0; i < list->pieces_count; i++) {
		size_t end = i + 1 < list->pieces_count ? list->pieces[i + 1].first : list->count;
		pieces[i] = (struct sorted_piece){.name = list->pieces[i].name, .first = list->pieces[i].first, .count = end - list->pieces[i].first};
	}
	qsort(pieces, list->pieces_count, sizeof *pieces, compare_pieces);
	size_t n = 0;
	for (size_t i = 0; i < list->pieces_count; i++)
		for (size_t k = 0; k < pieces[i].count; k++)
			from[n++] = pieces[i].first + k;
	MUST(n == list->count);
	list_permute(list, from, bytes_one, spare);
done:
	free(spare);
	free(from);
	free(pieces);
	return status;
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Class k of the sorted names gets label k. */
static enum status classes_sort(struct collection *collection)
{
	struct cifar_names *names = &collection->folders;
	if (names->count == 0)
		return ST_OK;
	char **before = malloc(names->count * sizeof *before);
	if (before == NULL)
		return FAIL(ST_MEMORY, "no memory to sort %zu class names", names->count);
	memcpy(before, names->all, names->count * sizeof *before);
	qsort(names->all, names->count, sizeof *names->all, compare_strings);
	for (int set = 0; set < SETS; set++) {
		struct image_list *list = &collection->sets[set];
		for (size_t i = 0; i < list->count; i++) {
			char **place = bsearch(&before[list->labels[i]], names->all, names->count, sizeof *names->all, compare_strings);
			list->labels[i] = (uint16_t)(place - names->all);
		}
	}
	free(before);
	return ST_OK;
}

enum status collection_finish(struct collection *collection)
{
	for (int set = 0; set < SETS; set++) {
		struct image_list *list = &collection->sets[set];
		TRY(list_sort(list, image_bytes(collection)));
		if (list->count > 0)
			TRY(list_resize(list, list->count, image_bytes(collection)));
	}
	return collection->kind == COLLECTION_FOLDERS ? classes_sort(collection) : ST_OK;
}
