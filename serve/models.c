/* models.c: see models.h. One lock guards the list, the entries' states and counts; it is not held while a model is read or freed. */
#define _GNU_SOURCE /* malloc_trim */
#include "serve/models.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/log.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum entry_state { ENTRY_LOADING, ENTRY_LOADED, ENTRY_UNLOADING };

struct entry {
	struct entry *next; /* by rising name */
	char *name, *url;
	enum entry_state state;
	struct model *model;
	size_t users;
};

struct models {
	struct models_config config;
	pthread_mutex_t lock;
	pthread_cond_t released;
	struct entry *first;
	size_t bytes; /* of loaded models */
};

/* The link that points to the entry, or to where it belongs. */
static struct entry **find(struct models *models, const char *name)
{
	struct entry **link = &models->first;
	while (*link != NULL && strcmp((*link)->name, name) < 0)
		link = &(*link)->next;
	return link;
}

static struct entry *find_loaded(struct models *models, const char *name)
{
	struct entry *entry = *find(models, name);
	return entry != NULL && strcmp(entry->name, name) == 0 && entry->state == ENTRY_LOADED ? entry : NULL;
}

static void entry_free(struct entry *entry)
{
	if (entry == NULL)
		return;
	free(entry->name);
	free(entry->url);
	free(entry);
}

static void unlink_entry(struct models *models, struct entry *entry)
{
	*find(models, entry->name) = entry->next;
}

enum status models_open(const struct models_config *config, struct models **models)
{
	struct models *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for the list of models");
	made->config = *config;
	pthread_mutex_init(&made->lock, NULL);
	pthread_cond_init(&made->released, NULL);
	*models = made;
	return ST_OK;
}

void models_close(struct models *models)
{
	if (models == NULL)
		return;
	for (struct entry *entry = models->first, *next; entry != NULL; entry = next) {
		next = entry->next;
		MUST(entry->users == 0);
		models->config.close(entry->model);
		entry_free(entry);
	}
	pthread_cond_destroy(&models->released);
	pthread_mutex_destroy(&models->lock);
	free(models);
}

/* --- load -------------------------------------------------------------------------------------------------------------- */

/* Puts an entry that loads into the list. */
static enum http_code reserve(struct models *models, const char *name, const char *url, struct entry **entry)
{
	struct entry *made = calloc(1, sizeof *made);
	if (made == NULL || (made->name = strdup(name)) == NULL || (made->url = strdup(url)) == NULL) {
		entry_free(made);
		return REFUSE(HTTP_NO_MEMORY, "no memory to load model \"%s\"", name);
	}
	pthread_mutex_lock(&models->lock);
	struct entry **link = find(models, name);
	bool taken = *link != NULL && strcmp((*link)->name, name) == 0;
	if (!taken) {
		made->next = *link;
		*link = made;
	}
	pthread_mutex_unlock(&models->lock);
	if (taken) {
		entry_free(made);
		return REFUSE(HTTP_CONFLICT, "model \"%s\" is already loaded", name);
	}
	*entry = made;
	return HTTP_OK;
}

/* The message of this thread's last failure without the directory's path. */
static void hide(const char *directory, char *sentence, size_t bytes)
{
	const char *from = status_message();
	size_t length = strlen(directory), used = 0;
	while (*from != '\0' && used + 1 < bytes) {
		if (length > 0 && strncmp(from, directory, length) == 0) {
			from += length;
			if (*from == '/')
				from++;
		} else {
			sentence[used++] = *from++;
		}
	}
	sentence[used] = '\0';
}

static enum http_code open_model(struct models *models, const char *name, const char *directory, struct model **model)
{
	struct model_options options = models->config.options;
	pthread_mutex_lock(&models->lock);
	size_t used = models->bytes;
	pthread_mutex_unlock(&models->lock);
	if (!directory_exists(directory))
		return REFUSE(HTTP_NOT_FOUND, "model \"%s\": there is no such directory", name);
	if (options.bytes_max != 0) {
		if (used >= options.bytes_max)
			return REFUSE(HTTP_NO_MEMORY, "model \"%s\": %zu MB of %zu MB are in use by other models", name, used >> 20, options.bytes_max >> 20);
		options.bytes_max -= used;
	}
	enum status status = models->config.open(directory, &options, models->config.threads, model);
	if (status == ST_OK)
		return HTTP_OK;
	log_error("model=%s not loaded: %s", name, status_message());
	char sentence[STATUS_MESSAGE_BYTES_MAX];
	hide(directory, sentence, sizeof sentence);
	return REFUSE(status == ST_MEMORY ? HTTP_NO_MEMORY : HTTP_BAD_REQUEST, "model \"%s\": %s", name, sentence);
}

