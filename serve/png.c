/* png.c: see png.h. Format: PNG, third edition (W3C), §5 chunks, §11.2 IHDR IDAT IEND; filter type 0 on every row. */
#include "serve/png.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void put_u32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static enum status chunk(struct text *png, const char *type, const uint8_t *data, size_t count)
{
	uint8_t length[4], crc[4];
	put_u32(length, (uint32_t)count);
	uLong sum = crc32(0, (const Bytef *)type, 4);
	if (count > 0)
		sum = crc32(sum, data, (uInt)count);
	put_u32(crc, (uint32_t)sum);
	TRY(text_add_bytes(png, length, 4));
	TRY(text_add_bytes(png, type, 4));
	TRY(text_add_bytes(png, data, count));
	return text_add_bytes(png, crc, 4);
}

enum status png_write(const uint8_t *pixels, unsigned width, unsigned height, struct text *png)
{
	static const uint8_t magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
	uint8_t header[13] = {[8] = 8, [9] = 2}; /* 8 bits, RGB */
	size_t row = 3 * (size_t)width, rows_bytes = (1 + row) * height;
	uLongf packed_bytes = compressBound(rows_bytes);
	uint8_t *rows = malloc(rows_bytes), *packed = malloc(packed_bytes);
	enum status status = ST_OK;
	if (rows == NULL || packed == NULL) {
		status = FAIL(ST_MEMORY, "no memory for a PNG");
		goto done;
	}
	for (unsigned y = 0; y < height; y++) {
		rows[y * (1 + row)] = 0;
		memcpy(rows + y * (1 + row) + 1, pixels + y * row, row);
	}
	if (compress(packed, &packed_bytes, rows, rows_bytes) != Z_OK) {
		status = FAIL(ST_MEMORY, "no memory for a PNG");
		goto done;
	}
	put_u32(header, width);
	put_u32(header + 4, height);
	TRY_DONE(text_add_bytes(png, magic, sizeof magic));
	TRY_DONE(chunk(png, "IHDR", header, sizeof header));
	TRY_DONE(chunk(png, "IDAT", packed, packed_bytes));
	TRY_DONE(chunk(png, "IEND", magic, 0));
done:
	free(packed);
	free(rows);
	return status;
}
