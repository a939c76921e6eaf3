/* version.h: which smelt this is. */
#pragma once

const char *smelt_version(void); /* "0.1.0" */
const char *smelt_commit(void);  /* short hash of the commit it was built from, or "unknown" */
