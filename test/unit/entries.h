/* entries.h: what this process holds, as entries of a folder of /proc/self: open files in fd, threads in task. */
#pragma once

#include <dirent.h>
#include <stdbool.h>
#include <time.h>

/* 0: the folder cannot be read. */
static inline int entries_count(const char *path)
{
	DIR *folder = opendir(path);
	int count = 0;
	while (folder != NULL && readdir(folder) != NULL)
		count++;
	if (folder != NULL)
		closedir(folder);
	return count;
}

/* Waits until there are at most so many: a thread that was joined is listed for a moment longer. False: it took over 20 seconds. */
static inline bool entries_settle(const char *path, int count)
{
	for (int i = 0; i < 2000 && entries_count(path) > count; i++)
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	return entries_count(path) <= count;
}
