/* npy.h: one array in numpy's .npy format, versions 1 to 3 (numpy.lib.format).
 *
 * In: a file's bytes. Out: the array's type, shape and place, and its elements as floats in C order, whatever byte order and axis
 * order they have. Refused: pickled objects (that would be code), structures, strings, dates, complex numbers, more than TENSOR_RANK_MAX
 * dimensions, data shorter than the shape says. Bytes after the data are counted and otherwise passed over, as numpy does. */
#pragma once

#include "core/base/text.h"
#include "core/format/tensor.h"

enum { NPY_HEADER_BYTES_MAX = 10000 }; /* numpy's own limit */

struct npy {
	struct tensor_view view; /* strides of either order; data points into the file's bytes */
	int64_t count;           /* elements */
	bool big_endian;         /* of the elements */
	size_t bytes_after;
};

/* True if these first bytes (6 are enough) are those of a .npy file. */
bool npy_sniff(const uint8_t *bytes, size_t count);

/* Reads the header of bytes[count], which must outlive `npy`. `name` goes into sentences and is lent. ST_DATA. */
enum status npy_read(const char *name, const uint8_t *bytes, size_t count, struct npy *npy);

/* True for integers and booleans. */
bool npy_is_whole(const struct npy *npy);

/* Writes the npy->count elements in C order, each rounded to the nearest float (float64 out of range becomes infinite). */
void npy_read_floats(const struct npy *npy, float *floats);

/* Appends the header of a version 1.0 file of little-endian float32 in C order, padded so that the data that the caller appends next
 * starts at a multiple of 64. ST_MEMORY. */
enum status npy_write_header(struct text *text, int rank, const int64_t *shape);
