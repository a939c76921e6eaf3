/* pth.c: see pth.h.
 *
 * A zip: records P/data.pkl (the object), P/data/KEY (a storage's bytes), P/version, P/byteorder, all in one directory P.
 * Legacy: pickles of a magic number, the version 1001, a dict about the machine, the object, a list of keys; then for each key an int64
 * count and that many elements.
 * In the object a tensor is _rebuild_tensor_v2(storage, offset, size, stride, …), offset and stride in elements, and a storage a
 * persistent id, see pth_storage.h. (PyTorch: torch/serialization.py, torch/_utils.py.) */
#include "core/format/pth.h"

#include "core/format/pth_storage.h"

#include <stdio.h>
#include <string.h>

/* The pickled number that opens a legacy file. */
static const uint8_t legacy_magic[] = {0x80, 0x02, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E};
enum { LEGACY_VERSION = 1001, ZIP_VERSION_MAX = 10 };

bool pth_is_zip(const uint8_t *bytes, size_t count)
{
	return count >= 4 && memcmp(bytes, "PK\3\4", 4) == 0;
}

bool pth_is_legacy(const uint8_t *bytes, size_t count)
{
	return count >= sizeof legacy_magic && memcmp(bytes, legacy_magic, sizeof legacy_magic) == 0;
}

/* --- tensors --- */

/* What pickles stand for in a state dict. */
static bool is_rebuilt(const struct pickle_node *node)
{
	const uint8_t *name;
	size_t count;
	return pickle_string_is(pickle_global_module(pickle_callable(node)), "torch._utils") &&
		pickle_string(pickle_global_name(pickle_callable(node)), &name, &count) && count >= 9 && memcmp(name, "_rebuild_", 9) == 0;
}

static bool calls_utils(const struct pickle_node *node, const char *name)
{
	return pickle_calls(node, "torch._utils", name);
}

/* _rebuild_tensor_v3 names its element type: torch.float32 … */
static enum status dtype_parse(const char *file, const struct pickle_node *node, enum dtype *dtype)
{
	for (int i = 0; i < DTYPE_COUNT; i++) {
		if (pickle_is_global(node, "torch", dtype_torch_word((enum dtype)i))) {
			*dtype = (enum dtype)i;
			return ST_OK;
		}
	}
	char text[128];
	pickle_describe(node, text, sizeof text);
	return FAIL(ST_DATA, "%s: a tensor has elements of type %s, which cannot be read here", file, text);
}

/* Puts size and stride tuples into the view; the shape's bytes are known to fit in 63 bits after that. */
static enum status shape_parse(const char *file, const struct pickle_node *size, const struct pickle_node *stride, struct tensor_view *view)
{
	int64_t count;
	size_t rank = pickle_count(size);
	if (pickle_kind(size) != PICKLE_TUPLE || pickle_kind(stride) != PICKLE_TUPLE || pickle_count(stride) != rank || rank > TENSOR_RANK_MAX)
		return FAIL(ST_DATA, "%s: a tensor's shape is not described as torch.save does it, or has more than %d dimensions", file, TENSOR_RANK_MAX);
	view->rank = (int)rank;
	for (size_t k = 0; k < rank; k++)
		if (!pickle_int(pickle_item(size, k), &view->shape[k]) || !pickle_int(pickle_item(stride, k), &view->stride[k]) || view->shape[k] < 0 ||
			view->stride[k] < 0)
			return FAIL(ST_DATA, "%s: a tensor's size or stride is negative or no whole number", file);
	if (!tensor_count(view, &count))
		return FAIL(ST_DATA, "%s: a tensor has more elements than can be", file);
	return ST_OK;
}

