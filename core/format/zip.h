/* zip.h: the records of a zip file that lies in memory, as torch.save writes it: stored, not compressed.
 *
 * Only the central directory is believed; a local header gives no more than where its data starts. Refused:
 * encrypted records, names that occur twice or that are absolute or hold "..", records that overlap or leave the file, spanned
 * archives; compressed records when they are asked for. Sizes above 4 GiB (ZIP64) are read. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ZIP_RECORDS_MAX = 100000, ZIP_NAME_BYTES_MAX = 1024 };

struct zip_record {
	const char *name; /* in the file's bytes, not zero-terminated */
	size_t name_count;
	const uint8_t *data;
	size_t count;
	uint32_t crc;
	bool compressed; /* found, but not readable here */
	bool checked;    /* its CRC was right */
};

struct zip {
	const char *file; /* lent, for sentences */
	struct zip_record *records; /* by name */
	size_t count;
	const char *first_name; /* of the first record in the directory */
	size_t first_name_count;
};

/* Reads the directory of bytes[count], which must outlive the zip. ST_DATA, ST_MEMORY. */
enum status zip_open(const char *file, const uint8_t *bytes, size_t count, struct zip *zip);
void zip_close(struct zip *zip);

/* The record of that name, or NULL. */
struct zip_record *zip_find(const struct zip *zip, const char *name);
/* To be called before `data` is used: checks the record's CRC-32 (once; a stored CRC of 0 means none was made). ST_DATA when it is
 * wrong or the record is compressed. */
enum status zip_check(const struct zip *zip, struct zip_record *record);
