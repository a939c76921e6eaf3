/* file.h: files that are read whole, and files that appear whole.
 *
 * A file that we write is made under a temporary name in the same directory, every write, fsync, close and rename is checked,
 * it is renamed to its final name and the directory is synced. So a reader never sees half a file, and a full disk is a
 * failure (ST_DISK) with a sentence. Files are world-readable (0644, directories 0755) whatever the umask: on SageMaker another
 * process uploads them. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a whole regular file or stream. *bytes is malloc'ed, with a zero byte after the end; the caller frees it.
 * ST_DATA when it cannot be opened or read, or holds more than bytes_max. */
enum status file_read(const char *path, size_t bytes_max, uint8_t **bytes, size_t *count);

/* A file being written. The caller appends, then commits or abandons; both release everything. */
struct file_writer {
	int fd; /* -1: not open */
	bool failed; /* an append was not written: commit refuses */
	uint64_t bytes;
	uint32_t crc; /* CRC-32 (zlib's) of everything appended */
	char path[4096];
	char temporary[4096];
	uint8_t *buffer; /* small appends are gathered here */
	size_t buffered;
};

/* What the temporary name ends in. The checkpoint directory needs SageMaker's own suffix, so that no half file is uploaded. */
#define FILE_TEMPORARY_SUFFIX ".tmp"
#define FILE_IGNORED_SUFFIX ".sagemaker-ignore"

/* Starts `path` under the temporary name path + suffix (a leftover of that name is replaced). ST_DISK on failure. */
enum status file_begin(struct file_writer *writer, const char *path, const char *suffix);
enum status file_append(struct file_writer *writer, const void *bytes, size_t count);
/* Flushes, syncs, closes, renames, syncs the directory. On failure the temporary file is removed. */
enum status file_commit(struct file_writer *writer);
/* Removes the temporary file. Harmless after a commit or a failed begin. */
void file_abandon(struct file_writer *writer);

/* The four calls above for bytes that are already in memory. */
enum status file_write(const char *path, const void *bytes, size_t count);

/* Makes `path` and its missing parents (0755). ST_DISK on failure. */
enum status directory_make(const char *path);
/* fsync of a directory, so that a rename in it survives a power cut. */
enum status directory_sync(const char *path);

bool file_exists(const char *path);
bool directory_exists(const char *path);

/* Joins two parts with one '/' between them. ST_SETTINGS if the result does not fit in `path_bytes`. */
enum status path_join(char *path, size_t path_bytes, const char *directory, const char *name);
