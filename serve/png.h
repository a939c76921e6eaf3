/* png.h: an RGB image → a PNG file in memory. */
#pragma once

#include "core/base/text.h"

#include <stdint.h>

/* Appends the file. `pixels`: height rows of width × (red, green, blue), 1 … 4096 each way. ST_MEMORY. */
enum status png_write(const uint8_t *pixels, unsigned width, unsigned height, struct text *png);
