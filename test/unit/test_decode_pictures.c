/* Goal: pictures and raw bytes become the same floats as the numbers that they stand for; damaged ones and bombs are refused; other sizes are
 * scaled as torchvision does; floats mean what the rules say.
 * Method: Pillow's files of one image (test/golden/bodies) against it, exactly where the format is exact; cut and changed files. */
#include "core/format/image.h"
#include "test/unit/decode_bed.h"

/* --- pictures -------------------------------------------------------------------------------------------------------- */

static void pictures_are_the_image(void **state)
{
	(void)state;
	static const char *const exact[] = {"rgb.png", "rgba.png", "interlaced.png", "rgb.bmp"};
	static const char *const types[] = {"image/png", "image/*", "application/x-image", "application/octet-stream", "file-path/raw-bytes", "", NULL};
	for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
		for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
			struct text body = file(exact[i]);
			expect(exact[i], types[t], &body, 1, pixels_normal);
		}
	/* Grey is the red plane three times; the others are near: a palette has few colours, JPEG rounds. Levels of 255 on the average. */
	static const struct {
		const char *name;
		bool grey;
		double levels;
	} near[] = {{"grey.png", true, 0}, {"grey_16.png", true, 0}, {"grey.jpg", true, 0.5}, {"palette.png", false, 4}, {"baseline.jpg", false, 2},
		{"progressive.jpg", false, 2}, {"exif.jpg", false, 2}, {"cmyk.jpg", false, 2}, {"ycck.jpg", false, 2}};
	for (size_t i = 0; i < sizeof near / sizeof *near; i++) {
		struct text body = file(near[i].name);
		struct decoded decoded = {0};
		if (decode_copy(&usual, NULL, body.data, body.length, &decoded) != HTTP_OK)
			fail_msg("%s: %s", near[i].name, status_message());
		double difference = 0;
		for (int k = 0; k < VALUES; k++) {
			int c = k / AREA, pixel = planes[near[i].grey ? k % AREA : k];
			double level = ((double)decoded.images[k] * (double)usual.normalization.std[c] + (double)usual.normalization.mean[c]) * 255;
			difference += fabs(level - pixel) / VALUES;
		}
		if (difference > near[i].levels + 1e-4)
			fail_msg("%s: off by %.3f levels, %.3f are allowed", near[i].name, difference, near[i].levels);
		decoded_free(&decoded);
		text_free(&body);
	}
}

/* Four components and nothing that says what they are: with Adobe's segment under another name, or with a transform that is none of theirs. */
static void inks_unnamed(void **state)
{
	(void)state;
	static const struct {
		size_t offset;
		char value;
	} changes[] = {{0, 'a'}, {11, 1}, {11, 3}};
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		struct text body = file("cmyk.jpg");
		struct decoded decoded = {0};
		char *adobe = body.data;
		while (memcmp(adobe, "Adobe", 5) != 0)
			adobe++;
		adobe[changes[i].offset] = changes[i].value;
		assert_int_equal(decode_copy(&usual, NULL, body.data, body.length, &decoded), HTTP_BAD_REQUEST);
		assert_non_null(strstr(status_message(), "four components"));
		text_free(&body);
	}
}

static void exif_does_not_turn(void **state)
{
	(void)state;
	struct text turned = file("exif.jpg"), plain = file("baseline.jpg");
	struct decoded a = {0}, b = {0};
	assert_int_equal(decode_copy(&usual, NULL, turned.data, turned.length, &a), HTTP_OK);
	assert_int_equal(decode_copy(&usual, NULL, plain.data, plain.length, &b), HTTP_OK);
	assert_memory_equal(a.images, b.images, VALUES * sizeof *a.images);
	decoded_free(&a);
	decoded_free(&b);
	text_free(&turned);
	text_free(&plain);
}

