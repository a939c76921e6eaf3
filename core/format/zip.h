/* zip.h: the records of a zip file that lies in memory, stored or deflated: torch.save's and numpy's.
 *
 * Only the central directory is believed; a local header gives no more than where its data starts. Refused:
 * encrypted records, names that occur twice or that are absolute or hold "..", records that overlap or leave the file, spanned
 * archives; when they are asked for, records compressed otherwise, or that do not inflate to exactly the size that is declared. Sizes above
 * 4 GiB (ZIP64) are read. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ZIP_RECORDS_MAX = 100000, ZIP_NAME_BYTES_MAX = 1024 };
#define ZIP_INFLATE_BYTES_MAX_DEFAULT ((uint64_t)4 << 30)

struct zip_record {
	const char *name; /* in the file's bytes, not zero-terminated */
	size_t name_count;
	const uint8_t *data; /* in the file's bytes, or `inflated`; NULL before zip_check if it is compressed */
	size_t count;
	uint32_t crc;
	int method;      /* 0: stored, 8: deflated */
	const uint8_t *stored; /* in the file */
	size_t stored_count;
	uint8_t *inflated; /* owned by the zip; whoever sets it to NULL takes it over and frees it */
	bool checked;      /* its CRC was right */
};

struct zip {
	const char *file; /* lent, for sentences */
	struct zip_record *records; /* by name */
	size_t count;
	const char *first_name; /* of the first record in the directory */
	size_t first_name_count;
	uint64_t inflate_bytes_max; /* of all records together; may be set after zip_open */
	uint64_t inflated_bytes;
};

/* Reads the directory of bytes[count], which must outlive the zip. ST_DATA, ST_MEMORY. */
enum status zip_open(const char *file, const uint8_t *bytes, size_t count, struct zip *zip);
void zip_close(struct zip *zip);

/* The record of that name, or NULL. */
struct zip_record *zip_find(const struct zip *zip, const char *name);
/* To be called before `data` is used: inflates, and checks the record's CRC-32 (once; a stored CRC of 0 means none was made). ST_DATA when
 * that is wrong, the record is damaged or compressed in another way, or inflate_bytes_max would be passed; ST_MEMORY. */
enum status zip_check(struct zip *zip, struct zip_record *record);
