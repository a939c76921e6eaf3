/* inflate.h: gzip → bytes, for Content-Encoding: gzip. Any thread. */
#pragma once

#include "serve/refuse.h"

#include <stddef.h>
#include <stdint.h>

/* *bytes is malloc'ed. Several gzip members after each other are one body. HTTP_TOO_LARGE: more than bytes_max; HTTP_BAD_REQUEST: damaged or cut
 * off; HTTP_UNAVAILABLE: no memory. Memory grows with what comes out, never with what is announced. */
enum http_code inflate_gzip(const uint8_t *from, size_t from_bytes, size_t bytes_max, uint8_t **bytes, size_t *count);
