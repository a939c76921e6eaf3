/* Goal: text grows to its maximum and not beyond, what is shown is always clean UTF-8, and a failure's sentence survives its way.
 * Method: every kind of malformed sequence, every length around a limit. */
#include "core/base/text.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void grows(void **unused)
{
	(void)unused;
	struct text text = {0};
	assert_string_equal(text_string(&text), "");
	text_clear(&text);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(text_add(&text, "ab"), ST_OK);
		assert_int_equal(text_printf(&text, "%03d", i), ST_OK);
		assert_int_equal(text_add_bytes(&text, "\0\xFF", 2), ST_OK);
		assert_int_equal(text.length, 7 * (size_t)(i + 1));
		assert_int_equal(text.data[text.length], 0);
		assert_true(text.length < text.capacity);
	}
	assert_memory_equal(text.data + 7 * 999, "ab999\0\xFF", 7);
	assert_int_equal(text_add_bytes(&text, NULL, 0), ST_OK);
	text_clear(&text);
	assert_string_equal(text_string(&text), "");
	text_free(&text);
	text_free(&text);
}

static void maximum(void **unused)
{
	(void)unused;
	struct text text = {.length_max = 10};
	assert_int_equal(text_add(&text, "0123456789"), ST_OK);
	assert_int_equal(text_add(&text, ""), ST_OK);
	assert_int_equal(text_add(&text, "x"), ST_MEMORY);
	assert_int_equal(text_printf(&text, "%s", "x"), ST_MEMORY);
	assert_string_equal(text_string(&text), "0123456789");
	text_free(&text);
	char *large = malloc(100000);
	memset(large, 'y', 99999);
	large[99999] = '\0';
	assert_int_equal(text_printf(&text, "%s", large), ST_MEMORY); /* the maximum outlives text_free */
	text.length_max = 0;
	assert_int_equal(text_printf(&text, "%s", large), ST_OK);
	assert_int_equal(text.length, 99999);
	assert_int_equal(text_add_bytes(&text, large, TEXT_LENGTH_MAX_DEFAULT), ST_MEMORY);
	text_free(&text);
	free(large);
}

/* Well-formed sequences at the borders of each length, and what Unicode's table 3-7 forbids. */
static void utf8(void **unused)
{
	(void)unused;
	static const char *const good[] = {"", "a", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80",
		"\xF4\x8F\xBF\xBF", "aé€😀z"};
	static const char *const bad[] = {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE0\xA0", "\xE1\x80\x41", "\xED\xA0\x80", "\xED\xBF\xBF",
		"\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF", "\xF0\x90\x80", "a\xC3"};
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_true(text_is_utf8(good[i], strlen(good[i])));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_false(text_is_utf8(bad[i], strlen(bad[i])));
		char shown[32], again[32];
		text_printable(bad[i], shown, sizeof shown);
		assert_true(text_is_utf8(shown, strlen(shown)));
		assert_non_null(strchr(shown, '?'));
		text_printable(shown, again, sizeof again);
		assert_string_equal(shown, again);
	}
	assert_true(text_is_utf8("\0", 1));
	assert_false(text_is_utf8("é", 1)); /* cut in two */
}

static void printable(void **unused)
{
	(void)unused;
	char shown[64];
	text_printable("a\nb\tc\rd\x1b[31m\x7F\xC2\x85 é\x01", shown, sizeof shown);
	assert_string_equal(shown, "a b c?d?[31m?? é?");
	/* Never more than there is room for, never half a character. */
	const char *from = "aé€😀";
	for (size_t room = 0; room <= strlen(from) + 2; room++) {
		char *to = malloc(room + 1);
		memset(to, 0x55, room + 1);
		text_printable(from, to, room);
		assert_int_equal(to[room], 0x55);
		if (room > 0) {
			size_t length = strlen(to);
			assert_true(length < room && memcmp(to, from, length) == 0 && text_is_utf8(to, length));
			assert_true(length == strlen(from) || length + 4 >= room);
		}
		free(to);
	}
}

static void distance(void **unused)
{
	(void)unused;
	assert_int_equal(text_distance("", ""), 0);
	assert_int_equal(text_distance("epochs", "epochs"), 0);
	assert_int_equal(text_distance("epoch", "epochs"), 1);
	assert_int_equal(text_distance("epocsh", "epochs"), 1); /* neighbours swapped */
	assert_int_equal(text_distance("", "abc"), 3);
	assert_int_equal(text_distance("kitten", "sitting"), 3);
	assert_int_equal(text_distance("ca", "abc"), 3); /* optimal string alignment, not Damerau's 2 */
	char a[70];
	memset(a, 'a', sizeof a);
	a[64] = '\0';
	assert_int_equal(text_distance(a, a), 0);
	assert_int_equal(text_distance(a, ""), 64);
	a[64] = 'a', a[65] = '\0';
	assert_int_equal(text_distance(a, a), 64); /* too long to be near anything */
}

static void starts_and_ends(void **unused)
{
	(void)unused;
	assert_true(text_starts_with("abc", "ab") && text_starts_with("abc", "") && text_starts_with("", ""));
	assert_false(text_starts_with("ab", "abc") || text_starts_with("abc", "b"));
	assert_true(text_ends_with("abc", "bc") && text_ends_with("abc", "") && text_ends_with("abc", "abc"));
	assert_false(text_ends_with("bc", "abc") || text_ends_with("abc", "b"));
}

