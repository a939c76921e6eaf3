/* rendezvous.h: how the parents of several hosts find each other.
 *
 * The first host (in bytewise order of the names) listens; the others look its name up, again and again until a deadline, and connect. Each
 * introduces itself: magic, version of smelt, name of the job, own name, number of hosts, devices, settings (greeting.h). The first host compares;
 * when all are there it tells everyone how many devices each host has, closes the listening socket, and keeps the connections for the control
 * channel.
 *
 * One of the training that does not fit (another version, a setting that differs) fails all at once. Who connects and is not one of the
 * training (says something else, says nothing for 10 s, sends too much, belongs to another job, is no host of the list, is there already) is
 * turned away with a line in the log and does no harm. A host that was there and left again before all were there may come again. */
#pragma once

#include "core/comm/frame.h"
#include "core/comm/resolve.h"
#include "core/comm/tcp.h"

#include <stdbool.h>
#include <stdint.h>

enum { RENDEZVOUS_ADDRESS_BYTES = TCP_ADDRESS_BYTES, RENDEZVOUS_HOST_BYTES = 254 };

struct rendezvous_config {
	const char (*hosts)[RENDEZVOUS_HOST_BYTES]; /* sorted bytewise */
	int hosts_count, host;    /* at least 2; which of them this is */
	int port;                 /* that the first host listens on */
	const char *interface;    /* network interface to listen on or connect from, "": any */
	const char *version, *job; /* of smelt; TRAINING_JOB_NAME or "" */
	const char *settings;     /* one "name=value" a line; all hosts must have the same */
	int devices;              /* of this host */
	int64_t timeout_us;       /* until all must be there; who has reached the first host waits as long for that one to give up, and 2 s more */
	bool (*stopped)(void);    /* asked at least every 100 ms; may be NULL */
	resolve_look_up *look_up; /* NULL: the system's resolver */
};

struct rendezvous {
	int hosts_count, host;
	int *devices;              /* of each host */
	struct frame_stream **streams; /* first host: one to each other host ([0] is NULL); others: [0] leads to the first host, the rest NULL */
	char address[RENDEZVOUS_ADDRESS_BYTES]; /* this host's own, as its peers see it: for Gloo and NCCL */
};

/* Blocks until all are there. One log line an attempt, and for each host that comes. No thread and no process is left behind.
 * ST_DEVICE when the deadline passed (the sentence names who is missing, or which name cannot be resolved or reached); ST_SETTINGS when hosts do
 * not fit together (the same sentence on all that are there: what differs, and both values), or the port is taken; ST_STOPPED when a stop
 * was asked for here or on a host that is there; ST_MEMORY. The caller closes. */
enum status rendezvous_open(const struct rendezvous_config *config, struct rendezvous *rendezvous);
void rendezvous_close(struct rendezvous *rendezvous); /* accepts {0} */
