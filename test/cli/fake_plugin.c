/* fake_plugin.c: a smelt_cuda.so of GPUs that are not there, to see how `train` finds, chooses and refuses them.
 *
 * FAKE_GPUS: "T4:75 A10G:86 …", a name and a compute capability each. FAKE_PROBE: what asking for them does instead: crash, hang, leave, none. Its
 * backend cannot compute: open appends a line with what it was asked for to the file FAKE_RECORD, and fails when all ranks have done so. */
#include "core/backend/plugin.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool asked(const char *what)
{
	const char *probe = getenv("FAKE_PROBE");
	return probe != NULL && strcmp(probe, what) == 0;
}

static enum status fake_probe(struct device_list *list)
{
	const char *gpus = getenv("FAKE_GPUS");
	char text[1024], *rest = NULL;
	if (asked("crash"))
		raise(SIGSEGV);
	while (asked("hang"))
		pause();
	if (asked("leave"))
		_exit(3);
	if (asked("none"))
		return FAIL(ST_DEVICE, "the fake driver has no GPU");
	*list = (struct device_list){.driver_version = 13000, .runtime_version = 13000, .cudnn_version = 91900, .driver_release = "580.65.06"};
	snprintf(text, sizeof text, "%s", gpus != NULL ? gpus : "");
	for (char *gpu = strtok_r(text, " ", &rest); gpu != NULL; gpu = strtok_r(NULL, " ", &rest)) {
		struct device_facts *facts = &list->devices[list->count++];
		facts->memory_bytes = (uint64_t)16 << 30;
		if (sscanf(gpu, "%100[^:]:%d", facts->name, &facts->capability) != 2)
			return FAIL(ST_DEVICE, "FAKE_GPUS: %s", gpu);
	}
	return ST_OK;
}

static enum status fake_open(const struct backend_config *config, struct backend_state **state)
{
	const struct reduction *reduction = config->reduction;
	const char *path = getenv("FAKE_RECORD");
	char line[512];
	(void)state;
	int length = snprintf(line, sizeof line, "device=%d precision=%d deterministic=%d cache=%s threads=%u rank=%d hosts=%d interface=%s\n", config->device,
		(int)config->precision, config->deterministic, config->cache_directory != NULL ? config->cache_directory : "-",
		config->threads != NULL ? 1U : 0U, reduction != NULL ? reduction->rank : -1, reduction != NULL ? reduction->hosts : 0,
		reduction != NULL && reduction->interface_name != NULL ? reduction->interface_name : "-");
	FILE *file = path != NULL ? fopen(path, "a") : NULL;
	if (file != NULL) {
		fwrite(line, 1, (size_t)length, file);
		fclose(file);
	}
	double one = 1;
	if (reduction != NULL)
		TRY(reduction->sum(reduction->context, &one, 1));
	return FAIL(ST_DEVICE, "a fake GPU cannot compute");
}

static void fake_close(struct backend_state *state)
{
	(void)state;
}

static const struct backend fake_backend = {.name = "cuda", .open = fake_open, .close = fake_close};

const struct plugin smelt_plugin = {
	.stamp = PLUGIN_STAMP,
#ifdef FAKE_MEANING
	.stamp.meaning = FAKE_MEANING,
#endif
	.backend = &fake_backend,
	.probe = fake_probe,
};
