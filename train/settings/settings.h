/* settings.h: what a run is asked to do.
 *
 * In: hyperparameters.json and the environment. Out: one struct settings, checked, and the texts made from the same table:
 * --help, --print-config, the README's table, the fingerprint that a checkpoint carries.
 *
 * Each value comes from the first of these that has it:
 *     hyperparameter (hyperparameters.json)   environment variable SMELT_<NAME>   the recipe   the default in the table
 * SETTINGS_TABLE is the one place that knows a setting: a row makes the field of the struct, the parser, the range check and the
 * documentation. To add a setting, add a row; to add a bundle, add rows to train/settings/recipe.c. */
#pragma once

#include "core/backend/backend.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/opt_ml.h"
#include "core/base/status.h"
#include "core/base/text.h"
#include "train/batch.h"
#include "train/settings/recipe.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- the words of settings that are one of a few ---------------------------------------------------------------------- */

#define SETTING_CONSTANT(constant, word) constant,

#define LR_SCHEDULE_LIST(X) X(LR_COSINE, "cosine") X(LR_LINEAR, "linear") X(LR_STEP, "step") X(LR_CONSTANT, "constant")
enum lr_schedule { LR_SCHEDULE_LIST(SETTING_CONSTANT) };

#define STEM_CHOICE_LIST(X) X(STEM_CHOICE_AUTO, "auto") X(STEM_CHOICE_IMAGENET, "imagenet") X(STEM_CHOICE_CIFAR, "cifar")
enum stem_choice { STEM_CHOICE_LIST(SETTING_CONSTANT) };

#define PRECISION_LIST(X) X(PRECISION_AUTO, "auto") X(PRECISION_FP32, "fp32") X(PRECISION_TF32, "tf32") X(PRECISION_BF16, "bf16") X(PRECISION_FP16, "fp16")

#define BACKEND_CHOICE_LIST(X) X(BACKEND_CHOICE_AUTO, "auto") X(BACKEND_CHOICE_CPU, "cpu") X(BACKEND_CHOICE_CUDA, "cuda") X(BACKEND_CHOICE_CUDA, "gpu") \
	X(BACKEND_CHOICE_REF, "ref")
enum backend_choice { BACKEND_CHOICE_AUTO, BACKEND_CHOICE_CPU, BACKEND_CHOICE_CUDA, BACKEND_CHOICE_REF };

#define STOPPING_METRIC_LIST(X) X(STOPPING_ACCURACY, "accuracy") X(STOPPING_LOSS, "loss")
enum stopping_metric { STOPPING_METRIC_LIST(SETTING_CONSTANT) };

#define OPTIMIZER_LIST(X) X(OPTIMIZER_SGD, "sgd")
enum optimizer { OPTIMIZER_LIST(SETTING_CONSTANT) };

#define REDUCE_TYPE_LIST(X) X(REDUCE_FP32, "fp32") X(REDUCE_BF16, "bf16")
enum reduce_type { REDUCE_TYPE_LIST(SETTING_CONSTANT) };

/* Bits of settings.artifact_formats. */
#define ARTIFACT_LIST(X) X(ARTIFACT_SAFETENSORS, "safetensors") X(ARTIFACT_PTH, "pth")
enum artifact { ARTIFACT_SAFETENSORS = 1, ARTIFACT_PTH = 2 };

/* Constants that belong to other headers (those of `recipe` are RECIPE_LIST). */
#define FLIP_LIST(X) X(FLIP_NONE, "none") X(FLIP_RANDOM, "random") X(FLIP_ALTERNATING, "alternating")
#define PADDING_MODE_LIST(X) X(PADDING_REFLECT, "reflect") X(PADDING_ZERO, "zero")
#define LOG_LEVEL_LIST(X) X(LOG_DEBUG, "debug") X(LOG_INFO, "info") X(LOG_WARNING, "warning") X(LOG_ERROR, "error")

/* --- the table -------------------------------------------------------------------------------------------------------- */

/* Kinds of field: INTEGER int, LONG int64_t, REAL double, FLAG bool, WORD int (one of a list's constants), WORDS unsigned (bits of a
 * list's constants), TEXT char[SETTING_TEXT_BYTES], INTEGERS struct integers.
 *
 *     INTEGER LONG REAL (name, default, least, most, what 0 means beside the range or NULL, part, other names, help)
 *     INTEGERS          (name, default, least, most, part, other names, help)
 *     WORD WORDS        (name, default, list, part, other names, help)
 *     FLAG TEXT         (name, default, part, other names, help)
 *
 * `part`: MATHS when the value decides what the run computes (it is then part of the fingerprint), else RUNNING. */
