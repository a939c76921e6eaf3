/* units.h: every unit, the pool and the head of a network on a GPU against the cpu backend. */
#pragma once

#include "train/selftest/bed.h"

/* On n images, each piece fed with the CPU's own activations and gradients, so that each is judged alone. Adds checks and failures to this one's, and
 * lines to its report: what failed, then one of them all. *seconds: what the GPU took for a training pass, waited for piece by piece. What cannot
 * be computed at all is a status. */
enum status units_check(struct tested *tested, enum stem stem, int n, enum precision precision, double *seconds);
