/* pth_storage.c: see pth_storage.h. */
#include "core/format/pth_storage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status storage_class_parse(const char *file, const struct pickle_node *class, struct storage_id *id)
{
	/* Very old files name the class of the device. */
	bool torch = pickle_string_is(pickle_global_module(class), "torch") || pickle_string_is(pickle_global_module(class), "torch.cuda");
	for (int dtype = 0; dtype < DTYPE_COUNT && torch; dtype++) {
		const char *storage = dtype_torch_storage((enum dtype)dtype);
		if (storage != NULL && pickle_string_is(pickle_global_name(class), storage)) {
			id->dtype = (enum dtype)dtype;
			return ST_OK;
		}
	}
	if (pickle_is_global(class, "torch.storage", "UntypedStorage")) {
		id->dtype = DTYPE_U8;
		id->untyped = true;
		return ST_OK;
	}
	char text[128];
	pickle_describe(class, text, sizeof text);
	return FAIL(ST_DATA, "%s: it holds a storage of the class %s, whose elements cannot be read here", file, text);
}

enum status storage_id_parse(const char *file, const struct pickle_node *persistent, struct storage_id *id)
{
	const struct pickle_node *tuple = pickle_persistent_id(persistent);
	if (pickle_string_is(pickle_item(tuple, 0), "module"))
		return FAIL(ST_DATA, "%s: it holds a whole pickled module with its source code; save model.state_dict() instead", file);
	struct storage_id parsed = {0};
	if (pickle_kind(tuple) != PICKLE_TUPLE || pickle_count(tuple) < 5 || pickle_count(tuple) > 6 || !pickle_string_is(pickle_item(tuple, 0), "storage") ||
		!pickle_string(pickle_item(tuple, 2), &parsed.key, &parsed.key_count) || !pickle_int(pickle_item(tuple, 4), &parsed.numel) || parsed.numel < 0)
		return FAIL(ST_DATA, "%s: a tensor's storage is not described as torch.save does it", file);
	TRY(storage_class_parse(file, pickle_item(tuple, 1), &parsed));
	parsed.view_numel = parsed.numel;
	const struct pickle_node *view = pickle_item(tuple, 5);
	if (pickle_kind(view) == PICKLE_TUPLE) {
		if (!pickle_int(pickle_item(view, 1), &parsed.view_offset) || !pickle_int(pickle_item(view, 2), &parsed.view_numel) || parsed.view_offset < 0 ||
			parsed.view_numel < 0 || parsed.view_offset > parsed.numel || parsed.view_numel > parsed.numel - parsed.view_offset)
			return FAIL(ST_DATA, "%s: a part of a storage reaches past its end", file);
	}
	*id = parsed;
	return ST_OK;
}

static int compare_keys(const uint8_t *a, size_t a_count, const uint8_t *b, size_t b_count)
{
	size_t shorter = a_count < b_count ? a_count : b_count;
	int order = shorter > 0 ? memcmp(a, b, shorter) : 0;
	return order != 0 ? order : (a_count > b_count) - (a_count < b_count);
}

static int compare_ids(const void *a, const void *b)
{
	const struct storage_id *x = a, *y = b;
	return compare_keys(x->key, x->key_count, y->key, y->key_count);
}

static int compare_storages(const void *a, const void *b)
{
	const struct legacy_storage *x = a, *y = b;
	return compare_keys(x->key, x->key_count, y->key, y->key_count);
}

