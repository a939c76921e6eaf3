/* Any bytes as RecordIO. Read twice, in small bites and whole: the records must be the same. Seeds: whole and split records, one with a
 * picture. */
#include "core/format/recordio.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* A checksum over the records and how it ended. */
static unsigned long read_through(const uint8_t *bytes, size_t count, size_t bite, enum status *status)
{
	struct stream stream;
	struct recordio reader;
	unsigned long sum = 0;
	bool found = true;
	stream_open_memory(&stream, bytes, count, "input");
	recordio_open(&reader, &stream);
	for (;;) {
		struct stream *record;
		*status = recordio_next(&reader, &found, &record);
		if (*status != ST_OK || !found)
			break;
		static uint8_t part[1 << 17];
		size_t n = bite;
		uint64_t length = 0;
		while (*status == ST_OK && n == bite) {
			*status = stream_read(record, part, bite, &n);
			if (*status == ST_OK) {
				struct recordio_image image;
				sum = crc32(sum, part, (uInt)n);
				length += n;
				if (recordio_image_parse(part, n, &image) && image.count > 0 && image.bytes + image.count != part + n)
					abort();
			}
		}
		if (*status != ST_OK)
			break;
		sum = crc32(sum, (const uint8_t *)&length, sizeof length);
	}
	recordio_close(&reader);
	stream_close(&stream);
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	enum status whole, bites;
	unsigned long sum = read_through(bytes, count, 1 << 17, &whole), again = read_through(bytes, count, 7, &bites);
	if (whole != bites || (whole == ST_OK && sum != again))
		abort();
	return 0;
}
