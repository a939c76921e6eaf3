/* pth_storage.h: torch's storages: what a persistent id says of one, and where its bytes are in each container. For pth.c. */
#pragma once

#include "core/format/pickle.h"
#include "core/format/tensor.h"
#include "core/format/zip.h"

/* ('storage', class, key, location, numel[, view]) */
struct storage_id {
	enum dtype dtype;
	bool untyped; /* UntypedStorage: `numel` counts bytes, the tensor says the type; dtype is U8 */
	const uint8_t *key;
	size_t key_count;
	int64_t numel;
	/* Legacy only: the id stands for `view_numel` elements from `view_offset` on; otherwise 0 and numel. */
	int64_t view_offset, view_numel;
};

enum status storage_id_parse(const char *file, const struct pickle_node *persistent, struct storage_id *id);

/* A storage of a legacy file. */
struct legacy_storage {
	const uint8_t *key;
	size_t key_count;
	const uint8_t *data;
	int64_t numel;
	enum dtype dtype;
};

/* Where storages are found: one of the two containers. */
struct storages {
	const char *file;
	struct zip zip;   /* with records when the file is a zip */
	char prefix[256]; /* "archive", the directory in the zip */
	struct legacy_storage *legacy; /* by key */
	size_t legacy_count;
};

/* Reads what follows the object's pickle in a legacy file: bytes[at..count) has the pickled list of keys, then for each key its
 * element count and data. The storages' keys lie in `object`, which must outlive them. */
enum status storages_read_legacy(const char *file, const uint8_t *bytes, size_t count, size_t at, const struct pickle *object, struct storages *storages);
/* The first byte of a storage that holds at least id->numel elements, its CRC checked. */
enum status storages_find(struct storages *storages, const struct storage_id *id, const uint8_t **data);
void storages_free(struct storages *storages);
