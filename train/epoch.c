/* epoch.c: see epoch.h. */
#include "train/epoch.h"

#include "core/backend/augment.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "train/batch.h"
#include "train/saver.h"
#include "train/schedule.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t run_steps(const struct settings *settings, int64_t steps_per_epoch)
{
	int64_t steps = settings->epochs * steps_per_epoch;
	return settings->max_steps > 0 && settings->max_steps < steps ? settings->max_steps : steps;
}

/* What one run of the loop needs besides struct training. */
struct loop {
	struct training *t;
	struct augmentation augmentation;
	uint32_t *order;
	struct sample *samples;
	int64_t steps_total;
	struct counters base;      /* sums of the running epoch from before this process */
	struct counters reported;  /* sums at the last [step] line */
	double reported_seconds;   /* clock at the last [step] line, moved on by pauses that are not training */
	double epoch_started, epoch_paused; /* clock at the epoch's first step here; seconds of checkpoints since */
	int64_t epoch_first_step;  /* step at epoch_started */
	struct saver *saver;       /* rank 0's; NULL elsewhere */
	int64_t saved_step;        /* of the newest checkpoint that this process gave to the saver, or −1 */
	int64_t saved_epoch;
	bool budget_over;          /* max_steps or max_seconds is used up; not kept, so that a larger budget can go on */
};

static double lr_at(const struct loop *loop, int64_t step)
{
	return schedule_lr(loop->t->settings, loop->t->identity.steps_per_epoch, loop->steps_total, step);
}

static struct augmentation augmentation_of(const struct training *t)
{
	const struct settings *s = t->settings;
	return (struct augmentation){.seed = (uint64_t)s->seed, .image_first = (uint32_t)t->images_before, .image_size = t->identity.image_size, .crop_padding = s->crop_padding, .flip = (enum flip)s->flip,
		.rotation_degrees = s->rotation_degrees, .random_erase = s->random_erase, .cutout = s->cutout, .mixup_alpha = s->mixup_alpha,
		.cutmix_alpha = s->cutmix_alpha, .mix_probability = s->mix_probability};
}

/* The decay of the moving average in its first steps, when there is little to average: min(decay, (1 + step) / (10 + step)), the
 * rule of TensorFlow's ExponentialMovingAverage. */
static float ema_decay_at(double decay, int64_t step)
{
	double early = (1.0 + (double)step) / (10.0 + (double)step);
	return (float)(early < decay ? early : decay);
}

/* A small record of every rank, in their order. */
static enum status records_gather(const struct training *t, const void *own, size_t bytes, struct control_blobs *all)
{
	TRY(control_gather(t->control, own, bytes, all));
	for (int rank = 0; rank < t->world; rank++)
		if (all->counts[rank] != bytes) {
			size_t count = all->counts[rank];
			control_blobs_free(all);
			return FAIL(ST_DEVICE, "rank %d gave %zu bytes where %zu were expected: it runs another program, or took another way", rank, count, bytes);
		}
	return ST_OK;
}

/* The counters' sums over all ranks, added in their order. */
static enum status counters_sum(const struct training *t, struct counters *sums)
{
	struct counters own;
	struct control_blobs all = {0};
	TRY(t->machine.backend->counters_read(t->machine.state, &own));
	*sums = own;
	if (t->world == 1)
		return ST_OK;
	TRY(records_gather(t, &own, sizeof own, &all));
	*sums = (struct counters){0};
	for (int rank = 0; rank < t->world; rank++) {
		struct counters part;
		memcpy(&part, all.blobs[rank], sizeof part);
		sums->loss += part.loss;
		sums->images += part.images;
		sums->top1 += part.top1;
		sums->top5 += part.top5;
	}
	control_blobs_free(&all);
	return ST_OK;
}

/* Sums of the running epoch, all of it. Collective. */
static enum status counters_now(struct loop *loop, struct counters *sums)
{
	struct counters here;
	TRY(counters_sum(loop->t, &here));
	*sums = (struct counters){loop->base.loss + here.loss, loop->base.images + here.images, loop->base.top1 + here.top1, loop->base.top5 + here.top5};
	if (isfinite(sums->loss))
		return ST_OK;
	const struct position *position = &loop->t->position;
	return FAIL(ST_INTERNAL, "training diverged: the loss is not a number any more at epoch %" PRId64 ", step %" PRId64 " (lr=%g); try a lower lr, "
		"a longer warmup_epochs or gradient_clip_norm=1", position->epoch + 1, position->step, lr_at(loop, position->step));
}

