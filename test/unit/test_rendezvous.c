/* Hosts on threads, loopback addresses as names: how they meet, what ends it and with which sentence on whom. Where a name has to be resolved, the
 * resolver is the test's. Nothing here depends on how long something takes. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "test/unit/rendezvous_bed.h"

#include "test/unit/entries.h"
#include "test/unit/loopback.h"

#include <sys/mman.h>

/* --- meeting --------------------------------------------------------------------------------------------------------- */

static void test_meet(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	hosts_meet(3);
	hosts_make(2, "127.0.0.1");
	hosts_meet(2);
	rendezvous_close(&(struct rendezvous){0});
}

static void test_meet_over_ipv6(void **state)
{
	(void)state;
	if (!loopback_has_ipv6()) {
		print_message("[  SKIPPED ] test_meet_over_ipv6: this machine has no IPv6\n");
		skip();
	}
	hosts_make(3, "::1");
	hosts_meet(3);
	hosts_make(3, "::1");
	for (int i = 0; i < 3; i++)
		hosts[i].config.interface = "lo";
	hosts_meet(3);
}

static void test_meet_on_an_interface(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	for (int i = 0; i < 3; i++)
		hosts[i].config.interface = "lo";
	hosts_meet(3);
	hosts_make(2, "127.0.0.1");
	hosts[0].config.interface = hosts[1].config.interface = "nosuch0";
	hosts[1].config.timeout_us = short_us;
	hosts_run(2);
	host_check(0, ST_SETTINGS, "network interface nosuch0 (resourceconfig.json) has no address");
	host_check(1, ST_DEVICE, "network interface nosuch0 has no IPv4 address");
	hosts_close();
}

static void test_first_host_comes_late(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	host_start(1);
	host_start(2);
	nap(600);
	host_start(0);
	for (int i = 0; i < 3; i++)
		host_join(i);
	hosts_check_met(3);
	hosts_close();
}

/* --- names ----------------------------------------------------------------------------------------------------------- */

static atomic_int *look_ups; /* shared with the processes in which the resolver runs */

static void look_up_late(const char *name, int to_port, struct resolved *resolved)
{
	if (strcmp(name, "alpha") != 0 || atomic_fetch_add(look_ups, 1) < 3)
		*resolved = (struct resolved){.error = EAI_AGAIN};
	else
		resolve_by_system("127.0.0.1", to_port, resolved);
}

/* The first address leads nowhere, the second does. */
static void look_up_two(const char *name, int to_port, struct resolved *resolved)
{
	struct resolved second;
	(void)name;
	resolve_by_system("127.0.0.77", 1, resolved);
	resolve_by_system("127.0.0.1", to_port, &second);
	resolved->addresses[resolved->count++] = second.addresses[0];
}

static void look_up_never(const char *name, int to_port, struct resolved *resolved)
{
	(void)name, (void)to_port;
	*resolved = (struct resolved){.error = EAI_NONAME};
}

static void look_up_hangs(const char *name, int to_port, struct resolved *resolved)
{
	(void)name, (void)to_port, (void)resolved;
	atomic_fetch_add(look_ups, 1);
	for (;;)
		pause();
}

static void look_up_dies(const char *name, int to_port, struct resolved *resolved)
{
	(void)name, (void)to_port, (void)resolved;
	_exit(3);
}

static void test_name_resolves_late(void **state)
{
	(void)state;
	*look_ups = 0;
	hosts_make(2, "127.0.0.1");
	strcpy(names[0], "alpha");
	hosts[1].config.look_up = look_up_late;
	hosts_meet(2);
	assert_int_equal(*look_ups, 4);
}

static void test_name_resolved_by_the_system(void **state)
{
	(void)state;
	hosts_make(2, "localhost");
	hosts_run(2);
	for (int i = 0; i < 2; i++) {
		host_check(i, ST_OK, "");
		const char *address = hosts[i].rendezvous.address;
		assert_true(strcmp(address, "127.0.0.1") == 0 || strcmp(address, "::1") == 0);
	}
	hosts_close();
}

static void test_all_addresses_are_tried(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	strcpy(names[0], "alpha");
	hosts[1].config.look_up = look_up_two;
	hosts_meet(2);
}

