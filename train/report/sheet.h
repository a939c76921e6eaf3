/* sheet.h: several small pictures side by side in one. */
#pragma once

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

struct sheet {
	int width, height;
	uint8_t *planes; /* (3, height, width), malloc'ed; the caller frees */
};

/* `images` is (count, 3, size, size), count ≥ 1, size ≥ 1. Rows of `columns` pictures (0: about as many as there will be rows), each
 * pixel drawn as scale × scale, white between the pictures. ST_MEMORY when the sheet would be larger than SHEET_SIDE_MAX. */
enum { SHEET_SIDE_MAX = 1 << 14 };
enum status sheet_build(const uint8_t *images, size_t count, int size, size_t columns, int scale, struct sheet *sheet);
