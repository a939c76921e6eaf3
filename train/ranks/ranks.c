/* ranks.c: see ranks.h. The life of a training on one host, in order; the watching is train/ranks/parent.c's. */
#include "train/ranks/ranks.h"

#include "core/base/log.h"
#include "core/base/version.h"
#include "train/ranks/parent.h"
#include "train/ranks/stop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { CAUSE_WAIT_US_MAX = 5000000, PREFIX_BYTES = HOST_BYTES + 32 };

struct rank {
	struct task task;
	char log_prefix[PREFIX_BYTES];
};

struct run {
	const struct ranks_config *config;
	struct rendezvous rendezvous;
	struct parent parent;
	struct task load;
	struct rank *ranks; /* of this host */
	bool stopped;
};

/* --- who takes part ---------------------------------------------------------------------------------------------------- */

static enum status meet(struct run *run)
{
	const struct ranks_config *config = run->config;
	const struct resource *resource = config->resource;
	if (resource->hosts_count == 1)
		return ST_OK;
	const char *job = getenv("TRAINING_JOB_NAME");
	const struct rendezvous_config request = {
		.hosts = (const char(*)[HOST_BYTES])resource->hosts,
		.hosts_count = resource->hosts_count,
		.host = resource->rank,
		.port = config->port,
		.interface = resource->interface,
		.version = smelt_version(),
		.job = job != NULL ? job : "",
		.settings = config->settings,
		.devices = config->devices,
		.timeout_us = config->rendezvous_timeout_us,
		.stopped = stop_requested,
	};
	return rendezvous_open(&request, &run->rendezvous);
}

/* What a member is told; rank and local are those of the host's first rank. */
static struct task task_of(const struct run *run, enum status (*function)(void *context, const struct place *place))
{
	const struct ranks_config *config = run->config;
	const struct parent *parent = &run->parent;
	struct task task = {
		.run = function,
		.context = config->context,
		.place = {
			.rank = parent->first_rank,
			.world = parent->world,
			.devices = config->devices,
			.host = parent->host,
			.hosts = parent->hosts,
		},
		.gather_timeout_us = config->collective_timeout_us,
		.cause_wait_us = config->peer_timeout_us / 3 < CAUSE_WAIT_US_MAX ? config->peer_timeout_us / 3 : CAUSE_WAIT_US_MAX,
		.log_prefix = "",
	};
	snprintf(task.place.address, sizeof task.place.address, "%s", parent->hosts > 1 ? run->rendezvous.address : "127.0.0.1");
	return task;
}

static enum status begin(struct run *run)
{
	const struct ranks_config *config = run->config;
	TRY(meet(run));
	TRY(parent_open(config, &run->rendezvous, run->rendezvous.devices != NULL ? run->rendezvous.devices : &config->devices, &run->parent));
	run->ranks = calloc((size_t)config->devices, sizeof *run->ranks);
	if (run->ranks == NULL)
		return FAIL(ST_MEMORY, "no memory for %d ranks", config->devices);
	if (run->parent.world > 1)
		log_info("ranks world=%d here=%d-%d host=%d hosts=%d address=%s", run->parent.world, run->parent.first_rank,
			run->parent.first_rank + config->devices - 1, run->parent.host, run->parent.hosts, task_of(run, NULL).place.address);
	return ST_OK;
}

/* --- its work ---------------------------------------------------------------------------------------------------------- */

static void fail_here(struct run *run, enum status status)
{
	parent_accuse(&run->parent, SCOPE_HOSTS, run->parent.host, status, status_message());
}

/* False: there is nothing to train with, because of a failure or a stop. */
static bool load(struct run *run)
{
	struct parent *parent = &run->parent;
	run->load = task_of(run, run->config->load);
	enum status status = child_start_thread(&run->load, &parent->children[0]);
	if (status != ST_OK) {
		fail_here(run, status);
		return false;
	}
	parent->children_count = 1;
	parent_watch(parent, parent_children_ended);
	if (parent->cause.status != ST_OK)
		return false;
	run->stopped = parent->canceled || child_verdict(&parent->children[0]) == ST_STOPPED;
	if (run->stopped && !parent->canceled)
		parent_stop(parent); /* the others must not wait for ranks that never come */
	child_close(&parent->children[0]);
	parent->children_count = 0;
	return !run->stopped;
}

/* Starts the ranks; when one cannot be started, those before it learn of the failure. */
static enum status start(struct run *run)
{
	struct parent *parent = &run->parent;
	const char *host = resource_host(run->config->resource);
	int foreign_max = parent->hosts + 2 * run->config->devices, foreign_count = 0;
	int *foreign = calloc((size_t)foreign_max, sizeof *foreign);
	if (foreign == NULL)
		return FAIL(ST_MEMORY, "no memory for %d ranks", run->config->devices);
	for (int i = 0; i < parent->hosts; i++)
		if (parent->links[i].stream != NULL)
			foreign[foreign_count++] = frame_stream_fd(parent->links[i].stream);
	enum status status = ST_OK;
	for (int i = 0; i < run->config->devices && status == ST_OK; i++) {
		struct rank *rank = &run->ranks[i];
		struct child *child = &parent->children[i];
		rank->task = task_of(run, run->config->rank);
		rank->task.place.local = i;
		rank->task.place.rank += i;
		if (parent->world > 1) {
			snprintf(rank->log_prefix, sizeof rank->log_prefix, "[%s rank %d] ", host, rank->task.place.rank);
			rank->task.log_prefix = rank->log_prefix;
		}
		status = child_start_process(&rank->task, foreign, foreign_count, child);
		if (status != ST_OK)
			break;
		foreign[foreign_count++] = frame_stream_fd(child->stream);
		foreign[foreign_count++] = child->words_fd;
		parent->children_count++;
	}
	free(foreign);
	return status;
}

static void work(struct run *run)
{
	struct parent *parent = &run->parent;
	enum status status = start(run);
	if (status != ST_OK)
		fail_here(run, status);
	parent_watch(parent, parent_children_ended);
	for (int i = 0; i < parent->children_count && parent->cause.status == ST_OK; i++)
		run->stopped |= child_verdict(&parent->children[i]) == ST_STOPPED;
}

static enum status outcome(const struct run *run)
{
	const struct cause *cause = &run->parent.cause;
	if (cause->status != ST_OK)
		return FAIL(cause->host == run->parent.host ? cause->status : ST_DEVICE, "%s", cause->sentence);
	return run->stopped ? FAIL(ST_STOPPED, "stopped on request") : ST_OK;
}

enum status ranks_run(const struct ranks_config *config)
{
	struct run *run = calloc(1, sizeof *run);
	if (run == NULL)
		return FAIL(ST_MEMORY, "no memory for a training");
	run->config = config;
	signal(SIGCHLD, SIG_DFL); /* ignored, as a careless parent may have left it, nobody could be waited for */
	enum status status = begin(run);
	if (status == ST_OK) {
		if (load(run))
			work(run);
		if (run->parent.cause.status == ST_OK)
			parent_done(&run->parent);
		parent_watch(&run->parent, parent_agreed);
		parent_watch(&run->parent, parent_alone);
		status = outcome(run);
	}
	if (run->parent.gave_up)
		return status; /* a thread that was abandoned may still use what we hold; this process is about to end */
	parent_close(&run->parent);
	rendezvous_close(&run->rendezvous);
	free(run->ranks);
	free(run);
	return status;
}
