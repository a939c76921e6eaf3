/* channels.h: which channels this job has, and what each is for.
 *
 * In: input/config/inputdataconfig.json and the directories of input/data. Out: a table of channels with their roles. Reading what
 * lies in them is left to dataset.h (data) and to whoever loads pretrained weights (model). */
#pragma once

#include "core/base/opt_ml.h"
#include "core/base/status.h"

#include <stdbool.h>

enum { CHANNELS_MAX = 20, CHANNEL_NAME_BYTES = 65 };

/* Role, the names that have it (the earlier wins), what it is for. */
#define CHANNEL_ROLE_LIST(X) \
	X(CHANNEL_TRAIN, "train, training, cifar100, data", "training images") \
	X(CHANNEL_VALIDATION, "validation, val, valid", "images to validate with after each epoch") \
	X(CHANNEL_TEST, "test, eval", "images for the last evaluation") \
	X(CHANNEL_MODEL, "model, pretrained", "pretrained weights")

enum channel_role {
#define X(role, names, text) role,
	CHANNEL_ROLE_LIST(X)
#undef X
	CHANNEL_ROLES
};

struct channel {
	char name[CHANNEL_NAME_BYTES];
	char path[OPT_ML_PATH_BYTES]; /* the directory; in Pipe mode what "_0" is put behind */
	bool pipe;     /* TrainingInputMode Pipe; File and FastFile are never told apart */
	bool recordio; /* RecordWrapperType RecordIO */
	bool sharded;  /* S3DistributionType ShardedByS3Key: this host sees a part of the objects, others the rest */
};

struct channels {
	struct channel all[CHANNELS_MAX]; /* sorted bytewise by name */
	int count;
	int role[CHANNEL_ROLES]; /* index into `all`, or -1 */
};

/* Channels come from inputdataconfig.json; only without that file are they the directories of input/data. A single channel without
 * a role is the training channel. A channel with no role is left alone. It is not an error to find no channel for a role.
 * ST_SETTINGS when the file is wrong, ST_DATA when a File channel's directory is missing. */
enum status channels_find(const struct opt_ml *opt_ml, struct channels *channels);

/* The channel of a role, or NULL. */
const struct channel *channels_of(const struct channels *channels, enum channel_role role);
/* The same, and ST_DATA with the names that were looked for when there is none. */
enum status channels_require(const struct channels *channels, enum channel_role role, const struct channel **channel);
