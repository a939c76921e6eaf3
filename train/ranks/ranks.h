/* ranks.h: the parent of a host: it starts one process a device, watches over them, and tells in one place how it ended.
 *
 * In: who takes part (resourceconfig.json), how many devices this host has. Out: an exit status and, on failure, the root cause's sentence.
 * The parent touches no device and keeps no training state. In order:
 *  1. several hosts: rendezvous;
 *  2. `load` on a thread of this process, while the control channel is watched: what it makes is inherited by the ranks (one copy in memory
 *     for all of them; a FIFO can be read once only);
 *  3. one fork a device; in each `rank` runs;
 *  4. watch: frames of the control channel, SIGTERM and SIGINT (passed on as a wish to stop), ends of children, beats.
 * A rank that dies, fails, or is silent for too long ends the training everywhere: everybody learns the first cause, has some seconds to leave
 * by itself, and is killed otherwise. No process is left behind, also when the parent itself is killed (PR_SET_PDEATHSIG). */
#pragma once

#include "core/base/status.h"
#include "core/comm/control.h"
#include "core/comm/rendezvous.h"
#include "train/ranks/resource.h"

/* What a member is told about its place. */
struct place {
	int rank, world;              /* of this rank; while loading: first rank of this host */
	int local, devices;           /* number of the rank on its host; ranks of this host */
	int host, hosts;
	char address[RENDEZVOUS_ADDRESS_BYTES]; /* of this host for its peers; "127.0.0.1" when alone */
	struct control *control;      /* loading: SCOPE_HOSTS; rank: SCOPE_RANKS */
};

struct ranks_config {
	const struct resource *resource;
	int devices;                  /* ranks to start here, at least 1 */
	const char *settings;         /* for the rendezvous: must be equal on all hosts */
	int port;
	int64_t rendezvous_timeout_us, peer_timeout_us; /* peer_timeout: from a fault anywhere until everybody has ended */
	int64_t collective_timeout_us;
	/* On a thread of the parent, before the ranks exist. Its memory is what ranks inherit; it must leave no thread behind. ST_STOPPED when place->control
	 * says that all stop. */
	enum status (*load)(void *context, const struct place *place);
	/* In each rank: a process of one thread that ignores SIGTERM and SIGINT (control_stopping tells). Returns its status; its sentence travels to the
	 * parent. ST_DEVICE of one of several ranks counts as the cause only if no other is heard of for some seconds. All ranks pass the boundaries of
	 * control_pass, also while they evaluate: when none of them passes one for collective_timeout, they are taken to hang. */
	enum status (*rank)(void *context, const struct place *place);
	void *context;
};

/* Call it on the main thread, before there are others. Returns in the parent when all have ended, here and elsewhere: ST_OK; ST_STOPPED; or
 * the root cause's status with its sentence, "host algo-2 (rank 3): …" when there are several ranks (ST_DEVICE on hosts that only suffered
 * from it). A loader that does not return after a failure is left running: end the process then. Never returns in a rank, which ends in
 * _exit. */
enum status ranks_run(const struct ranks_config *config);
