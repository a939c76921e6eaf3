/* Any bytes as a .npy file: every element is read as a float, or the file is refused. Seeds: numpy's own files. */
#include "core/format/npy.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct npy npy;
	if (npy_read("input", bytes, count, &npy) != ST_OK)
		return 0;
	if (npy.count < 0 || (size_t)npy.count > count) /* an element has a byte at least */
		abort();
	float *floats = malloc(((size_t)npy.count + 1) * sizeof *floats);
	if (floats == NULL)
		abort();
	floats[npy.count] = 12345;
	npy_read_floats(&npy, floats);
	if (floats[npy.count] != 12345)
		abort();
	free(floats);
	return 0;
}
