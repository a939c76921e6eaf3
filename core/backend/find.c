/* find.c: the one list of backends. */
#include "core/backend/backend.h"
#include "core/backend/plugin.h"

#include <string.h>

static const struct backend *const backends[] = {&backend_cpu, &backend_ref};

enum status backend_find(const char *name, const struct backend **backend)
{
	const struct plugin *plugin;
	for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
		if (strcmp(backends[i]->name, name) == 0) {
			*backend = backends[i];
			return ST_OK;
		}
	}
	if (strcmp(name, "cuda") != 0)
		return FAIL(ST_SETTINGS, "backend \"%s\": there is no such backend, expected \"cpu\", \"cuda\" or \"ref\"", name);
	TRY(plugin_open(&plugin));
	*backend = plugin->backend;
	return ST_OK;
}
