/* Goal: the small parsers around a request: routes and their methods, percent-encoding, queries, custom attributes, gzip with its limit, error
 * bodies, PNG and base64 of the page's crop. Method: known texts and their results; damaged ones are refused. */
#include "core/base/json.h"
#include "core/format/base64.h"
#include "core/format/image.h"
#include "serve/attributes.h"
#include "serve/inflate.h"
#include "serve/png.h"
#include "serve/route.h"

#include "test/unit/scratch.h"

static struct server server;

static enum http_code find(const char *path, enum method method, struct request *request)
{
	static char kept[4096];
	snprintf(kept, sizeof kept, "%s", path);
	*request = (struct request){.server = &server, .path = kept, .query = kept + strlen(kept), .method = method};
	return route_find(request);
}

static void routes_by_path(void **state)
{
	(void)state;
	static const struct {
		const char *path;
		enum http_code code;
	} cases[] = {
		{"/ping", HTTP_OK}, {"/p%69ng", HTTP_OK}, {"/%70%69%6E%67", HTTP_OK}, {"http://host:8080/ping", HTTP_OK}, {"HTTP://h/ping", HTTP_OK},
		{"/ping/", HTTP_NOT_FOUND}, {"//ping", HTTP_NOT_FOUND}, {"/PING", HTTP_NOT_FOUND}, {"ping", HTTP_NOT_FOUND}, {"", HTTP_NOT_FOUND}, {"*", HTTP_NOT_FOUND},
		{"/pin%67%00", HTTP_NOT_FOUND}, {"/pin%6", HTTP_NOT_FOUND}, {"/pin%zz", HTTP_NOT_FOUND}, {"/", HTTP_NOT_FOUND}, {"http://host", HTTP_NOT_FOUND},
		{"/models", HTTP_NOT_FOUND}, {"/execution-parameters", HTTP_NOT_FOUND}, {"/../ping", HTTP_NOT_FOUND},
	};
	struct request request;
	memset(&server, 0, sizeof server);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		if (find(cases[i].path, METHOD_GET, &request) != cases[i].code)
			fail_msg("%s", cases[i].path);
}

static void routes_by_mode(void **state)
{
	(void)state;
	struct request request;
	memset(&server, 0, sizeof server);
	assert_int_equal(find("/invocations", METHOD_POST, &request), HTTP_OK);
	assert_true(request.route->invocation);
	server.page = true;
	assert_int_equal(find("/", METHOD_GET, &request), HTTP_OK);
	server.options.batch_transform = true;
	assert_int_equal(find("/execution-parameters", METHOD_GET, &request), HTTP_OK);
	server.options.multi_model = true;
	assert_int_equal(find("/invocations", METHOD_POST, &request), HTTP_NOT_FOUND);
	assert_int_equal(find("/", METHOD_GET, &request), HTTP_NOT_FOUND);
	assert_int_equal(find("/models/a%2Fb%20c/invoke", METHOD_POST, &request), HTTP_OK);
	assert_string_equal(request.name, "a/b c");
	assert_int_equal(find("/models/x", METHOD_DELETE, &request), HTTP_OK);
	assert_string_equal(request.name, "x");
	assert_int_equal(find("/models//invoke", METHOD_POST, &request), HTTP_NOT_FOUND);
	assert_int_equal(find("/models/a/b", METHOD_GET, &request), HTTP_NOT_FOUND);
}

static void wrong_methods_are_told_the_right_ones(void **state)
{
	(void)state;
	struct request request;
	memset(&server, 0, sizeof server);
	assert_int_equal(find("/invocations", METHOD_GET, &request), HTTP_METHOD_NOT_ALLOWED);
	assert_string_equal(request.reply.allow, "POST");
	assert_int_equal(find("/ping", METHOD_DELETE, &request), HTTP_METHOD_NOT_ALLOWED);
	assert_string_equal(request.reply.allow, "GET, HEAD, POST");
	server.options.multi_model = true;
	assert_int_equal(find("/models/x", METHOD_OTHER, &request), HTTP_METHOD_NOT_ALLOWED);
	assert_string_equal(request.reply.allow, "GET, HEAD, DELETE");
}

static void queries(void **state)
{
	(void)state;
	char value[16];
	struct request request = {.query = (char[]){"a=1&top_k=5&empty=&x=%41%20b&long=0123456789012345&bad=%g1&flag"}};
	assert_true(request_query(&request, "top_k", value, sizeof value));
	assert_string_equal(value, "5");
	assert_true(request_query(&request, "empty", value, sizeof value));
	assert_string_equal(value, "");
	assert_true(request_query(&request, "x", value, sizeof value));
	assert_string_equal(value, "A b");
	assert_false(request_query(&request, "long", value, sizeof value)); /* one too many with its end */
	assert_false(request_query(&request, "bad", value, sizeof value));
	assert_false(request_query(&request, "flag", value, sizeof value));
	assert_false(request_query(&request, "op_k", value, sizeof value));
}

