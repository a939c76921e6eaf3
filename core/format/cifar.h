/* cifar.h: CIFAR-100 and CIFAR-10 files, binary and python version.
 *
 * In: a stream (binary) or a whole pickle in memory. Out: image after image, each 3 × 32 × 32 bytes planar, with its label, through
 * the caller's function; or a list of class names. Which set an image belongs to is the caller's business.
 *
 * A binary record is (coarse, fine, 3072 pixels) for CIFAR-100 and (label, 3072 pixels) for CIFAR-10; no header. A python file is a
 * pickled dict with `data` (n, 3072), `fine_labels` and `coarse_labels`, or `labels`. Source: formats.md §4 of the design notes. */
#pragma once

#include "core/format/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CIFAR_SIZE = 32, CIFAR_IMAGE_BYTES = 3 * CIFAR_SIZE * CIFAR_SIZE };

/* The value is the number of classes. */
enum cifar_kind { CIFAR_NONE = 0, CIFAR_10 = 10, CIFAR_100 = 100 };

/* What a file of the two data sets is for, by its name. */
enum cifar_role {
	CIFAR_ROLE_UNKNOWN,
	CIFAR_ROLE_TRAIN,        /* train, train.bin, data_batch_1, data_batch_1.bin … */
	CIFAR_ROLE_TEST,         /* test, test.bin, test_batch, test_batch.bin */
	CIFAR_ROLE_NAMES,        /* fine_label_names.txt, batches.meta.txt */
	CIFAR_ROLE_NAMES_PICKLE, /* meta, batches.meta */
	CIFAR_ROLE_COARSE_NAMES, /* coarse_label_names.txt */
	CIFAR_ROLE_OTHER,        /* readme.html, file.txt~ */
};

/* `name` may have directories in front; they are ignored. */
enum cifar_role cifar_role_find(const char *name);

/* Takes one image; planes is valid during the call only. Its status goes to the reader's caller. */
typedef enum status cifar_take(void *context, unsigned label, const uint8_t *planes);

/* Which kind of binary file this is, or CIFAR_NONE. `bytes` are its first ones (the more records the surer, STREAM_PEEK_BYTES_MAX at
 * most), `size` its length or UINT64_MAX when that is not known; coarse_of_fine[100] is the coarse label of each fine one. */
enum cifar_kind cifar_binary_sniff(const uint8_t *bytes, size_t count, uint64_t size, const uint8_t *coarse_of_fine);

/* Reads records to the stream's end. ST_DATA, with the record's number, if a label is out of range, a coarse label is not that of
 * its fine label, or the last record is cut off. */
enum status cifar_binary_read(struct stream *stream, enum cifar_kind kind, const uint8_t *coarse_of_fine, cifar_take *take, void *context);

/* True if these first bytes are those of a pickled dict (protocol 0 to 5). */
bool cifar_pickle_sniff(const uint8_t *bytes, size_t count);

/* Reads a pickle of images. *kind tells which set it is: by its keys and the range of its labels. It is set
 * before the first image is given. ST_DATA as above, or if it is no such pickle. The images come in the file's order. */
enum status cifar_pickle_read(const uint8_t *bytes, size_t count, const char *name, const uint8_t *coarse_of_fine, enum cifar_kind *kind,
	cifar_take *take, void *context);

/* A list of class names. Start with {0}. */
struct cifar_names {
	char **all; /* each malloc'ed, UTF-8 without control characters */
	size_t count;
};

/* Appends one name. ST_DATA if it is empty, longer than 1024 bytes or not UTF-8; `name` is the file's, for the sentence. */
enum status cifar_names_add(struct cifar_names *names, const void *bytes, size_t count, const char *name);
/* Names, one a line; empty lines are passed over. */
enum status cifar_names_parse(const uint8_t *bytes, size_t count, const char *name, struct cifar_names *names);
/* `fine_label_names` or `label_names` of a pickled dict; *names stays as it is when there is neither. */
enum status cifar_names_unpickle(const uint8_t *bytes, size_t count, const char *name, struct cifar_names *names);
void cifar_names_free(struct cifar_names *names);
