/* Goal: what is printed of the settings is all of them; two runs, and two hosts, differ where their settings matter and nowhere else. Method:
 * hyperparameters as JSON text, pairs of them compared. */
#include "test/unit/settings_rig.h"

static void print(void **unused)
{
	(void)unused;
	struct text text = {0};
	setenv("SMELT_SEED", "7", 1);
	accepted("{\"recipe\":\"fast10\",\"epochs\":\"3\"}");
	unsetenv("SMELT_SEED");
	assert_int_equal(settings_print(&settings, &text), ST_OK);
	int lines = 0;
	for (const char *c = text_string(&text); *c != '\0'; c++)
		lines += *c == '\n';
	assert_int_equal(lines, SETTINGS_COUNT);
	assert_non_null(strstr(text_string(&text), "epochs=3 "));
	assert_non_null(strstr(text_string(&text), "# hyperparameter\n"));
	assert_non_null(strstr(text_string(&text), "# recipe fast10\n"));
	assert_non_null(strstr(text_string(&text), "# environment\n"));
	assert_non_null(strstr(text_string(&text), "# default\n"));
	text_clear(&text);
	assert_int_equal(settings_help(&text), ST_OK);
	for (int i = 0; i < SETTINGS_COUNT; i++)
		if (strstr(text_string(&text), settings_rows[i].help) == NULL)
			fail_msg("--help lacks %s", settings_rows[i].name);
	text_free(&text);
}

/* What differs between the run of {} and the one of `text`. */
static const char *differences(const char *text)
{
	static char out[2048];
	struct text first = {0}, other = {0}, told = {0};
	accepted("{}");
	assert_int_equal(settings_fingerprint(&settings, &first), ST_OK);
	accepted(text);
	assert_int_equal(settings_fingerprint(&settings, &other), ST_OK);
	assert_int_equal(settings_differences(text_string(&other), text_string(&first), &told), ST_OK);
	assert_int_equal(told.length == 0, strcmp(text_string(&first), text_string(&other)) == 0);
	snprintf(out, sizeof out, "%s", text_string(&told));
	text_free(&first);
	text_free(&other);
	text_free(&told);
	return out;
}

static void fingerprint(void **unused)
{
	(void)unused;
	/* What does not touch the mathematics, or says the same in other words. */
	static const char *const same[] = {"{\"lr\":\"0.10\"}", "{\"threads\":\"3\"}", "{\"batch_size_per_device\":\"128\"}", "{\"keep_checkpoints\":\"5\",\"max_steps\":\"9\"}"};
	for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
		assert_string_equal(differences(same[i]), "");
	assert_string_equal(differences("{\"epochs\":\"5\",\"lr\":\"0.2\",\"pretrained\":\"/w\"}"), "epochs=5 (was 30), lr=0.2 (was 0.1), pretrained=/w (was )");
	static const char *const different[] = {"{\"seed\":\"1\"}", "{\"flip\":\"none\"}", "{\"batch_size\":\"64\"}", "{\"recipe\":\"fast10\"}", "{\"stem\":\"cifar\"}"};
	for (size_t i = 0; i < sizeof different / sizeof different[0]; i++)
		assert_string_not_equal(differences(different[i]), "");
	struct text told = {0};
	assert_int_equal(settings_differences("a=1\nab=2\nc=3\n", "ab=2\nc=\n", &told), ST_OK);
	assert_string_equal(text_string(&told), "a=1 (was unknown), c=3 (was )");
	text_free(&told);
}

/* Whether two hosts with these hyperparameters may train together. */
static bool together(const char *first, const char *second)
{
	struct text texts[2] = {{0}};
	accepted(first);
	assert_int_equal(settings_common(&settings, &texts[0]), ST_OK);
	accepted(second);
	assert_int_equal(settings_common(&settings, &texts[1]), ST_OK);
	bool equal = strcmp(text_string(&texts[0]), text_string(&texts[1])) == 0;
	text_free(&texts[0]);
	text_free(&texts[1]);
	return equal;
}

static void hosts_together(void **unused)
{
	(void)unused;
	assert_true(together("{}", "{\"devices\":\"4\",\"threads\":\"3\"}"));
	assert_true(together("{\"batch_size_per_device\":\"32\"}", "{\"batch_size_per_device\":\"32\",\"devices\":\"4\"}"));
	static const char *const apart[] = {"{\"lr\":\"0.2\"}", "{\"batch_size\":\"64\"}", "{\"batch_size_per_device\":\"32\"}", "{\"max_steps\":\"9\"}",
		"{\"reduce_bucket_mb\":\"8\"}", "{\"peer_timeout_seconds\":\"60\"}"};
	for (size_t i = 0; i < sizeof apart / sizeof apart[0]; i++)
		assert_false(together("{}", apart[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(print),
		TEST(fingerprint),
		TEST(hosts_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
