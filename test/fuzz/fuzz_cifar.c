/* Any bytes as a CIFAR file: the first byte says which reader gets the rest. Every label that comes out must be in range. Seeds: records
 * of both kinds, lists of names, and numpy's pickles of no image and of one, in the protocols that differ. */
#include "core/format/cifar.h"
#include "core/model/labels.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

struct seen {
	enum cifar_kind kind;
	unsigned sum;
};

static enum status take(void *context, unsigned label, const uint8_t *planes)
{
	struct seen *seen = context;
	if (label >= (unsigned)seen->kind)
		abort();
	for (size_t i = 0; i < CIFAR_IMAGE_BYTES; i++)
		seen->sum += planes[i];
	return ST_OK;
}

static void read_binary(const uint8_t *bytes, size_t count, enum cifar_kind kind)
{
	struct stream stream;
	struct seen seen = {.kind = kind};
	stream_open_memory(&stream, bytes, count, "input");
	(void)cifar_binary_read(&stream, kind, labels_cifar100_coarse, take, &seen);
	stream_close(&stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct seen seen = {0};
	struct cifar_names names = {0};
	if (count == 0)
		return 0;
	unsigned which = *bytes++ % 6;
	count--;
	(void)cifar_pickle_sniff(bytes, count);
	switch (which) {
	case 0:
		read_binary(bytes, count, CIFAR_100);
		break;
	case 1:
		read_binary(bytes, count, CIFAR_10);
		break;
	case 2:
		seen.kind = cifar_binary_sniff(bytes, count, count % 2 != 0 ? UINT64_MAX : count, labels_cifar100_coarse);
		if (seen.kind != CIFAR_NONE)
			read_binary(bytes, count, seen.kind);
		break;
	case 3:
		(void)cifar_pickle_read(bytes, count, "input", labels_cifar100_coarse, &seen.kind, take, &seen);
		break;
	case 4:
		(void)cifar_names_parse(bytes, count, "input", &names);
		break;
	default:
		(void)cifar_names_unpickle(bytes, count, "input", &names);
		break;
	}
	cifar_names_free(&names);
	return 0;
}
