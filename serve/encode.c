/* encode.c: see encode.h. */
#include "serve/encode.h"

#include "core/base/json.h"
#include "core/format/npy.h"
#include "serve/decimal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *word, *number_name;
} outputs[] = {
	[OUTPUT_PROBABILITIES] = {"probabilities", "probability"},
	[OUTPUT_LOG_PROBABILITIES] = {"log_probabilities", "log_probability"},
	[OUTPUT_LOGITS] = {"logits", "logit"},
};

bool output_parse(const char *word, enum output *output)
{
	for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
		if (strcmp(word, outputs[i].word) == 0) {
			*output = (enum output)i;
			return true;
		}
	return false;
}

/* --- rows ------------------------------------------------------------------------------------------------------------ */

#define NOT_FINITE "the network's answer is not finite; are the values in the range that it was trained for?"

static bool row_is_finite(const float *row, int classes)
{
	for (int k = 0; k < classes; k++)
		if (!isfinite(row[k]))
			return false;
	return true;
}

/* In double and less the largest logit: no exp overflows, the largest is 1, and a row's sum is 1 as near as floats go. */
static void row_finish(float *row, int classes, enum output output)
{
	if (output == OUTPUT_LOGITS)
		return;
	double largest = (double)row[0], sum = 0;
	for (int k = 1; k < classes; k++)
		largest = fmax(largest, (double)row[k]);
	for (int k = 0; k < classes; k++)
		sum += exp((double)row[k] - largest);
	for (int k = 0; k < classes; k++) {
		double above = (double)row[k] - largest;
		row[k] = (float)(output == OUTPUT_PROBABILITIES ? exp(above) / sum : above - log(sum));
	}
}

/* Text in pieces of some size: appending each number by itself costs more than making it. */
struct pieces {
	struct text *body;
	size_t used;
	char bytes[4096];
};

static enum status pieces_flush(struct pieces *pieces)
{
	size_t used = pieces->used;
	pieces->used = 0;
	return text_add_bytes(pieces->body, pieces->bytes, used);
}

static enum status row_write(struct pieces *pieces, const float *row, int classes, bool json)
{
	for (int k = 0; k < classes; k++) {
		if (sizeof pieces->bytes - pieces->used < DECIMAL_TEXT_BYTES + 4)
			TRY(pieces_flush(pieces));
		char *at = pieces->bytes + pieces->used;
		if (k > 0)
			*at++ = ',';
		else if (json)
			*at++ = '[';
		at += decimal_print(row[k], at);
		if (json && k == classes - 1)
			*at++ = ']';
		pieces->used = (size_t)(at - pieces->bytes);
	}
	return pieces_flush(pieces);
}

/* --- the best classes ------------------------------------------------------------------------------------------------ */

/* Puts the indices of the `top` largest values in best[], largest first, of equal ones the lower index. */
static void best_find(const float *row, int classes, int top, int *best)
{
	int used = 0;
	for (int k = 0; k < classes; k++) {
		int at = used < top ? used++ : top;
		for (; at > 0 && row[best[at - 1]] < row[k]; at--)
			if (at < top)
				best[at] = best[at - 1];
		if (at < top)
			best[at] = k;
	}
}

static void best_write_json(struct json_writer *writer, const struct encode_rules *rules, const float *row, const int *best, int top)
{
	for (int i = 0; i < top; i++) {
		char number[DECIMAL_TEXT_BYTES];
		size_t length = decimal_print(row[best[i]], number);
		json_write_object(writer, NULL);
		json_write_string(writer, "label", rules->class_names[best[i]]);
		json_write_integer(writer, "index", best[i]);
		json_write_literal(writer, outputs[rules->output].number_name, number, length);
		json_write_end(writer);
	}
}

/* RFC 4180: quoted if it holds a comma, a quote or a line's end. */
static enum status csv_label_write(struct text *body, const char *label)
{
	if (strpbrk(label, ",\"\r\n") == NULL)
		return text_add(body, label);
	TRY(text_add(body, "\""));
	for (const char *s = label; *s != '\0'; s++) {
		if (*s == '"')
			TRY(text_add(body, "\""));
		TRY(text_add_bytes(body, *s == '\n' || *s == '\r' ? " " : s, 1)); /* a line of the answer belongs to one image */
	}
	return text_add(body, "\"");
}

static enum status best_write_csv(const struct encode_rules *rules, const float *row, const int *best, int top, struct text *body)
{
	for (int i = 0; i < top; i++) {
		char number[DECIMAL_TEXT_BYTES];
		size_t length = decimal_print(row[best[i]], number);
		if (i > 0)
			TRY(text_add(body, ","));
		TRY(csv_label_write(body, rules->class_names[best[i]]));
		TRY(text_add(body, ","));
		TRY(text_add_bytes(body, number, length));
	}
	return ST_OK;
}

/* --- bodies ---------------------------------------------------------------------------------------------------------- */

/* What one call works on. */
struct encoding {
	const struct encode_rules *rules;
	const float *rows;
	size_t count;
	char *const *faults;
	const int *best; /* top of each row, with top_k */
	int top;
	struct text *body;
	struct pieces *pieces;
};

