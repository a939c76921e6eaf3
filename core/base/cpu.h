/* cpu.h: which instructions this machine has. The one list of instruction sets. */
#pragma once

#include "core/base/status.h"

/* In rising order: a machine that has one has (and could run) those before it. Name as written in SMELT_CPU, what it needs. */
#define CPU_LIST(X) \
	X(CPU_GENERIC, "generic", "any x86-64") \
	X(CPU_AVX2, "avx2", "AVX2 and FMA") \
	X(CPU_AVX512, "avx512", "AVX-512 F, BW, DQ, VL") \
	X(CPU_AVX512_BF16, "avx512_bf16", "AVX-512 BF16") \
	X(CPU_AMX, "amx", "AMX tiles with BF16")

enum cpu {
#define X(name, word, needs) name,
	CPU_LIST(X)
#undef X
	CPU_COUNT
};

/* The best set that processor and operating system offer. */
enum cpu cpu_detect(void);

/* cpu_detect, or what the environment variable SMELT_CPU asks for. ST_SETTINGS when its word is unknown or this machine lacks
 * that set. */
enum status cpu_choose(enum cpu *cpu);

const char *cpu_word(enum cpu cpu);
const char *cpu_needs(enum cpu cpu);
/* The processor's own name ("AMD EPYC …"), or "unknown processor". Static storage, filled at the first call. */
const char *cpu_model(void);
