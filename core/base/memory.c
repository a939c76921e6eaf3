/* memory.c: see memory.h. */
#define _DEFAULT_SOURCE /* madvise */
#include "core/base/memory.h"

#include <stdint.h>
#include <sys/mman.h>

enum { LARGE_PAGE_BYTES = 2 << 20 }; /* x86-64's */

void memory_prefer_large_pages(void *memory, size_t bytes)
{
	size_t before = -(uintptr_t)memory % LARGE_PAGE_BYTES;
	if (bytes >= before + LARGE_PAGE_BYTES)
		(void)madvise((char *)memory + before, (bytes - before) / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES, MADV_HUGEPAGE);
}
