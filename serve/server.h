/* server.h: the parts of one serve process, as plain structures; main.c makes them, requests point here. */
#pragma once

#include "core/base/opt_ml.h"
#include "serve/batch.h"
#include "serve/metrics.h"
#include "serve/models.h"
#include "serve/options.h"
#include "serve/state.h"
#include "serve/workers.h"

#include <stdbool.h>

struct server {
	struct options options;   /* constant after the start */
	struct opt_ml opt_ml;     /* constant after the start */
	enum media default_media; /* of an answer when a request does not say */
	const char *default_type;
	bool page;
	struct state state;
	struct metrics metrics;
	struct threads *threads;  /* compute */
	struct models *models;
	struct batch *batch;
	struct workers *codecs;   /* decode and encode */
	struct workers *managers; /* load and unload */
};
