/* walk.c: see walk.h. */
#include "train/data/walk.h"

#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/opt_ml.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A directory that is still to be listed, or that was: `device` and `inode` are who it is. */
struct directory {
	char *name; /* relative; "" is the channel's own */
	int depth;
	dev_t device;
	ino_t inode;
};

struct names {
	struct walk list;
	size_t capacity;
};

/* Directories wait here in the order they were found, so nothing recurses. */
struct walker {
	const char *root;
	struct directory *directories;
	size_t directories_count, directories_capacity;
	struct names files;
};

static bool part_is_ignored(const char *part, size_t length)
{
	return part[0] == '.' || part[length - 1] == '~' || (length == 8 && memcmp(part, "_SUCCESS", 8) == 0);
}

bool walk_ignores(const char *name)
{
	while (*name != '\0') {
		size_t length = strcspn(name, "/");
		if (length > 0 && part_is_ignored(name, length))
			return true;
		name += length + (name[length] == '/');
	}
	return false;
}

static enum status fail_memory(const struct walker *walker)
{
	return FAIL(ST_MEMORY, "%s: no memory to list it", walker->root);
}

/* Makes room for one more element. */
static enum status elements_grow(const struct walker *walker, void **elements, size_t *capacity, size_t count, size_t bytes)
{
	if (count < *capacity)
		return ST_OK;
	size_t wanted = *capacity == 0 ? 64 : *capacity * 2;
	void *larger = realloc(*elements, wanted * bytes);
	if (larger == NULL)
		return fail_memory(walker);
	*elements = larger;
	*capacity = wanted;
	return ST_OK;
}

static enum status name_add(const struct walker *walker, struct names *names, const char *name)
{
	void *all = names->list.names;
	enum status status = elements_grow(walker, &all, &names->capacity, names->list.count, sizeof *names->list.names);
	names->list.names = all;
	TRY(status);
	char *copy = strdup(name);
	if (copy == NULL)
		return fail_memory(walker);
	names->list.names[names->list.count++] = copy;
	return ST_OK;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(struct walk *names)
{
	if (names->count > 0)
		qsort(names->names, names->count, sizeof *names->names, compare_names);
}

static enum status directory_add(struct walker *walker, const char *name, int depth, const struct stat *about)
{
	for (size_t i = 0; i < walker->directories_count; i++)
		if (walker->directories[i].device == about->st_dev && walker->directories[i].inode == about->st_ino)
			return ST_OK;
	if (depth > WALK_DEPTH_MAX)
		return FAIL(ST_DATA, "%s/%s lies more than %d directories deep", walker->root, name, WALK_DEPTH_MAX);
	void *directories = walker->directories;
	enum status status = elements_grow(walker, &directories, &walker->directories_capacity, walker->directories_count, sizeof *walker->directories);
	walker->directories = directories;
	TRY(status);
	char *copy = strdup(name);
	if (copy == NULL)
		return fail_memory(walker);
	walker->directories[walker->directories_count++] =
		(struct directory){.name = copy, .depth = depth, .device = about->st_dev, .inode = about->st_ino};
	return ST_OK;
}

static enum status entry_add(struct walker *walker, const struct directory *parent, const char *entry)
{
	char name[OPT_ML_PATH_BYTES], path[OPT_ML_PATH_BYTES];
	struct stat about;
	if (part_is_ignored(entry, strlen(entry)))
		return ST_OK;
	if (parent->name[0] == '\0') {
		if (strlen(entry) >= sizeof name)
			return FAIL(ST_DATA, "%s: a file name is too long", walker->root);
		strcpy(name, entry);
	} else {
		TRY(path_join(name, sizeof name, parent->name, entry));
	}
	TRY(path_join(path, sizeof path, walker->root, name));
	if (stat(path, &about) != 0)
		return FAIL(ST_DATA, "%s: cannot be read: %s", path, strerror(errno));
	if (S_ISDIR(about.st_mode))
		return directory_add(walker, name, parent->depth + 1, &about);
	if (S_ISREG(about.st_mode))
		return about.st_size == 0 ? ST_OK : name_add(walker, &walker->files, name);
	log_warning("%s: passed over, neither a file nor a directory", path);
	return ST_OK;
}

static enum status directory_list(const struct walker *walker, const char *path, struct names *entries)
{
	enum status status = ST_OK;
	DIR *stream = opendir(path);
	if (stream == NULL)
		return FAIL(ST_DATA, "%s: cannot be listed: %s", path, strerror(errno));
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(stream);
		if (entry == NULL) {
			if (errno != 0)
				status = FAIL(ST_DATA, "%s: cannot be listed: %s", path, strerror(errno));
			break;
		}
		TRY_DONE(name_add(walker, entries, entry->d_name));
	}
	/* Of two links to one directory the same one must be walked everywhere. */
	names_sort(&entries->list);
done:
	closedir(stream);
	return status;
}

static enum status directory_walk(struct walker *walker, struct directory directory)
{
	enum status status = ST_OK;
	struct names entries = {0};
	char path[OPT_ML_PATH_BYTES];
	TRY(path_join(path, sizeof path, walker->root, directory.name));
	TRY_DONE(directory_list(walker, path, &entries));
	for (size_t i = 0; i < entries.list.count; i++)
		TRY_DONE(entry_add(walker, &directory, entries.list.names[i]));
done:
	walk_free(&entries.list);
	return status;
}

enum status walk_directory(const char *directory, struct walk *walk)
{
	enum status status = ST_OK;
	struct walker walker = {.root = directory};
	struct stat about;
	if (stat(directory, &about) != 0)
		return FAIL(ST_DATA, "%s: cannot be read: %s", directory, strerror(errno));
	TRY_DONE(directory_add(&walker, "", 0, &about));
	for (size_t i = 0; i < walker.directories_count; i++)
		TRY_DONE(directory_walk(&walker, walker.directories[i]));
	names_sort(&walker.files.list);
	*walk = walker.files.list;
	walker.files.list = (struct walk){0};
done:
	for (size_t i = 0; i < walker.directories_count; i++)
		free(walker.directories[i].name);
	free(walker.directories);
	walk_free(&walker.files.list);
	return status;
}

void walk_free(struct walk *walk)
{
	for (size_t i = 0; i < walk->count; i++)
		free(walk->names[i]);
	free(walk->names);
	*walk = (struct walk){0};
}
