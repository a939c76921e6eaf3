/* share.h: which images of a step each rank computes.
 *
 * Where every host has all images, a step is a slice of one permutation, cut into one part a rank: what is trained on does not depend on how many
 * ranks there are. Where each host has a part (ShardedByS3Key), a host walks through its own images, and in each step takes its part of them
 * that is due, so that an epoch shows every image once and hosts of unequal parts stay in step. Everything here is arithmetic. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parts of a batch are never smaller: batch norm needs two values. The last ranks go without when there are too few images. */
enum { SHARE_IMAGES_MIN = 2 };

struct share {
	size_t first, count;
};

/* Part `part` of `parts` of count things: sizes differ by one at most, and are 0 or at least SHARE_IMAGES_MIN (count 1: the first has it). */
struct share share_of(size_t count, int parts, int part);

/* Who computes what during an epoch. */
struct course {
	int rank, world;        /* all ranks */
	int local, devices;     /* of this host */
	int host, hosts;
	const uint64_t *images; /* training images of each host, `hosts` of them; not sharded: all the same */
	bool sharded;
	int batch_size;         /* over all ranks */
	bool drop_last;         /* not sharded: leave out a last part of a batch. Sharded: all images come in each epoch */
};

/* Images that an epoch shows, dropped ones included. */
uint64_t course_images(const struct course *course);
/* Steps of an epoch. */
int64_t course_steps(const struct course *course);

/* One step: places in this host's permutation. */
struct course_step {
	struct share batch; /* what of it belongs to the step: augmentation and mixing are drawn for these together */
	struct share own;   /* what of `batch` this rank computes: first counts from batch.first */
	size_t total;       /* images of the step on all ranks */
};
struct course_step course_step(const struct course *course, int64_t step);

/* The largest of all steps: memory is needed for so much. */
struct course_most {
	size_t batch; /* images of a step's batch on this host */
	int own;      /* of them this rank's; at least 1 */
};
struct course_most course_most(const struct course *course);
