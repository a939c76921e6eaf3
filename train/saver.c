/* saver.c: see saver.h. While `busy`, the copy and what belongs to it are the writer's, else the training thread's. */
#include "train/saver.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/own_thread.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct saver {
	struct saver_config config;
	struct training_state state;
	struct position position;
	int64_t waited_us, snapshot_us;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under the lock */
	bool busy, ending;
	enum status status; /* the first failure; it stays, and nothing is written after it */
	char message[STATUS_MESSAGE_BYTES_MAX];
	bool told; /* saver_close need not */
};

static enum status copy_write(const struct saver *saver)
{
	const struct saver_config *config = &saver->config;
	const struct position *position = &saver->position;
	int64_t started = clock_us();
	TRY(checkpoint_write(config->directory, config->layout, config->identity, position, &saver->state, config->keep));
	log_info("checkpoint saved epoch=%" PRId64 " step=%" PRId64 " write_seconds=%.3f snapshot_ms=%.1f waited_ms=%.1f", position->epoch + 1,
		position->step, (double)(clock_us() - started) * 1e-6, (double)saver->snapshot_us * 1e-3, (double)saver->waited_us * 1e-3);
	return ST_OK;
}

static void *writer_run(void *context)
{
	struct saver *saver = context;
	pthread_mutex_lock(&saver->lock);
	for (;;) {
		while (!saver->busy && !saver->ending)
			pthread_cond_wait(&saver->changed, &saver->lock);
		if (!saver->busy)
			break;
		pthread_mutex_unlock(&saver->lock);
		enum status status = copy_write(saver);
		pthread_mutex_lock(&saver->lock);
		if (status != ST_OK) {
			saver->status = status;
			snprintf(saver->message, sizeof saver->message, "%s", status_message());
		}
		saver->busy = false;
		pthread_cond_broadcast(&saver->changed);
	}
	pthread_mutex_unlock(&saver->lock);
	return NULL;
}

enum status saver_open(const struct saver_config *config, struct saver **saver)
{
	struct saver *made = calloc(1, sizeof *made);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for the writer of checkpoints");
	made->config = *config;
	pthread_mutex_init(&made->lock, NULL);
	pthread_cond_init(&made->changed, NULL);
	enum status status = state_alloc(&made->state, config->layout, config->identity->ema);
	int error = status == ST_OK ? own_thread_start(&made->thread, writer_run, made) : 0;
	if (error != 0)
		status = FAIL(ST_MEMORY, "the thread that writes checkpoints cannot be started: %s", strerror(error));
	if (status == ST_OK) {
		*saver = made;
		return ST_OK;
	}
	state_free(&made->state);
	pthread_cond_destroy(&made->changed);
	pthread_mutex_destroy(&made->lock);
	free(made);
	return status;
}

/* What went wrong, as this thread's failure. `wait`: until nothing is being written. */
static enum status outcome(struct saver *saver, bool wait)
{
	if (saver == NULL)
		return ST_OK;
	pthread_mutex_lock(&saver->lock);
	while (wait && saver->busy)
		pthread_cond_wait(&saver->changed, &saver->lock);
	enum status status = saver->status;
	if (status != ST_OK) {
		saver->told = true;
		status = FAIL(status, "%s", saver->message);
	}
	pthread_mutex_unlock(&saver->lock);
	return status;
}

enum status saver_check(struct saver *saver)
{
	return outcome(saver, false);
}

enum status saver_finish(struct saver *saver)
{
	return outcome(saver, true);
}

enum status saver_save(struct saver *saver, const struct position *position, const struct machine *machine)
{
	int64_t called = clock_us();
	TRY(saver_finish(saver));
	int64_t started = clock_us();
	TRY(machine->backend->snapshot(machine->state, &saver->state));
	saver->position = *position;
	saver->waited_us = started - called;
	saver->snapshot_us = clock_us() - started;
	pthread_mutex_lock(&saver->lock);
	saver->busy = true;
	pthread_cond_broadcast(&saver->changed);
	pthread_mutex_unlock(&saver->lock);
	return ST_OK;
}

void saver_close(struct saver *saver)
{
	if (saver == NULL)
		return;
	pthread_mutex_lock(&saver->lock);
	saver->ending = true;
	pthread_cond_broadcast(&saver->changed);
	pthread_mutex_unlock(&saver->lock);
	pthread_join(saver->thread, NULL);
	if (saver->status != ST_OK && !saver->told)
		log_error("%s", saver->message);
	state_free(&saver->state);
	pthread_cond_destroy(&saver->changed);
	pthread_mutex_destroy(&saver->lock);
	free(saver);
}
