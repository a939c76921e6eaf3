/* comm.h: sums over all ranks, on the CPU (Gloo over TCP).
 *
 * Values lie in this process's memory. A sum has the same bits on every rank, and the same from run to run for one number of ranks: it is
 * formed in the order of ranks, never of arrival. Everything has a deadline; a peer that vanishes gives ST_DEVICE with a sentence that
 * names it where it can be known (control_wait_abort knows more). */
#pragma once

#include "core/comm/control.h"

#include <stddef.h>
#include <stdint.h>

enum comm_type { COMM_FP32, COMM_BF16 }; /* what travels; sums of BF16 round at each hop */

struct comm_config {
	struct control *control;  /* lent: addresses travel through gathers */
	int rank, world;          /* world ≥ 2 */
	const char *address;      /* of this host, as its peers see it: "127.0.0.1" on one host */
	enum comm_type type;      /* of comm_start */
	int64_t timeout_us;       /* of one sum */
};

struct comm;

/* Collective: connects every rank with every other. ST_DEVICE, ST_MEMORY. */
enum status comm_open(const struct comm_config *config, struct comm **comm);
void comm_close(struct comm *comm); /* accepts NULL */
/* Ends all waiting, on this rank and (by closing the connections) on its peers: what is under way returns ST_DEVICE. Any thread. */
void comm_abort(struct comm *comm);

/* Blocking, in place, collective, all ranks in the same order. */
enum status comm_sum_floats(struct comm *comm, float *values, size_t count);
enum status comm_sum_doubles(struct comm *comm, double *values, size_t count);
enum status comm_broadcast(struct comm *comm, void *bytes, size_t count, int root);

/* Hands values to a thread that sums them in the order given, while the caller computes on; they are neither read nor written until
 * comm_finish, which waits for all and returns the first failure. Same thread for both. */
enum status comm_start(struct comm *comm, float *values, size_t count);
enum status comm_finish(struct comm *comm);

/* Since comm_open. */
struct comm_figures {
	uint64_t bytes_sent;    /* by this rank, counted from the algorithm */
	uint64_t sums;
	double sum_seconds;     /* inside sums */
	double waited_seconds;  /* that comm_finish waited: what was not overlapped */
};
void comm_figures(const struct comm *comm, struct comm_figures *figures);
