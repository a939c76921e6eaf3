/* pth_write.h: writes a state dict as torch.save would: a zip of stored records that torch.load(weights_only=True) reads.
 *
 * The pickle holds an OrderedDict of tensors in the order given, with none but the words that every torch since 1.6 allows. Each
 * tensor has its own record, placed at a multiple of 64 bytes so that mmap=True works. */
#pragma once

#include "core/base/file.h"
#include "core/format/tensor.h"

/* Appends a whole file to `writer`. `prefix` is the directory inside the zip ("model"). Views are contiguous and of a type that
 * has a torch storage (MUST); data goes from them straight to the writer. ST_MEMORY, ST_DISK; ST_DATA when it would pass 4 GiB. */
enum status pth_write(struct file_writer *writer, const char *prefix, const struct tensor_view *views, size_t count);
