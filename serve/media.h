/* media.h: the one table of media types, what a Content-Type means and what an Accept asks for. */
#pragma once

#include "serve/refuse.h"

#include <stdbool.h>
#include <stddef.h>

enum media { MEDIA_JSON, MEDIA_JSON_LINES, MEDIA_CSV, MEDIA_NPY, MEDIA_NPZ, MEDIA_IMAGE, MEDIA_BYTES };

/* Kind of body that a Content-Type announces. NULL, empty, application/octet-stream, file-path/raw-bytes: MEDIA_BYTES (to be sniffed). Case
 * does not count, parameters are dropped; a charset other than UTF-8 or US-ASCII, or an unknown type, is HTTP_UNSUPPORTED with the list
 * of supported ones. */
enum http_code media_of_content_type(const char *content_type, enum media *media);

/* The answer's type: the best match of an Accept header (RFC 9110 §12.5.1: lists, q, wildcards; NULL or empty: anything) among JSON, JSON
 * Lines, CSV, npy. The highest q wins; among equals a type that is named wins over a wildcard, then `preferred`, then what is named first.
 * Elements that break the grammar are passed over. *type is the exact bare word for Content-Type: the alias that was asked for
 * ("tensor/pt", whose bytes are npy; "application/x-ndjson"). HTTP_NOT_ACCEPTABLE when nothing fits. */
enum http_code media_of_accept(const char *accept, enum media preferred, enum media *media, const char **type);
