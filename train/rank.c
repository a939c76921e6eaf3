/* rank.c: see rank.h. Acquires top-down, releases bottom-up in rank_close. */
#include "train/rank.h"

#include "core/base/log.h"
#include "core/comm/comm.h"
#include "train/artifact.h"
#include "train/epoch.h"
#include "train/pretrained.h"
#include "train/ranks/stop.h"
#include "train/report/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct rank {
	const struct rank_inputs *in;
	const struct place *place;
	struct network network;
	struct params_layout layout;
	struct threads *threads;
	struct comm *comm; /* NULL: one rank only */
	struct reduction reduction;
	struct training training;
};

/* The file or directory of pretrained weights, or NULL. */
static const char *pretrained_path(const struct rank *rank)
{
	if (rank->in->settings->pretrained[0] != '\0')
		return rank->in->settings->pretrained;
	const struct channel *channel = channels_of(rank->in->channels, CHANNEL_MODEL);
	return channel != NULL ? channel->path : NULL;
}

/* Initial or pretrained weights. */
static enum status weights_begin(const struct rank *rank, const char *pretrained, struct params *params)
{
	uint64_t seed = (uint64_t)rank->in->settings->seed;
	params_init(params, &rank->network, &rank->layout, seed, rank->in->settings->zero_gamma);
	if (pretrained == NULL)
		return ST_OK;
	bool head_loaded = false;
	return pretrained_load(pretrained, &rank->network, &rank->layout, params, &head_loaded);
}

/* The state that training begins with: a checkpoint's, else pretrained or initial weights. */
static enum status state_find(struct rank *rank, const char *pretrained, struct training_state *state, bool *resumed)
{
	struct training *t = &rank->training;
	if (rank->in->settings->resume)
		TRY(checkpoint_resume(rank->in->opt_ml->checkpoints, &rank->layout, &t->identity, &t->position, state, resumed));
	if (*resumed) {
		log_info("resumed from epoch %" PRId64 " step %" PRId64 " (checkpoint in %s)%s", t->position.epoch + 1, t->position.step, rank->in->opt_ml->checkpoints,
			t->position.finished ? "; nothing is left to train" : "");
		return ST_OK;
	}
	log_info("no checkpoint found in %s: training starts from the beginning", rank->in->opt_ml->checkpoints);
	return weights_begin(rank, pretrained, &state->params);
}

/* Gives all ranks what rank 0 found: hosts may hold different checkpoints, and only one can be gone on from. */
static enum status state_share(struct rank *rank, struct training_state *state, bool *resumed)
{
	const struct params_layout *layout = &rank->layout;
	struct {
		struct position position;
		int64_t batches_tracked[2];
		bool resumed;
	} begin = {rank->training.position, {state->params.batches_tracked, state->ema.batches_tracked}, *resumed};
	const struct {
		float *values;
		size_t count;
	} arenas[] = {
		{state->params.weights, layout->weights_count}, {state->params.buffers, layout->buffers_count}, {state->momentum, layout->weights_count},
		{state->ema.weights, layout->weights_count}, {state->ema.buffers, layout->buffers_count},
	};
	if (rank->comm == NULL)
		return ST_OK;
	TRY(comm_broadcast(rank->comm, &begin, sizeof begin, 0));
	for (size_t i = 0; i < (begin.resumed ? sizeof arenas / sizeof arenas[0] : 2); i++)
		if (arenas[i].values != NULL)
			TRY(comm_broadcast(rank->comm, arenas[i].values, arenas[i].count * sizeof(float), 0));
	rank->training.position = begin.position;
	state->params.batches_tracked = begin.batches_tracked[0];
	state->ema.batches_tracked = begin.batches_tracked[1];
	*resumed = begin.resumed;
	return ST_OK;
}

static enum status state_begin(struct rank *rank, const char *pretrained)
{
	struct training *t = &rank->training;
	enum status status = ST_OK;
	bool resumed = false;
	struct training_state state = {0};
	TRY_DONE(state_alloc(&state, &rank->layout, t->identity.ema));
	if (rank->place->rank == 0)
		TRY_DONE(state_find(rank, pretrained, &state, &resumed));
	TRY_DONE(state_share(rank, &state, &resumed));
	t->fresh = t->position.step == 0;
	const struct training_state from = resumed ? state : (struct training_state){.params = state.params};
	status = t->machine.backend->state_write(t->machine.state, &from);
done:
	state_free(&state);
	return status;
}

/* What a backend reaches the other ranks by; the context is the rank. */
static enum status reduction_start(void *context, float *values, size_t count)
{
	return comm_start(((const struct rank *)context)->comm, values, count);
}

static enum status reduction_finish(void *context)
{
	return comm_finish(((const struct rank *)context)->comm);
}

static enum status reduction_sum(void *context, double *values, size_t count)
{
	return comm_sum_doubles(((const struct rank *)context)->comm, values, count);
}

static enum status reduction_broadcast(void *context, void *bytes, size_t count, int root)
{
	return comm_broadcast(((const struct rank *)context)->comm, bytes, count, root);
}

