/* channels.c: see channels.h. */
#include "train/data/channels.h"

#include "core/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Channels that SageMaker's SDK brings along for itself: never data. */
static const char *const platform_names[] = {"code", "sm_drivers"};

static const struct {
	const char *names, *text;
} roles[CHANNEL_ROLES] = {
#define X(role, names, text) {names, text},
	CHANNEL_ROLE_LIST(X)
#undef X
};

static bool name_is_valid(const char *name)
{
	size_t length = strlen(name);
	return length >= 1 && length < CHANNEL_NAME_BYTES && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

static enum status channel_add(struct channels *channels, const struct opt_ml *opt_ml, const char *name, struct channel **channel)
{
	if (channels->count == CHANNELS_MAX)
		return FAIL(ST_SETTINGS, "%s: more than %d channels", opt_ml->data, CHANNELS_MAX);
	struct channel *new = &channels->all[channels->count];
	*new = (struct channel){0};
	TRY(path_join(new->path, sizeof new->path, opt_ml->data, name));
	strcpy(new->name, name);
	channels->count++;
	*channel = new;
	return ST_OK;
}

/* One member of inputdataconfig.json: *is is whether it says `word`; absent is no. */
static enum status member_is(const struct json *about, const char *channel, const char *member, const char *word, const char *others, bool *is)
{
	const struct json *value = json_member(about, member);
	*is = false;
	if (value == NULL || json_kind(value) == JSON_NULL)
		return ST_OK;
	if (json_kind(value) == JSON_STRING) {
		const char *text = json_string(value);
		*is = strcmp(text, word) == 0;
		if (*is || *text == '\0')
			return ST_OK;
		for (const char *other = others; *other != '\0'; other += strlen(other) + 1)
			if (strcmp(text, other) == 0)
				return ST_OK;
		return FAIL(ST_SETTINGS, "inputdataconfig.json: channel %s: %s is \"%s\", which is not known", channel, member, text);
	}
	return FAIL(ST_SETTINGS, "inputdataconfig.json: channel %s: %s is %s, expected a string", channel, member, json_kind_text(json_kind(value)));
}

static enum status channels_from_config(const struct opt_ml *opt_ml, const struct json *config, struct channels *channels)
{
	for (const struct json *about = json_first(config); about != NULL; about = json_next(about)) {
		const char *name = json_name(about);
		struct channel *channel;
		if (!name_is_valid(name))
			return FAIL(ST_SETTINGS, "inputdataconfig.json: \"%s\" is no channel name (1 to %d of A-Z a-z 0-9 . _ -)", name, CHANNEL_NAME_BYTES - 1);
		if (json_kind(about) != JSON_OBJECT)
			return FAIL(ST_SETTINGS, "inputdataconfig.json: channel %s is %s, expected an object", name, json_kind_text(json_kind(about)));
		TRY(channel_add(channels, opt_ml, name, &channel));
		TRY(member_is(about, name, "TrainingInputMode", "Pipe", "File\0FastFile\0", &channel->pipe));
		TRY(member_is(about, name, "RecordWrapperType", "RecordIO", "None\0", &channel->recordio));
		TRY(member_is(about, name, "S3DistributionType", "ShardedByS3Key", "FullyReplicated\0", &channel->sharded));
		if (!channel->pipe && !directory_exists(channel->path))
			return FAIL(ST_DATA, "channel %s: its directory %s is missing", name, channel->path);
	}
	return ST_OK;
}

/* Directories only: SageMaker puts a file NAME-manifest beside each channel, and a Pipe channel has none. */
static enum status channels_from_directory(const struct opt_ml *opt_ml, struct channels *channels)
{
	enum status status = ST_OK;
	DIR *directory = opendir(opt_ml->data);
	if (directory == NULL)
		return errno == ENOENT ? ST_OK : FAIL(ST_DATA, "%s: cannot be listed: %s", opt_ml->data, strerror(errno));
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(directory);
		if (entry == NULL) {
			if (errno != 0)
				status = FAIL(ST_DATA, "%s: cannot be listed: %s", opt_ml->data, strerror(errno));
			break;
		}
		char path[OPT_ML_PATH_BYTES];
		struct channel *channel;
		if (entry->d_name[0] == '.' || !name_is_valid(entry->d_name))
			continue;
		TRY_DONE(path_join(path, sizeof path, opt_ml->data, entry->d_name));
		if (directory_exists(path))
			TRY_DONE(channel_add(channels, opt_ml, entry->d_name, &channel));
	}
done:
	closedir(directory);
	return status;
}

static int compare_channels(const void *a, const void *b)
{
	return strcmp(((const struct channel *)a)->name, ((const struct channel *)b)->name);
}

static int channel_index(const struct channels *channels, const char *name, size_t length)
{
	for (int i = 0; i < channels->count; i++)
		if (strlen(channels->all[i].name) == length && memcmp(channels->all[i].name, name, length) == 0)
			return i;
	return -1;
}

/* The first of a comma list of names that is a channel, or -1. */
static int channel_first(const struct channels *channels, const char *names)
{
	while (*names != '\0') {
		size_t length = strcspn(names, ",");
		int found = channel_index(channels, names, length);
		if (found >= 0)
			return found;
		names += length;
		names += strspn(names, ", ");
	}
	return -1;
}

static void roles_give(struct channels *channels)
{
	bool taken[CHANNELS_MAX] = {0};
	for (size_t i = 0; i < sizeof platform_names / sizeof *platform_names; i++) {
		int at = channel_index(channels, platform_names[i], strlen(platform_names[i]));
		if (at >= 0)
			taken[at] = true;
	}
	for (int role = 0; role < CHANNEL_ROLES; role++) {
		channels->role[role] = channel_first(channels, roles[role].names);
		if (channels->role[role] >= 0)
			taken[channels->role[role]] = true;
	}
	if (channels->role[CHANNEL_TRAIN] >= 0)
		return;
	int only = -1, others = 0;
	for (int i = 0; i < channels->count; i++)
		if (!taken[i]) {
			only = i;
			others++;
		}
	if (others == 1)
		channels->role[CHANNEL_TRAIN] = only;
}

enum status channels_find(const struct opt_ml *opt_ml, struct channels *channels)
{
	enum status status = ST_OK;
	struct json *config = NULL;
	struct channels found = {0};
	TRY(opt_ml_config(opt_ml, "inputdataconfig.json", &config));
	TRY_DONE(config != NULL ? channels_from_config(opt_ml, config, &found) : channels_from_directory(opt_ml, &found));
	qsort(found.all, (size_t)found.count, sizeof found.all[0], compare_channels);
	roles_give(&found);
	*channels = found;
done:
	json_free(config);
	return status;
}

enum status channels_require(const struct channels *channels, enum channel_role role, const struct channel **channel)
{
	const struct channel *found = channels_of(channels, role);
	char have[CHANNELS_MAX * (CHANNEL_NAME_BYTES + 2)] = "";
	if (found == NULL) {
		for (int i = 0; i < channels->count; i++) {
			strcat(have, i > 0 ? ", " : "");
			strcat(have, channels->all[i].name);
		}
		return FAIL(ST_DATA, "no channel with %s: looked for %s%s; this job has %s", roles[role].text, roles[role].names,
			role == CHANNEL_TRAIN ? ", or a single channel of any name" : "", channels->count > 0 ? have : "no channel");
	}
	*channel = found;
	return ST_OK;
}

const struct channel *channels_of(const struct channels *channels, enum channel_role role)
{
	return channels->role[role] >= 0 ? &channels->all[channels->role[role]] : NULL;
}
