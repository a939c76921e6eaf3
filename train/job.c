/* job.c: see job.h. Acquires top-down, releases bottom-up in job_close. */
#include "train/job.h"

#include "core/base/cpu.h"
#include "core/base/log.h"
#include "train/artifact.h"
#include "train/channels.h"
#include "train/dataset.h"
#include "train/epoch.h"
#include "train/pretrained.h"
#include "train/report/metrics.h"
#include "train/resource.h"
#include "train/stop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Used when neither a channel nor the setting says what to validate with. */
#define VALIDATION_SPLIT_DEFAULT 0.1

struct job {
	const struct opt_ml *opt_ml;
	const struct settings *settings;
	struct resource resource;
	struct channels channels;
	struct dataset dataset;
	struct network network;
	struct params_layout layout;
	struct threads *threads;
	struct training training;
};

/* Mean and standard deviation of each colour over the training images: what the network's input is normalised with. */
static struct normalization images_normalization(const struct images *images)
{
	struct normalization result;
	size_t plane = (size_t)images->size * (size_t)images->size;
	for (size_t c = 0; c < 3; c++) {
		uint64_t sum = 0, sum_squares = 0; /* exact: at most 255² · 2⁴⁸ pixels fit */
		for (size_t i = 0; i < images->count; i++) {
			const uint8_t *pixels = images->pixels + (i * 3 + c) * plane;
			for (size_t p = 0; p < plane; p++) {
				sum += pixels[p];
				sum_squares += (uint64_t)pixels[p] * pixels[p];
			}
		}
		double count = (double)images->count * (double)plane, mean = (double)sum / count;
		double variance = (double)sum_squares / count - mean * mean;
		result.mean[c] = (float)(mean / 255);
		/* A set of one plain colour has no deviation: its pixels are left unscaled. */
		result.std[c] = variance > 0 ? (float)(sqrt(variance) / 255) : 1.0f;
	}
	return result;
}

static enum status data_read(struct job *job)
{
	const struct settings *s = job->settings;
	TRY(channels_find(job->opt_ml, &job->channels));
	const struct dataset_request request = {
		.channels = &job->channels,
		.image_size = s->image_size != 0 ? s->image_size : 32,
		.classes = s->num_classes,
		.validation_split = s->validation_split,
		.validation_split_default = VALIDATION_SPLIT_DEFAULT,
		.seed = (uint64_t)s->seed,
		.stopped = stop_requested,
	};
	double started = seconds_now();
	TRY(dataset_load(&request, &job->dataset));
	const struct dataset *d = &job->dataset;
	log_info("data kind=\"%s\" train_images=%zu validation_images=%zu validation_from=\"%s\" test_images=%zu classes=%d image_size=%d seconds=%.2f", d->kind,
		d->train.count, d->validation.count, d->validation_source, d->test.count, d->classes, d->train.size, seconds_now() - started);
	return settings_check_data(s, d->train.count, d->train.size, d->classes);
}

/* The file or directory of pretrained weights, or NULL. */
static const char *pretrained_path(const struct job *job)
{
	if (job->settings->pretrained[0] != '\0')
		return job->settings->pretrained;
	const struct channel *channel = channels_of(&job->channels, CHANNEL_MODEL);
	return channel != NULL ? channel->path : NULL;
}

static enum status state_alloc(const struct job *job, struct training_state *state)
{
	TRY(params_alloc(&state->params, &job->layout));
	state->momentum = calloc(job->layout.weights_count, sizeof *state->momentum);
	if (state->momentum == NULL)
		return FAIL(ST_MEMORY, "no memory for %zu values of momentum", job->layout.weights_count);
	return job->training.identity.ema ? params_alloc(&state->ema, &job->layout) : ST_OK;
}

static void state_free(struct training_state *state)
{
	params_free(&state->params);
	params_free(&state->ema);
	free(state->momentum);
}

/* Initial or pretrained weights. */
static enum status weights_begin(const struct job *job, const char *pretrained, struct params *params)
{
	uint64_t seed = (uint64_t)job->settings->seed;
	params_init(params, &job->network, &job->layout, seed, job->settings->zero_gamma);
	if (pretrained == NULL)
		return ST_OK;
	bool head_loaded = false;
	return pretrained_load(pretrained, &job->network, &job->layout, params, &head_loaded);
}

/* Gives the machine the state that training begins with: a checkpoint's, else pretrained or initial weights. */
static enum status state_begin(struct job *job, const char *pretrained)
{
	struct training *t = &job->training;
	enum status status = ST_OK;
	bool resumed = false;
	struct training_state state = {0};
	TRY_DONE(state_alloc(job, &state));
	if (job->settings->resume)
		TRY_DONE(checkpoint_resume(job->opt_ml->checkpoints, &job->layout, &t->identity, &t->position, &state, &resumed));
	if (resumed)
		log_info("resumed from epoch %" PRId64 " step %" PRId64 " (checkpoint in %s)%s", t->position.epoch + 1, t->position.step, job->opt_ml->checkpoints,
			t->position.finished ? "; nothing is left to train" : "");
	else {
		log_info("no checkpoint found in %s: training starts from the beginning", job->opt_ml->checkpoints);
		TRY_DONE(weights_begin(job, pretrained, &state.params));
	}
	t->fresh = t->position.step == 0;
	const struct training_state from = resumed ? state : (struct training_state){.params = state.params};
	status = t->machine.backend->state_write(t->machine.state, &from);
done:
	state_free(&state);
	return status;
}