static enum status reduction_check(void *context)
{
	return control_check(((const struct rank *)context)->place->control);
}

/* Connects the ranks, when there are several. */
static enum status comm_begin(struct rank *rank)
{
	const struct place *place = rank->place;
	const struct settings *s = rank->in->settings;
	if (place->world == 1)
		return ST_OK;
	const struct comm_config config = {
		.control = place->control,
		.rank = place->rank,
		.world = place->world,
		.address = place->address,
		.type = s->reduce_type == REDUCE_BF16 ? COMM_BF16 : COMM_FP32,
		.timeout_us = (int64_t)s->collective_timeout_seconds * 1000000,
	};
	TRY(comm_open(&config, &rank->comm));
	rank->reduction = (struct reduction){.rank = place->rank, .world = place->world, .bucket_bytes = (size_t)s->reduce_bucket_mb << 20, .context = rank,
		.start = reduction_start, .finish = reduction_finish, .sum = reduction_sum, .broadcast = reduction_broadcast, .check = reduction_check,
		.timeout_us = config.timeout_us, .hosts = place->hosts,
		.interface_name = rank->in->interface_name, .bf16 = s->reduce_type == REDUCE_BF16};
	return ST_OK;
}

/* Compute threads of a rank: what the setting says, else an even part of the cores that this host may use; one beside a GPU. */
static unsigned rank_threads(const struct rank *rank)
{
	if (rank->in->settings->threads == 0 && rank->in->compute->gpus.count > 0)
		return 1;
	unsigned cores = threads_available(), devices = (unsigned)rank->place->devices;
	if (rank->in->settings->threads != 0 || devices == 1)
		return (unsigned)rank->in->settings->threads;
	return cores / devices > 0 ? cores / devices : 1;
}

static enum status backend_begin(struct rank *rank)
{
	struct training *t = &rank->training;
	int train_max = course_most(&t->train).own, validation_max = course_most(&t->validation).own;
	TRY(threads_open(rank_threads(rank), &rank->threads));
	const struct backend_config config = {
		.network = &rank->network,
		.layout = &rank->layout,
		.batch_max = train_max > validation_max ? train_max : validation_max,
		.normalization = t->normalization,
		.padding = (enum padding_mode)rank->in->settings->padding_mode,
		.threads = rank->threads,
		.ema = t->identity.ema,
		.training = true,
		.norm_momentum = rank->in->settings->norm_momentum,
		.reduction = rank->comm != NULL ? &rank->reduction : NULL,
		.sync_batch_norm = rank->in->settings->sync_bn,
		.device = rank->place->local,
		.precision = rank->in->compute->precision,
		.deterministic = rank->in->settings->deterministic,
		.cache_directory = rank->in->compute->cache_directory[0] != '\0' ? rank->in->compute->cache_directory : NULL,
	};
	t->machine.network = &rank->network;
	t->machine.stopped = stop_requested;
	t->machine.shared = rank->comm != NULL;
	TRY(backend_find(rank->in->compute->backend, &t->machine.backend));
	TRY(t->machine.backend->open(&config, &t->machine.state));
	return compute_tell(rank->in->compute, rank->place->local, threads_count(rank->threads));
}

static enum status report_begin(struct rank *rank, char tensorboard[OPT_ML_PATH_BYTES])
{
	struct training *t = &rank->training;
	TRY(settings_tensorboard(rank->in->settings, rank->in->opt_ml, tensorboard));
	const struct report_config config = {
		.rank = rank->place->rank,
		.host = rank->in->host,
		.data_directory = rank->in->opt_ml->output_data,
		.metrics_directory = rank->in->opt_ml->metrics[0] != '\0' ? rank->in->opt_ml->metrics : NULL,
		.tensorboard_directory = tensorboard[0] != '\0' ? tensorboard : NULL,
		.terminal = report_terminal(),
		.log_every_steps = rank->in->settings->log_every_steps,
		.steps_total = run_steps(rank->in->settings, t->identity.steps_per_epoch),
		.epochs_total = rank->in->settings->epochs,
		.resumed_step = t->position.step,
	};
	return report_open(&config, &t->report);
}

/* Who computes what of each epoch. */
static void courses_plan(struct rank *rank)
{
	const struct place *place = rank->place;
	struct training *t = &rank->training;
	t->train = (struct course){.rank = place->rank, .world = place->world, .local = place->local, .devices = place->devices, .host = place->host,
		.hosts = place->hosts, .images = rank->in->shards->images, .sharded = rank->in->shards->sharded, .batch_size = rank->in->settings->batch_size,
		.drop_last = rank->in->settings->drop_last};
	t->validation = t->train;
	t->validation.images = rank->in->shards->validation_images;
	t->validation.sharded = rank->in->shards->validation_sharded;
	t->validation.drop_last = false;
}