/* All storages that the object names, by key. */
static enum status ids_collect(const char *file, const struct pickle *object, struct storage_id **ids, size_t *ids_count)
{
	size_t count = 0;
	while (pickle_persistent(object, count) != NULL)
		count++;
	struct storage_id *all = calloc(count + 1, sizeof *all);
	if (all == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for %zu storages", file, count);
	for (size_t i = 0; i < count; i++) {
		enum status status = storage_id_parse(file, pickle_persistent(object, i), &all[i]);
		if (status != ST_OK) {
			free(all);
			return status;
		}
	}
	qsort(all, count, sizeof *all, compare_ids);
	*ids = all;
	*ids_count = count;
	return ST_OK;
}

/* One storage of the tail: i64 element count, then the elements. */
static enum status legacy_take(const char *file, const uint8_t *bytes, size_t count, size_t *at, const struct storage_id *id, struct legacy_storage *storage)
{
	int64_t numel, bytes_wanted;
	if (sizeof numel > count - *at)
		return FAIL(ST_DATA, "%s: cut short at byte %zu, before the elements of storage %.*s", file, *at, (int)id->key_count, (const char *)id->key);
	memcpy(&numel, bytes + *at, sizeof numel);
	*at += sizeof numel;
	if (numel != id->numel || __builtin_mul_overflow(numel, (int64_t)dtype_bytes(id->dtype), &bytes_wanted))
		return FAIL(ST_DATA, "%s: storage %.*s has %lld elements, its tensors expect %lld", file, (int)id->key_count, (const char *)id->key, (long long)numel,
			(long long)id->numel);
	if ((uint64_t)bytes_wanted > count - *at)
		return FAIL(ST_DATA, "%s: cut short: storage %.*s needs %lld bytes, %zu are left", file, (int)id->key_count, (const char *)id->key,
			(long long)bytes_wanted, count - *at);
	*storage = (struct legacy_storage){.key = id->key, .key_count = id->key_count, .data = bytes + *at, .numel = numel, .dtype = id->dtype};
	*at += (size_t)bytes_wanted;
	return ST_OK;
}

enum status storages_read_legacy(const char *file, const uint8_t *bytes, size_t count, size_t at, const struct pickle *object, struct storages *storages)
{
	enum status status = ST_OK;
	struct pickle *list = NULL;
	struct storage_id *ids = NULL;
	struct legacy_storage *legacy = NULL;
	size_t ids_count = 0, used = 0;
	TRY(pickle_parse(file, bytes + at, count - at, &list, &used));
	const struct pickle_node *keys = pickle_root(list);
	at += used;
	size_t keys_count = pickle_count(keys);
	TRY_DONE(ids_collect(file, object, &ids, &ids_count));
	legacy = calloc(keys_count + 1, sizeof *legacy);
	if (legacy == NULL) {
		status = FAIL(ST_MEMORY, "%s: no memory for %zu storages", file, keys_count);
		goto done;
	}
	for (size_t i = 0; i < keys_count; i++) {
		struct storage_id wanted = {0};
		const struct storage_id *id = NULL;
		if (pickle_string(pickle_item(keys, i), &wanted.key, &wanted.key_count))
			id = bsearch(&wanted, ids, ids_count, sizeof *ids, compare_ids);
		if (id == NULL) {
			status = FAIL(ST_DATA, "%s: its list of storages names one that no tensor uses", file);
			goto done;
		}
		TRY_DONE(legacy_take(file, bytes, count, &at, id, &legacy[i]));
	}
	qsort(legacy, keys_count, sizeof *legacy, compare_storages);
	for (size_t i = 1; i < keys_count; i++) {
		if (compare_storages(&legacy[i - 1], &legacy[i]) == 0) {
			status = FAIL(ST_DATA, "%s: its list of storages names one twice", file);
			goto done;
		}
	}
	storages->legacy = legacy;
	storages->legacy_count = keys_count;
	legacy = NULL;
done:
	free(legacy);
	free(ids);
	pickle_free(list);
	return status;
}

enum status storages_find(struct storages *storages, const struct storage_id *id, const uint8_t **data)
{
	int64_t bytes_wanted;
	if (__builtin_mul_overflow(id->numel, (int64_t)dtype_bytes(id->dtype), &bytes_wanted))
		return FAIL(ST_DATA, "%s: a storage of %lld elements cannot be", storages->file, (long long)id->numel);
	int shown = (int)(id->key_count < 64 ? id->key_count : 64);
	if (storages->legacy != NULL) {
		struct legacy_storage wanted = {.key = id->key, .key_count = id->key_count};
		const struct legacy_storage *found = bsearch(&wanted, storages->legacy, storages->legacy_count, sizeof wanted, compare_storages);
		if (found == NULL || found->numel != id->numel || found->dtype != id->dtype)
			return FAIL(ST_DATA, "%s: storage %.*s is not in the file as its tensor describes it", storages->file, shown, (const char *)id->key);
		*data = found->data;
		return ST_OK;
	}
	char name[512];
	int length = snprintf(name, sizeof name, "%s/data/%.*s", storages->prefix, shown, (const char *)id->key);
	struct zip_record *record = length < (int)sizeof name && shown == (int)id->key_count ? zip_find(&storages->zip, name) : NULL;
	if (record == NULL)
		return FAIL(ST_DATA, "%s: the record data/%.*s that a tensor needs is missing", storages->file, shown, (const char *)id->key);
	if (record->count < (uint64_t)bytes_wanted)
		return FAIL(ST_DATA, "%s: the record %s has %zu bytes, its tensor needs %lld", storages->file, name, record->count, (long long)bytes_wanted);
	TRY(zip_check(&storages->zip, record));
	*data = record->data;
	return ST_OK;
}

void storages_free(struct storages *storages)
{
	zip_close(&storages->zip);
	free(storages->legacy);
	*storages = (struct storages){0};
}
