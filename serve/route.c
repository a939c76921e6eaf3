/* route.c: see route.h. */
#include "serve/route.h"

#include "serve/health.h"
#include "serve/invoke.h"
#include "serve/models_api.h"
#include "serve/page.h"

#include <stdio.h>
#include <string.h>

enum { GET = METHOD_GET | METHOD_HEAD, POST = METHOD_POST };

static const struct route routes[] = {
	{"/ping", GET | POST, MODE_ALWAYS, .begin = ping_begin},
	{"/invocations", POST, MODE_SINGLE, BODY_PAYLOAD, true, invoke_check, invoke_begin, invoke_start, invoke_finish},
	{"/execution-parameters", GET, MODE_BATCH, .begin = parameters_begin},
	{"/metrics", GET, MODE_ALWAYS, .begin = metrics_begin},
	{"/models", POST, MODE_MULTI, .begin = models_load_begin, .start = models_load_start},
	{"/models", GET, MODE_MULTI, .begin = models_list_begin},
	{"/models/*", GET, MODE_MULTI, .begin = models_describe_begin},
	{"/models/*", METHOD_DELETE, MODE_MULTI, .begin = models_unload_begin, .start = models_unload_start},
	{"/models/*/invoke", POST, MODE_MULTI, BODY_PAYLOAD, true, models_invoke_check, invoke_begin, invoke_start, invoke_finish},
	{"/", GET, MODE_PAGE, .begin = page_begin},
	{"/page/status", GET, MODE_PAGE, .begin = page_status_begin},
	{"/page/classify", POST, MODE_PAGE, BODY_PAYLOAD, false, invoke_check_plain, invoke_begin, invoke_start, page_classify_finish},
};

static const struct {
	enum method method;
	const char *word;
} methods[] = {{METHOD_GET, "GET"}, {METHOD_HEAD, "HEAD"}, {METHOD_POST, "POST"}, {METHOD_DELETE, "DELETE"}, {METHOD_OPTIONS, "OPTIONS"}};

static bool mode_on(const struct server *server, enum route_mode mode)
{
	switch (mode) {
	case MODE_ALWAYS:
		return true;
	case MODE_SINGLE:
		return !server->options.multi_model;
	case MODE_MULTI:
		return server->options.multi_model;
	case MODE_BATCH:
		return server->options.batch_transform;
	case MODE_PAGE:
		return server->page && !server->options.multi_model;
	}
	return false;
}

/* Where the path begins in a request's target, which may be a whole URL (RFC 9112 §3.2.2). */
static const char *path_begin(const char *target)
{
	const char *scheme = strstr(target, "://");
	if (target[0] == '/' || scheme == NULL)
		return target;
	const char *path = strchr(scheme + 3, '/');
	return path != NULL ? path : "/";
}

/* Compares segment by segment, each decoded, so that a name may hold any character. */
static bool path_matches(const char *path, const char *pattern, char name[NAME_BYTES])
{
	for (name[0] = '\0'; *path == '/' && *pattern == '/';) {
		char segment[NAME_BYTES];
		path++, pattern++;
		size_t length = strcspn(path, "/"), expected = strcspn(pattern, "/");
		if (!percent_decode(path, length, segment, sizeof segment))
			return false;
		if (expected == 1 && pattern[0] == '*' && segment[0] != '\0')
			memcpy(name, segment, strlen(segment) + 1);
		else if (strlen(segment) != expected || memcmp(segment, pattern, expected) != 0)
			return false;
		path += length, pattern += expected;
	}
	return *path == '\0' && *pattern == '\0';
}

static void allow_write(unsigned allowed, char allow[ALLOW_BYTES])
{
	size_t used = 0;
	allow[0] = '\0';
	for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
		if (allowed & methods[i].method)
			used += (size_t)snprintf(allow + used, ALLOW_BYTES - used, "%s%s", used > 0 ? ", " : "", methods[i].word);
}

enum http_code route_find(struct request *request)
{
	const char *path = path_begin(request->path);
	unsigned allowed = 0;
	for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
		const struct route *route = &routes[i];
		if (!mode_on(request->server, route->mode) || !path_matches(path, route->pattern, request->name))
			continue;
		if (route->methods & request->method) {
			request->route = route;
			return HTTP_OK;
		}
		allowed |= route->methods;
	}
	if (allowed == 0)
		return REFUSE(HTTP_NOT_FOUND, "there is nothing at %.200s", path);
	allow_write(allowed, request->reply.allow);
	return REFUSE(HTTP_METHOD_NOT_ALLOWED, "this method is not allowed here; allowed: %s", request->reply.allow);
}
