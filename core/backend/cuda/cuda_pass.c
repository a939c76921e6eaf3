/* cuda_pass.c: a pass recorded as a CUDA graph and replayed.
 *
 * A step is some two hundred kernels, and starting them one by one costs the host more than a fast device needs to run them. The first time a
 * batch of a kind comes its pass is walked (libraries load and tune what they need), the second time it is recorded, from then on it is one call. */
#include "core/backend/cuda/check.h"
#include "core/backend/cuda/cuda_backend.h"

static bool keys_equal(const struct pass_key *a, const struct pass_key *b)
{
	return a->n == b->n && a->total == b->total && a->training == b->training && a->which == b->which;
}

/* The pass of the present batch; NULL when there is no room to remember it. */
static struct pass *pass_find(struct backend_state *state)
{
	const struct pass_key key = {state->n, state->total, state->training, state->which};
	for (int i = 0; i < state->passes_count; i++)
		if (keys_equal(&state->passes[i].key, &key))
			return &state->passes[i];
	if (state->passes_count == PASSES_MAX)
		return NULL;
	struct pass *pass = &state->passes[state->passes_count++];
	*pass = (struct pass){.key = key};
	return pass;
}

static enum status pass_replay(struct backend_state *state, const struct pass *pass)
{
	CUDA_TRY(cudaGraphLaunch(pass->graph, state->stream));
	return state->communicator != NULL ? communicator_mark(state->communicator, state->stream) : ST_OK;
}

enum status cuda_pass_begin(struct backend_state *state, bool *again)
{
	struct pass *pass = pass_find(state);
	*again = false;
	if (pass == NULL)
		return ST_OK;
	if (pass->graph != NULL) {
		*again = true;
		return pass_replay(state, pass);
	}
	if (pass->walked++ == 0)
		return ST_OK;
	/* Only this thread's calls are held to what may be captured: the watcher of the sums asks for events meanwhile. */
	CUDA_TRY(cudaStreamBeginCapture(state->stream, cudaStreamCaptureModeThreadLocal));
	state->recording = pass;
	return ST_OK;
}

enum status cuda_pass_end(struct backend_state *state)
{
	struct pass *pass = state->recording;
	cudaGraph_t graph = NULL;
	if (pass == NULL)
		return ST_OK;
	state->recording = NULL;
	CUDA_TRY(cudaStreamEndCapture(state->stream, &graph));
	cudaError_t error = cudaGraphInstantiate(&pass->graph, graph, 0);
	cudaGraphDestroy(graph);
	CUDA_TRY(error);
	return pass_replay(state, pass);
}

void passes_abandon(struct backend_state *state)
{
	cudaGraph_t graph = NULL;
	if (state->recording == NULL)
		return;
	state->recording = NULL;
	if (cudaStreamEndCapture(state->stream, &graph) == cudaSuccess)
		(void)cudaGraphDestroy(graph);
	else
		(void)cudaGetLastError(); /* what failed while recording has been told */
}

void passes_forget(struct backend_state *state)
{
	passes_abandon(state);
	for (int i = 0; i < state->passes_count; i++)
		if (state->passes[i].graph != NULL)
			(void)cudaGraphExecDestroy(state->passes[i].graph);
	state->passes_count = 0;
}
