/* Goal: pictures become the planes that torchvision would make of them, and what is no picture is refused. Method: pictures drawn by
 * formula, encoded with the libraries' own writers; the scaled values come from torchvision's Resize and CenterCrop on the same
 * picture (Pillow 13, torchvision 0.29). */
#include "test/unit/scratch.h"

#include "core/format/image.h"

#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>

enum { WIDTH = 50, HEIGHT = 37 };

static uint8_t *draw(int width, int height)
{
	size_t area = (size_t)width * (size_t)height;
	uint8_t *planes = malloc(3 * area);
	assert_non_null(planes);
	for (int y = 0; y < height; y++)
		for (int x = 0; x < width; x++) {
			uint8_t *pixel = planes + (size_t)y * (size_t)width + (size_t)x;
			pixel[0] = (uint8_t)(x * 7 + y * 3);
			pixel[area] = (uint8_t)(x * x / 5 + y * 11);
			pixel[2 * area] = (x / 6 + y / 6) % 2 != 0 ? 230 : 20;
		}
	return planes;
}

static void take(void *context, void *bytes, int count)
{
	add_bytes(context, bytes, (size_t)count);
}

/* RGB RGB … of the planes. */
static uint8_t *mix(const uint8_t *planes, size_t area)
{
	uint8_t *mixed = malloc(3 * area);
	assert_non_null(mixed);
	for (size_t i = 0; i < 3 * area; i++)
		mixed[i] = planes[i % 3 * area + i / 3];
	return mixed;
}

static void expect_values(const int *expected, const uint8_t *planes, int size)
{
	for (int i = 0; i < 8; i++)
		for (int c = 0; c < 3; c++) {
			int y = i * (size / 8), x = size - 1 - y;
			assert_int_equal(planes[(c * size + y) * size + x], expected[3 * i + c]);
		}
}

static void test_as_torchvision_scales(void **state)
{
	(void)state;
	static const int smaller[] = {35, 92, 97, 15, 68, 113, 182, 53, 28, 232, 48, 20, 213, 53, 43, 193, 65, 122, 173, 88, 71, 154, 119, 20};
	static const int larger[] = {104, 44, 20, 97, 48, 20, 92, 55, 20, 86, 65, 230, 81, 74, 194, 76, 84, 20, 70, 95, 20, 64, 107, 190};
	uint8_t resized[3 * 32 * 32], *planes = draw(WIDTH, HEIGHT);
	OK(image_resize(planes, WIDTH, HEIGHT, 16, resized));
	expect_values(smaller, resized, 16);
	free(planes);
	planes = draw(20, 11);
	OK(image_resize(planes, 20, 11, 32, resized));
	expect_values(larger, resized, 32);
	free(planes);
}

static void test_png_there_and_back_is_exact(void **state)
{
	(void)state;
	uint8_t *planes = draw(32, 32), *bytes, read[3 * 32 * 32];
	size_t count;
	OK(image_png_write(planes, 32, 32, &bytes, &count));
	assert_true(image_sniff(bytes, 8));
	OK(image_decode(bytes, count, "p", 32, read));
	assert_memory_equal(read, planes, sizeof read);
	free(bytes);
	free(planes);
}

static void test_jpeg_and_bmp(void **state)
{
	(void)state;
	uint8_t *planes = draw(WIDTH, HEIGHT), *mixed = mix(planes, WIDTH * HEIGHT), expected[3 * 16 * 16], read[3 * 16 * 16];
	struct text jpeg = {0}, bmp = {0};
	OK(image_resize(planes, WIDTH, HEIGHT, 16, expected));
	assert_true(stbi_write_bmp_to_func(take, &bmp, WIDTH, HEIGHT, 3, mixed));
	OK(image_decode((uint8_t *)bmp.data, bmp.length, "p", 16, read));
	assert_memory_equal(read, expected, sizeof read);
	assert_true(stbi_write_jpg_to_func(take, &jpeg, WIDTH, HEIGHT, 3, mixed, 100));
	OK(image_decode((uint8_t *)jpeg.data, jpeg.length, "p", 16, read));
	long off = 0;
	for (size_t i = 0; i < sizeof read; i++)
		off += abs(read[i] - expected[i]);
	assert_in_range(off, 0, 2 * sizeof read); /* two levels a value, on average, for what JPEG loses at quality 100 */
	text_free(&jpeg);
	text_free(&bmp);
	free(mixed);
	free(planes);
}

static void test_grey_and_transparent(void **state)
{
	(void)state;
	uint8_t grey[8 * 8], clear[4 * 8 * 8], read[3 * 8 * 8];
	struct text png = {0};
	for (size_t i = 0; i < sizeof grey; i++) {
		grey[i] = (uint8_t)(3 * i);
		for (size_t c = 0; c < 4; c++)
			clear[4 * i + c] = (uint8_t)(i + 50 * c);
	}
	assert_true(stbi_write_png_to_func(take, &png, 8, 8, 1, grey, 8));
	OK(image_decode((uint8_t *)png.data, png.length, "p", 8, read));
	for (size_t c = 0; c < 3; c++)
		assert_memory_equal(read + 64 * c, grey, 64);
	png.length = 0;
	assert_true(stbi_write_png_to_func(take, &png, 8, 8, 4, clear, 32));
	OK(image_decode((uint8_t *)png.data, png.length, "p", 8, read));
	for (size_t i = 0; i < 64; i++)
		for (size_t c = 0; c < 3; c++)
			assert_int_equal(read[64 * c + i], clear[4 * i + c]);
	text_free(&png);
}