static void bad_pictures_are_refused(void **state)
{
	(void)state;
	static const char *const names[] = {"rgb.png", "palette.png", "interlaced.png", "baseline.jpg", "progressive.jpg", "cmyk.jpg", "rgb.bmp"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct text body = file(names[i]);
		for (size_t cut = 0; cut < body.length; cut += 1 + body.length / 300) {
			struct decoded decoded = {0};
			enum http_code code = decode_copy(&usual, "image/png", body.data, cut, &decoded);
			/* The last four bytes of a PNG are the CRC of a chunk that says nothing. */
			if (code != HTTP_BAD_REQUEST && !(strstr(names[i], ".png") != NULL && cut >= body.length - 4))
				fail_msg("%s cut to %zu bytes: %d", names[i], cut, (int)code);
			decoded_free(&decoded);
		}
		body.length = 40;
		expect_refusal(&usual, HTTP_BAD_REQUEST, "image/jpeg", &body, "image 1: damaged picture");
		text_free(&body);
	}
	/* 65 000 × 65 000 pixels in a head. */
	struct text body = file("rgb.png");
	memcpy(body.data + 16, "\x00\x00\xfd\xe8\x00\x00\xfd\xe8", 8);
	expect_refusal(&usual, HTTP_BAD_REQUEST, "image/png", &body, "more than 16384 pixels a side");
	text_free(&body);
	body = file("baseline.jpg");
	char *frame = memchr(body.data, 0xc0, body.length);
	while (frame != NULL && frame[-1] != (char)0xff)
		frame = memchr(frame + 1, 0xc0, body.length - (size_t)(frame + 1 - body.data));
	assert_non_null(frame);
	memcpy(frame + 4, "\xfd\xe8\xfd\xe8", 4);
	expect_refusal(&usual, HTTP_BAD_REQUEST, "image/jpeg", &body, "image 1: ");
	text_free(&body);
	body = file("rgb.bmp");
	memcpy(body.data + 18, "\xe8\xfd\x00\x00\xe8\xfd\x00\x00", 8);
	expect_refusal(&usual, HTTP_BAD_REQUEST, "image/bmp", &body, "image 1: ");
	text_free(&body);
	body = string("GIF89a");
	expect_refusal(&usual, HTTP_BAD_REQUEST, "image/png", &body, "image 1: 6 bytes that are no PNG, JPEG or BMP picture");
	text_free(&body);
}

static void pictures_of_too_many_pixels_are_refused(void **state)
{
	(void)state;
	/* The head of a picture of 8192 x 8192 pixels is enough to know. */
	struct text body = file("rgb.png"), encoded = {0}, list = {0};
	memcpy(body.data + 16, "\x00\x00\x20\x00\x00\x00\x20\x00", 8);
	expect_refusal(&usual, HTTP_BAD_REQUEST, "image/png", &body, "image 1: 8192 x 8192 pixels in 102 bytes; above 33554432, the pictures of a body may have 8");
	text_free(&body);
	/* Many small ones count together: 100 of 32 x 32 pass. */
	body = file("rgb.png");
	base64_add(&encoded, (const uint8_t *)body.data, body.length);
	text_free(&body);
	for (int i = 0; i < 100; i++)
		assert_int_equal(text_printf(&list, "%s\"%s\"", i > 0 ? "," : "[", encoded.data), ST_OK);
	assert_int_equal(text_add(&list, "]"), ST_OK);
	expect("a hundred pictures", "application/json", &list, 100, pixels_normal);
	text_free(&encoded);
}

static void raw_bytes_are_found_by_length(void **state)
{
	(void)state;
	struct text body = {0};
	for (int n = 0; n < 3; n++)
		assert_int_equal(text_add_bytes(&body, planes, VALUES), ST_OK);
	expect("planes", "application/octet-stream", &body, 3, pixels_normal);
	for (int n = 0; n < 3; n++) {
		assert_int_equal(text_add_bytes(&body, "\x13\x63", 2), ST_OK);
		assert_int_equal(text_add_bytes(&body, planes, VALUES), ST_OK);
	}
	expect("CIFAR-100 records", NULL, &body, 3, pixels_normal);
	for (int n = 0; n < 2; n++) {
		assert_int_equal(text_add_bytes(&body, "\x09", 1), ST_OK);
		assert_int_equal(text_add_bytes(&body, planes, VALUES), ST_OK);
	}
	expect("CIFAR-10 records", "", &body, 2, pixels_normal);
	npy_add(&body, "|u1", "False", "(3, 32, 32)", planes, VALUES);
	expect("npy", "", &body, 1, pixels_normal);
	/* Pixels that begin like a BMP file are pixels. */
	uint8_t begun[VALUES];
	float normal[VALUES];
	memcpy(begun, planes, VALUES);
	memcpy(normal, pixels_normal, sizeof normal);
	memcpy(begun, "BM", 2);
	for (int i = 0; i < 2; i++)
		normal[i] = ((float)begun[i] / 255.0f - usual.normalization.mean[0]) / usual.normalization.std[0];
	assert_int_equal(text_add_bytes(&body, begun, VALUES), ST_OK);
	expect("BM…", "", &body, 1, normal);
	assert_int_equal(text_add_bytes(&body, planes, VALUES - 1), ST_OK);
	expect_refusal(&usual, HTTP_BAD_REQUEST, "", &body, "3071 bytes that are no JPEG, PNG, BMP, npy or npz file and no raw images of 3072 bytes");
	text_free(&body);
	body = string("PK\3\4 and so on");
	expect_refusal(&usual, HTTP_BAD_REQUEST, "", &body, "npz: not a usable zip file");
	text_free(&body);
	struct decode_rules rules = usual;
	rules.images_max = 2;
	for (int n = 0; n < 3; n++)
		assert_int_equal(text_add_bytes(&body, planes, VALUES), ST_OK);
	expect_refusal(&rules, HTTP_TOO_LARGE, "", &body, "at least 3 images in one body, at most 2");
	text_free(&body);
}

