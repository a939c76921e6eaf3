/* nccl_share.h: memory that the ranks of one communicator share, and a collective operation in it, step by step.
 *
 * Rank 0's process makes the memory, as a file without a name; the others find it through /proc by what the unique id says. Nothing is left
 * behind when processes die. A rank that lives holds a lock there that the kernel gives up when its process ends. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nccl.h>

enum { RANKS_MAX = 16, SLOT_BYTES = 1 << 20 };

struct share;

/* What is in an ncclUniqueId. */
struct share_id {
	uint64_t magic, secret;
	int pid, file;
};

bool share_make(struct share_id *id);
/* In the process that made it, when all ranks have it or nobody will: no one finds it any more. Elsewhere: nothing. */
void share_forget(const struct share_id *id);
/* NULL: it is gone, or the id is not one. */
struct share *share_open(const struct share_id *id);
void share_close(struct share *share);

/* Once, by the thread that lives as long as the communicator: enters as this rank. Aborts when the ranks do not agree on their number.
 * False: this device has a rank of the same host already. */
bool share_enter(struct share *share, int rank, int ranks, int device);
bool share_is_full(struct share *share);
/* By the same thread, at the end. */
void share_leave(struct share *share, int rank);
/* A rank whose process died; −1: none. */
int share_dead(struct share *share, int own_rank);

enum operation_kind { OPERATION_SUM, OPERATION_BROADCAST };

/* One operation of one rank. Ranks whose operations do not match end with a message. */
struct operation {
	enum operation_kind kind;
	ncclDataType_t type;
	int root;
	size_t count;
	const char *send;
	char *receive;
	/* Where it stands. */
	size_t done;
	bool posted;
};

size_t type_bytes(ncclDataType_t type); /* 0: not one that is summed here */

/* Goes as far as it can without waiting. chunk: the rank's counter, kept between operations. True: it is done. */
bool operation_step(struct share *share, int rank, uint64_t *chunk, struct operation *operation);