enum http_code models_load(struct models *models, const char *name, const char *url, const char *directory)
{
	struct entry *entry = NULL;
	struct model *model = NULL;
	ALLOW(reserve(models, name, url, &entry));
	enum http_code code = open_model(models, name, directory, &model);
	pthread_mutex_lock(&models->lock);
	size_t limit = models->config.options.bytes_max;
	if (code == HTTP_OK && limit != 0 && models->bytes + model->bytes > limit) /* another one was quicker */
		code = REFUSE(HTTP_NO_MEMORY, "model \"%s\": %zu MB more than the %zu MB for all models", name, (models->bytes + model->bytes - limit) >> 20, limit >> 20);
	if (code == HTTP_OK) {
		entry->model = model;
		entry->state = ENTRY_LOADED;
		models->bytes += model->bytes;
		metrics_move(models->config.metrics, GAUGE_MODELS, 1);
		metrics_move(models->config.metrics, GAUGE_MODEL_BYTES, (int64_t)model->bytes);
	} else {
		unlink_entry(models, entry);
	}
	pthread_mutex_unlock(&models->lock);
	if (code != HTTP_OK) {
		models->config.close(model);
		entry_free(entry);
	}
	return code;
}

/* --- use --------------------------------------------------------------------------------------------------------------- */

enum http_code models_acquire(struct models *models, const char *name, struct model **model)
{
	pthread_mutex_lock(&models->lock);
	struct entry *entry = find_loaded(models, name);
	if (entry != NULL) {
		entry->users++;
		*model = entry->model;
	}
	pthread_mutex_unlock(&models->lock);
	return entry != NULL ? HTTP_OK : REFUSE(HTTP_NOT_FOUND, "model \"%s\" is not loaded", name);
}

void models_release(struct models *models, struct model *model)
{
	pthread_mutex_lock(&models->lock);
	struct entry *entry = models->first;
	while (entry != NULL && entry->model != model)
		entry = entry->next;
	MUST(entry != NULL && entry->users > 0);
	entry->users--;
	if (entry->users == 0 && entry->state == ENTRY_UNLOADING)
		pthread_cond_broadcast(&models->released);
	pthread_mutex_unlock(&models->lock);
}

enum http_code models_unload(struct models *models, const char *name)
{
	pthread_mutex_lock(&models->lock);
	struct entry *entry = find_loaded(models, name);
	if (entry == NULL) {
		pthread_mutex_unlock(&models->lock);
		return REFUSE(HTTP_NOT_FOUND, "model \"%s\" is not loaded", name);
	}
	entry->state = ENTRY_UNLOADING; /* nobody new finds it */
	while (entry->users > 0)
		pthread_cond_wait(&models->released, &models->lock);
	struct model *model = entry->model;
	entry->model = NULL; /* the next model may get the same address */
	pthread_mutex_unlock(&models->lock);

	size_t bytes = model->bytes;
	models->config.close(model);
	malloc_trim(0);

	pthread_mutex_lock(&models->lock);
	unlink_entry(models, entry);
	models->bytes -= bytes;
	pthread_mutex_unlock(&models->lock);
	metrics_move(models->config.metrics, GAUGE_MODELS, -1);
	metrics_move(models->config.metrics, GAUGE_MODEL_BYTES, -(int64_t)bytes);
	entry_free(entry);
	return HTTP_OK;
}

/* --- show -------------------------------------------------------------------------------------------------------------- */

static void write_entry(struct json_writer *json, const struct entry *entry)
{
	json_write_object(json, NULL);
	json_write_string(json, "modelName", entry->name);
	json_write_string(json, "modelUrl", entry->url);
	json_write_end(json);
}

enum status models_page(struct models *models, const char *token, size_t limit, struct text *text)
{
	struct json_writer json = {.text = text};
	json_write_object(&json, NULL);
	json_write_array(&json, "models");
	pthread_mutex_lock(&models->lock);
	const struct entry *entry = models->first, *shown = NULL;
	size_t count = 0;
	for (; entry != NULL; entry = entry->next) {
		if (entry->state != ENTRY_LOADED || (token != NULL && strcmp(entry->name, token) <= 0))
			continue;
		if (count == limit)
			break;
		write_entry(&json, entry);
		shown = entry;
		count++;
	}
	json_write_end(&json);
	if (entry != NULL && shown != NULL)
		json_write_string(&json, "nextPageToken", shown->name);
	pthread_mutex_unlock(&models->lock);
	return json_write_end_all(&json);
}

enum http_code models_describe(struct models *models, const char *name, struct text *text)
{
	struct json_writer json = {.text = text};
	pthread_mutex_lock(&models->lock);
	const struct entry *entry = find_loaded(models, name);
	if (entry != NULL)
		write_entry(&json, entry);
	pthread_mutex_unlock(&models->lock);
	if (entry == NULL)
		return REFUSE(HTTP_NOT_FOUND, "model \"%s\" is not loaded", name);
	return json_write_end_all(&json) == ST_OK ? HTTP_OK : HTTP_INTERNAL;
}
