/* siblings.h: the processes of a self-test, one a GPU, and the memory that they and their parent share.
 *
 * Also how a backend's ranks reach each other here (struct reduction): where one fails, all end. */
#pragma once

#include "core/backend/backend.h"
#include "core/backend/cuda/device.h"

#include <stdatomic.h>

enum { SIBLINGS_SAMPLES = 8192, SIBLINGS_REPORT_BYTES = 1 << 16, SIBLINGS_BLOB_BYTES = 1 << 12 };

/* What one of them tells. */
struct sibling {
	enum status status;
	char sentence[STATUS_MESSAGE_BYTES_MAX]; /* when status is not ST_OK */
	_Atomic size_t length;                   /* of what follows: whole lines, read by the parent as they come */
	char report[SIBLINGS_REPORT_BYTES];
	int checks, failures, left_out;          /* left_out: parts that there was no time for */
	float samples[SIBLINGS_SAMPLES];         /* of its own gradients */
};

struct siblings {
	int world;
	_Atomic int arrived;
	_Atomic bool failed;
	unsigned char blob[SIBLINGS_BLOB_BYTES];
	struct sibling all[DEVICES_MAX];
};

/* One of them, as it sees itself. */
struct place_among {
	struct siblings *shared;
	int rank, meetings;
};

/* Zeroed memory that stays shared over a fork; ST_MEMORY. */
enum status siblings_open(int world, struct siblings **siblings);
void siblings_close(struct siblings *siblings); /* accepts NULL */

/* Adds lines to the report of this one; what no longer fits is cut. */
void siblings_tell(struct place_among *place, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Waits until all are here. ST_DEVICE: another one failed, or did not come. */
enum status siblings_meet(struct place_among *place);

/* What a backend needs to sum over them on its devices. The place is lent. */
struct reduction siblings_reduction(struct place_among *place);
