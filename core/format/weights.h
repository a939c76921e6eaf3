/* weights.h: a network's weights from whatever file somebody saved them in.
 *
 * In: a path: a .safetensors file; what torch.save wrote (.pth, .pt, .bin, Lightning's .ckpt; zip or legacy); a .tar or .tar.gz
 * that holds one of those (SageMaker's model.tar.gz); or a directory with one of all these. The bytes decide what a file is, not its
 * name. Out: named tensors, with the prefixes that wrappers put before all names taken off: "module.", "model.", "_orig_mod.", "net.",
 * "backbone.".
 *
 * Where an archive or directory holds several weight files, "model.safetensors" is taken, else "model.pth"; with neither, several
 * are an error. Nothing in any file is executed. */
#pragma once

#include "core/format/tensor.h"

/* What is read of one file at most. */
#define WEIGHTS_BYTES_MAX ((size_t)8 << 30)

struct weights {
	char name[4096]; /* the file found: "dir/model.tar.gz: model.pth" */
	struct tensor_list tensors; /* views into `bytes` */
	uint8_t *bytes;
};

/* ST_DATA: unreadable, not a weight file, damaged, none or several in a directory. ST_MEMORY. On success weights_close releases. */
enum status weights_open(const char *path, struct weights *weights);
/* Accepts {0}. */
void weights_close(struct weights *weights);

/* Reads a file back and compares: the same tensors, no more and no fewer, with the same type, shape and bits (contiguous views). ST_DISK
 * when something differs: what was written is not what lies on the disk. */
enum status weights_verify(const char *path, const struct tensor_view *views, size_t count);
