/* main.c: the program `train`: words on the command line, signals, the failure file, the exit code. The work is in job.c. */
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/opt_ml.h"
#include "core/base/version.h"
#include "core/comm/comm.h"
#include "core/model/resnet.h"
#include "train/job.h"
#include "train/ranks/failure.h"
#include "train/ranks/stop.h"
#include "train/report/metrics.h"
#include "train/selftest/selftest.h"
#include "train/settings/settings.h"

#include <protobuf-c/protobuf-c.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static enum status settings_of_job(struct opt_ml *opt_ml, struct settings *settings)
{
	TRY(opt_ml_open(opt_ml));
	return settings_load(opt_ml, settings);
}

static enum status print_version(void)
{
	const struct library libraries[] = {{"Gloo", comm_gloo_version()}, {"protobuf-c", protobuf_c_version()}};
	struct text text = {0};
	return text_print(&text, version_describe(&text, "train", libraries, sizeof libraries / sizeof libraries[0]));
}

static enum status print_help(void)
{
	struct text text = {0};
	enum status status = text_add(&text,
		"train: trains ResNet34 on images as an Amazon SageMaker training job does.\n\n"
		"It takes what SageMaker gives: /opt/ml/input/config/*.json and /opt/ml/input/data/<channel>/, and writes /opt/ml/model,\n"
		"/opt/ml/output and /opt/ml/checkpoints. The environment variable SAGEMAKER_BASE_DIR names another place than /opt/ml.\n\n"
		"  train                 run the job (the extra word `train` is what SageMaker appends)\n"
		"  train --help          this text\n"
		"  train --print-config  the settings that the job would have, and where each comes from\n"
		"  train --summary       the network of those settings: shapes, parameters, multiply-accumulates\n"
		"  train --metrics       metric definitions for the SageMaker API, as JSON\n"
		"  train --selftest      this machine's GPUs against its CPU, and how fast they are: a report to send\n"
		"  train --version       version, commit, how it was built, libraries\n\n"
		"Exit codes: 0 done or stopped cleanly, 1 internal error, 2 settings, 3 data, 4 device or peer, 5 disk.\n\n");
	return text_print(&text, status == ST_OK ? settings_help(&text) : status);
}

static enum status print_config(void)
{
	struct opt_ml opt_ml;
	struct settings settings;
	struct text text = {0};
	TRY(settings_of_job(&opt_ml, &settings));
	return text_print(&text, settings_print(&settings, &text));
}

static enum status print_summary(void)
{
	struct opt_ml opt_ml;
	struct settings settings;
	struct network network;
	struct text text = {0};
	TRY(settings_of_job(&opt_ml, &settings));
	TRY(network_build(&network, settings_stem(&settings, settings.pretrained[0] != '\0'), settings.image_size != 0 ? settings.image_size : 32,
		settings.num_classes != 0 ? settings.num_classes : 100));
	return text_print(&text, network_summary(&network, &text));
}

static enum status print_metrics(void)
{
	struct text text = {0};
	return text_print(&text, metrics_definitions(&text));
}

static const struct {
	const char *option;
	enum status (*print)(void);
} prints[] = {
	{"--help", print_help}, {"-h", print_help}, {"--version", print_version}, {"--print-config", print_config}, {"--summary", print_summary},
	{"--metrics", print_metrics}, {"--selftest", selftest_run},
};

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

static enum status job_begin(int count, char **words, struct opt_ml *opt_ml, struct settings *settings)
{
	log_info("smelt train version=%s commit=%s", smelt_version(), smelt_commit());
	for (int w = 1; w < count; w++)
		if (strcmp(words[w], "train") != 0)
			log_warning("argument \"%s\" is not known and ignored; settings come from hyperparameters.json (see train --help)", words[w]);
	TRY(settings_load(opt_ml, settings));
	log_level_set((enum log_level)settings->log_level);
	TRY(opt_ml_configure(opt_ml));
	struct text text = {0};
	enum status status = settings_print(settings, &text);
	for (char *line = text.data; status == ST_OK && line != NULL && *line != '\0';) {
		char *end = strchr(line, '\n');
		*end = '\0';
		log_info("setting %s", line);
		line = end + 1;
	}
	text_free(&text);
	return status;
}

int main(int count, char **words)
{
	double started_seconds = clock_seconds();
	umask(022); /* what we write is uploaded by another process */
	enum status status = ST_OK;
	if (printed(count, words, &status)) {
		if (status != ST_OK)
			log_error("%s", status_message());
		return status_exit_code(status);
	}
	struct opt_ml opt_ml;
	struct settings settings;
	status = stop_install();
	if (status == ST_OK)
		status = opt_ml_open(&opt_ml);
	if (status == ST_OK)
		status = failure_open(opt_ml.failure);
	if (status == ST_OK)
		status = opt_ml_make(&opt_ml);
	if (status == ST_OK)
		status = job_begin(count, words, &opt_ml, &settings);
	if (status == ST_OK)
		status = job_run(&opt_ml, &settings, started_seconds);
	if (status != ST_OK && status != ST_STOPPED)
		failure_write(status_message());
	failure_close();
	return status_exit_code(status);
}
