/* Goal: nothing hangs when a peer is gone, stopped, silent or never comes, when the training is aborted, or when an address is no good; each
 * rank ends with ST_DEVICE and a sentence that says so. Standing still together is no fault.
 * Method: forked processes on loopback (ranks_rig.h) that sum without end; signals at random instants. SIGPIPE is left as it is, so that it would
 * kill. */
#define _DEFAULT_SOURCE
#include "comm_rig.h"

#include "test/unit/loopback.h"

#include <pthread.h>

/* --- addresses ------------------------------------------------------------------------------------------------------ */

static int small_rank(struct control *control, void *context)
{
	struct comm *comm;
	float value = 1;
	HOLD_OK(plan_open(context, control, &comm));
	HOLD_OK(comm_sum_floats(comm, &value, 1));
	HOLD(value == (float)control->world);
	comm_close(comm);
	return 0;
}

static void ipv6_works(void **state)
{
	(void)state;
	if (!loopback_has_ipv6()) {
		print_message("[  SKIPPED ] ipv6_works: this machine has no IPv6 on loopback\n");
		skip();
	}
	all_end_well(3, small_rank, &(struct plan){.address = "::1"});
}

static int refused_rank(struct control *control, void *context)
{
	struct plan *plan = context;
	struct comm *comm = NULL;
	HOLD(plan_open(plan, control, &comm) == ST_DEVICE && comm == NULL);
	snprintf(control->board->messages[control->rank], STATUS_MESSAGE_BYTES_MAX, "%s", status_message());
	return 0;
}

