/* Any bytes as a picture: decoded, scaled and cropped, or refused. Seeds: small PNG, JPEG and BMP files. */
#include "core/format/image.h"

#define STBI_NO_STDIO
#include <stb_image.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

enum { AREA_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	static uint8_t planes[3 * 16 * 16];
	int width, height, channels;
	/* A few bytes may claim a picture that takes seconds under the sanitizers: allowed, but nothing to spend the inputs on. */
	if (stbi_info_from_memory(bytes, (int)count, &width, &height, &channels) && (long long)width * height > AREA_MAX)
		return 0;
	(void)image_decode(bytes, count, "input", 16, planes);
	return 0;
}
