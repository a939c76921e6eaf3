/* Goal: the registry of models: load, use, page, unload; 409, 404, 507; a model is freed when its last user let go and never before; loads do
 * not hold up users. Method: models are doubles, opened by a function that reads its orders from the directory's name. */
#include "serve/models.h"

#include "test/unit/scratch.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static _Atomic int alive;
static struct metrics metrics;

/* "…/bad": no model; "…/slow": waits for the gate; else a model of a megabyte. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int at_gate;

static enum status open_double(const char *directory, const struct model_options *options, struct threads *threads, struct model **model)
{
	(void)threads;
	const size_t bytes = 1 << 20;
	if (strstr(directory, "/bad") != NULL)
		return FAIL(ST_DATA, "%s/model.safetensors: 3 bytes, expected more", directory);
	if (strstr(directory, "/slow") != NULL) {
		atomic_fetch_add(&at_gate, 1);
		pthread_mutex_lock(&gate);
		pthread_mutex_unlock(&gate);
	}
	if (options->bytes_max != 0 && bytes > options->bytes_max)
		return FAIL(ST_MEMORY, "1 MB, %zu bytes are left", options->bytes_max);
	struct model *made = calloc(1, sizeof *made);
	assert_non_null(made);
	made->bytes = bytes;
	atomic_fetch_add(&alive, 1);
	*model = made;
	return ST_OK;
}

static void close_double(struct model *model)
{
	if (model == NULL)
		return;
	atomic_fetch_sub(&alive, 1);
	free(model);
}

static struct models *start(size_t bytes_max)
{
	struct models *models = NULL;
	struct models_config config = {.options = {.bytes_max = bytes_max}, .metrics = &metrics, .open = open_double, .close = close_double};
	metrics_init(&metrics);
	assert_int_equal(models_open(&config, &models), ST_OK);
	return models;
}

static enum http_code load(struct models *models, const char *name)
{
	char directory[512];
	snprintf(directory, sizeof directory, "%s/%s", scratch, name);
	if (mkdir(directory, 0755) != 0)
		assert_true(directory_exists(directory));
	return models_load(models, name, "/opt/ml/models/x/model", directory);
}

static void load_use_unload(void **state)
{
	(void)state;
	struct models *models = start(0);
	struct model *model = NULL, *again = NULL;
	assert_int_equal(models_acquire(models, "a", &model), HTTP_NOT_FOUND);
	assert_null(model);
	assert_int_equal(load(models, "a"), HTTP_OK);
	assert_int_equal(load(models, "a"), HTTP_CONFLICT);
	assert_int_equal(load(models, "b"), HTTP_OK);
	assert_int_equal(alive, 2);
	assert_int_equal(metrics.gauges[GAUGE_MODELS], 2);
	assert_int_equal(metrics.gauges[GAUGE_MODEL_BYTES], 2 << 20);
	assert_int_equal(models_acquire(models, "a", &model), HTTP_OK);
	assert_int_equal(models_acquire(models, "a", &again), HTTP_OK);
	assert_ptr_equal(model, again);
	models_release(models, model);
	models_release(models, again);
	assert_int_equal(models_unload(models, "a"), HTTP_OK);
	assert_int_equal(alive, 1);
	assert_int_equal(metrics.gauges[GAUGE_MODEL_BYTES], 1 << 20);
	assert_int_equal(models_unload(models, "a"), HTTP_NOT_FOUND);
	assert_int_equal(models_acquire(models, "a", &model), HTTP_NOT_FOUND);
	assert_int_equal(load(models, "a"), HTTP_OK);
	models_close(models);
	assert_int_equal(alive, 0);
}

static void faults_of_a_load(void **state)
{
	(void)state;
	struct models *models = start(0);
	assert_int_equal(models_load(models, "gone", "url", "/no/such/place"), HTTP_NOT_FOUND);
	assert_null(strstr(status_message(), "/no/such"));
	assert_int_equal(load(models, "bad"), HTTP_BAD_REQUEST);
	assert_null(strstr(status_message(), scratch));
	assert_non_null(strstr(status_message(), "model.safetensors: 3 bytes"));
	assert_int_equal(load(models, "bad"), HTTP_BAD_REQUEST); /* the name is free again */
	assert_int_equal(alive, 0);
	models_close(models);
}

static void memory_has_a_limit(void **state)
{
	(void)state;
	struct models *models = start(2 << 20);
	assert_int_equal(load(models, "a"), HTTP_OK);
	assert_int_equal(load(models, "b"), HTTP_OK);
	assert_int_equal(load(models, "c"), HTTP_NO_MEMORY);
	assert_int_equal(alive, 2);
	assert_int_equal(models_unload(models, "a"), HTTP_OK);
	assert_int_equal(load(models, "c"), HTTP_OK);
	models_close(models);
	assert_int_equal(alive, 0);
}

struct caller {
	pthread_t thread;
	struct models *models;
	const char *name;
	enum http_code code;
	_Atomic bool done;
};

static void *unload_thread(void *context)
{
	struct caller *caller = context;
	caller->code = models_unload(caller->models, caller->name);
	atomic_store(&caller->done, true);
	return NULL;
}

static void *load_thread(void *context)
{
	struct caller *caller = context;
	caller->code = load(caller->models, caller->name);
	atomic_store(&caller->done, true);
	return NULL;
}

