/* reader.c: see reader.h. */
#include "train/data/reader.h"

#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "core/format/archive.h"
#include "core/format/image.h"
#include "core/format/recordio.h"
#include "core/model/labels.h"
#include "core/model/resnet.h"
#include "train/data/pipe.h"
#include "train/data/walk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What one pickle or one text may have. A pickle of CIFAR-100's training images has 155 MB. */
#define PICKLE_BYTES_MAX ((size_t)2 << 30)
#define NAMES_BYTES_MAX ((size_t)4 << 20)

/* A file, an archive's member, or a record. */
struct item {
	struct stream *stream; /* its name is the one for sentences */
	const char *name;      /* in the channel or archive, "" if it has none (FIFO, record): says set, class and role */
	const char *piece;     /* in the channel, archives counted as folders: says the order */
	uint64_t size;         /* UINT64_MAX: not known */
	enum set set;          /* what it is for, unless its own name says otherwise */
	bool in_records, in_archive;
};

/* Images of one item on their way into the collection. */
struct sink {
	struct collection *collection;
	const struct item *item;
	enum set set;
	bool started;
	enum cifar_kind kind;
};

static enum status item_read(struct collection *collection, const struct item *item);

/* --- what a name says ------------------------------------------------------------------------------------------------ */

static const struct {
	const char *folder;
	enum set set;
} set_folders[] = {
	{"train", SET_TRAIN}, {"training", SET_TRAIN}, {"val", SET_VALIDATION}, {"valid", SET_VALIDATION},
	{"validation", SET_VALIDATION}, {"test", SET_TEST}, {"eval", SET_TEST},
};

/* The set that the innermost telling folder of name[0..length) names, or `otherwise`. */
static enum set set_of_folders(const char *name, size_t length, enum set otherwise)
{
	for (size_t at = 0; at < length;) {
		size_t part = strcspn(name + at, "/");
		if (part > length - at)
			part = length - at;
		for (size_t i = 0; i < sizeof set_folders / sizeof *set_folders; i++)
			if (strlen(set_folders[i].folder) == part && memcmp(set_folders[i].folder, name + at, part) == 0)
				otherwise = set_folders[i].set;
		at += part + 1;
	}
	return otherwise;
}

static size_t folders_length(const char *name)
{
	const char *slash = strrchr(name, '/');
	return slash != NULL ? (size_t)(slash - name) : 0;
}

static enum set set_of_file(const char *name, enum set otherwise)
{
	enum cifar_role role = cifar_role_find(name);
	if (role == CIFAR_ROLE_TRAIN || role == CIFAR_ROLE_TEST)
		return role == CIFAR_ROLE_TRAIN ? SET_TRAIN : SET_TEST;
	return set_of_folders(name, folders_length(name), otherwise);
}

/* --- CIFAR ----------------------------------------------------------------------------------------------------------- */

static enum status sink_take(void *context, unsigned label, const uint8_t *planes)
{
	struct sink *sink = context;
	struct collection *collection = sink->collection;
	uint8_t *pixels;
	if (!sink->started) {
		TRY(collection_kind_set(collection, sink->kind == CIFAR_100 ? COLLECTION_CIFAR_100 : COLLECTION_CIFAR_10, sink->item->stream->name));
		TRY(collection_piece(collection, sink->set, sink->item->piece));
		sink->started = true;
	}
	TRY(collection_add(collection, sink->set, label, &pixels));
	if (collection->size != CIFAR_SIZE)
		return image_resize(planes, CIFAR_SIZE, CIFAR_SIZE, collection->size, pixels);
	memcpy(pixels, planes, CIFAR_IMAGE_BYTES);
	return ST_OK;
}

static enum status binary_read(struct collection *collection, const struct item *item, bool *known)
{
	struct sink sink = {.collection = collection, .item = item, .set = set_of_file(item->name, item->set)};
	const uint8_t *head;
	size_t n;
	TRY(stream_peek(item->stream, STREAM_PEEK_BYTES_MAX, &head, &n));
	sink.kind = cifar_binary_sniff(head, n, item->size, labels_cifar100_coarse);
	enum cifar_role role = cifar_role_find(item->name);
	/* What is called train or test is meant to be data: its first wrong record is an error, not a reason to pass it over. */
	if (sink.kind == CIFAR_NONE && (role == CIFAR_ROLE_TRAIN || role == CIFAR_ROLE_TEST || *item->name == '\0' || text_ends_with(item->name, ".bin")))
		sink.kind = strstr(item->name, "_batch") != NULL ? CIFAR_10 : CIFAR_100;
	*known = sink.kind != CIFAR_NONE;
	return *known ? cifar_binary_read(item->stream, sink.kind, labels_cifar100_coarse, sink_take, &sink) : ST_OK;
}

