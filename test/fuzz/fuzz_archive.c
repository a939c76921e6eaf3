/* Any bytes as an archive. Names that come out must stay inside it, and no more bytes than allowed may come. Seeds: tar as three tools
 * write it, gzip, zip. */
#include "core/base/log.h"
#include "core/format/archive.h"

#include <stdlib.h>
#include <string.h>

enum { OUT_BYTES_MAX = 1 << 20, MEMBERS_MAX = 100 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static enum status read_through(struct archive_reader *reader, uint64_t *out)
{
	for (unsigned members = 0;; members++) {
		bool found;
		const char *name;
		uint64_t size;
		struct stream *member;
		static uint8_t block[5000];
		TRY(archive_next(reader, &found, &name, &size, &member));
		if (!found)
			return ST_OK;
		if (*name == '/' || strncmp(name, "../", 3) == 0 || strstr(name, "/../") != NULL || members >= MEMBERS_MAX)
			abort();
		if (members % 3 == 2)
			continue; /* passed over unread */
		size_t n = sizeof block;
		while (n == sizeof block) {
			TRY(stream_read(member, block, sizeof block, &n));
			*out += n;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct archive_limits limits = {.bytes_max = OUT_BYTES_MAX, .expansion_max = 100, .members_max = MEMBERS_MAX};
	struct archive_reader *reader;
	struct stream stream;
	uint64_t out = 0;
	log_level_set(LOG_ERROR);
	(void)archive_sniff(bytes, count);
	stream_open_memory(&stream, bytes, count, "input");
	if (archive_open(&stream, limits, &reader) == ST_OK) {
		(void)read_through(reader, &out);
		archive_close(reader);
	}
	stream_close(&stream);
	if (out > OUT_BYTES_MAX)
		abort();
	return 0;
}
