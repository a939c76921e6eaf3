/* Who connects to the first host and is not one of the training, or comes twice, or leaves and comes again: bare sockets beside hosts on threads. The hosts
 * meet all the same. */
#include "test/unit/rendezvous_bed.h"

#include "core/base/random.h"

static void test_strangers(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	host_start(0);
	int silent = stranger_open(), half = stranger_open(), fd = stranger_open();
	stranger_frame(half, FRAME_HELLO, "smelt", 5);
	stranger_turned_away(half, NULL);
	half = stranger_open();
	stranger_say(half, "\5\0\0\0\0\0\0\0\0\0\0\0", 12); /* the beginning of a hello */
	stranger_say(fd, "GET / HTTP/1.1\r\nHost: smelt\r\n\r\n", 31);
	stranger_turned_away(fd, NULL);
	fd = stranger_open();
	stranger_say(fd, "\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	stranger_turned_away(fd, NULL);
	fd = stranger_open();
	stranger_frame(fd, FRAME_WISH, NULL, 0);
	stranger_turned_away(fd, NULL);
	fd = stranger_open();
	uint8_t noise[4096];
	struct random_stream random = random_open(11, RANDOM_TEST, 0, 0);
	for (size_t i = 0; i < sizeof noise; i++)
		noise[i] = (uint8_t)random_u32(&random);
	stranger_say(fd, noise, sizeof noise);
	stranger_turned_away(fd, NULL);
	/* They speak as smelt does, and are told why not. */
	struct greeting greeting = greeting_of(1);
	fd = stranger_open();
	greeting.job = "job-99";
	stranger_greet(fd, &greeting);
	stranger_turned_away(fd, "belongs to training job");
	fd = stranger_open();
	greeting = greeting_of(1);
	greeting.host = "omega";
	stranger_greet(fd, &greeting);
	stranger_turned_away(fd, "host omega is none of those");
	fd = stranger_open();
	greeting.host = "127.0.0.1"; /* the first host itself */
	stranger_greet(fd, &greeting);
	stranger_turned_away(fd, "is none of those");
	close(stranger_open());
	/* Those that say nothing, or not enough, go after a while. */
	stranger_turned_away(silent, NULL);
	stranger_turned_away(half, NULL);
	assert_false(hosts[0].ended);
	host_start(1);
	host_join(0);
	host_join(1);
	hosts_check_met(2);
	hosts_close();
}

static void test_many_strangers(void **state)
{
	(void)state;
	enum { MANY = 300 };
	hosts_make(2, "127.0.0.1");
	host_start(0);
	int fds[MANY];
	for (int i = 0; i < MANY; i++)
		fds[i] = stranger_open();
	for (int i = 0; i < MANY - 64; i++)
		stranger_turned_away(fds[i], NULL); /* the oldest first */
	host_start(1);
	host_join(0);
	host_join(1);
	hosts_check_met(2);
	for (int i = MANY - 64; i < MANY; i++)
		close(fds[i]);
	hosts_close();
}

static void test_a_host_comes_again(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	host_start(0);
	struct greeting greeting = greeting_of(1);
	int fd = stranger_open(), twice = stranger_open();
	stranger_greet(fd, &greeting);
	await_turn();
	stranger_greet(twice, &greeting);
	char text[1024];
	stranger_turned_away(twice, "host zeta-1 is there already");
	host_start(1); /* is told the same until the first one has left */
	nap(300);
	close(fd);
	/* Says something out of turn: as if it had left. */
	fd = stranger_open();
	greeting = greeting_of(2);
	stranger_greet(fd, &greeting);
	stranger_frame(fd, FRAME_GATHER, NULL, 0);
	stranger_end(fd, text, sizeof text);
	host_start(2);
	for (int i = 0; i < 3; i++)
		host_join(i);
	hosts_check_met(3);
	hosts_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_many_strangers),
		cmocka_unit_test(test_a_host_comes_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
