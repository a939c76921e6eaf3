/* encode.h: logits → the answer's body in the negotiated type. Pure functions, any thread. */
#pragma once

#include "core/base/text.h"
#include "serve/media.h"

#include <stddef.h>

enum output { OUTPUT_PROBABILITIES, OUTPUT_LOG_PROBABILITIES, OUTPUT_LOGITS };

struct encode_rules {
	enum media media;
	enum output output;
	int top_k; /* 0: all classes as bare numbers; else {"predictions": [{"label", "index", "probability"}, …]} in JSON (of one image; a list
	            * of such objects' lists for several), an object a line in JSON Lines; CSV "label,probability,…"; npy: HTTP_NOT_ACCEPTABLE */
	int classes;
	const char *const *class_names;
};

/* "probabilities", "log_probabilities", "logits". False when `word` is none of them. */
bool output_parse(const char *word, enum output *output);

/* Appends the body: `count` rows of classes, fp32. Numbers are the shortest decimals that read back as the same float. npy is version 1.0,
 * <f4, C order, shape (count, classes). Lines end with \n but the last. A row with a fault (faults may be NULL) becomes
 * {"error": "…"} in JSON and JSON Lines, an empty line in CSV, NaN in npy. `logits` is overwritten. */
enum http_code encode(const struct encode_rules *rules, float *logits, size_t count, char *const *faults, struct text *body);
