/* recipe.h: named bundles of settings. A bundle only fills in what the user did not say (train/settings.h: precedence). */
#pragma once

#include <stddef.h>

/* name, word, what it is for (README and --help) */
#define RECIPE_LIST(X) \
	X(RECIPE_NONE, "none", "the defaults of the table") \
	X(RECIPE_SEED, "seed", "fine-tuning as a plain PyTorch job does it: 7x7 stem, pretrained weights when given, 5 epochs") \
	X(RECIPE_ACCURATE, "accurate", "the best accuracy: 200 epochs, mixing, average of weights") \
	X(RECIPE_FAST10, "fast10", "10 epochs from scratch") \
	X(RECIPE_FAST20, "fast20", "20 epochs from scratch") \
	X(RECIPE_FAST50, "fast50", "50 epochs from scratch")

enum recipe {
#define X(name, word, purpose) name,
	RECIPE_LIST(X)
#undef X
	RECIPE_COUNT
};

/* One setting of one bundle, written as a user would write it. */
struct recipe_row {
	enum recipe recipe;
	const char *key, *value;
};

/* All rows of all bundles. Constant. */
const struct recipe_row *recipe_rows(size_t *count);
const char *recipe_word(enum recipe recipe);
const char *recipe_purpose(enum recipe recipe);
