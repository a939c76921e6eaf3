/* memory.h: a hint to the system about large blocks of memory. */
#pragma once

#include <stddef.h>

/* Asks for large pages behind those parts of a fresh block that they can lie behind: fewer page faults while it is filled, fewer misses
 * in the tables of addresses while it is read. Nothing where the system does not do that. */
void memory_prefer_large_pages(void *memory, size_t bytes);
