/* opt_ml.c: see opt_ml.h. */
#include "core/base/opt_ml.h"

#include "core/base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLATFORM_BASE "/opt/ml"

static enum status below(char *path, const char *directory, const char *name)
{
	return path_join(path, OPT_ML_PATH_BYTES, directory, name);
}

static enum status base_find(char *base)
{
	const char *word = getenv("SAGEMAKER_BASE_DIR");
	if (word == NULL || word[0] == '\0')
		word = PLATFORM_BASE;
	char here[OPT_ML_PATH_BYTES] = "";
	if (word[0] != '/' && getcwd(here, sizeof here) == NULL)
		return FAIL(ST_SETTINGS, "SAGEMAKER_BASE_DIR=%.200s: relative, and the current directory is not known: %s", word, strerror(errno));
	if (word[0] != '/')
		TRY(below(base, here, word));
	else if (strlen(word) < OPT_ML_PATH_BYTES)
		memcpy(base, word, strlen(word) + 1);
	else
		return FAIL(ST_SETTINGS, "SAGEMAKER_BASE_DIR of %zu characters, at most %d fit", strlen(word), OPT_ML_PATH_BYTES - 1);
	for (size_t length = strlen(base); length > 1 && base[length - 1] == '/';)
		base[--length] = '\0';
	return ST_OK;
}

enum status opt_ml_open(struct opt_ml *opt_ml)
{
	struct opt_ml made = {.base = ""};
	TRY(base_find(made.base));
	TRY(below(made.config, made.base, "input/config"));
	TRY(below(made.data, made.base, "input/data"));
	TRY(below(made.model, made.base, "model"));
	TRY(below(made.output, made.base, "output"));
	TRY(below(made.output_data, made.base, "output/data"));
	TRY(below(made.failure, made.base, "output/failure"));
	TRY(below(made.checkpoints, made.base, "checkpoints"));
	const char *metrics = getenv("SAGEMAKER_METRICS_DIRECTORY");
	if (metrics != NULL && strlen(metrics) >= OPT_ML_PATH_BYTES)
		return FAIL(ST_SETTINGS, "SAGEMAKER_METRICS_DIRECTORY of %zu characters, at most %d fit", strlen(metrics), OPT_ML_PATH_BYTES - 1);
	if (metrics != NULL)
		memcpy(made.metrics, metrics, strlen(metrics) + 1);
	*opt_ml = made;
	return ST_OK;
}

/* LocalPath of one config file into `path`, which stays as it is when the file or the member is missing. */
static enum status local_path(const struct opt_ml *opt_ml, const char *file, char *path, bool *present)
{
	struct json *json = NULL;
	enum status status = ST_OK;
	TRY(opt_ml_config(opt_ml, file, &json));
	*present = json != NULL;
	const struct json *member = json_member(json, "LocalPath");
	if (member == NULL || json_kind(member) == JSON_NULL)
		goto done;
	if (json_kind(member) != JSON_STRING || json_string(member)[0] != '/') {
		status = FAIL(ST_SETTINGS, "%s/%s: LocalPath must be an absolute path, found %s", opt_ml->config, file,
			json_kind(member) == JSON_STRING ? json_string(member) : json_kind_text(json_kind(member)));
		goto done;
	}
	const char *word = json_string(member);
	bool platform = text_starts_with(word, PLATFORM_BASE "/");
	if (platform)
		TRY_DONE(below(path, opt_ml->base, word + sizeof PLATFORM_BASE));
	else if (strlen(word) < OPT_ML_PATH_BYTES)
		memcpy(path, word, strlen(word) + 1);
	else
		status = FAIL(ST_SETTINGS, "%s/%s: LocalPath of %zu characters, at most %d fit", opt_ml->config, file, strlen(word), OPT_ML_PATH_BYTES - 1);
done:
	json_free(json);
	return status;
}

enum status opt_ml_configure(struct opt_ml *opt_ml)
{
	bool tensorboard;
	TRY(local_path(opt_ml, "checkpointconfig.json", opt_ml->checkpoints, &opt_ml->checkpoints_synced));
	TRY(local_path(opt_ml, "tensorboardoutputconfig.json", opt_ml->tensorboard, &tensorboard));
	/* The service fills in the default, but says nothing about files that other tools write. */
	if (tensorboard && opt_ml->tensorboard[0] == '\0')
		TRY(below(opt_ml->tensorboard, opt_ml->output, "tensorboard"));
	return ST_OK;
}

enum status opt_ml_make(const struct opt_ml *opt_ml)
{
	TRY(directory_make(opt_ml->output_data));
	return directory_make(opt_ml->model);
}

enum status opt_ml_config(const struct opt_ml *opt_ml, const char *file, struct json **json)
{
	char path[OPT_ML_PATH_BYTES];
	TRY(below(path, opt_ml->config, file));
	if (access(path, F_OK) != 0 && errno == ENOENT) {
		*json = NULL;
		return ST_OK;
	}
	uint8_t *text = NULL;
	size_t count = 0;
	struct json *made = NULL;
	enum status status = file_read(path, JSON_CONFIG_BYTES_MAX, &text, &count);
	if (status == ST_OK && strspn((const char *)text, " \t\r\n") < count)
		status = json_parse(path, text, count, &made);
	free(text);
	if (status == ST_OK && made != NULL && json_kind(made) != JSON_OBJECT)
		status = FAIL(ST_SETTINGS, "%s: must be a JSON object, found %s", path, json_kind_text(json_kind(made)));
	if (status != ST_OK) {
		json_free(made);
		return status == ST_DATA ? ST_SETTINGS : status;
	}
	*json = made;
	return ST_OK;
}