/* --- size and range -------------------------------------------------------------------------------------------------- */

static void other_sizes_are_scaled(void **state)
{
	(void)state;
	/* Two sizes of network, one smaller and one larger than the image; all forms agree with image_resize. */
	for (int side = 20; side <= 48; side += 28) {
		struct decode_rules rules = usual;
		rules.image_size = side;
		uint8_t resized[3 * 48 * 48];
		assert_int_equal(image_resize(planes, SIDE, SIDE, side, resized), ST_OK);
		struct text bodies[6] = {0};
		const char *const types[6] = {"application/x-npy", "application/x-npy", "application/json", "image/png", "", ""};
		const size_t counts[6] = {2, 1, 2, 1, 2, 1};
		uint8_t two[2][VALUES];
		memcpy(two[0], mixed, VALUES);
		memcpy(two[1], mixed, VALUES);
		npy_add(&bodies[0], "|u1", "False", "(2, 32, 32, 3)", two, sizeof two);
		npy_add(&bodies[1], "|u1", "False", "(3, 32, 32)", planes, VALUES);
		struct text list = {0};
		lists_add(&list, false, false, NULL);
		bodies[2] = json("[#,#]", list.data);
		bodies[3] = file("rgb.png");
		for (int n = 0; n < 2; n++)
			assert_int_equal(text_add_bytes(&bodies[4], planes, VALUES), ST_OK);
		assert_int_equal(text_add_bytes(&bodies[5], "\1\2", 2), ST_OK);
		assert_int_equal(text_add_bytes(&bodies[5], planes, VALUES), ST_OK);
		for (size_t b = 0; b < 6; b++) {
			struct decoded decoded = {0};
			if (decode_copy(&rules, types[b], bodies[b].data, bodies[b].length, &decoded) != HTTP_OK)
				fail_msg("size %d, body %zu: %s", side, b, status_message());
			assert_int_equal(decoded.count, counts[b]);
			int area = side * side;
			for (size_t i = 0; i < counts[b] * 3 * (size_t)area; i++) {
				int k = (int)(i % (3 * (size_t)area)), c = k / area;
				assert_true(decoded.images[i] == ((float)resized[k] / 255.0f - rules.normalization.mean[c]) / rules.normalization.std[c]);
			}
			decoded_free(&decoded);
			text_free(&bodies[b]);
		}
		text_free(&list);
		struct text body = {0};
		npy_add(&body, "<f4", "False", "(3, 32, 32)", floats, sizeof floats);
		expect_refusal(&rules, HTTP_BAD_REQUEST, "application/x-npy", &body, "floats of 32 x 32 pixels, expected");
		text_free(&body);
	}
}

static void floats_mean_what_the_rules_say(void **state)
{
	(void)state;
	static const enum value_range ranges[] = {RANGE_AUTO, RANGE_NORMALIZED, RANGE_UNIT, RANGE_PIXELS};
	for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
		struct decode_rules rules = usual;
		rules.floats = ranges[r];
		float expected[VALUES];
		for (int i = 0; i < VALUES; i++) {
			float unit = ranges[r] == RANGE_PIXELS ? floats[i] / 255.0f : floats[i];
			expected[i] = r < 2 ? floats[i] : (unit - usual.normalization.mean[i / AREA]) / usual.normalization.std[i / AREA];
		}
		struct text body = {0};
		npy_add(&body, "<f4", "False", "(3, 32, 32)", floats, sizeof floats);
		expect_rules(&rules, "npy", "application/x-npy", &body, 1, expected);
		lists_add(&body, true, false, floats);
		expect_rules(&rules, "JSON", "application/json", &body, 1, expected);
		csv_add(&body, ",", floats);
		expect_rules(&rules, "CSV", "text/csv", &body, 1, expected);
		/* Integers and pictures are pixels all the same. */
		npy_add(&body, "|u1", "False", "(3, 32, 32)", planes, VALUES);
		expect_rules(&rules, "u1", "application/x-npy", &body, 1, pixels_normal);
		csv_add(&body, ",", NULL);
		expect_rules(&rules, "CSV of integers", "text/csv", &body, 1, pixels_normal);
		body = file("rgb.png");
		expect_rules(&rules, "PNG", "", &body, 1, pixels_normal);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pictures_are_the_image),
		cmocka_unit_test(inks_unnamed),
		cmocka_unit_test(exif_does_not_turn),
		cmocka_unit_test(bad_pictures_are_refused),
		cmocka_unit_test(pictures_of_too_many_pixels_are_refused),
		cmocka_unit_test(raw_bytes_are_found_by_length),
		cmocka_unit_test(other_sizes_are_scaled),
		cmocka_unit_test(floats_mean_what_the_rules_say),
	};
	return cmocka_run_group_tests(tests, image_make, NULL);
}
