/* media.c: see media.h. */
#include "serve/media.h"

#include "core/base/text.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

/* Every word that is understood; of a kind's words the first is its name. Out: may be asked for as the answer. */
static const struct word {
	const char *text;
	enum media media;
	bool out;
} words[] = {
	{"application/json", MEDIA_JSON, true},
	{"application/jsonlines", MEDIA_JSON_LINES, true},
	{"application/json-lines", MEDIA_JSON_LINES, true},
	{"application/x-jsonlines", MEDIA_JSON_LINES, true},
	{"application/x-ndjson", MEDIA_JSON_LINES, true},
	{"application/jsonl", MEDIA_JSON_LINES, true},
	{"text/csv", MEDIA_CSV, true},
	{"application/x-npy", MEDIA_NPY, true},
	{"tensor/pt", MEDIA_NPY, true}, /* TorchTensorSerializer's name for npy bytes */
	{"application/x-npz", MEDIA_NPZ, false},
	{"image/png", MEDIA_IMAGE, false},
	{"image/jpeg", MEDIA_IMAGE, false},
	{"image/jpg", MEDIA_IMAGE, false},
	{"image/bmp", MEDIA_IMAGE, false},
	{"image/x-ms-bmp", MEDIA_IMAGE, false},
	{"image/*", MEDIA_IMAGE, false},
	{"application/x-image", MEDIA_IMAGE, false},
	{"application/octet-stream", MEDIA_BYTES, false},
	{"binary/octet-stream", MEDIA_BYTES, false}, /* what S3 calls an object of no type */
	{"file-path/raw-bytes", MEDIA_BYTES, false},
};
enum { WORDS = sizeof words / sizeof *words };

/* --- pieces of a header ---------------------------------------------------------------------------------------------- */

