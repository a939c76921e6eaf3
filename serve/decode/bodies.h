/* bodies.h: the kinds of body, a file each. Each function appends what it finds to `images` and returns HTTP_BAD_REQUEST with a sentence that
 * says where and what was expected, HTTP_TOO_LARGE or HTTP_NO_MEMORY. After a failure images_cut restores what was there before. */
#pragma once

#include "serve/decode/images.h"

/* A picture, npy, npz, or raw pixels, by content: planar images of image_size or of 32 × 32, or CIFAR records (3074 bytes with two
 * label bytes in front, 3073 with one). */
enum http_code body_take_bytes(struct images *images, const uint8_t *bytes, size_t count);
enum http_code body_take_npy(struct images *images, const uint8_t *bytes, size_t count);
/* One array of the archive: the only one, or the only one with a name of body_names. */
enum http_code body_take_npz(struct images *images, const uint8_t *bytes, size_t count);

/* One JSON value:
 *   numbers   in nested lists, of any shape that images.h knows
 *   text      base64 of anything that body_take_bytes knows, "data:image/png;base64," in front or not
 *   list      of texts, objects or lists
 *   object    whose member with a name of body_names holds one of these; else its only list of numbers, whatever its name */
enum http_code body_take_json(struct images *images, const char *text, size_t count);
/* One image a line, in values as above. */
enum http_code body_take_json_lines(struct images *images, const char *text, size_t count);
/* One image a line: 3·S·S numbers, planar, no header. */
enum http_code body_take_csv(struct images *images, const char *text, size_t count);

/* What members of objects and arrays of archives that hold images are called; ends with NULL. */
extern const char *const body_names[];
bool body_is_name(const char *name, size_t count);
/* They, for a sentence: "instances", "inputs", … */
#define BODY_NAMES_TEXT "instances, inputs, data, image or b64"
