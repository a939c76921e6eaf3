/* version.c: see version.h. The macros SMELT_… come from the Makefile. pthreadpool tells no version. */
#include "core/base/version.h"

#include <archive.h>
#include <cjson/cJSON.h>
#include <zlib.h>

const char *smelt_version(void)
{
	return SMELT_VERSION;
}

const char *smelt_commit(void)
{
	return SMELT_COMMIT;
}

static enum status libraries_describe(struct text *text, const struct library *libraries, size_t count)
{
	for (size_t i = 0; i < count; i++)
		TRY(text_printf(text, "%s: %s\n", libraries[i].name, libraries[i].version));
	return ST_OK;
}

enum status version_describe(struct text *text, const char *program, const struct library *more, size_t count)
{
	const struct library common[] = {{"cJSON", cJSON_Version()}, {"libarchive", archive_version_string() + sizeof "libarchive"}, {"zlib", zlibVersion()}};
	TRY(text_printf(text, "%s (smelt) %s, commit %s\ncompiler: %s\nflags: %s\n", program, smelt_version(), smelt_commit(), SMELT_COMPILER, SMELT_FLAGS));
	TRY(libraries_describe(text, common, sizeof common / sizeof common[0]));
	return libraries_describe(text, more, count);
}