/* True if every element lies within `elements` from `offset` on. Strides that are never taken become 0. */
static bool fits(struct tensor_view *view, int64_t offset, int64_t elements)
{
	int64_t last = offset, step;
	for (int k = 0; k < view->rank; k++) {
		if (view->shape[k] == 0)
			return offset <= elements;
		if (view->shape[k] == 1)
			view->stride[k] = 0;
		if (__builtin_mul_overflow(view->shape[k] - 1, view->stride[k], &step) || __builtin_add_overflow(last, step, &last))
			return false;
	}
	return last < elements;
}

static enum status tensor_parse(struct storages *storages, const struct pickle_node *node, struct tensor_view *view)
{
	const char *file = storages->file;
	/* A parameter is a call around its tensor. */
	for (int depth = 0; depth < 4 && (calls_utils(node, "_rebuild_parameter") || calls_utils(node, "_rebuild_parameter_with_state")); depth++)
		node = pickle_item(pickle_arguments(node), 0);
	bool v3 = calls_utils(node, "_rebuild_tensor_v3");
	if (!v3 && !calls_utils(node, "_rebuild_tensor_v2") && !calls_utils(node, "_rebuild_tensor")) {
		char text[128];
		pickle_describe(node, text, sizeof text);
		return FAIL(ST_DATA, "%s: %s is no dense tensor; only those can be read here", file, text);
	}
	const struct pickle_node *arguments = pickle_arguments(node);
	struct storage_id id = {0};
	TRY(storage_id_parse(file, pickle_item(arguments, 0), &id));
	struct tensor_view found = {.dtype = id.dtype};
	int64_t elements = id.view_numel, offset = 0;
	if (v3) {
		TRY(dtype_parse(file, pickle_item(arguments, 6), &found.dtype));
		if (id.untyped)
			elements /= (int64_t)dtype_bytes(found.dtype);
	}
	if ((!id.untyped || !v3) && found.dtype != id.dtype)
		return FAIL(ST_DATA, "%s: a tensor has another element type than its storage", file);
	if (!pickle_int(pickle_item(arguments, 1), &offset) || offset < 0)
		return FAIL(ST_DATA, "%s: a tensor's place in its storage is negative or no whole number", file);
	TRY(shape_parse(file, pickle_item(arguments, 2), pickle_item(arguments, 3), &found));
	if (!fits(&found, offset, elements)) {
		char shape[200];
		tensor_shape_text(found.rank, found.shape, shape, sizeof shape);
		return FAIL(ST_DATA, "%s: a tensor of shape %s reaches past its storage of %lld elements", file, shape, (long long)elements);
	}
	TRY(storages_find(storages, &id, &found.data));
	found.data += (size_t)(id.view_offset + offset) * dtype_bytes(found.dtype);
	*view = found;
	return ST_OK;
}

/* --- the state dict --- */

static bool has_tensor(const struct pickle_node *dict)
{
	for (size_t i = 0; i < pickle_count(dict); i++)
		if (is_rebuilt(pickle_value(dict, i)))
			return true;
	return false;
}

static enum status state_dict_find(const char *file, const struct pickle_node *root, const struct pickle_node **dict)
{
	static const char *const keys[] = {"model_state_dict", "model", "net", "weights"};
	if (pickle_kind(root) != PICKLE_DICT) {
		char text[128];
		pickle_describe(root, text, sizeof text);
		return FAIL(ST_DATA, "%s: it holds %s, not a dict of tensors; save model.state_dict() instead", file, text);
	}
	const struct pickle_node *found = pickle_find(root, "state_dict");
	for (size_t i = 0; i < sizeof keys / sizeof *keys && pickle_kind(found) != PICKLE_DICT; i++) {
		const struct pickle_node *value = pickle_find(root, keys[i]);
		if (pickle_kind(value) == PICKLE_DICT && has_tensor(value))
			found = value;
	}
	*dict = pickle_kind(found) == PICKLE_DICT ? found : root;
	return ST_OK;
}

