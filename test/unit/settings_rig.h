/* settings_rig.h: what the tests of settings share: hyperparameters as JSON text, accepted or refused, and what is said on stderr meanwhile. */
#pragma once

#include "train/settings/setting.h"

#include "test/unit/base_dir.h"

#include <fcntl.h>

static struct settings settings;

static inline enum status resolve(const char *text)
{
	struct json *json = NULL;
	assert_int_equal(json_parse("hyperparameters.json", text, strlen(text), &json), ST_OK);
	enum status status = settings_resolve(json, &settings);
	json_free(json);
	return status;
}

static inline void accepted(const char *text)
{
	if (resolve(text) != ST_OK)
		fail_msg("%s: %s", text, status_message());
}

/* Refused; the sentence has key, value and rule. `settings` stays as it was. */
static inline void refused(const char *text, const char *key, const char *value, const char *rule)
{
	struct settings before = settings;
	if (resolve(text) != ST_SETTINGS)
		fail_msg("%s was not refused", text);
	sentence_has(key, value, rule, NULL);
	assert_memory_equal(&before, &settings, sizeof before);
}

/* {"key": "text"}, the text as it is. */
static inline const char *pair(const char *key, const char *text)
{
	static char json[4096];
	struct text made = {0};
	struct json_writer w = {.text = &made};
	json_write_object(&w, NULL);
	json_write_string(&w, key, text);
	assert_int_equal(json_write_end_all(&w), ST_OK);
	assert_true(made.length < sizeof json);
	strcpy(json, text_string(&made));
	text_free(&made);
	return json;
}

/* Accepted; returns what came out on stderr. */
static inline const char *warnings(const char *hyperparameters)
{
	static char out[65536];
	int copy = dup(STDERR_FILENO), fds[2];
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
	close(fds[1]);
	enum status status = resolve(hyperparameters);
	assert_true(dup2(copy, STDERR_FILENO) >= 0);
	close(copy);
	ssize_t used = read(fds[0], out, sizeof out - 1);
	close(fds[0]);
	assert_int_equal(status, ST_OK);
	out[used < 0 ? 0 : used] = '\0';
	return out;
}

static inline int setup(void **unused)
{
	(void)unused;
	memset(&settings, 0, sizeof settings);
	return 0;
}

#define TEST(function) cmocka_unit_test_setup(function, setup)
