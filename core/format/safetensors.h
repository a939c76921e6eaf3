/* safetensors.h: reads and writes the safetensors format (github.com/huggingface/safetensors).
 *
 * A file is: u64 N, N bytes of JSON, data. The JSON maps a name to {"dtype", "shape", "data_offsets": [begin, end]}, offsets
 * counted from the data's start; data lies in C order without holes, overlaps or trailing bytes. "__metadata__" maps text to text. */
#pragma once

#include "core/base/file.h"
#include "core/format/tensor.h"

/* The header of any network that is read here is far smaller; the format itself allows 100 MB. */
enum { SAFETENSORS_HEADER_BYTES_MAX = 16 << 20 };

/* True if the first bytes (9 suffice) can be a safetensors file's. */
bool safetensors_sniff(const uint8_t *bytes, size_t count);

/* Appends the file's tensors to the empty `list`, ordered by their place in the file; views point into `bytes`, which must outlive
 * it. The caller frees the list, also after a failure. ST_DATA, ST_MEMORY. */
enum status safetensors_read(const char *file, const uint8_t *bytes, size_t count, struct tensor_list *list);

struct safetensors_metadata {
	const char *key, *value;
};

/* Appends a whole safetensors file to `writer`: the tensors ordered by falling element size, then by name, as the format's own
 * writer does; the header padded so that data starts at a multiple of 8. Data goes from the views straight to the writer. Views
 * are contiguous (MUST), names distinct and not "__metadata__". ST_MEMORY, ST_DISK. */
enum status safetensors_write(struct file_writer *writer, const struct tensor_view *views, size_t count, const struct safetensors_metadata *metadata,
	size_t metadata_count);
