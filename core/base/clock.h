/* clock.h: microseconds that never go back; a machine that sleeps does not count. */
#pragma once

#include <stdint.h>
#include <time.h>

static inline int64_t clock_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline double clock_seconds(void)
{
	return (double)clock_us() * 1e-6;
}
