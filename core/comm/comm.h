/* comm.h: sums over all ranks, on the CPU (Gloo over TCP).
 *
 * Values lie in this process's memory. A sum has the same bits on every rank, and the same from run to run for one number of ranks: what is
 * added to what depends on ranks and sizes, never on who came first. All calls are collective: every rank makes the same ones, with the same
 * counts, in the same order.
 *
 * A thread of comm's own does the work in the order in which it was given; another one watches it, so nothing waits for ever: a sum has a
 * deadline, a broken connection ends it within about a second, and so does an abort of the training (comm asks control_check itself; no
 * hook is needed). Then it and all later calls give ST_DEVICE with a sentence: that of the abort, or one that names the rank whose connection
 * broke or that is awaited. That rank may itself be a victim; control_wait_abort knows more. Time in which this whole process stood still
 * (Ctrl-Z) does not count. When a call has failed, nothing touches its values any more.
 *
 * Fork before comm_open, not after. Signals are blocked on comm's threads; SIGPIPE need not be ignored. */
#pragma once

#include "core/comm/control.h"

#include <stddef.h>
#include <stdint.h>

/* What travels. Sums of BF16 are added in fp32 and rounded to nearest even at each hop. */
enum comm_type { COMM_FP32, COMM_BF16 };

/* How a sum goes round. BY_SIZE chooses what was measured to be faster; the others are for measuring and testing. */
enum comm_schedule { COMM_BY_SIZE, COMM_RING, COMM_HALVING };

struct comm_config {
	struct control *control;  /* lent until comm_close: addresses travel through one gather, aborts are asked for */
	int rank, world;          /* world ≥ 2 */
	const char *address;      /* of this host, as its peers see it, in numbers, IPv4 or IPv6: "127.0.0.1" on one host */
	enum comm_type type;      /* of comm_start */
	enum comm_schedule schedule;
	int64_t timeout_us;       /* of one sum or broadcast (how long the slowest rank may let the others wait), and of connecting */
};

struct comm;

/* The library underneath: "0.5.0". */
const char *comm_gloo_version(void);

/* Connects every rank with every other. ST_DEVICE, ST_MEMORY, ST_STOPPED from the gather. */
enum status comm_open(const struct comm_config *config, struct comm **comm);
/* Ends what is under way. Accepts NULL. */
void comm_close(struct comm *comm);
/* Ends all waiting, on this rank and (by closing the connections) on its peers: what is under way returns ST_DEVICE. Returns at once.
 * Any thread. */
void comm_abort(struct comm *comm);

/* In place, blocking; they also wait for what comm_start began. One thread at a time. A count of 0 is fine. */
enum status comm_sum_floats(struct comm *comm, float *values, size_t count); /* always as fp32 */
enum status comm_sum_doubles(struct comm *comm, double *values, size_t count);
enum status comm_broadcast(struct comm *comm, void *bytes, size_t count, int root);

/* Hands values to comm's thread, which sums them in the order given while the caller computes on, who neither reads nor writes them until
 * comm_finish, which waits for all and returns the first failure. Waits when COMM_STARTED_MAX are under way. Same thread for both, and for
 * the blocking calls. */
enum { COMM_STARTED_MAX = 256 };
enum status comm_start(struct comm *comm, float *values, size_t count);
enum status comm_finish(struct comm *comm);

/* Since comm_open. */
struct comm_figures {
	uint64_t bytes_sent;    /* by this rank, payload */
	uint64_t sums;
	double sum_seconds;     /* inside sums, waiting for slower ranks included */
	double waited_seconds;  /* that callers waited for sums: what was not overlapped */
};
/* Any thread. */
void comm_figures(struct comm *comm, struct comm_figures *figures);