static void attributes(void **state)
{
	(void)state;
	struct decode_rules decode = {0};
	struct encode_rules encode = {0};
	assert_int_equal(attributes_read(NULL, &decode, &encode), HTTP_OK);
	assert_int_equal(attributes_read("output=logits", &decode, &encode), HTTP_OK);
	assert_int_equal(encode.output, OUTPUT_LOGITS);
	assert_int_equal(attributes_read(" trace=7; ;, output=log_probabilities , top_k=12;floats=unit ,only", &decode, &encode), HTTP_OK);
	assert_int_equal(encode.output, OUTPUT_LOG_PROBABILITIES);
	assert_int_equal(encode.top_k, 12);
	assert_int_equal(decode.floats, RANGE_UNIT);
	static const char *const wrong[] = {"output=odds", "top_k=0", "top_k=x", "top_k=", "top_k=5x", "floats=0", "a=b,output="};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		if (attributes_read(wrong[i], &decode, &encode) != HTTP_BAD_REQUEST)
			fail_msg("%s", wrong[i]);
	/* Other people's are none of our business, however long. */
	char long_one[2048];
	memset(long_one, 'x', sizeof long_one);
	memcpy(long_one, "output", 6);
	long_one[100] = '=';
	long_one[sizeof long_one - 1] = '\0';
	assert_int_equal(attributes_read(long_one, &decode, &encode), HTTP_OK);
	assert_int_equal(encode.output, OUTPUT_LOG_PROBABILITIES);
	assert_false(attributes_clean(long_one));
	long_one[1024] = '\0';
	assert_true(attributes_clean(long_one));
	assert_true(attributes_clean(""));
	assert_false(attributes_clean("a\tb"));
	assert_false(attributes_clean("a\r\nSet-Cookie: x"));
	assert_false(attributes_clean("caf\xC3\xA9"));
}

static void gzip(void **state)
{
	(void)state;
	struct text plain = {0}, packed = {0};
	uint8_t *bytes = NULL;
	size_t count = 0;
	for (int i = 0; i < 30000; i++)
		OK(text_printf(&plain, "%d,", i * i));
	add_gzip(&packed, &plain);
	assert_int_equal(inflate_gzip((uint8_t *)packed.data, packed.length, plain.length, &bytes, &count), HTTP_OK); /* exactly the limit */
	assert_int_equal(count, plain.length);
	assert_memory_equal(bytes, plain.data, count);
	free(bytes);
	bytes = NULL;
	assert_int_equal(inflate_gzip((uint8_t *)packed.data, packed.length, plain.length - 1, &bytes, &count), HTTP_TOO_LARGE);
	for (size_t cut = 0; cut < packed.length; cut += 1 + packed.length / 40) {
		assert_int_equal(inflate_gzip((uint8_t *)packed.data, cut, SIZE_MAX, &bytes, &count), HTTP_BAD_REQUEST);
		assert_null(bytes);
	}
	/* Two members are one body; what follows them is damage. */
	add_gzip(&packed, &plain);
	assert_int_equal(inflate_gzip((uint8_t *)packed.data, packed.length, SIZE_MAX, &bytes, &count), HTTP_OK);
	assert_int_equal(count, 2 * plain.length);
	free(bytes);
	bytes = NULL;
	add_bytes(&packed, "rest", 4);
	assert_int_equal(inflate_gzip((uint8_t *)packed.data, packed.length, SIZE_MAX, &bytes, &count), HTTP_BAD_REQUEST);
	packed.data[packed.length / 3] ^= 0x55;
	assert_int_equal(inflate_gzip((uint8_t *)packed.data, packed.length, SIZE_MAX, &bytes, &count), HTTP_BAD_REQUEST);
	assert_null(bytes);
	text_free(&packed);
	text_free(&plain);
}

static void error_bodies(void **state)
{
	(void)state;
	struct text text = {0};
	struct json *json = NULL;
	char message[5000];
	for (size_t i = 0; i + 1 < sizeof message; i++)
		message[i] = i % 2 == 0 ? '"' : '\x01'; /* both grow when they are escaped */
	message[sizeof message - 1] = '\0';
	assert_int_equal(error_text(HTTP_BAD_REQUEST, message, &text), ST_OK);
	assert_true(text.length <= 2048);
	OK(json_parse("error", text.data, text.length, &json));
	assert_string_equal(json_string(json_member(json_member(json, "error"), "code")), "bad_request");
	json_free(json);
	text_clear(&text);
	assert_int_equal(error_text(HTTP_UNAVAILABLE, "the queue is full", &text), ST_OK);
	assert_string_equal(text_string(&text), "{\"error\": {\"code\": \"unavailable\", \"message\": \"the queue is full\"}}");
	text_free(&text);
}

static void png_is_read_back(void **state)
{
	(void)state;
	enum { SIZE = 32 };
	static uint8_t pixels[SIZE * SIZE * 3], planes[3 * SIZE * SIZE];
	struct text png = {0};
	for (size_t i = 0; i < sizeof pixels; i++)
		pixels[i] = (uint8_t)(i * 37 + i / 5);
	OK(png_write(pixels, SIZE, SIZE, &png));
	OK(image_decode((uint8_t *)png.data, png.length, "crop", SIZE, planes));
	for (size_t i = 0; i < SIZE * SIZE; i++)
		for (size_t c = 0; c < 3; c++)
			assert_int_equal(planes[c * SIZE * SIZE + i], pixels[3 * i + c]);
	text_free(&png);
}

static void base64_comes_back(void **state)
{
	(void)state;
	static const struct {
		const char *plain, *text;
	} cases[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}, {"\xFB\xFF\xFE", "+//+"}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) { /* RFC 4648 §10 */
		struct text text = {0};
		OK(base64_encode(cases[i].plain, strlen(cases[i].plain), &text));
		assert_string_equal(text_string(&text), cases[i].text);
		text_free(&text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(routes_by_path),
		cmocka_unit_test(routes_by_mode),
		cmocka_unit_test(wrong_methods_are_told_the_right_ones),
		cmocka_unit_test(queries),
		cmocka_unit_test(attributes),
		cmocka_unit_test(gzip),
		cmocka_unit_test(error_bodies),
		cmocka_unit_test(png_is_read_back),
		cmocka_unit_test(base64_comes_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