/* A checkpoint of the state, unless there is one of this position already. Collective; rank 0's saver writes it while training goes on. */
static enum status state_save(struct loop *loop)
{
	struct training *t = loop->t;
	if (loop->saved_step == t->position.step && loop->saved_epoch == t->position.epoch)
		return ST_OK;
	double started = clock_seconds();
	TRY(counters_now(loop, &t->position.train));
	if (t->rank == 0)
		TRY(saver_save(loop->saver, &t->position, &t->machine));
	loop->saved_step = t->position.step;
	loop->saved_epoch = t->position.epoch;
	double pause = clock_seconds() - started;
	loop->reported_seconds += pause;
	loop->epoch_paused += pause;
	return ST_OK;
}

static enum status step_report(struct loop *loop, double lr)
{
	struct training *t = loop->t;
	const struct position *position = &t->position;
	struct counters sums;
	TRY(counters_now(loop, &sums));
	double now = clock_seconds(), images = sums.images - loop->reported.images;
	struct report_step report = {
		.epoch = position->epoch + 1,
		.step = position->step,
		.step_in_epoch = position->step_in_epoch,
		.steps_in_epoch = t->identity.steps_per_epoch,
		.loss = (sums.loss - loop->reported.loss) / images,
		.lr = lr,
		.images_per_second = images / (now - loop->reported_seconds),
	};
	report_step(t->report, &report);
	loop->reported = sums;
	loop->reported_seconds = now;
	return ST_OK;
}

/* Whether max_seconds are over: rank 0's clock counts for all. Collective. */
static enum status time_is_up(const struct training *t, bool *up)
{
	struct control_blobs all = {0};
	*up = t->settings->max_seconds > 0 && clock_seconds() - t->started_seconds >= t->settings->max_seconds;
	if (t->settings->max_seconds <= 0 || t->world == 1)
		return ST_OK;
	TRY(records_gather(t, up, sizeof *up, &all));
	*up = all.blobs[0][0] != 0;
	control_blobs_free(&all);
	return ST_OK;
}

static enum status budget_used(const struct loop *loop, bool *used)
{
	TRY(time_is_up(loop->t, used));
	*used = *used || loop->t->position.step >= loop->steps_total;
	return ST_OK;
}

/* Some pictures of the batch at hand as the network sees them. */
static enum status pictures_report(struct loop *loop, int n)
{
	enum { PICTURES_MAX = 32 };
	struct training *t = loop->t;
	int count = n < PICTURES_MAX ? n : PICTURES_MAX, size = t->identity.image_size;
	size_t values = 3 * (size_t)size * (size_t)size;
	float *rendered = malloc(values * sizeof *rendered);
	uint8_t *pixels = malloc(values * (size_t)count);
	enum status status = rendered != NULL && pixels != NULL ? ST_OK : FAIL(ST_MEMORY, "no memory for %d pictures", count);
	const struct normalization *normalization = &t->normalization;
	for (int i = 0; i < count && status == ST_OK; i++) {
		sample_render(&t->dataset->train, &loop->samples[i], normalization, (enum padding_mode)t->settings->padding_mode, rendered);
		for (size_t v = 0; v < values; v++) {
			size_t c = v / ((size_t)size * (size_t)size);
			float level = (rendered[v] * normalization->std[c] + normalization->mean[c]) * 255;
			pixels[(size_t)i * values + v] = (uint8_t)lrintf(fminf(fmaxf(level, 0), 255));
		}
	}
	if (status == ST_OK)
		report_images(t->report, "train/augmented", t->position.step, pixels, (size_t)count, size);
	free(rendered);
	free(pixels);
	return status;
}

