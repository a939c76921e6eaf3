/* Any bytes as a picture: decoded, scaled and cropped, or refused. Seeds: small PNG, JPEG and BMP files. */
#include "core/format/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	static uint8_t planes[3 * 16 * 16];
	(void)image_decode(bytes, count, "input", 16, planes);
	return 0;
}
