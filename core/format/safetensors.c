/* safetensors.c: see safetensors.h. */
#include "core/format/safetensors.h"

#include "core/base/json.h"
#include "core/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METADATA_NAME "__metadata__"
#define WHOLE_NUMBER_MAX 9007199254740992.0 /* 2^53: above it a JSON number need not be exact */

static uint64_t header_bytes(const uint8_t *bytes)
{
	uint64_t count = 0;
	for (int i = 8; i-- > 0;)
		count = count << 8 | bytes[i];
	return count;
}

bool safetensors_sniff(const uint8_t *bytes, size_t count)
{
	return count >= 9 && header_bytes(bytes) <= 100000000 && bytes[8] == '{';
}

/* --- reading --- */

static bool whole_number(const struct json *json, int64_t *value)
{
	if (json == NULL || json_kind(json) != JSON_NUMBER)
		return false;
	double number = json_number(json);
	if (!(number >= 0 && number <= WHOLE_NUMBER_MAX) || (double)(int64_t)number != number)
		return false;
	*value = (int64_t)number;
	return true;
}

static bool dtype_from_word(const struct json *json, enum dtype *dtype)
{
	for (int i = 0; i < DTYPE_COUNT; i++) {
		if (strcmp(json_string(json), dtype_word((enum dtype)i)) == 0) {
			*dtype = (enum dtype)i;
			return true;
		}
	}
	return false;
}

/* One member of the header; the data it speaks of is bytes[count]. */
static enum status entry_read(const char *file, const struct json *entry, const uint8_t *bytes, size_t count, struct tensor_view *view)
{
	const char *name = json_name(entry);
	const struct json *dtype = json_member(entry, "dtype"), *shape = json_member(entry, "shape"), *offsets = json_member(entry, "data_offsets");
	if (json_kind(entry) != JSON_OBJECT || json_count(entry) != 3 || dtype == NULL || json_kind(dtype) != JSON_STRING || shape == NULL ||
		json_kind(shape) != JSON_ARRAY || offsets == NULL || json_kind(offsets) != JSON_ARRAY || json_count(offsets) != 2)
		return FAIL(ST_DATA, "%s: tensor \"%s\" is not described by dtype, shape and data_offsets", file, name);
	enum dtype type;
	if (!dtype_from_word(dtype, &type))
		return FAIL(ST_DATA, "%s: tensor \"%s\" has elements of type %s, which cannot be read here", file, name, json_string(dtype));
	if (json_count(shape) > TENSOR_RANK_MAX)
		return FAIL(ST_DATA, "%s: tensor \"%s\" has %zu dimensions, at most %d are read", file, name, json_count(shape), TENSOR_RANK_MAX);
	int64_t sizes[TENSOR_RANK_MAX] = {0}, begin, end, elements;
	int rank = 0;
	for (const struct json *size = json_first(shape); size != NULL; size = json_next(size))
		if (!whole_number(size, &sizes[rank++]))
			return FAIL(ST_DATA, "%s: tensor \"%s\": a dimension is negative or no whole number", file, name);
	if (!whole_number(json_first(offsets), &begin) || !whole_number(json_next(json_first(offsets)), &end) || begin > end || (uint64_t)end > count)
		return FAIL(ST_DATA, "%s: tensor \"%s\" is not inside the file's %zu bytes of data", file, name, count);
	struct tensor_view found = {.dtype = type, .rank = rank};
	memcpy(found.shape, sizes, sizeof sizes);
	if (!tensor_count(&found, &elements) || elements * (int64_t)dtype_bytes(type) != end - begin) {
		char text[200];
		tensor_shape_text(rank, sizes, text, sizeof text);
		return FAIL(ST_DATA, "%s: tensor \"%s\" of shape %s and type %s has %lld bytes", file, name, text, dtype_word(type), (long long)(end - begin));
	}
	*view = tensor_view_make(name, type, rank, sizes, bytes + begin);
	return ST_OK;
}

static enum status metadata_check(const char *file, const struct json *metadata)
{
	if (json_kind(metadata) != JSON_OBJECT)
		return FAIL(ST_DATA, "%s: " METADATA_NAME " is %s, expected an object", file, json_kind_text(json_kind(metadata)));
	for (const struct json *member = json_first(metadata); member != NULL; member = json_next(member))
		if (json_kind(member) != JSON_STRING)
			return FAIL(ST_DATA, "%s: " METADATA_NAME ": \"%s\" is %s, expected text", file, json_name(member), json_kind_text(json_kind(member)));
	return ST_OK;
}

static int64_t view_bytes(const struct tensor_view *view)
{
	int64_t count;
	MUST(tensor_count(view, &count));
	return count * (int64_t)dtype_bytes(view->dtype);
}

static int compare_places(const void *a, const void *b)
{
	const struct tensor_view *x = a, *y = b;
	if (x->data != y->data)
		return (x->data > y->data) - (x->data < y->data);
	return (view_bytes(x) > view_bytes(y)) - (view_bytes(x) < view_bytes(y)); /* empty ones first */
}

