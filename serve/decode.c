/* decode.c: which kind of body it is; see decode.h. The kinds are read in decode/. */
#include "serve/decode.h"

#include "serve/decode/bodies.h"

#include <stdlib.h>
#include <string.h>

static enum http_code text_take(struct images *images, enum media media, const uint8_t *body, size_t count)
{
	const char *text = (const char *)body;
	/* Windows' programs put a byte order mark in front of UTF-8. */
	if (count >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
		text += 3;
		count -= 3;
	}
	return media == MEDIA_JSON ? body_take_json(images, text, count) : media == MEDIA_CSV ? body_take_csv(images, text, count) :
		body_take_json_lines(images, text, count);
}

static enum http_code body_take(struct images *images, enum media media, const uint8_t *body, size_t count)
{
	switch (media) {
	case MEDIA_JSON:
	case MEDIA_JSON_LINES:
	case MEDIA_CSV: return text_take(images, media, body, count);
	case MEDIA_NPY: return body_take_npy(images, body, count);
	case MEDIA_NPZ: return body_take_npz(images, body, count);
	case MEDIA_IMAGE: return images_take_picture(images, body, count);
	default: return body_take_bytes(images, body, count);
	}
}

enum http_code decode(const struct decode_rules *rules, const char *content_type, const uint8_t *body, size_t count, struct decoded *decoded)
{
	enum media media = MEDIA_BYTES;
	struct images images = {0};
	ALLOW(media_of_content_type(content_type, &media));
	if (count > 0)
		ALLOW(images_open(&images, rules));
	enum http_code code = count > 0 ? body_take(&images, media, body, count) : HTTP_OK;
	if (code == HTTP_OK && images.count == 0)
		code = rules->keep_going ? HTTP_NO_CONTENT : REFUSE(HTTP_BAD_REQUEST, "the body is empty; expected at least one image");
	if (code == HTTP_OK) {
		images_finish(&images, decoded);
		decoded->lines = media == MEDIA_CSV || media == MEDIA_JSON_LINES;
	}
	images_close(&images);
	return code;
}

void decoded_free(struct decoded *decoded)
{
	for (size_t i = 0; decoded->faults != NULL && i < decoded->count; i++)
		free(decoded->faults[i]);
	free(decoded->faults);
	free(decoded->images);
	*decoded = (struct decoded){0};
}
