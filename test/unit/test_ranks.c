/* Goal: however a training of several processes on one host ends, it ends as a whole, says why, and leaves no process behind. Method: ranks_run
 * with small functions in place of training: ranks and loaders that work, fail, crash, hang, are killed or stopped; 1 and 4 ranks. Conformance
 * tests 86 and 87. */
#include "test/unit/ranks_bed.h"

static const int devices_of_one[] = {1, 4};

static void all_is_well(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}, .steps = 20});
		ends(0, 0, ST_OK, "");
		nobody_left();
		for (int r = 0; r < devices_of_one[i]; r++)
			assert_int_equal(board->steps[r], 20);
	}
}

static void deeds_of_a_rank(void **unused)
{
	(void)unused;
	for (size_t d = 0; d < sizeof deeds / sizeof deeds[0]; d++)
		for (int i = 0; i < 2; i++) {
			char sentence[200];
			print_message("a rank of %d %s\n", devices_of_one[i], deeds[d].name);
			begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}, .deed = deeds[d].deed, .culprit = i == 0 ? 0 : 2,
				.impatient = deeds[d].deed == STOP_PROCESS});
			atomic_store(&board->go, true);
			snprintf(sentence, sizeof sentence, "%s%s", i == 0 ? "" : "host 127.0.0.1 (rank 2): ", deeds[d].sentence);
			ends(0, deeds[d].code, deeds[d].status, sentence);
			nobody_left();
		}
}

static void first_cause_wins(void **unused)
{
	(void)unused;
	/* Its peers see a rank go before its parent knows that it was killed. */
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = LATE_KILLED, .culprit = 2, .victims = true});
	wait_steps(6);
	atomic_store(&board->go, true);
	ends(0, 1, ST_MEMORY, "host 127.0.0.1 (rank 2): the process was killed");
	nobody_left();
	/* When nobody else turns out to be the cause, what a rank says of its peers is all there is. */
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = WORK, .culprit = 2, .victims = true, .impatient = true});
	atomic_store(&board->go, true);
	ends(0, 4, ST_DEVICE, "host 127.0.0.1 (rank ");
	assert_non_null(strstr(board->hosts[0].sentence, "): connection closed by a peer"));
}

static void who_stays_is_killed(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = FAIL_DATA, .culprit = 2, .apart = true, .stubborn = true, .impatient = true});
	wait_steps(10);
	atomic_store(&board->go, true);
	ends(0, 3, ST_DATA, "host 127.0.0.1 (rank 2): its dog ate the data");
	nobody_left();
}

static void endless_waits_end(void **unused)
{
	(void)unused;
	print_message("in an exchange\n");
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = HANG, .culprit = 2, .impatient = true, .collective_timeout_ms = 1500});
	atomic_store(&board->go, true);
	ends(0, 4, ST_DEVICE, "host 127.0.0.1 (rank 2): rank 2 did not come to exchange ");
	nobody_left();
	print_message("in a step, one behind\n");
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = HANG, .culprit = 2, .apart = true, .stubborn = true, .impatient = true,
		.collective_timeout_ms = 2500});
	atomic_store(&board->go, true);
	ends(0, 4, ST_DEVICE, "host 127.0.0.1 (rank 2): the others have waited for it for ");
	nobody_left();
	print_message("in a step, all\n");
	begin((struct scene){.hosts = 1, .devices = {4}, .deed = HANG, .culprit = -1, .apart = true, .impatient = true, .collective_timeout_ms = 2500});
	atomic_store(&board->go, true);
	ends(0, 4, ST_DEVICE, "no rank has finished a step for ");
	nobody_left();
}

