/* version.h: which smelt this is, how it was built, and which libraries it runs with. */
#pragma once

#include "core/base/text.h"

const char *smelt_version(void); /* "0.1.0" */
const char *smelt_commit(void);  /* short hash of the commit it was built from, or "unknown" */

/* A library that a program stands on, and the version that is loaded now (of one linked in: the one that it was built with). */
struct library {
	const char *name, *version;
};

/* What --version answers: the program's first line "NAME (smelt) VERSION, commit COMMIT", then a line "key: value" each for the compiler, its flags, the
 * libraries that both programs stand on, and `more` of them. ST_MEMORY. */
enum status version_describe(struct text *text, const char *program, const struct library *more, size_t count);