static void an_address_must_be_of_this_host_and_in_numbers(void **state)
{
	(void)state;
	static const struct {
		const char *address, *sentence;
	} cases[] = {
		{"localhost", "\"localhost\" is no address of a network interface in numbers"},
		{"", "\"\" is no address of a network interface in numbers"},
		{"192.0.2.1", "the address 192.0.2.1 cannot be used for connections between ranks: Cannot assign requested address"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct rig rig;
		rig_start(&rig, 2, refused_rank, &(struct plan){.address = cases[i].address});
		bool good = rig_wait(&rig, WAIT_SECONDS);
		for (int rank = 0; rank < 2; rank++) {
			good = good && rig.ends[rank] == 0 && strstr(rig.board->messages[rank], cases[i].sentence) != NULL;
			if (!good)
				print_message("%s\n", rig.board->messages[rank]);
		}
		rig_free(&rig);
		assert_true(good);
	}
}

/* --- faults --------------------------------------------------------------------------------------------------------- */

enum { SUFFERED = 4 };

/* Sums of all sorts until one fails. */
static int endless_rank(struct control *control, void *context)
{
	enum { COUNT = 600000 };
	struct plan *plan = context;
	struct comm *comm;
	float *values = calloc(COUNT, sizeof *values);
	double numbers[3] = {0};
	HOLD(values != NULL);
	enum status status = plan_open(plan, control, &comm);
	if (status == ST_OK) {
		for (int round = 0; status == ST_OK; round++) {
			status = comm_start(comm, values, COUNT);
			if (status == ST_OK)
				status = comm_start(comm, values, 100);
			if (status == ST_OK)
				status = comm_finish(comm);
			if (status == ST_OK)
				status = comm_sum_doubles(comm, numbers, 3);
			if (status == ST_OK)
				status = comm_broadcast(comm, values, COUNT, round % control->world);
			atomic_store(&control->board->stage[control->rank], 1 + round);
		}
		/* It stays so, with the same sentence. */
		char message[STATUS_MESSAGE_BYTES_MAX];
		snprintf(message, sizeof message, "%s", status_message());
		HOLD(comm_sum_doubles(comm, numbers, 3) == status && strcmp(status_message(), message) == 0);
		comm_close(comm);
	}
	free(values);
	snprintf(control->board->messages[control->rank], STATUS_MESSAGE_BYTES_MAX, "%s", status_message());
	return status == ST_DEVICE ? SUFFERED : 1;
}

/* Until all ranks but the victim have ended. */
static void others_await(struct rig *rig, int victim)
{
	double until = rig_seconds() + WAIT_SECONDS;
	for (int rank = 0; rank < rig->world; rank++) {
		siginfo_t end = {0};
		while (rank != victim && waitid(P_PID, (id_t)rig->pids[rank], &end, WEXITED | WNOWAIT | WNOHANG) == 0 && end.si_pid == 0 &&
			rig_seconds() < until)
			rig_sleep(0.002);
	}
}

/* Whether a rank ended as endless_rank should, with one of the sentences. */
static bool suffered(const struct rig *rig, int rank, const char *sentence, const char *other_sentence)
{
	const char *message = rig->board->messages[rank];
	bool told = strstr(message, sentence) != NULL || strstr(message, other_sentence) != NULL;
	if (rig->ends[rank] != SUFFERED || !told)
		print_message("rank %d of %d ended with %d: %s\n", rank, rig->world, rig->ends[rank], message);
	return rig->ends[rank] == SUFFERED && told;
}

/* What happens to a world of ranks, and what they tell of it. */
struct fault {
	void (*strike)(struct rig *rig, int victim);
	bool victim_suffers; /* as the others do; else it is killed when they have ended */
	int64_t timeout_us;  /* of a sum */
	const char *sentence; /* of all who suffer; or they say that a connection was closed, by one who knew earlier */
};

#define CLOSED "closed its connection during"
static const int64_t patient_us = 600000000;

/* Runs endless_rank; strikes once all are under way and a random moment later. */
static void fault_run(int world, enum comm_type type, const struct fault *fault, struct random_stream *random)
{
	struct rig rig;
	int victim = (int)random_below(random, (uint32_t)world);
	bool good = true;
	rig_start(&rig, world, endless_rank, &(struct plan){.type = type, .timeout_us = fault->timeout_us});
	for (int rank = 0; rank < world; rank++)
		good = good && rig_reached(rig.board, rank, 1);
	rig_sleep(0.03 * random_unit(random));
	fault->strike(&rig, victim);
	if (!fault->victim_suffers) {
		others_await(&rig, victim);
		kill(rig.pids[victim], SIGKILL);
	}
	good = rig_wait(&rig, WAIT_SECONDS) && good;
	for (int rank = 0; rank < world; rank++)
		good = (rank == victim && !fault->victim_suffers) || suffered(&rig, rank, fault->sentence, CLOSED) ? good : false;
	rig_free(&rig);
	assert_true(good);
}

/* So often in worlds of 2 to 4. */
static void fault_runs(const struct fault *fault, int times, uint64_t seed)
{
	struct random_stream random = random_open(seed, RANDOM_TEST, 2, 0);
	for (int world = 2; world <= 4; world++)
		for (int i = 0; i < times; i++)
			fault_run(world, (enum comm_type)(i % 2), fault, &random);
}

static void victim_kill(struct rig *rig, int victim)
{
	kill(rig->pids[victim], SIGKILL);
}

static void a_killed_peer_ends_all(void **state)
{
	(void)state;
	fault_runs(&(struct fault){.strike = victim_kill, .timeout_us = patient_us, .sentence = CLOSED}, 8, 1);
}

/* Stopped first, so that others wait for the rest of a message: Gloo itself does not tell them. */
static void victim_stop_and_kill(struct rig *rig, int victim)
{
	kill(rig->pids[victim], SIGSTOP);
	rig_sleep(0.05);
	kill(rig->pids[victim], SIGKILL);
}

static void a_peer_killed_in_the_middle_of_a_message_ends_all(void **state)
{
	(void)state;
	fault_runs(&(struct fault){.strike = victim_stop_and_kill, .timeout_us = patient_us, .sentence = CLOSED}, 4, 2);
}

static void victim_stop(struct rig *rig, int victim)
{
	kill(rig->pids[victim], SIGSTOP);
}

static void a_stopped_peer_ends_all_after_the_deadline(void **state)
{
	(void)state;
	fault_runs(&(struct fault){.strike = victim_stop, .timeout_us = 1500000, .sentence = "was not done after 1.5 s: rank"}, 2, 3);
}

static void training_abort(struct rig *rig, int victim)
{
	(void)victim;
	atomic_store(&rig->board->aborted, true);
}

static void an_abort_of_the_training_ends_all_with_its_sentence(void **state)
{
	(void)state;
	fault_runs(&(struct fault){.strike = training_abort, .victim_suffers = true, .timeout_us = patient_us, .sentence = "its dog ate the data"}, 1, 4);
}

static void all_stop_and_go_on(struct rig *rig, int victim)
{
	for (int rank = 0; rank < rig->world; rank++)
		kill(rig->pids[rank], SIGSTOP);
	rig_sleep(6);
	int stage = atomic_load(&rig->board->stage[victim]);
	for (int rank = 0; rank < rig->world; rank++)
		kill(rig->pids[rank], SIGCONT);
	/* It goes on: ten more rounds. */
	if (rig_reached(rig->board, victim, stage + 10))
		atomic_store(&rig->board->aborted, true);
}

static void standing_still_together_is_nobodys_silence(void **state)
{
	(void)state;
	struct random_stream random = random_open(5, RANDOM_TEST, 2, 0);
	fault_run(3, COMM_FP32, &(struct fault){.strike = all_stop_and_go_on, .victim_suffers = true, .timeout_us = 5000000, .sentence = "its dog ate the data"},
		&random);
}

/* A rank that told its addresses and never connects: the others leave at the deadline, or when the training is aborted. To some of them it
 * looks connected, as the system accepts for a process that stands still. */
static int held_rank(struct control *control, void *context)
{
	control->board->held = control->world - 1;
	return endless_rank(control, context);
}

static void who_never_connects_is_not_waited_for(void **state)
{
	(void)state;
	for (int world = 2; world <= 4; world++)
		for (int aborted = 0; aborted < 2; aborted++) {
			struct rig rig;
			bool good = true;
			rig_start(&rig, world, held_rank, &(struct plan){.timeout_us = aborted ? patient_us : 500000});
			rig_sleep(0.2);
			atomic_store(&rig.board->aborted, aborted != 0);
			others_await(&rig, world - 1);
			kill(rig.pids[world - 1], SIGKILL);
			rig_wait(&rig, WAIT_SECONDS);
			for (int rank = 0; rank < world - 1; rank++)
				good = suffered(&rig, rank, aborted ? "its dog ate the data" : "connecting with the other ranks failed: Connect timeout",
					aborted ? CLOSED : "was not done after 0.5 s") && good;
			rig_free(&rig);
			assert_true(good);
		}
}

/* --- from another thread -------------------------------------------------------------------------------------------- */

static void *abort_main(void *context)
{
	rig_sleep(0.05);
	comm_abort(context);
	return NULL;
}

static int aborting_rank(struct control *control, void *context)
{
	struct comm *comm;
	pthread_t thread;
	double number = 0;
	HOLD_OK(plan_open(context, control, &comm));
	if (control->rank == 1) {
		HOLD(pthread_create(&thread, NULL, abort_main, comm) == 0);
		/* The others do not come. */
		HOLD(comm_sum_doubles(comm, &number, 1) == ST_DEVICE);
		HOLD(strstr(status_message(), "the sums of rank 1 were ended") != NULL);
		HOLD(pthread_join(thread, NULL) == 0);
	} else {
		enum status status = ST_OK;
		rig_sleep(0.3);
		for (int i = 0; i < 1000 && status == ST_OK; i++)
			status = comm_sum_doubles(comm, &number, 1);
		HOLD(status == ST_DEVICE && strstr(status_message(), CLOSED) != NULL);
	}
	comm_close(comm);
	return 0;
}

static void an_abort_from_another_thread_ends_all(void **state)
{
	(void)state;
	for (int world = 2; world <= 4; world++)
		all_end_well(world, aborting_rank, &(struct plan){.timeout_us = patient_us});
}

/* Closing ends what is under way, too. */
static int closing_rank(struct control *control, void *context)
{
	static float values[1000];
	struct comm *comm;
	HOLD_OK(plan_open(context, control, &comm));
	if (control->rank == 0)
		HOLD_OK(comm_start(comm, values, 1000));
	rig_sleep(0.02);
	comm_close(comm);
	return 0;
}

static void closing_ends_what_is_under_way(void **state)
{
	(void)state;
	for (int world = 2; world <= 3; world++)
		all_end_well(world, closing_rank, &(struct plan){.timeout_us = patient_us});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv6_works),
		cmocka_unit_test(an_address_must_be_of_this_host_and_in_numbers),
		cmocka_unit_test(a_killed_peer_ends_all),
		cmocka_unit_test(a_peer_killed_in_the_middle_of_a_message_ends_all),
		cmocka_unit_test(a_stopped_peer_ends_all_after_the_deadline),
		cmocka_unit_test(an_abort_of_the_training_ends_all_with_its_sentence),
		cmocka_unit_test(standing_still_together_is_nobodys_silence),
		cmocka_unit_test(who_never_connects_is_not_waited_for),
		cmocka_unit_test(an_abort_from_another_thread_ends_all),
		cmocka_unit_test(closing_ends_what_is_under_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
