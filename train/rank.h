/* rank.h: one rank of a training: from what its host's parent prepared to the trained model.
 *
 * In: settings and data (inherited over the fork), a place among the ranks. Out: checkpoints and, from rank 0, reports and the model directory.
 * Here the network, the connection to the other ranks, the backend and the state to begin with are made; the training itself is epoch.c's. */
#pragma once

#include "core/base/opt_ml.h"
#include "train/compute.h"
#include "train/data/channels.h"
#include "train/data/dataset.h"
#include "train/data/shards.h"
#include "train/ranks/ranks.h"
#include "train/settings/settings.h"

/* The host's; all lent. */
struct rank_inputs {
	const struct opt_ml *opt_ml;
	const struct settings *settings;
	const struct compute *compute;
	const struct channels *channels;
	const struct dataset *dataset;
	const struct shards *shards;
	const char *host;       /* this one's name */
	const char *interface_name; /* towards the other hosts; "": unknown */
	double started_seconds; /* monotonic clock when the program began */
};

/* Collective. ST_OK and ST_STOPPED: trained, or stopped at a boundary that all share; the model is written (not after a second signal). Else what went
 * wrong here, or ST_DEVICE when it went wrong elsewhere. */
enum status rank_run(const struct rank_inputs *inputs, const struct place *place);