#define SETTINGS_TABLE(INTEGER, LONG, REAL, FLAG, WORD, WORDS, TEXT, INTEGERS) \
	WORD(recipe, "none", RECIPE_LIST, RUNNING, "", "bundle of values for what is not given here") \
	INTEGER(epochs, "30", 1, 10000, NULL, MATHS, "num_epochs max_epochs n_epochs", "passes over the training images") \
	INTEGER(batch_size, "128", 2, 65536, NULL, MATHS, "mini_batch_size train_batch_size global_batch_size", \
		"images of one step, all devices together") \
	INTEGER(batch_size_per_device, "0", 2, 65536, "not used", RUNNING, "per_device_batch_size per_device_train_batch_size", \
		"images of one step on each device, in place of batch_size") \
	WORD(optimizer, "sgd", OPTIMIZER_LIST, MATHS, "", "how weights are updated") \
	REAL(lr, "0.1", 0, 100, NULL, MATHS, "learning_rate max_lr", "learning rate at its highest") \
	WORD(lr_schedule, "cosine", LR_SCHEDULE_LIST, MATHS, "lr_scheduler schedule scheduler lr_scheduler_type", \
		"course of the learning rate after the warm-up, changed every step (step: every epoch)") \
	REAL(lr_min, "0", 0, 100, NULL, MATHS, "min_lr eta_min", "learning rate at the end of cosine and linear") \
	INTEGERS(lr_step_epochs, "", 1, 10000, MATHS, "lr_scheduler_step lr_milestones milestones", \
		"epochs after which lr_schedule=step lowers the learning rate") \
	REAL(lr_step_factor, "0.1", 0, 1, NULL, MATHS, "lr_scheduler_factor lr_gamma gamma", "what lr_schedule=step multiplies the learning rate by") \
	REAL(warmup_epochs, "1", 0, 10000, NULL, MATHS, "lr_warmup_epochs", "epochs of linear rise of the learning rate; may be a fraction") \
	REAL(momentum, "0.9", 0, 0.9999, NULL, MATHS, "", "momentum of SGD") \
	FLAG(nesterov, "false", MATHS, "", "Nesterov's momentum") \
	REAL(weight_decay, "5e-4", 0, 1, NULL, MATHS, "wd", "pull of the weights towards zero") \
	FLAG(decay_norm_and_bias, "false", MATHS, "", "weight_decay on batch norms and biases too, as PyTorch does when not told otherwise") \
	REAL(norm_bias_lr_scale, "1", 0, 1000, NULL, MATHS, "", "learning rate of batch-norm biases as a multiple of lr") \
	REAL(norm_momentum, "0.1", 0.0001, 1, NULL, MATHS, "bn_momentum batch_norm_momentum", \
		"share of each batch in the running statistics of batch norms (PyTorch's BatchNorm2d momentum)") \
	FLAG(zero_gamma, "false", MATHS, "zero_init_residual", "the last batch norm of each block starts at 0, so that blocks start as identities") \
	REAL(gradient_clip_norm, "0", 0.0001, 1e6, "off", MATHS, "gradient_clip_val clip_grad_norm max_grad_norm", \
		"largest L2 norm of all gradients together; larger ones are scaled down") \
	REAL(label_smoothing, "0", 0, 0.9, NULL, MATHS, "", "share of the target spread evenly over the classes; not on mixed batches") \
	REAL(ema_decay, "0", 0.5, 0.999999, "off", MATHS, "", "keep a moving average of the weights, this much of it kept each step") \
	REAL(mixup_alpha, "0", 0.001, 100, "off", MATHS, "mixup", "blend pairs of images with a weight from Beta(alpha, alpha)") \
	REAL(cutmix_alpha, "0", 0.001, 100, "off", MATHS, "cutmix", "paste a rectangle of another image, area from Beta(alpha, alpha)") \
	REAL(mix_probability, "1", 0, 1, NULL, MATHS, "mix_prob", "share of the batches that are mixed, if mixup or cutmix is on") \
	INTEGER(crop_padding, "4", 0, 64, NULL, MATHS, "random_crop_padding", "random crop after padding by this many pixels") \
	WORD(padding_mode, "reflect", PADDING_MODE_LIST, MATHS, "", "what lies outside of the image when it is cropped or rotated") \
	WORD(flip, "random", FLIP_LIST, MATHS, "", "mirror images left to right; alternating: each one every other epoch") \
	REAL(rotation_degrees, "0", 0, 180, NULL, MATHS, "random_rotation rotation", "random rotation by up to this angle either way") \
	REAL(random_erase, "0", 0, 1, NULL, MATHS, "random_erasing", "probability of erasing a random rectangle of an image") \
	INTEGER(cutout, "0", 1, 512, "off", MATHS, "", "side of a square erased at a random place of each image, in pixels") \
	FLAG(drop_last, "true", MATHS, "", "leave out the last, smaller batch of an epoch") \
	LONG(seed, "0", 0, 9007199254740991, NULL, MATHS, "random_seed random_state", "equal seeds give equal runs") \
	INTEGER(num_layers, "34", 34, 34, NULL, MATHS, "", "depth of the network") \
	WORD(stem, "auto", STEM_CHOICE_LIST, MATHS, "", \
		"first layers: imagenet 7x7 and pool, cifar 3x3; auto: imagenet with pretrained weights, else cifar") \
	INTEGER(num_classes, "0", 2, 65535, "auto", MATHS, "n_classes classes", "classes; auto: as many as the data has") \
	INTEGER(image_size, "0", 8, 512, "auto", MATHS, "img_size input_size", \
		"rows and columns of the images; auto: 32 for CIFAR and for folders of images") \
	TEXT(pretrained, "", MATHS, "pretrained_path pretrained_weights weights init_weights", \
		"file of weights to start from (.pth .pt .ckpt .safetensors, model.tar.gz); empty: a channel called pretrained or model, if there is one") \
	REAL(validation_split, "0", 0.001, 0.9, "auto", MATHS, "val_split validation_fraction", \
		"share of the training images kept for validation if there is no validation channel; auto: the data's own test files, else the test channel, else 0.1") \
	INTEGER(early_stopping_patience, "0", 1, 10000, "off", MATHS, "patience", "stop after this many epochs without a better early_stopping_metric") \
	WORD(early_stopping_metric, "accuracy", STOPPING_METRIC_LIST, MATHS, "", "what early stopping watches, on the validation images") \
	LONG(max_steps, "0", 1, 9007199254740991, "no limit", RUNNING, "", "stop cleanly after this many steps of the whole run") \
	LONG(max_seconds, "0", 1, 31536000, "no limit", RUNNING, "max_time", "stop cleanly after this many seconds of this process") \
	WORD(backend, "auto", BACKEND_CHOICE_LIST, RUNNING, "device accelerator", "what computes: cuda or gpu: GPUs; auto: GPUs if there are any, else the CPU; ref is slow, in double precision, for checks") \
	WORD(precision, "auto", PRECISION_LIST, MATHS, "", "of activations and products; auto: fp16 on GPUs; bf16 and tf32 are for GPUs from compute capability 8.0 on; cpu computes in fp32") \
	INTEGER(devices, "0", 1, 1024, "auto", RUNNING, "num_devices num_gpus", "devices of this host to use, one process each; auto: all GPUs, or 1 on a CPU") \
	INTEGER(threads, "0", 1, 1024, "auto", RUNNING, "num_threads", "threads of the cpu backend; auto: the cores that this process may use") \
	FLAG(sync_bn, "false", MATHS, "sync_batchnorm", "batch-norm statistics over all devices; one device does so anyway") \
	WORD(reduce_type, "fp32", REDUCE_TYPE_LIST, RUNNING, "grad_dtype", "what gradients travel as between devices; bf16: half the bytes, rounded") \
	INTEGER(reduce_bucket_mb, "4", 1, 1024, NULL, RUNNING, "bucket_cap_mb", "megabytes of gradients that set out together while the rest is computed") \
	INTEGER(rendezvous_port, "7777", 1, 65535, NULL, RUNNING, "master_port", "TCP port of the first host on which the others find it") \
	INTEGER(rendezvous_timeout_seconds, "900", 1, 86400, NULL, RUNNING, "", "how long hosts wait until all are there") \
	INTEGER(peer_timeout_seconds, "30", 3, 3600, NULL, RUNNING, "", "from a fault of one device or host until all have ended") \
	INTEGER(collective_timeout_seconds, "600", 3, 86400, NULL, RUNNING, "", "how long one device may keep the others waiting in a step") \
	FLAG(deterministic, "true", RUNNING, "", "only algorithms that give the same bits each time; the cpu backend has no others") \
	INTEGER(checkpoint_every_epochs, "1", 1, 10000, "off", RUNNING, "checkpoint_frequency", "epochs between checkpoints") \
	INTEGER(checkpoint_every_steps, "0", 1, 1000000000, "off", RUNNING, "save_steps", "steps between checkpoints, beside those at epochs") \
	INTEGER(keep_checkpoints, "3", 2, 1000, NULL, RUNNING, "save_total_limit", "checkpoints that stay; older ones are deleted") \
	FLAG(resume, "true", RUNNING, "", "go on from the newest good checkpoint of the same job") \
	WORDS(artifact_formats, "safetensors,pth", ARTIFACT_LIST, RUNNING, "artifact_format", "files of weights in model/") \
	INTEGER(log_every_steps, "50", 1, 1000000000, "off", RUNNING, "log_every_n_steps log_interval logging_steps", "steps between progress lines") \
	WORD(log_level, "info", LOG_LEVEL_LIST, RUNNING, "", "least important lines that are printed") \
	TEXT(tensorboard, "auto", RUNNING, "tensorboard_dir", \
		"event files: true, false, a directory (absolute), or auto: where tensorboardoutputconfig.json says, if it is there")

