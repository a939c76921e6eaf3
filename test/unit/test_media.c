/* Goal: a Content-Type means what RFC 9110 says and clients send; an Accept gets the type that fits it best, by its exact word.
 * Method: tables of headers: every word, the SDK's own headers, quality values, wildcards, odd spacing, nonsense. */
#include "serve/media.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void content_types_are_understood(void **state)
{
	(void)state;
	static const struct {
		const char *type;
		enum media media;
	} cases[] = {
		{"application/json", MEDIA_JSON},
		{"Application/JSON", MEDIA_JSON},
		{"  application/json  ", MEDIA_JSON},
		{"application/json; charset=utf-8", MEDIA_JSON},
		{"application/json;charset=UTF-8", MEDIA_JSON},
		{"application/json ; Charset = \"utf-8\" ; x=\"a;b\\\"c\"", MEDIA_JSON},
		{"application/json;", MEDIA_JSON},
		{"application/json; profile=\"charset=utf-16\"", MEDIA_JSON},
		{"text/csv; charset=us-ascii; header=absent", MEDIA_CSV},
		{"text/csv", MEDIA_CSV},
		{"application/jsonlines", MEDIA_JSON_LINES},
		{"application/json-lines", MEDIA_JSON_LINES},
		{"application/x-ndjson", MEDIA_JSON_LINES},
		{"application/jsonl", MEDIA_JSON_LINES},
		{"application/x-npy", MEDIA_NPY},
		{"tensor/pt", MEDIA_NPY},
		{"application/x-npz", MEDIA_NPZ},
		{"image/jpeg", MEDIA_IMAGE},
		{"image/png", MEDIA_IMAGE},
		{"IMAGE/PNG", MEDIA_IMAGE},
		{"image/*", MEDIA_IMAGE},
		{"application/x-image", MEDIA_IMAGE},
		{"application/octet-stream", MEDIA_BYTES},
		{"binary/octet-stream", MEDIA_BYTES},
		{"file-path/raw-bytes", MEDIA_BYTES},
		{"", MEDIA_BYTES},
		{"   ", MEDIA_BYTES},
		{NULL, MEDIA_BYTES},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		enum media media = (enum media)99;
		if (media_of_content_type(cases[i].type, &media) != HTTP_OK)
			fail_msg("\"%s\": %s", cases[i].type, status_message());
		assert_int_equal(media, cases[i].media);
	}
}

static void other_content_types_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *type, *sentence;
	} cases[] = {
		{"text/plain", "content type \"text/plain\" is not supported; supported are application/json, "},
		{"application/x-www-form-urlencoded", "tensor/pt"},
		{"image/webp", "image/png"},
		{"application/json, text/csv", "not supported"},
		{"application/json x", "not supported"},
		{"json", "not supported"},
		{";", "content type \"\""},
		{"; charset=utf-8", "content type \"\""},
		{"application/json; charset=utf-16", "charset \"utf-16\" of content type application/json is not supported"},
		{"application/json; x=y; CHARSET=\"iso-8859-1\"", "charset \"iso-8859-1\""},
		{"application/json; charset", "charset \"\""},
		{"text/csv; charset=", "charset \"\""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		enum media media = (enum media)99;
		enum http_code code = media_of_content_type(cases[i].type, &media);
		if (code != HTTP_UNSUPPORTED || strstr(status_message(), cases[i].sentence) == NULL)
			fail_msg("\"%s\": %d \"%s\", expected \"%s\"", cases[i].type, (int)code, status_message(), cases[i].sentence);
		assert_int_equal(media, 99);
	}
	/* The list is whole: the last word is in it. */
	enum media media;
	media_of_content_type("text/plain", &media);
	assert_non_null(strstr(status_message(), "file-path/raw-bytes"));
}

