/* invoke.c: see invoke.h. */
#include "serve/invoke.h"

#include "core/base/clock.h"
#include "serve/attributes.h"
#include "serve/inflate.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	INLINE_BODY_BYTES_MAX = 64 * 1024, /* of a body that is copied rather than parsed */
	INLINE_ROWS_MAX = 32,              /* of an answer that an I/O thread encodes */
	ANSWER_BYTES_MAX = 1 << 30,
};

static void stage_end(struct request *request, enum stage stage)
{
	struct invocation *invocation = &request->invocation;
	int64_t now = clock_us();
	invocation->stage_us[stage] = now - invocation->mark_us;
	invocation->mark_us = now;
}

/* --- what the head asks for -------------------------------------------------------------------------------------------- */

static enum http_code rules_read(struct request *request)
{
	const struct options *options = &request->server->options;
	struct invocation *invocation = &request->invocation;
	invocation->decode = (struct decode_rules){.images_max = (size_t)options->images_max, .floats = (enum value_range)options->floats,
		.keep_going = options->batch_transform};
	invocation->encode = (struct encode_rules){.output = (enum output)options->output, .top_k = (int)options->top_k};
	for (size_t i = 0; attribute_names[i] != NULL; i++) {
		char value[NAME_BYTES];
		if (request_query(request, attribute_names[i], value, sizeof value))
			ALLOW(attribute_read(attribute_names[i], value, &invocation->decode, &invocation->encode));
	}
	return attributes_read(request->fields.attributes, &invocation->decode, &invocation->encode);
}

static bool gzipped(const struct request *request)
{
	const char *encoding = request->fields.content_encoding;
	return encoding != NULL && (strcasecmp(encoding, "gzip") == 0 || strcasecmp(encoding, "x-gzip") == 0);
}

/* Line by line in batch transform: then the answer is so too when nobody says otherwise. */
static enum media preferred_media(const struct request *request, enum media body)
{
	bool lines = body == MEDIA_CSV || body == MEDIA_JSON_LINES;
	return request->server->options.batch_transform && lines ? MEDIA_JSON_LINES : request->server->default_media;
}

enum http_code invoke_check_plain(struct request *request)
{
	const char *encoding = request->fields.content_encoding;
	enum media media;
	ALLOW(media_of_content_type(request->fields.content_type, &media));
	if (encoding != NULL && encoding[0] != '\0' && strcasecmp(encoding, "identity") != 0 && !gzipped(request))
		return REFUSE(HTTP_UNSUPPORTED, "Content-Encoding \"%.60s\" is not supported: send gzip or none", encoding);
	return rules_read(request);
}

enum http_code invoke_check(struct request *request)
{
	struct invocation *invocation = &request->invocation;
	ALLOW(invoke_check_plain(request));
	enum media media;
	ALLOW(media_of_content_type(request->fields.content_type, &media));
	enum media preferred = preferred_media(request, media);
	ALLOW(media_of_accept(request->fields.accept, preferred, &invocation->encode.media, &invocation->type));
	/* Where anything will do, the configured type itself is answered, which may be another name of the same bytes. */
	if (invocation->encode.media == request->server->default_media && (request->fields.accept == NULL || request->fields.accept[0] == '\0'))
		invocation->type = request->server->default_type;
	return HTTP_OK;
}

/* --- begin ------------------------------------------------------------------------------------------------------------- */

/* Why there is no model to ask, when a single-model endpoint has none. */
static enum http_code not_ready(const struct server *server)
{
	switch (state_get(&server->state)) {
	case STATE_LOADING:
		return REFUSE(HTTP_UNAVAILABLE, "the model is being loaded");
	case STATE_DRAINING:
		return REFUSE(HTTP_UNAVAILABLE, "the server is shutting down");
	case STATE_FAILED:
		return REFUSE(HTTP_INTERNAL, "%s", server->state.reason);
	case STATE_READY:
		break;
	}
	return HTTP_INTERNAL;
}

