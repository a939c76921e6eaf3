/* tensorboard.h: one event file a process, as TensorBoard reads it.
 *
 * A file is a row of records: u64 length, u32 masked CRC-32C of the length's eight bytes, the bytes, u32 masked CRC-32C of the bytes;
 * little-endian. The bytes are a protobuf Event (tensorboard.proto). The first event names the format's version. A resumed process
 * opens a new file whose second event says "session start at step S": readers then drop what earlier files hold from S on.
 * Each call leaves whole records in the file (one write), so TensorBoard may read along. A failed call leaves the file unusable from
 * there on: close it. One thread. */
#pragma once

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

struct tensorboard;

/* Makes `directory` if missing and in it events.out.tfevents.<seconds>.<host>.<pid>.0. resumed_step > 0: drop later points.
 * ST_DISK, ST_MEMORY. tensorboard_close releases. */
enum status tensorboard_open(const char *directory, const char *host, int64_t resumed_step, struct tensorboard **tensorboard);

struct tensorboard_scalar {
	const char *tag;
	float value; /* what is not finite is drawn as a gap */
};

/* Up to TENSORBOARD_SCALARS_MAX values of one step in one event. */
enum { TENSORBOARD_SCALARS_MAX = 32 };
enum status tensorboard_scalars(struct tensorboard *tensorboard, int64_t step, const struct tensorboard_scalar *scalars, size_t count);

/* `png` is a whole PNG file of width × height RGB pixels. */
enum status tensorboard_image(struct tensorboard *tensorboard, int64_t step, const char *tag, const uint8_t *png, size_t png_bytes, int width,
	int height);

/* The distribution of `count` values in equal bins between the smallest and the largest. What is not finite is left out; nothing is
 * written when nothing remains. */
enum status tensorboard_histogram(struct tensorboard *tensorboard, int64_t step, const char *tag, const float *values, size_t count);

/* Syncs and closes. ST_DISK when that fails (everything is released all the same). Accepts NULL. */
enum status tensorboard_close(struct tensorboard *tensorboard);