static void stop_is_agreed(void **unused)
{
	(void)unused;
	for (int i = 0; i < 4; i++) {
		int devices = devices_of_one[i % 2];
		begin((struct scene){.hosts = 1, .devices = {devices}, .apart = i >= 2});
		wait_steps(5);
		/* A terminal's ^C goes to the whole group: still one request. */
		kill(-hosts[0], i % 2 == 0 ? SIGTERM : SIGINT);
		ends(0, 0, ST_STOPPED, "");
		for (int r = 0; r < devices; r++) {
			assert_int_equal(board->steps[r], board->steps[0]);
			assert_false(board->hurried[r]);
		}
		nobody_left();
	}
}

static void second_signal_hurries(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}, .saves = true});
		wait_steps(5);
		kill(hosts[0], SIGTERM);
		wait_count(&board->saving, devices_of_one[i]);
		kill(hosts[0], SIGTERM);
		ends(0, 0, ST_STOPPED, "");
		for (int r = 0; r < devices_of_one[i]; r++)
			assert_true(board->hurried[r]);
		nobody_left();
	}
}

static void stop_at_any_time(void **unused)
{
	(void)unused;
	for (int ms = 0; ms < 30; ms++) {
		begin((struct scene){.hosts = 1, .devices = {4}});
		nap(ms);
		kill(hosts[0], SIGTERM);
		int code = end(0);
		assert_true(code == 0 || code == 128 + SIGTERM); /* it may not have come to stop_install */
		if (code == 0)
			assert_int_equal(board->hosts[0].status, ST_STOPPED);
		nobody_left();
	}
}

static void stop_while_loading(void **unused)
{
	(void)unused;
	begin((struct scene){.hosts = 1, .devices = {4}, .load_waits = true});
	wait_count(&board->loading, 1);
	kill(hosts[0], SIGTERM);
	ends(0, 0, ST_STOPPED, "");
	assert_int_equal(board->pids[0], 0);
	nobody_left();
}

static void load_fails(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}, .load_deed = FAIL_DATA});
		ends(0, 3, ST_DATA, "its dog ate the data");
		assert_int_equal(board->pids[0], 0);
		nobody_left();
	}
}

/* Some ranks run when there is no socket or pipe for the next. */
static void rank_cannot_start(void **unused)
{
	(void)unused;
	for (int files = 6; files <= 9; files++) {
		begin((struct scene){.hosts = 1, .devices = {4}, .files = files});
		ends(0, 1, ST_MEMORY, "no ");
		nobody_left();
	}
}

static void parent_dies(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {devices_of_one[i]}});
		wait_steps(5);
		kill(hosts[0], SIGKILL);
		assert_int_equal(end(0), 128 + SIGKILL);
		nobody_left();
	}
	begin((struct scene){.hosts = 1, .devices = {1}, .load_waits = true});
	wait_count(&board->loading, 1);
	kill(hosts[0], SIGKILL);
	assert_int_equal(end(0), 128 + SIGKILL);
	nobody_left();
}

/* Time in which nobody ran is nobody's silence: of the parent alone, and of all. */
static void own_stall_is_no_silence(void **unused)
{
	(void)unused;
	for (int i = 0; i < 2; i++) {
		begin((struct scene){.hosts = 1, .devices = {4}, .impatient = true});
		wait_steps(5);
		pid_t stalled = i == 0 ? hosts[0] : -hosts[0];
		kill(stalled, SIGSTOP);
		nap(IMPATIENT_MS);
		long steps = board->steps[0];
		kill(stalled, SIGCONT);
		wait_steps(steps + 100);
		kill(hosts[0], SIGTERM);
		ends(0, 0, ST_STOPPED, "");
		nobody_left();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, NULL, teardown)
		T(all_is_well),
		T(deeds_of_a_rank),
		T(first_cause_wins),
		T(who_stays_is_killed),
		T(endless_waits_end),
		T(stop_is_agreed),
		T(second_signal_hurries),
		T(stop_at_any_time),
		T(stop_while_loading),
		T(load_fails),
		T(rank_cannot_start),
		T(parent_dies),
		T(own_stall_is_no_silence),
	};
	return cmocka_run_group_tests(tests, group_setup, NULL);
}
