/* body_array.c: numpy's files, one array or an archive of them; see bodies.h. */
#include "core/format/npy.h"
#include "core/format/zip.h"
#include "serve/decode/bodies.h"

#include <string.h>

enum http_code body_take_npy(struct images *images, const uint8_t *bytes, size_t count)
{
	struct npy npy;
	float *at;
	ALLOW(http_of_status(npy_read("npy", bytes, count, &npy)));
	ALLOW(images_reserve(images, (size_t)npy.count, &at));
	npy_read_floats(&npy, at);
	images->used += (size_t)npy.count;
	return images_take_numbers(images, npy_is_whole(&npy), npy.view.rank, npy.view.shape);
}

/* The record's name without ".npy"; 0 when it ends otherwise. */
static size_t array_name_count(const struct zip_record *record)
{
	return record->name_count > 4 && memcmp(record->name + record->name_count - 4, ".npy", 4) == 0 ? record->name_count - 4 : 0;
}

static enum http_code array_find(const struct zip *zip, struct zip_record **array)
{
	struct zip_record *only = NULL, *named = NULL;
	size_t arrays = 0, names = 0;
	for (size_t i = 0; i < zip->count; i++) {
		struct zip_record *record = &zip->records[i];
		size_t length = array_name_count(record);
		if (length == 0)
			continue;
		arrays++;
		only = record;
		if (body_is_name(record->name, length)) {
			names++;
			named = record;
		}
	}
	if (zip_find(zip, "indptr.npy") != NULL)
		return REFUSE(HTTP_BAD_REQUEST, "npz: a sparse matrix; send it dense, as npy");
	if (arrays == 0)
		return REFUSE(HTTP_BAD_REQUEST, "npz: a zip file without an array (NAME.npy)");
	if (arrays > 1 && names != 1)
		return REFUSE(HTTP_BAD_REQUEST, "npz: %zu arrays; send one, or call one of them %s", arrays, BODY_NAMES_TEXT);
	*array = arrays == 1 ? only : named;
	return HTTP_OK;
}

/* Inflated, an array may have this many bytes: all images as float64 and a header. */
static uint64_t array_bytes_max(const struct images *images)
{
	return (uint64_t)images->rules->images_max * images->image_values * 8 + (1 << 16);
}

enum http_code body_take_npz(struct images *images, const uint8_t *bytes, size_t count)
{
	struct zip zip;
	struct zip_record *array = NULL;
	ALLOW(http_of_status(zip_open("npz", bytes, count, &zip)));
	zip.inflate_bytes_max = array_bytes_max(images);
	enum http_code code = array_find(&zip, &array);
	if (code == HTTP_OK)
		code = http_of_status(zip_check(&zip, array));
	if (code == HTTP_OK)
		code = body_take_npy(images, array->data, array->count);
	zip_close(&zip);
	return code;
}
