/* options.h: what `serve` is asked to do: the one table of its environment variables.
 *
 * In: the environment. Out: one struct options, checked, and the text of `serve --help` from the same table. A row makes the field of the
 * struct, the reader, the range check and the documentation; to add an option, add a row. Variables that no row names are ignored: the
 * platform sets many. */
#pragma once

#include "core/base/status.h"
#include "core/base/text.h"
#include "serve/decode.h"
#include "serve/encode.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTION_CONSTANT(constant, word) constant,

#define PAGE_CHOICE_LIST(X) X(PAGE_AUTO, "auto") X(PAGE_ON, "on") X(PAGE_OFF, "off")
enum page_choice { PAGE_CHOICE_LIST(OPTION_CONSTANT) };

#define BATCH_STRATEGY_LIST(X) X(BATCH_MULTI_RECORD, "MULTI_RECORD") X(BATCH_SINGLE_RECORD, "SINGLE_RECORD")
enum batch_strategy { BATCH_STRATEGY_LIST(OPTION_CONSTANT) };

/* Constants that belong to other headers. */
#define VALUE_RANGE_LIST(X) X(RANGE_AUTO, "auto") X(RANGE_PIXELS, "pixels") X(RANGE_UNIT, "unit") X(RANGE_NORMALIZED, "normalized")
#define OUTPUT_LIST(X) X(OUTPUT_PROBABILITIES, "probabilities") X(OUTPUT_LOG_PROBABILITIES, "log_probabilities") X(OUTPUT_LOGITS, "logits")

#define OPTION_TEXT_BYTES 1025 /* an environment variable of an endpoint has 1024 characters at most */

/* Kinds of field: WHOLE int64_t, FLAG bool, WORD int (one of a list's constants), TEXT char[OPTION_TEXT_BYTES], TRIPLE float[3] and the
 * flag <field>_given.
 *
 *     WHOLE (field, names, default, least, most, what 0 means beside the range or NULL, help)
 *     WORD  (field, names, default, list, help)
 *     FLAG TEXT TRIPLE (field, names, default, help)
 *
 * `names`: the variables, the first one that is set wins; the first is the one to document, the others are those that AWS's own servers
 * read. "NAME*1000": its value is multiplied by that before it is checked. Default and range are those of the field. */