static void accepts_are_weighed(void **state)
{
	(void)state;
	static const struct {
		const char *accept;
		enum media preferred;
		const char *type;
		enum media media;
	} cases[] = {
		{NULL, MEDIA_JSON, "application/json", MEDIA_JSON},
		{"", MEDIA_JSON, "application/json", MEDIA_JSON},
		{" ", MEDIA_JSON_LINES, "application/jsonlines", MEDIA_JSON_LINES},
		{"*/*", MEDIA_JSON, "application/json", MEDIA_JSON},
		{"*/*", MEDIA_CSV, "text/csv", MEDIA_CSV},
		{"*/*", MEDIA_NPY, "application/x-npy", MEDIA_NPY},
		{"application/*", MEDIA_JSON, "application/json", MEDIA_JSON},
		{"application/*", MEDIA_CSV, "application/json", MEDIA_JSON},
		{"text/*", MEDIA_JSON, "text/csv", MEDIA_CSV},
		{"tensor/*", MEDIA_JSON, "tensor/pt", MEDIA_NPY},
		{"application/x-npy", MEDIA_JSON, "application/x-npy", MEDIA_NPY},
		{"tensor/pt", MEDIA_JSON, "tensor/pt", MEDIA_NPY},
		{"TEXT/CSV", MEDIA_JSON, "text/csv", MEDIA_CSV},
		{"application/x-ndjson", MEDIA_JSON, "application/x-ndjson", MEDIA_JSON_LINES},
		/* PandasDeserializer: among equals what is preferred, then what is named first. */
		{"text/csv, application/json", MEDIA_JSON, "application/json", MEDIA_JSON},
		{"text/csv, application/json", MEDIA_CSV, "text/csv", MEDIA_CSV},
		{"text/csv, application/json", MEDIA_NPY, "text/csv", MEDIA_CSV},
		{"tensor/pt,application/x-npy", MEDIA_NPY, "tensor/pt", MEDIA_NPY},
		{"application/json;q=0.5, text/csv;q=0.8", MEDIA_JSON, "text/csv", MEDIA_CSV},
		{"application/json; q=0.500 , text/csv ; Q=0.499", MEDIA_CSV, "application/json", MEDIA_JSON},
		{"application/x-npy, */*;q=0.1", MEDIA_JSON, "application/x-npy", MEDIA_NPY},
		{"*/*, application/x-npy", MEDIA_JSON, "application/x-npy", MEDIA_NPY}, /* named wins */
		{"*/*, application/json;q=0", MEDIA_JSON, "application/jsonlines", MEDIA_JSON_LINES},
		{"application/*;q=0, */*", MEDIA_JSON, "text/csv", MEDIA_CSV},
		{"*/*;q=0.1, application/*;q=0.2, application/json;q=0.05", MEDIA_JSON, "application/jsonlines", MEDIA_JSON_LINES},
		{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", MEDIA_JSON, "application/json", MEDIA_JSON},
		{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", MEDIA_JSON, "application/json", MEDIA_JSON},
		{"application/json; charset=utf-8; q=1.0", MEDIA_CSV, "application/json", MEDIA_JSON},
		{"application/json;p=\"a,b;q=0\"", MEDIA_CSV, "application/json", MEDIA_JSON},
		{"nonsense, , ;;, text/csv", MEDIA_JSON, "text/csv", MEDIA_CSV},
		{"application/json;q=2, text/csv;q=0.1", MEDIA_JSON, "text/csv", MEDIA_CSV},
		{"application/json;q=x, text/csv;q=0.1", MEDIA_JSON, "text/csv", MEDIA_CSV},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		enum media media = (enum media)99;
		const char *type = NULL;
		if (media_of_accept(cases[i].accept, cases[i].preferred, &media, &type) != HTTP_OK)
			fail_msg("\"%s\": %s", cases[i].accept, status_message());
		if (strcmp(type, cases[i].type) != 0)
			fail_msg("\"%s\" got %s, expected %s", cases[i].accept, type, cases[i].type);
		assert_int_equal(media, cases[i].media);
	}
}

static void unmet_accepts_are_refused(void **state)
{
	(void)state;
	static const char *const cases[] = {"image/png", "text/html", "*/*;q=0", "application/json;q=0", "application/json;q=0.0000", "json", ",", ";", "application",
		"application/", "appli*/*", "*/json", "application/json;q=1.001", "application/json;q=0.5x", "\"application/json"};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		enum media media = (enum media)99;
		const char *type = NULL;
		enum http_code code = media_of_accept(cases[i], MEDIA_JSON, &media, &type);
		if (code != HTTP_NOT_ACCEPTABLE || strstr(status_message(), "application/json, application/jsonlines") == NULL)
			fail_msg("\"%s\": %d \"%s\"", cases[i], (int)code, code == HTTP_OK ? type : status_message());
		assert_int_equal(media, 99);
		assert_null(type);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(content_types_are_understood),
		cmocka_unit_test(other_content_types_are_refused),
		cmocka_unit_test(accepts_are_weighed),
		cmocka_unit_test(unmet_accepts_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
