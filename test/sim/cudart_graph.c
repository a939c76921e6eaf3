/* cudart_graph.c: capture and replay.
 *
 * While a stream captures, its items become nodes of a graph; a node comes after the stream's heads. Recording an event remembers the heads,
 * waiting for it adds them to another stream's, which joins the capture. A launch makes an item of every node, ordered by the edges alone. */
#include "test/sim/cudart.h"

#include <stdlib.h>
#include <string.h>

struct node {
	struct sim_work work;
	void *context;
	size_t context_bytes;
	uint64_t stream_number;
	size_t *before;
	size_t before_count;
};

struct graph {
	struct object object;
	struct node *nodes;
	size_t nodes_count;
};

struct executable {
	struct object object;
	struct graph nodes;
	struct item *last; /* of the launch before: launches of one follow each other */
};

struct capture {
	uint64_t id;
	struct graph *graph;
	struct stream *origin;
	enum cudaStreamCaptureMode mode;
	pthread_t thread;
	bool broken;
	struct stream **joined; /* origin, too */
	size_t joined_count;
	struct capture *next;
};

static struct capture *captures; /* those that go on */
static uint64_t captures_count;
static _Thread_local enum cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

const struct sim_work work_empty = {.name = "nothing"};

/* --- graphs --------------------------------------------------------------------------------------------------------------------- */

static size_t node_add(struct graph *graph, const struct node *like)
{
	graph->nodes = sim_grow(graph->nodes, graph->nodes_count + 1, sizeof *graph->nodes);
	struct node *node = &graph->nodes[graph->nodes_count];
	*node = *like;
	if (like->context_bytes) {
		node->context = sim_allocate(1, like->context_bytes);
		memcpy(node->context, like->context, like->context_bytes);
	}
	if (node->work.retain)
		node->work.retain(node->context, true);
	node->before = sim_allocate(like->before_count, sizeof *node->before);
	if (like->before_count)
		memcpy(node->before, like->before, like->before_count * sizeof *node->before);
	return graph->nodes_count++;
}

static void nodes_free(struct graph *graph)
{
	for (size_t i = 0; i < graph->nodes_count; i++) {
		if (graph->nodes[i].work.release)
			graph->nodes[i].work.release(graph->nodes[i].context, true);
		free(graph->nodes[i].context);
		free(graph->nodes[i].before);
	}
	free(graph->nodes);
	graph->nodes = NULL;
	graph->nodes_count = 0;
}

static void set_add(size_t **set, size_t *count, size_t node)
{
	for (size_t i = 0; i < *count; i++)
		if ((*set)[i] == node)
			return;
	*set = sim_grow(*set, *count + 1, sizeof **set);
	(*set)[(*count)++] = node;
}

static void set_clear(size_t **set, size_t *count)
{
	free(*set);
	*set = NULL;
	*count = 0;
}

/* --- capture -------------------------------------------------------------------------------------------------------------------- */

cudaError_t capture_break(struct capture *capture, cudaError_t error)
{
	capture->broken = true;
	return error;
}

static void capture_join(struct capture *capture, struct stream *stream)
{
	capture->joined = sim_grow(capture->joined, capture->joined_count + 1, sizeof *capture->joined);
	capture->joined[capture->joined_count++] = stream;
	stream->capture = capture;
}

bool capture_forbids_unsafe(void)
{
	bool forbids = false;
	for (struct capture *c = captures; c && thread_mode != cudaStreamCaptureModeRelaxed; c = c->next) {
		bool own = pthread_equal(c->thread, pthread_self());
		if ((own && c->mode != cudaStreamCaptureModeRelaxed) || (!own && c->mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal)) {
			c->broken = true;
			forbids = true;
		}
	}
	return forbids;
}

bool capture_forbids_legacy(int device)
{
	bool forbids = false;
	for (struct capture *c = captures; c; c = c->next)
		for (size_t i = 0; i < c->joined_count; i++)
			if (c->joined[i]->device == device && !(c->joined[i]->flags & cudaStreamNonBlocking))
				c->broken = forbids = true;
	return forbids;
}

cudaError_t capture_push(struct stream *stream, const struct sim_work *work, const void *context, size_t context_bytes)
{
	struct capture *capture = stream->capture;
	if (capture->broken)
		return cudaErrorStreamCaptureInvalidated;
	struct node like = {.work = *work, .context = (void *)(uintptr_t)context, .context_bytes = context_bytes, .stream_number = stream->number,
		.before = stream->heads, .before_count = stream->heads_count};
	size_t node = node_add(capture->graph, &like);
	set_clear(&stream->heads, &stream->heads_count);
	set_add(&stream->heads, &stream->heads_count, node);
	return cudaSuccess;
}

