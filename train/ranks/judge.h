/* judge.h: who has ended, who is silent, who keeps the others waiting: a parent's judgement (train/ranks/parent.h) of its children and of other hosts.
 *
 * In: what was heard from whom, and when. Out: accusations; after a failure, the end of who does not leave by itself. */
#pragma once

#include "train/ranks/parent.h"

/* Once in each round of parent_watch. */
void judge_all(struct parent *parent);
