/* archive.c: see archive.h. The one file that knows libarchive. */
#include "core/format/archive.h"

#include "core/base/log.h"
#include "core/base/text.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK_BYTES = 64 << 10, MEMBER_NAME_BYTES = 4096, SENTENCE_NAME_BYTES = 4096 + 512 };

struct archive_reader {
	struct stream *from;
	struct archive_limits limits;
	struct archive *archive;
	enum status from_status; /* why the source failed, when libarchive only knows that it did */
	uint64_t bytes_out;
	uint32_t members;
	bool opened, in_member;
	struct stream member;
	char name[MEMBER_NAME_BYTES];
	char sentence_name[SENTENCE_NAME_BYTES]; /* "file.tar.gz: member" */
	uint8_t block[BLOCK_BYTES];
};

bool archive_sniff(const uint8_t *bytes, size_t count)
{
	return (count >= 2 && memcmp(bytes, "\x1f\x8b", 2) == 0) || (count >= 4 && memcmp(bytes, "PK\3\4", 4) == 0) ||
		(count >= 262 && memcmp(bytes + 257, "ustar", 5) == 0);
}

static la_ssize_t block_read(struct archive *archive, void *context, const void **block)
{
	struct archive_reader *reader = context;
	size_t n;
	(void)archive;
	reader->from_status = stream_read(reader->from, reader->block, BLOCK_BYTES, &n);
	if (reader->from_status != ST_OK)
		return -1;
	*block = reader->block;
	return (la_ssize_t)n;
}

static enum status fail_archive(const struct archive_reader *reader)
{
	if (reader->from_status != ST_OK)
		return reader->from_status; /* its sentence stands */
	const char *why = archive_error_string(reader->archive);
	return FAIL(ST_DATA, "%s: damaged archive, or cut off: %s", reader->from->name, why != NULL ? why : "unknown reason");
}

static enum status member_fill(void *context, uint8_t *bytes, size_t bytes_max, size_t *count)
{
	struct archive_reader *reader = context;
	la_ssize_t n = archive_read_data(reader->archive, bytes, bytes_max);
	if (n < 0)
		return fail_archive(reader);
	reader->bytes_out += (uint64_t)n;
	if (reader->bytes_out > reader->limits.bytes_max)
		return FAIL(ST_DATA, "%s: unpacks to more than %llu bytes, the most that is read", reader->from->name,
			(unsigned long long)reader->limits.bytes_max);
	if (reader->bytes_out > ARCHIVE_RATIO_FREE_BYTES &&
		(reader->bytes_out - ARCHIVE_RATIO_FREE_BYTES) / reader->limits.expansion_max > reader->from->offset)
		return FAIL(ST_DATA, "%s: unpacks to more than %u times its size after %llu bytes; refused as harmful", reader->from->name,
			reader->limits.expansion_max, (unsigned long long)reader->bytes_out);
	*count = (size_t)n;
	return ST_OK;
}

enum status archive_open(struct stream *from, struct archive_limits limits, struct archive_reader **reader)
{
	MUST(limits.expansion_max > 0);
	struct archive_reader *new = calloc(1, sizeof *new);
	if (new == NULL)
		return FAIL(ST_MEMORY, "%s: no memory to read an archive", from->name);
	new->from = from;
	new->limits = limits;
	stream_open(&new->member, member_fill, new, new->sentence_name);
	new->archive = archive_read_new();
	/* Named one by one: libarchive's "all" would start outside programs for some filters. */
	if (new->archive == NULL || archive_read_support_filter_gzip(new->archive) != ARCHIVE_OK ||
		archive_read_support_format_tar(new->archive) != ARCHIVE_OK ||
		archive_read_support_format_zip_streamable(new->archive) != ARCHIVE_OK) {
		archive_close(new);
		return FAIL(ST_MEMORY, "%s: no memory to read an archive", from->name);
	}
	*reader = new;
	return ST_OK;
}

static bool name_has_parent_part(const char *name)
{
	for (const char *part = name; part != NULL; part = strchr(part, '/')) {
		part += *part == '/';
		if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
			return true;
	}
	return false;
}

static enum status member_name(struct archive_reader *reader, struct archive_entry *entry)
{
	/* In the C locale libarchive has no plain form of a name that is not ASCII. */
	const char *name = archive_entry_pathname(entry);
	if (name == NULL)
		name = archive_entry_pathname_utf8(entry);
	if (name == NULL || *name == '\0' || strlen(name) >= sizeof reader->name)
		return FAIL(ST_DATA, "%s: member %u has an empty, unreadable or too long name", reader->from->name, reader->members);
	while (strncmp(name, "./", 2) == 0)
		name += 2;
	if (*name == '/' || name_has_parent_part(name))
		return FAIL(ST_DATA, "%s: member \"%s\" points outside the archive; absolute names and \"..\" are refused", reader->from->name, name);
	strcpy(reader->name, name);
	int n = snprintf(reader->sentence_name, sizeof reader->sentence_name, "%s: %s", reader->from->name, reader->name);
	(void)n; /* cut where it is too long: for sentences only */
	return ST_OK;
}

enum status archive_next(struct archive_reader *reader, bool *found, const char **name, uint64_t *bytes, struct stream **member)
{
	if (!reader->opened && archive_read_open(reader->archive, reader, NULL, block_read, NULL) != ARCHIVE_OK)
		return fail_archive(reader);
	reader->opened = true;
	for (;;) {
		struct archive_entry *entry;
		/* Through our own bounds, which libarchive's skipping would not meet. */
		if (reader->in_member)
			TRY(stream_drain(&reader->member));
		reader->in_member = false;
		int result = archive_read_next_header(reader->archive, &entry);
		if (result == ARCHIVE_EOF) {
			*found = false;
			return ST_OK;
		}
		if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
			return fail_archive(reader);
		if (++reader->members > reader->limits.members_max)
			return FAIL(ST_DATA, "%s: more than %u members", reader->from->name, reader->limits.members_max);
		TRY(member_name(reader, entry));
		stream_close(&reader->member);
		stream_open(&reader->member, member_fill, reader, reader->sentence_name);
		reader->in_member = true;
		if (archive_entry_filetype(entry) == AE_IFDIR)
			continue;
		if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) != NULL || archive_entry_hardlink_utf8(entry) != NULL) {
			log_warning("%s: passed over, a link or a device", reader->sentence_name);
			continue;
		}
		*name = reader->name;
		*bytes = archive_entry_size_is_set(entry) ? (uint64_t)archive_entry_size(entry) : UINT64_MAX;
		*member = &reader->member;
		*found = true;
		return ST_OK;
	}
}

void archive_close(struct archive_reader *reader)
{
	if (reader == NULL)
		return;
	stream_close(&reader->member);
	if (reader->archive != NULL)
		archive_read_free(reader->archive);
	free(reader);
}
