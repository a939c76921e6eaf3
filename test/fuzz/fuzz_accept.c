/* Any text as a Content-Type and as an Accept header: a known media type, or a refusal with a sentence. */
#include "serve/media.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	char *text = malloc(count + 1);
	if (text == NULL)
		abort();
	memcpy(text, bytes, count);
	text[count] = '\0';
	enum media media = MEDIA_BYTES, again = MEDIA_BYTES;
	const char *type = NULL;
	enum http_code code = media_of_content_type(text, &media);
	if (code != HTTP_OK && code != HTTP_UNSUPPORTED)
		abort();
	for (enum media preferred = MEDIA_JSON; preferred <= MEDIA_NPY; preferred++) {
		code = media_of_accept(text, preferred, &media, &type);
		if (code != HTTP_OK && code != HTTP_NOT_ACCEPTABLE)
			abort();
		/* What is answered is a content type of the same kind. */
		if (code == HTTP_OK && (media_of_content_type(type, &again) != HTTP_OK || again != media))
			abort();
	}
	free(text);
	return 0;
}
