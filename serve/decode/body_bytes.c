/* body_bytes.c: bodies of no announced kind, found by their first bytes, else raw pixels by their length; see bodies.h. */
#include "core/format/image.h"
#include "core/format/npy.h"
#include "core/format/pth.h"
#include "serve/decode/bodies.h"

#include <string.h>

enum { CIFAR_SIDE = 32, CIFAR_BYTES = 3 * CIFAR_SIDE * CIFAR_SIDE };

/* Raw images of one length: a record is label bytes and three planes of side × side. */
struct raw {
	size_t record_bytes, label_bytes;
	int side;
};

static bool raw_find(const struct images *images, size_t count, struct raw *raw)
{
	const struct raw kinds[] = {{images->image_values, 0, images->rules->image_size}, {CIFAR_BYTES, 0, CIFAR_SIDE}, {CIFAR_BYTES + 2, 2, CIFAR_SIDE},
		{CIFAR_BYTES + 1, 1, CIFAR_SIDE}};
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (count > 0 && count % kinds[i].record_bytes == 0) {
			*raw = kinds[i];
			return true;
		}
	return false;
}

/* Two letters are a weak sign of a BMP file when the length is that of raw pixels: then the length in its head decides. */
static bool is_picture(const uint8_t *bytes, size_t count, bool raw)
{
	if (!image_sniff(bytes, count))
		return false;
	if (bytes[0] != 'B' || !raw)
		return true;
	return count >= 6 && (bytes[2] | (size_t)bytes[3] << 8 | (size_t)bytes[4] << 16 | (size_t)bytes[5] << 24) == count;
}

enum http_code body_take_bytes(struct images *images, const uint8_t *bytes, size_t count)
{
	struct raw raw;
	bool is_raw = raw_find(images, count, &raw);
	if (is_picture(bytes, count, is_raw))
		return images_take_picture(images, bytes, count);
	if (npy_sniff(bytes, count))
		return body_take_npy(images, bytes, count);
	if (pth_is_zip(bytes, count))
		return body_take_npz(images, bytes, count);
	if (!is_raw)
		return REFUSE(HTTP_BAD_REQUEST, "%zu bytes that are no JPEG, PNG, BMP, npy or npz file and no raw images of %zu bytes (nor CIFAR records of 3074 or "
			"3073); name another kind in Content-Type", count, images->image_values);
	ALLOW(images_allow(images, count / raw.record_bytes));
	for (size_t at = 0; at < count; at += raw.record_bytes)
		ALLOW(images_take_planes(images, bytes + at + raw.label_bytes, raw.side, raw.side));
	return HTTP_OK;
}
