/* health.c: see health.h. */
#include "serve/health.h"

#include "core/base/json.h"
#include "core/base/threads.h"

/* The platform allows 100 MB in all transforms together. */
enum { TRANSFORM_TOTAL_MB = 100, TRANSFORM_MB = 6, TRANSFORMS_MAX = TRANSFORM_TOTAL_MB / TRANSFORM_MB };

enum turn ping_begin(struct request *request)
{
	enum serve_state state = state_get(&request->server->state);
	if (state == STATE_FAILED)
		reply_error(request, HTTP_INTERNAL, request->server->state.reason);
	else
		reply_empty(request, state_ping(state));
	return TURN_REPLY;
}

enum turn parameters_begin(struct request *request)
{
	const struct options *options = &request->server->options;
	size_t limit = payload_bytes_max(options);
	int64_t mb = limit >= (size_t)TRANSFORM_MB << 20 ? TRANSFORM_MB : (int64_t)(limit >> 20);
	int64_t transforms = options->transforms_max;
	if (transforms == 0) /* two for each thread that computes keep it busy while others are on their way */
		transforms = 2 * (int64_t)threads_count(request->server->threads);
	if (transforms > TRANSFORMS_MAX)
		transforms = TRANSFORMS_MAX;
	struct json_writer json = {.text = &request->reply.text};
	json_write_object(&json, NULL);
	json_write_integer(&json, "MaxConcurrentTransforms", transforms);
	json_write_integer(&json, "MaxPayloadInMB", mb > 0 ? mb : 1);
	if (json_write_end_all(&json) == ST_OK)
		reply_text(request, HTTP_OK, "application/json");
	else
		reply_refusal(request, HTTP_INTERNAL);
	return TURN_REPLY;
}

enum turn metrics_begin(struct request *request)
{
	if (metrics_text(&request->server->metrics, &request->reply.text) == ST_OK)
		reply_text(request, HTTP_OK, "text/plain; version=0.0.4");
	else
		reply_refusal(request, HTTP_INTERNAL);
	return TURN_REPLY;
}
