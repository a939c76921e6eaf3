/* rendezvous.h: how the parents of several hosts find each other.
 *
 * The first host (in bytewise order of the names) listens; the others look its name up, again and again until a deadline, and connect. Each
 * introduces itself: magic, version of smelt, name of the job, own name, number of hosts, devices, settings. The first host compares; when
 * all are there it tells everyone how many devices each host has, closes the listening socket, and keeps the connections for the control channel.
 *
 * Who connects and is not one of them (says something else, says nothing for 10 s, sends too much, is there twice) is turned away with a line in the log
 * and does no harm. */
#pragma once

#include "core/comm/frame.h"

#include <stdbool.h>
#include <stdint.h>

enum { RENDEZVOUS_ADDRESS_BYTES = 64 };

struct rendezvous_config {
	const char (*hosts)[254]; /* sorted bytewise: struct resource's */
	int hosts_count, host;    /* at least 2; which of them this is */
	int port;                 /* that the first host listens on */
	const char *interface;    /* network interface to use, "": any */
	const char *version, *job; /* of smelt; TRAINING_JOB_NAME or "" */
	const char *settings;     /* one "name=value" a line; all hosts must have the same */
	int devices;              /* of this host */
	int64_t timeout_us;       /* until all must be there */
	bool (*stopped)(void);    /* asked at least every 100 ms; may be NULL */
};

struct rendezvous {
	int hosts_count, host;
	int *devices;              /* of each host */
	struct frame_stream **streams; /* first host: one to each other host ([0] is NULL); others: [0] leads to the first host, the rest NULL */
	char address[RENDEZVOUS_ADDRESS_BYTES]; /* this host's own, as its peers see it: for Gloo and NCCL */
};

/* Blocks until all are there. One log line an attempt. ST_DEVICE when the deadline passed (the sentence names who is missing, or which name cannot be
 * resolved or reached), the port is taken, or the first host refused (its sentence: other version, other job, a setting that differs, by name and both
 * values); ST_STOPPED; ST_MEMORY. The caller closes. */
enum status rendezvous_open(const struct rendezvous_config *config, struct rendezvous *rendezvous);
void rendezvous_close(struct rendezvous *rendezvous); /* accepts {0} */
