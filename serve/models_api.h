/* models_api.h: the multi-model endpoint's requests: load, list, describe, unload. Loading and unloading run on the managers' threads. */
#pragma once

#include "serve/route.h"

enum turn models_list_begin(struct request *request);
enum turn models_describe_begin(struct request *request);
enum turn models_load_begin(struct request *request);
void models_load_start(struct request *request);
enum turn models_unload_begin(struct request *request);
void models_unload_start(struct request *request);
/* For /models/<name>/invoke: 404 before the body is taken, then as invoke_check. */
enum http_code models_invoke_check(struct request *request);
