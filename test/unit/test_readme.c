/* Goal: README.md's tables are the program's own. Method: what stands between each pair of markers is compared with what the table's
 * owner writes. With SMELT_README=write (make readme) it is written instead. */
#include "core/base/file.h"
#include "core/base/text.h"
#include "serve/options.h"
#include "train/report/metrics.h"
#include "train/settings/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
	const char *name;
	enum status (*write)(struct text *text);
} sections[] = {{"metrics", metrics_markdown}, {"settings", settings_markdown}, {"options", options_markdown}};

/* README.md with the section as its owner writes it, into `made`. */
static void section_make(const char *readme, size_t number, struct text *made)
{
	char opening[64], closing[64];
	snprintf(opening, sizeof opening, "<!-- %s: written by `make readme` -->\n", sections[number].name);
	snprintf(closing, sizeof closing, "<!-- end %s -->\n", sections[number].name);
	const char *start = strstr(readme, opening), *end = strstr(readme, closing);
	if (start == NULL || end == NULL || end < start)
		fail_msg("README.md lacks the lines %s%s", opening, closing);
	start += strlen(opening);
	assert_int_equal(text_add_bytes(made, readme, (size_t)(start - readme)), ST_OK);
	assert_int_equal(sections[number].write(made), ST_OK);
	assert_int_equal(text_add(made, end), ST_OK);
}

static void tables_are_true(void **unused)
{
	(void)unused;
	const char *mode = getenv("SMELT_README");
	for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
		uint8_t *bytes = NULL;
		size_t count = 0;
		struct text made = {0};
		assert_int_equal(file_read("README.md", (size_t)1 << 22, &bytes, &count), ST_OK);
		section_make((const char *)bytes, i, &made);
		bool same = made.length == count && memcmp(made.data, bytes, count) == 0;
		if (mode != NULL && strcmp(mode, "write") == 0)
			assert_int_equal(file_write("README.md", made.data, made.length), ST_OK);
		else if (!same)
			fail_msg("README.md's table of %s is not the program's: run make readme", sections[i].name);
		text_free(&made);
		free(bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(tables_are_true)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
