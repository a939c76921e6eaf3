/* judge.c: see judge.h. */
#include "train/ranks/judge.h"

#include "core/base/log.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

static int64_t silence_us(const struct parent *parent)
{
	return parent->config->peer_timeout_us * 2 / 3;
}

static void judge_child(struct parent *parent, struct child *child)
{
	child_reap(child);
	if (child->judged || !child_told(child))
		return;
	enum status status = child_verdict(child);
	bool failed = status != ST_OK && status != ST_STOPPED;
	child->judged = failed || child->ended;
	/* One that followed another's failure has heard of it through us. */
	if (failed)
		parent_accuse(parent, child->scope, child->number, status, status_message());
}

/* Who is silent does not hear either. */
static void judge_child_silence(struct parent *parent, const struct child *child)
{
	if (child->ended || child->judged)
		return;
	char sentence[200];
	double silent_s = (double)(parent->now_us - child->heard_us) * 1e-6;
	if (words_said(&child->words)) { /* taking down a device may take its time */
		if (parent->now_us - child->heard_us <= parent->config->collective_timeout_us)
			return;
		snprintf(sentence, sizeof sentence, "the process has not ended %.0f s after its work was done", silent_s);
	} else if (parent->now_us - child->heard_us > silence_us(parent))
		snprintf(sentence, sizeof sentence, "has been silent for %.0f s: the process is stopped, or does not get to run", silent_s);
	else
		return;
	parent_accuse(parent, child->scope, child->number, ST_DEVICE, sentence);
	if (child->pid != 0)
		kill(child->pid, SIGKILL);
}

static void judge_link(struct parent *parent, int host)
{
	struct link *link = &parent->links[host];
	if (link->stream == NULL)
		return;
	char sentence[400];
	if (link->broken[0] != '\0') {
		frame_stream_close(link->stream);
		link->stream = NULL;
		if (parent->done)
			return;
		if (parent->canceled) { /* nobody need stay for what does not begin */
			parent_host_left(parent, host);
			return;
		}
		snprintf(sentence, sizeof sentence, "lost by host %s (%s): its training process or its machine ended", resource_host(parent->config->resource),
			link->broken);
	} else if (parent->now_us - link->heard_us > silence_us(parent) && !parent->done)
		snprintf(sentence, sizeof sentence, "has been silent for %.0f s, as host %s sees it: stopped, cut off the network, or its machine does not run",
			(double)(parent->now_us - link->heard_us) * 1e-6, resource_host(parent->config->resource));
	else
		return;
	parent_accuse(parent, SCOPE_HOSTS, host, ST_DEVICE, sentence);
}

/* Ranks that wait for each other pass boundaries together. */
static void judge_progress(struct parent *parent)
{
	if (parent->hub == NULL || parent->world == 1 || parent->passed_max == 0 || parent->leaving ||
		parent->now_us - parent->progress_us <= parent->config->collective_timeout_us)
		return;
	int last = 0;
	for (int i = 1; i < parent->world; i++)
		last = parent->passed[i] < parent->passed[last] ? i : last;
	char sentence[200];
	double waited_s = (double)(parent->now_us - parent->progress_us) * 1e-6;
	if (parent->passed[last] < parent->passed_max) {
		snprintf(sentence, sizeof sentence, "the others have waited for it for %.0f s: it finished %" PRIu64 " steps, they %" PRIu64, waited_s,
			parent->passed[last], parent->passed_max);
		parent_accuse(parent, SCOPE_RANKS, last, ST_DEVICE, sentence);
		return;
	}
	snprintf(sentence, sizeof sentence, "no rank has finished a step for %.0f s, after %" PRIu64, waited_s, parent->passed_max);
	parent_accuse(parent, SCOPE_HOSTS, parent->host, ST_DEVICE, sentence);
}

static void kill_who_stays(struct parent *parent)
{
	parent->killed = true;
	for (int i = 0; i < parent->children_count; i++) {
		const struct child *child = &parent->children[i];
		if (child->ended)
			continue;
		if (child->pid == 0) {
			parent->gave_up = true;
			log_warning("what loads the data did not leave by itself and is abandoned");
			continue;
		}
		log_warning("rank %d (process %d) did not leave by itself and is killed", child->number, (int)child->pid);
		kill(child->pid, SIGKILL);
	}
}

static void end_who_stays(struct parent *parent)
{
	if (parent->cause.status == ST_OK || parent->gave_up)
		return;
	if (!parent->killed && parent->now_us >= parent->leave_us)
		kill_who_stays(parent);
	if (parent->killed && parent->now_us >= parent->leave_us + parent_leave_us(parent))
		parent->gave_up = true; /* nothing can be done about a process that hangs in the kernel */
}

void judge_all(struct parent *parent)
{
	for (int i = 0; i < parent->children_count; i++) {
		judge_child(parent, &parent->children[i]);
		judge_child_silence(parent, &parent->children[i]);
	}
	for (int i = 0; i < parent->hosts; i++)
		judge_link(parent, i);
	judge_progress(parent);
	end_who_stays(parent);
}
