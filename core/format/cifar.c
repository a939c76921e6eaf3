/* cifar.c: names, binary records and lists of names; see cifar.h. Pickles are read in cifar_pickle.c. */
#include "core/format/cifar.h"

#include "core/base/text.h"

#include <stdlib.h>
#include <string.h>

enum { RECORDS_SNIFFED_MAX = 20 };

/* --- roles ----------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	enum cifar_role role;
} whole_names[] = {
	{"fine_label_names.txt", CIFAR_ROLE_NAMES},
	{"batches.meta.txt", CIFAR_ROLE_NAMES},
	{"coarse_label_names.txt", CIFAR_ROLE_COARSE_NAMES},
	{"meta", CIFAR_ROLE_NAMES_PICKLE},
	{"batches.meta", CIFAR_ROLE_NAMES_PICKLE},
};

static const struct {
	const char *word;
	enum cifar_role role;
} words[] = {
	{"test", CIFAR_ROLE_TEST},
	{"train", CIFAR_ROLE_TRAIN},
	{"training", CIFAR_ROLE_TRAIN},
	{"data_batch", CIFAR_ROLE_TRAIN},
};

static const char *const other_endings[] = {"~", ".txt", ".html", ".md", ".json", ".csv", ".lst", ".idx", ".xml", ".yaml", ".yml", ".log"};

/* True if `word` stands in `name` between separators or ends. */
static bool name_has_word(const char *name, const char *word)
{
	size_t length = strlen(word);
	for (const char *at = strstr(name, word); at != NULL; at = strstr(at + 1, word)) {
		bool begins = at == name || strchr("._-", at[-1]) != NULL;
		bool ends = at[length] == '\0' || strchr("._-", at[length]) != NULL;
		if (begins && ends)
			return true;
	}
	return false;
}

enum cifar_role cifar_role_find(const char *name)
{
	const char *slash = strrchr(name, '/');
	const char *base = slash != NULL ? slash + 1 : name;
	for (size_t i = 0; i < sizeof whole_names / sizeof *whole_names; i++)
		if (strcmp(base, whole_names[i].name) == 0)
			return whole_names[i].role;
	for (size_t i = 0; i < sizeof other_endings / sizeof *other_endings; i++)
		if (text_ends_with(base, other_endings[i]))
			return CIFAR_ROLE_OTHER;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (name_has_word(base, words[i].word))
			return words[i].role;
	return CIFAR_ROLE_UNKNOWN;
}

/* --- binary ---------------------------------------------------------------------------------------------------------- */

static size_t record_bytes(enum cifar_kind kind)
{
	return kind == CIFAR_100 ? 2 + CIFAR_IMAGE_BYTES : 1 + CIFAR_IMAGE_BYTES;
}

static bool labels_agree(const uint8_t *record, enum cifar_kind kind, const uint8_t *coarse_of_fine)
{
	return kind == CIFAR_100 ? record[1] < CIFAR_100 && record[0] == coarse_of_fine[record[1]] : record[0] < CIFAR_10;
}

enum cifar_kind cifar_binary_sniff(const uint8_t *bytes, size_t count, uint64_t size, const uint8_t *coarse_of_fine)
{
	static const enum cifar_kind kinds[2] = {CIFAR_100, CIFAR_10};
	bool whole[2];
	size_t seen[2] = {0}, good[2] = {0};
	for (int k = 0; k < 2; k++) {
		size_t bytes_one = record_bytes(kinds[k]);
		for (size_t at = 0; at < count && count - at >= bytes_one && seen[k] < RECORDS_SNIFFED_MAX; at += bytes_one) {
			seen[k]++;
			good[k] += labels_agree(bytes + at, kinds[k], coarse_of_fine);
		}
		whole[k] = size != UINT64_MAX && size > 0 && size % bytes_one == 0;
	}
	/* Only one length fits: that is it, whatever the labels are, so that a wrong label is called one. */
	if (whole[0] != whole[1])
		return whole[0] ? kinds[0] : kinds[1];
	/* A file that is cut off, or one of unknown length: the one whose labels are right, most of them at least. */
	for (int k = 0; k < 2; k++)
		if (seen[k] > 0 && good[k] == seen[k])
			return kinds[k];
	int better = good[1] * seen[0] > good[0] * seen[1];
	return 2 * good[better] > seen[better] ? kinds[better] : CIFAR_NONE;
}

