/* weights.c: see weights.h. */
#include "core/format/weights.h"

#include "core/base/file.h"
#include "core/base/text.h"
#include "core/format/archive.h"
#include "core/format/pth.h"
#include "core/format/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SNIFF_BYTES = 512 };

enum content { CONTENT_OTHER, CONTENT_SAFETENSORS, CONTENT_TORCH, CONTENT_ARCHIVE };

static enum content content_sniff(const uint8_t *bytes, size_t count)
{
	if (pth_is_zip(bytes, count) || pth_is_legacy(bytes, count))
		return CONTENT_TORCH;
	if (safetensors_sniff(bytes, count))
		return CONTENT_SAFETENSORS;
	return archive_sniff(bytes, count) ? CONTENT_ARCHIVE : CONTENT_OTHER;
}

/* --- which of several --- */

/* The best weight file met so far. Lower ranks win; of the last rank there may be only one. */
enum { RANK_SAFETENSORS, RANK_PTH, RANK_OTHER, RANK_NONE };

struct choice {
	int rank;
	char name[1024];  /* the file chosen */
	char other[1024]; /* a second one of its rank, or "" */
	char passed[1024]; /* a file that holds no weights, or "" */
};

static int rank_of(const char *name)
{
	const char *slash = strrchr(name, '/');
	const char *base = slash == NULL ? name : slash + 1;
	return strcmp(base, "model.safetensors") == 0 ? RANK_SAFETENSORS : strcmp(base, "model.pth") == 0 ? RANK_PTH : RANK_OTHER;
}

/* Takes note of a weight file; *better when it is the new choice. */
static void choice_offer(struct choice *choice, const char *name, bool *better)
{
	int rank = rank_of(name);
	*better = rank < choice->rank;
	if (rank == choice->rank)
		snprintf(choice->other, sizeof choice->other, "%s", name);
	if (!*better)
		return;
	choice->rank = rank;
	choice->other[0] = '\0';
	snprintf(choice->name, sizeof choice->name, "%s", name);
}

static enum status choice_check(const struct choice *choice, const char *path)
{
	if (choice->rank == RANK_NONE && choice->passed[0] != '\0')
		return FAIL(ST_DATA, "%s: no weight file is in it; %s, for one, is neither safetensors nor written by torch.save", path, choice->passed);
	if (choice->rank == RANK_NONE)
		return FAIL(ST_DATA, "%s: no weight file is in it; expected one .safetensors, .pth, .pt or .ckpt file", path);
	if (choice->other[0] != '\0')
		return FAIL(ST_DATA, "%s: several weight files are in it, %s and %s; leave one, or call it model.safetensors or model.pth", path, choice->name,
			choice->other);
	return ST_OK;
}

/* --- a file's bytes --- */

static void prefixes_strip(struct tensor_list *list)
{
	static const char *const prefixes[] = {"module.", "model.", "_orig_mod.", "net.", "backbone."};
	for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes;) {
		size_t length = strlen(prefixes[p]), with = 0;
		while (with < list->count && text_starts_with(list->views[with].name, prefixes[p]) && list->views[with].name[length] != '\0')
			with++;
		if (list->count == 0 || with < list->count) {
			p++;
			continue;
		}
		for (size_t i = 0; i < list->count; i++) {
			char *name = (char *)(uintptr_t)list->views[i].name;
			memmove(name, name + length, strlen(name + length) + 1);
		}
		p = 0; /* wrappers come in any order: module.model., _orig_mod.module. */
	}
}

/* Takes `bytes` (malloc'ed) in any case. */
static enum status weights_parse(const char *name, enum content content, uint8_t *bytes, size_t count, struct weights *weights)
{
	struct tensor_list tensors = {0};
	enum status status = content == CONTENT_SAFETENSORS ? safetensors_read(name, bytes, count, &tensors) : pth_read(name, bytes, count, &tensors);
	if (status == ST_OK && tensors.count == 0)
		status = FAIL(ST_DATA, "%s: it holds no tensors", name);
	if (status == ST_OK)
		prefixes_strip(&tensors);
	if (status != ST_OK) {
		tensor_list_free(&tensors);
		free(bytes);
		return status;
	}
	weights->tensors = tensors;
	weights->bytes = bytes;
	snprintf(weights->name, sizeof weights->name, "%s", name);
	return ST_OK;
}

/* --- archives --- */

/* The archive's choice; its bytes are kept while later members are looked at. */
struct chosen_member {
	struct choice choice;
	enum content content;
	uint8_t *bytes;
	size_t count;
};

/* A tar of torch 0.1: storages, tensors and pickle side by side. */
static bool is_tar_checkpoint(const char *name)
{
	return strcmp(name, "storages") == 0 || strcmp(name, "tensors") == 0;
}

static enum status archive_choose(struct archive_reader *reader, const char *path, struct chosen_member *chosen)
{
	for (;;) {
		bool found, better;
		const char *name;
		uint64_t member_bytes;
		struct stream *member;
		const uint8_t *head;
		size_t head_count;
		TRY(archive_next(reader, &found, &name, &member_bytes, &member));
		if (!found)
			return ST_OK;
		if (is_tar_checkpoint(name))
			return FAIL(ST_DATA, "%s: a tar checkpoint of a torch before 0.2; load it there and save model.state_dict() with a newer one", path);
		TRY(stream_peek(member, SNIFF_BYTES, &head, &head_count));
		enum content content = content_sniff(head, head_count);
		if (content != CONTENT_SAFETENSORS && content != CONTENT_TORCH) {
			snprintf(chosen->choice.passed, sizeof chosen->choice.passed, "%s", name);
			continue;
		}
		choice_offer(&chosen->choice, name, &better);
		if (!better)
			continue;
		free(chosen->bytes);
		chosen->bytes = NULL;
		chosen->content = content;
		TRY(stream_read_all(member, WEIGHTS_BYTES_MAX, &chosen->bytes, &chosen->count));
	}
}

