/* rank_bed.h: several backends that train one network in one process, for tests of sums over ranks.
 *
 * Each rank is a backend driven by a thread of its own for one step at a time. Their reduction adds in the order of ranks in double; what is
 * handed over cannot be read until it is finished, and must not have been written. What breaks a rule there aborts: the ranks are not on
 * cmocka's thread. */
#pragma once

#include "test/unit/cpu_bed.h"

#include <pthread.h>

enum { RANKS_MAX = 4, TOTAL = 8, PIECES_MAX = RESNET_UNITS + 2 };

/* --- ranks that are threads ----------------------------------------------------------------------------------------- */

struct piece {
	float *values, *kept;
	size_t count;
};

struct rank {
	struct group *group;
	struct reduction reduction;
	struct threads *threads;
	struct machine machine;
	pthread_t thread;

	/* What is handed over, and figures since the rank was opened. */
	struct piece pieces[PIECES_MAX];
	size_t pieces_count;
	double *doubles;
	size_t doubles_count, floats_started, doubles_summed, sums, finishes;

	/* The step at hand. */
	const struct sample *samples;
	int n;
	bool forward_only;
	enum status status;
};

struct group {
	int world;
	const struct bed *bed;
	struct update update;
	pthread_barrier_t barrier;
	struct rank ranks[RANKS_MAX];
};

static const float UNREADABLE = NAN;

static inline enum status rank_start(void *context, float *values, size_t count)
{
	struct rank *rank = context;
	MUST(rank->pieces_count < PIECES_MAX && count > 0);
	struct piece *piece = &rank->pieces[rank->pieces_count++];
	*piece = (struct piece){values, malloc(count * sizeof *values), count};
	MUST(piece->kept != NULL);
	memcpy(piece->kept, values, count * sizeof *values);
	for (size_t i = 0; i < count; i++)
		values[i] = UNREADABLE;
	rank->floats_started += count;
	return ST_OK;
}

static inline enum status rank_finish(void *context)
{
	struct rank *rank = context;
	struct group *group = rank->group;
	pthread_barrier_wait(&group->barrier);
	for (size_t p = 0; p < rank->pieces_count; p++) {
		const struct piece *piece = &rank->pieces[p];
		/* Everything but the last piece fills a bucket. */
		MUST(p + 1 == rank->pieces_count || piece->count * sizeof(float) >= rank->reduction.bucket_bytes);
		for (size_t i = 0; i < piece->count; i++) {
			double sum = 0;
			MUST(isnan(piece->values[i]));
			for (int r = 0; r < group->world; r++) {
				const struct rank *other = &group->ranks[r];
				MUST(other->pieces_count == rank->pieces_count && other->pieces[p].count == piece->count);
				sum += (double)other->pieces[p].kept[i];
			}
			piece->values[i] = (float)sum;
		}
	}
	pthread_barrier_wait(&group->barrier);
	for (size_t p = 0; p < rank->pieces_count; p++)
		free(rank->pieces[p].kept);
	pthread_barrier_wait(&group->barrier);
	rank->pieces_count = 0;
	rank->finishes++;
	return ST_OK;
}

static inline enum status rank_sum(void *context, double *values, size_t count)
{
	struct rank *rank = context;
	struct group *group = rank->group;
	double *sums = calloc(count, sizeof *sums);
	MUST(sums != NULL);
	rank->doubles = values;
	rank->doubles_count = count;
	rank->doubles_summed += count;
	rank->sums++;
	pthread_barrier_wait(&group->barrier);
	for (int r = 0; r < group->world; r++) {
		MUST(group->ranks[r].doubles_count == count);
		for (size_t i = 0; i < count; i++)
			sums[i] += group->ranks[r].doubles[i];
	}
	pthread_barrier_wait(&group->barrier);
	memcpy(values, sums, count * sizeof *sums);
	free(sums);
	return ST_OK;
}

static inline bool always(void)
{
	return true;
}

#define CLIP_NORM 0.5
static const struct update plain_update = {.lr = 0.02f, .momentum = 0.9f, .weight_decay = 5e-4f, .nesterov = true, .norm_bias_lr_scale = 2,
	.gradient_scale = 1, .gradient_clip_norm = CLIP_NORM, .ema_decay = 0.9f, .first = true};

static inline struct backend_config config_of(const struct bed *bed, struct threads *threads)
{
	return (struct backend_config){.network = &bed->network, .layout = &bed->layout, .batch_max = TOTAL,
		.normalization = {{0.5f, 0.4f, 0.3f}, {0.2f, 0.25f, 0.3f}}, .threads = threads, .ema = true, .training = true, .norm_momentum = 0.3};
}

static inline void group_open(struct group *group, const struct bed *bed, const struct backend *backend, int world, bool sync, size_t bucket_bytes,
	const struct training_state *start)
{
	*group = (struct group){.world = world, .bed = bed, .update = plain_update};
	assert_int_equal(pthread_barrier_init(&group->barrier, NULL, (unsigned)world), 0);
	for (int r = 0; r < world; r++) {
		struct rank *rank = &group->ranks[r];
		rank->group = group;
		rank->reduction = (struct reduction){.rank = r, .world = world, .bucket_bytes = bucket_bytes, .context = rank, .start = rank_start,
			.finish = rank_finish, .sum = rank_sum};
		assert_int_equal(threads_open(1 + (unsigned)r % 2, &rank->threads), ST_OK);
		struct backend_config config = config_of(bed, rank->threads);
		config.reduction = &rank->reduction;
		config.sync_batch_norm = sync;
		/* With other ranks in the sums a step is not abandoned, whoever wants to stop. */
		rank->machine = (struct machine){.backend = backend, .network = &bed->network, .stopped = always, .shared = true};
		assert_int_equal(backend->open(&config, &rank->machine.state), ST_OK);
		assert_int_equal(backend->state_write(rank->machine.state, start), ST_OK);
	}
}

