/* zip.c: see zip.h. Layout: PKWARE's APPNOTE, sections 4.3.7 to 4.3.16. */
#include "core/format/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
	LOCAL_BYTES = 30,
	CENTRAL_BYTES = 46,
	END_BYTES = 22,
	END64_BYTES = 56,
	LOCATOR64_BYTES = 20,
	COMMENT_BYTES_MAX = 65535,
};

enum { STORED = 0, DEFLATED = 8, DEFLATE_RATIO_MAX = 1032 /* no byte of deflate stands for more */ };
enum { ZLIB_BYTES_MAX = 1 << 30 /* zlib counts in 32 bits */ };

struct file {
	const char *name;
	const uint8_t *bytes;
	size_t count;
};

static uint64_t little(const uint8_t *bytes, int count)
{
	uint64_t value = 0;
	for (int i = count; i-- > 0;)
		value = value << 8 | bytes[i];
	return value;
}

static bool has_signature(const uint8_t *bytes, char third, char fourth)
{
	return bytes[0] == 'P' && bytes[1] == 'K' && bytes[2] == (uint8_t)third && bytes[3] == (uint8_t)fourth;
}

static enum status fail(const struct file *file, const char *why)
{
	return FAIL(ST_DATA, "%s: not a usable zip file: %s", file->name, why);
}

/* Where the central directory lies. */
struct directory {
	uint64_t start, bytes, count;
};

static enum status directory_find(const struct file *file, struct directory *directory)
{
	if (file->count < END_BYTES)
		return fail(file, "it is shorter than a zip's end record");
	size_t lowest = file->count - END_BYTES > COMMENT_BYTES_MAX ? file->count - END_BYTES - COMMENT_BYTES_MAX : 0;
	size_t at = file->count - END_BYTES;
	while (!has_signature(file->bytes + at, 5, 6)) {
		if (at == lowest)
			return fail(file, "its end record is missing; the file is cut off or still being written");
		at--;
	}
	const uint8_t *end = file->bytes + at;
	if (little(end + 4, 2) != 0 || little(end + 6, 2) != 0 || little(end + 8, 2) != little(end + 10, 2))
		return fail(file, "it is split over several disks");
	struct directory found = {.start = little(end + 16, 4), .bytes = little(end + 12, 4), .count = little(end + 10, 2)};
	uint64_t limit = at;
	/* ZIP64: a locator right before the end record leads to wider fields. */
	if (at >= LOCATOR64_BYTES && has_signature(end - LOCATOR64_BYTES, 6, 7)) {
		uint64_t end64_at = little(end - LOCATOR64_BYTES + 8, 8);
		if (at - LOCATOR64_BYTES < END64_BYTES || end64_at > at - LOCATOR64_BYTES - END64_BYTES || !has_signature(file->bytes + end64_at, 6, 6))
			return fail(file, "its ZIP64 end record is not where it should be");
		const uint8_t *end64 = file->bytes + end64_at;
		if (little(end64 + 24, 8) != little(end64 + 32, 8))
			return fail(file, "it is split over several disks");
		found = (struct directory){.start = little(end64 + 48, 8), .bytes = little(end64 + 40, 8), .count = little(end64 + 32, 8)};
		limit = end64_at;
	}
	if (found.start > limit || found.bytes > limit - found.start)
		return fail(file, "its directory reaches past its end");
	if (found.count > ZIP_RECORDS_MAX || found.count > found.bytes / CENTRAL_BYTES)
		return fail(file, "its directory cannot hold as many records as it declares");
	*directory = found;
	return ST_OK;
}

/* Takes what is 0xFFFFFFFF from the ZIP64 extra field, in the fixed order of size, stored size, header offset. */
static enum status zip64_apply(const struct file *file, const uint8_t *extra, size_t extra_count, uint64_t *size, uint64_t *stored, uint64_t *offset)
{
	uint64_t *wide[3];
	size_t wanted = 0;
	if (*size == UINT32_MAX)
		wide[wanted++] = size;
	if (*stored == UINT32_MAX)
		wide[wanted++] = stored;
	if (*offset == UINT32_MAX)
		wide[wanted++] = offset;
	while (wanted > 0 && extra_count >= 4) {
		size_t id = (size_t)little(extra, 2), bytes = (size_t)little(extra + 2, 2);
		if (bytes > extra_count - 4)
			break;
		if (id == 1) {
			if (bytes < 8 * wanted)
				break;
			for (size_t i = 0; i < wanted; i++)
				*wide[i] = little(extra + 4 + 8 * i, 8);
			return ST_OK;
		}
		extra += 4 + bytes;
		extra_count -= 4 + bytes;
	}
	return wanted == 0 ? ST_OK : fail(file, "a record of 4 GiB without its ZIP64 sizes");
}

