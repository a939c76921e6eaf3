/* main.c: the program `serve`: words on the command line, the parts in their order, signals, the end.
 *
 * The socket listens first, then the I/O threads answer /ping, then a thread loads the model. The main thread waits for SIGTERM: the
 * state becomes "draining", for a moment requests are still taken, then those that are there are finished and everything is taken down
 * in the reverse order. A second SIGTERM ends the process at once. */
#include "core/base/clock.h"
#include "core/base/cpu.h"
#include "core/base/log.h"
#include "core/base/opt_ml.h"
#include "core/base/version.h"
#include "serve/connection.h"
#include "serve/listen.h"
#include "serve/server.h"

#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	DRAIN_S_MAX = 24,         /* the platform kills 30 s after SIGTERM */
	DRAIN_LOOK_NS = 10000000,
	CODECS_MAX = 8,
	MANAGERS = 2,             /* models loaded or unloaded at a time */
	IO_THREADS_MIN = 2,
	IO_THREADS_MAX = 8,
	CORES_PER_IO_THREAD = 8,
};

/* --- words on the command line ----------------------------------------------------------------------------------------- */

static enum status print_version(void)
{
	const struct library libraries[] = {{"libmicrohttpd", MHD_get_version()}};
	struct text text = {0};
	return text_print(&text, version_describe(&text, "serve", libraries, sizeof libraries / sizeof libraries[0]));
}

static enum status print_help(void)
{
	struct text text = {0};
	enum status status = text_add(&text,
		"serve: answers /ping and /invocations for a trained ResNet34 as an Amazon SageMaker endpoint does.\n\n"
		"The model is in /opt/ml/model: what `train` wrote, or a .safetensors, .pth, .pt or .ckpt file of a torchvision-style\n"
		"ResNet34.\n\n"
		"  serve             run (the extra word `serve` is what SageMaker appends)\n"
		"  serve --help      this text\n"
		"  serve --version   version, commit, how it was built, libraries\n\n"
		"Exit codes: 0 stopped by SIGTERM, 1 internal error, 2 settings or port, 5 this text cannot be written.\n"
		"A model that cannot be loaded does not end the process: /ping then answers 500 with the reason.\n\n"
		"Settings are environment variables:\n\n");
	return text_print(&text, status == ST_OK ? options_help(&text) : status);
}

static const struct {
	const char *option;
	enum status (*print)(void);
} prints[] = {{"--help", print_help}, {"-h", print_help}, {"--version", print_version}};

/* Runs what one of the table's options asks for. False: no such option is given. */
static bool printed(int count, char **words, enum status *status)
{
	for (int w = 1; w < count; w++)
		for (size_t i = 0; i < sizeof prints / sizeof prints[0]; i++)
			if (strcmp(words[w], prints[i].option) == 0) {
				*status = prints[i].print();
				return true;
			}
	return false;
}

/* --- the parts --------------------------------------------------------------------------------------------------------- */

static void predict(void *engine, const float *const *images, size_t n, float *logits)
{
	engine_run(engine, images, n, logits);
}

static enum log_level level_of(int64_t python_level)
{
	return python_level <= 10 ? LOG_DEBUG : python_level <= 20 ? LOG_INFO : python_level <= 30 ? LOG_WARNING : LOG_ERROR;
}

static enum status server_configure(int count, char **words, struct server *server)
{
	TRY(options_read(&server->options));
	log_level_set(level_of(server->options.log_level));
	log_info("smelt serve version=%s commit=%s", smelt_version(), smelt_commit());
	for (int w = 1; w < count; w++)
		if (strcmp(words[w], "serve") != 0)
			log_warning("argument \"%s\" is not known and ignored; settings come from the environment (see serve --help)", words[w]);
	enum cpu cpu;
	TRY(cpu_choose(&cpu)); /* a wrong SMELT_CPU is a wrong setting, not a model's fault */
	TRY(opt_ml_open(&server->opt_ml));
	if (media_of_accept(server->options.default_accept, MEDIA_JSON, &server->default_media, &server->default_type) != HTTP_OK)
		return ST_SETTINGS;
	server->page = server->options.page == PAGE_ON || (server->options.page == PAGE_AUTO && !options_platform());
	metrics_init(&server->metrics);
	return ST_OK;
}

static enum status server_open(struct server *server)
{
	const struct options *options = &server->options;
	struct models_config models = {
		.options = {
			.labels_path = options->labels_path[0] != '\0' ? options->labels_path : NULL,
			.mean = options->mean_given ? options->mean : NULL,
			.std = options->std_given ? options->std : NULL,
			.image_size = (int)options->image_size,
			.batch_max = (int)options->batch_max,
			.bytes_max = (size_t)options->memory_mb_max << 20,
		},
		.metrics = &server->metrics,
		.open = model_open,
		.close = model_close,
	};
	TRY(threads_open((unsigned)options->threads, &server->threads));
	models.threads = server->threads;
	TRY(models_open(&models, &server->models));
	struct batch_config batch = {
		.images_max = (size_t)options->batch_max,
		.places = (size_t)options->queue_max,
		.wait_us_max = options->wait_us_max,
		.predict = predict,
		.metrics = &server->metrics,
	};
	TRY(batch_open(&batch, &server->batch));
	unsigned codecs = (threads_available() + 1) / 2;
	TRY(workers_open(codecs < CODECS_MAX ? codecs : CODECS_MAX, &server->codecs));
	return workers_open(MANAGERS, &server->managers);
}

