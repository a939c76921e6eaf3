/* shards.h: one data set out of what several hosts hold.
 *
 * In: what this host read, and what the others tell of theirs (gathers of JSON). Out: the same classes, normalisation and fingerprint on every
 * host. FullyReplicated: all must hold the same images. ShardedByS3Key: classes are those of all hosts together, images stay where they are; a
 * host without any takes part all the same. Which images a step takes is left to share.h. */
#pragma once

#include "core/comm/control.h"
#include "train/data/collection.h"
#include "train/data/dataset.h"
#include "train/ranks/resource.h"

struct shards {
	bool sharded, validation_sharded;
	uint64_t *images, *validation_images; /* of each host */
	uint64_t images_before;      /* sharded: those of the hosts in front of this one; else 0 */
	struct normalization normalization; /* mean and deviation of each colour over all training images */
	uint64_t fingerprint;        /* of all images */
};

/* While dataset_load is under way, when the training channel has been read: gives the collection the kind and the classes of all hosts
 * together, and its labels their numbers there. control: SCOPE_HOSTS; NULL when there is one host only. Collective. ST_DATA when hosts hold
 * different kinds of data, or none has any image; ST_SETTINGS when some say sharded and others not; ST_DEVICE, ST_MEMORY. */
enum status shards_classes(struct control *control, const struct resource *resource, bool sharded, struct collection *train);

/* After dataset_load. ST_DATA when replicated hosts hold different images (it names the host), or a class has no image anywhere. Collective. */
enum status shards_join(struct control *control, const struct resource *resource, const struct dataset *dataset, struct shards *shards);
void shards_free(struct shards *shards); /* accepts {0} */
