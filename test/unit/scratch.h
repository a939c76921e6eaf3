/* scratch.h: what the tests of the data readers share: a temporary directory, and small files of each format made byte by byte.
 *
 * Everything stops the running test when it fails. `scratch_open` and `scratch_close` are cmocka's setup and teardown of one test. */
#pragma once

#include "core/base/file.h"
#include "core/base/status.h"
#include "core/base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#define OK(call) \
	do { \
		enum status ok_status = (call); \
		if (ok_status != ST_OK) \
			fail_msg("%s: %s: %s", #call, status_name(ok_status), status_message()); \
	} while (0)

/* The call fails with `wanted` and its sentence holds `part`. */
#define FAILS(wanted, part, call) \
	do { \
		enum status fails_status = (call); \
		if (fails_status != (wanted)) \
			fail_msg("%s: %s, expected %s (%s)", #call, status_name(fails_status), #wanted, status_message()); \
		if (strstr(status_message(), part) == NULL) \
			fail_msg("%s: \"%s\" does not say \"%s\"", #call, status_message(), part); \
	} while (0)

static char scratch[64]; /* the test's own directory */

static inline int scratch_open(void **state)
{
	(void)state;
	strcpy(scratch, "/tmp/smelt_test_XXXXXX");
	return mkdtemp(scratch) == NULL;
}

static inline int scratch_close(void **state)
{
	char command[128];
	(void)state;
	snprintf(command, sizeof command, "chmod -R u+rwX '%s' && rm -rf '%s'", scratch, scratch);
	return system(command);
}

#define SCRATCH_TEST(function) cmocka_unit_test_setup_teardown(function, scratch_open, scratch_close)

/* A path below the directory; one of a few static buffers. */
static inline const char *scratch_path(const char *name)
{
	static char paths[8][4096];
	static int next;
	char *path = paths[next++ % 8];
	snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
	return path;
}

static inline void scratch_write(const char *name, const void *bytes, size_t count)
{
	char parent[4096];
	snprintf(parent, sizeof parent, "%s", scratch_path(name));
	*strrchr(parent, '/') = '\0';
	OK(directory_make(parent));
	FILE *file = fopen(scratch_path(name), "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, count, file), count);
	assert_int_equal(fclose(file), 0);
}

static inline void scratch_write_text(const char *name, const struct text *text)
{
	scratch_write(name, text_string(text), text->length);
}

/* --- little-endian numbers and the formats --------------------------------------------------------------------------- */

static inline void add_u32(struct text *to, uint32_t value)
{
	uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
	OK(text_add_bytes(to, bytes, 4));
}

static inline void add_bytes(struct text *to, const void *bytes, size_t count)
{
	OK(text_add_bytes(to, bytes, count));
}

static inline void add_zeros(struct text *to, size_t count)
{
	static const char zeros[512];
	for (; count > sizeof zeros; count -= sizeof zeros)
		add_bytes(to, zeros, sizeof zeros);
	add_bytes(to, zeros, count);
}

/* One member of a tar archive: header, bytes, padding. `type` '0' is a file, '5' a directory, '2' a symbolic link. */
static inline void add_tar(struct text *to, char type, const char *name, const void *bytes, size_t count)
{
	char header[512] = {0};
	unsigned sum = 0;
	snprintf(header, 100, "%s", name);
	strcpy(header + 100, "0000644");
	strcpy(header + 108, "0000000");
	strcpy(header + 116, "0000000");
	snprintf(header + 124, 12, "%011zo", count);
	strcpy(header + 136, "00000000000");
	memset(header + 148, ' ', 8);
	header[156] = type;
	if (type == '2' || type == '1')
		strcpy(header + 157, "elsewhere");
	memcpy(header + 257, "ustar\00000", 8);
	for (size_t i = 0; i < sizeof header; i++)
		sum += (unsigned char)header[i];
	snprintf(header + 148, 8, "%06o", sum);
	add_bytes(to, header, sizeof header);
	add_bytes(to, bytes, count);
	add_zeros(to, -count & 511);
}

static inline void add_tar_end(struct text *to)
{
	add_zeros(to, 1024);
}

/* `from` compressed with gzip. */
static inline void add_gzip(struct text *to, const struct text *from)
{
	z_stream stream = {0};
	static uint8_t block[65536];
	assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	stream.next_in = (Bytef *)(uintptr_t)text_string(from);
	stream.avail_in = (uInt)from->length;
	int result;
	do {
		stream.next_out = block;
		stream.avail_out = sizeof block;
		result = deflate(&stream, Z_FINISH);
		add_bytes(to, block, sizeof block - stream.avail_out);
	} while (result == Z_OK);
	assert_int_equal(result, Z_STREAM_END);
	deflateEnd(&stream);
}

/* One RecordIO record, or the part `part` (0 whole, 1 first, 2 middle, 3 last) of one. */
static inline void add_record(struct text *to, uint32_t part, const void *bytes, size_t count)
{
	add_u32(to, 0xced7230au);
	add_u32(to, part << 29 | (uint32_t)count);
	add_bytes(to, bytes, count);
	add_zeros(to, -count & 3);
}
