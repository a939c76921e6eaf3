/* state.h: whether this process can answer: loading → ready or failed, and draining from any of them. What /ping says. Any thread. */
#pragma once

#include "core/base/status.h"

#include <stdatomic.h>

/* name, word, HTTP status of /ping */
#define STATE_LIST(X) \
	X(STATE_LOADING, "loading", 503) \
	X(STATE_READY, "ready", 200) \
	X(STATE_FAILED, "failed", 500) \
	X(STATE_DRAINING, "draining", 503)

enum serve_state {
#define X(name, word, ping) name,
	STATE_LIST(X)
#undef X
};

/* Starts as {0}: loading. */
struct state {
	_Atomic int current;
	char reason[STATUS_MESSAGE_BYTES_MAX]; /* written before STATE_FAILED is, then constant; "" otherwise */
};

/* Moves on and logs one line; nothing leaves STATE_DRAINING. `reason` for STATE_FAILED, else NULL. One caller at a time may set
 * STATE_READY or STATE_FAILED. */
void state_set(struct state *state, enum serve_state next, const char *reason);

enum serve_state state_get(const struct state *state);
const char *state_word(enum serve_state state);
int state_ping(enum serve_state state);
