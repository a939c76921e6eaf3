/* compute.c: see compute.h. */
#include "train/compute.h"

#include "core/backend/devices.h"
#include "core/base/cpu.h"
#include "core/base/file.h"
#include "core/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A driver that nobody holds open takes a second or two to begin, for each of up to 16 GPUs. */
enum { ANSWER_US_MAX = 40000000 };

/* From this compute capability (× 10) on there are tensor cores for bf16 and TF32. */
enum { CAPABILITY_AMPERE = 80 };

/* --- which backend ----------------------------------------------------------------------------------------------------- */

/* The GPUs to compute with; none of them: the CPU. */
static enum status gpus_find(const struct settings *s, bool (*stopped)(void), struct device_list *gpus)
{
	bool wanted = s->backend == BACKEND_CHOICE_CUDA;
	if (!wanted && (s->backend != BACKEND_CHOICE_AUTO || !devices_possible()))
		return ST_OK;
	enum status status = devices_find(ANSWER_US_MAX, stopped, gpus);
	if (status == ST_OK && gpus->count == 0)
		status = FAIL(ST_DEVICE, "the NVIDIA driver shows no GPU (is CUDA_VISIBLE_DEVICES set?)");
	if (status == ST_DEVICE && wanted)
		return status_prefix(status, "backend=cuda");
	if (status == ST_DEVICE) {
		log_warning("no GPU is used: %s", status_message());
		return ST_OK;
	}
	return status;
}

/* Fewer GPUs than the platform says that the machine has: something is wrong with it. */
static void gpus_count(const struct settings *s, const struct device_list *gpus)
{
	const char *said = getenv("SM_NUM_GPUS");
	long expected = said != NULL ? strtol(said, NULL, 10) : 0;
	if (expected > gpus->count && (s->backend == BACKEND_CHOICE_AUTO || s->backend == BACKEND_CHOICE_CUDA))
		log_warning("SM_NUM_GPUS=%ld, but %d GPU%s of this machine %s", expected, gpus->count, gpus->count == 1 ? "" : "s",
			gpus->count == 1 ? "answers" : "answer");
}

static enum status devices_choose(const struct settings *s, struct compute *made)
{
	const struct device_list *gpus = &made->gpus;
	made->devices = s->devices > 0 ? s->devices : gpus->count > 0 ? gpus->count : 1;
	if (gpus->count == 0)
		return ST_OK;
	if (made->devices > gpus->count)
		return FAIL(ST_SETTINGS, "devices=%d, but this host has %d GPU%s (%s%s); leave devices out to use all", made->devices, gpus->count,
			gpus->count == 1 ? "" : "s", gpus->devices[0].name, gpus->count == 1 ? "" : ", …");
	for (int i = 1; i < made->devices; i++)
		if (strcmp(gpus->devices[i].name, gpus->devices[0].name) != 0) {
			log_warning("the GPUs of this host differ (%s, %s): each step takes as long as the slowest needs", gpus->devices[0].name, gpus->devices[i].name);
			break;
		}
	return ST_OK;
}

/* --- the rest ---------------------------------------------------------------------------------------------------------- */

static enum status precision_choose(const struct settings *s, struct compute *made)
{
	made->precision = (enum precision)s->precision;
	if (made->gpus.count == 0) {
		made->precision = PRECISION_FP32;
		return settings_check_precision(s, made->backend);
	}
	if (made->precision == PRECISION_AUTO)
		made->precision = PRECISION_FP16; /* on every GPU that there is code for, and with the most fused kernels */
	for (int i = 0; i < made->devices; i++) {
		const struct device_facts *gpu = &made->gpus.devices[i];
		if ((made->precision == PRECISION_BF16 || made->precision == PRECISION_TF32) && gpu->capability < CAPABILITY_AMPERE)
			return FAIL(ST_SETTINGS, "precision=%s: %s (compute capability %d.%d) does not have it, those from 8.0 on do; set auto, fp16 or fp32",
				settings_word(s, SETTING_precision), gpu->name, gpu->capability / 10, gpu->capability % 10);
	}
	return ST_OK;
}

