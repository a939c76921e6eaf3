/* recipe.c: see recipe.h. Where the numbers come from: seed is torchvision's transforms and PyTorch's SGD as most tutorials use
 * them (weight decay on everything, zero padding, no warm-up, last partial batch kept); the others scale lr 0.1 per 128 images,
 * decay to zero inside the budget, and leave out what costs short runs more than it gives. */
#include "train/settings/recipe.h"

static const struct recipe_row rows[] = {
	{RECIPE_SEED, "stem", "imagenet"},
	{RECIPE_SEED, "epochs", "5"},
	{RECIPE_SEED, "batch_size_per_device", "32"},
	{RECIPE_SEED, "lr", "2e-4"},
	{RECIPE_SEED, "lr_schedule", "constant"},
	{RECIPE_SEED, "warmup_epochs", "0"},
	{RECIPE_SEED, "momentum", "0.9"},
	{RECIPE_SEED, "weight_decay", "5e-4"},
	{RECIPE_SEED, "decay_norm_and_bias", "true"},
	{RECIPE_SEED, "validation_split", "0.1"},
	{RECIPE_SEED, "crop_padding", "4"},
	{RECIPE_SEED, "padding_mode", "zero"},
	{RECIPE_SEED, "flip", "random"},
	{RECIPE_SEED, "rotation_degrees", "15"},
	{RECIPE_SEED, "early_stopping_patience", "20"},
	{RECIPE_SEED, "drop_last", "false"},

	{RECIPE_ACCURATE, "epochs", "200"},
	{RECIPE_ACCURATE, "batch_size", "128"},
	{RECIPE_ACCURATE, "lr", "0.1"},
	{RECIPE_ACCURATE, "lr_schedule", "cosine"},
	{RECIPE_ACCURATE, "lr_min", "1e-6"},
	{RECIPE_ACCURATE, "warmup_epochs", "1"},
	{RECIPE_ACCURATE, "momentum", "0.9"},
	{RECIPE_ACCURATE, "nesterov", "true"},
	{RECIPE_ACCURATE, "weight_decay", "5e-4"},
	{RECIPE_ACCURATE, "label_smoothing", "0.1"},
	{RECIPE_ACCURATE, "ema_decay", "0.999"},
	{RECIPE_ACCURATE, "crop_padding", "4"},
	{RECIPE_ACCURATE, "padding_mode", "reflect"},
	{RECIPE_ACCURATE, "flip", "alternating"},
	{RECIPE_ACCURATE, "random_erase", "0.25"},
	{RECIPE_ACCURATE, "mixup_alpha", "0.8"},
	{RECIPE_ACCURATE, "cutmix_alpha", "1"},
	{RECIPE_ACCURATE, "mix_probability", "0.5"},

	{RECIPE_FAST10, "epochs", "10"},
	{RECIPE_FAST10, "batch_size", "512"},
	{RECIPE_FAST10, "lr", "0.4"},
	{RECIPE_FAST10, "lr_schedule", "linear"},
	{RECIPE_FAST10, "warmup_epochs", "2"},
	{RECIPE_FAST10, "momentum", "0.9"},
	{RECIPE_FAST10, "nesterov", "true"},
	{RECIPE_FAST10, "weight_decay", "5e-4"},
	{RECIPE_FAST10, "norm_bias_lr_scale", "16"},
	{RECIPE_FAST10, "zero_gamma", "true"},
	{RECIPE_FAST10, "label_smoothing", "0.2"},
	{RECIPE_FAST10, "ema_decay", "0.99"},
	{RECIPE_FAST10, "crop_padding", "2"},
	{RECIPE_FAST10, "padding_mode", "reflect"},
	{RECIPE_FAST10, "flip", "alternating"},

	{RECIPE_FAST20, "epochs", "20"},
	{RECIPE_FAST20, "batch_size", "512"},
	{RECIPE_FAST20, "lr", "0.4"},
	{RECIPE_FAST20, "lr_schedule", "linear"},
	{RECIPE_FAST20, "warmup_epochs", "4"},
	{RECIPE_FAST20, "momentum", "0.9"},
	{RECIPE_FAST20, "nesterov", "true"},
	{RECIPE_FAST20, "weight_decay", "5e-4"},
	{RECIPE_FAST20, "norm_bias_lr_scale", "16"},
	{RECIPE_FAST20, "zero_gamma", "true"},
	{RECIPE_FAST20, "label_smoothing", "0.1"},
	{RECIPE_FAST20, "ema_decay", "0.995"},
	{RECIPE_FAST20, "crop_padding", "4"},
	{RECIPE_FAST20, "padding_mode", "reflect"},
	{RECIPE_FAST20, "flip", "alternating"},
	{RECIPE_FAST20, "cutout", "8"},

	{RECIPE_FAST50, "epochs", "50"},
	{RECIPE_FAST50, "batch_size", "256"},
	{RECIPE_FAST50, "lr", "0.2"},
	{RECIPE_FAST50, "lr_schedule", "linear"},
	{RECIPE_FAST50, "warmup_epochs", "5"},
	{RECIPE_FAST50, "momentum", "0.9"},
	{RECIPE_FAST50, "nesterov", "true"},
	{RECIPE_FAST50, "weight_decay", "5e-4"},
	{RECIPE_FAST50, "label_smoothing", "0.1"},
	{RECIPE_FAST50, "ema_decay", "0.999"},
	{RECIPE_FAST50, "crop_padding", "4"},
	{RECIPE_FAST50, "padding_mode", "reflect"},
	{RECIPE_FAST50, "flip", "alternating"},
	{RECIPE_FAST50, "cutout", "8"},
	{RECIPE_FAST50, "cutmix_alpha", "1"},
	{RECIPE_FAST50, "mix_probability", "0.3"},
};

static const char *const words[] = {
#define X(name, word) word,
	RECIPE_LIST(X)
#undef X
};

static const char *const purposes[RECIPE_COUNT] = {
	[RECIPE_NONE] = "the defaults of the table",
	[RECIPE_SEED] = "fine-tuning as a plain PyTorch job does it: 7x7 stem, pretrained weights when given, 5 epochs",
	[RECIPE_ACCURATE] = "the best accuracy: 200 epochs, mixed images, averaged weights",
	[RECIPE_FAST10] = "10 epochs from scratch",
	[RECIPE_FAST20] = "20 epochs from scratch",
	[RECIPE_FAST50] = "50 epochs from scratch",
};

const struct recipe_row *recipe_rows(size_t *count)
{
	*count = sizeof rows / sizeof rows[0];
	return rows;
}

const char *recipe_word(enum recipe recipe)
{
	return words[recipe];
}

const char *recipe_purpose(enum recipe recipe)
{
	return purposes[recipe];
}