/* One step of the running epoch. */
static enum status step_run(struct loop *loop)
{
	struct training *t = loop->t;
	const struct settings *s = t->settings;
	struct position *position = &t->position;
	const struct course_step step = course_step(&t->train, position->step_in_epoch);
	/* Drawn for all that are mixed with each other; computed are this rank's. */
	bool mixed = batch_make(&loop->augmentation, (uint32_t)position->epoch, (uint32_t)position->step_in_epoch, loop->order + step.batch.first,
		(int)step.batch.count, loop->samples);
	if (t->fresh && report_wants_images(t->report))
		TRY(pictures_report(loop, (int)step.batch.count));
	double lr = lr_at(loop, position->step);
	struct update update = {
		.lr = (float)lr,
		.momentum = (float)s->momentum,
		.weight_decay = (float)s->weight_decay,
		.nesterov = s->nesterov,
		.decay_all = s->decay_norm_and_bias,
		.norm_bias_lr_scale = (float)s->norm_bias_lr_scale,
		.gradient_scale = 1,
		.gradient_clip_norm = s->gradient_clip_norm,
		.ema_decay = ema_decay_at(s->ema_decay, position->step),
		.first = t->fresh,
	};
	TRY(step_train(&t->machine, &t->dataset->train, loop->samples + step.own.first, (int)step.own.count, (int)step.total, mixed ? 0 : (float)s->label_smoothing, &update));
	t->fresh = false;
	position->step++;
	position->step_in_epoch++;
	bool last = position->step_in_epoch == t->identity.steps_per_epoch;
	report_tick(t->report, position->epoch + 1, position->step, position->step_in_epoch, t->identity.steps_per_epoch);
	if (last || (s->log_every_steps > 0 && position->step % s->log_every_steps == 0))
		TRY(step_report(loop, lr));
	if (s->checkpoint_every_steps > 0 && position->step % s->checkpoint_every_steps == 0 && !last)
		TRY(state_save(loop));
	return ST_OK;
}

/* Loss and accuracy of all validation images, each counted once. ST_STOPPED when asked to stop meanwhile. */
static enum status validate(struct loop *loop, enum which which, struct report_scores *scores)
{
	struct training *t = loop->t;
	const struct images *images = &t->dataset->validation;
	TRY(t->machine.backend->counters_reset(t->machine.state));
	for (int64_t s = 0, steps = course_steps(&t->validation); s < steps; s++) {
		enum status status = control_pass(t->control);
		if (status == ST_STOPPED)
			TRY(t->machine.backend->counters_reset(t->machine.state));
		TRY(status);
		const struct course_step step = course_step(&t->validation, s);
		batch_plain((uint32_t)(step.batch.first + step.own.first), (int)step.own.count, loop->samples);
		if (step.own.count > 0)
			TRY(step_evaluate(&t->machine, images, loop->samples, (int)step.own.count, which));
	}
	struct counters sums;
	TRY(counters_sum(t, &sums));
	*scores = (struct report_scores){sums.loss / sums.images, sums.top1 / sums.images, sums.top5 / sums.images};
	if (!isfinite(sums.loss))
		return FAIL(ST_INTERNAL, "training diverged: the validation loss is not a number after epoch %" PRId64 "; try a lower lr, a longer warmup_epochs "
			"or gradient_clip_norm=1", t->position.epoch + 1);
	return ST_OK;
}

/* Whether the watched score has not improved for `patience` epochs. */
static bool patience_lost(struct training *t, const struct report_epoch *report)
{
	const struct settings *s = t->settings;
	if (s->early_stopping_patience == 0 || !report->validated)
		return false;
	bool loss = s->early_stopping_metric == STOPPING_LOSS;
	double value = loss ? report->validation.loss : report->validation.accuracy;
	struct position *position = &t->position;
	bool better = position->best_epoch == 0 || (loss ? value < position->best_value : value > position->best_value);
	if (better) {
		position->best_value = value;
		position->best_epoch = report->epoch;
	}
	return report->epoch - position->best_epoch >= s->early_stopping_patience;
}

static enum status histograms_report(const struct loop *loop)
{
	const struct training *t = loop->t;
	struct training_state now = {0};
	TRY(params_alloc(&now.params, t->layout));
	enum status status = t->machine.backend->snapshot(t->machine.state, &now);
	for (int i = 0; i < t->layout->count && status == ST_OK; i++) {
		const struct param *param = &t->layout->all[i];
		if (!param_is_buffer(param))
			report_histogram(t->report, param->name, t->position.step, params_data(&now.params, param), param->count);
	}
	params_free(&now.params);
	return status;
}

/* Validates, reports, and moves the position to the next epoch. An epoch that a budget cut short stays the running one, so that a
 * larger budget can go on with it. */
