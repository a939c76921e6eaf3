/* checkpoint.c: see checkpoint.h. The table of tensors in the header is a pure function of the network, so a file is checked by
 * composing the table that ours must have and comparing text; only the metadata is parsed. */
#include "train/checkpoint.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "train/settings/settings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { HEADER_BYTES_MAX = 1 << 20, NAME_BYTES = 64, CHECKPOINTS_MAX = 4096, READ_BYTES = 1 << 20 };
#define FORMAT "smelt checkpoint 1"

/* --- the metadata: one table writes and reads it ------------------------------------------------------------------------------ */

struct metadata {
	struct run_identity identity;
	struct position position;
};

enum field_kind { FIELD_INT, FIELD_INT64, FIELD_UINT64, FIELD_DOUBLE, FIELD_BOOL, FIELD_STEM, FIELD_SETTINGS };

static const struct field {
	const char *name;
	enum field_kind kind;
	size_t offset;
} fields[] = {
#define F(kind, member) {#member, kind, offsetof(struct metadata, member)}
	F(FIELD_STEM, identity.stem),
	F(FIELD_INT, identity.image_size),
	F(FIELD_INT, identity.classes),
	F(FIELD_BOOL, identity.ema),
	F(FIELD_INT64, identity.steps_per_epoch),
	F(FIELD_SETTINGS, identity.settings),
	F(FIELD_UINT64, identity.data_fingerprint),
	F(FIELD_INT64, position.epoch),
	F(FIELD_INT64, position.step_in_epoch),
	F(FIELD_INT64, position.step),
	F(FIELD_DOUBLE, position.train.loss),
	F(FIELD_DOUBLE, position.train.images),
	F(FIELD_DOUBLE, position.train.top1),
	F(FIELD_DOUBLE, position.train.top5),
	F(FIELD_BOOL, position.finished),
	F(FIELD_DOUBLE, position.best_value),
	F(FIELD_INT64, position.best_epoch),
	F(FIELD_INT64, position.last.epoch),
	F(FIELD_INT64, position.last.step),
	F(FIELD_DOUBLE, position.last.train.loss),
	F(FIELD_DOUBLE, position.last.train.accuracy),
	F(FIELD_DOUBLE, position.last.train.top5_accuracy),
	F(FIELD_BOOL, position.last.validated),
	F(FIELD_DOUBLE, position.last.validation.loss),
	F(FIELD_DOUBLE, position.last.validation.accuracy),
	F(FIELD_DOUBLE, position.last.validation.top5_accuracy),
	F(FIELD_BOOL, position.last.ema),
	F(FIELD_DOUBLE, position.last.ema_accuracy),
	F(FIELD_DOUBLE, position.last.lr),
	F(FIELD_DOUBLE, position.last.images_per_second),
	F(FIELD_DOUBLE, position.last.epoch_seconds),
#undef F
};

/* A value as text; `buffer` is used where the metadata does not hold the text itself. */
static const char *field_text(const struct field *field, const struct metadata *metadata, char buffer[32])
{
	const void *member = (const char *)metadata + field->offset;
	switch (field->kind) {
	case FIELD_INT: snprintf(buffer, 32, "%d", *(const int *)member); break;
	case FIELD_INT64: snprintf(buffer, 32, "%" PRId64, *(const int64_t *)member); break;
	case FIELD_UINT64: snprintf(buffer, 32, "%016" PRIx64, *(const uint64_t *)member); break;
	case FIELD_DOUBLE: snprintf(buffer, 32, "%.17g", *(const double *)member); break;
	case FIELD_BOOL: return *(const bool *)member ? "true" : "false";
	case FIELD_STEM: return stem_name(*(const enum stem *)member);
	case FIELD_SETTINGS: return member;
	}
	return buffer;
}

static enum status metadata_write(struct text *text, const struct metadata *metadata)
{
	struct json_writer writer = {.text = text};
	json_write_object(&writer, NULL);
	json_write_string(&writer, "format", FORMAT);
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
		char buffer[32];
		json_write_string(&writer, fields[i].name, field_text(&fields[i], metadata, buffer));
	}
	return json_write_end_all(&writer);
}

