/* pth_write.c: see pth_write.h. What the file holds is said in pth.c; sizes and CRCs stand in the local
 * headers, there are no data descriptors, and the pickle uses no memo. */
#include "core/format/pth_write.h"

#include "core/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { DATA_ALIGNMENT = 64, LOCAL_BYTES = 30, FLAG_UTF8 = 0x0800 };

/* A record of the zip being written. */
struct record {
	uint32_t crc, bytes, offset;
	char name[272];
};

struct zip_writer {
	struct file_writer *file;
	uint64_t start; /* of the zip within the file */
	const char *prefix;
	struct record *records;
	size_t count;
};

/* --- pickle --- */

static enum status pickle_string(struct text *text, const char *string)
{
	uint32_t length = (uint32_t)strlen(string);
	uint8_t head[5] = {'X', (uint8_t)length, (uint8_t)(length >> 8), (uint8_t)(length >> 16), (uint8_t)(length >> 24)};
	TRY(text_add_bytes(text, head, sizeof head));
	return text_add_bytes(text, string, length);
}

static enum status pickle_integer(struct text *text, int64_t value)
{
	uint8_t bytes[10] = {'K', (uint8_t)value};
	size_t count = 2;
	if (value > 0xFFFF) {
		bool wide = value > INT32_MAX;
		bytes[0] = wide ? 0x8A : 'J';
		bytes[1] = 8;
		count = wide ? 10 : 5;
		for (int i = 0; i < (wide ? 8 : 4); i++)
			bytes[(wide ? 2 : 1) + i] = (uint8_t)((uint64_t)value >> 8 * i);
	} else if (value > 0xFF) {
		bytes[0] = 'M';
		bytes[2] = (uint8_t)(value >> 8);
		count = 3;
	}
	return text_add_bytes(text, bytes, count);
}

static enum status pickle_tuple(struct text *text, const int64_t *values, int count)
{
	if (count == 0)
		return text_add(text, ")");
	TRY(text_add(text, "("));
	for (int i = 0; i < count; i++)
		TRY(pickle_integer(text, values[i]));
	return text_add(text, "t");
}

#define NEW_ORDERED_DICT "ccollections\nOrderedDict\n)R"

static enum status pickle_tensor(struct text *text, const struct tensor_view *view, size_t key)
{
	int64_t numel;
	char digits[24];
	MUST(tensor_count(view, &numel) && dtype_torch_storage(view->dtype) != NULL);
	snprintf(digits, sizeof digits, "%zu", key);
	TRY(pickle_string(text, view->name));
	TRY(text_add(text, "ctorch._utils\n_rebuild_tensor_v2\n(("));
	TRY(pickle_string(text, "storage"));
	TRY(text_printf(text, "ctorch\n%s\n", dtype_torch_storage(view->dtype)));
	TRY(pickle_string(text, digits));
	TRY(pickle_string(text, "cpu"));
	TRY(pickle_integer(text, numel));
	TRY(text_add(text, "tQ"));
	TRY(pickle_integer(text, 0)); /* offset in the storage */
	TRY(pickle_tuple(text, view->shape, view->rank));
	TRY(pickle_tuple(text, view->stride, view->rank));
	return text_add(text, "\x89" NEW_ORDERED_DICT "tR"); /* requires_grad False, no hooks */
}

static enum status pickle_make(struct text *text, const struct tensor_view *views, size_t count)
{
	TRY(text_add(text, "\x80\x02" NEW_ORDERED_DICT "("));
	for (size_t i = 0; i < count; i++)
		TRY(pickle_tensor(text, &views[i], i));
	return text_add(text, "u.");
}

/* --- zip --- */

static void put(uint8_t **at, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		*(*at)++ = (uint8_t)(value >> 8 * i);
}

/* What a local header and an entry of the directory share: version needed to extra length. */
static void put_common(uint8_t **at, const struct record *record, size_t extra_bytes)
{
	put(at, 0, 2); /* version needed */
	put(at, FLAG_UTF8, 2);
	put(at, 0, 2); /* stored */
	put(at, 0, 4); /* no time: equal weights give equal files */
	put(at, record->crc, 4);
	put(at, record->bytes, 4);
	put(at, record->bytes, 4);
	put(at, strlen(record->name), 2);
	put(at, extra_bytes, 2);
}