/* Bottom-up: whoever may still hand something on ends first. */
static void server_close(struct server *server)
{
	workers_close(server->managers);
	workers_close(server->codecs);
	batch_close(server->batch);
	models_close(server->models);
	threads_close(server->threads);
}

/* --- the only model ---------------------------------------------------------------------------------------------------- */

struct loader {
	struct task task;
	struct server *server;
	_Atomic bool running;
};

static void load_model(struct task *task)
{
	struct loader *loader = (struct loader *)(void *)((char *)task - offsetof(struct loader, task));
	struct server *server = loader->server;
	struct model *model = NULL;
	int64_t started = clock_us();
	if (models_load(server->models, MODELS_ONLY, server->opt_ml.model, server->opt_ml.model) != HTTP_OK) {
		state_set(&server->state, STATE_FAILED, status_message());
	} else {
		if (models_acquire(server->models, MODELS_ONLY, &model) == HTTP_OK) {
			log_info("engine %s", engine_description(model->engine));
			models_release(server->models, model);
		}
		log_info("model loaded ms=%.1f", (double)(clock_us() - started) / 1e3);
		state_set(&server->state, STATE_READY, NULL);
	}
	atomic_store(&loader->running, false);
}

/* --- signals ----------------------------------------------------------------------------------------------------------- */

/* SIGTERM and SIGINT are only taken where main waits for them. */
static enum status signals_block(sigset_t *stop)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigemptyset(stop);
	sigaddset(stop, SIGTERM);
	sigaddset(stop, SIGINT);
	int error = pthread_sigmask(SIG_BLOCK, stop, NULL);
	if (error != 0 || sigaction(SIGPIPE, &ignore, NULL) != 0)
		return FAIL(ST_INTERNAL, "signals cannot be set up: %s", strerror(error != 0 ? error : errno));
	return ST_OK;
}

/* Waits until nothing is under way. False: time is up. A second signal does not come back. */
static bool drain(struct server *server, struct front *front, const struct loader *loader, const sigset_t *stop)
{
	int64_t started = clock_us(), taken_us = server->options.drain_ms * 1000;
	for (int64_t now = started; now < started + (int64_t)DRAIN_S_MAX * 1000000; now = clock_us()) {
		if (now >= started + taken_us) {
			front_quiesce(front);
			if (front_requests(front) == 0 && !atomic_load(&loader->running))
				return true;
		}
		if (sigtimedwait(stop, NULL, &(struct timespec){.tv_nsec = DRAIN_LOOK_NS}) > 0) {
			log_warning("second signal: ended with %zu requests in flight", front_requests(front));
			_exit(front_requests(front) == 0 ? 0 : 1);
		}
	}
	return false;
}

static enum status serve(struct server *server, const sigset_t *stop)
{
	int listen_fd;
	struct front *front = NULL;
	struct loader loader = {.task.run = load_model, .server = server};
	enum status status = ST_OK;
	TRY(listen_open((int)server->options.port, &listen_fd));
	TRY_DONE(server_open(server));
	unsigned io_threads = threads_available() / CORES_PER_IO_THREAD;
	io_threads = io_threads < IO_THREADS_MIN ? IO_THREADS_MIN : io_threads > IO_THREADS_MAX ? IO_THREADS_MAX : io_threads;
	status = front_open(server, listen_fd, io_threads, &front);
	listen_fd = -1;
	if (status != ST_OK)
		goto done;
	log_info("listening port=%lld threads=%u io_threads=%u page=%s", (long long)server->options.port,
		threads_count(server->threads), io_threads, server->page ? "on" : "off");
	if (server->options.multi_model) {
		state_set(&server->state, STATE_READY, NULL);
	} else {
		atomic_store(&loader.running, true);
		workers_submit(server->managers, &loader.task);
	}
	int signal = 0;
	while (sigwait(stop, &signal) != 0) {
	}
	log_info("signal=%d requests_in_flight=%zu", signal, front_requests(front));
	state_set(&server->state, STATE_DRAINING, NULL);
	if (!drain(server, front, &loader, stop)) {
		log_warning("time is up: ended with %zu requests in flight", front_requests(front));
		_exit(0);
	}
done:
	if (listen_fd >= 0)
		close(listen_fd);
	front_close(front);
	server_close(server);
	return status;
}

int main(int count, char **words)
{
	static struct server server; /* large, and looked at by every thread */
	sigset_t stop;
	enum status status = ST_OK;
	if (!printed(count, words, &status)) {
		status = signals_block(&stop);
		if (status == ST_OK)
			status = server_configure(count, words, &server);
		if (status == ST_OK)
			status = serve(&server, &stop);
	}
	if (status != ST_OK)
		log_error("%s", status_message());
	return status_exit_code(status);
}
