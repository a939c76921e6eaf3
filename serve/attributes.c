/* attributes.c: see attributes.h. */
#include "serve/attributes.h"

#include "serve/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ATTRIBUTES_BYTES_MAX = 1024, ATTRIBUTE_BYTES_MAX = 64, TOP_K_MAX = 100000 };

#define WORD_ROW(constant, word) {word, constant},

const char *const attribute_names[] = {"output", "top_k", "floats", NULL};

static enum http_code output_read(const char *value, struct decode_rules *decode, struct encode_rules *encode)
{
	(void)decode;
	if (!output_parse(value, &encode->output))
		return REFUSE(HTTP_BAD_REQUEST, "output=%s: must be probabilities, log_probabilities or logits", value);
	return HTTP_OK;
}

static enum http_code top_k_read(const char *value, struct decode_rules *decode, struct encode_rules *encode)
{
	(void)decode;
	char *end;
	errno = 0;
	long number = strtol(value, &end, 10);
	if (end == value || *end != '\0' || errno != 0 || number < 1 || number > TOP_K_MAX)
		return REFUSE(HTTP_BAD_REQUEST, "top_k=%s: must be a whole number from 1", value);
	encode->top_k = (int)number;
	return HTTP_OK;
}

static enum http_code floats_read(const char *value, struct decode_rules *decode, struct encode_rules *encode)
{
	(void)encode;
	static const struct {
		const char *word;
		enum value_range range;
	} words[] = {VALUE_RANGE_LIST(WORD_ROW)};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcmp(value, words[i].word) == 0) {
			decode->floats = words[i].range;
			return HTTP_OK;
		}
	return REFUSE(HTTP_BAD_REQUEST, "floats=%s: must be auto, pixels, unit or normalized", value);
}

enum http_code attribute_read(const char *name, const char *value, struct decode_rules *decode, struct encode_rules *encode)
{
	/* In the order of attribute_names. */
	static enum http_code (*const readers[])(const char *, struct decode_rules *, struct encode_rules *) = {output_read, top_k_read, floats_read};
	for (size_t i = 0; attribute_names[i] != NULL; i++)
		if (strcmp(name, attribute_names[i]) == 0)
			return readers[i](value, decode, encode);
	return HTTP_OK;
}

enum http_code attributes_read(const char *text, struct decode_rules *decode, struct encode_rules *encode)
{
	for (const char *at = text; at != NULL && *at != '\0';) {
		at += strspn(at, " \t;,");
		size_t length = strcspn(at, ";,"), name = strcspn(at, "=;,");
		char attribute[ATTRIBUTE_BYTES_MAX];
		const char *next = at + length;
		while (length > 0 && (at[length - 1] == ' ' || at[length - 1] == '\t'))
			length--;
		/* What is longer than any of ours is not ours. */
		if (name < length && length < sizeof attribute) {
			memcpy(attribute, at, length);
			attribute[name] = attribute[length] = '\0';
			ALLOW(attribute_read(attribute, attribute + name + 1, decode, encode));
		}
		at = next;
	}
	return HTTP_OK;
}

bool attributes_clean(const char *text)
{
	size_t length = 0;
	for (; text[length] != '\0'; length++)
		if (length == ATTRIBUTES_BYTES_MAX || text[length] < ' ' || text[length] > '~')
			return false;
	return true;
}
