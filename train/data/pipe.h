/* pipe.h: a Pipe channel as a stream.
 *
 * SageMaker makes a FIFO CHANNEL_0 for the first pass over the data, CHANNEL_1 for the second, and so on. All of the data are kept
 * in memory here, so only CHANNEL_0 is read. It may not be there yet, and its writer may come late: neither blocks a stop. */
#pragma once

#include "core/format/stream.h"
#include "train/data/channels.h"

#include <stdbool.h>

struct pipe_reader {
	struct stream stream;
	int fd;
	bool (*stopped)(void); /* may be NULL */
	char path[OPT_ML_PATH_BYTES];
};

/* Waits for the FIFO and opens it. `reader` must stay where it is until pipe_close. ST_STOPPED when stopped() says so, here and from
 * the stream; ST_DATA when the FIFO cannot be opened or read. */
enum status pipe_open(struct pipe_reader *reader, const struct channel *channel, bool (*stopped)(void));
void pipe_close(struct pipe_reader *reader);

/* Opens the FIFO of a channel that is not wanted, waits at most wait_ms for its writer and closes it, so that the writer learns that
 * nobody reads. No failure: it is a courtesy. */
void pipe_dismiss(const struct channel *channel, int wait_ms, bool (*stopped)(void));