static enum status identity_make(struct rank *rank)
{
	struct training *t = &rank->training;
	t->identity = (struct run_identity){
		.stem = rank->network.stem,
		.image_size = rank->network.image_size,
		.classes = rank->network.head.classes,
		.ema = rank->in->settings->ema_decay > 0,
		.steps_per_epoch = course_steps(&t->train),
		.data_fingerprint = rank->in->shards->fingerprint,
	};
	struct text fingerprint = {.length_max = sizeof t->identity.settings - 1};
	enum status status = settings_fingerprint(rank->in->settings, &fingerprint);
	snprintf(t->identity.settings, sizeof t->identity.settings, "%s", text_string(&fingerprint));
	text_free(&fingerprint);
	return status;
}

static enum status rank_open(struct rank *rank)
{
	struct training *t = &rank->training;
	const struct settings *s = rank->in->settings;
	const char *pretrained = pretrained_path(rank);
	TRY(network_build(&rank->network, settings_stem(s, pretrained != NULL), rank->in->dataset->train.size, rank->in->dataset->classes));
	params_layout_build(&rank->layout, &rank->network);
	t->settings = s;
	t->opt_ml = rank->in->opt_ml;
	t->dataset = rank->in->dataset;
	t->layout = &rank->layout;
	t->normalization = rank->in->shards->normalization;
	t->images_before = rank->in->shards->images_before;
	t->control = rank->place->control;
	t->rank = rank->place->rank;
	t->world = rank->place->world;
	courses_plan(rank);
	TRY(identity_make(rank));
	TRY(comm_begin(rank));
	TRY(backend_begin(rank));
	TRY(state_begin(rank, pretrained));
	char tensorboard[OPT_ML_PATH_BYTES];
	TRY(report_begin(rank, tensorboard));
	if (t->rank == 0)
		log_info("network stem=%s classes=%d parameters=%zu steps_per_epoch=%" PRId64 " steps=%" PRId64 " ranks=%d", stem_name(rank->network.stem),
			rank->network.head.classes, rank->layout.weights_count, t->identity.steps_per_epoch, run_steps(s, t->identity.steps_per_epoch), t->world);
	return ST_OK;
}

/* What the sums over ranks cost. */
static void sums_tell(const struct rank *rank)
{
	struct comm_figures figures;
	if (rank->comm == NULL || rank->place->rank != 0)
		return;
	comm_figures(rank->comm, &figures);
	if (figures.sums == 0)
		return; /* devices summed among themselves */
	log_info("sums count=%" PRIu64 " megabytes_sent=%.1f seconds=%.3f seconds_waited=%.3f", figures.sums, (double)figures.bytes_sent / 1e6, figures.sum_seconds,
		figures.waited_seconds);
}

static void rank_close(struct rank *rank, enum status final)
{
	struct training *t = &rank->training;
	report_close(t->report, final);
	if (t->machine.state != NULL)
		t->machine.backend->close(t->machine.state);
	comm_close(rank->comm);
	threads_close(rank->threads);
}

/* Writes the model directory from the machine's state; with a moving average, that is the model. */
static enum status model_write(const struct rank *rank)
{
	const struct training *t = &rank->training;
	struct artifact_metric metrics[METRIC_COUNT];
	size_t metrics_count = 0;
	if (t->position.last.epoch > 0) {
		struct metric_value values[METRIC_COUNT];
		metrics_of_epoch(&t->position.last, values);
		for (int i = 0; i < METRIC_COUNT; i++)
			if (values[i].present)
				metrics[metrics_count++] = (struct artifact_metric){metric_name((enum metric)i), values[i].value};
	}
	struct training_state state = {0};
	struct params *params = t->identity.ema ? &state.ema : &state.params;
	TRY(params_alloc(params, &rank->layout));
	enum status status = t->machine.backend->snapshot(t->machine.state, &state);
	const struct artifact_content content = {
		.network = &rank->network,
		.layout = &rank->layout,
		.params = params,
		.class_names = rank->in->dataset->class_names,
		.normalization = t->normalization,
		.recipe = settings_word(rank->in->settings, SETTING_recipe),
		.metrics = metrics,
		.metrics_count = metrics_count,
		.formats = rank->in->settings->artifact_formats,
	};
	if (status == ST_OK)
		status = artifact_write(rank->in->opt_ml->model, &content);
	if (status == ST_OK)
		log_info("model written to %s", rank->in->opt_ml->model);
	params_free(params);
	return status;
}

enum status rank_run(const struct rank_inputs *inputs, const struct place *place)
{
	struct rank *rank = calloc(1, sizeof *rank);
	if (rank == NULL)
		return FAIL(ST_MEMORY, "no memory for a rank");
	rank->in = inputs;
	rank->place = place;
	stop_follow(place->control);
	enum status status = rank_open(rank);
	if (status == ST_OK) {
		status = training_run(&rank->training);
		sums_tell(rank);
		/* A second signal asks to leave at once: the checkpoint is written, the model can be made from it later. */
		bool leave = status == ST_STOPPED && stop_now();
		if ((status == ST_OK || status == ST_STOPPED) && !leave && place->rank == 0) {
			enum status written = model_write(rank);
			status = written != ST_OK ? written : status;
		}
	}
	rank_close(rank, status);
	stop_follow(NULL);
	free(rank);
	return status;
}