/* A part of a header's value, not zero-terminated. */
struct span {
	const char *at;
	size_t count;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static struct span span_trim(struct span span)
{
	while (span.count > 0 && is_space(span.at[0]))
		span.at++, span.count--;
	while (span.count > 0 && is_space(span.at[span.count - 1]))
		span.count--;
	return span;
}

/* Cuts what lies before the next `separator` outside of quotes from the front of *rest. False at the end. */
static bool span_next(struct span *rest, char separator, struct span *part)
{
	if (rest->at == NULL)
		return false;
	bool quoted = false;
	size_t i = 0;
	for (; i < rest->count && (quoted || rest->at[i] != separator); i++) {
		if (rest->at[i] == '"')
			quoted = !quoted;
		else if (quoted && rest->at[i] == '\\' && i + 1 < rest->count)
			i++;
	}
	*part = span_trim((struct span){rest->at, i});
	*rest = i < rest->count ? (struct span){rest->at + i + 1, rest->count - i - 1} : (struct span){NULL, 0};
	return true;
}

static bool span_is(struct span span, const char *text)
{
	return span.count == strlen(text) && strncasecmp(span.at, text, span.count) == 0;
}

/* name=value, either may be empty; quotes around the value are taken off. */
static void parameter_split(struct span parameter, struct span *name, struct span *value)
{
	const char *equals = memchr(parameter.at, '=', parameter.count);
	size_t length = equals != NULL ? (size_t)(equals - parameter.at) : parameter.count;
	*name = span_trim((struct span){parameter.at, length});
	*value = equals != NULL ? span_trim((struct span){equals + 1, parameter.count - length - 1}) : (struct span){equals, 0};
	if (value->count >= 2 && value->at[0] == '"' && value->at[value->count - 1] == '"')
		*value = (struct span){value->at + 1, value->count - 2};
}

/* --- Content-Type ---------------------------------------------------------------------------------------------------- */

static const char *known_words(bool out, char *text, size_t bytes)
{
	size_t used = 0;
	text[0] = '\0';
	for (size_t i = 0; i < WORDS; i++) {
		size_t length = strlen(words[i].text);
		if ((out && !words[i].out) || used + length + 3 > bytes)
			continue;
		if (used > 0)
			memcpy(text + used, ", ", 2), used += 2;
		memcpy(text + used, words[i].text, length + 1);
		used += length;
	}
	return text;
}

enum http_code media_of_content_type(const char *content_type, enum media *media)
{
	struct span rest = {content_type, content_type != NULL ? strlen(content_type) : 0}, type = {NULL, 0}, parameter;
	if (!span_next(&rest, ';', &type) || (type.count == 0 && rest.at == NULL)) {
		*media = MEDIA_BYTES;
		return HTTP_OK;
	}
	const struct word *found = NULL;
	for (size_t i = 0; i < WORDS && found == NULL; i++)
		if (span_is(type, words[i].text))
			found = &words[i];
	if (found == NULL) {
		char known[512];
		return REFUSE(HTTP_UNSUPPORTED, "content type \"%.*s\" is not supported; supported are %s", (int)(type.count < 100 ? type.count : 100), type.at,
			known_words(false, known, sizeof known));
	}
	while (span_next(&rest, ';', &parameter)) {
		struct span name, value;
		parameter_split(parameter, &name, &value);
		if (span_is(name, "charset") && !span_is(value, "utf-8") && !span_is(value, "utf8") && !span_is(value, "us-ascii") && !span_is(value, "ascii"))
			return REFUSE(HTTP_UNSUPPORTED, "charset \"%.*s\" of content type %s is not supported; supported are utf-8 and us-ascii",
				(int)(value.count < 100 ? value.count : 100), value.at, found->text);
	}
	*media = found->media;
	return HTTP_OK;
}

/* --- Accept ---------------------------------------------------------------------------------------------------------- */

enum { NAMED = 3, OF_KIND = 2, ANYTHING = 1, NO_MATCH = 0 };

/* q in thousandths: 0, 1, and up to three digits after the point; false when it is no such number. */
static bool quality_parse(struct span value, int *quality)
{
	int thousandths = 0, weight = 100;
	size_t i = 0;
	if (value.count == 0 || value.count > 5)
		return false;
	if (value.at[i] == '0' || value.at[i] == '1') /* ".2" is written, too */
		thousandths = (value.at[i++] - '0') * 1000;
	if (i < value.count && value.at[i++] != '.')
		return false;
	for (; i < value.count; i++, weight /= 10) {
		if (value.at[i] < '0' || value.at[i] > '9')
			return false;
		thousandths += (value.at[i] - '0') * weight;
	}
	*quality = thousandths;
	return thousandths <= 1000;
}

/* How closely a media range names this word. "*" alone stands for anything: Java writes it. */
static int range_matches(struct span range, const char *word)
{
	if (span_is(range, word))
		return NAMED;
	if (span_is(range, "*/*") || span_is(range, "*"))
		return ANYTHING;
	size_t kind = (size_t)(strchr(word, '/') - word) + 1; /* "application/" */
	return range.count == kind + 1 && strncasecmp(range.at, word, kind) == 0 && range.at[kind] == '*' ? OF_KIND : NO_MATCH;
}

/* What a header thinks of one word: by its closest range. */
struct opinion {
	int closeness, quality;
	size_t place; /* of the range in the header */
};

static struct opinion opinion_of(const char *accept, const char *word)
{
	struct opinion opinion = {0};
	struct span rest = {accept, strlen(accept)}, element, range, parameter;
	for (size_t place = 0; span_next(&rest, ',', &element); place++) {
		int quality = 1000;
		bool sound = span_next(&element, ';', &range);
		while (sound && span_next(&element, ';', &parameter)) {
			struct span name, value;
			parameter_split(parameter, &name, &value);
			if (span_is(name, "q"))
				sound = quality_parse(value, &quality);
		}
		int closeness = sound ? range_matches(range, word) : NO_MATCH;
		if (closeness > opinion.closeness || (closeness == opinion.closeness && closeness != NO_MATCH && quality > opinion.quality))
			opinion = (struct opinion){closeness, quality, place};
	}
	return opinion;
}

static bool is_better(struct opinion a, bool a_preferred, struct opinion b, bool b_preferred)
{
	if (a.quality != b.quality)
		return a.quality > b.quality;
	if (a.closeness != b.closeness)
		return a.closeness > b.closeness;
	return a_preferred != b_preferred ? a_preferred : a.place < b.place;
}

enum http_code media_of_accept(const char *accept, enum media preferred, enum media *media, const char **type)
{
	if (accept == NULL || accept[strspn(accept, " \t")] == '\0')
		accept = "*/*";
	const struct word *best = NULL;
	struct opinion best_opinion = {0};
	for (size_t i = 0; i < WORDS; i++) {
		const struct word *word = &words[i];
		if (!word->out)
			continue;
		struct opinion opinion = opinion_of(accept, word->text);
		if (opinion.quality == 0)
			continue;
		if (best == NULL || is_better(opinion, word->media == preferred, best_opinion, best->media == preferred)) {
			best = word;
			best_opinion = opinion;
		}
	}
	if (best == NULL) {
		char known[512];
		return REFUSE(HTTP_NOT_ACCEPTABLE, "no type of accept \"%.200s\" can be given; answers come as %s", accept,
			known_words(true, known, sizeof known));
	}
	*media = best->media;
	*type = best->text;
	return HTTP_OK;
}
