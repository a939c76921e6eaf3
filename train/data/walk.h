/* walk.h: the files of a channel's directory, in one order everywhere.
 *
 * Hidden files, `_SUCCESS`, `*~`, and what is neither file nor directory are left out. Symbolic links are followed; a directory that
 * was walked already (a loop, a second link) is not walked again. The tree is listed once and no file is opened. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { WALK_DEPTH_MAX = 3 }; /* directories between the channel's own and a file */

struct walk {
	char **names; /* relative to the directory, sorted bytewise */
	size_t count;
};

/* True if a file of this name (directories in front are looked at too) holds no data. */
bool walk_ignores(const char *name);

/* ST_DATA when a directory cannot be listed, a link leads nowhere, or directories lie deeper than WALK_DEPTH_MAX. */
enum status walk_directory(const char *directory, struct walk *walk);
void walk_free(struct walk *walk);
