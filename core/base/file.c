/* file.c: see file.h. */
#include "core/base/file.h"

#include "core/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { WRITE_BUFFER_BYTES = 1 << 20 };

/* A stop signal may interrupt any call that waits; what we are about to do is then done all the same. */
static int open_again(const char *path, int flags, mode_t mode)
{
	int fd;
	do
		fd = open(path, flags, mode);
	while (fd < 0 && errno == EINTR);
	return fd;
}

static int fsync_again(int fd)
{
	int result;
	do
		result = fsync(fd);
	while (result != 0 && errno == EINTR);
	return result;
}

enum status file_read(const char *path, size_t bytes_max, uint8_t **bytes, size_t *count)
{
	enum status status = ST_OK;
	uint8_t *data = NULL;
	size_t used = 0, capacity = 0;
	int fd = open_again(path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return FAIL(ST_DATA, "%s: cannot be opened: %s", path, strerror(errno));
	struct stat about;
	/* The size is a hint only: a file may grow, and a stream has none. */
	if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0 && (uintmax_t)about.st_size <= bytes_max)
		capacity = (size_t)about.st_size + 2; /* the ending zero, and room to see that nothing follows */
	else
		capacity = 65536;
	data = malloc(capacity);
	if (data == NULL) {
		status = FAIL(ST_MEMORY, "%s: no memory for %zu bytes", path, capacity);
		goto done;
	}
	memory_prefer_large_pages(data, capacity);
	for (;;) {
		if (used + 1 >= capacity) {
			uint8_t *larger = realloc(data, capacity * 2);
			if (larger == NULL) {
				status = FAIL(ST_MEMORY, "%s: no memory for %zu bytes", path, capacity * 2);
				goto done;
			}
			data = larger;
			capacity *= 2;
		}
		ssize_t n = read(fd, data + used, capacity - 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			status = FAIL(ST_DATA, "%s: cannot be read: %s", path, strerror(errno));
			goto done;
		}
		if (n == 0)
			break;
		used += (size_t)n;
		if (used > bytes_max) {
			status = FAIL(ST_DATA, "%s: more than %zu bytes, the most that is read of such a file", path, bytes_max);
			goto done;
		}
	}
	data[used] = 0;
	*bytes = data;
	*count = used;
	data = NULL;
done:
	free(data);
	close(fd);
	return status;
}

static enum status fail_disk(const char *what, const char *path)
{
	int error = errno;
	return FAIL(ST_DISK, "%s: %s failed: %s%s", path, what, strerror(error),
		error == ENOSPC ? "; enlarge the volume (VolumeSizeInGB) or keep fewer checkpoints" : "");
}

enum status file_begin(struct file_writer *writer, const char *path, const char *suffix)
{
	*writer = (struct file_writer){.fd = -1};
	int a = snprintf(writer->path, sizeof writer->path, "%s", path);
	int b = snprintf(writer->temporary, sizeof writer->temporary, "%s%s", path, suffix);
	if (a < 0 || b < 0 || (size_t)b >= sizeof writer->temporary) {
		writer->temporary[0] = '\0';
		return FAIL(ST_SETTINGS, "path of %d characters, at most %zu fit: %.60s…", b, sizeof writer->temporary - 1, path);
	}
	writer->buffer = malloc(WRITE_BUFFER_BYTES);
	if (writer->buffer == NULL)
		return FAIL(ST_MEMORY, "%s: no memory for a write buffer", path);
	if (unlink(writer->temporary) != 0 && errno != ENOENT) {
		enum status status = fail_disk("removing a leftover temporary file", writer->temporary);
		file_abandon(writer);
		return status;
	}
	writer->fd = open_again(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (writer->fd < 0) {
		enum status status = fail_disk("creating the file", writer->temporary);
		file_abandon(writer);
		return status;
	}
	if (fchmod(writer->fd, 0644) != 0) {
		enum status status = fail_disk("setting permissions", writer->temporary);
		file_abandon(writer);
		return status;
	}
	writer->crc = (uint32_t)crc32(0, NULL, 0);
	return ST_OK;
}

static enum status write_all(struct file_writer *writer, const uint8_t *bytes, size_t count)
{
	while (count > 0) {
		ssize_t n = write(writer->fd, bytes, count);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			if (n == 0)
				errno = ENOSPC; /* POSIX allows a short write that makes no progress; treat it as full */
			writer->failed = true;
			return fail_disk("writing", writer->path);
		}
		bytes += n;
		count -= (size_t)n;
	}
	return ST_OK;
}

static enum status flush(struct file_writer *writer)
{
	size_t count = writer->buffered;
	writer->buffered = 0;
	return write_all(writer, writer->buffer, count);
}

