/* recordio.c: see recordio.h. */
#include "core/format/recordio.h"

#include <stdio.h>
#include <string.h>

/* 0xCED7230A, little-endian. */
static const uint8_t MAGIC[4] = {0x0a, 0x23, 0xd7, 0xce};

/* The top three bits of the second word: a whole record, or which part of one that held the magic itself. */
enum part { PART_WHOLE, PART_FIRST, PART_MIDDLE, PART_LAST };

bool recordio_sniff(const uint8_t *bytes, size_t count)
{
	return count >= 4 && memcmp(bytes, MAGIC, 4) == 0;
}

static uint32_t u32_read(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

void recordio_open(struct recordio *reader, struct stream *from)
{
	*reader = (struct recordio){.from = from};
	reader->record.fd = -1;
}

static enum status fail_cut(const struct recordio *reader)
{
	return FAIL(ST_DATA, "%s: RecordIO record %llu is cut off after %llu bytes of the stream", reader->from->name,
		(unsigned long long)reader->records, (unsigned long long)reader->from->offset);
}

/* Reads a part's 8 bytes. *found = false where the stream ends before them. */
static enum status part_begin(struct recordio *reader, bool *found, enum part *part)
{
	uint8_t head[8];
	size_t n;
	TRY(stream_read(reader->from, head, sizeof head, &n));
	*found = n > 0;
	if (n == 0)
		return ST_OK;
	if (!recordio_sniff(head, n))
		return FAIL(ST_DATA, "%s: no RecordIO magic at byte %llu (record %llu): %02x %02x %02x %02x, expected 0a 23 d7 ce; is RecordWrapperType right?",
			reader->from->name, (unsigned long long)(reader->from->offset - n), (unsigned long long)reader->records, head[0],
			n > 1 ? head[1] : 0u, n > 2 ? head[2] : 0u, n > 3 ? head[3] : 0u);
	if (n < sizeof head)
		return fail_cut(reader);
	uint32_t word = u32_read(head + 4);
	*part = word >> 29;
	if (*part > PART_LAST)
		return FAIL(ST_DATA, "%s: RecordIO record %llu has part number %u; there are 0 to 3", reader->from->name,
			(unsigned long long)reader->records, (unsigned)*part);
	reader->left = word & 0x1fffffff;
	reader->padding = -reader->left & 3;
	return ST_OK;
}

static enum status part_end(struct recordio *reader)
{
	uint8_t zeros[4];
	size_t n;
	TRY(stream_read(reader->from, zeros, reader->padding, &n));
	return n == reader->padding ? ST_OK : fail_cut(reader);
}

static enum status record_fill(void *context, uint8_t *bytes, size_t bytes_max, size_t *count)
{
	struct recordio *reader = context;
	while (reader->left == 0 && reader->magic_left == 0) {
		if (!reader->open) {
			*count = 0;
			return ST_OK;
		}
		TRY(part_end(reader));
		reader->open = reader->more;
		if (!reader->more)
			continue;
		bool found;
		enum part part = PART_WHOLE;
		TRY(part_begin(reader, &found, &part));
		if (!found)
			return fail_cut(reader);
		if (part != PART_MIDDLE && part != PART_LAST)
			return FAIL(ST_DATA, "%s: RecordIO record %llu ends without its last part", reader->from->name, (unsigned long long)reader->records);
		reader->more = part == PART_MIDDLE;
		reader->magic_left = sizeof MAGIC; /* the writer split there and left it out */
	}
	if (reader->magic_left > 0) {
		size_t n = reader->magic_left < bytes_max ? reader->magic_left : bytes_max;
		memcpy(bytes, MAGIC + sizeof MAGIC - reader->magic_left, n);
		reader->magic_left -= (unsigned)n;
		*count = n;
		return ST_OK;
	}
	size_t n;
	TRY(stream_read(reader->from, bytes, reader->left < bytes_max ? reader->left : bytes_max, &n));
	if (n == 0)
		return fail_cut(reader);
	reader->left -= (uint32_t)n;
	*count = n;
	return ST_OK;
}

enum status recordio_next(struct recordio *reader, bool *found, struct stream **record)
{
	enum part part = PART_WHOLE;
	if (reader->open)
		TRY(stream_drain(&reader->record));
	stream_close(&reader->record);
	TRY(part_begin(reader, found, &part));
	if (!*found)
		return ST_OK;
	if (part != PART_WHOLE && part != PART_FIRST)
		return FAIL(ST_DATA, "%s: RecordIO record %llu starts with part %d of a split record", reader->from->name,
			(unsigned long long)reader->records, (int)part);
	int n = snprintf(reader->name, sizeof reader->name, "%s: record %llu", reader->from->name, (unsigned long long)reader->records);
	(void)n; /* cut where it is too long: for sentences only */
	reader->records++;
	reader->open = true;
	reader->more = part == PART_FIRST;
	stream_open(&reader->record, record_fill, reader, reader->name);
	*record = &reader->record;
	return ST_OK;
}

void recordio_close(struct recordio *reader)
{
	stream_close(&reader->record);
}

bool recordio_image_parse(const uint8_t *bytes, size_t count, struct recordio_image *image)
{
	if (count < 24)
		return false;
	uint32_t labels = u32_read(bytes), word;
	if (labels > RECORDIO_IMAGE_LABELS_MAX || count - 24 < 4 * (size_t)labels)
		return false;
	word = u32_read(bytes + (labels == 0 ? 4 : 24));
	float label;
	memcpy(&label, &word, sizeof label);
	image->label = (double)label;
	image->bytes = bytes + 24 + 4 * (size_t)labels;
	image->count = count - 24 - 4 * (size_t)labels;
	return true;
}