static bool field_parse(const struct field *field, const char *value, struct metadata *metadata)
{
	void *member = (char *)metadata + field->offset;
	char *end = NULL;
	errno = 0;
	switch (field->kind) {
	case FIELD_INT: *(int *)member = (int)strtol(value, &end, 10); break;
	case FIELD_INT64: *(int64_t *)member = strtoll(value, &end, 10); break;
	case FIELD_UINT64: *(uint64_t *)member = strtoull(value, &end, 16); break;
	case FIELD_DOUBLE: *(double *)member = strtod(value, &end); return end != value && *end == '\0'; /* may be nan */
	case FIELD_BOOL: *(bool *)member = strcmp(value, "true") == 0; return *(bool *)member || strcmp(value, "false") == 0;
	case FIELD_STEM: return stem_parse(value, (enum stem *)member) == ST_OK;
	case FIELD_SETTINGS: return snprintf(member, sizeof metadata->identity.settings, "%s", value) < (int)sizeof metadata->identity.settings;
	}
	return errno == 0 && end != value && *end == '\0';
}

/* The string called `name`, or NULL. */
static const char *entry_string(const struct json *entries, const char *name)
{
	const struct json *entry = json_member(entries, name);
	return entry != NULL && json_kind(entry) == JSON_STRING ? json_string(entry) : NULL;
}

static enum status metadata_parse(const char *path, const char *header, size_t count, struct metadata *metadata)
{
	enum status status = ST_OK;
	struct json *document = NULL;
	TRY(json_parse(path, header, count, &document));
	const struct json *entries = json_member(document, "__metadata__");
	const char *format = entry_string(entries, "format");
	if (format == NULL || strcmp(format, FORMAT) != 0) {
		status = FAIL(ST_DATA, "%s: format \"%s\", expected \"%s\"", path, format != NULL ? format : "none", FORMAT);
		goto done;
	}
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
		const char *value = entry_string(entries, fields[i].name);
		if (value == NULL || !field_parse(&fields[i], value, metadata)) {
			status = FAIL(ST_DATA, "%s: metadata \"%s\" is \"%s\"", path, fields[i].name, value != NULL ? value : "missing");
			goto done;
		}
	}
done:
	json_free(document);
	return status;
}

/* --- the state ------------------------------------------------------------------------------------------------------------------ */

enum status state_alloc(struct training_state *state, const struct params_layout *layout, bool ema)
{
	TRY(params_alloc(&state->params, layout));
	state->momentum = calloc(layout->weights_count, sizeof *state->momentum);
	if (state->momentum == NULL)
		return FAIL(ST_MEMORY, "no memory for %zu values of momentum", layout->weights_count);
	return ema ? params_alloc(&state->ema, layout) : ST_OK;
}

void state_free(struct training_state *state)
{
	params_free(&state->params);
	params_free(&state->ema);
	free(state->momentum);
}

/* --- the tensors ---------------------------------------------------------------------------------------------------------------- */

/* The arenas of a state in file order; without an EMA the file ends before its two. */
static const struct section {
	const char *name;
	bool buffers;
	size_t offset; /* of the arena's pointer in struct training_state */
} sections[] = {
	{"weights", false, offsetof(struct training_state, params.weights)},
	{"buffers", true, offsetof(struct training_state, params.buffers)},
	{"momentum", false, offsetof(struct training_state, momentum)},
	{"ema_weights", false, offsetof(struct training_state, ema.weights)},
	{"ema_buffers", true, offsetof(struct training_state, ema.buffers)},
};

static int sections_count(bool ema)
{
	return ema ? 5 : 3;
}

static float *section_arena(const struct section *section, const struct training_state *state)
{
	float *arena;
	memcpy(&arena, (const char *)state + section->offset, sizeof arena);
	return arena;
}

static size_t section_floats(const struct params_layout *layout, const struct section *section)
{
	return section->buffers ? layout->buffers_count : layout->weights_count;
}