cudaError_t capture_event_record(struct event *event, struct stream *stream)
{
	if (stream->capture->broken)
		return cudaErrorStreamCaptureInvalidated;
	item_drop(event->item);
	event->item = NULL;
	event->recorded = true;
	event->capture_id = stream->capture->id;
	set_clear(&event->nodes, &event->nodes_count);
	for (size_t i = 0; i < stream->heads_count; i++)
		set_add(&event->nodes, &event->nodes_count, stream->heads[i]);
	return cudaSuccess;
}

cudaError_t capture_event_wait(struct stream *stream, struct event *event)
{
	struct capture *capture = captures;
	while (capture && capture->id != event->capture_id)
		capture = capture->next;
	if (event->capture_id && !capture)
		return cudaErrorCapturedEvent; /* that capture is over */
	if (!capture)
		return capture_break(stream->capture, cudaErrorStreamCaptureIsolation);
	if (capture->broken)
		return cudaErrorStreamCaptureInvalidated;
	if (stream->capture && stream->capture != capture) {
		stream->capture->broken = true;
		return capture_break(capture, cudaErrorStreamCaptureMerge);
	}
	if (stream->is_legacy)
		return capture_break(capture, cudaErrorStreamCaptureImplicit);
	if (!stream->capture)
		capture_join(capture, stream);
	for (size_t i = 0; i < event->nodes_count; i++)
		set_add(&stream->heads, &stream->heads_count, event->nodes[i]);
	return cudaSuccess;
}

static cudaError_t capture_begin(struct stream *stream, enum cudaStreamCaptureMode mode)
{
	if (stream->is_legacy)
		return cudaErrorStreamCaptureUnsupported;
	if (stream->capture)
		return capture_break(stream->capture, cudaErrorStreamCaptureUnsupported);
	struct capture *capture = sim_allocate(1, sizeof *capture);
	capture->id = ++captures_count;
	capture->graph = object_make(OBJECT_GRAPH, sizeof *capture->graph);
	capture->origin = stream;
	capture->mode = mode;
	capture->thread = pthread_self();
	capture->next = captures;
	captures = capture;
	capture_join(capture, stream);
	return cudaSuccess;
}

/* Every stream that joined must lead back to the origin. */
static bool capture_is_joined(const struct capture *capture)
{
	const struct graph *graph = capture->graph;
	bool *reached = sim_allocate(graph->nodes_count, sizeof *reached), joined = true;
	for (size_t i = 0; i < capture->origin->heads_count; i++)
		reached[capture->origin->heads[i]] = true;
	/* A node's predecessors have smaller numbers. */
	for (size_t node = graph->nodes_count; node-- > 0;)
		for (size_t i = 0; reached[node] && i < graph->nodes[node].before_count; i++)
			reached[graph->nodes[node].before[i]] = true;
	for (size_t s = 0; s < capture->joined_count; s++)
		for (size_t i = 0; i < capture->joined[s]->heads_count; i++)
			joined &= reached[capture->joined[s]->heads[i]];
	free(reached);
	return joined;
}

static cudaError_t capture_end(struct stream *stream, cudaGraph_t *graph)
{
	*graph = NULL;
	struct capture *capture = stream->capture, **link = &captures;
	if (!capture)
		return cudaErrorInvalidValue;
	if (capture->origin != stream)
		return capture_break(capture, cudaErrorStreamCaptureUnmatched);
	if (capture->mode != cudaStreamCaptureModeRelaxed && !pthread_equal(capture->thread, pthread_self()))
		return capture_break(capture, cudaErrorStreamCaptureWrongThread);
	cudaError_t error = capture->broken ? cudaErrorStreamCaptureInvalidated : capture_is_joined(capture) ? cudaSuccess : cudaErrorStreamCaptureUnjoined;
	for (size_t s = 0; s < capture->joined_count; s++) {
		capture->joined[s]->capture = NULL;
		set_clear(&capture->joined[s]->heads, &capture->joined[s]->heads_count);
	}
	while (*link != capture)
		link = &(*link)->next;
	*link = capture->next;
	if (error) {
		nodes_free(capture->graph);
		object_destroy(capture->graph, OBJECT_GRAPH, "cudaStreamEndCapture");
	} else {
		*graph = (cudaGraph_t)capture->graph;
	}
	free(capture->joined);
	free(capture);
	return error;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
	CALL("cudaStreamBeginCapture", capture_begin(stream_of(stream, "cudaStreamBeginCapture"), mode));
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
	CALL("cudaStreamEndCapture", capture_end(stream_of(stream, "cudaStreamEndCapture"), graph));
}