static bool name_is_safe(const char *name, size_t count)
{
	if (count == 0 || count > ZIP_NAME_BYTES_MAX || name[0] == '/' || memchr(name, '\0', count) != NULL || memchr(name, '\\', count) != NULL)
		return false;
	for (size_t at = 0; at < count;) {
		const char *slash = memchr(name + at, '/', count - at);
		size_t length = slash == NULL ? count - at : (size_t)(slash - name) - at;
		if (length == 2 && memcmp(name + at, "..", 2) == 0)
			return false;
		at += length + 1;
	}
	return true;
}

/* Reads one entry of the directory; *entry moves on to the next. */
static enum status record_read(const struct file *file, uint64_t directory_start, const uint8_t **entry, size_t *left, struct zip_record *record)
{
	const uint8_t *at = *entry;
	if (*left < CENTRAL_BYTES || !has_signature(at, 1, 2))
		return fail(file, "its directory is damaged");
	size_t name_count = (size_t)little(at + 28, 2), extra_count = (size_t)little(at + 30, 2), comment_count = (size_t)little(at + 32, 2);
	size_t bytes = CENTRAL_BYTES + name_count + extra_count + comment_count;
	if (bytes > *left)
		return fail(file, "its directory is damaged");
	const char *name = (const char *)at + CENTRAL_BYTES;
	if (!name_is_safe(name, name_count))
		return fail(file, "a record's name is empty, absolute, too long or holds \"..\"");
	if (little(at + 8, 2) & 1)
		return fail(file, "it is encrypted");
	uint64_t stored = little(at + 20, 4), size = little(at + 24, 4), offset = little(at + 42, 4);
	TRY(zip64_apply(file, at + CENTRAL_BYTES + name_count, extra_count, &size, &stored, &offset));
	int method = (int)little(at + 10, 2);
	if (size != stored && method == STORED)
		return fail(file, "a stored record with two different sizes");
	if (directory_start < LOCAL_BYTES || offset > directory_start - LOCAL_BYTES || !has_signature(file->bytes + offset, 3, 4))
		return fail(file, "a record is not where the directory says");
	/* The local name and extra field may be longer than the directory's: torch pads data to a multiple of 64 there. */
	uint64_t data = offset + LOCAL_BYTES + little(file->bytes + offset + 26, 2) + little(file->bytes + offset + 28, 2);
	if (data > directory_start || stored > directory_start - data)
		return fail(file, "a record reaches past the end of the data");
	const uint8_t *start = file->bytes + data;
	*record = (struct zip_record){.name = name, .name_count = name_count, .data = method == STORED ? start : NULL, .count = (size_t)size,
		.crc = (uint32_t)little(at + 16, 4), .method = method, .stored = start, .stored_count = (size_t)stored};
	*entry += bytes;
	*left -= bytes;
	return ST_OK;
}

static int compare_places(const void *a, const void *b)
{
	const struct zip_record *x = a, *y = b;
	if (x->stored != y->stored)
		return x->stored > y->stored ? 1 : -1;
	return (x->stored_count > y->stored_count) - (x->stored_count < y->stored_count);
}

static int compare_text(const char *a, size_t a_count, const char *b, size_t b_count)
{
	int order = memcmp(a, b, a_count < b_count ? a_count : b_count);
	return order != 0 ? order : (a_count > b_count) - (a_count < b_count);
}

static int compare_names(const void *a, const void *b)
{
	const struct zip_record *x = a, *y = b;
	return compare_text(x->name, x->name_count, y->name, y->name_count);
}

static enum status records_check(const struct file *file, struct zip_record *records, size_t count)
{
	qsort(records, count, sizeof *records, compare_places);
	for (size_t i = 1; i < count; i++)
		if (records[i].stored < records[i - 1].stored + records[i - 1].stored_count)
			return fail(file, "two records overlap");
	qsort(records, count, sizeof *records, compare_names);
	for (size_t i = 1; i < count; i++)
		if (compare_names(&records[i - 1], &records[i]) == 0)
			return fail(file, "two records have the same name");
	return ST_OK;
}

