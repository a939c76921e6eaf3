/* artifact.c: see artifact.h. */
#include "train/artifact.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/version.h"
#include "core/format/pth_write.h"
#include "core/format/safetensors.h"
#include "core/format/weights.h"
#include "core/model/state_dict.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CREATED_BY "smelt"
/* Beside the tensors' bytes: headers, directory entries, padding, model.json with the names of the classes. */
enum { OVERHEAD_BYTES = 256 << 10, CLASS_NAME_BYTES_USUAL = 64 };

/* --- weight files --- */

static enum status safetensors_format_write(struct file_writer *writer, const struct artifact_content *content, const struct state_dict *state)
{
	char image_size[16], classes[16], version[64];
	snprintf(image_size, sizeof image_size, "%d", content->network->image_size);
	snprintf(classes, sizeof classes, "%d", content->network->head.classes);
	snprintf(version, sizeof version, CREATED_BY " %s", smelt_version());
	const struct safetensors_metadata metadata[] = {{"format", "pt"}, {"architecture", "resnet34"}, {"stem", stem_name(content->network->stem)},
		{"image_size", image_size}, {"classes", classes}, {"created_by", version}};
	return safetensors_write(writer, state->views, (size_t)state->count, metadata, sizeof metadata / sizeof *metadata);
}

static enum status pth_format_write(struct file_writer *writer, const struct artifact_content *content, const struct state_dict *state)
{
	(void)content;
	return pth_write(writer, "model", state->views, (size_t)state->count);
}

static const struct format {
	unsigned bit;
	const char *name;
	enum status (*write)(struct file_writer *writer, const struct artifact_content *content, const struct state_dict *state);
} formats[] = {
	{ARTIFACT_SAFETENSORS, "model.safetensors", safetensors_format_write},
	{ARTIFACT_PTH, "model.pth", pth_format_write},
};

enum { FORMATS = sizeof formats / sizeof *formats };

/* What model.json says of a file that was written. */
struct written {
	uint64_t bytes;
	uint32_t crc;
};

static enum status weights_write(const char *directory, const struct format *format, const struct artifact_content *content, const struct state_dict *state,
	struct written *written)
{
	char path[4096];
	struct file_writer writer;
	TRY(path_join(path, sizeof path, directory, format->name));
	TRY(file_begin(&writer, path, FILE_TEMPORARY_SUFFIX));
	enum status status = format->write(&writer, content, state);
	*written = (struct written){.bytes = writer.bytes, .crc = writer.crc};
	if (status != ST_OK) {
		file_abandon(&writer);
		return status;
	}
	TRY(file_commit(&writer));
	return weights_verify(path, state->views, (size_t)state->count);
}

/* Removes `path` if it is there. */
static enum status stale_remove(const char *path)
{
	if (unlink(path) == 0)
		log_info("%s of an earlier run removed: artifact_formats leaves it out", path);
	else if (errno != ENOENT)
		return FAIL(ST_DISK, "%s: a file of an earlier run cannot be removed: %s", path, strerror(errno));
	return ST_OK;
}

/* --- model.json --- */

/* A float as the shortest decimal that reads back as the same float: 0.507, not 0.5070000290870667. */
static void json_write_float(struct json_writer *json, float value)
{
	char text[32];
	double decimal = (double)value;
	for (int digits = 1; digits <= 9; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, (double)value);
		decimal = strtod(text, NULL);
		if ((float)decimal == value)
			break;
	}
	json_write_number(json, NULL, decimal);
}

static void json_write_floats(struct json_writer *json, const char *name, const float *values, int count)
{
	json_write_array(json, name);
	for (int i = 0; i < count; i++)
		json_write_float(json, values[i]);
	json_write_end(json);
}

