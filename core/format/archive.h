/* archive.h: the files inside a .tar, .tar.gz, .tgz or .zip, one after another, without unpacking it.
 *
 * In: a stream (path, FIFO, memory). Out: each member's name and a stream of its bytes. Nothing is written to disk. What a
 * member means is left to the caller.
 *
 * Rules. Directories are passed over. Links and devices are passed over with a warning line. An absolute name, a name with a
 * ".." part or no readable name is refused (ST_DATA): an archive with such a name was made to harm. The bytes that come out are
 * bounded in total and, beyond the first ARCHIVE_RATIO_FREE_BYTES, in proportion to the bytes that went in. */
#pragma once

#include "core/format/stream.h"

#include <stdbool.h>
#include <stdint.h>

struct archive_reader;

struct archive_limits {
	uint64_t bytes_max;     /* of all members together */
	uint32_t expansion_max; /* bytes out for each byte in */
	uint32_t members_max;
};

#define ARCHIVE_RATIO_FREE_BYTES ((uint64_t)64 << 20)
/* For data sets and model archives. */
#define ARCHIVE_LIMITS_USUAL ((struct archive_limits){.bytes_max = (uint64_t)64 << 30, .expansion_max = 100, .members_max = 4000000})

/* True if these first bytes (at least 512, or the whole file) are those of a gzip, tar or zip file. */
bool archive_sniff(const uint8_t *bytes, size_t count);

/* Reads from `from`, which is lent until archive_close. Nothing is read yet. ST_MEMORY. */
enum status archive_open(struct stream *from, struct archive_limits limits, struct archive_reader **reader);

/* Goes to the next regular file. *found = false at the archive's end. *name (without a leading "./") and *member are valid until
 * the next call; what is left unread of the previous member is passed over. *bytes is the member's size as the archive states
 * it, UINT64_MAX if it does not. ST_DATA if the archive is damaged, cut off, or breaks a rule above. */
enum status archive_next(struct archive_reader *reader, bool *found, const char **name, uint64_t *bytes, struct stream **member);

/* Accepts NULL. `from` is not closed. */
void archive_close(struct archive_reader *reader);