static enum status state_dict_read(struct storages *storages, const struct pickle_node *root, struct tensor_list *list)
{
	const struct pickle_node *dict;
	TRY(state_dict_find(storages->file, root, &dict));
	const struct pickle_node *stranger = NULL;
	for (size_t i = 0; i < pickle_count(dict); i++) {
		const struct pickle_node *value = pickle_value(dict, i);
		const uint8_t *name;
		size_t name_count;
		if (!is_rebuilt(value)) {
			if (stranger == NULL && pickle_kind(value) == PICKLE_OBJECT)
				stranger = value;
			continue;
		}
		if (!pickle_string(pickle_key(dict, i), &name, &name_count))
			return FAIL(ST_DATA, "%s: a tensor's name is %s, expected text", storages->file, pickle_kind_name(pickle_kind(pickle_key(dict, i))));
		struct tensor_view view = {0};
		enum status status = tensor_parse(storages, value, &view);
		if (status != ST_OK)
			return status_prefix(status, "tensor \"%.*s\"", (int)(name_count < 100 ? name_count : 100), (const char *)name);
		TRY(tensor_list_add(list, storages->file, name, name_count, view));
	}
	if (list->count == 0) {
		char text[128];
		pickle_describe(stranger, text, sizeof text);
		if (stranger != NULL)
			return FAIL(ST_DATA, "%s: it has no usable state dict: instead of tensors it holds %s; save model.state_dict()", storages->file, text);
		return FAIL(ST_DATA, "%s: it has no usable state dict: no tensors are in it", storages->file);
	}
	return tensor_list_check_names(list, storages->file);
}

/* --- containers --- */

/* The record P/name, checked, or NULL when it is not there. */
static enum status record_find(struct storages *storages, const char *name, struct zip_record **record)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", storages->prefix, name);
	struct zip_record *found = zip_find(&storages->zip, path);
	if (found != NULL)
		TRY(zip_check(&storages->zip, found));
	*record = found;
	return ST_OK;
}

static bool record_says(const struct zip_record *record, const char *text)
{
	return record->count == strlen(text) && memcmp(record->data, text, record->count) == 0;
}

static enum status prefix_find(struct storages *storages)
{
	const struct zip *zip = &storages->zip;
	const char *slash = memchr(zip->first_name, '/', zip->first_name_count);
	size_t length = slash == NULL ? 0 : (size_t)(slash - zip->first_name);
	if (length == 0 || length >= sizeof storages->prefix)
		return FAIL(ST_DATA, "%s: a zip file that torch.save did not write: its records are not in one directory", storages->file);
	memcpy(storages->prefix, zip->first_name, length);
	storages->prefix[length] = '\0';
	char code[sizeof storages->prefix + 8];
	int code_length = snprintf(code, sizeof code, "%s/code/", storages->prefix);
	for (size_t i = 0; i < zip->count; i++) {
		const struct zip_record *record = &zip->records[i];
		if (record->name_count <= length || memcmp(record->name, zip->first_name, length + 1) != 0)
			return FAIL(ST_DATA, "%s: a zip file that torch.save did not write: its records are not in one directory", storages->file);
		if (record->name_count >= (size_t)code_length && memcmp(record->name, code, (size_t)code_length) == 0)
			return FAIL(ST_DATA, "%s: a TorchScript archive (torch.jit.save), which holds code; save model.state_dict() with torch.save", storages->file);
	}
	return ST_OK;
}