static enum status epoch_end(struct loop *loop)
{
	struct training *t = loop->t;
	struct position *position = &t->position;
	struct counters sums;
	TRY(counters_now(loop, &sums));
	position->train = loop->base = sums;
	double train_seconds = clock_seconds() - loop->epoch_started - loop->epoch_paused;
	int64_t steps_here = position->step - loop->epoch_first_step;
	struct report_epoch report = {
		.epoch = position->epoch + 1,
		.step = position->step,
		.train = {sums.loss / sums.images, sums.top1 / sums.images, sums.top5 / sums.images},
		.validated = course_images(&t->validation) > 0,
		.ema = t->identity.ema,
		.lr = lr_at(loop, position->step > 0 ? position->step - 1 : 0),
		.images_per_second = steps_here > 0 && train_seconds > 0 ? (double)steps_here * t->settings->batch_size / train_seconds : 0,
	};
	if (report.validated) {
		TRY(validate(loop, WHICH_WEIGHTS, &report.validation));
		if (report.ema) {
			struct report_scores ema;
			TRY(validate(loop, WHICH_EMA, &ema));
			report.ema_accuracy = ema.accuracy;
		}
	}
	TRY(t->machine.backend->counters_reset(t->machine.state));
	report.epoch_seconds = clock_seconds() - loop->epoch_started;
	TRY(report_epoch(t->report, &report));
	bool stale = patience_lost(t, &report);
	if (stale)
		report_note(t->report, "early stopping: no better score since epoch %" PRId64, position->best_epoch);
	position->last = report;
	TRY(budget_used(loop, &loop->budget_over));
	bool whole = position->step_in_epoch == t->identity.steps_per_epoch;
	position->finished = stale || (whole && position->epoch + 1 >= t->settings->epochs);
	if (whole) {
		position->epoch++;
		position->step_in_epoch = 0;
		position->train = loop->base = (struct counters){0};
	}
	bool due = t->settings->checkpoint_every_epochs > 0 && position->epoch % t->settings->checkpoint_every_epochs == 0;
	if (due || position->finished || loop->budget_over)
		TRY(state_save(loop));
	return report_wants_histograms(t->report) ? histograms_report(loop) : ST_OK;
}

static enum status epoch_run(struct loop *loop)
{
	struct training *t = loop->t;
	struct position *position = &t->position;
	order_make((uint64_t)t->settings->seed, (uint32_t)position->epoch, loop->order, t->dataset->train.count);
	loop->base = position->train;
	TRY(t->machine.backend->counters_reset(t->machine.state));
	loop->reported = loop->base;
	loop->epoch_first_step = position->step;
	loop->epoch_started = loop->reported_seconds = clock_seconds();
	loop->epoch_paused = 0;
	while (position->step_in_epoch < t->identity.steps_per_epoch) {
		bool used;
		TRY(budget_used(loop, &used));
		if (used)
			break;
		TRY(saver_check(loop->saver));
		TRY(control_pass(t->control));
		TRY(step_run(loop));
	}
	return epoch_end(loop);
}

enum status training_run(struct training *t)
{
	enum status status = ST_OK;
	const struct settings *s = t->settings;
	struct loop loop = {.t = t, .steps_total = run_steps(s, t->identity.steps_per_epoch), .saved_step = -1};
	loop.augmentation = augmentation_of(t);
	loop.order = malloc((t->dataset->train.count + 1) * sizeof *loop.order); /* a shard may be empty */
	loop.samples = malloc((course_most(&t->train).batch + course_most(&t->validation).batch) * sizeof *loop.samples);
	if (loop.order == NULL || loop.samples == NULL) {
		status = FAIL(ST_MEMORY, "no memory for the order of %zu images", t->dataset->train.count);
		goto done;
	}
	if (t->rank == 0) {
		const struct saver_config config = {.directory = t->opt_ml->checkpoints, .layout = t->layout, .identity = &t->identity,
			.keep = s->keep_checkpoints};
		TRY_DONE(saver_open(&config, &loop.saver));
	}
	/* A checkpoint of a run with a smaller budget may lie at or past this one's end. */
	if (t->position.epoch >= s->epochs)
		t->position.finished = true;
	loop.budget_over = t->position.step >= loop.steps_total;
	while (status == ST_OK && !t->position.finished && !loop.budget_over)
		status = epoch_run(&loop);
	if (status == ST_STOPPED) {
		/* The checkpoint first: it is what a second signal must not cost. */
		enum status saved = state_save(&loop);
		status = saved != ST_OK ? saved : ST_STOPPED;
	}
	if (status == ST_OK || status == ST_STOPPED) {
		enum status written = saver_finish(loop.saver);
		status = written != ST_OK ? written : status;
	}
done:
	saver_close(loop.saver);
	free(loop.order);
	free(loop.samples);
	return status;
}
