/* Goal: one image as numbers in any array or JSON body that a client sends becomes the same floats to the bit; what is none is refused
 * with what was found and expected.
 * Method: the image in every form, written here or by numpy (test/golden/bodies), against floats computed here; tables of refusals; every
 * truncation of each kind. Lines: test_decode_lines.c, pictures and bytes: test_decode_pictures.c. */
#include "test/unit/decode_bed.h"

/* --- numpy ----------------------------------------------------------------------------------------------------------- */

static void npy_of_every_kind_is_the_image(void **state)
{
	(void)state;
	struct text body = {0};
	npy_add(&body, "|u1", "False", "(3, 32, 32)", planes, VALUES);
	expect("u1 CHW", "application/x-npy", &body, 1, pixels_normal);
	npy_add(&body, "|u1", "False", "(32, 32, 3)", mixed, VALUES);
	expect("u1 HWC", "tensor/pt", &body, 1, pixels_normal);
	npy_add(&body, "|u1", "False", "(1, 32, 32, 3)", mixed, VALUES);
	expect("u1 NHWC", "application/x-npy", &body, 1, pixels_normal);
	npy_add(&body, "|u1", "False", "(3072,)", planes, VALUES);
	expect("u1 flat", "application/x-npy", &body, 1, pixels_normal);
	npy_add(&body, "|u1", "False", "(1, 3072)", planes, VALUES);
	expect("u1 rows", "application/x-npy", &body, 1, pixels_normal);
	uint8_t turned[VALUES];
	for (int i = 0; i < VALUES; i++) /* element (c, y, x) lies at c + 3y + 96x */
		turned[i / AREA + 3 * (i % AREA / SIDE) + 3 * SIDE * (i % SIDE)] = planes[i];
	npy_add(&body, "|u1", "True", "(3, 32, 32)", turned, VALUES);
	expect("u1 Fortran", "application/x-npy", &body, 1, pixels_normal);
	static int64_t wide[VALUES];
	static uint8_t big[2 * VALUES];
	static double doubles[VALUES];
	for (int i = 0; i < VALUES; i++) {
		wide[i] = planes[i];
		big[2 * i + 1] = planes[i];
		doubles[i] = (double)floats[i];
	}
	npy_add(&body, "<i8", "False", "(3, 32, 32)", wide, sizeof wide);
	expect("i8", "application/x-npy", &body, 1, pixels_normal);
	npy_add(&body, ">u2", "False", "(3, 32, 32)", big, sizeof big);
	expect("big-endian u2", "application/x-npy", &body, 1, pixels_normal);
	npy_add(&body, "<f4", "False", "(3, 32, 32)", floats, sizeof floats);
	expect("f4", "application/x-npy", &body, 1, floats);
	npy_add(&body, "<f8", "False", "(1, 3, 32, 32)", doubles, sizeof doubles);
	expect("f8", "application/x-npy", &body, 1, floats);
	static float last[VALUES];
	for (int i = 0; i < VALUES; i++)
		last[i % AREA * 3 + i / AREA] = floats[i];
	npy_add(&body, "<f4", "False", "(32, 32, 3)", last, sizeof last);
	expect("f4 HWC", "application/x-npy", &body, 1, floats);
	static uint8_t many[5][VALUES];
	for (int n = 0; n < 5; n++)
		memcpy(many[n], mixed, VALUES);
	npy_add(&body, "|u1", "False", "(5, 32, 32, 3)", many, sizeof many);
	expect("five", "application/x-npy", &body, 5, pixels_normal);
	for (const char *const *name = (const char *const[]){"one.npz", "named.npz", NULL}; *name != NULL; name++) {
		body = file(*name);
		expect(*name, "application/x-npz", &body, 1, pixels_normal);
		body = file(*name);
		expect(*name, NULL, &body, 1, pixels_normal);
	}
}

