/* Goal: what a rank has to tell at its end, by itself or by a crash, reaches its parent, who writes it down. Method: children that are a parent
 * with a rank of its own. */
#include "test/unit/failure_rig.h"

#include "train/ranks/words.h"

static void (*rank_body)(int fd);
static int crash_number;

/* A parent with its failure file open, and a rank of it that runs rank_body; the parent tells what the rank said. */
static void body_rank(void)
{
	int fds[2], status;
	open_it();
	check(pipe(fds) == 0, 90);
	pid_t pid = fork();
	if (pid == 0) {
		close(fds[0]);
		rank_body(fds[1]);
		_exit(0);
	}
	close(fds[1]);
	struct words words = {.count = 0};
	check(!words_read(&words, fds[0]), 91);
	check(waitpid(pid, &status, 0) == pid, 92);
	check(WIFSIGNALED(status) == words_crashed(&words), 93);
	if (!words_said(&words))
		failure_write("not a word");
	else {
		char text[2 * FAILURE_BYTES_MAX];
		snprintf(text, sizeof text, "%s: %s", status_name(words_status(&words)), words_sentence(&words));
		failure_write(text);
	}
}

static void rank_crash(int fd)
{
	check(failure_to_pipe(fd) == ST_OK, 80);
	raise(crash_number);
}

static void rank_must(int fd)
{
	check(failure_to_pipe(fd) == ST_OK, 80);
	int tensors = 3;
	MUST(tensors == 4);
}

static void rank_fail(int fd)
{
	words_write(fd, ST_DATA, "train.bin is short");
}

static void rank_stop(int fd)
{
	words_write(fd, ST_STOPPED, "");
}

static void rank_long(int fd)
{
	char text[5000];
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	words_write(fd, ST_DISK, text);
}

static void rank_mute(int fd)
{
	check(write(fd, "E", 1) == 1, 81);
}

static void rank_strange(int fd)
{
	check(write(fd, "E\xFFwhat", 6) == 6, 81);
}

/* What the parent of a rank that runs `body` wrote. */
static const char *rank_left(void (*body)(int fd))
{
	rank_body = body;
	if (file_exists(opt_ml.failure))
		assert_int_equal(unlink(opt_ml.failure), 0);
	assert_int_equal(child(body_rank), 0);
	nothing_else_left();
	assert_non_null(left());
	return left();
}

static void crash_of_a_rank(void **unused)
{
	(void)unused;
	for (int i = 0; i < CRASH_KINDS; i++) {
		crash_number = crash_kinds[i].number;
		char start[64];
		snprintf(start, sizeof start, "ST_INTERNAL: killed by %s (", crash_kinds[i].name);
		assert_int_equal(strncmp(rank_left(rank_crash), start, strlen(start)), 0);
	}
	const char *promise = "ST_INTERNAL: " __FILE__ ":";
	assert_int_equal(strncmp(rank_left(rank_must), promise, strlen(promise)), 0);
}

static void last_words(void **unused)
{
	(void)unused;
	assert_string_equal(rank_left(rank_fail), "ST_DATA: train.bin is short");
	assert_string_equal(rank_left(rank_stop), "ST_STOPPED: ");
	assert_int_equal(strncmp(rank_left(rank_long), "ST_DISK: xxxx", 13), 0);
	assert_int_equal(strlen(left()), FAILURE_BYTES_MAX);
	assert_string_equal(rank_left(rank_mute), "not a word");
	assert_string_equal(rank_left(rank_strange), "ST_INTERNAL: what");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(crash_of_a_rank),
		TEST(last_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
