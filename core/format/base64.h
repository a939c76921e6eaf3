/* base64.h: base64 text ↔ bytes (RFC 4648 §4 and §5). */
#pragma once

#include "core/base/status.h"
#include "core/base/text.h"

#include <stddef.h>
#include <stdint.h>

/* Most bytes that `count` characters can stand for. */
#define BASE64_BYTES_MAX(count) ((count) / 4 * 3 + 3)

/* Decodes text[count] to `bytes`, which has room for BASE64_BYTES_MAX(count) and may be `text` itself. Both alphabets ("+/" and "-_") are
 * taken, white space is passed over, padding may be absent. ST_DATA at another character, at wrong padding and at bits that no encoder
 * leaves over: such text is damaged. `name` goes into sentences. */
enum status base64_decode(const char *name, const void *text, size_t count, uint8_t *bytes, size_t *bytes_count);

/* Appends the bytes in the alphabet with "+/", padded. ST_MEMORY. */
enum status base64_encode(const void *bytes, size_t count, struct text *text);