enum status zip_open(const char *name, const uint8_t *bytes, size_t count, struct zip *zip)
{
	const struct file file = {name, bytes, count};
	struct directory directory = {0};
	TRY(directory_find(&file, &directory));
	if (directory.count == 0)
		return fail(&file, "it holds no records");
	struct zip_record *records = calloc((size_t)directory.count, sizeof *records);
	if (records == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for its directory", name);
	enum status status = ST_OK;
	const uint8_t *entry = bytes + directory.start;
	size_t left = (size_t)directory.bytes;
	for (size_t i = 0; i < directory.count; i++)
		TRY_DONE(record_read(&file, directory.start, &entry, &left, &records[i]));
	struct zip opened = {.file = name, .records = records, .count = (size_t)directory.count, .first_name = records[0].name,
		.first_name_count = records[0].name_count, .inflate_bytes_max = ZIP_INFLATE_BYTES_MAX_DEFAULT};
	TRY_DONE(records_check(&file, records, opened.count));
	*zip = opened;
	records = NULL;
done:
	free(records);
	return status;
}

void zip_close(struct zip *zip)
{
	for (size_t i = 0; i < zip->count; i++)
		free(zip->records[i].inflated);
	free(zip->records);
	*zip = (struct zip){0};
}

struct zip_record *zip_find(const struct zip *zip, const char *name)
{
	size_t low = 0, high = zip->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct zip_record *record = &zip->records[middle];
		int order = compare_text(record->name, record->name_count, name, strlen(name));
		if (order == 0)
			return record;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* --- contents -------------------------------------------------------------------------------------------------------- */

static enum status record_fail(const struct zip *zip, const struct zip_record *record, const char *why)
{
	return FAIL(ST_DATA, "%s: the record %.*s %s", zip->file, (int)record->name_count, record->name, why);
}

/* True if the stored bytes inflate to exactly record->count bytes. */
static bool inflate_to(const struct zip_record *record, uint8_t *bytes)
{
	z_stream stream = {0};
	if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
		return false;
	size_t in_left = record->stored_count, out_left = record->count;
	uint8_t beyond;
	int result = Z_OK;
	stream.next_in = (Bytef *)(uintptr_t)record->stored;
	while (result == Z_OK) {
		uInt in = in_left < ZLIB_BYTES_MAX ? (uInt)in_left : ZLIB_BYTES_MAX, out = out_left < ZLIB_BYTES_MAX ? (uInt)out_left : ZLIB_BYTES_MAX;
		stream.avail_in = in;
		stream.next_out = out > 0 ? bytes + (record->count - out_left) : &beyond;
		stream.avail_out = out > 0 ? out : 1; /* room for a byte too many, to see one */
		result = inflate(&stream, Z_NO_FLUSH);
		in_left -= in - stream.avail_in;
		if (out > 0)
			out_left -= out - stream.avail_out;
		else if (stream.avail_out == 0)
			result = Z_DATA_ERROR;
	}
	inflateEnd(&stream);
	return result == Z_STREAM_END && in_left == 0 && out_left == 0;
}

static enum status record_inflate(struct zip *zip, struct zip_record *record)
{
	if (record->method != DEFLATED)
		return record_fail(zip, record, "is compressed in a way that is not read; only deflate is");
	if (record->count / DEFLATE_RATIO_MAX > record->stored_count)
		return record_fail(zip, record, "is damaged: it cannot inflate to the size that is declared");
	if (record->count > zip->inflate_bytes_max - zip->inflated_bytes)
		return FAIL(ST_DATA, "%s: the record %.*s has %zu bytes when inflated; together at most %llu are", zip->file, (int)record->name_count,
			record->name, record->count, (unsigned long long)zip->inflate_bytes_max);
	uint8_t *bytes = malloc(record->count > 0 ? record->count : 1);
	if (bytes == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for %zu bytes", zip->file, record->count);
	if (!inflate_to(record, bytes)) {
		free(bytes);
		return record_fail(zip, record, "is damaged: it does not inflate to the size that is declared");
	}
	zip->inflated_bytes += record->count;
	record->data = record->inflated = bytes;
	return ST_OK;
}

enum status zip_check(struct zip *zip, struct zip_record *record)
{
	if (record->data == NULL)
		TRY(record_inflate(zip, record));
	if (record->checked || record->crc == 0 || record->count == 0)
		return ST_OK;
	uLong crc = crc32(0, NULL, 0);
	for (size_t done = 0; done < record->count;) {
		size_t part = record->count - done < ZLIB_BYTES_MAX ? record->count - done : ZLIB_BYTES_MAX;
		crc = crc32(crc, record->data + done, (uInt)part);
		done += part;
	}
	if (crc != record->crc)
		return FAIL(ST_DATA, "%s: the record %.*s is damaged: its CRC is %08lx, %08lx was stored; copy the file again", zip->file, (int)record->name_count,
			record->name, crc, (unsigned long)record->crc);
	record->checked = true;
	return ST_OK;
}
