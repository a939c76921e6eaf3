/* greeting.h: what two parents tell each other when they meet: the payloads of HELLO, WELCOME and REFUSED, and how two greetings differ.
 *
 * HELLO: 8 bytes magic, u32 protocol, then texts (u32 length with the ending zero, bytes) job, host, version; this much stays in every protocol, so
 * that different ones can say so. Then u32 hosts_count, u32 devices, text settings.
 * WELCOME: u32 hosts_count, u32 devices of each host. REFUSED: a sentence; its frame's number is an enum status, ST_OK: come again later. */
#pragma once

#include "core/base/status.h"
#include "core/base/text.h"

#include <stddef.h>
#include <stdint.h>

enum { GREETING_PROTOCOL = 1, GREETING_BYTES_MAX = 1 << 17, GREETING_DEVICES_MAX = 4096 };

struct greeting {
	uint32_t protocol;
	const char *job, *host, *version; /* not owned */
	uint32_t hosts_count, devices;    /* these and settings: 0 and "" in another protocol */
	const char *settings;             /* "name=value" a line, no name twice */
};

/* Appends the payload of a HELLO. ST_MEMORY; ST_SETTINGS when it is longer than GREETING_BYTES_MAX. */
enum status greeting_write(const struct greeting *greeting, struct text *text);
/* The texts point into `bytes`. ST_DATA when it is none, with what is wrong. */
enum status greeting_read(const uint8_t *bytes, size_t count, struct greeting *greeting);

/* ST_OK when the two can train together. ST_SETTINGS names the first thing that differs and what it is on both hosts. */
enum status greeting_compare(const struct greeting *ours, const struct greeting *theirs);

/* ST_MEMORY. */
enum status welcome_write(const int *devices, int hosts_count, struct text *text);
/* ST_DATA when it is not for hosts_count hosts. */
enum status welcome_read(const uint8_t *bytes, size_t count, int hosts_count, int *devices);