static void unload_waits_for_users(void **state)
{
	(void)state;
	struct models *models = start(0);
	struct model *model = NULL, *other = NULL;
	assert_int_equal(load(models, "a"), HTTP_OK);
	assert_int_equal(models_acquire(models, "a", &model), HTTP_OK);
	struct caller caller = {.models = models, .name = "a"};
	assert_int_equal(pthread_create(&caller.thread, NULL, unload_thread, &caller), 0);
	while (models_acquire(models, "a", &other) == HTTP_OK) /* until the unload has begun */
		models_release(models, other);
	assert_false(atomic_load(&caller.done));
	assert_int_equal(alive, 1);
	assert_int_equal(model->bytes, 1 << 20); /* still there */
	assert_int_equal(load(models, "a"), HTTP_CONFLICT);
	models_release(models, model);
	pthread_join(caller.thread, NULL);
	assert_int_equal(caller.code, HTTP_OK);
	assert_int_equal(alive, 0);
	models_close(models);
}

static void a_load_holds_nobody_up(void **state)
{
	(void)state;
	struct models *models = start(0);
	struct model *model = NULL;
	assert_int_equal(load(models, "a"), HTTP_OK);
	pthread_mutex_lock(&gate);
	struct caller caller = {.models = models, .name = "slow"};
	assert_int_equal(pthread_create(&caller.thread, NULL, load_thread, &caller), 0);
	while (atomic_load(&at_gate) == 0)
		sched_yield();
	assert_int_equal(load(models, "slow"), HTTP_CONFLICT);
	assert_int_equal(models_acquire(models, "slow", &model), HTTP_NOT_FOUND);
	assert_int_equal(models_unload(models, "slow"), HTTP_NOT_FOUND);
	assert_int_equal(models_acquire(models, "a", &model), HTTP_OK);
	models_release(models, model);
	assert_false(atomic_load(&caller.done));
	pthread_mutex_unlock(&gate);
	pthread_join(caller.thread, NULL);
	assert_int_equal(caller.code, HTTP_OK);
	assert_int_equal(models_acquire(models, "slow", &model), HTTP_OK);
	models_release(models, model);
	models_close(models);
}

static void pages(void **state)
{
	(void)state;
	struct models *models = start(0);
	struct text text = {0};
	assert_int_equal(models_page(models, NULL, 10, &text), ST_OK);
	assert_string_equal(text_string(&text), "{\"models\": []}");
	assert_int_equal(load(models, "c"), HTTP_OK);
	assert_int_equal(load(models, "a"), HTTP_OK);
	assert_int_equal(load(models, "b"), HTTP_OK);
	text_clear(&text);
	assert_int_equal(models_page(models, NULL, 2, &text), ST_OK);
	assert_string_equal(text_string(&text),
		"{\"models\": [{\"modelName\": \"a\", \"modelUrl\": \"/opt/ml/models/x/model\"}, {\"modelName\": \"b\", \"modelUrl\": \"/opt/ml/models/x/model\"}], "
		"\"nextPageToken\": \"b\"}");
	text_clear(&text);
	assert_int_equal(models_page(models, "b", 2, &text), ST_OK);
	assert_string_equal(text_string(&text), "{\"models\": [{\"modelName\": \"c\", \"modelUrl\": \"/opt/ml/models/x/model\"}]}");
	text_clear(&text);
	assert_int_equal(models_describe(models, "c", &text), HTTP_OK);
	assert_string_equal(text_string(&text), "{\"modelName\": \"c\", \"modelUrl\": \"/opt/ml/models/x/model\"}");
	text_clear(&text);
	assert_int_equal(models_describe(models, "d", &text), HTTP_NOT_FOUND);
	assert_int_equal(text.length, 0);
	text_free(&text);
	models_close(models);
}

/* Users and managers at once; the address sanitizer sees who uses what is freed. */
static void *use_thread(void *context)
{
	struct caller *caller = context;
	for (int i = 0; i < 2000; i++) {
		struct model *model = NULL;
		if (models_acquire(caller->models, caller->name, &model) != HTTP_OK)
			continue;
		assert_int_equal(model->bytes, 1 << 20);
		models_release(caller->models, model);
	}
	return NULL;
}

static void *reload_thread(void *context)
{
	struct caller *caller = context;
	for (int i = 0; i < 50; i++) {
		load(caller->models, caller->name);
		models_unload(caller->models, caller->name);
	}
	return NULL;
}

static void users_and_managers_at_once(void **state)
{
	(void)state;
	struct models *models = start(0);
	struct caller callers[8];
	for (size_t i = 0; i < 8; i++) {
		callers[i] = (struct caller){.models = models, .name = i % 2 == 0 ? "x" : "y"};
		assert_int_equal(pthread_create(&callers[i].thread, NULL, i < 4 ? reload_thread : use_thread, &callers[i]), 0);
	}
	for (size_t i = 0; i < 8; i++)
		pthread_join(callers[i].thread, NULL);
	models_unload(models, "x");
	models_unload(models, "y");
	assert_int_equal(alive, 0);
	assert_int_equal(metrics.gauges[GAUGE_MODEL_BYTES], 0);
	models_close(models);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(load_use_unload),
		SCRATCH_TEST(faults_of_a_load),
		SCRATCH_TEST(memory_has_a_limit),
		SCRATCH_TEST(unload_waits_for_users),
		SCRATCH_TEST(a_load_holds_nobody_up),
		SCRATCH_TEST(pages),
		SCRATCH_TEST(users_and_managers_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
