/* rendezvous_sides.h: the two sides of a rendezvous; see rendezvous.h. */
#pragma once

#include "core/comm/greeting.h"
#include "core/comm/rendezvous.h"

/* Both fill streams, devices and address of `rendezvous`, which has room for all hosts; after a failure the caller closes it. end_us: of clock_us. */
enum status rendezvous_listen(const struct rendezvous_config *config, const struct greeting *own, int64_t end_us, struct rendezvous *rendezvous);
enum status rendezvous_join(const struct rendezvous_config *config, const struct greeting *own, int64_t end_us, struct rendezvous *rendezvous);
