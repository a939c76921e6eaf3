/* Goal: however a training of two hosts ends, it ends on both, both name the same cause, and no process is left behind. Method: as in
 * test_ranks.c; also whole hosts that are killed, stopped, leave, or are asked to stop. Conformance tests 88, 91, 94, 95, 97. */
#include "test/unit/ranks_bed.h"

static void two_are_well(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 3}, .steps = 20});
	ends(1, 0, ST_OK, "");
	ends(0, 0, ST_OK, "");
	nobody_left();
	for (int r = 0; r < 4; r++)
		assert_int_equal(board->steps[r], 20);
}

/* Whichever host it is on: that host tells of its own failure with its own exit code, the other of the same one. */
static void deeds_on_either_host(void **unused)
{
	(void)unused;
	for (size_t d = 0; d < sizeof deeds / sizeof deeds[0]; d++)
		for (int host = 0; host < 2; host++) {
			char sentence[200];
			print_message("on host %d a rank %s\n", host, deeds[d].name);
			begin((struct scene){.hosts = 2, .devices = {2, 2}, .deed = deeds[d].deed, .culprit = 2 * host + 1,
				.impatient = deeds[d].deed == STOP_PROCESS});
			atomic_store(&board->go, true);
			snprintf(sentence, sizeof sentence, "host 127.0.0.%d (rank %d): %s", host + 1, 2 * host + 1, deeds[d].sentence);
			ends(host, deeds[d].code, deeds[d].status, sentence);
			ends(1 - host, 4, ST_DEVICE, sentence);
			nobody_left();
		}
}

static void stop_of_one_host_stops_both(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		wait_steps(5);
		kill(hosts[host], SIGTERM);
		ends(0, 0, ST_STOPPED, "");
		ends(1, 0, ST_STOPPED, "");
		for (int r = 1; r < 4; r++)
			assert_int_equal(board->steps[r], board->steps[0]);
		nobody_left();
	}
}

static void second_signal_hurries_both(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 1}, .saves = true});
	wait_steps(5);
	kill(hosts[1], SIGTERM);
	wait_count(&board->saving, 2);
	kill(hosts[1], SIGTERM);
	ends(0, 0, ST_STOPPED, "");
	ends(1, 0, ST_STOPPED, "");
	assert_true(board->hurried[0] && board->hurried[1]);
	nobody_left();
}

/* One host may have ranks already, which wait for the other's. */
static void stop_while_one_loads(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		begin((struct scene){.hosts = 2, .devices = {1, 1}, .load_waits = true});
		wait_count(&board->loading, 2);
		kill(hosts[host], SIGTERM);
		ends(0, 0, ST_STOPPED, "");
		ends(1, 0, ST_STOPPED, "");
		nobody_left();
		for (int slow = 0; slow < 2; slow++) {
			begin((struct scene){.hosts = 2, .devices = {1, 1}, .load_waits = true, .slow_host = slow + 1});
			wait_count(&board->loaded, 1);
			nap(20);
			kill(hosts[host], SIGTERM);
			ends(0, 0, ST_STOPPED, "");
			ends(1, 0, ST_STOPPED, "");
			nobody_left();
		}
	}
}

static void load_fails_on_one(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		char sentence[200];
		snprintf(sentence, sizeof sentence, "host 127.0.0.%d: its dog ate the data", host + 1);
		/* The other loads, too, or has ranks already. */
		for (int waits = 0; waits < 2; waits++) {
			begin((struct scene){.hosts = 2, .devices = {2, 2}, .load_deed = FAIL_DATA, .culprit = host, .load_waits = waits});
			ends(host, 3, ST_DATA, sentence);
			ends(1 - host, 4, ST_DEVICE, sentence);
			nobody_left();
		}
	}
}

/* Nothing can make a thread leave: its process ends around it. */
static void loading_hangs(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 1}, .load_deed = HANG, .culprit = 1, .deed = FAIL_DATA, .load_kills = true, .impatient = true});
	ends(0, 3, ST_DATA, "host 127.0.0.1: its dog ate the data");
	ends(1, 4, ST_DEVICE, "host 127.0.0.1: its dog ate the data");
	nobody_left();
}

static void host_dies(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		char sentence[200];
		snprintf(sentence, sizeof sentence, "host 127.0.0.%d: lost by host 127.0.0.%d (", host + 1, 2 - host);
		print_message("the parent of host %d is killed\n", host);
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		wait_steps(5);
		kill(hosts[host], SIGKILL);
		assert_int_equal(end(host), 128 + SIGKILL);
		ends(1 - host, 4, ST_DEVICE, sentence);
		nobody_left();
		print_message("all of host %d is killed\n", host);
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		wait_steps(5);
		kill(-hosts[host], SIGKILL);
		assert_int_equal(end(host), 128 + SIGKILL);
		ends(1 - host, 4, ST_DEVICE, sentence);
		nobody_left();
	}
}

/* It fails itself once it goes on. */
static void host_is_stopped(void **unused)
{
	(void)unused;
	for (int host = 0; host < 2; host++) {
		char sentence[200];
		snprintf(sentence, sizeof sentence, "host 127.0.0.%d: has been silent for ", host + 1);
		begin((struct scene){.hosts = 2, .devices = {2, 2}, .impatient = true});
		wait_steps(5);
		kill(-hosts[host], SIGSTOP);
		ends(1 - host, 4, ST_DEVICE, sentence);
		kill(-hosts[host], SIGCONT);
		ends(host, 4, ST_DEVICE, "host 127.0.0.");
		nobody_left();
	}
}