static void test_name_never_resolves(void **state)
{
	(void)state;
	static const struct {
		resolve_look_up *look_up;
		const char *part;
	} cases[] = {
		{look_up_never, "its name cannot be resolved"},
		{look_up_hangs, "nothing answers what address host alpha has"},
		{look_up_dies, "its name cannot be resolved"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		hosts_make(2, "alpha");
		hosts[1].config.look_up = cases[i].look_up;
		hosts[1].config.timeout_us = 1000000; /* a busy machine takes its time to start the process that looks names up */
		host_start(1);
		host_join(1);
		host_check(1, ST_DEVICE, cases[i].part);
		host_check(1, ST_DEVICE, "host alpha was not reached within 1 s (rendezvous_timeout_seconds");
		hosts_close();
	}
}

static void test_stop_while_the_resolver_hangs(void **state)
{
	(void)state;
	*look_ups = 0;
	hosts_make(2, "alpha");
	hosts[1].config.look_up = look_up_hangs;
	host_start(1);
	while (*look_ups == 0)
		nap(1);
	host_stop(1, "while looking for host alpha");
	hosts_close();
}

/* --- ends ------------------------------------------------------------------------------------------------------------ */

static void test_nobody_listens(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	hosts[1].config.timeout_us = short_us;
	host_start(1);
	host_join(1);
	host_check(1, ST_DEVICE, "host 127.0.0.1 was not reached");
	host_check(1, ST_DEVICE, "Connection refused");
	hosts_make(2, "127.0.0.1");
	host_start(1);
	nap(50);
	host_stop(1, "stopped on request");
	hosts_close();
}

static void test_one_does_not_come(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	hosts[0].config.timeout_us = 3000000;
	hosts_run(2);
	host_check(0, ST_DEVICE, "not all 3 hosts came within 3 s (rendezvous_timeout_seconds); missing: zeta-2");
	host_check(1, ST_DEVICE, "missing: zeta-2");
	hosts_close();
	/* The first host came later and gives up later: who waits for it still learns who is missing. */
	hosts_make(3, "127.0.0.1");
	hosts[0].config.timeout_us = hosts[1].config.timeout_us = 3000000;
	host_start(1);
	nap(1000);
	host_start(0);
	host_join(0);
	host_join(1);
	host_check(1, ST_DEVICE, "missing: zeta-2");
	hosts_close();
	/* The one that waits has less patience. */
	hosts_make(3, "127.0.0.1");
	hosts[1].config.timeout_us = 3000000;
	host_start(0);
	host_start(1);
	host_join(1);
	host_check(1, ST_DEVICE, "host 127.0.0.1 was reached, but not all 3 hosts were there within 3 s");
	host_stop(0, "stopped on request while waiting for all hosts");
	hosts_close();
}

/* Two of three are there; one of them is asked to stop: so does the other. */
static void test_stop_while_waiting(void **state)
{
	(void)state;
	for (int who = 0; who < 2; who++) {
		hosts_make(3, "127.0.0.1");
		host_start(0);
		host_start(1);
		await_there(1);
		stops[who] = true;
		host_join(0);
		host_join(1);
		host_check(0, ST_STOPPED, who == 0 ? "stopped on request while waiting for all hosts (missing: zeta-2)" : "stopped on request of host zeta-1");
		host_check(1, ST_STOPPED, who == 0 ? "missing: zeta-2" : "stopped on request while waiting for the other hosts");
		hosts_close();
	}
}

static void test_port_is_taken(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_ANY)};
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 1), 0);
	for (int i = 0; i < 2; i++) {
		hosts[0].config.interface = i == 0 ? "" : "lo";
		host_start(0);
		host_join(0);
		host_check(0, ST_SETTINGS, "(rendezvous_port)");
		host_check(0, ST_SETTINGS, "another program has it, choose another port");
	}
	close(fd);
	hosts_close();
}

/* --- hosts that do not fit ------------------------------------------------------------------------------------------- */