/* --- status ----------------------------------------------------------------------------------------------------------- */

static enum status fails(void)
{
	return FAIL(ST_DATA, "train.bin: %d bytes, expected a multiple of %d", 5, 3074);
}

static enum status passes_on(int *reached)
{
	TRY(fails());
	*reached = 1;
	return ST_OK;
}

static enum status cleans_up(int *cleaned)
{
	enum status status = ST_OK;
	TRY_DONE(fails());
	*cleaned = 2;
done:
	(*cleaned)++;
	return status;
}

static void sentences(void **unused)
{
	(void)unused;
	int reached = 0, cleaned = 0;
	assert_int_equal(passes_on(&reached), ST_DATA);
	assert_int_equal(reached, 0);
	assert_int_equal(cleans_up(&cleaned), ST_DATA);
	assert_int_equal(cleaned, 1);
	assert_string_equal(status_message(), "train.bin: 5 bytes, expected a multiple of 3074");
	assert_int_equal(status_prefix(ST_DISK, "channel %s", "train"), ST_DISK);
	assert_string_equal(status_message(), "channel train: train.bin: 5 bytes, expected a multiple of 3074");
	assert_int_equal(FAIL(ST_SETTINGS, "again: %s", status_message()), ST_SETTINGS); /* its own previous sentence */
	assert_string_equal(status_message(), "again: channel train: train.bin: 5 bytes, expected a multiple of 3074");
	(void)FAIL(ST_DATA, "%s", "bad \xFF\nname\x1b");
	assert_string_equal(status_message(), "bad ? name?");
	char large[3000];
	memset(large, 'x', sizeof large);
	large[sizeof large - 1] = '\0';
	(void)FAIL(ST_DATA, "%s", large);
	assert_int_equal(strlen(status_message()), STATUS_MESSAGE_BYTES_MAX - 1);
	status_prefix(ST_DATA, "%s", "p");
	assert_int_equal(strlen(status_message()), STATUS_MESSAGE_BYTES_MAX - 1);
	assert_int_equal(strncmp(status_message(), "p: xxx", 6), 0);
	status_prefix(ST_DATA, "%s", large);
	assert_int_equal(strlen(status_message()), STATUS_MESSAGE_BYTES_MAX - 1);
}

static void *other_thread(void *seen)
{
	snprintf(seen, 64, "%s", status_message());
	(void)FAIL(ST_DATA, "of the other thread");
	return NULL;
}

static void sentence_is_per_thread(void **unused)
{
	(void)unused;
	char seen[64] = "unset";
	pthread_t thread;
	(void)FAIL(ST_DATA, "of this thread");
	assert_int_equal(pthread_create(&thread, NULL, other_thread, seen), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_string_equal(seen, "");
	assert_string_equal(status_message(), "of this thread");
}

/* Prints "made" to a place of its own; what text_print returned. */
static enum status printed(const char *place, enum status made)
{
	struct text text = {0};
	assert_int_equal(text_add(&text, "made"), ST_OK);
	fflush(stdout);
	int copy = dup(STDOUT_FILENO), to = open(place, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(copy >= 0 && to >= 0);
	assert_true(dup2(to, STDOUT_FILENO) >= 0);
	enum status status = text_print(&text, made);
	assert_true(dup2(copy, STDOUT_FILENO) >= 0);
	close(copy);
	close(to);
	clearerr(stdout);
	assert_null(text.data);
	return status;
}

static void prints(void **unused)
{
	(void)unused;
	char place[] = "/tmp/smelt_text_XXXXXX", read_back[16] = "";
	int made = mkstemp(place);
	assert_true(made >= 0);
	assert_int_equal(printed(place, ST_OK), ST_OK);
	assert_int_equal(read(made, read_back, sizeof read_back - 1), 4);
	assert_string_equal(read_back, "made");
	assert_int_equal(printed(place, ST_MEMORY), ST_MEMORY);
	struct stat about;
	assert_int_equal(fstat(made, &about), 0);
	assert_int_equal(about.st_size, 0);
	close(made);
	unlink(place);
	assert_int_equal(printed("/dev/full", ST_OK), ST_DISK);
	assert_non_null(strstr(status_message(), "standard output cannot be written"));
}

static void exit_codes(void **unused)
{
	(void)unused;
	static const int codes[] = {[ST_OK] = 0, [ST_STOPPED] = 0, [ST_INTERNAL] = 1, [ST_MEMORY] = 1, [ST_SETTINGS] = 2, [ST_DATA] = 3, [ST_DEVICE] = 4, [ST_DISK] = 5};
	for (int i = 0; i < (int)(sizeof codes / sizeof codes[0]); i++)
		assert_int_equal(status_exit_code((enum status)i), codes[i]);
	assert_string_equal(status_name(ST_DATA), "ST_DATA");
	assert_string_equal(status_text(ST_OK), "done");
	assert_string_equal(must_message(), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grows),
		cmocka_unit_test(maximum),
		cmocka_unit_test(utf8),
		cmocka_unit_test(printable),
		cmocka_unit_test(distance),
		cmocka_unit_test(starts_and_ends),
		cmocka_unit_test(sentences),
		cmocka_unit_test(sentence_is_per_thread),
		cmocka_unit_test(prints),
		cmocka_unit_test(exit_codes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