static cudaError_t capture_status(const struct stream *stream, enum cudaStreamCaptureStatus *status, unsigned long long *id)
{
	if (stream->is_legacy && capture_forbids_legacy(stream->device))
		return cudaErrorStreamCaptureImplicit;
	*status = !stream->capture ? cudaStreamCaptureStatusNone : stream->capture->broken ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
	if (id)
		*id = stream->capture ? stream->capture->id : 0;
	return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
	CALL("cudaStreamIsCapturing", capture_status(stream_of(stream, "cudaStreamIsCapturing"), status, NULL));
}

cudaError_t sim_capture_id(cudaStream_t stream, unsigned long long *id)
{
	enum cudaStreamCaptureStatus status;
	CALL("cudaStreamGetCaptureInfo", capture_status(stream_of(stream, "cudaStreamGetCaptureInfo"), &status, id));
}

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode)
{
	enum cudaStreamCaptureMode before = thread_mode;
	thread_mode = *mode;
	*mode = before;
	return cudaSuccess;
}

/* --- the API: graphs -------------------------------------------------------------------------------------------------------------- */

static struct graph *graph_of(cudaGraph_t handle, const char *call)
{
	object_check(handle, OBJECT_GRAPH, call);
	return (struct graph *)handle;
}

static cudaError_t graph_instantiate(cudaGraphExec_t *handle, const struct graph *graph, unsigned long long flags)
{
	if (flags & ~(unsigned long long)cudaGraphInstantiateFlagUseNodePriority)
		return cudaErrorInvalidValue;
	struct executable *executable = object_make(OBJECT_EXEC, sizeof *executable);
	for (size_t i = 0; i < graph->nodes_count; i++)
		node_add(&executable->nodes, &graph->nodes[i]);
	*handle = (cudaGraphExec_t)executable;
	return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags)
{
	CALL("cudaGraphInstantiate", graph_instantiate(executable, graph_of(graph, "cudaGraphInstantiate"), flags));
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags)
{
	CALL("cudaGraphInstantiateWithFlags", graph_instantiate(executable, graph_of(graph, "cudaGraphInstantiateWithFlags"), flags));
}

static cudaError_t graph_launch(struct executable *executable, struct stream *stream)
{
	if (stream->capture)
		return capture_break(stream->capture, cudaErrorStreamCaptureUnsupported);
	const struct graph *graph = &executable->nodes;
	struct item **items = sim_allocate(graph->nodes_count, sizeof(struct item *));
	struct item *last = item_new(stream, &work_empty, NULL, 0);
	for (size_t i = 0; i < graph->nodes_count; i++) {
		const struct node *node = &graph->nodes[i];
		items[i] = item_new(stream, &node->work, node->context, node->context_bytes);
		items[i]->stream_number = node->stream_number;
		item_after(items[i], executable->last);
		for (size_t b = 0; b < node->before_count; b++)
			item_after(items[i], items[node->before[b]]);
		item_after(last, items[i]);
	}
	item_drop(executable->last);
	executable->last = last;
	item_hold(last);
	for (size_t i = 0; i < graph->nodes_count; i++)
		item_start(items[i]);
	stream_push_item(stream, last);
	free(items);
	return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
	CALL("cudaGraphLaunch", (object_check(executable, OBJECT_EXEC, "cudaGraphLaunch"),
		graph_launch((struct executable *)executable, stream_of(stream, "cudaGraphLaunch"))));
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream)
{
	CALL("cudaGraphUpload", (object_check(executable, OBJECT_EXEC, "cudaGraphUpload"), stream_of(stream, "cudaGraphUpload"), cudaSuccess));
}

static cudaError_t graph_destroy(cudaGraph_t handle)
{
	object_destroy(handle, OBJECT_GRAPH, "cudaGraphDestroy");
	nodes_free((struct graph *)handle);
	return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
	CALL("cudaGraphDestroy", graph_destroy(graph));
}

/* What was launched goes on: its items have copies. */
static cudaError_t executable_destroy(cudaGraphExec_t handle)
{
	object_destroy(handle, OBJECT_EXEC, "cudaGraphExecDestroy");
	nodes_free(&((struct executable *)handle)->nodes);
	return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
	CALL("cudaGraphExecDestroy", executable_destroy(executable));
}

/* How many nodes; the nodes themselves have no handles here. */
static cudaError_t nodes_get(const struct graph *graph, const cudaGraphNode_t *nodes, size_t *count)
{
	if (nodes)
		sim_abort("cudaGraphGetNodes: only the count of nodes is simulated");
	*count = graph->nodes_count;
	return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
	CALL("cudaGraphGetNodes", nodes_get(graph_of(graph, "cudaGraphGetNodes"), nodes, count));
}
