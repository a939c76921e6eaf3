/* stb.c: the stb libraries' code, compiled from their headers with our limits. Only image.c uses it. */
#include "core/format/image.h"

#include <stdlib.h>

/* A picture may claim any size and a zlib stream may unpack to any size: no piece of memory may pass the limit. It is zeroed because
 * stb_image 2.27 uses a JPEG's tables without asking whether the file had any. */
static void *bounded_malloc(size_t bytes)
{
	return bytes <= IMAGE_DECODE_BYTES_MAX ? calloc(1, bytes) : NULL;
}

static void *bounded_realloc(void *old, size_t bytes)
{
	return bytes <= IMAGE_DECODE_BYTES_MAX ? realloc(old, bytes) : NULL;
}

#define STBI_MALLOC bounded_malloc
#define STBI_REALLOC bounded_realloc
#define STBI_FREE free
#define STBI_MAX_DIMENSIONS IMAGE_SIDE_MAX
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb_image_write.h>
