/* collection.h: the images of one channel while they come in.
 *
 * In: image after image with a label, in the order of the stream. Out: for each set one growing array of pixels and one of labels, in
 * the order of the pieces' names, whatever order an archive held them in. Which bytes are images is reader.h's business. */
#pragma once

#include "core/base/status.h"
#include "core/format/cifar.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an image is for, as far as its file's name tells. */
enum set { SET_TRAIN, SET_VALIDATION, SET_TEST, SETS };

/* Where labels and names of classes come from. Data sets of two kinds do not mix. */
#define COLLECTION_KIND_LIST(X) \
	X(COLLECTION_EMPTY, "nothing") \
	X(COLLECTION_CIFAR_100, "CIFAR-100") \
	X(COLLECTION_CIFAR_10, "CIFAR-10") \
	X(COLLECTION_FOLDERS, "folders of pictures") \
	X(COLLECTION_NUMBERED, "numbered pictures")

enum collection_kind {
#define X(kind, text) kind,
	COLLECTION_KIND_LIST(X)
#undef X
	COLLECTION_KINDS
};

const char *collection_kind_text(enum collection_kind kind);

/* A file or an archive's member: images from `first` on came from it. */
struct piece {
	char *name;
	size_t first;
};

struct image_list {
	uint8_t *pixels; /* count × 3 × size × size */
	uint16_t *labels;
	size_t count, capacity; /* images */
	struct piece *pieces;
	size_t pieces_count, pieces_capacity;
};

struct collection {
	int size; /* side of an image */
	enum collection_kind kind;
	struct image_list sets[SETS];
	struct cifar_names folders; /* COLLECTION_FOLDERS: the classes; labels are indices into it */
	struct cifar_names names;   /* what a file of names said, or empty */
	int numbers; /* COLLECTION_NUMBERED: other hosts have labels below this; 0: there are none */
	bool may_be_empty; /* other hosts have the images then */
	size_t last_class; /* where the search for a folder's name starts */
	bool (*stopped)(void);
};

void image_list_free(struct image_list *list);

/* Empty, for images of size × size. */
void collection_open(struct collection *collection, int size, bool (*stopped)(void));
void collection_free(struct collection *collection);

/* The kind of what comes next; `name` is the file. ST_DATA if it is another kind than before. */
enum status collection_kind_set(struct collection *collection, enum collection_kind kind, const char *name);
/* The label of a class's folder, given anew at first sight. ST_DATA when there are too many or the name is not UTF-8. */
enum status collection_class(struct collection *collection, const char *folder, size_t length, const char *name, unsigned *label);

/* Images added to `set` from now on belong to the piece `name`. */
enum status collection_piece(struct collection *collection, enum set set, const char *name);
/* Makes place for one image at the end of a set and gives its label: the caller writes 3 × size × size bytes to *pixels. */
enum status collection_add(struct collection *collection, enum set set, unsigned label, uint8_t **pixels);

/* Sorts the pieces bytewise by name and a folder's classes likewise, and gives back spare memory. */
enum status collection_finish(struct collection *collection);