#define OPTIONS_TABLE(WHOLE, FLAG, WORD, TEXT, TRIPLE) \
	WHOLE(port, "SAGEMAKER_BIND_TO_PORT", "8080", 1, 65535, NULL, "TCP port to listen on, on every address") \
	WHOLE(payload_bytes_max, "SAGEMAKER_MAX_PAYLOAD_IN_MB*1048576 MMS_MAX_REQUEST_SIZE TS_MAX_REQUEST_SIZE MAX_CONTENT_LENGTH", "26214400", \
		1, (int64_t)1 << 30, "no limit in batch transform, else the most", "largest body of a request, also after decompression") \
	WHOLE(timeout_s, \
		"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS SAGEMAKER_MODEL_SERVER_TIMEOUT SAGEMAKER_TS_RESPONSE_TIMEOUT MODEL_SERVER_TIMEOUT " \
		"MMS_DEFAULT_RESPONSE_TIMEOUT TS_DEFAULT_RESPONSE_TIMEOUT", \
		"60", 1, 86400, NULL, "seconds from the end of a request's body until it must be computed") \
	TEXT(default_accept, "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "application/json", "type of the answer when a request names none") \
	FLAG(batch_transform, "SAGEMAKER_BATCH", "false", "the platform runs a batch transform job: a bad line becomes a placeholder, an empty body is well") \
	WORD(batch_strategy, "SAGEMAKER_BATCH_STRATEGY", "MULTI_RECORD", BATCH_STRATEGY_LIST, "told by the platform; any number of records is taken") \
	WHOLE(transforms_max, "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "0", 1, 1000, "chosen by serve", "what /execution-parameters says") \
	FLAG(multi_model, "SAGEMAKER_MULTI_MODEL", "false", "serve many models, loaded and unloaded through /models") \
	WHOLE(log_level, "SAGEMAKER_CONTAINER_LOG_LEVEL", "20", 0, 50, NULL, "Python's: 10 debug, 20 info, 30 warning, 40 error") \
	FLAG(access_log, "SMELT_ACCESS_LOG", "true", "one line for each invocation") \
	WHOLE(wait_us_max, "SMELT_BATCH_WAIT_US SAGEMAKER_TS_MAX_BATCH_DELAY*1000", "1000", 0, 10000000, NULL, \
		"microseconds that a request may wait for others to share its computation, when the one before had company") \
	WHOLE(batch_max, "SMELT_BATCH_MAX SAGEMAKER_TS_BATCH_SIZE", "64", 1, 4096, NULL, "images computed at a time at most") \
	WHOLE(queue_max, "SMELT_QUEUE_MAX MMS_JOB_QUEUE_SIZE TS_JOB_QUEUE_SIZE", "1024", 1, 1000000, NULL, \
		"invocations accepted and not yet computed; one more is answered 503") \
	WHOLE(images_max, "SMELT_IMAGES_MAX", "16384", 1, 16777216, NULL, "images of one request at most") \
	WHOLE(bodies_mb_max, "SMELT_BODIES_MAX_MB", "1024", 1, 1048576, NULL, \
		"memory for the bodies of all requests together; one more is answered 503") \
	WHOLE(connections_max, "SMELT_CONNECTIONS_MAX", "2048", 8, 1000000, NULL, "connections at a time; more wait to be accepted") \
	WHOLE(threads, "SMELT_THREADS", "0", 1, 1024, "as many as this process may use", "threads that compute") \
	WORD(output, "SMELT_OUTPUT", "probabilities", OUTPUT_LIST, "what is answered") \
	WHOLE(top_k, "SMELT_TOP_K", "0", 1, 100000, "all classes as bare numbers", "answer only so many classes, with label and probability") \
	WORD(floats, "SMELT_FLOATS", "auto", VALUE_RANGE_LIST, \
		"what floating-point input is: 0 to 255, 0 to 1, or normalized as in training (auto); integers are always 0 to 255") \
	TEXT(labels_path, "SMELT_LABELS", "", "file of class names, one a line, for a model that does not name its classes") \
	TRIPLE(mean, "SMELT_MEAN", "", "mean of red, green, blue in 0 to 1, for a model that does not say it: 0.507,0.487,0.441") \
	TRIPLE(std, "SMELT_STD", "", "standard deviation of red, green, blue, likewise") \
	WHOLE(image_size, "SMELT_IMAGE_SIZE", "0", 8, 1024, "the model's, else 32", "side of the images that the network sees") \
	WHOLE(memory_mb_max, "SMELT_MEMORY_MAX_MB", "0", 1, 16777216, "no limit", "memory for all models together; loading one more is answered 507") \
	WORD(page, "SMELT_PAGE", "auto", PAGE_CHOICE_LIST, "the page at /: on, off, or off only where the platform runs this process") \
	WHOLE(head_timeout_s, "SMELT_HEAD_TIMEOUT_S", "20", 1, 3600, NULL, "seconds for a request's header fields to arrive") \
	WHOLE(body_timeout_s, "SMELT_BODY_TIMEOUT_S", "60", 1, 86400, NULL, "seconds for a request's body to arrive") \
	WHOLE(idle_timeout_s, "SMELT_IDLE_TIMEOUT_S", "120", 1, 86400, NULL, "seconds that a connection may stay without a request") \
	WHOLE(drain_ms, "SMELT_DRAIN_MS", "400", 0, 20000, NULL, "milliseconds after SIGTERM during which requests are still taken")

struct options {
#define WHOLE(field, ...) int64_t field;
#define FLAG(field, ...) bool field;
#define WORD(field, ...) int field;
#define TEXT(field, ...) char field[OPTION_TEXT_BYTES];
#define TRIPLE(field, ...) float field[3]; bool field##_given;
	OPTIONS_TABLE(WHOLE, FLAG, WORD, TEXT, TRIPLE)
#undef WHOLE
#undef FLAG
#undef WORD
#undef TEXT
#undef TRIPLE
};

/* Reads the environment. ST_SETTINGS, naming the variable, its value and what it may be. */
enum status options_read(struct options *options);

/* The table as text: each variable, its range, default and help, its other names; for --help, and for the README. ST_MEMORY. */
enum status options_help(struct text *text);
enum status options_markdown(struct text *text);

/* Largest body of a request: SIZE_MAX when there is no limit. */
size_t payload_bytes_max(const struct options *options);

/* Whether something in the environment shows that SageMaker runs this process (and not a person). */
bool options_platform(void);
