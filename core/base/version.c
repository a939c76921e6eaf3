/* version.c: see version.h. The two macros come from the Makefile. */
#include "core/base/version.h"

const char *smelt_version(void)
{
	return SMELT_VERSION;
}

const char *smelt_commit(void)
{
	return SMELT_COMMIT;
}