/* Writes the whole header: metadata, then the tensors' entries; each arena's tensors in the order of their offsets. */
static enum status header_write(struct text *text, const struct metadata *metadata, const struct params_layout *layout)
{
	int count = sections_count(metadata->identity.ema);
	uint64_t begin = 0;
	TRY(text_add(text, "{\"__metadata__\":"));
	TRY(metadata_write(text, metadata));
	for (int s = 0; s < count; s++) {
		size_t floats = section_floats(layout, &sections[s]);
		for (size_t offset = 0; offset < floats;) {
			int i = 0;
			while (param_is_buffer(&layout->all[i]) != sections[s].buffers || layout->all[i].offset != offset)
				i++;
			const struct param *param = &layout->all[i];
			TRY(text_printf(text, ",\"%s/%s\":{\"dtype\":\"F32\",\"shape\":[", sections[s].name, param->name));
			for (int d = 0; d < param->rank; d++)
				TRY(text_printf(text, "%s%" PRId64, d > 0 ? "," : "", param->shape[d]));
			uint64_t end = begin + param->count * sizeof(float);
			TRY(text_printf(text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, end));
			begin = end;
			offset += param->count;
		}
	}
	TRY(text_printf(text, ",\"batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, begin + 8));
	begin += 8;
	TRY(text_printf(text, ",\"crc32\":{\"dtype\":\"U32\",\"shape\":[],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}}", begin, begin + 4));
	while (text->length % 8 != 0)
		TRY(text_add(text, " "));
	return ST_OK;
}

/* What goes into a file besides its header. */
struct body {
	const struct params_layout *layout;
	const struct training_state *state;
	int sections;
};

static enum status body_append(struct file_writer *writer, const struct body *body)
{
	int64_t batches_tracked = body->state->params.batches_tracked;
	for (int s = 0; s < body->sections; s++)
		TRY(file_append(writer, section_arena(&sections[s], body->state), section_floats(body->layout, &sections[s]) * sizeof(float)));
	TRY(file_append(writer, &batches_tracked, sizeof batches_tracked));
	uint32_t crc = writer->crc;
	return file_append(writer, &crc, sizeof crc);
}

static enum status file_compose(const char *path, const struct text *header, const struct body *body)
{
	struct file_writer writer;
	TRY(file_begin(&writer, path, FILE_IGNORED_SUFFIX));
	uint64_t header_bytes = header->length;
	enum status status = file_append(&writer, &header_bytes, sizeof header_bytes);
	if (status == ST_OK)
		status = file_append(&writer, header->data, header->length);
	if (status == ST_OK)
		status = body_append(&writer, body);
	if (status == ST_OK)
		return file_commit(&writer);
	file_abandon(&writer);
	return status;
}

/* --- the directory -------------------------------------------------------------------------------------------------------------- */

#define NAME_FORMAT "ckpt-%05" PRId64 "-%09" PRId64 ".safetensors"

bool checkpoint_name_parse(const char *name, int64_t *epoch, int64_t *step)
{
	int64_t e = 0, s = 0;
	char again[NAME_BYTES];
	if (sscanf(name, "ckpt-%18" SCNd64 "-%18" SCNd64 ".safetensors", &e, &s) != 2 || e < 0 || s < 0)
		return false;
	snprintf(again, sizeof again, NAME_FORMAT, e, s);
	if (strcmp(name, again) != 0)
		return false;
	if (epoch != NULL)
		*epoch = e;
	if (step != NULL)
		*step = s;
	return true;
}

struct entry {
	char name[NAME_BYTES];
	int64_t epoch, step;
};

struct listing {
	struct entry entries[CHECKPOINTS_MAX];
	int count;
};

static int newest_first(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	if (x->step != y->step)
		return x->step < y->step ? 1 : -1;
	return x->epoch < y->epoch ? 1 : x->epoch > y->epoch ? -1 : 0;
}

/* Our own checkpoints in `directory`, newest first. Files may come and go while we look; only names count here. */
static enum status directory_list(const char *directory, struct listing **listing)
{
	struct listing *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory to list %s", directory);
	DIR *stream = opendir(directory);
	if (stream == NULL && errno != ENOENT) {
		free(made);
		return FAIL(ST_DISK, "%s: the checkpoint directory cannot be listed: %s", directory, strerror(errno));
	}
	struct dirent *entry;
	while (stream != NULL && (entry = readdir(stream)) != NULL && made->count < CHECKPOINTS_MAX)
		if (checkpoint_name_parse(entry->d_name, &made->entries[made->count].epoch, &made->entries[made->count].step)) {
			snprintf(made->entries[made->count].name, NAME_BYTES, "%s", entry->d_name);
			made->count++;
		}
	if (stream != NULL)
		closedir(stream);
	qsort(made->entries, (size_t)made->count, sizeof made->entries[0], newest_first);
	*listing = made;
	return ST_OK;
}

static bool upload_running(const char *path)
{
	char marker[4200];
	snprintf(marker, sizeof marker, "%s.sagemaker-uploading", path);
	bool started = access(marker, F_OK) == 0;
	snprintf(marker, sizeof marker, "%s.sagemaker-uploaded", path);
	return started && access(marker, F_OK) != 0;
}

/* Removes our oldest checkpoints until at most `keep` remain. Those past `step` go before all others: they are damaged, or of a run
 * that was begun again, and must not cost this run its own. A file that is gone already is fine, and so is
 * a directory of such a name: it is not ours. */
static enum status directory_prune(const char *directory, int64_t step, int keep)
{
	struct listing *listing = NULL;
	TRY(directory_list(directory, &listing));
	enum status status = ST_OK;
	int past = 0;
	while (past < listing->count && listing->entries[past].step > step)
		past++;
	for (int order = keep; order < listing->count && status == ST_OK; order++) {
		char path[4096];
		status = path_join(path, sizeof path, directory, listing->entries[(past + order) % listing->count].name);
		if (status == ST_OK && !upload_running(path) && unlink(path) != 0 && errno != ENOENT && errno != EISDIR)
			status = FAIL(ST_DISK, "%s: an old checkpoint cannot be removed: %s", path, strerror(errno));
	}
	free(listing);
	return status;
}

enum status checkpoint_write(const char *directory, const struct params_layout *layout, const struct run_identity *identity,
	const struct position *position, const struct training_state *state, int keep)
{
	char name[NAME_BYTES], path[4096];
	struct metadata metadata = {.identity = *identity, .position = *position};
	struct text header = {.length_max = HEADER_BYTES_MAX};
	const struct body body = {.layout = layout, .state = state, .sections = sections_count(identity->ema)};
	enum status status;
	TRY(directory_make(directory));
	snprintf(name, sizeof name, NAME_FORMAT, position->epoch, position->step);
	TRY_DONE(path_join(path, sizeof path, directory, name));
	TRY_DONE(header_write(&header, &metadata, layout));
	status = file_compose(path, &header, &body);
	if (status == ST_DISK) {
		/* Room for a new one is worth more than an old one, as long as one good one stays. */
		log_warning("%s; older checkpoints are removed and the write is tried again", status_message());
		TRY_DONE(directory_prune(directory, position->step, 1));
		status = file_compose(path, &header, &body);
	}
	if (status == ST_OK)
		status = directory_prune(directory, position->step, keep < 1 ? 1 : keep);
done:
	text_free(&header);
	return status;
}

/* --- reading back --------------------------------------------------------------------------------------------------------------- */

struct reader {
	const char *path;
	int fd;
	uint32_t crc;
};

/* Reads exactly `count` bytes. Fewer: ST_DATA. */
static enum status reader_take(struct reader *reader, void *to, size_t count)
{
	uint8_t *bytes = to;
	for (size_t done = 0; done < count;) {
		size_t want = count - done < READ_BYTES ? count - done : READ_BYTES;
		ssize_t n = read(reader->fd, bytes + done, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return FAIL(ST_DATA, "%s: cannot be read: %s", reader->path, strerror(errno));
		if (n == 0)
			return FAIL(ST_DATA, "%s: ends %zu bytes early", reader->path, count - done);
		reader->crc = (uint32_t)crc32(reader->crc, bytes + done, (uInt)n);
		done += (size_t)n;
	}
	return ST_OK;
}

/* The whole file's checksum holds: what is in it is what was written. */
static enum status file_verify(const char *path, int fd)
{
	off_t size = lseek(fd, 0, SEEK_END);
	if (size < 16 || lseek(fd, 0, SEEK_SET) != 0)
		return FAIL(ST_DATA, "%s: %lld bytes, too short for a checkpoint", path, (long long)size);
	uint8_t *buffer = malloc(READ_BYTES);
	if (buffer == NULL)
		return FAIL(ST_MEMORY, "no memory to read %s", path);
	struct reader reader = {path, fd, 0};
	enum status status = ST_OK;
	uint64_t left = (uint64_t)size - 4;
	while (left > 0 && status == ST_OK) {
		size_t part = left < READ_BYTES ? (size_t)left : READ_BYTES;
		status = reader_take(&reader, buffer, part);
		left -= part;
	}
	free(buffer);
	uint32_t found = reader.crc, written = 0;
	if (status == ST_OK)
		status = reader_take(&reader, &written, sizeof written);
	if (status == ST_OK && found != written)
		status = FAIL(ST_DATA, "%s: checksum %08x, expected %08x", path, found, written);
	return status;
}

static enum status identity_check(const char *path, const struct run_identity *wanted, const struct run_identity *found)
{
	if (found->stem != wanted->stem || found->image_size != wanted->image_size || found->classes != wanted->classes)
		return FAIL(ST_SETTINGS, "%s: checkpoint of a network with stem=%s, image_size=%d, %d classes; this job has stem=%s, image_size=%d, %d classes; "
			"use the same settings and data, another checkpoint location, or resume=false", path, stem_name(found->stem), found->image_size,
			found->classes, stem_name(wanted->stem), wanted->image_size, wanted->classes);
	return ST_OK;
}

static enum status file_load(const char *path, const struct params_layout *layout, const struct run_identity *identity, struct metadata *metadata,
	struct training_state *state)
{
	enum status status = ST_OK;
	struct text expected = {.length_max = HEADER_BYTES_MAX};
	char *header = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return FAIL(ST_DATA, "%s: cannot be opened: %s", path, strerror(errno));
	struct reader reader = {path, fd, 0};
	uint64_t header_bytes = 0;
	TRY_DONE(file_verify(path, fd));
	if (lseek(fd, 0, SEEK_SET) != 0) {
		status = FAIL(ST_DATA, "%s: cannot be rewound: %s", path, strerror(errno));
		goto done;
	}
	TRY_DONE(reader_take(&reader, &header_bytes, sizeof header_bytes));
	if (header_bytes > HEADER_BYTES_MAX) {
		status = FAIL(ST_DATA, "%s: header of %" PRIu64 " bytes, at most %d expected", path, header_bytes, (int)HEADER_BYTES_MAX);
		goto done;
	}
	header = malloc(header_bytes + 1);
	if (header == NULL) {
		status = FAIL(ST_MEMORY, "no memory for the header of %s", path);
		goto done;
	}
	TRY_DONE(reader_take(&reader, header, header_bytes));
	header[header_bytes] = '\0';
	TRY_DONE(metadata_parse(path, header, header_bytes, metadata));
	TRY_DONE(identity_check(path, identity, &metadata->identity));
	TRY_DONE(header_write(&expected, metadata, layout));
	if (expected.length != header_bytes || memcmp(expected.data, header, header_bytes) != 0) {
		status = FAIL(ST_DATA, "%s: its table of tensors is not that of this network", path);
		goto done;
	}
	for (int s = 0; s < sections_count(metadata->identity.ema); s++) {
		float *arena = section_arena(&sections[s], state);
		if (arena == NULL) /* an EMA that this run does not keep */
			break;
		TRY_DONE(reader_take(&reader, arena, section_floats(layout, &sections[s]) * sizeof(float)));
	}
	if (lseek(fd, -12, SEEK_END) < 0) {
		status = FAIL(ST_DATA, "%s: cannot be read: %s", path, strerror(errno));
		goto done;
	}
	TRY_DONE(reader_take(&reader, &state->params.batches_tracked, 8));
done:
	free(header);
	text_free(&expected);
	close(fd);
	return status;
}

/* What differs but does not forbid going on. */
static enum status differences_warn(const char *name, const struct run_identity *identity, struct metadata *found)
{
	struct position *position = &found->position;
	struct text differences = {0};
	enum status status = settings_differences(identity->settings, found->identity.settings, &differences);
	if (status == ST_OK && differences.length > 0) {
		position->finished = false; /* by the older settings; the loop decides by the present ones */
		log_warning("checkpoint %s was made with other settings: %s; training goes on with the present ones", name, text_string(&differences));
	}
	text_free(&differences);
	TRY(status);
	if (found->identity.data_fingerprint != identity->data_fingerprint)
		log_warning("checkpoint %s was made with other training data; training goes on with the present data", name);
	bool same_order = found->identity.steps_per_epoch == identity->steps_per_epoch && found->identity.data_fingerprint == identity->data_fingerprint;
	if (!same_order && position->step_in_epoch > 0 && !position->finished) {
		log_warning("checkpoint %s lies within epoch %" PRId64 ", whose steps are others now; that epoch is begun again", name, position->epoch + 1);
		position->step_in_epoch = 0;
		position->train = (struct counters){0};
	}
	return ST_OK;
}

enum status checkpoint_resume(const char *directory, const struct params_layout *layout, const struct run_identity *identity,
	struct position *position, struct training_state *state, bool *found)
{
	struct listing *listing = NULL;
	TRY(directory_list(directory, &listing));
	enum status status = ST_OK;
	*found = false;
	for (int i = 0; i < listing->count && !*found; i++) {
		char path[4096];
		struct metadata metadata = {0};
		TRY_DONE(path_join(path, sizeof path, directory, listing->entries[i].name));
		status = file_load(path, layout, identity, &metadata, state);
		if (status == ST_DATA) {
			log_warning("checkpoint passed over: %s", status_message());
			status = ST_OK;
			continue;
		}
		if (status != ST_OK)
			goto done;
		if (identity->ema && !metadata.identity.ema) {
			log_warning("checkpoint %s has no moving average; it starts from the weights", listing->entries[i].name);
			memcpy(state->ema.weights, state->params.weights, layout->weights_count * sizeof(float));
			memcpy(state->ema.buffers, state->params.buffers, layout->buffers_count * sizeof(float));
		}
		TRY_DONE(differences_warn(listing->entries[i].name, identity, &metadata));
		*position = metadata.position;
		*found = true;
	}
	if (!*found && listing->count > 0)
		log_warning("none of the %d checkpoints in %s is whole; training starts from the beginning", listing->count, directory);
done:
	free(listing);
	return status;
}
