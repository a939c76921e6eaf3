/* sheet.c: see sheet.h. */
#include "train/report/sheet.h"

#include <stdlib.h>
#include <string.h>

enum { GAP = 2 };

enum status sheet_build(const uint8_t *images, size_t count, int size, size_t columns, int scale, struct sheet *sheet)
{
	MUST(count > 0 && size > 0 && scale > 0);
	if (columns == 0)
		for (columns = 1; columns * columns < count;)
			columns++;
	if (columns > count)
		columns = count;
	size_t side = (size_t)size, side_drawn = side * (size_t)scale, rows = (count + columns - 1) / columns;
	size_t width = columns * (side_drawn + GAP) + GAP, height = rows * (side_drawn + GAP) + GAP;
	if (width > SHEET_SIDE_MAX || height > SHEET_SIDE_MAX)
		return FAIL(ST_MEMORY, "a sheet of %zu pictures would be %zu × %zu pixels, at most %d a side", count, width, height, SHEET_SIDE_MAX);
	uint8_t *planes = malloc(3 * height * width);
	if (planes == NULL)
		return FAIL(ST_MEMORY, "no memory for a sheet of %zu × %zu pixels", width, height);
	memset(planes, 255, 3 * height * width);
	for (size_t i = 0; i < count * 3; i++) {
		const uint8_t *from = images + i * side * side;
		size_t picture = i / 3, top = GAP + picture / columns * (side_drawn + GAP), left = GAP + picture % columns * (side_drawn + GAP);
		uint8_t *to = planes + (i % 3 * height + top) * width + left;
		for (size_t y = 0; y < side_drawn; y++)
			for (size_t x = 0; x < side_drawn; x++)
				to[y * width + x] = from[y / (size_t)scale * side + x / (size_t)scale];
	}
	*sheet = (struct sheet){.width = (int)width, .height = (int)height, .planes = planes};
	return ST_OK;
}
