/* models_api.c: see models_api.h. */
#include "serve/models_api.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "serve/invoke.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_MODELS_DEFAULT = 100, PAGE_MODELS_MAX = 1000 };

#define PLATFORM_BASE "/opt/ml/"

static struct request *of_task(struct task *task)
{
	return (struct request *)(void *)((char *)task - offsetof(struct request, task));
}

static enum turn answer(struct request *request, enum http_code code)
{
	if (code == HTTP_OK)
		reply_text(request, HTTP_OK, "application/json");
	else
		reply_refusal(request, code);
	return TURN_REPLY;
}

static enum http_code limit_read(const struct request *request, size_t *limit)
{
	char word[32];
	*limit = PAGE_MODELS_DEFAULT;
	if (!request_query(request, "limit", word, sizeof word))
		return HTTP_OK;
	char *end;
	errno = 0;
	long number = strtol(word, &end, 10);
	if (end == word || *end != '\0' || errno != 0 || number < 1)
		return REFUSE(HTTP_BAD_REQUEST, "limit=%s: must be a whole number from 1", word);
	*limit = number < PAGE_MODELS_MAX ? (size_t)number : PAGE_MODELS_MAX;
	return HTTP_OK;
}

enum turn models_list_begin(struct request *request)
{
	char token[NAME_BYTES];
	bool later = request_query(request, "next_page_token", token, sizeof token) && token[0] != '\0';
	size_t limit;
	enum http_code code = limit_read(request, &limit);
	if (code == HTTP_OK && models_page(request->server->models, later ? token : NULL, limit, &request->reply.text) != ST_OK)
		code = HTTP_INTERNAL;
	return answer(request, code);
}

enum turn models_describe_begin(struct request *request)
{
	return answer(request, models_describe(request->server->models, request->name, &request->reply.text));
}

/* {"status": "model \"x\" loaded"} */
static void answer_done(struct request *request, enum http_code code, const char *done)
{
	if (code == HTTP_OK) {
		struct json_writer json = {.text = &request->reply.text};
		char sentence[NAME_BYTES + 32];
		snprintf(sentence, sizeof sentence, "model \"%s\" %s", request->name, done);
		json_write_object(&json, NULL);
		json_write_string(&json, "status", sentence);
		if (json_write_end_all(&json) != ST_OK)
			code = HTTP_INTERNAL;
	}
	answer(request, code);
}

/* --- load -------------------------------------------------------------------------------------------------------------- */

static enum http_code member_read(const struct json *json, const char *name, char *value, size_t bytes)
{
	const struct json *member = json_member(json, name);
	if (member == NULL || json_kind(member) != JSON_STRING || json_string(member)[0] == '\0')
		return REFUSE(HTTP_BAD_REQUEST, "\"%s\" must be a string that is not empty", name);
	if (strlen(json_string(member)) >= bytes)
		return REFUSE(HTTP_BAD_REQUEST, "\"%s\" of %zu characters, at most %zu fit", name, strlen(json_string(member)), bytes - 1);
	memcpy(value, json_string(member), strlen(json_string(member)) + 1);
	return HTTP_OK;
}

static enum http_code load_read(struct request *request, char *url, size_t bytes)
{
	struct json *json = NULL;
	if (json_parse("the body", request->body.bytes, request->body.count, &json) != ST_OK)
		return HTTP_BAD_REQUEST;
	enum http_code code = json_kind(json) == JSON_OBJECT ? HTTP_OK
		: REFUSE(HTTP_BAD_REQUEST, "the body must be an object with \"model_name\" and \"url\", found %s", json_kind_text(json_kind(json)));
	if (code == HTTP_OK)
		code = member_read(json, "model_name", request->name, sizeof request->name);
	if (code == HTTP_OK)
		code = member_read(json, "url", url, bytes);
	json_free(json);
	return code;
}

/* A url below /opt/ml is taken below the base directory, so that a copied layout works elsewhere. */
static enum http_code directory_of(const struct request *request, const char *url, char *directory)
{
	if (url[0] != '/')
		return REFUSE(HTTP_BAD_REQUEST, "\"url\" must be an absolute path");
	bool platform = text_starts_with(url, PLATFORM_BASE);
	if (path_join(directory, OPT_ML_PATH_BYTES, platform ? request->server->opt_ml.base : "/", platform ? url + strlen(PLATFORM_BASE) : url + 1) != ST_OK)
		return REFUSE(HTTP_BAD_REQUEST, "\"url\" is too long");
	return HTTP_OK;
}

static void load_task(struct task *task)
{
	struct request *request = of_task(task);
	char url[NAME_BYTES], directory[OPT_ML_PATH_BYTES];
	int64_t started = clock_us();
	enum http_code code = load_read(request, url, sizeof url);
	if (code == HTTP_OK)
		code = directory_of(request, url, directory);
	if (code == HTTP_OK)
		code = models_load(request->server->models, request->name, url, directory);
	if (code == HTTP_OK)
		log_info("model=%s loaded ms=%.1f", request->name, (double)(clock_us() - started) / 1e3);
	answer_done(request, code, "loaded");
	request_resume(request);
}

enum turn models_load_begin(struct request *request)
{
	(void)request;
	return TURN_LATER;
}

void models_load_start(struct request *request)
{
	request->task.run = load_task;
	workers_submit(request->server->managers, &request->task);
}

/* --- unload ------------------------------------------------------------------------------------------------------------ */

static void unload_task(struct task *task)
{
	struct request *request = of_task(task);
	enum http_code code = models_unload(request->server->models, request->name);
	if (code == HTTP_OK)
		log_info("model=%s unloaded", request->name);
	answer_done(request, code, "unloaded");
	request_resume(request);
}

enum turn models_unload_begin(struct request *request)
{
	(void)request;
	return TURN_LATER;
}

void models_unload_start(struct request *request)
{
	request->task.run = unload_task;
	workers_submit(request->server->managers, &request->task);
}

enum http_code models_invoke_check(struct request *request)
{
	struct model *model = NULL;
	ALLOW(models_acquire(request->server->models, request->name, &model));
	models_release(request->server->models, model);
	return invoke_check(request);
}
