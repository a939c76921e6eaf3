/* Any bytes as a request's body: the first byte chooses the content type, whether bad lines are kept and what floats mean; then come
 * images that are finite, or a refusal with a sentence. The images are small, so that a small body holds some. Seeds: bodies of every kind. */
#include "core/base/text.h"
#include "core/format/image.h"
#include "serve/decode.h"
#include "serve/encode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STBI_NO_STDIO
#include <stb_image.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { SIDE = 2, VALUES = 3 * SIDE * SIDE, AREA_MAX = 1 << 18 };

/* Finite images; then the bodies' own numbers as logits, through every encoder. */
static void decoded_check(struct decoded *decoded, enum media media)
{
	if (decoded->count == 0 || decoded->count > 50)
		abort();
	for (size_t i = 0; i < decoded->count * VALUES; i++)
		if (!isfinite(decoded->images[i]))
			abort();
	static const char *const names[VALUES] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
	struct encode_rules rules = {.media = media, .output = (enum output)(decoded->count % 3), .top_k = media == MEDIA_NPY ? 0 : (int)(decoded->count % 2),
		.classes = VALUES, .class_names = names};
	struct text body = {0};
	enum http_code code = encode(&rules, decoded->images, decoded->count, decoded->faults, &body);
	if (code != HTTP_OK && code != HTTP_BAD_REQUEST)
		abort();
	if (code == HTTP_OK && media != MEDIA_NPY && !text_is_utf8(body.data, body.length))
		abort();
	text_free(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	static const char *const types[] = {"application/json", "application/jsonlines", "text/csv", "application/x-npy", "application/x-npz", "image/png", "",
		"application/json"};
	int width, height, channels;
	if (count == 0)
		return 0;
	unsigned choice = bytes[0];
	/* A few bytes may claim a picture that takes seconds under the sanitizers: allowed, but nothing to spend the inputs on. */
	if (stbi_info_from_memory(bytes + 1, (int)count - 1, &width, &height, &channels) && (long long)width * height > AREA_MAX)
		return 0;
	struct decode_rules rules = {.image_size = SIDE, .normalization = {{0.5f, 0.4f, 0.3f}, {0.2f, 0.25f, 0.3f}}, .images_max = 50,
		.keep_going = (choice & 8) != 0, .floats = (enum value_range)(choice >> 4 & 3)};
	struct decoded decoded = {0};
	enum http_code code = decode(&rules, types[choice & 7], bytes + 1, count - 1, &decoded);
	if (code == HTTP_OK) {
		decoded_check(&decoded, (enum media)(choice >> 6 & 3));
		decoded_free(&decoded);
	} else if (code != HTTP_BAD_REQUEST && code != HTTP_TOO_LARGE && !(code == HTTP_NO_CONTENT && rules.keep_going)) {
		abort();
	}
	return 0;
}