static enum http_code acquire(struct request *request)
{
	struct server *server = request->server;
	struct invocation *invocation = &request->invocation;
	bool only = request->name[0] == '\0';
	enum http_code code = models_acquire(server->models, only ? MODELS_ONLY : request->name, &invocation->model);
	if (code == HTTP_NOT_FOUND && only)
		return not_ready(server);
	ALLOW(code);
	const struct network *network = &invocation->model->network;
	invocation->decode.image_size = network->image_size;
	invocation->decode.normalization = invocation->model->normalization;
	invocation->encode.classes = network->head.classes;
	invocation->encode.class_names = (const char *const *)invocation->model->class_names;
	if (invocation->encode.top_k > network->head.classes)
		invocation->encode.top_k = network->head.classes;
	return HTTP_OK;
}

/* Body → images, and room for their logits. */
static enum http_code decode_body(struct request *request)
{
	struct invocation *invocation = &request->invocation;
	struct body *body = &request->body;
	if (gzipped(request)) {
		uint8_t *bytes = NULL;
		size_t count = 0;
		ALLOW(inflate_gzip(body->bytes, body->count, payload_bytes_max(&request->server->options), &bytes, &count));
		free(body->bytes);
		*body = (struct body){.bytes = bytes, .count = count, .capacity = body->capacity};
	}
	ALLOW(decode(&invocation->decode, request->fields.content_type, body->bytes, body->count, &invocation->decoded));
	invocation->records = invocation->decoded.count;
	if (invocation->records > 0) {
		invocation->logits = malloc(invocation->records * (size_t)invocation->encode.classes * sizeof invocation->logits[0]);
		if (invocation->logits == NULL)
			return REFUSE(HTTP_UNAVAILABLE, "no memory for the scores of %zu images", invocation->records);
	}
	return HTTP_OK;
}