static const char *fault_of(const struct encoding *encoding, size_t i)
{
	if (encoding->faults != NULL && encoding->faults[i] != NULL)
		return encoding->faults[i];
	return row_is_finite(encoding->rows + i * (size_t)encoding->rules->classes, encoding->rules->classes) ? NULL : NOT_FINITE;
}

static enum status fault_write(struct text *body, const char *fault)
{
	struct json_writer writer = {.text = body};
	json_write_object(&writer, NULL);
	json_write_string(&writer, "error", fault);
	return json_write_end_all(&writer);
}

/* One row of JSON or JSON Lines; `wrapped`: top_k's list in an object of its own. */
static enum status json_row_write(const struct encoding *encoding, size_t i, bool wrapped)
{
	const struct encode_rules *rules = encoding->rules;
	const float *row = encoding->rows + i * (size_t)rules->classes;
	const char *fault = fault_of(encoding, i);
	if (fault != NULL)
		return fault_write(encoding->body, fault);
	if (encoding->best == NULL)
		return row_write(encoding->pieces, row, rules->classes, true);
	struct json_writer writer = {.text = encoding->body};
	if (wrapped)
		json_write_object(&writer, NULL);
	json_write_array(&writer, wrapped ? "predictions" : NULL);
	best_write_json(&writer, rules, row, encoding->best + i * (size_t)encoding->top, encoding->top);
	return json_write_end_all(&writer);
}

static enum status json_write_rows(const struct encoding *encoding)
{
	bool best = encoding->best != NULL;
	if (best && encoding->count == 1)
		return json_row_write(encoding, 0, true);
	TRY(text_add(encoding->body, best ? "{\"predictions\": [" : "["));
	for (size_t i = 0; i < encoding->count; i++) {
		if (i > 0)
			TRY(text_add(encoding->body, ","));
		TRY(json_row_write(encoding, i, false));
	}
	return text_add(encoding->body, best ? "]}" : "]");
}

static enum status lines_write_rows(const struct encoding *encoding)
{
	const struct encode_rules *rules = encoding->rules;
	for (size_t i = 0; i < encoding->count; i++) {
		const float *row = encoding->rows + i * (size_t)rules->classes;
		if (i > 0)
			TRY(text_add(encoding->body, "\n"));
		if (rules->media == MEDIA_JSON_LINES)
			TRY(json_row_write(encoding, i, true));
		else if (fault_of(encoding, i) != NULL)
			continue;
		else if (encoding->best != NULL)
			TRY(best_write_csv(rules, row, encoding->best + i * (size_t)encoding->top, encoding->top, encoding->body));
		else
			TRY(row_write(encoding->pieces, row, rules->classes, false));
	}
	return ST_OK;
}

static enum status npy_write_rows(const struct encoding *encoding)
{
	const int64_t shape[] = {(int64_t)encoding->count, encoding->rules->classes};
	TRY(npy_write_header(encoding->body, 2, shape));
	size_t row_bytes = (size_t)encoding->rules->classes * sizeof(float);
	return text_add_bytes(encoding->body, encoding->rows, encoding->count * row_bytes);
}

static enum status rows_write(const struct encoding *encoding)
{
	switch (encoding->rules->media) {
	case MEDIA_JSON: return json_write_rows(encoding);
	case MEDIA_JSON_LINES:
	case MEDIA_CSV: return lines_write_rows(encoding);
	default: MUST(encoding->rules->media == MEDIA_NPY); return npy_write_rows(encoding);
	}
}

enum http_code encode(const struct encode_rules *rules, float *logits, size_t count, char *const *faults, struct text *body)
{
	size_t classes = (size_t)rules->classes;
	int top = rules->top_k < rules->classes ? rules->top_k : rules->classes;
	if (top > 0 && rules->media == MEDIA_NPY)
		return REFUSE(HTTP_NOT_ACCEPTABLE, "top_k cannot be given as npy; accept application/json, application/jsonlines or text/csv");
	for (size_t i = 0; i < count; i++) {
		float *row = logits + i * classes;
		bool sound = row_is_finite(row, rules->classes);
		row_finish(row, rules->classes, rules->output);
		sound = sound && row_is_finite(row, rules->classes); /* a logarithm may be too small for a float */
		if (!sound && faults == NULL)
			return REFUSE(HTTP_BAD_REQUEST, "image %zu: %s", i + 1, NOT_FINITE);
		bool faulty = !sound || (faults != NULL && faults[i] != NULL);
		for (size_t k = 0; faulty && k < classes; k++)
			row[k] = NAN;
	}
	struct pieces pieces = {.body = body};
	struct encoding encoding = {.rules = rules, .rows = logits, .count = count, .faults = faults, .top = top, .body = body, .pieces = &pieces};
	int *best = NULL;
	if (top > 0) {
		best = malloc((count > 0 ? count : 1) * (size_t)top * sizeof *best);
		if (best == NULL)
			return REFUSE(HTTP_NO_MEMORY, "no memory for the best of %zu rows", count);
		for (size_t i = 0; i < count; i++)
			best_find(logits + i * classes, rules->classes, top, best + i * (size_t)top);
		encoding.best = best;
	}
	enum status status = rows_write(&encoding);
	free(best);
	return status == ST_OK ? HTTP_OK : HTTP_NO_MEMORY;
}
