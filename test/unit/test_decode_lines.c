/* Goal: a body of lines becomes an image a line, in order; a bad line is named, or in a batch takes its place as a fault.
 * Method: CSV and JSON Lines with every kind of line end, tables of bad lines, ten thousand lines. */
#include "test/unit/decode_bed.h"

static void lines_are_images(void **state)
{
	(void)state;
	struct text lines[3] = {0}, list = {0};
	csv_add(&lines[0], ",", NULL);
	csv_add(&lines[1], " , ", NULL);
	csv_add(&lines[2], ",+", NULL);
	lists_add(&list, false, false, NULL);
	static const struct {
		const char *form;
		size_t count;
	} forms[] = {{"#", 1}, {"#\n", 1}, {"#\r\n", 1}, {"#\n#\n#", 3}, {"#\r\n#\r\n", 2}, {"#\n#\n\n", 2}, {"#\n#\n \r\n\n", 2}, {"\xEF\xBB\xBF#", 1}, {" # \n", 1}};
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		for (size_t v = 0; v < 3; v++) {
			struct text body = json(forms[i].form, lines[v].data);
			expect(forms[i].form, "text/csv", &body, forms[i].count, pixels_normal);
		}
		struct text body = json(forms[i].form, list.data);
		expect(forms[i].form, "application/jsonlines", &body, forms[i].count, pixels_normal);
	}
	struct text body = json("{\"features\": #}\n{\"instances\": [#]}\n[#]", list.data);
	expect("objects a line", "application/x-ndjson", &body, 3, pixels_normal);
	text_clear(&lines[0]);
	csv_add(&lines[0], ",", floats);
	body = json("#\n#", lines[0].data);
	expect("CSV of floats", "text/csv", &body, 2, floats);
	/* Pixels or floats is decided line by line: batch transform cuts a file anywhere. */
	struct decoded decoded = {0};
	assert_int_equal(text_printf(&body, "%s\n%s\n", lines[1].data, lines[0].data), ST_OK);
	assert_int_equal(decode_copy(&usual, "text/csv", body.data, body.length, &decoded), HTTP_OK);
	assert_true(decoded.lines);
	assert_memory_equal(decoded.images, pixels_normal, sizeof pixels_normal);
	assert_memory_equal(decoded.images + VALUES, floats, sizeof floats);
	decoded_free(&decoded);
	text_free(&body);
	for (size_t v = 0; v < 3; v++)
		text_free(&lines[v]);
	text_free(&list);
}

static void bad_lines_are_refused(void **state)
{
	(void)state;
	struct text line = {0};
	csv_add(&line, ",", NULL);
	static const struct {
		const char *form, *sentence;
	} csv[] = {
		{"#\n#,5\n", "line 2: 3073 columns, expected 3072"}, {"#\n\n#", "line 2: is empty"}, {"\n#", "line 1: is empty"},
		{"a,b\n#", "line 1: column 1 is \"a\", expected a number (there is no header line)"}, {"#,", "line 1: column 3073 is empty, expected a number"},
		{"1,,2", "line 1: column 2 is empty"}, {"1,2 3", "column 2 is \"2 3\", expected a number"}, {"1;2", "column 1 is \"1;2\""}, {"1,nan", "column 2 is \"nan\""},
		{"1, inf ,", "column 2 is \"inf\""}, {"1e400", "column 1 is \"1e400\", expected a number within the range of a float"}, {"\"1\",2", "column 1 is"},
		{"1,2,3", "line 1: 3 columns, expected 3072"}, {"#\n1,2,3", "line 2: 3 columns"},
	};
	for (size_t i = 0; i < sizeof csv / sizeof *csv; i++) {
		struct text body = json(csv[i].form, line.data);
		expect_refusal(&usual, HTTP_BAD_REQUEST, "text/csv", &body, csv[i].sentence);
		text_free(&body);
	}
	/* 3071 columns: a line without its first. */
	struct text body = {0};
	assert_int_equal(text_printf(&body, "%s\n%s", line.data, strchr(line.data, ',') + 1), ST_OK);
	expect_refusal(&usual, HTTP_BAD_REQUEST, "text/csv", &body, "line 2: 3071 columns, expected 3072");
	text_free(&body);
	text_clear(&line);
	lists_add(&line, false, true, NULL);
	static const struct {
		const char *form, *sentence;
	} jsonl[] = {
		{"#\n{\"x\": [1, 2}\n#", "line 2: byte 12: expected a comma or ], found }"}, {"#\n\n#", "line 2: is empty"}, {"#\n[#, #]\n", "line 2: 2 images, expected one a line"},
		{"#\nnull", "line 2: byte 1: expected a list"}, {"# #", "line 1: byte "},
	};
	for (size_t i = 0; i < sizeof jsonl / sizeof *jsonl; i++) {
		body = json(jsonl[i].form, line.data);
		expect_refusal(&usual, HTTP_BAD_REQUEST, "application/jsonlines", &body, jsonl[i].sentence);
		text_free(&body);
	}
	text_free(&line);
}

