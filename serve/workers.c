/* workers.c: see workers.h. One lock guards the list; it is never held while a task runs. */
#include "serve/workers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	struct task *first, **last;
	bool stop;
	unsigned count;
	pthread_t threads[];
};

static void *work(void *context)
{
	struct workers *workers = context;
	pthread_mutex_lock(&workers->lock);
	for (;;) {
		while (workers->first == NULL && !workers->stop)
			pthread_cond_wait(&workers->filled, &workers->lock);
		struct task *task = workers->first;
		if (task == NULL)
			break;
		workers->first = task->next;
		if (workers->first == NULL)
			workers->last = &workers->first;
		pthread_mutex_unlock(&workers->lock);
		task->run(task); /* the task may be gone afterwards */
		pthread_mutex_lock(&workers->lock);
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

enum status workers_open(unsigned count, struct workers **workers)
{
	struct workers *made = calloc(1, sizeof *made + count * sizeof made->threads[0]);
	if (made == NULL)
		return FAIL(ST_MEMORY, "no memory for worker threads");
	made->last = &made->first;
	pthread_mutex_init(&made->lock, NULL);
	pthread_cond_init(&made->filled, NULL);
	for (; made->count < count; made->count++) {
		int error = pthread_create(&made->threads[made->count], NULL, work, made);
		if (error != 0) {
			workers_close(made);
			return FAIL(ST_MEMORY, "a worker thread cannot be started: %s", strerror(error));
		}
	}
	*workers = made;
	return ST_OK;
}

void workers_submit(struct workers *workers, struct task *task)
{
	task->next = NULL;
	pthread_mutex_lock(&workers->lock);
	*workers->last = task;
	workers->last = &task->next;
	pthread_cond_signal(&workers->filled);
	pthread_mutex_unlock(&workers->lock);
}

void workers_close(struct workers *workers)
{
	if (workers == NULL)
		return;
	pthread_mutex_lock(&workers->lock);
	workers->stop = true;
	pthread_cond_broadcast(&workers->filled);
	pthread_mutex_unlock(&workers->lock);
	for (unsigned i = 0; i < workers->count; i++)
		pthread_join(workers->threads[i], NULL);
	pthread_cond_destroy(&workers->filled);
	pthread_mutex_destroy(&workers->lock);
	free(workers);
}