static void bad_arrays_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *descr, *shape, *sentence;
		size_t bytes;
	} cases[] = {
		{"|u1", "(3071,)", "numbers of shape [3071]; expected [3072], [3, 32, 32] or [32, 32, 3]", 3071},
		{"|u1", "(2, 3071)", "numbers of shape [2, 3071]", 6142},
		{"|u1", "(32, 32)", "numbers of shape [32, 32]", 1024},
		{"|u1", "(32, 3, 32)", "numbers of shape [32, 3, 32]", VALUES},
		{"|u1", "(1, 1, 3, 32, 32)", "numbers of shape [1, 1, 3, 32, 32]", VALUES},
		{"|u1", "()", "numbers of shape []", 1},
		{"|u1", "(3, 0, 32)", "numbers of shape [3, 0, 32]", 0},
		{"|u1", "(3, 1, 16385)", "numbers of shape [3, 1, 16385]", 3 * 16385},
		{"|u1", "(0, 3072)", "an array of no images", 0},
		{"|i1", "(3072,)", "image 1: -1 is no pixel; whole numbers are pixels, 0 to 255", VALUES},
		{"<i2", "(1, 3072)", "is no pixel", 2 * VALUES},
		{"<f4", "(3072,)", "image 1: value 1 is NaN; expected a finite number", 4 * VALUES},
		{"<f4", "(3, 33, 32)", "image 1: floats of 32 x 33 pixels, expected 32 x 32", 4 * 3 * 33 * 32},
		{"|O", "(3072,)", "pickled objects can hold code", VALUES},
		{"|u1", "(3072,)", "needs 3072 bytes, 3071 follow the header", VALUES - 1},
		{"|u1", "(101, 3, 1, 1)", NULL, 303},
	};
	uint8_t *ones = malloc(17 * VALUES); /* 0xff…: -1 as an integer, NaN as a float */
	assert_non_null(ones);
	memset(ones, 0xff, 17 * VALUES);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct text body = {0};
		npy_add(&body, cases[i].descr, "False", cases[i].shape, ones, cases[i].bytes);
		expect_refusal(&usual, cases[i].sentence != NULL ? HTTP_BAD_REQUEST : HTTP_TOO_LARGE, "application/x-npy", &body,
			cases[i].sentence != NULL ? cases[i].sentence : "at least 101 images in one body, at most 100 are taken");
		text_free(&body);
	}
	double huge[VALUES] = {0};
	huge[5] = 1e300;
	struct text body = {0};
	npy_add(&body, "<f8", "False", "(3072,)", huge, sizeof huge);
	expect_refusal(&usual, HTTP_BAD_REQUEST, "application/x-npy", &body, "value 6 is infinite or too large");
	text_free(&body);
	free(ones);
	static const struct {
		const char *name, *sentence;
	} archives[] = {{"two.npz", "npz: 2 arrays; send one"}, {"sparse.npz", "npz: a sparse matrix"}, {"rgb.png", "not a usable zip file"}};
	for (size_t i = 0; i < sizeof archives / sizeof *archives; i++) {
		body = file(archives[i].name);
		expect_refusal(&usual, HTTP_BAD_REQUEST, "application/x-npz", &body, archives[i].sentence);
		text_free(&body);
	}
	body = file("rgb.png");
	expect_refusal(&usual, HTTP_BAD_REQUEST, "application/x-npy", &body, "no npy file");
	text_free(&body);
}

/* --- JSON ------------------------------------------------------------------------------------------------------------ */

static void json_of_every_form_is_the_image(void **state)
{
	(void)state;
	struct text values[3] = {0}, picture = file("rgb.png"), encoded = {0};
	lists_add(&values[0], false, true, NULL);
	lists_add(&values[1], false, false, NULL);
	lists_add(&values[2], true, false, NULL);
	static const struct {
		const char *form;
		size_t count;
	} forms[] = {
		{"#", 1}, {" [ # ] \n", 1}, {"[#, #]", 2}, {"{\"instances\": [#, #, #]}", 3}, {"{\"inputs\": #}", 1}, {"{\"data\":[#]}", 1},
		{"\xEF\xBB\xBF{\"instances\": [{\"data\": #}, {\"image\": #}]}", 2},
		{"{\"signature_name\": \"serving\", \"parameters\": {\"a\": [1, null, {\"b\": \"\\ud83d\\ude00 \xc3\xa4\"}]}, \"instances\": [#], \"z\": true}", 1},
		{"{\"anything\": #, \"scale\": 3, \"names\": [\"a\"], \"more\": {\"x\": [1]}}", 1}, /* a dict of arrays, as JSONSerializer makes it */
		{"{\"instances\": [{\"features\": #}, {\"my_input\": [#]}]}", 2}, {"{\"instances\": [{\"data\": {\"features\": {\"values\": #}}}]}", 1},
	};
	for (size_t v = 0; v < 3; v++)
		for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
			struct text body = json(forms[i].form, values[v].data);
			expect(forms[i].form, "application/json", &body, forms[i].count, pixels_normal);
		}
	static const struct {
		const char *form;
		size_t count;
	} texts[] = {
		{"\"#\"", 1}, {"[\"#\", \"#\"]", 2}, {"{\"image\": \"#\"}", 1}, {"{\"instances\": [{\"b64\": \"#\"}, {\"b64\": \"#\"}]}", 2},
		{"{\"instances\": [{\"image\": {\"b64\": \"#\"}}]}", 1}, {"{\"inputs\": \"data:image/png;base64,#\"}", 1},
		{"{\"data\": \"data:image\\/png;base64,\\u0020\\n#\"}", 1},
	};
	base64_add(&encoded, (const uint8_t *)picture.data, picture.length);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct text body = json(texts[i].form, encoded.data);
		expect(texts[i].form, "application/json", &body, texts[i].count, pixels_normal);
	}
	text_clear(&encoded);
	base64_add(&encoded, planes, VALUES);
	struct text body = json("{\"b64\": \"#\"}", encoded.data);
	expect("raw planes in base64", "application/json", &body, 1, pixels_normal);
	/* PHP escapes every slash, .NET every plus. */
	text_clear(&encoded);
	base64_add(&encoded, (const uint8_t *)picture.data, picture.length);
	assert_int_equal(text_add(&body, "{\"b64\": \""), ST_OK);
	for (const char *s = encoded.data; *s != '\0'; s++)
		assert_int_equal(*s == '/' ? text_add(&body, "\\/") : *s == '+' ? text_add(&body, "\\u002B") : text_add_bytes(&body, s, 1), ST_OK);
	assert_int_equal(text_add(&body, "\"}"), ST_OK);
	expect("escaped base64", "application/json", &body, 1, pixels_normal);
	for (size_t v = 0; v < 3; v++) {
		text_clear(&values[v]);
		lists_add(&values[v], v == 2, v == 0, floats);
		body = json("{\"instances\": [#, #]}", values[v].data);
		expect("floats", "application/json", &body, 2, floats);
		text_free(&values[v]);
	}
	text_free(&encoded);
	text_free(&picture);
}