enum status file_append(struct file_writer *writer, const void *bytes, size_t count)
{
	MUST(writer->fd >= 0);
	const uint8_t *from = bytes;
	for (size_t done = 0; done < count;) {
		size_t part = count - done < 1 << 30 ? count - done : 1 << 30; /* zlib counts in 32 bits */
		writer->crc = (uint32_t)crc32(writer->crc, from + done, (uInt)part);
		done += part;
	}
	writer->bytes += count;
	if (count < WRITE_BUFFER_BYTES - writer->buffered) {
		memcpy(writer->buffer + writer->buffered, from, count);
		writer->buffered += count;
		return ST_OK;
	}
	TRY(flush(writer));
	if (count < WRITE_BUFFER_BYTES) {
		memcpy(writer->buffer, from, count);
		writer->buffered = count;
		return ST_OK;
	}
	return write_all(writer, from, count);
}

enum status file_commit(struct file_writer *writer)
{
	MUST(writer->fd >= 0);
	enum status status = writer->failed ? FAIL(ST_DISK, "%s: not put in place, for a write to it has failed", writer->path) : flush(writer);
	if (status == ST_OK && fsync_again(writer->fd) != 0)
		status = fail_disk("syncing", writer->path);
	int fd = writer->fd;
	writer->fd = -1;
	if (close(fd) != 0 && errno != EINTR && status == ST_OK) /* after EINTR Linux has closed it */
		status = fail_disk("closing", writer->path);
	if (status == ST_OK && rename(writer->temporary, writer->path) != 0)
		status = fail_disk("renaming its temporary file", writer->path);
	if (status == ST_OK) {
		writer->temporary[0] = '\0';
		char directory[sizeof writer->path];
		snprintf(directory, sizeof directory, "%s", writer->path);
		char *slash = strrchr(directory, '/');
		if (slash == NULL)
			snprintf(directory, sizeof directory, ".");
		else
			slash[slash == directory] = '\0';
		status = directory_sync(directory);
	}
	file_abandon(writer);
	return status;
}

void file_abandon(struct file_writer *writer)
{
	if (writer->fd >= 0)
		close(writer->fd);
	writer->fd = -1;
	if (writer->temporary[0] != '\0')
		unlink(writer->temporary);
	writer->temporary[0] = '\0';
	free(writer->buffer);
	writer->buffer = NULL;
}

enum status file_write(const char *path, const void *bytes, size_t count)
{
	struct file_writer writer;
	TRY(file_begin(&writer, path, FILE_TEMPORARY_SUFFIX));
	enum status status = file_append(&writer, bytes, count);
	if (status == ST_OK)
		return file_commit(&writer);
	file_abandon(&writer);
	return status;
}

enum status directory_make(const char *path)
{
	char part[4096];
	int length = snprintf(part, sizeof part, "%s", path);
	if (length <= 0 || (size_t)length >= sizeof part)
		return FAIL(ST_SETTINGS, "directory name of %d characters, 1 to %zu fit", length, sizeof part - 1);
	for (char *slash = part + 1;; slash++) {
		if (*slash != '/' && *slash != '\0')
			continue;
		char end = *slash;
		*slash = '\0';
		if (mkdir(part, 0755) == 0) {
			if (chmod(part, 0755) != 0)
				return fail_disk("setting permissions", part);
		} else if (!directory_exists(part)) {
			if (errno == EEXIST)
				errno = ENOTDIR;
			return fail_disk("making the directory", part);
		}
		*slash = end;
		if (end == '\0')
			return ST_OK;
	}
}

enum status directory_sync(const char *path)
{
	int fd = open_again(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return fail_disk("opening the directory", path);
	enum status status = ST_OK;
	/* Some file systems (FUSE among them) cannot sync a directory and say so with EINVAL. */
	if (fsync_again(fd) != 0 && errno != EINVAL && errno != EROFS)
		status = fail_disk("syncing the directory", path);
	close(fd);
	return status;
}

bool file_exists(const char *path)
{
	struct stat about;
	return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

bool directory_exists(const char *path)
{
	int error = errno;
	struct stat about;
	bool is = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
	errno = error;
	return is;
}

enum status path_join(char *path, size_t path_bytes, const char *directory, const char *name)
{
	size_t length = strlen(directory);
	const char *between = length > 0 && directory[length - 1] == '/' ? "" : "/";
	int used = snprintf(path, path_bytes, "%s%s%s", directory, between, name);
	if (used < 0 || (size_t)used >= path_bytes)
		return FAIL(ST_SETTINGS, "path of %d characters, at most %zu fit: %.60s…", used, path_bytes - 1, directory);
	return ST_OK;
}
