/* attributes.h: what a caller may choose for one invocation, in X-Amzn-SageMaker-Custom-Attributes or in the query:
 *
 *     attributes = attribute *( (";" | ",") attribute )      blanks around each are dropped
 *     attribute  = "output=" ("probabilities" | "log_probabilities" | "logits")
 *                | "top_k=" whole number from 1
 *                | "floats=" ("auto" | "pixels" | "unit" | "normalized")
 *                | anything else: the caller's own, ignored */
#pragma once

#include "serve/decode.h"
#include "serve/encode.h"

/* Changes the rules to what `text` says (NULL: nothing). HTTP_BAD_REQUEST naming the attribute. */
enum http_code attributes_read(const char *text, struct decode_rules *decode, struct encode_rules *encode);
/* One of them by name and value. */
enum http_code attribute_read(const char *name, const char *value, struct decode_rules *decode, struct encode_rules *encode);
/* Names of the known ones, ended by NULL. */
extern const char *const attribute_names[];

/* Whether a received value may be sent back: visible ASCII and blanks, at most 1024. */
bool attributes_clean(const char *text);