/* A directory of everybody's is only used if nobody else has made what is in there. */
static bool directory_is_ours(const char *path)
{
	struct stat about;
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return false;
	return lstat(path, &about) == 0 && S_ISDIR(about.st_mode) && about.st_uid == geteuid() && (about.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Not below /opt/ml: what is there goes to S3. */
static enum status cache_choose(struct compute *made)
{
	const char *named = getenv("SMELT_CACHE"), *caches = getenv("XDG_CACHE_HOME");
	if (made->gpus.count == 0)
		return ST_OK;
	if (named != NULL) {
		if (strlen(named) >= sizeof made->cache_directory)
			return FAIL(ST_SETTINGS, "SMELT_CACHE: a path of %zu characters, at most %zu fit", strlen(named), sizeof made->cache_directory - 1);
		strcpy(made->cache_directory, named);
		return ST_OK;
	}
	if (caches != NULL && caches[0] == '/')
		return path_join(made->cache_directory, sizeof made->cache_directory, caches, "smelt");
	snprintf(made->cache_directory, sizeof made->cache_directory, "/tmp/smelt-cache-%u", (unsigned)geteuid());
	if (!directory_is_ours(made->cache_directory)) {
		log_info("%s is not a directory that only this user can write: plans are not kept", made->cache_directory);
		made->cache_directory[0] = '\0';
	}
	return ST_OK;
}

enum status compute_choose(const struct settings *settings, bool (*stopped)(void), struct compute *compute)
{
	enum status status = ST_OK;
	struct compute *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for a list of devices");
	TRY_DONE(gpus_find(settings, stopped, &made->gpus));
	gpus_count(settings, &made->gpus);
	made->backend = made->gpus.count > 0 ? "cuda" : settings->backend == BACKEND_CHOICE_REF ? "ref" : "cpu";
	TRY_DONE(devices_choose(settings, made));
	TRY_DONE(precision_choose(settings, made));
	TRY_DONE(cache_choose(made));
	*compute = *made;
done:
	free(made);
	return status;
}

/* --- what others are told ---------------------------------------------------------------------------------------------- */

static const char *precision_word(enum precision precision)
{
	static const char *const words[] = {
#define X(value, word) [value] = word,
		PRECISION_LIST(X)
#undef X
	};
	return words[precision];
}

enum status compute_common(const struct compute *compute, struct text *text)
{
	return text_printf(text, "computes_on=%s\ncomputes_in=%s\n", compute->backend, precision_word(compute->precision));
}

enum status compute_compare(const struct compute *compute, struct control *control, int host, int hosts)
{
	const char *name = compute->gpus.devices[0].name;
	struct control_blobs all = {0};
	if (compute->gpus.count == 0)
		return ST_OK;
	TRY(control_gather(control, name, strlen(name), &all));
	for (int i = 1; i < hosts && host == 0; i++)
		if (all.counts[i] != strlen(name) || memcmp(all.blobs[i], name, strlen(name)) != 0) {
			log_warning("the GPUs of the hosts differ (%s here, %.*s elsewhere): each step takes as long as the slowest needs", name, (int)all.counts[i],
				(const char *)all.blobs[i]);
			break;
		}
	control_blobs_free(&all);
	return ST_OK;
}

enum status compute_tell(const struct compute *compute, int local, unsigned threads)
{
	const struct device_facts *gpu = &compute->gpus.devices[local];
	enum cpu cpu;
	if (compute->gpus.count > 0) {
		log_info("device backend=%s gpu=\"%s\" number=%d bus=%s capability=%d.%d memory_gb=%.1f precision=%s driver=%s cuda=%d.%d cudnn=%d", compute->backend, gpu->name,
			local, gpu->bus, gpu->capability / 10, gpu->capability % 10, (double)gpu->memory_bytes / 1e9, precision_word(compute->precision),
			compute->gpus.driver_release[0] ? compute->gpus.driver_release : "?", compute->gpus.runtime_version / 1000, compute->gpus.runtime_version % 1000 / 10, compute->gpus.cudnn_version);
		return ST_OK;
	}
	TRY(cpu_choose(&cpu));
	log_info("device backend=%s cpu=\"%s\" instructions=%s threads=%u", compute->backend, cpu_model(), cpu_word(cpu), threads);
	return ST_OK;
}