static void bad_lines_of_a_batch_become_placeholders(void **state)
{
	(void)state;
	struct decode_rules rules = usual;
	rules.keep_going = true;
	struct text csv = {0}, list = {0}, body = {0};
	csv_add(&csv, ",", NULL);
	lists_add(&list, false, true, NULL);
	static const struct {
		const char *type, *faults[5];
	} cases[] = {{"text/csv", {NULL, "line 2: column 1 is \"x\"", NULL, "line 4: is empty", NULL}},
		{"application/jsonlines", {NULL, "line 2: byte 1: expected a list", NULL, "line 4: is empty", NULL}}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct decoded decoded = {0};
		body = json("#\nx\n#\n\n#\n", i == 0 ? csv.data : list.data);
		assert_int_equal(decode_copy(&rules, cases[i].type, body.data, body.length, &decoded), HTTP_OK);
		assert_int_equal(decoded.count, 5);
		assert_true(decoded.lines);
		assert_non_null(decoded.faults);
		static const float zeros[VALUES];
		for (int n = 0; n < 5; n++) {
			const char *fault = cases[i].faults[n];
			assert_memory_equal(decoded.images + n * VALUES, fault != NULL ? zeros : pixels_normal, sizeof zeros);
			if ((decoded.faults[n] != NULL) != (fault != NULL) || (fault != NULL && strstr(decoded.faults[n], fault) == NULL))
				fail_msg("line %d: \"%s\", expected \"%s\"", n + 1, decoded.faults[n], fault);
		}
		decoded_free(&decoded);
		text_free(&body);
	}
	/* A line that is cut in the middle of its second image leaves nothing of the first. */
	struct decoded decoded = {0};
	body = json("[#, [1, 2]]\n{\"instances\": [#, #]}\n#", list.data);
	assert_int_equal(decode_copy(&rules, "application/jsonlines", body.data, body.length, &decoded), HTTP_OK);
	assert_int_equal(decoded.count, 3);
	assert_non_null(decoded.faults[0]);
	assert_non_null(strstr(decoded.faults[1], "line 2: 2 images"));
	assert_null(decoded.faults[2]);
	assert_memory_equal(decoded.images + 2 * VALUES, pixels_normal, sizeof pixels_normal);
	decoded_free(&decoded);
	text_free(&body);
	/* Other kinds are all or nothing; a body without a line is no fault. */
	body = string("[1]");
	expect_refusal(&rules, HTTP_BAD_REQUEST, "application/json", &body, "numbers of shape");
	text_free(&body);
	body = string("\n\n");
	expect_refusal(&rules, HTTP_NO_CONTENT, "text/csv", &body, "");
	expect_refusal(&usual, HTTP_BAD_REQUEST, "text/csv", &body, "the body is empty");
	text_free(&body);
	expect_refusal(&rules, HTTP_NO_CONTENT, "text/csv", &body, "");
	/* Placeholders count as images. */
	rules.images_max = 3;
	body = string("x\nx\nx\nx\n");
	expect_refusal(&rules, HTTP_TOO_LARGE, "text/csv", &body, "at least 4 images in one body, at most 3");
	text_free(&body);
	text_free(&csv);
	text_free(&list);
}

static void ten_thousand_lines_come_in_order(void **state)
{
	(void)state;
	enum { LINES = 10000, SMALL = 4 };
	struct decode_rules rules = {.image_size = SMALL, .normalization = {{0, 0, 0}, {1, 1, 1}}, .images_max = LINES, .floats = RANGE_AUTO};
	struct text body = {0};
	for (int i = 0; i < LINES; i++) {
		for (int k = 0; k < 3 * SMALL * SMALL - 1; k++)
			assert_int_equal(text_add(&body, "0.5,"), ST_OK);
		assert_int_equal(text_printf(&body, "%d\n", i), ST_OK);
	}
	struct decoded decoded = {0};
	assert_int_equal(decode_copy(&rules, "text/csv", body.data, body.length, &decoded), HTTP_OK);
	assert_int_equal(decoded.count, LINES);
	for (int i = 0; i < LINES; i++)
		assert_true(decoded.images[(i + 1) * 3 * SMALL * SMALL - 1] == (float)i);
	decoded_free(&decoded);
	rules.images_max = LINES - 1;
	expect_refusal(&rules, HTTP_TOO_LARGE, "text/csv", &body, "at least 10000 images in one body, at most 9999");
	text_free(&body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_are_images),
		cmocka_unit_test(bad_lines_are_refused),
		cmocka_unit_test(bad_lines_of_a_batch_become_placeholders),
		cmocka_unit_test(ten_thousand_lines_come_in_order),
	};
	return cmocka_run_group_tests(tests, image_make, NULL);
}
