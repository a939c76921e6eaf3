/* plan_cache.h: plans kept in files from run to run.
 *
 * A file's name is a hash of its key: a text with everything that the choice depends on. The file holds that text too, and a checksum over all, so
 * a file that is damaged, of another program or of another key is seen to be so. Any number of processes may use one directory. */
#pragma once

#include "core/base/status.h"
#include "core/base/text.h"

#include <stdbool.h>
#include <stdint.h>

/* What a plan file says beside its key. */
struct plan_record {
	struct text json; /* cuDNN's own words for the plan */
	int64_t engine, candidates, nanoseconds;
	bool deterministic, runtime_compiled, tensor_cores;
};

/* Whether there is a whole record for that key; otherwise `record` is untouched. record->json is to be freed. */
bool plan_cache_read(const char *directory, const char *key, struct plan_record *record);

/* Replaces what is there; makes the directory. ST_DISK. */
enum status plan_cache_write(const char *directory, const char *key, const struct plan_record *record);