/* The crop is the centre: a picture whose middle square is white and whose sides are black comes out white. */
static void test_crop_is_central(void **state)
{
	(void)state;
	uint8_t planes[3 * 16 * 48], read[3 * 16 * 16];
	for (size_t i = 0; i < sizeof planes; i++)
		planes[i] = i % 48 >= 16 && i % 48 < 32 ? 255 : 0;
	OK(image_resize(planes, 48, 16, 16, read));
	for (size_t i = 0; i < sizeof read; i++)
		assert_int_equal(read[i], 255);
	/* Half a pixel goes to the even side: 3 too many start at 2, 5 too many at 2. */
	for (int width = 19; width <= 21; width += 2) {
		uint8_t *drawn = draw(width, 16);
		OK(image_resize(drawn, width, 16, 16, read));
		for (int y = 0; y < 3 * 16; y++)
			assert_memory_equal(read + y * 16, drawn + y * width + 2, 16);
		free(drawn);
	}
}

/* Sizes at which a library that we had before stopped the program; and a long strip. Grey stays grey at any scale. */
static void test_any_shape(void **state)
{
	(void)state;
	static const int shapes[][3] = {{268, 24, 16}, {24, 268, 16}, {1, 1, 8}, {1, 3000, 8}, {3000, 2, 32}, {31, 33, 32}, {7, 5, 224}};
	static uint8_t grey[3 * 3000 * 8], resized[3 * 224 * 224];
	memset(grey, 77, sizeof grey);
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		size_t count = 3 * (size_t)shapes[i][2] * (size_t)shapes[i][2];
		memset(resized, 0, sizeof resized);
		OK(image_resize(grey, shapes[i][0], shapes[i][1], shapes[i][2], resized));
		for (size_t at = 0; at < count; at++)
			assert_in_range(resized[at], 77, 77);
	}
}

/* A JPEG may have tables of 256 symbols; one with more would be written over the decoder's other tables. Such a segment is refused
 * wherever the decoder could come to it, and bytes that only look like one, inside a comment, are not. */
static void test_jpeg_tables(void **state)
{
	(void)state;
	uint8_t *planes = draw(WIDTH, HEIGHT), *mixed = mix(planes, WIDTH * HEIGHT), read[3 * 16 * 16];
	struct text jpeg = {0}, changed = {0};
	assert_true(stbi_write_jpg_to_func(take, &jpeg, WIDTH, HEIGHT, 3, mixed, 90));
	uint8_t table[4 + 17] = {0xff, 0xc4, 0, 19, 0x10};
	memset(table + 5, 17, 16); /* 272 symbols */
	uint8_t comment[4] = {0xff, 0xfe, 0, 2 + sizeof table};
	for (int form = 0; form < 4; form++) {
		/* Behind the first marker; inside a comment there; behind the first segment (18 bytes) and junk; before the last marker. */
		const size_t places[] = {2, 2, 20, jpeg.length - 2};
		size_t place = places[form];
		changed.length = 0;
		add_bytes(&changed, jpeg.data, place);
		if (form == 1)
			add_bytes(&changed, comment, sizeof comment);
		if (form == 2)
			add_bytes(&changed, "\0\0junk\xff", 7);
		add_bytes(&changed, table, sizeof table);
		add_bytes(&changed, jpeg.data + place, jpeg.length - place);
		if (form == 1)
			OK(image_decode((uint8_t *)changed.data, changed.length, "p", 16, read));
		else
			FAILS(ST_DATA, "a Huffman table with more than 256 symbols", image_decode((uint8_t *)changed.data, changed.length, "p", 16, read));
	}
	text_free(&jpeg);
	text_free(&changed);
	free(mixed);
	free(planes);
}

static void test_refusals(void **state)
{
	(void)state;
	uint8_t *planes = draw(WIDTH, HEIGHT), *png, read[3 * 16 * 16];
	size_t count;
	OK(image_png_write(planes, WIDTH, HEIGHT, &png, &count));
	FAILS(ST_DATA, "x.png: damaged picture", image_decode(png, count / 2, "x.png", 16, read));
	FAILS(ST_DATA, "damaged picture", image_decode(png, 9, "x.png", 16, read));
	FAILS(ST_DATA, "no PNG, JPEG or BMP", image_decode((const uint8_t *)"GIF89a, or so", 13, "x.gif", 16, read));
	FAILS(ST_DATA, "no PNG, JPEG or BMP", image_decode(png, 0, "empty", 16, read));
	png[16] = 0x7f; /* the width's first byte */
	FAILS(ST_DATA, "x.png: ", image_decode(png, count, "x.png", 16, read));
	png[16] = 0;
	png[18] = png[22] = 0x3f; /* 16178 wide, 16165 high: within each side's limit, too large in all */
	FAILS(ST_DATA, "16178 x 16165 pixels", image_decode(png, count, "x.png", 16, read));
	free(png);
	free(planes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_torchvision_scales),
		cmocka_unit_test(test_png_there_and_back_is_exact),
		cmocka_unit_test(test_jpeg_and_bmp),
		cmocka_unit_test(test_grey_and_transparent),
		cmocka_unit_test(test_crop_is_central),
		cmocka_unit_test(test_any_shape),
		cmocka_unit_test(test_jpeg_tables),
		cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