static enum status backend_begin(struct job *job)
{
	struct training *t = &job->training;
	TRY(threads_open((unsigned)job->settings->threads, &job->threads));
	const struct backend_config config = {
		.network = &job->network,
		.layout = &job->layout,
		.batch_max = job->settings->batch_size,
		.normalization = t->normalization,
		.padding = (enum padding_mode)job->settings->padding_mode,
		.threads = job->threads,
		.ema = t->identity.ema,
		.training = true,
		.norm_momentum = job->settings->norm_momentum,
	};
	t->machine.network = &job->network;
	t->machine.stopped = stop_requested;
	TRY(backend_find(settings_backend(job->settings), &t->machine.backend));
	TRY(t->machine.backend->open(&config, &t->machine.state));
	enum cpu cpu;
	TRY(cpu_choose(&cpu));
	log_info("device backend=%s cpu=\"%s\" instructions=%s threads=%u", t->machine.backend->name, cpu_model(), cpu_word(cpu), threads_count(job->threads));
	return ST_OK;
}

static enum status report_begin(struct job *job, char tensorboard[OPT_ML_PATH_BYTES])
{
	struct training *t = &job->training;
	TRY(settings_tensorboard(job->settings, job->opt_ml, tensorboard));
	const struct report_config config = {
		.rank = job->resource.rank,
		.host = resource_host(&job->resource),
		.data_directory = job->opt_ml->output_data,
		.metrics_directory = job->opt_ml->metrics[0] != '\0' ? job->opt_ml->metrics : NULL,
		.tensorboard_directory = tensorboard[0] != '\0' ? tensorboard : NULL,
		.terminal = report_terminal(),
		.log_every_steps = job->settings->log_every_steps,
		.steps_total = run_steps(job->settings, t->identity.steps_per_epoch),
		.epochs_total = job->settings->epochs,
		.resumed_step = t->position.step,
	};
	return report_open(&config, &t->report);
}

static enum status job_open(struct job *job)
{
	struct training *t = &job->training;
	const struct settings *s = job->settings;
	TRY(resource_load(job->opt_ml, &job->resource));
	TRY(resource_check_single(&job->resource));
	TRY(data_read(job));
	const char *pretrained = pretrained_path(job);
	TRY(network_build(&job->network, settings_stem(s, pretrained != NULL), job->dataset.train.size, job->dataset.classes));
	params_layout_build(&job->layout, &job->network);
	t->settings = s;
	t->opt_ml = job->opt_ml;
	t->dataset = &job->dataset;
	t->layout = &job->layout;
	t->normalization = images_normalization(&job->dataset.train);
	t->identity = (struct run_identity){
		.stem = job->network.stem,
		.image_size = job->network.image_size,
		.classes = job->network.head.classes,
		.ema = s->ema_decay > 0,
		.steps_per_epoch = epoch_steps(s, job->dataset.train.count),
		.data_fingerprint = job->dataset.fingerprint,
	};
	struct text fingerprint = {.length_max = sizeof t->identity.settings - 1};
	enum status status = settings_fingerprint(s, &fingerprint);
	snprintf(t->identity.settings, sizeof t->identity.settings, "%s", text_string(&fingerprint));
	text_free(&fingerprint);
	TRY(status);
	TRY(backend_begin(job));
	TRY(state_begin(job, pretrained));
	char tensorboard[OPT_ML_PATH_BYTES];
	TRY(report_begin(job, tensorboard));
	log_info("network stem=%s classes=%d parameters=%zu steps_per_epoch=%" PRId64 " steps=%" PRId64, stem_name(job->network.stem), job->network.head.classes,
		job->layout.weights_count, t->identity.steps_per_epoch, run_steps(s, t->identity.steps_per_epoch));
	return ST_OK;
}

static void job_close(struct job *job, enum status final)
{
	struct training *t = &job->training;
	report_close(t->report, final);
	if (t->machine.state != NULL)
		t->machine.backend->close(t->machine.state);
	threads_close(job->threads);
	dataset_free(&job->dataset);
	resource_free(&job->resource);
}

/* Writes the model directory from the machine's state; with a moving average, that is the model. */
static enum status model_write(const struct job *job)
{
	const struct training *t = &job->training;
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
	TRY(params_alloc(params, &job->layout));
	enum status status = t->machine.backend->snapshot(t->machine.state, &state);
	const struct artifact_content content = {
		.network = &job->network,
		.layout = &job->layout,
		.params = params,
		.class_names = job->dataset.class_names,
		.normalization = t->normalization,
		.recipe = settings_word(job->settings, SETTING_recipe),
		.metrics = metrics,
		.metrics_count = metrics_count,
		.formats = job->settings->artifact_formats,
	};
	if (status == ST_OK)
		status = artifact_write(job->opt_ml->model, &content);
	if (status == ST_OK)
		log_info("model written to %s", job->opt_ml->model);
	params_free(params);
	return status;
}

enum status job_run(const struct opt_ml *opt_ml, const struct settings *settings, double started_seconds)
{
	struct job *job = calloc(1, sizeof *job);
	if (job == NULL)
		return FAIL(ST_MEMORY, "no memory for a job");
	job->opt_ml = opt_ml;
	job->settings = settings;
	job->training.started_seconds = started_seconds;
	enum status status = job_open(job);
	if (status == ST_OK) {
		status = training_run(&job->training);
		/* A second signal asks to leave at once: the checkpoint is written, the model can be made from it later. */
		bool leave = status == ST_STOPPED && stop_now();
		if ((status == ST_OK || status == ST_STOPPED) && !leave) {
			enum status written = model_write(job);
			status = written != ST_OK ? written : status;
		}
	}
	job_close(job, status);
	free(job);
	return status;
}