enum { SETTING_TEXT_BYTES = 1024, SETTING_INTEGERS_MAX = 32 };

struct integers {
	int count;
	int item[SETTING_INTEGERS_MAX];
};

/* The number of a row: SETTING_lr, … */
enum setting_number {
#define N(name, ...) SETTING_##name,
	SETTINGS_TABLE(N, N, N, N, N, N, N, N)
#undef N
	SETTINGS_COUNT
};

/* In rising order of precedence. */
enum setting_origin { ORIGIN_DEFAULT, ORIGIN_RECIPE, ORIGIN_ENVIRONMENT, ORIGIN_HYPERPARAMETER };

struct settings {
#define F_INTEGER(name, ...) int name;
#define F_LONG(name, ...) int64_t name;
#define F_REAL(name, ...) double name;
#define F_FLAG(name, ...) bool name;
#define F_WORD(name, ...) int name;
#define F_WORDS(name, ...) unsigned name;
#define F_TEXT(name, ...) char name[SETTING_TEXT_BYTES];
#define F_INTEGERS(name, ...) struct integers name;
	SETTINGS_TABLE(F_INTEGER, F_LONG, F_REAL, F_FLAG, F_WORD, F_WORDS, F_TEXT, F_INTEGERS)
#undef F_INTEGER
#undef F_LONG
#undef F_REAL
#undef F_FLAG
#undef F_WORD
#undef F_WORDS
#undef F_TEXT
#undef F_INTEGERS
	enum setting_origin origin[SETTINGS_COUNT];
};

