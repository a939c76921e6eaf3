/* invoke.h: an invocation's way: body → images → logits → answer.
 *
 * check reads what the head asks for; begin takes a place in the queue and decodes what is cheap; start hands over to a worker (decode) or
 * the batch; finish encodes what is cheap. See serve/README.md for the threads. */
#pragma once

#include "serve/route.h"

/* The model is request->name, or the only one for a route without a name. */
enum http_code invoke_check(struct request *request);
enum turn invoke_begin(struct request *request);
void invoke_start(struct request *request);
void invoke_finish(struct request *request);

/* The same up to the logits, for a route that answers in its own way in its own `finish` (serve/page.c): decode, batch, then
 * request_resume. request->invocation.decoded and .logits are there when reply.status is still 0. */
enum http_code invoke_check_plain(struct request *request);
/* Releases what an invocation holds. Harmless on any request. */
void invoke_free(struct request *request);
