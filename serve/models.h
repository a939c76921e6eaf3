/* models.h: the models that can be asked, by name, and who still uses them.
 *
 * A single-model endpoint has one entry, MODELS_ONLY. Loading reads and plans outside the lock, so others are served meanwhile. A model is
 * freed by models_unload once the last user released it. Any thread; load and unload take long and belong on a worker. */
#pragma once

#include "core/base/text.h"
#include "serve/metrics.h"
#include "serve/model.h"
#include "serve/refuse.h"

#include <stddef.h>

#define MODELS_ONLY "model"

struct models;

struct models_config {
	struct model_options options; /* bytes_max: of all models together, 0: no limit. What it points to is lent */
	struct threads *threads;      /* lent */
	struct metrics *metrics;      /* lent */
	/* model_open and model_close, or a test's. */
	enum status (*open)(const char *directory, const struct model_options *options, struct threads *threads, struct model **model);
	void (*close)(struct model *model);
};

enum status models_open(const struct models_config *config, struct models **models);
/* Closes what is loaded; nobody may hold one. Accepts NULL. */
void models_close(struct models *models);

/* HTTP_CONFLICT: the name is taken (also while it loads or unloads); HTTP_NO_MEMORY: over the limit; HTTP_NOT_FOUND: no such directory;
 * HTTP_BAD_REQUEST: no usable model. The sentence does not name the directory. `url` is what models_page shows. */
enum http_code models_load(struct models *models, const char *name, const char *url, const char *directory);

/* Waits until nobody uses the model, frees it, gives the memory back to the system. HTTP_NOT_FOUND. */
enum http_code models_unload(struct models *models, const char *name);

/* Lends a model until models_release. HTTP_NOT_FOUND. */
enum http_code models_acquire(struct models *models, const char *name, struct model **model);
void models_release(struct models *models, struct model *model);

/* The models after `token` in the order of their names (NULL: from the first), `limit` at most, as
 * {"models": [{"modelName", "modelUrl"}, …], "nextPageToken"}; the token is there when there are more. ST_MEMORY. */
enum status models_page(struct models *models, const char *token, size_t limit, struct text *text);
/* {"modelName", "modelUrl"}. HTTP_NOT_FOUND. */
enum http_code models_describe(struct models *models, const char *name, struct text *text);