static enum status pickle_read(struct collection *collection, const struct item *item)
{
	enum status status = ST_OK;
	struct sink sink = {.collection = collection, .item = item, .set = set_of_file(item->name, item->set)};
	uint8_t *bytes = NULL;
	size_t count, names_before = collection->names.count;
	TRY(stream_read_all(item->stream, PICKLE_BYTES_MAX, &bytes, &count));
	if (count <= NAMES_BYTES_MAX) {
		TRY_DONE(cifar_names_unpickle(bytes, count, item->stream->name, &collection->names));
		if (collection->names.count != names_before || cifar_role_find(item->name) == CIFAR_ROLE_NAMES_PICKLE)
			goto done;
	}
	status = cifar_pickle_read(bytes, count, item->stream->name, labels_cifar100_coarse, &sink.kind, sink_take, &sink);
done:
	free(bytes);
	return status;
}

static enum status names_read(struct collection *collection, const struct item *item)
{
	uint8_t *bytes;
	size_t count;
	TRY(stream_read_all(item->stream, NAMES_BYTES_MAX, &bytes, &count));
	enum status status = cifar_names_parse(bytes, count, item->stream->name, &collection->names);
	free(bytes);
	return status;
}

/* A record has no name: lines of text, 10 or 100 of them, are the names of the classes; other text (the coarse names) is nothing. */
static enum status record_text_read(struct collection *collection, const struct item *item, bool *known)
{
	const uint8_t *head;
	size_t n, lines = 0;
	TRY(stream_peek(item->stream, STREAM_PEEK_BYTES_MAX, &head, &n));
	*known = n < STREAM_PEEK_BYTES_MAX && text_is_utf8(head, n);
	for (size_t i = 0; i < n; i++) {
		*known = *known && (head[i] >= ' ' || strchr("\t\r\n", head[i]) != NULL) && head[i] != 0;
		lines += head[i] == '\n';
	}
	if (*known && (lines == CIFAR100_CLASSES || lines == CIFAR10_CLASSES))
		return names_read(collection, item);
	return ST_OK;
}

/* --- pictures -------------------------------------------------------------------------------------------------------- */

static enum status picture_read(struct collection *collection, const struct item *item)
{
	enum status status = ST_OK;
	const char *sentence_name = item->stream->name;
	uint8_t *bytes = NULL, *pixels;
	size_t count, folders = folders_length(item->name), class_at = folders;
	unsigned label;
	if (folders == 0)
		return FAIL(ST_DATA, "%s: a picture outside a folder; the folder's name is the picture's class", sentence_name);
	while (class_at > 0 && item->name[class_at - 1] != '/')
		class_at--;
	enum set set = set_of_folders(item->name, class_at, item->set);
	TRY(collection_kind_set(collection, COLLECTION_FOLDERS, sentence_name));
	TRY(collection_class(collection, item->name + class_at, folders - class_at, sentence_name, &label));
	TRY(stream_read_all(item->stream, IMAGE_FILE_BYTES_MAX, &bytes, &count));
	TRY_DONE(collection_piece(collection, set, item->piece));
	TRY_DONE(collection_add(collection, set, label, &pixels));
	status = image_decode(bytes, count, sentence_name, collection->size, pixels);
done:
	free(bytes);
	return status;
}

static bool picture_record_sniff(const uint8_t *head, size_t count)
{
	struct recordio_image image;
	return recordio_image_parse(head, count, &image) && image_sniff(image.bytes, image.count);
}

static enum status picture_record_read(struct collection *collection, const struct item *item)
{
	enum status status = ST_OK;
	uint8_t *bytes = NULL, *pixels;
	size_t count;
	struct recordio_image image;
	TRY(collection_kind_set(collection, COLLECTION_NUMBERED, item->stream->name));
	TRY(stream_read_all(item->stream, IMAGE_FILE_BYTES_MAX, &bytes, &count));
	if (!recordio_image_parse(bytes, count, &image) || !(image.label >= 0 && image.label < RESNET_CLASSES_MAX) || image.label != floor(image.label)) {
		status = FAIL(ST_DATA, "%s: label %g; a class is a whole number from 0 to %d", item->stream->name, image.label, RESNET_CLASSES_MAX - 1);
		goto done;
	}
	TRY_DONE(collection_piece(collection, item->set, item->piece));
	TRY_DONE(collection_add(collection, item->set, (unsigned)image.label, &pixels));
	status = image_decode(image.bytes, image.count, item->stream->name, collection->size, pixels);
done:
	free(bytes);
	return status;
}

/* --- what holds others ----------------------------------------------------------------------------------------------- */