/* A body that is copied, not parsed: it is decoded at once on the I/O thread. */
static bool cheap(const struct request *request)
{
	static const uint8_t npy[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
	const struct body *body = &request->body;
	return body->count <= INLINE_BODY_BYTES_MAX && body->count > sizeof npy && memcmp(body->bytes, npy, sizeof npy) == 0 && !gzipped(request);
}

static void leave(struct request *request)
{
	if (request->invocation.place)
		batch_leave(request->server->batch);
	request->invocation.place = false;
}

static enum turn refuse(struct request *request, enum http_code code)
{
	leave(request);
	reply_refusal(request, code);
	return TURN_REPLY;
}

enum turn invoke_begin(struct request *request)
{
	struct server *server = request->server;
	struct invocation *invocation = &request->invocation;
	invocation->mark_us = request->received_us;
	invocation->stage_us[STAGE_RECEIVE] = request->received_us - request->head_us;
	if (request->body.count == 0) {
		if (!server->options.batch_transform)
			return refuse(request, REFUSE(HTTP_BAD_REQUEST, "the body is empty: send an image, numbers as npy, JSON or CSV, or raw pixels"));
		reply_empty(request, HTTP_NO_CONTENT);
		return TURN_REPLY;
	}
	enum http_code code = acquire(request);
	if (code != HTTP_OK)
		return refuse(request, code);
	if (!batch_enter(server->batch)) {
		metrics_count(&server->metrics, COUNTER_REFUSED, 1);
		return refuse(request, REFUSE(HTTP_UNAVAILABLE, "the queue is full: %lld requests are waiting already", (long long)server->options.queue_max));
	}
	invocation->place = true;
	if (cheap(request)) {
		code = decode_body(request);
		if (code != HTTP_OK)
			return refuse(request, code);
		stage_end(request, STAGE_DECODE);
	}
	return TURN_LATER;
}

/* --- later ------------------------------------------------------------------------------------------------------------- */

static void encode_answer(struct request *request)
{
	struct invocation *invocation = &request->invocation;
	struct text *text = &request->reply.text;
	text->length_max = ANSWER_BYTES_MAX;
	enum http_code code = encode(&invocation->encode, invocation->logits, invocation->records, invocation->decoded.faults, text);
	if (code == HTTP_OK)
		reply_text(request, HTTP_OK, invocation->type);
	else
		reply_refusal(request, code);
	stage_end(request, STAGE_ENCODE);
}

static struct request *of_task(struct task *task)
{
	return (struct request *)(void *)((char *)task - offsetof(struct request, task));
}

static struct request *of_job(struct batch_job *job)
{
	return (struct request *)(void *)((char *)job - offsetof(struct request, invocation.job));
}

static void encode_task(struct task *task)
{
	struct request *request = of_task(task);
	encode_answer(request);
	request_resume(request);
}

static bool client_gone(struct batch_job *job)
{
	return request_gone(of_job(job));
}

static void batch_done(struct batch_job *job)
{
	struct request *request = of_job(job);
	struct invocation *invocation = &request->invocation;
	struct metrics *metrics = &request->server->metrics;
	invocation->place = false;
	invocation->stage_us[STAGE_QUEUE] = job->queue_us;
	invocation->stage_us[STAGE_PREDICT] = job->predict_us;
	invocation->mark_us = clock_us();
	switch (job->outcome) {
	case BATCH_DONE:
		if (invocation->records > INLINE_ROWS_MAX && request->route->invocation) {
			request->task.run = encode_task;
			workers_submit(request->server->codecs, &request->task);
			return;
		}
		break;
	case BATCH_EXPIRED:
		metrics_count(metrics, COUNTER_EXPIRED, 1);
		reply_error(request, HTTP_UNAVAILABLE, "the request waited longer than the server's time limit");
		break;
	case BATCH_LEFT:
		metrics_count(metrics, COUNTER_LEFT, 1);
		reply_empty(request, REPLY_CLIENT_LEFT);
		break;
	case BATCH_NO_MEMORY:
		reply_error(request, HTTP_UNAVAILABLE, "no memory for the scores");
		break;
	}
	request_resume(request);
}

static void submit(struct request *request)
{
	struct invocation *invocation = &request->invocation;
	size_t size = (size_t)invocation->decode.image_size;
	invocation->job = (struct batch_job){
		.engine = invocation->model->engine,
		.images = invocation->decoded.images,
		.count = invocation->decoded.count,
		.image_floats = 3 * size * size,
		.logits = invocation->logits,
		.classes = (size_t)invocation->encode.classes,
		.deadline_us = request->received_us + request->server->options.timeout_s * 1000000,
		.gone = client_gone,
		.done = batch_done,
	};
	batch_submit(request->server->batch, &invocation->job);
}

static void decode_task(struct task *task)
{
	struct request *request = of_task(task);
	enum http_code code = decode_body(request);
	stage_end(request, STAGE_DECODE);
	if (code == HTTP_OK && request->invocation.records > 0) {
		submit(request);
		return;
	}
	leave(request);
	if (code == HTTP_OK)
		reply_empty(request, HTTP_NO_CONTENT); /* only blank lines */
	else
		reply_refusal(request, code);
	request_resume(request);
}

void invoke_start(struct request *request)
{
	if (request->invocation.records > 0) {
		submit(request);
		return;
	}
	request->task.run = decode_task;
	workers_submit(request->server->codecs, &request->task);
}

void invoke_finish(struct request *request)
{
	if (request->reply.status == 0)
		encode_answer(request);
	invoke_free(request); /* before the answer has left: a slow reader keeps no model */
}

void invoke_free(struct request *request)
{
	struct invocation *invocation = &request->invocation;
	leave(request);
	decoded_free(&invocation->decoded);
	invocation->decoded = (struct decoded){0};
	free(invocation->logits);
	invocation->logits = NULL;
	if (invocation->model != NULL)
		models_release(request->server->models, invocation->model);
	invocation->model = NULL;
}
