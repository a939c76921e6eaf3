/* pictures.c: makes the demo's data set, in the form of CIFAR-100's binary version.
 *
 *     demo_pictures DIRECTORY TRAIN_COUNT TEST_COUNT      writes train.bin, test.bin, fine_label_names.txt, coarse_label_names.txt
 *     demo_pictures --sheet FILE.png                      a picture of each class, to look at
 *     demo_pictures --record test.bin N FILE              record N of such a file as a request's body: .png, .npy or .json
 *
 * The same numbers give the same bytes. Train and test pictures have different numbers, so none occurs twice. */
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "core/format/image.h"
#include "test/demo/paint.h"
#include "train/report/sheet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SEED = 1, COUNT_MAX = 1000000, SHEET_COLUMNS = 10, SHEET_SCALE = 3 };
static const uint64_t test_first = (uint64_t)1 << 32;

static enum status records_write(const char *directory, const char *name, uint64_t first, uint64_t count)
{
	char path[4096];
	struct file_writer writer;
	TRY(path_join(path, sizeof path, directory, name));
	TRY(file_begin(&writer, path, FILE_TEMPORARY_SUFFIX));
	for (uint64_t i = 0; i < count; i++) {
		uint8_t record[2 + PAINT_BYTES];
		unsigned fine = (unsigned)(i % PAINT_CLASSES);
		record[0] = (uint8_t)paint_coarse(fine);
		record[1] = (uint8_t)fine;
		paint(SEED, first + i, fine, record + 2);
		enum status status = file_append(&writer, record, sizeof record);
		if (status != ST_OK) {
			file_abandon(&writer);
			return status;
		}
	}
	return file_commit(&writer);
}

static enum status names_write(const char *directory, const char *file, unsigned count, void (*name_of)(unsigned, char[PAINT_NAME_BYTES]))
{
	char path[4096];
	struct text lines = {0};
	enum status status = path_join(path, sizeof path, directory, file);
	for (unsigned i = 0; i < count && status == ST_OK; i++) {
		char name[PAINT_NAME_BYTES];
		name_of(i, name);
		status = text_printf(&lines, "%s\n", name);
	}
	if (status == ST_OK)
		status = file_write(path, lines.data, lines.length);
	text_free(&lines);
	return status;
}

static enum status count_parse(const char *word, uint64_t *count)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(word, &end, 10);
	if (errno != 0 || end == word || *end != '\0' || value < PAINT_CLASSES || value > COUNT_MAX)
		return FAIL(ST_SETTINGS, "\"%s\" pictures: a number from %d to %d is needed", word, PAINT_CLASSES, COUNT_MAX);
	*count = value;
	return ST_OK;
}

static enum status data_set_write(const char *directory, const char *train_word, const char *test_word)
{
	uint64_t train_count, test_count;
	TRY(count_parse(train_word, &train_count));
	TRY(count_parse(test_word, &test_count));
	TRY(directory_make(directory));
	TRY(names_write(directory, "fine_label_names.txt", PAINT_CLASSES, paint_name));
	TRY(names_write(directory, "coarse_label_names.txt", PAINT_COARSE_CLASSES, paint_coarse_name));
	TRY(records_write(directory, "test.bin", test_first, test_count));
	return records_write(directory, "train.bin", 0, train_count);
}

static enum status sheet_write(const char *path)
{
	uint8_t *images = malloc((size_t)PAINT_CLASSES * PAINT_BYTES), *png = NULL;
	struct sheet sheet = {0};
	size_t png_bytes;
	enum status status = images == NULL ? FAIL(ST_MEMORY, "no memory for %d pictures", PAINT_CLASSES) : ST_OK;
	if (status != ST_OK)
		return status;
	/* Members of a coarse class side by side. */
	for (unsigned coarse = 0, n = 0; coarse < PAINT_COARSE_CLASSES; coarse++)
		for (unsigned fine = 0; fine < PAINT_CLASSES; fine++)
			if (paint_coarse(fine) == coarse)
				paint(SEED, 0, fine, images + n++ * (size_t)PAINT_BYTES);
	TRY_DONE(sheet_build(images, PAINT_CLASSES, PAINT_SIZE, SHEET_COLUMNS, SHEET_SCALE, &sheet));
	TRY_DONE(image_png_write(sheet.planes, sheet.width, sheet.height, &png, &png_bytes));
	status = file_write(path, png, png_bytes);
done:
	free(png);
	free(sheet.planes);
	free(images);
	return status;
}

/* --- one record as a request ----------------------------------------------------------------------------------------- */

static enum status planes_as_png(const uint8_t *planes, struct text *body)
{
	uint8_t *png;
	size_t count;
	TRY(image_png_write(planes, PAINT_SIZE, PAINT_SIZE, &png, &count));
	enum status status = text_add_bytes(body, png, count);
	free(png);
	return status;
}

static enum status planes_as_npy(const uint8_t *planes, struct text *body)
{
	TRY(text_add_bytes(body, "\x93NUMPY\x01\x00\x76\x00", 10));
	TRY(text_printf(body, "%-117s\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 3, 32, 32), }"));
	return text_add_bytes(body, planes, PAINT_BYTES);
}

static enum status planes_as_json(const uint8_t *planes, struct text *body)
{
	for (size_t i = 0; i < PAINT_BYTES; i++)
		TRY(text_printf(body, "%s%u", i == 0 ? "{\"instances\": [[" : ", ", planes[i]));
	return text_add(body, "]]}\n");
}

static const struct {
	const char *ending;
	enum status (*write)(const uint8_t *planes, struct text *body);
} forms[] = {{".png", planes_as_png}, {".npy", planes_as_npy}, {".json", planes_as_json}};

static enum status record_write(const char *records, const char *number, const char *path)
{
	uint8_t *bytes = NULL;
	size_t count, record = 2 + PAINT_BYTES, n = strtoul(number, NULL, 10), form = 0;
	const char *ending = strrchr(path, '.');
	while (form < sizeof forms / sizeof *forms && (ending == NULL || strcmp(ending, forms[form].ending) != 0))
		form++;
	if (form == sizeof forms / sizeof *forms)
		return FAIL(ST_SETTINGS, "%s: the name must end with .png, .npy or .json", path);
	TRY(file_read(records, (size_t)1 << 30, &bytes, &count));
	struct text body = {0};
	enum status status = n < count / record ? forms[form].write(bytes + n * record + 2, &body)
		: FAIL(ST_DATA, "%s: there is no record %s, it has %zu", records, number, count / record);
	if (status == ST_OK)
		status = file_write(path, body.data, body.length);
	text_free(&body);
	free(bytes);
	return status;
}

int main(int count, char **words)
{
	enum status status;
	if (count == 3 && strcmp(words[1], "--sheet") == 0)
		status = sheet_write(words[2]);
	else if (count == 5 && strcmp(words[1], "--record") == 0)
		status = record_write(words[2], words[3], words[4]);
	else if (count == 4)
		status = data_set_write(words[1], words[2], words[3]);
	else
		status = FAIL(ST_SETTINGS, "usage: demo_pictures DIRECTORY TRAIN_COUNT TEST_COUNT, or --sheet FILE.png, or --record test.bin N FILE");
	if (status != ST_OK)
		log_error("%s", status_message());
	return status_exit_code(status);
}
