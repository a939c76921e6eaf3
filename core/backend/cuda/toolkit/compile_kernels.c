/* compile_kernels.c: a tool of the build: compiles a .cu file with NVRTC to one cubin an architecture, and judges what came out.
 *
 *     compile_kernels KERNELS.cu FOLDER option…        options are NVRTC's
 *
 * In: a source file. Out: FOLDER/sm_75.cubin and so on, for each of architectures.h, and FOLDER/kernels.txt, a table of registers and memory.
 * Any warning is a failure, and so is a kernel that spills, keeps an array in local memory, or takes more than the limits below. */
#include "core/backend/cuda/architectures.h"
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/text.h"

#include <nvrtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every kernel here waits for memory, so it wants many threads at once: 64 registers let half of a multiprocessor's threads (all, on
 * Turing) be there. 48 KB is what a block gets of shared memory without asking. */
enum { REGISTERS_MAX = 64, SHARED_BYTES_MAX = 48 << 10 };

enum { SOURCE_BYTES_MAX = 1 << 20, KERNELS_MAX = 64, NAME_BYTES = 64 };

static const int architectures[] = {
#define X(sm) sm,
	CUDA_ARCHITECTURES(X)
#undef X
};
enum { ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

/* The C library's headers that NVRTC lacks, as far as kernels need them. */
static const char *const header_names[] = {"stddef.h", "stdint.h", "stdbool.h"};
static const char *const headers[] = {
	"",
	"typedef signed char int8_t; typedef short int16_t; typedef int int32_t; typedef long int64_t;\n"
	"typedef unsigned char uint8_t; typedef unsigned short uint16_t; typedef unsigned uint32_t; typedef unsigned long uint64_t;\n",
	"",
};
enum { HEADERS = sizeof headers / sizeof headers[0] };

/* What ptxas says about a kernel on one architecture. */
struct usage {
	unsigned registers, shared_bytes, stack_bytes, spill_bytes;
};

struct kernel {
	char name[NAME_BYTES];
	struct usage usage[ARCHITECTURES];
};

struct report {
	struct kernel kernels[KERNELS_MAX];
	size_t count;
};

#define TRY_NVRTC(call) \
	do { \
		nvrtcResult nvrtc_result = (call); \
		if (nvrtc_result != NVRTC_SUCCESS) \
			return FAIL(ST_INTERNAL, "%s: %s", #call, nvrtcGetErrorString(nvrtc_result)); \
	} while (0)

/* The number in front of `what` in a line such as "Used 12 registers, used 1 barriers, 1024 bytes smem"; 0 when it is not said. */
static unsigned number_before(const char *line, const char *what)
{
	const char *at = strstr(line, what);
	if (at == NULL)
		return 0;
	while (at > line && at[-1] >= '0' && at[-1] <= '9')
		at--;
	return (unsigned)strtoul(at, NULL, 10);
}

static enum status kernel_find(struct report *report, const char *name, size_t length, struct kernel **kernel)
{
	for (size_t i = 0; i < report->count; i++)
		if (strlen(report->kernels[i].name) == length && memcmp(report->kernels[i].name, name, length) == 0) {
			*kernel = &report->kernels[i];
			return ST_OK;
		}
	if (report->count == KERNELS_MAX || length >= NAME_BYTES)
		return FAIL(ST_INTERNAL, "kernel \"%.*s\": at most %d kernels with names of less than %d bytes", (int)length, name, KERNELS_MAX, NAME_BYTES);
	*kernel = &report->kernels[report->count++];
	memcpy((*kernel)->name, name, length);
	return ST_OK;
}

/* Reads the compiler's log. What is not ptxas's report on a kernel is a warning. */
static enum status log_read(char *log, int a, struct report *report)
{
	static const char compiling[] = "ptxas info    : Compiling entry function '";
	struct usage *usage = NULL;
	struct text warnings = {0};
	enum status status = ST_OK;
	for (char *line = log, *next; line != NULL; line = next) {
		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = '\0';
		if (text_starts_with(line, compiling)) {
			const char *name = line + sizeof compiling - 1, *end = strchr(name, '\'');
			struct kernel *kernel;
			TRY_DONE(end == NULL ? FAIL(ST_INTERNAL, "ptxas says \"%s\", expected a kernel's name between apostrophes", line)
					     : kernel_find(report, name, (size_t)(end - name), &kernel));
			usage = &kernel->usage[a];
		} else if (strstr(line, " bytes stack frame, ") != NULL && usage != NULL) {
			usage->stack_bytes = number_before(line, " bytes stack frame");
			usage->spill_bytes = number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
		} else if (text_starts_with(line, "ptxas info    : Used ") && usage != NULL) {
			usage->registers = number_before(line, " registers");
			usage->shared_bytes = number_before(line, " bytes smem");
		} else if (line[0] != '\0' && !text_starts_with(line, "ptxas info ") && !text_starts_with(line, "nvrtc: warning: Architectures prior to ")) {
			TRY_DONE(text_printf(&warnings, "%s\n", line));
		}
	}
	if (warnings.length > 0) {
		fputs(text_string(&warnings), stderr);
		status = FAIL(ST_INTERNAL, "sm_%d: warnings, which count as errors", architectures[a]);
	}
done:
	text_free(&warnings);
	return status;
}

static enum status program_compile(nvrtcProgram program, int a, int count, const char *const *given, const char *folder, struct report *report)
{
	enum { OWN = 5, OPTIONS_MAX = 32 };
	char architecture[32], path[4096];
	const char *options[OPTIONS_MAX] = {architecture, "--std=c++17", "-lineinfo", "-default-device", "--ptxas-options=-v"};
	if (count > OPTIONS_MAX - OWN)
		return FAIL(ST_SETTINGS, "%d options, at most %d", count, OPTIONS_MAX - OWN);
	snprintf(architecture, sizeof architecture, "--gpu-architecture=sm_%d", architectures[a]);
	memcpy(options + OWN, given, (size_t)count * sizeof *given);
	nvrtcResult compiled = nvrtcCompileProgram(program, OWN + count, options);
	size_t bytes;
	TRY_NVRTC(nvrtcGetProgramLogSize(program, &bytes));
	char *log = malloc(bytes), *cubin = NULL;
	enum status status = ST_OK;
	if (log == NULL || nvrtcGetProgramLog(program, log) != NVRTC_SUCCESS) {
		status = FAIL(ST_INTERNAL, "sm_%d: the compiler's log of %zu bytes cannot be had", architectures[a], bytes);
		goto done;
	}
	if (compiled != NVRTC_SUCCESS) {
		fprintf(stderr, "%s\n", log);
		status = FAIL(ST_INTERNAL, "sm_%d: %s", architectures[a], nvrtcGetErrorString(compiled));
		goto done;
	}
	TRY_DONE(log_read(log, a, report));
	if (nvrtcGetCUBINSize(program, &bytes) != NVRTC_SUCCESS || (cubin = malloc(bytes)) == NULL || nvrtcGetCUBIN(program, cubin) != NVRTC_SUCCESS) {
		status = FAIL(ST_INTERNAL, "sm_%d: the compiled code cannot be had", architectures[a]);
		goto done;
	}
	snprintf(path, sizeof path, "%s/sm_%d.cubin", folder, architectures[a]);
	TRY_DONE(file_write(path, cubin, bytes));
done:
	free(cubin);
	free(log);
	return status;
}

/* --- the table ------------------------------------------------------------------------------------------------------- */

static enum status usage_check(const struct kernel *kernel, int a)
{
	const struct usage *usage = &kernel->usage[a];
	if (usage->registers == 0)
		return FAIL(ST_INTERNAL, "%s on sm_%d: ptxas says nothing about its registers", kernel->name, architectures[a]);
	if (usage->spill_bytes > 0 || usage->stack_bytes > 0)
		return FAIL(ST_INTERNAL, "%s on sm_%d: %u bytes spilled, %u bytes of local memory, both must be 0: fewer live values, no indexed local arrays",
			kernel->name, architectures[a], usage->spill_bytes, usage->stack_bytes);
	if (usage->registers > REGISTERS_MAX)
		return FAIL(ST_INTERNAL, "%s on sm_%d: %u registers, at most %d", kernel->name, architectures[a], usage->registers, REGISTERS_MAX);
	if (usage->shared_bytes > SHARED_BYTES_MAX)
		return FAIL(ST_INTERNAL, "%s on sm_%d: %u bytes of shared memory, at most %d", kernel->name, architectures[a], usage->shared_bytes,
			SHARED_BYTES_MAX);
	return ST_OK;
}

/* A row a kernel: shared memory, then registers on each architecture. */
static enum status table_print(const struct report *report, struct text *table)
{
	TRY(text_printf(table, "%-24s %12s", "kernel", "shared bytes"));
	for (int a = 0; a < ARCHITECTURES; a++)
		TRY(text_printf(table, "  sm_%-3d", architectures[a]));
	TRY(text_add(table, "\n"));
	for (const struct kernel *kernel = report->kernels; kernel < report->kernels + report->count; kernel++) {
		unsigned shared_bytes_max = 0;
		for (int a = 0; a < ARCHITECTURES; a++) {
			TRY(usage_check(kernel, a));
			if (kernel->usage[a].shared_bytes > shared_bytes_max)
				shared_bytes_max = kernel->usage[a].shared_bytes;
		}
		TRY(text_printf(table, "%-24s %12u", kernel->name, shared_bytes_max));
		for (int a = 0; a < ARCHITECTURES; a++)
			TRY(text_printf(table, "  %6u", kernel->usage[a].registers));
		TRY(text_add(table, "\n"));
	}
	return report->count > 0 ? ST_OK : FAIL(ST_INTERNAL, "there is no kernel in it");
}

static enum status compile(const char *source, const char *folder, int count, const char *const *options, struct report *report, struct text *table)
{
	char path[4096];
	uint8_t *bytes = NULL;
	size_t size;
	nvrtcProgram program = NULL;
	TRY(directory_make(folder));
	TRY(file_read(source, SOURCE_BYTES_MAX, &bytes, &size));
	nvrtcResult created = nvrtcCreateProgram(&program, (const char *)bytes, source, HEADERS, headers, header_names);
	enum status status = created == NVRTC_SUCCESS ? ST_OK : FAIL(ST_INTERNAL, "nvrtcCreateProgram: %s", nvrtcGetErrorString(created));
	for (int a = 0; a < ARCHITECTURES && status == ST_OK; a++)
		status = program_compile(program, a, count, options, folder, report);
	if (status == ST_OK)
		status = table_print(report, table);
	if (status == ST_OK)
		status = path_join(path, sizeof path, folder, "kernels.txt");
	if (status == ST_OK)
		status = file_write(path, table->data, table->length);
	if (program != NULL)
		nvrtcDestroyProgram(&program);
	free(bytes);
	return status == ST_OK ? ST_OK : status_prefix(status, "%s", source);
}

int main(int count, char **words)
{
	static struct report report;
	struct text table = {0};
	enum status status = count >= 3 ? compile(words[1], words[2], count - 3, (const char *const *)words + 3, &report, &table)
					: FAIL(ST_SETTINGS, "usage: compile_kernels KERNELS.cu FOLDER option…");
	status = text_print(&table, status);
	if (status != ST_OK)
		log_error("%s", status_message());
	return status_exit_code(status);
}