static enum status archive_read(const char *path, struct stream *stream, struct weights *weights)
{
	struct chosen_member chosen = {.choice = {.rank = RANK_NONE}};
	struct archive_reader *reader;
	TRY(archive_open(stream, ARCHIVE_LIMITS_USUAL, &reader));
	enum status status = archive_choose(reader, path, &chosen);
	archive_close(reader);
	if (status == ST_OK)
		status = choice_check(&chosen.choice, path);
	if (status != ST_OK) {
		free(chosen.bytes);
		return status;
	}
	char name[sizeof weights->name];
	snprintf(name, sizeof name, "%s: %s", path, chosen.choice.name);
	return weights_parse(name, chosen.content, chosen.bytes, chosen.count, weights);
}

/* --- files and directories --- */

static enum status refuse_other(const char *path, const uint8_t *bytes, size_t count)
{
	if (count >= 8 && memcmp(bytes, "PYTORCH1", 8) == 0)
		return FAIL(ST_DATA, "%s: a preview format of torch 1.0; load it there and save model.state_dict() with a newer one", path);
	if (count >= 2 && bytes[0] == 0x80 && bytes[1] <= 5)
		return FAIL(ST_DATA, "%s: a bare Python pickle; save model.state_dict() with torch.save, or as safetensors", path);
	return FAIL(ST_DATA, "%s: neither safetensors nor written by torch.save, nor an archive of one (%zu bytes looked at)", path, count);
}

static enum status file_sniff(const char *path, enum content *content)
{
	struct stream stream;
	const uint8_t *head;
	size_t count;
	TRY(stream_open_file(&stream, path));
	enum status status = stream_peek(&stream, SNIFF_BYTES, &head, &count);
	if (status == ST_OK)
		*content = content_sniff(head, count);
	stream_close(&stream);
	return status;
}

static enum status file_open(const char *path, struct weights *weights)
{
	struct stream stream;
	const uint8_t *head;
	uint8_t *bytes;
	size_t count;
	enum status status = ST_OK;
	TRY(stream_open_file(&stream, path));
	TRY_DONE(stream_peek(&stream, SNIFF_BYTES, &head, &count));
	enum content content = content_sniff(head, count);
	if (content == CONTENT_OTHER) {
		status = refuse_other(path, head, count);
	} else if (content == CONTENT_ARCHIVE) {
		status = archive_read(path, &stream, weights);
	} else {
		TRY_DONE(file_read(path, WEIGHTS_BYTES_MAX, &bytes, &count)); /* knows the size, so it is in one piece from the start */
		status = weights_parse(path, content, bytes, count, weights);
	}
done:
	stream_close(&stream);
	return status;
}

static enum status directory_choose(DIR *directory, const char *path, struct choice *choice)
{
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(directory);
		if (entry == NULL)
			return errno == 0 ? ST_OK : FAIL(ST_DATA, "%s: cannot be listed: %s", path, strerror(errno));
		char file[4096];
		enum content content = CONTENT_OTHER;
		bool better;
		TRY(path_join(file, sizeof file, path, entry->d_name));
		if (entry->d_name[0] == '.' || !file_exists(file))
			continue;
		TRY(file_sniff(file, &content));
		if (content != CONTENT_OTHER)
			choice_offer(choice, entry->d_name, &better);
		else
			snprintf(choice->passed, sizeof choice->passed, "%s", entry->d_name);
	}
}

enum status weights_open(const char *path, struct weights *weights)
{
	if (!directory_exists(path))
		return file_open(path, weights);
	struct choice choice = {.rank = RANK_NONE};
	DIR *directory = opendir(path);
	if (directory == NULL)
		return FAIL(ST_DATA, "%s: cannot be listed: %s", path, strerror(errno));
	enum status status = directory_choose(directory, path, &choice);
	closedir(directory);
	TRY(status);
	TRY(choice_check(&choice, path));
	char file[4096];
	TRY(path_join(file, sizeof file, path, choice.name));
	return file_open(file, weights);
}

void weights_close(struct weights *weights)
{
	tensor_list_free(&weights->tensors);
	free(weights->bytes);
	*weights = (struct weights){0};
}

enum status weights_verify(const char *path, const struct tensor_view *views, size_t count)
{
	struct weights weights = {0};
	enum status status = weights_open(path, &weights);
	if (status == ST_DATA)
		return status_prefix(ST_DISK, "reading back what was just written");
	TRY(status);
	if (weights.tensors.count != count)
		status = FAIL(ST_DISK, "%s: reading back what was just written: %zu tensors, %zu were written", path, weights.tensors.count, count);
	for (size_t i = 0; i < count && status == ST_OK; i++) {
		const struct tensor_view *view = &views[i], *found = tensor_list_find(&weights.tensors, view->name);
		int64_t elements;
		MUST(tensor_count(view, &elements) && tensor_is_contiguous(view));
		if (found == NULL || found->dtype != view->dtype || !tensor_same_shape(found, view->rank, view->shape) || !tensor_is_contiguous(found) ||
			(elements > 0 && memcmp(found->data, view->data, (size_t)elements * dtype_bytes(view->dtype)) != 0))
			status = FAIL(ST_DISK, "%s: reading back what was just written: tensor \"%s\" differs", path, view->name);
	}
	weights_close(&weights);
	return status;
}
