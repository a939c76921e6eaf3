/* plugin.c: see plugin.h. */
#include "core/backend/plugin.h"

#include "core/base/file.h"
#include "core/base/text.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY "smelt_cuda.so"
#define VARIABLE "SMELT_CUDA_LIBRARY"
enum { PATH_BYTES = 4096 };

/* Where it may lie, seen from the program's directory. */
static const char *const places[] = {"", "../lib/smelt/", "../cuda13/"};

/* Libraries that ours needs, by the start of their file names, and where each comes from. */
static const struct {
	const char *file, *from;
} needed[] = {
	{"libcudart.so", "CUDA's runtime"},
	{"libcudnn", "cuDNN"},
	{"libnccl.so", "NCCL"},
	{"libcuda.so", "NVIDIA's driver, which a container gets from its host (docker run --gpus all)"},
};

static const struct plugin *opened;

/* The directory of this program, with a '/' at its end. */
static bool program_directory(char path[PATH_BYTES])
{
	ssize_t length = readlink("/proc/self/exe", path, PATH_BYTES - 1);
	if (length <= 0)
		return false;
	path[length] = '\0';
	char *slash = strrchr(path, '/');
	if (slash == NULL)
		return false;
	slash[1] = '\0';
	return true;
}

/* The file to open; false: none of the places has one. */
static bool library_find(char path[PATH_BYTES])
{
	const char *named = getenv(VARIABLE);
	char directory[PATH_BYTES];
	if (named != NULL && named[0] != '\0')
		return snprintf(path, PATH_BYTES, "%s", named) < PATH_BYTES;
	if (!program_directory(directory))
		return false;
	for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
		if (snprintf(path, PATH_BYTES, "%s%s" LIBRARY, directory, places[i]) < PATH_BYTES && file_exists(path))
			return true;
	return false;
}

/* Why dlopen did not take it. Its words begin with the file at fault. */
static enum status open_fail(const char *path, const char *words)
{
	for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
		if (text_starts_with(words, needed[i].file))
			return FAIL(ST_DEVICE, "%s needs a library that this machine lacks: %s; it is a part of %s, and must lie beside it or where "
				"LD_LIBRARY_PATH says", path, words, needed[i].from);
	return FAIL(ST_DEVICE, "%s cannot be opened: %s", path, words);
}

enum status plugin_open(const struct plugin **plugin)
{
	static const struct plugin_stamp stamp = PLUGIN_STAMP;
	char path[PATH_BYTES];
	if (opened != NULL) {
		*plugin = opened;
		return ST_OK;
	}
	if (!library_find(path))
		return FAIL(ST_DEVICE, "there is no " LIBRARY " beside this program or in ../lib/smelt: it came without GPUs (`make cuda` builds it; "
			VARIABLE " names another place)");
	/* RTLD_LOCAL: its libraries' names must not meet ours. It is never closed: drivers leave threads behind. */
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		return open_fail(path, dlerror());
	const struct plugin *found = dlsym(library, PLUGIN_SYMBOL);
	if (found == NULL)
		return FAIL(ST_DEVICE, "%s is no library of smelt's: it does not export " PLUGIN_SYMBOL, path);
	if (memcmp(&found->stamp, &stamp, sizeof stamp) != 0)
		return FAIL(ST_DEVICE, "%s belongs to another version of smelt than this program; take both from one build", path);
	*plugin = opened = found;
	return ST_OK;
}