static void test_hosts_that_differ(void **state)
{
	(void)state;
	static const struct {
		const char *settings, *version;
		int hosts_count;
		const char *part;
	} cases[] = {
		{"epochs=10\nlearning_rate=0.2\nseed=1\n", NULL, 0, "learning_rate is 0.1 on host 127.0.0.1 and 0.2 on host zeta-1; all hosts of a training"},
		{"epochs=10\nseed=1\n", NULL, 0, "learning_rate is 0.1 on host 127.0.0.1 and not there on host zeta-1"},
		{"epochs=10\nlearning_rate=0.1\nseed=1\nfancy=2", NULL, 0, "fancy is not there on host 127.0.0.1 and 2 on host zeta-1"},
		{"epochs=\nlearning_rate=0.1\nseed=1\n", NULL, 0, "epochs is 10 on host 127.0.0.1 and empty on host zeta-1"},
		{NULL, "1.2.4 abd", 0, "the version of smelt is 1.2.3 abc on host 127.0.0.1 and 1.2.4 abd on host zeta-1"},
		{NULL, NULL, 2, "resourceconfig.json lists 3 hosts on host 127.0.0.1 and 2 on host zeta-1"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		hosts_make(3, "127.0.0.1");
		if (cases[i].settings != NULL)
			hosts[1].config.settings = cases[i].settings;
		if (cases[i].version != NULL)
			hosts[1].config.version = cases[i].version;
		if (cases[i].hosts_count != 0)
			hosts[1].config.hosts_count = cases[i].hosts_count;
		host_start(0);
		int third = stranger_open(); /* is there, waits, and is told as well */
		struct greeting greeting = greeting_of(2);
		stranger_greet(third, &greeting);
		host_start(1);
		host_join(0);
		host_join(1);
		host_check(0, ST_SETTINGS, cases[i].part);
		host_check(1, ST_SETTINGS, cases[i].part);
		char text[1024];
		size_t count = stranger_end(third, text, sizeof text);
		assert_true(count == 0 || text[4] == FRAME_REFUSED); /* 0: the one that differs was read first */
		hosts_close();
	}
}

static void test_another_protocol(void **state)
{
	(void)state;
	hosts_make(2, "127.0.0.1");
	host_start(0);
	int fd = stranger_open();
	struct greeting greeting = greeting_of(1);
	greeting.protocol = GREETING_PROTOCOL + 1;
	stranger_greet(fd, &greeting);
	host_join(0);
	host_check(0, ST_SETTINGS, "speaks protocol 1 of smelt and host zeta-1 protocol 2");
	stranger_turned_away(fd, "protocol 2");
	hosts_close();
}

/* Is turned away, tries again until its time is over, and harms nobody. */
static void test_another_job(void **state)
{
	(void)state;
	hosts_make(3, "127.0.0.1");
	hosts[2].config.job = "job-8";
	hosts[2].config.timeout_us = short_us;
	host_start(0);
	host_start(2);
	host_join(2);
	host_check(2, ST_DEVICE, "host 127.0.0.1 turns us away: it belongs to training job \"job-8\", host 127.0.0.1 to \"job-7\"");
	hosts[2].config.job = "job-7";
	hosts[2].config.timeout_us = patient_us;
	host_start(1);
	host_start(2);
	for (int i = 0; i < 3; i++)
		host_join(i);
	hosts_check_met(3);
	hosts_close();
}

/* --- afterwards ------------------------------------------------------------------------------------------------------ */

static int fds_before;

static void test_nothing_is_left(void **state)
{
	(void)state;
	assert_true(fds_before > 0);
	assert_int_equal(entries_count("/proc/self/fd"), fds_before);
}

int main(void)
{
	look_ups = mmap(NULL, sizeof *look_ups, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (look_ups == MAP_FAILED)
		return 1;
	fds_before = entries_count("/proc/self/fd");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_meet),
		cmocka_unit_test(test_meet_over_ipv6),
		cmocka_unit_test(test_meet_on_an_interface),
		cmocka_unit_test(test_first_host_comes_late),
		cmocka_unit_test(test_name_resolves_late),
		cmocka_unit_test(test_name_resolved_by_the_system),
		cmocka_unit_test(test_all_addresses_are_tried),
		cmocka_unit_test(test_name_never_resolves),
		cmocka_unit_test(test_stop_while_the_resolver_hangs),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_one_does_not_come),
		cmocka_unit_test(test_stop_while_waiting),
		cmocka_unit_test(test_port_is_taken),
		cmocka_unit_test(test_hosts_that_differ),
		cmocka_unit_test(test_another_protocol),
		cmocka_unit_test(test_another_job),
		cmocka_unit_test(test_nothing_is_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
