/* Goal: README.md's tables are the program's own. Method: what stands between each pair of markers is compared with what the table's
 * owner writes. With SMELT_README=write (make readme) it is written instead. */
#include "serve/options.h"
#include "test/unit/readme_section.h"
#include "train/report/metrics.h"
#include "train/settings/settings.h"

static const struct {
	const char *name;
	enum status (*write)(struct text *text);
} sections[] = {{"metrics", metrics_markdown}, {"settings", settings_markdown}, {"options", options_markdown}};

static void tables_are_true(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
		struct text text = {0};
		assert_int_equal(sections[i].write(&text), ST_OK);
		readme_section_check("README.md", sections[i].name, "make readme", text_string(&text));
		text_free(&text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(tables_are_true)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
