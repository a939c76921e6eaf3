/* job.c: see job.h. The parent of a host reads the data; each rank trains with what it inherits. */
#include "train/job.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "train/compute.h"
#include "train/epoch.h"
#include "train/rank.h"
#include "train/ranks/stop.h"

#include <inttypes.h>
#include <stdlib.h>

/* Used when neither a channel nor the setting says what to validate with. */
#define VALIDATION_SPLIT_DEFAULT 0.1

struct job {
	const struct opt_ml *opt_ml;
	struct settings settings;
	struct compute compute;
	struct resource resource;
	struct channels channels;
	struct dataset dataset;
	struct shards shards;
	double started_seconds;
};

/* --- the data: once a host ------------------------------------------------------------------------------------------ */

/* What the hosts' data say together; all of it is needed before the first rank begins. */
struct loading {
	struct job *job;
	struct control *control; /* NULL: this is the only host */
};

static enum status classes_agree(void *context, bool sharded, struct collection *train)
{
	const struct loading *loading = context;
	return shards_classes(loading->control, &loading->job->resource, sharded, train);
}

static enum status data_read(struct job *job, const struct place *place)
{
	struct settings *s = &job->settings;
	struct loading loading = {job, place->hosts > 1 ? place->control : NULL};
	if (s->batch_size_per_device != 0)
		s->batch_size = s->batch_size_per_device * place->world;
	if (loading.control != NULL)
		TRY(compute_compare(&job->compute, loading.control, place->host, place->hosts));
	TRY(channels_find(job->opt_ml, &job->channels));
	const struct dataset_request request = {
		.channels = &job->channels,
		.image_size = s->image_size != 0 ? s->image_size : 32,
		.classes = s->num_classes,
		.validation_split = s->validation_split,
		.validation_split_default = VALIDATION_SPLIT_DEFAULT,
		.seed = (uint64_t)s->seed,
		.stopped = stop_requested,
		.agree = place->hosts > 1 ? classes_agree : NULL,
		.context = &loading,
	};
	double started = clock_seconds();
	TRY(dataset_load(&request, &job->dataset));
	TRY(shards_join(loading.control, &job->resource, &job->dataset, &job->shards));
	const struct dataset *d = &job->dataset;
	const struct course course = {.hosts = place->hosts, .images = job->shards.images, .sharded = job->shards.sharded};
	log_info("data kind=\"%s\" train_images=%zu validation_images=%zu validation_from=\"%s\" test_images=%zu classes=%d image_size=%d seconds=%.2f", d->kind,
		d->train.count, d->validation.count, d->validation_source, d->test.count, d->classes, d->train.size, clock_seconds() - started);
	if (job->shards.sharded)
		log_info("data sharded=true train_images_of_all_hosts=%" PRIu64, course_images(&course));
	return settings_check_data(s, (size_t)course_images(&course), job->shards.sharded, d->train.size, d->classes);
}

static enum status job_load(void *context, const struct place *place)
{
	stop_follow(place->control);
	enum status status = data_read(context, place);
	stop_follow(NULL);
	return status;
}

static enum status job_rank(void *context, const struct place *place)
{
	const struct job *job = context;
	const struct rank_inputs inputs = {.opt_ml = job->opt_ml, .settings = &job->settings, .compute = &job->compute, .channels = &job->channels, .dataset = &job->dataset,
		.shards = &job->shards, .host = resource_host(&job->resource), .interface_name = job->resource.interface,
		.started_seconds = job->started_seconds};
	return rank_run(&inputs, place);
}

enum status job_run(const struct opt_ml *opt_ml, const struct settings *settings, double started_seconds)
{
	enum status status = ST_OK;
	struct text common = {0};
	struct job *job = calloc(1, sizeof *job);
	if (job == NULL)
		return FAIL(ST_MEMORY, "no memory for a job");
	job->opt_ml = opt_ml;
	job->settings = *settings;
	job->started_seconds = started_seconds;
	TRY_DONE(resource_load(opt_ml, &job->resource));
	TRY_DONE(compute_choose(settings, stop_requested, &job->compute));
	TRY_DONE(settings_common(settings, &common));
	TRY_DONE(compute_common(&job->compute, &common));
	const struct ranks_config config = {
		.resource = &job->resource,
		.devices = job->compute.devices,
		.settings = text_string(&common),
		.port = settings->rendezvous_port,
		.rendezvous_timeout_us = (int64_t)settings->rendezvous_timeout_seconds * 1000000,
		.peer_timeout_us = (int64_t)settings->peer_timeout_seconds * 1000000,
		.collective_timeout_us = (int64_t)settings->collective_timeout_seconds * 1000000,
		.load = job_load,
		.rank = job_rank,
		.context = job,
	};
	status = ranks_run(&config);
done:
	text_free(&common);
	dataset_free(&job->dataset);
	shards_free(&job->shards);
	resource_free(&job->resource);
	free(job);
	return status;
}