static void two_stall_together(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {2, 2}, .impatient = true});
	wait_steps(5);
	for (int host = 0; host < 2; host++)
		kill(-hosts[host], SIGSTOP);
	nap(IMPATIENT_MS);
	long steps = board->steps[0];
	for (int host = 0; host < 2; host++)
		kill(-hosts[host], SIGCONT);
	wait_steps(steps + 100);
	kill(hosts[1], SIGTERM);
	ends(0, 0, ST_STOPPED, "");
	ends(1, 0, ST_STOPPED, "");
	nobody_left();
}

/* Both say the same, and one of them that it was its own. */
static void one_cause_for_all(void **unused)
{
	(void)unused;
	for (int i = 0; i < 10; i++) {
		begin((struct scene){.hosts = 2, .devices = {2, 2}, .deed = FAIL_DATA, .culprit = -1, .apart = i % 2 != 0});
		wait_steps(6);
		atomic_store(&board->go, true);
		int codes[] = {end(0), end(1)};
		assert_string_equal(board->hosts[0].sentence, board->hosts[1].sentence);
		assert_non_null(strstr(board->hosts[0].sentence, "): its dog ate the data"));
		bool second = strncmp(board->hosts[0].sentence, "host 127.0.0.2 (rank ", 21) == 0;
		assert_int_equal(codes[second], 3);
		assert_int_equal(codes[!second], 4);
		nobody_left();
	}
}

static void two_stop_at_any_time(void **unused)
{
	(void)unused;
	for (int i = 0; i < 30; i++) {
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		nap(3 * i);
		for (int host = 0; host < 2; host++)
			kill(hosts[host], SIGTERM);
		for (int host = 0; host < 2; host++) {
			int code = end(host);
			if (code != 0 && code != 128 + SIGTERM) /* it may not have come to stop_install */
				fail_msg("host %d left with %d: %s", host, code, board->hosts[host].sentence);
			if (code == 0)
				assert_int_equal(board->hosts[host].status, ST_STOPPED);
		}
		nobody_left();
	}
}

static void host_leaves_at_once(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {2, 2}, .second = LEAVES_STOPPED});
	assert_int_equal(end(1), 0);
	ends(0, 0, ST_STOPPED, "");
	nobody_left();
	begin((struct scene){.hosts = 2, .devices = {2, 2}, .second = LEAVES});
	assert_int_equal(end(1), 0);
	ends(0, 4, ST_DEVICE, "host 127.0.0.2: lost by host 127.0.0.1 (");
	nobody_left();
}

/* Any process of either host, at any instant. */
static void killed_at_random(void **unused)
{
	(void)unused;
	struct random_stream random = random_open(5, RANDOM_TEST, 0, 0);
	for (int i = 0; i < 20; i++) {
		begin((struct scene){.hosts = 2, .devices = {2, 2}});
		wait_steps(1);
		nap((int)random_below(&random, 40));
		int victim = (int)random_below(&random, 6), host = victim / 3, rank = victim % 3 - 1 + 2 * host;
		char sentence[100];
		if (victim % 3 == 0)
			snprintf(sentence, sizeof sentence, "host 127.0.0.%d: lost by host 127.0.0.%d (", host + 1, 2 - host);
		else
			snprintf(sentence, sizeof sentence, "host 127.0.0.%d (rank %d): the process was killed", host + 1, rank);
		kill(victim % 3 == 0 ? hosts[host] : board->pids[rank], SIGKILL);
		if (victim % 3 == 0)
			assert_int_equal(end(host), 128 + SIGKILL);
		else
			ends(host, 1, ST_MEMORY, sentence);
		ends(1 - host, 4, ST_DEVICE, sentence);
		nobody_left();
	}
}

static void endless_wait_names_its_host(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 3}, .deed = HANG, .culprit = 2, .impatient = true, .collective_timeout_ms = 1500});
	atomic_store(&board->go, true);
	for (int host = 0; host < 2; host++)
		ends(host, 4, ST_DEVICE, "host 127.0.0.2 (rank 2): rank 2 did not come to exchange ");
	nobody_left();
	begin((struct scene){.hosts = 2, .devices = {1, 3}, .deed = HANG, .culprit = 2, .apart = true, .stubborn = true, .impatient = true,
		.collective_timeout_ms = 2500});
	atomic_store(&board->go, true);
	for (int host = 0; host < 2; host++)
		ends(host, 4, ST_DEVICE, "host 127.0.0.2 (rank 2): the others have waited for it for ");
	nobody_left();
}

static void settings_differ(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 2, .devices = {1, 1}, .settings = {"lr=0.1\n", "lr=0.2\n"}});
	for (int host = 0; host < 2; host++) {
		int code = end(host);
		assert_true(code != 0);
		assert_non_null(strstr(board->hosts[host].sentence, "lr"));
	}
	nobody_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, NULL, teardown)
		T(two_are_well),
		T(deeds_on_either_host),
		T(stop_of_one_host_stops_both),
		T(second_signal_hurries_both),
		T(stop_while_one_loads),
		T(load_fails_on_one),
		T(loading_hangs),
		T(host_dies),
		T(host_is_stopped),
		T(two_stall_together),
		T(one_cause_for_all),
		T(two_stop_at_any_time),
		T(host_leaves_at_once),
		T(killed_at_random),
		T(endless_wait_names_its_host),
		T(settings_differ),
	};
	return cmocka_run_group_tests(tests, group_setup, NULL);
}
