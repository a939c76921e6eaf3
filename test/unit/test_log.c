/* Goal: a line is whole, clean, bounded and at once on its stream, whoever writes beside it; nobody listening is no trouble. Method:
 * stdout and stderr are pipes, also closed ones and /dev/full. */
#include "core/base/log.h"

#include "core/base/text.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char got[1 << 20];

/* Runs `body` with this descriptor as a pipe; what it wrote is in `got`. A thread reads along, so nothing is lost. */
struct drain {
	int fd;
	size_t used;
};

static void *drain_run(void *context)
{
	struct drain *drain = context;
	for (ssize_t n; drain->used < sizeof got - 1 && (n = read(drain->fd, got + drain->used, sizeof got - 1 - drain->used)) > 0;)
		drain->used += (size_t)n;
	got[drain->used] = '\0';
	return NULL;
}

static void capture(int fd, void (*body)(void))
{
	int fds[2], copy = dup(fd);
	pthread_t thread;
	fflush(NULL);
	assert_int_equal(pipe(fds), 0);
	struct drain drain = {.fd = fds[0]};
	assert_int_equal(pthread_create(&thread, NULL, drain_run, &drain), 0);
	assert_true(dup2(fds[1], fd) >= 0);
	close(fds[1]);
	body();
	assert_true(dup2(copy, fd) >= 0);
	close(copy);
	assert_int_equal(pthread_join(thread, NULL), 0);
	close(fds[0]);
}

static void speak(void)
{
	log_debug("debug %d", 1);
	log_info("info %d", 2);
	log_warning("warning %d", 3);
	log_error("error %d", 4);
}

static void streams_and_levels(void **unused)
{
	(void)unused;
	capture(STDOUT_FILENO, speak);
	assert_string_equal(got, "info 2\n");
	capture(STDERR_FILENO, speak);
	assert_string_equal(got, "warning: warning 3\nerror: error 4\n");
	log_level_set(LOG_DEBUG);
	capture(STDOUT_FILENO, speak);
	assert_string_equal(got, "debug: debug 1\ninfo 2\n");
	log_level_set(LOG_ERROR);
	capture(STDERR_FILENO, speak);
	assert_string_equal(got, "error: error 4\n");
	log_level_set(LOG_INFO);
}

static void prefix_of_a_rank(void **unused)
{
	(void)unused;
	log_prefix_set("[algo-2 rank 3] ");
	capture(STDOUT_FILENO, speak);
	assert_string_equal(got, "[algo-2 rank 3] info 2\n");
	capture(STDERR_FILENO, speak);
	assert_string_equal(got, "[algo-2 rank 3] warning: warning 3\n[algo-2 rank 3] error: error 4\n");
	char endless[LOG_PREFIX_BYTES_MAX + 100];
	memset(endless, 'h', sizeof endless - 1);
	endless[sizeof endless - 1] = '\0';
	log_prefix_set(endless);
	capture(STDOUT_FILENO, speak);
	assert_int_equal(strlen(got), LOG_PREFIX_BYTES_MAX + strlen("info 2\n"));
	log_prefix_set(NULL);
	capture(STDOUT_FILENO, speak);
	assert_string_equal(got, "info 2\n");
}

static void speak_dirt(void)
{
	log_info("%s", "a\nb\rc\td\x1b[2J\xFF\xC3 é");
}

static void lines_are_clean(void **unused)
{
	(void)unused;
	capture(STDOUT_FILENO, speak_dirt);
	assert_string_equal(got, "a b?c d?[2J?? é\n");
}

static void speak_long(void)
{
	static char text[30001];
	for (int lead = 0; lead < 3; lead++) { /* so that a character lies across the end in every way */
		memset(text, 'x', (size_t)lead);
		for (size_t i = (size_t)lead; i + 3 < sizeof text; i += 3)
			memcpy(text + i, "€", 4);
		log_info("%s", text);
	}
}

static void lines_are_bounded(void **unused)
{
	(void)unused;
	capture(STDOUT_FILENO, speak_long);
	assert_true(text_is_utf8(got, strlen(got)));
	int lines = 0;
	for (char *line = got; *line != '\0'; lines++) {
		size_t length = strcspn(line, "\n") + 1;
		assert_in_range(length, LOG_LINE_BYTES_MAX - 8, LOG_LINE_BYTES_MAX);
		line += length;
	}
	assert_int_equal(lines, 3);
}

enum { THREADS = 4, LINES = 200 };

static void *speaker(void *number)
{
	char text[200];
	memset(text, 'a' + *(int *)number, sizeof text);
	text[199] = '\0';
	for (int i = 0; i < LINES; i++)
		log_info("%s", text);
	return NULL;
}

static void speak_together(void)
{
	pthread_t threads[THREADS];
	int numbers[THREADS];
	for (int i = 0; i < THREADS; i++) {
		numbers[i] = i;
		pthread_create(&threads[i], NULL, speaker, &numbers[i]);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void lines_do_not_mix(void **unused)
{
	(void)unused;
	capture(STDOUT_FILENO, speak_together);
	int counts[THREADS] = {0};
	for (char *line = got; *line != '\0'; line += 200) {
		for (int i = 1; i < 199; i++)
			assert_int_equal(line[i], line[0]);
		assert_int_equal(line[199], '\n');
		counts[line[0] - 'a']++;
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(counts[i], LINES);
}

static void speak_info(void)
{
	log_info("info %d", 2);
}

static void nobody_listens(void **unused)
{
	(void)unused;
	int copy = dup(STDOUT_FILENO), fds[2], full = open("/dev/full", O_WRONLY);
	fflush(NULL);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe(fds), 0);
	close(fds[0]);
	dup2(fds[1], STDOUT_FILENO);
	close(fds[1]);
	log_info("to a pipe without a reader");
	dup2(full, STDOUT_FILENO);
	log_info("to a full disk");
	close(STDOUT_FILENO);
	log_info("to nothing");
	assert_true(dup2(copy, STDOUT_FILENO) >= 0);
	close(copy);
	close(full);
	signal(SIGPIPE, SIG_DFL);
	capture(STDOUT_FILENO, speak_info); /* and it still works */
	assert_string_equal(got, "info 2\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_and_levels),
		cmocka_unit_test(prefix_of_a_rank),
		cmocka_unit_test(lines_are_clean),
		cmocka_unit_test(lines_are_bounded),
		cmocka_unit_test(lines_do_not_mix),
		cmocka_unit_test(nobody_listens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
