/* schedule.c: see schedule.h. */
#include "train/schedule.h"

#include <math.h>

double schedule_lr(const struct settings *s, int64_t steps_per_epoch, int64_t steps_total, int64_t step)
{
	double warmup = s->warmup_epochs * (double)steps_per_epoch, done = (double)step;
	if (done + 1 < warmup)
		return s->lr * (done + 1) / warmup;
	double span = (double)steps_total - warmup;
	double progress = span > 0 ? fmin(fmax((done - warmup) / span, 0), 1) : 1;
	double lr = s->lr;
	switch ((enum lr_schedule)s->lr_schedule) {
	case LR_COSINE:
		return s->lr_min + (s->lr - s->lr_min) * 0.5 * (1 + cos(3.14159265358979323846 * progress));
	case LR_LINEAR:
		return s->lr + (s->lr_min - s->lr) * progress;
	case LR_STEP:
		for (int i = 0; i < s->lr_step_epochs.count; i++)
			if (step >= s->lr_step_epochs.item[i] * steps_per_epoch)
				lr *= s->lr_step_factor;
		return lr;
	case LR_CONSTANT:
		break;
	}
	return lr;
}
