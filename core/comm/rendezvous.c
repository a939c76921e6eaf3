/* rendezvous.c: see rendezvous.h. What both sides share. */
#include "core/comm/rendezvous.h"

#include "core/base/clock.h"
#include "core/comm/rendezvous_sides.h"

#include <stdlib.h>

enum status rendezvous_open(const struct rendezvous_config *config, struct rendezvous *rendezvous)
{
	MUST(config->hosts_count >= 2 && config->host >= 0 && config->host < config->hosts_count);
	const struct greeting own = {.protocol = GREETING_PROTOCOL, .job = config->job, .host = config->hosts[config->host], .version = config->version,
		.hosts_count = (uint32_t)config->hosts_count, .devices = (uint32_t)config->devices, .settings = config->settings};
	struct rendezvous made = {.hosts_count = config->hosts_count, .host = config->host,
		.devices = calloc((size_t)config->hosts_count, sizeof *made.devices),
		.streams = calloc((size_t)config->hosts_count, sizeof(struct frame_stream *))};
	enum status status;
	if (made.devices == NULL || made.streams == NULL)
		status = FAIL(ST_MEMORY, "no memory for a rendezvous of %d hosts", config->hosts_count);
	else
		status = (config->host == 0 ? rendezvous_listen : rendezvous_join)(config, &own, clock_us() + config->timeout_us, &made);
	if (status == ST_OK)
		*rendezvous = made;
	else
		rendezvous_close(&made);
	return status;
}

void rendezvous_close(struct rendezvous *rendezvous)
{
	for (int i = 0; rendezvous->streams != NULL && i < rendezvous->hosts_count; i++)
		frame_stream_close(rendezvous->streams[i]);
	free(rendezvous->streams);
	free(rendezvous->devices);
	*rendezvous = (struct rendezvous){0};
}