/* Reads input/config/hyperparameters.json (missing or empty: no hyperparameters) and the environment, and checks everything.
 * Warnings (unknown keys) go to the log. ST_SETTINGS with the key, the value and the permitted range. */
enum status settings_load(const struct opt_ml *opt_ml, struct settings *settings);
/* The same for hyperparameters that are already in memory; an object, or NULL. */
enum status settings_resolve(const struct json *hyperparameters, struct settings *settings);

/* What can only be checked when the data is there. ST_SETTINGS. `images`: training images after the split;
 * `sharded`: of this host only, so that what its last batch holds says nothing about the whole. */
enum status settings_check_data(const struct settings *settings, size_t images, bool sharded, int image_size, int classes);

/* The choices that `auto` leaves open. */
enum stem settings_stem(const struct settings *settings, bool pretrained);
/* ST_SETTINGS when "cpu" or "ref" does not compute in the precision that is asked for. */
enum status settings_check_precision(const struct settings *settings, const char *backend);
/* Directory for event files, "" when none are wanted. ST_SETTINGS when the setting is no absolute path. */
enum status settings_tensorboard(const struct settings *settings, const struct opt_ml *opt_ml, char path[OPT_ML_PATH_BYTES]);
/* "cosine", "fast10", …: the word of a WORD setting. */
const char *settings_word(const struct settings *settings, enum setting_number number);

/* Texts. ST_MEMORY. print: a line "key=value  # origin" a setting. help: what --help says about settings and recipes. markdown: the
 * same as tables for the README. */
enum status settings_print(const struct settings *settings, struct text *text);
enum status settings_help(struct text *text);
enum status settings_markdown(struct text *text);

/* A line "key=value" for each setting that decides what the run computes. Two runs with equal fingerprints and equal data are the
 * same run. */
enum status settings_fingerprint(const struct settings *settings, struct text *text);

/* A line "key=value" for each setting that all hosts of a training must have alike: all but devices, threads, and a batch_size that comes
 * from batch_size_per_device. */
enum status settings_common(const struct settings *settings, struct text *text);
/* What differs between two fingerprints, as "epochs=5 (was 3), lr=0.2 (was 0.1)"; empty when they are equal. */
enum status settings_differences(const char *now, const char *before, struct text *text);