static inline void group_close(struct group *group)
{
	for (int r = 0; r < group->world; r++) {
		group->ranks[r].machine.backend->close(group->ranks[r].machine.state);
		threads_close(group->ranks[r].threads);
	}
	pthread_barrier_destroy(&group->barrier);
}

static inline void *rank_run(void *context)
{
	struct rank *rank = context;
	const struct images *images = &rank->group->bed->images;
	int total = 0;
	for (int r = 0; r < rank->group->world; r++)
		total += rank->group->ranks[r].n;
	if (rank->forward_only)
		rank->status = step_forward(&rank->machine, images, rank->samples, rank->n, total, 0.1f, true, WHICH_WEIGHTS);
	else
		rank->status = step_train(&rank->machine, images, rank->samples, rank->n, total, 0.1f, &rank->group->update);
	return NULL;
}

/* One step of all ranks, rank r on shares[r] images, those of the step's whole batch in the order of ranks. */
static inline void group_run(struct group *group, int step, const int *shares, bool forward_only)
{
	const struct sample *samples = group->bed->samples + step * TOTAL;
	for (int r = 0; r < group->world; r++) {
		struct rank *rank = &group->ranks[r];
		rank->n = shares[r];
		rank->samples = samples;
		rank->forward_only = forward_only;
		samples += shares[r];
	}
	for (int r = 0; r < group->world; r++)
		assert_int_equal(pthread_create(&group->ranks[r].thread, NULL, rank_run, &group->ranks[r]), 0);
	for (int r = 0; r < group->world; r++) {
		assert_int_equal(pthread_join(group->ranks[r].thread, NULL), 0);
		assert_int_equal(group->ranks[r].status, ST_OK);
	}
	group->update.first = forward_only && group->update.first;
}

/* --- a small network ------------------------------------------------------------------------------------------------ */

static inline int few(int channels)
{
	return channels < 64 ? channels : channels <= 128 ? 32 : 64;
}

static inline void narrow_bed_open(struct bed *bed)
{
	bed_open(bed, STEM_IMAGENET, SLOW ? 8 : 16, 2);
	struct network *network = &bed->network;
	for (int u = 0; u < RESNET_UNITS; u++) {
		network->units[u].C = few(network->units[u].C);
		network->units[u].K = few(network->units[u].K);
	}
	for (int t = 0; t < network->tensors_count; t++)
		network->tensors[t].C = few(network->tensors[t].C);
	network->pool.C = few(network->pool.C);
	network->head.C = few(network->head.C);
	params_layout_build(&bed->layout, network);
}

/* What the network has of gradients that are not always zero. */
static inline size_t live_count(const struct bed *bed)
{
	size_t count = (size_t)(bed->network.head.classes * (bed->network.head.C + 1));
	for (int u = 0; u < RESNET_UNITS; u++) {
		const struct unit *unit = &bed->network.units[u];
		count += (size_t)(unit->K * (unit->C * unit_taps_live(unit) + 2));
	}
	return count;
}

/* --- what a backend holds after a step ------------------------------------------------------------------------------ */

struct held {
	struct training_state state;
	float *gradients;
	double norm_squared;
	struct counters counters;
};

static inline void held_alloc(struct held *held, const struct bed *bed)
{
	state_alloc(&held->state, &bed->layout, true);
	held->gradients = zeros(bed->layout.weights_count, sizeof(float));
}

static inline void held_free(struct held *held)
{
	state_free(&held->state);
	free(held->gradients);
}

static inline void held_read(struct held *held, const struct machine *machine)
{
	assert_int_equal(machine->backend->snapshot(machine->state, &held->state), ST_OK);
	assert_int_equal(machine->backend->gradients_read(machine->state, held->gradients), ST_OK);
	assert_int_equal(machine->backend->gradient_norm_squared(machine->state, &held->norm_squared), ST_OK);
	assert_int_equal(machine->backend->counters_read(machine->state, &held->counters), ST_OK);
}

/* The counters are each rank's own. */
static inline void held_equal(const struct held *a, const struct held *b, const struct params_layout *layout)
{
	size_t weights = layout->weights_count * sizeof(float), buffers = layout->buffers_count * sizeof(float);
	assert_memory_equal(a->gradients, b->gradients, weights);
	assert_memory_equal(a->state.params.weights, b->state.params.weights, weights);
	assert_memory_equal(a->state.params.buffers, b->state.params.buffers, buffers);
	assert_memory_equal(a->state.momentum, b->state.momentum, weights);
	assert_memory_equal(a->state.ema.weights, b->state.ema.weights, weights);
	assert_memory_equal(a->state.ema.buffers, b->state.ema.buffers, buffers);
	assert_true(a->norm_squared == b->norm_squared);
	assert_int_equal(a->state.params.batches_tracked, b->state.params.batches_tracked);
}

/* What rank 0 holds; every other rank holds the same bits. */
static inline void group_read(struct group *group, struct held *held)
{
	struct held other;
	held_alloc(&other, group->bed);
	held_read(held, &group->ranks[0].machine);
	for (int r = 1; r < group->world; r++) {
		held_read(&other, &group->ranks[r].machine);
		held_equal(held, &other, &group->bed->layout);
		held->counters.loss += other.counters.loss;
		held->counters.images += other.counters.images;
		held->counters.top1 += other.counters.top1;
		held->counters.top5 += other.counters.top5;
	}
	held_free(&other);
}