static enum status record_write(struct zip_writer *zip, const char *name, const void *data, size_t bytes)
{
	uint64_t offset = zip->file->bytes - zip->start;
	if (offset > UINT32_MAX - 4096 || bytes > UINT32_MAX - 4096 - offset)
		return FAIL(ST_DATA, "%s: weights of more than 4 GiB are not written as .pth; use safetensors", zip->file->path);
	struct record *record = &zip->records[zip->count++];
	*record = (struct record){.bytes = (uint32_t)bytes, .offset = (uint32_t)offset, .crc = (uint32_t)crc32(0, NULL, 0)};
	if (bytes > 0)
		record->crc = (uint32_t)crc32(record->crc, data, (uInt)bytes);
	snprintf(record->name, sizeof record->name, "%s/%s", zip->prefix, name);
	uint8_t header[LOCAL_BYTES + sizeof record->name + 4 + DATA_ALIGNMENT], *at = header;
	size_t name_count = strlen(record->name);
	size_t padding = (DATA_ALIGNMENT - (offset + LOCAL_BYTES + name_count + 4) % DATA_ALIGNMENT) % DATA_ALIGNMENT;
	put(&at, 0x04034B50, 4);
	put_common(&at, record, 4 + padding);
	memcpy(at, record->name, name_count);
	at += name_count;
	put(&at, 'F' | 'B' << 8, 2);
	put(&at, padding, 2);
	memset(at, 'Z', padding);
	at += padding;
	TRY(file_append(zip->file, header, (size_t)(at - header)));
	return bytes == 0 ? ST_OK : file_append(zip->file, data, bytes);
}

static enum status directory_write(struct zip_writer *zip)
{
	uint64_t start = zip->file->bytes - zip->start;
	for (size_t i = 0; i < zip->count; i++) {
		const struct record *record = &zip->records[i];
		uint8_t entry[46], *at = entry;
		put(&at, 0x02014B50, 4);
		put(&at, 0, 2); /* made by */
		put_common(&at, record, 0);
		put(&at, 0, 2); /* no comment */
		put(&at, 0, 2); /* disk */
		put(&at, 0, 6); /* attributes */
		put(&at, record->offset, 4);
		MUST(at == entry + sizeof entry);
		TRY(file_append(zip->file, entry, sizeof entry));
		TRY(file_append(zip->file, record->name, strlen(record->name)));
	}
	uint8_t end[22], *at = end;
	put(&at, 0x06054B50, 4);
	put(&at, 0, 4); /* disks */
	put(&at, zip->count, 2);
	put(&at, zip->count, 2);
	put(&at, zip->file->bytes - zip->start - start, 4);
	put(&at, start, 4);
	put(&at, 0, 2); /* no comment */
	MUST(at == end + sizeof end);
	return file_append(zip->file, end, sizeof end);
}

enum status pth_write(struct file_writer *writer, const char *prefix, const struct tensor_view *views, size_t count)
{
	enum status status = ST_OK;
	struct text pickle = {0};
	struct zip_writer zip = {.file = writer, .start = writer->bytes, .prefix = prefix};
	MUST(count < UINT16_MAX - 3 && strlen(prefix) <= 200);
	zip.records = calloc(count + 3, sizeof *zip.records);
	if (zip.records == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for its directory", writer->path);
	TRY_DONE(pickle_make(&pickle, views, count));
	TRY_DONE(record_write(&zip, "data.pkl", pickle.data, pickle.length));
	TRY_DONE(record_write(&zip, "byteorder", "little", 6));
	for (size_t i = 0; i < count; i++) {
		int64_t numel;
		char name[40];
		MUST(tensor_is_contiguous(&views[i]) && tensor_count(&views[i], &numel));
		snprintf(name, sizeof name, "data/%zu", i);
		TRY_DONE(record_write(&zip, name, views[i].data, (size_t)numel * dtype_bytes(views[i].dtype)));
	}
	TRY_DONE(record_write(&zip, "version", "3\n", 2));
	TRY_DONE(directory_write(&zip));
done:
	free(zip.records);
	text_free(&pickle);
	return status;
}