enum status cifar_binary_read(struct stream *stream, enum cifar_kind kind, const uint8_t *coarse_of_fine, cifar_take *take, void *context)
{
	uint8_t record[2 + CIFAR_IMAGE_BYTES];
	const size_t bytes = record_bytes(kind);
	for (unsigned long long i = 0;; i++) {
		size_t n;
		TRY(stream_read(stream, record, bytes, &n));
		if (n == 0)
			return ST_OK;
		if (n < bytes)
			return FAIL(ST_DATA, "%s: %llu bytes, expected a multiple of %zu (a CIFAR-%d record): record %llu is cut off", stream->name,
				(unsigned long long)stream->offset, bytes, (int)kind, i);
		unsigned label = record[bytes - CIFAR_IMAGE_BYTES - 1];
		if (label >= (unsigned)kind)
			return FAIL(ST_DATA, "%s: record %llu has label %u; a CIFAR-%d label is 0 to %d", stream->name, i, label, (int)kind, (int)kind - 1);
		if (!labels_agree(record, kind, coarse_of_fine))
			return FAIL(ST_DATA, "%s: record %llu has coarse label %u with fine label %u, which CIFAR-100 puts under %u; another format, or shifted bytes",
				stream->name, i, record[0], label, coarse_of_fine[label]);
		TRY(take(context, label, record + bytes - CIFAR_IMAGE_BYTES));
	}
}

/* --- lists of names -------------------------------------------------------------------------------------------------- */

enum status cifar_names_add(struct cifar_names *names, const void *bytes, size_t count, const char *name)
{
	if (count == 0 || count > 1024 || memchr(bytes, 0, count) != NULL || !text_is_utf8(bytes, count))
		return FAIL(ST_DATA, "%s: class name %zu is empty, longer than 1024 bytes or not UTF-8", name, names->count);
	/* Room doubles at each power of two. */
	if ((names->count & (names->count - 1)) == 0) {
		char **larger = realloc(names->all, (names->count == 0 ? 1 : 2 * names->count) * sizeof *larger);
		if (larger == NULL)
			return FAIL(ST_MEMORY, "%s: no memory for class names", name);
		names->all = larger;
	}
	char *copy = malloc(count + 1), *raw = malloc(count + 1);
	if (copy == NULL || raw == NULL) {
		free(copy);
		free(raw);
		return FAIL(ST_MEMORY, "%s: no memory for class names", name);
	}
	memcpy(raw, bytes, count);
	raw[count] = '\0';
	text_printable(raw, copy, count + 1);
	free(raw);
	names->all[names->count++] = copy;
	return ST_OK;
}

enum status cifar_names_parse(const uint8_t *bytes, size_t count, const char *name, struct cifar_names *names)
{
	enum status status = ST_OK;
	struct cifar_names found = {0};
	for (size_t at = 0; at < count;) {
		const uint8_t *newline = memchr(bytes + at, '\n', count - at);
		size_t end = newline != NULL ? (size_t)(newline - bytes) : count;
		size_t length = end - at;
		while (length > 0 && strchr(" \t\r", bytes[at + length - 1]) != NULL && bytes[at + length - 1] != '\0')
			length--;
		if (length > 0)
			TRY_DONE(cifar_names_add(&found, bytes + at, length, name));
		at = end + 1;
	}
	cifar_names_free(names);
	*names = found;
	found = (struct cifar_names){0};
done:
	cifar_names_free(&found);
	return status;
}

void cifar_names_free(struct cifar_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->all[i]);
	free(names->all);
	*names = (struct cifar_names){0};
}
