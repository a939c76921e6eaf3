/* base_dir.h: a temporary /opt/ml for a unit test. SAGEMAKER_BASE_DIR points to it; base_dir_remove takes it away again. */
#pragma once

#include "core/base/file.h"
#include "core/base/opt_ml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static inline void base_dir_make(char base[64], struct opt_ml *opt_ml)
{
	char path[128];
	snprintf(base, 64, "/tmp/smelt-test-XXXXXX");
	assert_non_null(mkdtemp(base));
	assert_int_equal(setenv("SAGEMAKER_BASE_DIR", base, 1), 0);
	snprintf(path, sizeof path, "%s/input/config", base);
	assert_int_equal(directory_make(path), ST_OK);
	assert_int_equal(opt_ml_open(opt_ml), ST_OK);
}

/* input/config/<file> with this text; NULL removes it. */
static inline void base_dir_config(const char *base, const char *file, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/input/config/%s", base, file);
	if (text == NULL)
		unlink(path);
	else
		assert_int_equal(file_write(path, text, strlen(text)), ST_OK);
}

static inline void base_dir_remove(const char *base)
{
	char command[128];
	snprintf(command, sizeof command, "rm -rf '%s'", base);
	assert_int_equal(system(command), 0);
}

/* This thread's last sentence has all the parts, given with a NULL at the end. */
static inline void sentence_has(const char *part, ...)
{
	va_list parts;
	va_start(parts, part);
	for (; part != NULL; part = va_arg(parts, const char *))
		if (strstr(status_message(), part) == NULL)
			fail_msg("\"%s\" lacks \"%s\"", status_message(), part);
	va_end(parts);
}
