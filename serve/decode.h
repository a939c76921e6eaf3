/* decode.h: a request's body → N images as normalised floats.
 *
 * In: bytes and their Content-Type. Out: planar (C, H, W) floats of image_size, ready for the engine. Pure functions, any thread; nothing
 * in a body is executed, memory is bounded by images_max. Knows no connection, no queue, no model beyond size and normalisation. */
#pragma once

#include "core/model/normalization.h"
#include "serve/media.h"

#include <stddef.h>
#include <stdint.h>

/* What numbers mean. Integers and pictures are always pixels 0 … 255: elements of an integer type, and in text the numbers of one list of
 * lists (JSON) or of one line (CSV) when all of them are written without point and exponent. Others are floats: as the network was
 * trained (normalised; that is AUTO), or 0 … 255, or 0 … 1, if the request or the environment says so. */
enum value_range { RANGE_AUTO, RANGE_PIXELS, RANGE_UNIT, RANGE_NORMALIZED };

struct decode_rules {
	int image_size;
	struct normalization normalization;
	size_t images_max;       /* of one body */
	bool keep_going;         /* batch transform: a bad line of CSV or JSON Lines becomes a placeholder instead of a refusal */
	enum value_range floats; /* what floats are */
};

struct decoded {
	float *images;   /* count × 3 · S · S, owned; zeros for placeholders */
	size_t count;
	char **faults;   /* owned; NULL without keep_going, else for each image NULL or why it could not be read */
	bool lines;      /* the body was line by line: the answer's default is then JSON Lines in batch transform */
};

/* HTTP_BAD_REQUEST: malformed, saying which record and what was found and expected; HTTP_UNSUPPORTED; HTTP_TOO_LARGE: more than images_max;
 * HTTP_NO_MEMORY; with keep_going HTTP_NO_CONTENT: nothing in it (without, that is malformed). `decoded` is untouched unless HTTP_OK.
 * Most bodies take microseconds; a picture may take a second, and large ones wait for one another: not for a thread that others wait for. */
enum http_code decode(const struct decode_rules *rules, const char *content_type, const uint8_t *body, size_t count, struct decoded *decoded);
void decoded_free(struct decoded *decoded); /* accepts {0} */
