/* reader.h: one channel's bytes → a collection of images.
 *
 * In: a channel (directory or FIFO). Out: its images, by set. What each file, archive member or record is, is told by its first bytes
 * and, where they leave it open, by its name. What the sets are used for is left to dataset.h. */
#pragma once

#include "train/data/channels.h"
#include "train/data/collection.h"

/* Adds everything in `channel` to `collection`, which was opened; images whose file does not say what they are for go to `own`.
 * Finishes the collection. ST_DATA, with the channel's name and the path, when something is wrong or there is no image (unless it may be empty); ST_STOPPED. */
enum status channel_read(const struct channel *channel, enum set own, struct collection *collection);