static enum status archive_read(struct collection *collection, const struct item *item)
{
	enum status status = ST_OK;
	struct archive_reader *reader;
	if (item->in_archive)
		return FAIL(ST_DATA, "%s: an archive inside an archive is not read", item->stream->name);
	TRY(archive_open(item->stream, ARCHIVE_LIMITS_USUAL, &reader));
	for (;;) {
		struct item member = {.set = set_of_file(item->name, item->set), .in_records = item->in_records, .in_archive = true};
		char piece[2 * OPT_ML_PATH_BYTES];
		bool found;
		TRY_DONE(archive_next(reader, &found, &member.name, &member.size, &member.stream));
		if (!found)
			break;
		if (walk_ignores(member.name))
			continue;
		TRY_DONE(path_join(piece, sizeof piece, item->piece, member.name));
		member.piece = piece;
		TRY_DONE(item_read(collection, &member));
	}
done:
	archive_close(reader);
	return status;
}

static enum status records_read(struct collection *collection, const struct item *item)
{
	enum status status = ST_OK;
	struct recordio reader;
	recordio_open(&reader, item->stream);
	for (;;) {
		struct item record = {.name = "", .piece = item->piece, .size = UINT64_MAX, .set = set_of_file(item->name, item->set),
			.in_records = true, .in_archive = item->in_archive};
		bool found;
		TRY_DONE(recordio_next(&reader, &found, &record.stream));
		if (!found)
			break;
		TRY_DONE(item_read(collection, &record));
	}
done:
	recordio_close(&reader);
	return status;
}

/* --- one item, one channel ------------------------------------------------------------------------------------------- */

static enum status item_read(struct collection *collection, const struct item *item)
{
	const uint8_t *head;
	size_t n;
	bool known = true;
	TRY(stream_peek(item->stream, RECORDIO_IMAGE_HEADER_BYTES_MAX + 64, &head, &n));
	if (n == 0)
		return ST_OK;
	if (!item->in_records && recordio_sniff(head, n))
		return records_read(collection, item);
	if (archive_sniff(head, n))
		return archive_read(collection, item);
	if (item->in_records && picture_record_sniff(head, n))
		return picture_record_read(collection, item);
	enum cifar_role role = cifar_role_find(item->name);
	if (role == CIFAR_ROLE_OTHER || role == CIFAR_ROLE_COARSE_NAMES)
		return ST_OK;
	if (role == CIFAR_ROLE_NAMES)
		return names_read(collection, item);
	if (image_sniff(head, n))
		return picture_read(collection, item);
	if (cifar_pickle_sniff(head, n))
		return pickle_read(collection, item);
	if (item->in_records) {
		TRY(record_text_read(collection, item, &known));
		if (known)
			return ST_OK;
	}
	TRY(binary_read(collection, item, &known));
	if (!known)
		log_warning("%s: passed over, neither CIFAR nor a picture nor an archive", item->stream->name);
	return ST_OK;
}

static enum status directory_read(const struct channel *channel, enum set own, struct collection *collection)
{
	enum status status = ST_OK;
	struct walk walk;
	struct stream stream = {.fd = -1};
	TRY(walk_directory(channel->path, &walk));
	for (size_t i = 0; i < walk.count; i++) {
		char path[OPT_ML_PATH_BYTES];
		struct stat about;
		TRY_DONE(path_join(path, sizeof path, channel->path, walk.names[i]));
		TRY_DONE(stream_open_file(&stream, path));
		stream.stopped = collection->stopped;
		struct item item = {.stream = &stream, .name = walk.names[i], .piece = walk.names[i], .set = own,
			.size = fstat(stream.fd, &about) == 0 ? (uint64_t)about.st_size : UINT64_MAX};
		TRY_DONE(item_read(collection, &item));
		stream_close(&stream);
	}
done:
	stream_close(&stream);
	walk_free(&walk);
	return status;
}

static enum status fifo_read(const struct channel *channel, enum set own, struct collection *collection)
{
	struct pipe_reader pipe;
	TRY(pipe_open(&pipe, channel, collection->stopped));
	struct item item = {.stream = &pipe.stream, .name = "", .piece = "", .size = UINT64_MAX, .set = own};
	const uint8_t *head;
	size_t n;
	enum status status = stream_peek(item.stream, 4, &head, &n);
	if (status == ST_OK && channel->recordio)
		status = n > 0 ? records_read(collection, &item) : ST_OK;
	else if (status == ST_OK)
		status = item_read(collection, &item);
	/* What lies behind an archive's end must be read too, or the writer would see a broken pipe. */
	if (status == ST_OK)
		status = stream_drain(item.stream);
	pipe_close(&pipe);
	return status;
}

enum status channel_read(const struct channel *channel, enum set own, struct collection *collection)
{
	enum status status = channel->pipe ? fifo_read(channel, own, collection) : directory_read(channel, own, collection);
	if (status == ST_OK && collection->kind == COLLECTION_EMPTY && !collection->may_be_empty)
		status = FAIL(ST_DATA, "%s%s: no image in it; expected CIFAR files, folders of pictures, RecordIO, or an archive of them", channel->path,
			channel->pipe ? "_0" : "");
	if (status == ST_OK)
		status = collection_finish(collection);
	return status == ST_DATA ? status_prefix(status, "channel %s", channel->name) : status;
}
