/* description.c: see description.h. */
#include "serve/description.h"

#include "core/base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ARCHITECTURE "resnet34"
/* 65535 classes with names of some length. */
#define DESCRIPTION_BYTES_MAX ((size_t)16 << 20)

/* A member of the right kind; NULL in *json when it is not there. */
static enum status member_find(const char *path, const struct json *object, const char *name, enum json_kind kind, const struct json **member)
{
	const struct json *found = json_member(object, name);
	if (found != NULL && json_kind(found) != kind)
		return FAIL(ST_DATA, "%s: \"%s\" is %s, expected %s", path, name, json_kind_text(json_kind(found)), json_kind_text(kind));
	*member = found;
	return ST_OK;
}

static enum status integer_read(const char *path, const struct json *object, const char *name, int least, int most, int *value)
{
	const struct json *member;
	TRY(member_find(path, object, name, JSON_NUMBER, &member));
	if (member == NULL)
		return ST_OK;
	double number = json_number(member);
	if (!(number >= least && number <= most) || number != floor(number))
		return FAIL(ST_DATA, "%s: \"%s\" is %g, expected a whole number from %d to %d", path, name, number, least, most);
	*value = (int)number;
	return ST_OK;
}

/* Of red, green and blue. */
static enum status channels_read(const char *path, const struct json *object, const char *name, double least, float values[3])
{
	const struct json *member = json_member(object, name);
	int count = 0;
	bool good = member != NULL && json_kind(member) == JSON_ARRAY && json_count(member) == 3;
	for (const struct json *item = good ? json_first(member) : NULL; item != NULL; item = json_next(item)) {
		good = good && json_kind(item) == JSON_NUMBER && json_number(item) >= least && json_number(item) <= 1000;
		values[count++] = good ? (float)json_number(item) : 0;
	}
	if (!good)
		return FAIL(ST_DATA, "%s: \"normalization\": \"%s\" is not a list of three numbers from %g to 1000", path, name, least);
	return ST_OK;
}

static enum status names_check(const char *path, const struct description *description)
{
	if (description->class_names == NULL)
		return ST_OK;
	for (const struct json *name = json_first(description->class_names); name != NULL; name = json_next(name))
		if (json_kind(name) != JSON_STRING)
			return FAIL(ST_DATA, "%s: \"class_names\" holds %s, expected text", path, json_kind_text(json_kind(name)));
	if (description->classes != 0 && (size_t)description->classes != json_count(description->class_names))
		return FAIL(ST_DATA, "%s: \"class_names\" has %zu names, \"classes\" is %d", path, json_count(description->class_names), description->classes);
	return ST_OK;
}

static enum status members_read(const char *path, struct description *description)
{
	const struct json *json = description->json, *architecture, *stem, *normalization;
	if (json_kind(json) != JSON_OBJECT)
		return FAIL(ST_DATA, "%s: it holds %s, expected an object", path, json_kind_text(json_kind(json)));
	TRY(member_find(path, json, "architecture", JSON_STRING, &architecture));
	if (architecture != NULL && strcmp(json_string(architecture), ARCHITECTURE) != 0)
		return FAIL(ST_DATA, "%s: \"architecture\" is \"%s\", only " ARCHITECTURE " is served here", path, json_string(architecture));
	TRY(member_find(path, json, "stem", JSON_STRING, &stem));
	description->stem = stem == NULL ? NULL : json_string(stem);
	TRY(integer_read(path, json, "image_size", RESNET_IMAGE_SIZE_MIN, RESNET_IMAGE_SIZE_MAX, &description->image_size));
	TRY(integer_read(path, json, "classes", 2, RESNET_CLASSES_MAX, &description->classes));
	TRY(member_find(path, json, "class_names", JSON_ARRAY, &description->class_names));
	TRY(names_check(path, description));
	TRY(member_find(path, json, "normalization", JSON_OBJECT, &normalization));
	description->normalized = normalization != NULL;
	if (normalization == NULL)
		return ST_OK;
	TRY(channels_read(path, normalization, "mean", -1000, description->normalization.mean));
	return channels_read(path, normalization, "std", 1e-6, description->normalization.std);
}

enum status description_open(const char *directory, struct description *description)
{
	char path[4096];
	uint8_t *bytes;
	size_t count;
	struct description read = {0};
	TRY(path_join(path, sizeof path, directory, "model.json"));
	if (!file_exists(path)) {
		*description = read;
		return ST_OK;
	}
	TRY(file_read(path, DESCRIPTION_BYTES_MAX, &bytes, &count));
	enum status status = json_parse(path, bytes, count, &read.json);
	free(bytes);
	TRY(status);
	status = members_read(path, &read);
	if (status != ST_OK)
		description_close(&read);
	else
		*description = read;
	return status;
}

void description_close(struct description *description)
{
	json_free(description->json);
	*description = (struct description){0};
}
