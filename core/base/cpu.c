/* cpu.c: see cpu.h. */
#include "core/base/cpu.h"

#include <cpuid.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *word, *needs;
} names[] = {
#define X(name, word, needs) {word, needs},
	CPU_LIST(X)
#undef X
};

const char *cpu_word(enum cpu cpu)
{
	return names[cpu].word;
}

const char *cpu_needs(enum cpu cpu)
{
	return names[cpu].needs;
}

/* AMX has no name in gcc 12's __builtin_cpu_supports, and its state must be enabled by the system: XCR0 bits 17 and 18. */
static bool amx_present(void)
{
	unsigned a, b, c, d;
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0)
		return false;
	if ((d >> 22 & 1) == 0 || (d >> 24 & 1) == 0)
		return false;
	unsigned low, high;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low >> 17 & 3) == 3;
}

enum cpu cpu_detect(void)
{
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
		return CPU_GENERIC;
	if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
	    !__builtin_cpu_supports("avx512vl"))
		return CPU_AVX2;
	if (!__builtin_cpu_supports("avx512bf16"))
		return CPU_AVX512;
	return amx_present() ? CPU_AMX : CPU_AVX512_BF16;
}

enum status cpu_choose(enum cpu *cpu)
{
	enum cpu best = cpu_detect();
	const char *word = getenv("SMELT_CPU");
	if (word == NULL || word[0] == '\0') {
		*cpu = best;
		return ST_OK;
	}
	for (int i = 0; i < CPU_COUNT; i++) {
		if (strcmp(word, names[i].word) != 0)
			continue;
		if (i > (int)best)
			return FAIL(ST_SETTINGS, "SMELT_CPU=%s: needs %s, and this machine has %s at most", word, names[i].needs, names[best].word);
		*cpu = (enum cpu)i;
		return ST_OK;
	}
	return FAIL(ST_SETTINGS, "SMELT_CPU=%s: not one of generic, avx2, avx512, avx512_bf16, amx", word);
}

const char *cpu_model(void)
{
	static char model[49];
	unsigned *words = (unsigned *)(void *)model;
	if (model[0] != '\0')
		return model;
	unsigned a, b, c, d;
	if (__get_cpuid(0x80000000u, &a, &b, &c, &d) == 0 || a < 0x80000004u)
		return "unknown processor";
	for (unsigned i = 0; i < 3; i++) {
		__get_cpuid(0x80000002u + i, &a, &b, &c, &d);
		unsigned part[4] = {a, b, c, d};
		memcpy(words + 4 * i, part, sizeof part);
	}
	return model;
}
