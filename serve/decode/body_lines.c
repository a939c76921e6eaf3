/* body_lines.c: bodies of one image a line, CSV and JSON Lines; see bodies.h.
 *
 * Batch transform splits such bodies and joins their answers line by line, so line n of the answer belongs to line n of the body. Blank
 * lines at the end are passed over, between others they are faults. */
#include "core/format/tensor.h"
#include "serve/decimal.h"
#include "serve/decode/bodies.h"

#include <string.h>

/* What reads one line. */
typedef enum http_code line_take(struct images *images, const char *text, size_t count);

/* --- CSV ------------------------------------------------------------------------------------------------------------- */

static size_t spaces_skip(const char *text, size_t count, size_t at)
{
	while (at < count && (text[at] == ' ' || text[at] == '\t'))
		at++;
	return at;
}

static enum http_code column_refuse(const char *text, size_t count, size_t column, enum decimal_fault fault)
{
	const char *comma = memchr(text, ',', count);
	size_t length = comma != NULL ? (size_t)(comma - text) : count;
	while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
		length--;
	if (length == 0)
		return REFUSE(HTTP_BAD_REQUEST, "column %zu is empty, expected a number", column);
	return REFUSE(HTTP_BAD_REQUEST, "column %zu is \"%.*s\", expected a %s", column, (int)(length < 40 ? length : 40), text,
		fault == DECIMAL_TOO_LARGE ? "number within the range of a float" : "number (there is no header line)");
}

static enum http_code csv_line_take(struct images *images, const char *text, size_t count)
{
	bool all_whole = true;
	int64_t columns = 0;
	for (size_t at = 0;; at++) {
		float value;
		size_t length = 0;
		bool whole;
		at = spaces_skip(text, count, at);
		enum decimal_fault fault = decimal_parse(text + at, count - at, DECIMAL_CSV, &value, &length, &whole);
		size_t end = spaces_skip(text, count, at + length);
		columns++;
		if (fault != DECIMAL_FINE || (end < count && text[end] != ','))
			return column_refuse(text + at, count - at, (size_t)columns, fault);
		ALLOW(images_put(images, value));
		all_whole = all_whole && whole;
		if (end == count)
			break;
		at = end;
	}
	if (columns != (int64_t)images->image_values)
		return REFUSE(HTTP_BAD_REQUEST, "%lld columns, expected %zu", (long long)columns, images->image_values);
	return images_take_numbers(images, all_whole, 1, &columns);
}

/* --- lines ----------------------------------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static enum http_code lines_take(struct images *images, const char *text, size_t count, line_take *take)
{
	while (count > 0 && is_blank(text[count - 1]))
		count--;
	size_t line = 1;
	for (size_t at = 0; at < count; line++) {
		const char *newline = memchr(text + at, '\n', count - at);
		size_t end = newline != NULL ? (size_t)(newline - text) : count, length = end - at, before = images->count;
		while (length > 0 && is_blank(text[at + length - 1]))
			length--;
		enum http_code code = length == 0 ? REFUSE(HTTP_BAD_REQUEST, "is empty") : take(images, text + at, length);
		if (code == HTTP_OK && images->count != before + 1)
			code = REFUSE(HTTP_BAD_REQUEST, "%zu images, expected one a line", images->count - before);
		if (code != HTTP_OK) {
			status_prefix(ST_DATA, "line %zu", line);
			images_cut(images, before);
		}
		if (code == HTTP_BAD_REQUEST && images->rules->keep_going)
			code = images_take_fault(images);
		ALLOW(code);
		at = end + 1;
	}
	return HTTP_OK;
}

enum http_code body_take_csv(struct images *images, const char *text, size_t count)
{
	return lines_take(images, text, count, csv_line_take);
}

enum http_code body_take_json_lines(struct images *images, const char *text, size_t count)
{
	return lines_take(images, text, count, body_take_json);
}
