/* tensorboard.c: see tensorboard.h. The one file that knows protobuf-c. */
#include "train/report/tensorboard.h"

#include "core/base/file.h"
#include "train/report/tensorboard.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HISTOGRAM_BINS = 48, COLORSPACE_RGB = 3, SESSION_START = 1 };

struct tensorboard {
	int fd;
	char path[4096];
	uint32_t crc_table[256];
};

/* CRC-32C (Castagnoli), reflected polynomial 0x82F63B78. zlib's CRC-32 has another polynomial. */
static void crc_table_fill(uint32_t table[256])
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		uint32_t crc = byte;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
		table[byte] = crc;
	}
}

static uint32_t crc_masked(const uint32_t table[256], const uint8_t *bytes, size_t count)
{
	uint32_t crc = UINT32_MAX;
	for (size_t i = 0; i < count; i++)
		crc = (crc >> 8) ^ table[(crc ^ bytes[i]) & 255];
	crc = ~crc;
	return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static void put_little_endian(uint8_t *to, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

static enum status event_write(struct tensorboard *tensorboard, Tensorboard__Event *event)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	event->wall_time = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
	size_t bytes = tensorboard__event__get_packed_size(event);
	uint8_t *record = malloc(12 + bytes + 4);
	if (record == NULL)
		return FAIL(ST_MEMORY, "no memory for a TensorBoard event of %zu bytes", bytes);
	put_little_endian(record, bytes, 8);
	put_little_endian(record + 8, crc_masked(tensorboard->crc_table, record, 8), 4);
	tensorboard__event__pack(event, record + 12);
	put_little_endian(record + 12 + bytes, crc_masked(tensorboard->crc_table, record + 12, bytes), 4);
	enum status status = ST_OK;
	for (size_t done = 0, count = 12 + bytes + 4; done < count;) {
		ssize_t n = write(tensorboard->fd, record + done, count - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			status = FAIL(ST_DISK, "%s: writing failed: %s", tensorboard->path, strerror(n < 0 ? errno : ENOSPC));
			break;
		}
		done += (size_t)n;
	}
	free(record);
	return status;
}

static enum status start_write(struct tensorboard *tensorboard, int64_t resumed_step)
{
	Tensorboard__Event version = TENSORBOARD__EVENT__INIT;
	version.what_case = TENSORBOARD__EVENT__WHAT_FILE_VERSION;
	version.file_version = (char[]){"brain.Event:2"};
	TRY(event_write(tensorboard, &version));
	if (resumed_step <= 0)
		return ST_OK;
	Tensorboard__SessionLog log = TENSORBOARD__SESSION_LOG__INIT;
	log.status = SESSION_START;
	Tensorboard__Event start = TENSORBOARD__EVENT__INIT;
	start.step = resumed_step + 1; /* the first step that this process reports */
	start.what_case = TENSORBOARD__EVENT__WHAT_SESSION_LOG;
	start.session_log = &log;
	return event_write(tensorboard, &start);
}

enum status tensorboard_open(const char *directory, const char *host, int64_t resumed_step, struct tensorboard **tensorboard)
{
	TRY(directory_make(directory));
	struct tensorboard *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for a TensorBoard writer");
	made->fd = -1;
	crc_table_fill(made->crc_table);
	char name[320];
	snprintf(name, sizeof name, "events.out.tfevents.%010lld.%.200s.%ld.0", (long long)time(NULL), host, (long)getpid());
	for (char *c = name; *c != '\0'; c++)
		if (*c == '/')
			*c = '_';
	enum status status = path_join(made->path, sizeof made->path, directory, name);
	if (status != ST_OK)
		goto failed;
	made->fd = open(made->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (made->fd < 0 || fchmod(made->fd, 0644) != 0) {
		status = FAIL(ST_DISK, "%s: cannot be made: %s", made->path, strerror(errno));
		goto failed;
	}
	status = start_write(made, resumed_step);
	if (status != ST_OK)
		goto failed;
	*tensorboard = made;
	return ST_OK;
failed:
	if (made->fd >= 0)
		close(made->fd);
	free(made);
	return status;
}

static enum status summary_write(struct tensorboard *tensorboard, int64_t step, Tensorboard__Value **values, size_t count)
{
	Tensorboard__Summary summary = TENSORBOARD__SUMMARY__INIT;
	summary.value = values;
	summary.n_value = count;
	Tensorboard__Event event = TENSORBOARD__EVENT__INIT;
	event.step = step;
	event.what_case = TENSORBOARD__EVENT__WHAT_SUMMARY;
	event.summary = &summary;
	return event_write(tensorboard, &event);
}

enum status tensorboard_scalars(struct tensorboard *tensorboard, int64_t step, const struct tensorboard_scalar *scalars, size_t count)
{
	MUST(count <= TENSORBOARD_SCALARS_MAX);
	Tensorboard__Value values[TENSORBOARD_SCALARS_MAX], *pointers[TENSORBOARD_SCALARS_MAX];
	for (size_t i = 0; i < count; i++) {
		values[i] = (Tensorboard__Value)TENSORBOARD__VALUE__INIT;
		values[i].tag = (char *)scalars[i].tag;
		values[i].value_case = TENSORBOARD__VALUE__VALUE_SIMPLE_VALUE;
		values[i].simple_value = scalars[i].value;
		pointers[i] = &values[i];
	}
	return summary_write(tensorboard, step, pointers, count);
}

enum status tensorboard_image(struct tensorboard *tensorboard, int64_t step, const char *tag, const uint8_t *png, size_t png_bytes, int width,
	int height)
{
	Tensorboard__Image image = TENSORBOARD__IMAGE__INIT;
	image.height = height;
	image.width = width;
	image.colorspace = COLORSPACE_RGB;
	image.encoded_image_string = (ProtobufCBinaryData){.len = png_bytes, .data = (uint8_t *)png};
	Tensorboard__Value value = TENSORBOARD__VALUE__INIT, *pointer = &value;
	value.tag = (char *)tag;
	value.value_case = TENSORBOARD__VALUE__VALUE_IMAGE;
	value.image = &image;
	return summary_write(tensorboard, step, &pointer, 1);
}

enum status tensorboard_histogram(struct tensorboard *tensorboard, int64_t step, const char *tag, const float *values, size_t count)
{
	double edges[HISTOGRAM_BINS], bins[HISTOGRAM_BINS] = {0};
	Tensorboard__Histogram histogram = TENSORBOARD__HISTOGRAM__INIT;
	histogram.min = (double)INFINITY;
	histogram.max = -(double)INFINITY;
	for (size_t i = 0; i < count; i++) {
		double value = (double)values[i];
		if (!isfinite(value))
			continue;
		histogram.min = fmin(histogram.min, value);
		histogram.max = fmax(histogram.max, value);
		histogram.num += 1;
		histogram.sum += value;
		histogram.sum_squares += value * value;
	}
	if (histogram.num == 0)
		return ST_OK;
	double width = (histogram.max - histogram.min) / HISTOGRAM_BINS;
	for (size_t i = 0; i < count; i++) {
		if (!isfinite(values[i]))
			continue;
		int bin = width > 0 ? (int)(((double)values[i] - histogram.min) / width) : 0;
		bins[bin < HISTOGRAM_BINS ? bin : HISTOGRAM_BINS - 1] += 1;
	}
	for (int i = 0; i < HISTOGRAM_BINS; i++)
		edges[i] = i + 1 < HISTOGRAM_BINS ? histogram.min + width * (i + 1) : histogram.max;
	/* Constant values: one bin, since edges must rise. */
	histogram.n_bucket = histogram.n_bucket_limit = width > 0 ? HISTOGRAM_BINS : 1;
	if (!(width > 0))
		edges[0] = histogram.max;
	histogram.bucket = bins;
	histogram.bucket_limit = edges;
	Tensorboard__Value value = TENSORBOARD__VALUE__INIT, *pointer = &value;
	value.tag = (char *)tag;
	value.value_case = TENSORBOARD__VALUE__VALUE_HISTO;
	value.histo = &histogram;
	return summary_write(tensorboard, step, &pointer, 1);
}

enum status tensorboard_close(struct tensorboard *tensorboard)
{
	if (tensorboard == NULL)
		return ST_OK;
	enum status status = ST_OK;
	if (fsync(tensorboard->fd) != 0 && errno != EINVAL && errno != EROFS)
		status = FAIL(ST_DISK, "%s: syncing failed: %s", tensorboard->path, strerror(errno));
	if (close(tensorboard->fd) != 0 && status == ST_OK)
		status = FAIL(ST_DISK, "%s: closing failed: %s", tensorboard->path, strerror(errno));
	free(tensorboard);
	return status;
}
