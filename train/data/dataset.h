/* dataset.h: from the channels' bytes to images and labels in memory.
 *
 * In: the channels. Out: uint8 images for training, validation and test, their labels, the classes' names, and a fingerprint of the
 * content. Order, augmentation and normalisation are left to batch.h and the backend.
 *
 * What is read: CIFAR-100 and CIFAR-10, binary or python version; a folder of pictures a class (PNG, JPEG, BMP); RecordIO of pictures.
 * Each plain, in directories up to three deep, in .tar, .tar.gz or .zip, wrapped in RecordIO, from a directory or a FIFO; several
 * files follow each other in bytewise order of their names. Nothing is written, mapped or read twice. */
#pragma once

#include "core/backend/backend.h"
#include "core/base/status.h"
#include "train/data/channels.h"
#include "train/data/collection.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dataset_request {
	const struct channels *channels;
	int image_size;          /* pictures become 3 × image_size × image_size; CIFAR images only if it is not 32 */
	int classes;             /* what num_classes says, 0: as many as the data have */
	double validation_split; /* 0 ≤ share < 1 of the training images that validates, when no validation images are given */
	double validation_split_default; /* the same, only when there is nothing else to validate with; 0: then there is none */
	uint64_t seed;           /* of both splits */
	bool (*stopped)(void);   /* asked often while reading; may be NULL */
	/* Called when the training channel has been read: gives the collection the kind and classes of all hosts together (shards.h). A sharded
	 * channel may then be empty here. NULL: this is the only host. */
	enum status (*agree)(void *context, bool sharded, struct collection *train);
	void *context;
};

struct dataset {
	struct images train;      /* of every class at least one, unless the channel is sharded */
	struct images validation; /* count 0: there is none */
	struct images test;
	int classes;
	char **class_names;       /* `classes` of them, distinct, UTF-8 */
	uint64_t fingerprint;     /* of train and validation: pixels and labels in order, whatever they were packed in */
	bool sharded;             /* this host has a part of the training images; others have the rest */
	bool validation_sharded;  /* likewise */
	const char *kind;         /* "CIFAR-100", "CIFAR-10", "folders of pictures", "numbered pictures" */
	const char *validation_source; /* "validation channel", "split of the training images", …, "none" */
};

/* Reads everything. Where validation images come from, the first that is there: the validation channel; `val` in the training channel
 * (a folder); the split, if validation_split > 0; test files in the training channel (test.bin); the test channel; the split by validation_split_default. What of the test
 * images is not validated with becomes `test`: the test channel, else test files in the training channel.
 *
 * The split is stratified: each class gives its share, rounded so that the total is right, and keeps at least one image. Which images
 * depends on (seed, class) alone. Order within both halves stays.
 *
 * ST_STOPPED when stopped() said so. ST_DATA, one sentence naming channel, path, value and rule: no training channel, nothing in a
 * channel, a file that is cut off, damaged or unreadable, a label out of range, a class without a training image, two classes of
 * one name, different data sets mixed, classes that the training set lacks. ST_SETTINGS when num_classes or validation_split cannot
 * be met. Any thread, one call at a time. */
enum status dataset_load(const struct dataset_request *request, struct dataset *dataset);

/* Of pixels and labels in order. */
uint64_t images_fingerprint(const struct images *images);
/* Adds to counts[k] how many of the images are of class k. */
void images_count_classes(const struct images *images, uint64_t *counts);
/* ST_DATA, naming the first, when classes have no image: counts[k] == 0. `where` ends the statement: "" or " on any host". */
enum status dataset_check_classes(const struct dataset *dataset, const uint64_t *counts, const char *where);

/* Releases everything. Accepts {0}. */
void dataset_free(struct dataset *dataset);