static void bad_json_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *sentence;
	} cases[] = {
		{"", "the body is empty"},
		{" ", "byte 2: expected a list, an object or base64 text, but the text ends"},
		{"[1, NaN]", "byte 5: expected a number, found NaN"},
		{"[Infinity]", "byte 2: expected a number, found Infinity"},
		{"[-Infinity]", "byte 2: expected a number, found -Infinity"},
		{"[1e400]", "byte 2: expected a number within the range of a float, found 1e400"},
		{"[1e39]", "within the range of a float"},
		{"[01]", "byte 2: expected a number, found 01"},
		{"[.5]", "found .5"},
		{"[5.]", "found 5."},
		{"[+5]", "found +5"},
		{"[0x10]", "byte 3: expected a comma or ], found x10"},
		{"[1 2]", "byte 4: expected a comma or ], found 2"},
		{"[1,]", "byte 4: expected a number, found ]"},
		{"[,1]", "byte 2: expected a number, found ,"},
		{"[1", "byte 3: expected a comma or ], but the text ends"},
		{"[1,", "byte 4: expected a number, but the text ends"},
		{"[[1, 2], [3]]", "byte 12: a list of 1 values ends, the lists beside it have 2"},
		{"[[1, 2], 3]", "byte 10: expected a list, found 3"},
		{"[[1, 2], [[3, 4]]]", "byte 11: expected a number, found ["},
		{"[1, \"2\"]", "byte 5: expected a number, found a text"},
		{"[1, null]", "expected a number, found null"},
		{"[1, {}]", "expected a number, found {"},
		{"[[[[[[[[[1]]]]]]]]]", "nested deeper than 8 levels"},
		{"[]", "numbers of shape [0]"},
		{"[[], []]", "numbers of shape [2, 0]"},
		{"[1, 2, 3]", "image 1: numbers of shape [3]; expected [3072]"},
		{"5", "byte 1: expected a list, an object or base64 text, found 5"},
		{"null", "found null"},
		{"true", "found true"},
		{"{}", "an object without a member called instances, inputs"},
		{"{\"a\": 1}", "an object without a member"},
		{"{\"a\": [1], \"b\": [2]}", "an object with several lists of numbers; name one of them"},
		{"{\"inputs\": null}", "byte 12: expected a list, an object or base64 text, found null"},
		{"{\"instances\": []}", "numbers of shape [0]"},
		{"{\"inputs\": \"\"}", "0 bytes that are no JPEG"},
		{"{\"inputs\": \"!\"}", "byte 12: text: character 1 is not base64"},
		{"{\"inputs\": \"AAAA\"}", "byte 12: 3 bytes that are no JPEG"},
		{"\"\\ud800\"", "half of a surrogate pair"},
		{"\"\\udc00\\ud800\"", "half of a surrogate pair"},
		{"\"\\ud800\\u0041\"", "half of a surrogate pair"},
		{"\"\\ud800x\"", "half of a surrogate pair"},
		{"\"\\u12\"", "an escape that is none"},
		{"\"\\x\"", "an escape that is none"},
		{"\"\\", "an escape that is none"},
		{"\"abc", "byte 1: a text without an end"},
		{"\"a\nb\"", "byte 3: a control character in a text"},
		{"\"\xff\"", "a text that is not UTF-8"},
		{"{\"a\": \"\xed\xa0\x80\"}", "a text that is not UTF-8"},
		{"{\"a\": \"\\ud800\", \"inputs\": []}", "half of a surrogate pair"},
		{"{\"a\": tru}", "byte 7: expected a value, found tru"},
		{"{\"a\": 1e400}", "within the range of a float"},
		{"{\"a\": [1,]}", "expected a value, found ]"},
		{"{\"a\": {\"b\" 1}}", "expected a colon"},
		{"{\"a\": {1: 1}}", "byte 8: expected a text, found 1"},
		{"{\"a\": [1}", "expected a comma or ], found }"},
		{"{\"a\": 1,}", "expected a text, found }"},
		{"{\"a\" 1}", "expected a colon"},
		{"{a: 1}", "expected a text, found a"},
		{"{\"a\": 1 \"b\": 2}", "expected a comma or }"},
		{"{\"a\": 1", "but the text ends"},
		{"[\"AAAA\"", "3 bytes that are no JPEG"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct text body = string(cases[i].text);
		expect_refusal(&usual, HTTP_BAD_REQUEST, "application/json", &body, cases[i].sentence);
		text_free(&body);
	}
	static const char *const after[] = {"# x", "#]", "[# #]", "[#]]", "{\"inputs\": #}}", "{\"inputs\": #, \"data\": #}", "{\"a\": #} 1", "[#, {}]", "[{\"a\": #}, 5]"};
	struct text values = {0};
	lists_add(&values, false, true, NULL);
	for (size_t i = 0; i < sizeof after / sizeof *after; i++) {
		struct text body = json(after[i], values.data);
		expect_refusal(&usual, HTTP_BAD_REQUEST, "application/json", &body, "byte ");
		text_free(&body);
	}
	/* Whole numbers are pixels; one that is none is an error, not a reason to take them for floats. */
	struct text body = {0};
	for (int i = 0; i < VALUES; i++)
		assert_int_equal(text_printf(&body, "%s%d", i == 0 ? "[" : ",", i == 7 ? 256 : 3), ST_OK);
	assert_int_equal(text_add(&body, "]"), ST_OK);
	expect_refusal(&usual, HTTP_BAD_REQUEST, "application/json", &body, "image 1: 256 is no pixel");
	text_free(&body);
	text_free(&values);
}

