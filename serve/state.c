/* state.c: see state.h. */
#include "serve/state.h"

#include "core/base/log.h"

#include <stdio.h>

static const struct {
	const char *word;
	int ping;
} rows[] = {
#define X(name, word, ping) {word, ping},
	STATE_LIST(X)
#undef X
};

void state_set(struct state *state, enum serve_state next, const char *reason)
{
	if (reason != NULL)
		snprintf(state->reason, sizeof state->reason, "%s", reason);
	int before = atomic_load(&state->current);
	do {
		if (before == STATE_DRAINING || before == (int)next)
			return;
	} while (!atomic_compare_exchange_weak(&state->current, &before, (int)next));
	if (next == STATE_FAILED)
		log_error("state=failed before=%s reason=\"%s\"", rows[before].word, state->reason);
	else
		log_info("state=%s before=%s", rows[next].word, rows[before].word);
}

enum serve_state state_get(const struct state *state)
{
	return (enum serve_state)atomic_load(&state->current);
}

const char *state_word(enum serve_state state)
{
	return rows[state].word;
}

int state_ping(enum serve_state state)
{
	return rows[state].ping;
}
