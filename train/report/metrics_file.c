/* metrics_file.c: see metrics_file.h. */
#include "train/report/metrics_file.h"

#include "core/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum status metrics_file_open(struct metrics_file *file, const char *directory)
{
	char name[32];
	file->fd = -1;
	snprintf(name, sizeof name, "%ld.json", (long)getpid());
	TRY(directory_make(directory));
	TRY(path_join(file->path, sizeof file->path, directory, name));
	int fd = open(file->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0)
		return FAIL(ST_DISK, "%s: cannot be opened: %s", file->path, strerror(errno));
	file->fd = fd;
	return ST_OK;
}

enum status metrics_file_add(struct metrics_file *file, const struct report_epoch *epoch)
{
	struct metric_value values[METRIC_COUNT];
	struct text lines = {0};
	struct timespec now;
	enum status status = ST_OK;
	clock_gettime(CLOCK_REALTIME, &now);
	metrics_of_epoch(epoch, values);
	for (int i = 0; i < METRIC_COUNT && status == ST_OK; i++)
		if (values[i].present && isfinite(values[i].value))
			status = text_printf(&lines, "{\"MetricName\":\"%s\",\"Value\":%.9g,\"Timestamp\":%.3f,\"IterationNumber\":%" PRId64 "}\n",
				metric_name((enum metric)i), values[i].value, (double)now.tv_sec + (double)now.tv_nsec * 1e-9, epoch->epoch);
	for (size_t done = 0; status == ST_OK && done < lines.length;) {
		ssize_t n = write(file->fd, lines.data + done, lines.length - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			status = FAIL(ST_DISK, "%s: writing failed: %s", file->path, strerror(n < 0 ? errno : ENOSPC));
		else
			done += (size_t)n;
	}
	text_free(&lines);
	return status;
}

void metrics_file_close(struct metrics_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}
