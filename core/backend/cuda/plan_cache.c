/* plan_cache.c: see plan_cache.h.
 *
 * A file is "smelt plan 1\n", a line of 16 hexadecimal digits (FNV-1a over all that follows), a line with the record's numbers and the lengths of
 * key and JSON, then these two, and nothing else. */
#include "core/backend/cuda/plan_cache.h"

#include "core/base/file.h"
#include "core/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC "smelt plan 1\n"
enum { HASH_DIGITS = 16, FILE_BYTES_MAX = 16 << 20, PATH_BYTES = 4096 };

static uint64_t hash_of(const void *bytes, size_t count)
{
	uint64_t hash = 0xcbf29ce484222325;
	for (size_t i = 0; i < count; i++)
		hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
	return hash;
}

static enum status path_of(const char *directory, const char *key, char path[PATH_BYTES])
{
	char name[HASH_DIGITS + sizeof ".plan"];
	snprintf(name, sizeof name, "%016" PRIx64 ".plan", hash_of(key, strlen(key)));
	return path_join(path, PATH_BYTES, directory, name);
}

/* The lengths are the last two numbers of the line. */
#define NUMBERS_WRITE "%" PRId64 " %" PRId64 " %" PRId64 " %d %d %d %zu %zu\n"
#define NUMBERS_READ "%" SCNd64 " %" SCNd64 " %" SCNd64 " %d %d %d %zu %zu"

/* `bytes` ends with a zero beyond `count`. NULL when the file is a record of that key, else what is wrong with it. */
static const char *record_parse(const char *bytes, size_t count, const char *key, struct plan_record *record)
{
	const size_t magic = strlen(MAGIC), head = magic + HASH_DIGITS + 1;
	if (count < head || memcmp(bytes, MAGIC, magic) != 0 || bytes[head - 1] != '\n')
		return "not a plan of this version";
	char digits[HASH_DIGITS + 1];
	snprintf(digits, sizeof digits, "%016" PRIx64, hash_of(bytes + head, count - head));
	if (memcmp(digits, bytes + magic, HASH_DIGITS) != 0)
		return "damaged";
	const char *line = bytes + head, *body = memchr(line, '\n', count - head);
	int deterministic, runtime_compiled, tensor_cores;
	size_t key_bytes, json_bytes;
	struct plan_record read = {0};
	if (body == NULL || sscanf(line, NUMBERS_READ, &read.engine, &read.candidates, &read.nanoseconds, &deterministic, &runtime_compiled, &tensor_cores,
		&key_bytes, &json_bytes) != 8)
		return "damaged";
	body++;
	const size_t left = count - (size_t)(body - bytes);
	if (key_bytes > left || json_bytes != left - key_bytes)
		return "damaged";
	if (key_bytes != strlen(key) || memcmp(body, key, key_bytes) != 0)
		return "of another key with the same hash";
	if (text_add_bytes(&read.json, body + key_bytes, json_bytes) != ST_OK)
		return "too large for the memory";
	read.deterministic = deterministic != 0;
	read.runtime_compiled = runtime_compiled != 0;
	read.tensor_cores = tensor_cores != 0;
	*record = read;
	return NULL;
}

bool plan_cache_read(const char *directory, const char *key, struct plan_record *record)
{
	char path[PATH_BYTES];
	uint8_t *bytes;
	size_t count;
	if (path_of(directory, key, path) != ST_OK || !file_exists(path))
		return false;
	if (file_read(path, FILE_BYTES_MAX, &bytes, &count) != ST_OK) {
		log_debug("plan cache: %s", status_message());
		return false;
	}
	const char *wrong = record_parse((const char *)bytes, count, key, record);
	free(bytes);
	if (wrong != NULL)
		log_debug("plan cache: %s: %s; planned anew", path, wrong);
	return wrong == NULL;
}

static enum status record_print(const char *key, const struct plan_record *record, struct text *body)
{
	TRY(text_printf(body, NUMBERS_WRITE, record->engine, record->candidates, record->nanoseconds, record->deterministic, record->runtime_compiled,
		record->tensor_cores, strlen(key), record->json.length));
	TRY(text_add(body, key));
	return text_add_bytes(body, record->json.data, record->json.length);
}

static enum status file_put(const char *path, const struct text *body)
{
	char head[sizeof MAGIC + HASH_DIGITS + 1], suffix[32];
	struct file_writer writer;
	snprintf(head, sizeof head, MAGIC "%016" PRIx64 "\n", hash_of(body->data, body->length));
	snprintf(suffix, sizeof suffix, ".%ld" FILE_TEMPORARY_SUFFIX, (long)getpid()); /* other processes may write the same file */
	TRY(file_begin(&writer, path, suffix));
	enum status status = file_append(&writer, head, strlen(head));
	if (status == ST_OK)
		status = file_append(&writer, body->data, body->length);
	if (status == ST_OK)
		return file_commit(&writer);
	file_abandon(&writer);
	return status;
}

enum status plan_cache_write(const char *directory, const char *key, const struct plan_record *record)
{
	char path[PATH_BYTES];
	struct text body = {0};
	TRY(directory_make(directory));
	TRY(path_of(directory, key, path));
	enum status status = record_print(key, record, &body);
	if (status == ST_OK)
		status = file_put(path, &body);
	text_free(&body);
	return status;
}