/* The small records that say how to read the rest. */
static enum status zip_facts_check(struct storages *storages)
{
	struct zip_record *record = NULL;
	TRY(record_find(storages, "constants.pkl", &record));
	if (record != NULL)
		return FAIL(ST_DATA, "%s: a TorchScript archive (torch.jit.save), which holds code; save model.state_dict() with torch.save", storages->file);
	TRY(record_find(storages, "byteorder", &record));
	if (record != NULL && !record_says(record, "little"))
		return FAIL(ST_DATA, "%s: its numbers are big-endian; save it again on a little-endian machine", storages->file);
	TRY(record_find(storages, "version", &record));
	if (record == NULL)
		TRY(record_find(storages, ".data/version", &record));
	if (record == NULL)
		return ST_OK;
	int version = 0;
	for (size_t i = 0; i < record->count && i < 4 && record->data[i] >= '0' && record->data[i] <= '9'; i++)
		version = version * 10 + (record->data[i] - '0');
	if (version < 1 || version > ZIP_VERSION_MAX)
		return FAIL(ST_DATA, "%s: its format version is %d, 1 to %d are known", storages->file, version, ZIP_VERSION_MAX);
	return ST_OK;
}

/* Inflated storages outlive the zip: their tensors' views point into them. */
static enum status inflated_hand_over(struct zip *zip, struct tensor_list *list)
{
	for (size_t i = 0; i < zip->count; i++) {
		if (zip->records[i].inflated == NULL)
			continue;
		TRY(tensor_list_own(list, zip->records[i].inflated));
		zip->records[i].inflated = NULL;
	}
	return ST_OK;
}

static enum status read_zip(const char *file, const uint8_t *bytes, size_t count, struct tensor_list *list)
{
	enum status status = ST_OK;
	struct pickle *object = NULL;
	struct zip_record *data = NULL;
	struct storages storages = {.file = file};
	TRY(zip_open(file, bytes, count, &storages.zip));
	TRY_DONE(prefix_find(&storages));
	TRY_DONE(zip_facts_check(&storages));
	TRY_DONE(record_find(&storages, "data.pkl", &data));
	if (data == NULL) {
		status = FAIL(ST_DATA, "%s: a zip file that torch.save did not write: it has no data.pkl", file);
		goto done;
	}
	TRY_DONE(pickle_parse(file, data->data, data->count, &object, NULL));
	TRY_DONE(state_dict_read(&storages, pickle_root(object), list));
	TRY_DONE(inflated_hand_over(&storages.zip, list));
done:
	pickle_free(object);
	storages_free(&storages);
	return status;
}

/* One of the pickles in front of a legacy file's object. */
static enum status legacy_head_check(const char *file, const uint8_t *bytes, size_t count, size_t *at, bool is_version)
{
	struct pickle *pickle;
	size_t used = 0;
	int64_t version = 0;
	bool little = true;
	TRY(pickle_parse(file, bytes + *at, count - *at, &pickle, &used));
	pickle_int(pickle_root(pickle), &version);
	pickle_bool(pickle_find(pickle_root(pickle), "little_endian"), &little);
	pickle_free(pickle);
	*at += used;
	if (is_version && version != LEGACY_VERSION)
		return FAIL(ST_DATA, "%s: a legacy torch file of version %lld, %d is known", file, (long long)version, LEGACY_VERSION);
	if (!little)
		return FAIL(ST_DATA, "%s: its numbers are big-endian; save it again on a little-endian machine", file);
	return ST_OK;
}

static enum status read_legacy(const char *file, const uint8_t *bytes, size_t count, struct tensor_list *list)
{
	enum status status = ST_OK;
	struct pickle *object = NULL;
	struct storages storages = {.file = file};
	size_t at = sizeof legacy_magic, used = 0;
	TRY(legacy_head_check(file, bytes, count, &at, true));
	TRY(legacy_head_check(file, bytes, count, &at, false));
	TRY(pickle_parse(file, bytes + at, count - at, &object, &used));
	TRY_DONE(storages_read_legacy(file, bytes, count, at + used, object, &storages));
	TRY_DONE(state_dict_read(&storages, pickle_root(object), list));
done:
	pickle_free(object);
	storages_free(&storages);
	return status;
}

enum status pth_read(const char *file, const uint8_t *bytes, size_t count, struct tensor_list *list)
{
	return pth_is_legacy(bytes, count) ? read_legacy(file, bytes, count, list) : read_zip(file, bytes, count, list);
}
