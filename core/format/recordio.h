/* recordio.h: the records of a RecordIO stream (MXNet's framing, which SageMaker wraps Pipe channels with too).
 *
 * In: a stream. Out: one stream a record, read in place, so a record may be larger than memory. What a record holds is left to the
 * caller. Source: formats.md §5.1 of the design notes. */
#pragma once

#include "core/format/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RECORDIO_NAME_BYTES = 4096 + 64 };

/* Members are the reader's own. Must not be moved while open: the record's stream points into it. */
struct recordio {
	struct stream *from;
	struct stream record;
	uint64_t records; /* how many were started */
	uint32_t left;    /* bytes of the present part that were not read */
	uint32_t padding; /* behind the present part */
	unsigned magic_left; /* bytes of a magic that must come out between two parts */
	bool open, more; /* inside a record; parts follow the present one */
	char name[RECORDIO_NAME_BYTES]; /* "channel train: record 3" */
};

/* True if these first bytes (4) are RecordIO's magic. */
bool recordio_sniff(const uint8_t *bytes, size_t count);

/* `from` is lent until recordio_close; nothing is read yet. */
void recordio_open(struct recordio *reader, struct stream *from);

/* Goes to the next record (what is unread of the previous one is passed over). *found = false where the stream ends between two
 * records. *record is valid until the next call. ST_DATA on a wrong magic, a wrong order of parts or an end inside a record. */
enum status recordio_next(struct recordio *reader, bool *found, struct stream **record);

void recordio_close(struct recordio *reader);

/* An image record (MXNet's `.rec` files): a header of 24 bytes, some labels, a picture file. Source: formats.md §5.2. */
struct recordio_image {
	double label;
	const uint8_t *bytes; /* the picture, inside the record */
	size_t count;
};

enum { RECORDIO_IMAGE_LABELS_MAX = 1024, RECORDIO_IMAGE_HEADER_BYTES_MAX = 24 + 4 * RECORDIO_IMAGE_LABELS_MAX };

/* Takes a record apart; false if it is too short for its header or has more than RECORDIO_IMAGE_LABELS_MAX labels. Of several labels
 * the first counts. Neither label nor picture is looked at. Works on a record's first bytes too. */
bool recordio_image_parse(const uint8_t *bytes, size_t count, struct recordio_image *image);