static void depth_bombs_are_refused(void **state)
{
	(void)state;
	static const char *const pieces[] = {"[", "{\"inputs\":", "{\"z\":", "{\"inputs\":[", "{\"z\":[", "[{\"inputs\":"};
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		struct text body = {0};
		for (int depth = 0; depth < 200000; depth++)
			assert_int_equal(text_add(&body, pieces[i]), ST_OK);
		expect_refusal(&usual, HTTP_BAD_REQUEST, "application/json", &body, "nested deeper than");
		expect_refusal(&usual, HTTP_BAD_REQUEST, "application/jsonlines", &body, "line 1: byte ");
		text_free(&body);
	}
}

/* --- all kinds ------------------------------------------------------------------------------------------------------- */

static void every_truncation_is_refused(void **state)
{
	(void)state;
	struct text list = {0}, bodies[4] = {0};
	lists_add(&list, false, false, NULL);
	bodies[0] = json("{\"a\": [1, {\"b\": \"\\u00e4\"}], \"instances\": [#]}", list.data);
	npy_add(&bodies[1], "|u1", "False", "(3, 32, 32)", planes, VALUES);
	bodies[2] = file("named.npz");
	csv_add(&bodies[3], ",", NULL);
	static const char *const types[] = {"application/json", "application/x-npy", "application/x-npz", "text/csv"};
	for (size_t b = 0; b < 4; b++) {
		size_t whole = bodies[b].length;
		for (size_t cut = 0; cut < whole; cut += cut < 200 || whole - cut < 200 ? 1 : 97) {
			bodies[b].length = cut;
			if (b == 3 && whole - cut < 3)
				continue; /* the last number only gets shorter */
			expect_refusal(&usual, HTTP_BAD_REQUEST, types[b], &bodies[b], "");
		}
		text_free(&bodies[b]);
	}
	text_free(&list);
}

static void unknown_types_are_refused(void **state)
{
	(void)state;
	struct text body = string("x");
	expect_refusal(&usual, HTTP_UNSUPPORTED, "text/plain", &body, "supported are application/json");
	expect_refusal(&usual, HTTP_UNSUPPORTED, "application/json; charset=utf-16", &body, "utf-16");
	text_free(&body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(npy_of_every_kind_is_the_image),
		cmocka_unit_test(bad_arrays_are_refused),
		cmocka_unit_test(json_of_every_form_is_the_image),
		cmocka_unit_test(bad_json_is_refused),
		cmocka_unit_test(depth_bombs_are_refused),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(unknown_types_are_refused),
	};
	return cmocka_run_group_tests(tests, image_make, NULL);
}
