/* recipe.h: named bundles of settings. A bundle only fills in what the user did not say (train/settings/settings.h: precedence). */
#pragma once

#include <stddef.h>

#define RECIPE_LIST(X) \
	X(RECIPE_NONE, "none") \
	X(RECIPE_SEED, "seed") \
	X(RECIPE_ACCURATE, "accurate") \
	X(RECIPE_FAST10, "fast10") \
	X(RECIPE_FAST20, "fast20") \
	X(RECIPE_FAST50, "fast50")

enum recipe {
#define X(name, word) name,
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
/* What it is for: one line for --help and the README. */
const char *recipe_purpose(enum recipe recipe);