/* No holes, no overlaps, nothing after the last. */
static enum status places_check(const char *file, const struct tensor_list *list, const uint8_t *data, size_t count)
{
	const uint8_t *end = data;
	for (size_t i = 0; i < list->count; i++) {
		if (list->views[i].data != end)
			return FAIL(ST_DATA, "%s: tensor \"%s\" starts at byte %td of the data, expected %td: tensors overlap or leave holes", file, list->views[i].name,
				list->views[i].data - data, end - data);
		end += view_bytes(&list->views[i]);
	}
	if ((size_t)(end - data) != count)
		return FAIL(ST_DATA, "%s: %zu bytes of data, its tensors have %td", file, count, end - data);
	return ST_OK;
}

enum status safetensors_read(const char *file, const uint8_t *bytes, size_t count, struct tensor_list *list)
{
	if (count < 8 || header_bytes(bytes) > count - 8)
		return FAIL(ST_DATA, "%s: cut short or no safetensors file: %zu bytes cannot hold the header that it declares", file, count);
	uint64_t header_count = header_bytes(bytes);
	if (header_count > SAFETENSORS_HEADER_BYTES_MAX)
		return FAIL(ST_DATA, "%s: a header of %llu bytes, at most %d are read", file, (unsigned long long)header_count, SAFETENSORS_HEADER_BYTES_MAX);
	const uint8_t *data = bytes + 8 + header_count;
	size_t data_count = count - 8 - (size_t)header_count;
	struct json *header;
	TRY(json_parse(file, bytes + 8, (size_t)header_count, &header));
	enum status status = ST_OK;
	if (json_kind(header) != JSON_OBJECT || bytes[8] != '{') {
		status = FAIL(ST_DATA, "%s: its header is %s, expected an object", file, json_kind_text(json_kind(header)));
		goto done;
	}
	for (const struct json *entry = json_first(header); entry != NULL; entry = json_next(entry)) {
		if (strcmp(json_name(entry), METADATA_NAME) == 0) {
			TRY_DONE(metadata_check(file, entry));
			continue;
		}
		struct tensor_view view;
		TRY_DONE(entry_read(file, entry, data, data_count, &view));
		TRY_DONE(tensor_list_add(list, file, json_name(entry), strlen(json_name(entry)), view));
	}
	if (list->count > 0)
		qsort(list->views, list->count, sizeof *list->views, compare_places);
	TRY_DONE(places_check(file, list, data, data_count));
	TRY_DONE(tensor_list_check_names(list, file));
done:
	json_free(header);
	return status;
}

/* --- writing --- */

static int compare_for_file(const void *a, const void *b)
{
	const struct tensor_view *x = *(const struct tensor_view *const *)a, *y = *(const struct tensor_view *const *)b;
	size_t x_bytes = dtype_bytes(x->dtype), y_bytes = dtype_bytes(y->dtype);
	return x_bytes != y_bytes ? (x_bytes < y_bytes) - (x_bytes > y_bytes) : strcmp(x->name, y->name);
}

static enum status header_write(struct text *text, const struct tensor_view *const *views, size_t count, const struct safetensors_metadata *metadata,
	size_t metadata_count)
{
	struct json_writer json = {.text = text};
	int64_t begin = 0;
	json_write_object(&json, NULL);
	if (metadata_count > 0) {
		json_write_object(&json, METADATA_NAME);
		for (size_t i = 0; i < metadata_count; i++)
			json_write_string(&json, metadata[i].key, metadata[i].value);
		json_write_end(&json);
	}
	for (size_t i = 0; i < count; i++) {
		const struct tensor_view *view = views[i];
		json_write_object(&json, view->name);
		json_write_string(&json, "dtype", dtype_word(view->dtype));
		json_write_array(&json, "shape");
		for (int k = 0; k < view->rank; k++)
			json_write_integer(&json, NULL, view->shape[k]);
		json_write_end(&json);
		json_write_array(&json, "data_offsets");
		json_write_integer(&json, NULL, begin);
		begin += view_bytes(view);
		json_write_integer(&json, NULL, begin);
		json_write_end(&json);
		json_write_end(&json);
	}
	TRY(json_write_end_all(&json));
	while (text->length % 8 != 0)
		TRY(text_add(text, " "));
	return ST_OK;
}

enum status safetensors_write(struct file_writer *writer, const struct tensor_view *views, size_t count, const struct safetensors_metadata *metadata,
	size_t metadata_count)
{
	enum status status = ST_OK;
	struct text header = {0};
	const struct tensor_view **sorted = malloc((count + 1) * sizeof *sorted);
	if (sorted == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for its header", writer->path);
	for (size_t i = 0; i < count; i++) {
		MUST(tensor_is_contiguous(&views[i]));
		sorted[i] = &views[i];
	}
	qsort(sorted, count, sizeof *sorted, compare_for_file);
	TRY_DONE(header_write(&header, sorted, count, metadata, metadata_count));
	uint8_t length[8];
	for (int i = 0; i < 8; i++)
		length[i] = (uint8_t)((uint64_t)header.length >> 8 * i);
	TRY_DONE(file_append(writer, length, sizeof length));
	TRY_DONE(file_append(writer, header.data, header.length));
	for (size_t i = 0; i < count; i++)
		TRY_DONE(file_append(writer, sorted[i]->data, (size_t)view_bytes(sorted[i])));
done:
	free(sorted);
	text_free(&header);
	return status;
}
