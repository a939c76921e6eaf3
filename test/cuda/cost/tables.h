/* tables.h: the cost of a step as Markdown, for core/backend/cuda/README.md. */
#pragma once

#include "core/base/text.h"

enum status cost_markdown(struct text *text);