static enum status description_make(struct text *text, const struct artifact_content *content, const struct written *written)
{
	struct json_writer json = {.text = text, .lines = true};
	json_write_object(&json, NULL);
	json_write_string(&json, "architecture", "resnet34");
	json_write_string(&json, "stem", stem_name(content->network->stem));
	json_write_integer(&json, "image_size", content->network->image_size);
	json_write_integer(&json, "classes", content->network->head.classes);
	json_write_array(&json, "class_names");
	for (int i = 0; i < content->network->head.classes; i++)
		json_write_string(&json, NULL, content->class_names[i]);
	json_write_end(&json);
	json_write_object(&json, "normalization"); /* of red, green, blue in 0 … 1 */
	json_write_floats(&json, "mean", content->normalization.mean, 3);
	json_write_floats(&json, "std", content->normalization.std, 3);
	json_write_end(&json);
	json_write_string(&json, "recipe", content->recipe);
	json_write_object(&json, "metrics");
	for (size_t i = 0; i < content->metrics_count; i++)
		json_write_number(&json, content->metrics[i].name, content->metrics[i].value);
	json_write_end(&json);
	json_write_array(&json, "files");
	for (int i = 0; i < FORMATS; i++) {
		char crc[16];
		if (!(content->formats & formats[i].bit))
			continue;
		snprintf(crc, sizeof crc, "%08x", (unsigned)written[i].crc);
		json_write_object(&json, NULL);
		json_write_string(&json, "name", formats[i].name);
		json_write_integer(&json, "bytes", (int64_t)written[i].bytes);
		json_write_string(&json, "crc32", crc);
		json_write_end(&json);
	}
	json_write_end(&json);
	json_write_string(&json, "created_by", CREATED_BY);
	json_write_string(&json, "version", smelt_version());
	json_write_string(&json, "commit", smelt_commit());
	TRY(json_write_end_all(&json));
	return text_add(text, "\n");
}

static enum status description_write(const char *directory, const struct artifact_content *content, const struct written *written)
{
	char path[4096];
	struct text text = {0};
	uint8_t *bytes = NULL;
	size_t count;
	enum status status = ST_OK;
	TRY(path_join(path, sizeof path, directory, "model.json"));
	TRY_DONE(description_make(&text, content, written));
	TRY_DONE(file_write(path, text.data, text.length));
	status = file_read(path, text.length, &bytes, &count);
	if (status == ST_DATA || (status == ST_OK && (count != text.length || memcmp(bytes, text.data, count) != 0)))
		status = FAIL(ST_DISK, "%s: reading back what was just written: it differs", path);
done:
	free(bytes);
	text_free(&text);
	return status;
}

/* --- all of it --- */

static enum status space_check(const char *directory, const struct artifact_content *content)
{
	struct statvfs about;
	uint64_t weights_bytes = (content->layout->weights_count + content->layout->buffers_count) * sizeof(float), wanted = OVERHEAD_BYTES;
	wanted += (uint64_t)content->network->head.classes * CLASS_NAME_BYTES_USUAL;
	for (int i = 0; i < FORMATS; i++)
		wanted += content->formats & formats[i].bit ? weights_bytes : 0;
	/* Some file systems do not know; then the writes will tell. */
	if (statvfs(directory, &about) != 0 || about.f_blocks == 0)
		return ST_OK;
	uint64_t available = (uint64_t)about.f_bavail * about.f_frsize;
	if (available < wanted)
		return FAIL(ST_DISK, "%s: no space left: the model needs %.1f MB and %.1f MB are free; enlarge the volume (VolumeSizeInGB) or ask for fewer artifact_formats",
			directory, (double)wanted / 1e6, (double)available / 1e6);
	return ST_OK;
}

enum status artifact_write(const char *model_directory, const struct artifact_content *content)
{
	struct written written[FORMATS] = {{0}};
	TRY(directory_make(model_directory));
	TRY(space_check(model_directory, content));
	struct state_dict *state = malloc(sizeof *state);
	if (state == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for a list of tensors", model_directory);
	state_dict_make(state, content->layout, content->params);
	enum status status = ST_OK;
	for (int i = 0; i < FORMATS && status == ST_OK; i++) {
		char path[4096];
		TRY_DONE(path_join(path, sizeof path, model_directory, formats[i].name));
		if (content->formats & formats[i].bit)
			TRY_DONE(weights_write(model_directory, &formats[i], content, state, &written[i]));
		else
			TRY_DONE(stale_remove(path));
	}
	TRY_DONE(description_write(model_directory, content, written));
done:
	free(state);
	return status;
}
