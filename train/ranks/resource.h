/* resource.h: which hosts take part, and which of them this is (resourceconfig.json).
 *
 * Every host sorts the names by their bytes, so all agree on the ranks whatever order the file has ("algo-10" comes before "algo-2").
 * Nothing else in the file matters; unknown keys pass. */
#pragma once

#include "core/base/opt_ml.h"
#include "core/base/status.h"

enum { HOST_BYTES = 254, INTERFACE_BYTES = 16, HOSTS_MAX = 4096 };

struct resource {
	char (*hosts)[HOST_BYTES]; /* sorted; names of letters, digits, '.', '-' and '_', so that one can be part of a path */
	int hosts_count;           /* at least 1 */
	int rank;                  /* of this host among them */
	char interface[INTERFACE_BYTES]; /* network interface that the file names and this machine has; "" otherwise */
};

/* Without the file: one host, "localhost". An interface that this machine lacks is told in one line and left out.
 * ST_SETTINGS when the file is wrong or current_host is not among the hosts. The caller frees. */
enum status resource_load(const struct opt_ml *opt_ml, struct resource *resource);
void resource_free(struct resource *resource); /* accepts {0} */

const char *resource_host(const struct resource *resource); /* this host's name */
