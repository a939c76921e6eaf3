/* value.h: the many ways in which one value reaches us as text.
 *
 * SageMaker hands over strings, but what is in them depends on who made the job: str() and repr() of Python, JSON inside the
 * string (once or twice), or what a person typed. These functions take the text apart; ranges are train/settings/setting.c's matter. */
#pragma once

#include "core/base/json.h"
#include "core/base/status.h"
#include "core/base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest text of one value. SageMaker allows 2500 characters of up to 4 bytes. */
#define VALUE_BYTES_MAX 10001

/* The text of a member of hyperparameters.json: a string as it is, a bare number or boolean as text, null as "", a list of those
 * joined with commas. ST_SETTINGS when it is an object, a list of lists, or longer than VALUE_BYTES_MAX. */
enum status value_from_json(const struct json *json, struct text *text);

/* Takes off white space and up to two layers of JSON string quoting. ST_SETTINGS when longer than VALUE_BYTES_MAX. */
enum status value_peel(const char *raw, char plain[VALUE_BYTES_MAX]);

/* True for what means "take the default": nothing, null, None. */
bool value_is_default(const char *plain);

/* Each returns false, with the result untouched, when the text is not of that kind. */
bool value_integer(const char *plain, int64_t *value); /* 32, 32.0, 3.2e1; within ±2^53 when not plain digits */
bool value_real(const char *plain, double *value);     /* 1, .1, 1e-3; may be infinite when too large; not nan, inf or hexadecimal */
bool value_flag(const char *plain, bool *value);       /* true 1 yes / false 0 no, any case */

/* Cuts a list (JSON, Python's repr of a list or tuple, or plain commas) into its elements without quotes and white space. Changes
 * `plain`; item[i] points into it. */
bool value_list(char *plain, const char **item, size_t item_max, size_t *count);
