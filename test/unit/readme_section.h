/* readme_section.h: a part of a README that a program knows better: what stands between two lines
 *
 *     <!-- NAME: written by `COMMAND` -->
 *     <!-- end NAME -->
 *
 * is compared with the program's text or, with SMELT_README=write, written. */
#pragma once

#include "core/base/file.h"
#include "core/base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static inline void readme_section_check(const char *path, const char *name, const char *command, const char *section)
{
	char opening[96], closing[64];
	const char *mode = getenv("SMELT_README");
	uint8_t *bytes = NULL;
	size_t count = 0;
	struct text made = {0};
	snprintf(opening, sizeof opening, "<!-- %s: written by `%s` -->\n", name, command);
	snprintf(closing, sizeof closing, "<!-- end %s -->\n", name);
	assert_int_equal(file_read(path, (size_t)1 << 22, &bytes, &count), ST_OK);
	const char *readme = (const char *)bytes, *start = strstr(readme, opening), *end = strstr(readme, closing);
	if (start == NULL || end == NULL || end < start)
		fail_msg("%s lacks the lines %s%s", path, opening, closing);
	start += strlen(opening);
	assert_int_equal(text_add_bytes(&made, readme, (size_t)(start - readme)), ST_OK);
	assert_int_equal(text_add(&made, section), ST_OK);
	assert_int_equal(text_add(&made, end), ST_OK);
	bool same = made.length == count && memcmp(made.data, bytes, count) == 0;
	if (mode != NULL && strcmp(mode, "write") == 0)
		assert_int_equal(file_write(path, made.data, made.length), ST_OK);
	else if (!same)
		fail_msg("%s: the section \"%s\" is not what the program says: run %s", path, name, command);
	text_free(&made);
	free(bytes);
}
