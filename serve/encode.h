/* encode.h: logits → the answer's body in the negotiated type. Pure functions, any thread. */
#pragma once

#include "core/base/text.h"
#include "serve/media.h"

#include <stddef.h>

enum output { OUTPUT_PROBABILITIES, OUTPUT_LOG_PROBABILITIES, OUTPUT_LOGITS };

struct encode_rules {
	enum media media; /* one that media_of_accept gives */
	enum output output;
	int top_k; /* 0: all classes as bare numbers; else the best ones, see below */
	int classes;
	const char *const *class_names; /* for top_k */
};

/* "probabilities", "log_probabilities", "logits". False when `word` is none of them. */
bool output_parse(const char *word, enum output *output);

/* Appends the body for `count` rows of classes, fp32:
 *
 *              all classes                        top_k
 *   JSON       [[0.1,…],…]                        {"predictions": [BEST, …]}, of several rows {"predictions": [[BEST, …], …]}
 *   JSON Lines [0.1,…] a line                     {"predictions": [BEST, …]} a line
 *   CSV        0.1,… a line                       label,probability,label,probability,… a line
 *   npy        version 1.0, <f4, C order, shape   HTTP_NOT_ACCEPTABLE
 *              (count, classes)
 *
 * BEST is {"label": "cattle", "index": 19, "probability": 0.25}, best first, equal ones by index; with another output the number is called
 * "log_probability" or "logit". Numbers are the shortest decimals that read back as the same float. Lines end with \n but the last. A
 * row with a fault becomes {"error": "…"} in JSON and JSON Lines (in place of the row or of its best), an empty line in CSV, NaN in npy.
 * `faults` may be NULL (then a row that is not finite is HTTP_BAD_REQUEST; otherwise that is its fault, too). `logits` is overwritten.
 * HTTP_NO_MEMORY. After a failure `body` may have a part of it. */
enum http_code encode(const struct encode_rules *rules, float *logits, size_t count, char *const *faults, struct text *body);
