/* own_thread.h: threads that a room keeps for itself. Signals are the business of the threads that were there before: these take none but what a fault of
 * their own raises. */
#pragma once

#include <pthread.h>

/* As pthread_create: 0, or why it cannot be started as an errno. Threads that `run` starts take no signals either. */
int own_thread_start(pthread_t *thread, void *(*run)(void *context), void *context);
