/* schedule.h: the learning rate of every step, a pure function of the settings and the step. */
#pragma once

#include "train/settings/settings.h"

/* Learning rate of step `step` (from 0, over all epochs). It rises linearly for warmup_epochs, then follows lr_schedule: cosine and
 * linear reach lr_min at steps_total, the end of the run; step multiplies by lr_step_factor after each of lr_step_epochs. */
double schedule_lr(const struct settings *settings, int64_t steps_per_epoch, int64_t steps_total, int64_t step);
