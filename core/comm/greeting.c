/* greeting.c: see greeting.h. */
#include "core/comm/greeting.h"

#include "core/comm/wire.h"

#include <string.h>

static const char magic[8] = {'s', 'm', 'e', 'l', 't', '\r', '\n', '\x1a'};

enum { SHOWN_BYTES_MAX = 200 }; /* of a setting's value in a sentence */

static enum status add_u32(struct text *text, size_t value)
{
	uint8_t bytes[4];
	wire_put_u32(bytes, (uint32_t)value);
	return text_add_bytes(text, bytes, sizeof bytes);
}

static enum status add_text(struct text *text, const char *string)
{
	size_t count = strlen(string) + 1;
	TRY(add_u32(text, count));
	return text_add_bytes(text, string, count);
}

enum status greeting_write(const struct greeting *greeting, struct text *text)
{
	TRY(text_add_bytes(text, magic, sizeof magic));
	TRY(add_u32(text, greeting->protocol));
	TRY(add_text(text, greeting->job));
	TRY(add_text(text, greeting->host));
	TRY(add_text(text, greeting->version));
	TRY(add_u32(text, greeting->hosts_count));
	TRY(add_u32(text, greeting->devices));
	TRY(add_text(text, greeting->settings));
	if (text->length > GREETING_BYTES_MAX)
		return FAIL(ST_SETTINGS, "what hosts compare of their settings is %zu bytes, at most %d may be", text->length, GREETING_BYTES_MAX);
	return ST_OK;
}

/* A text that ends in its only zero, or NULL. */
static const char *take_text(struct wire *wire)
{
	size_t count = wire_take_u32(wire);
	const uint8_t *bytes = wire_take(wire, count);
	if (bytes == NULL || count == 0 || memchr(bytes, '\0', count) != bytes + count - 1 || !text_is_utf8(bytes, count - 1)) {
		wire->short_of = true;
		return NULL;
	}
	return (const char *)bytes;
}

static size_t line_bytes(const char *line)
{
	return strcspn(line, "\n");
}

static size_t name_bytes(const char *line)
{
	return strcspn(line, "=\n");
}

/* The line of the same name, or NULL. */
static const char *settings_find(const char *settings, const char *line)
{
	size_t count = name_bytes(line);
	for (const char *at = settings; *at != '\0'; at += line_bytes(at), at += *at == '\n')
		if (name_bytes(at) == count && memcmp(at, line, count) == 0)
			return at;
	return NULL;
}

/* No name is there twice. */
static bool settings_are_distinct(const char *settings)
{
	for (const char *line = settings; *line != '\0'; line += line_bytes(line), line += *line == '\n')
		if (settings_find(settings, line) != line)
			return false;
	return true;
}

enum status greeting_read(const uint8_t *bytes, size_t count, struct greeting *greeting)
{
	struct wire wire = {.bytes = bytes, .count = count};
	const uint8_t *start = wire_take(&wire, sizeof magic);
	if (start == NULL || memcmp(start, magic, sizeof magic) != 0)
		return FAIL(ST_DATA, "does not introduce itself as smelt");
	struct greeting read = {.protocol = wire_take_u32(&wire), .settings = ""};
	read.job = take_text(&wire);
	read.host = take_text(&wire);
	read.version = take_text(&wire);
	if (!wire.short_of && read.protocol == GREETING_PROTOCOL) {
		read.hosts_count = wire_take_u32(&wire);
		read.devices = wire_take_u32(&wire);
		read.settings = take_text(&wire);
		if (read.settings == NULL || !settings_are_distinct(read.settings) || wire.count > 0 || read.devices < 1 || read.devices > GREETING_DEVICES_MAX)
			wire.short_of = true;
	}
	if (wire.short_of)
		return FAIL(ST_DATA, "introduces itself in a form that smelt does not have (%zu bytes)", count);
	*greeting = read;
	return ST_OK;
}

/* "0.1", or what stands for a setting that is not there. */
static void show_value(const char *line, char shown[SHOWN_BYTES_MAX])
{
	if (line == NULL) {
		strcpy(shown, "not there");
		return;
	}
	size_t name = name_bytes(line), begin = line[name] == '=' ? name + 1 : name, count = line_bytes(line) - begin;
	if (count > SHOWN_BYTES_MAX - 1)
		count = SHOWN_BYTES_MAX - 1;
	memcpy(shown, line + begin, count);
	shown[count] = '\0';
	if (count == 0)
		strcpy(shown, "empty");
}

static enum status differ(const struct greeting *ours, const struct greeting *theirs, const char *what, const char *our_value, const char *their_value)
{
	return FAIL(ST_SETTINGS, "%s is %s on host %s and %s on host %s; all hosts of a training must have the same", what, our_value, ours->host, their_value,
		theirs->host);
}

/* Each line of `one` is in `other`; ours and theirs say whose is whose. */
static enum status compare_settings(const char *one, const char *other, const struct greeting *ours, const struct greeting *theirs)
{
	for (const char *line = one; *line != '\0'; line += line_bytes(line), line += *line == '\n') {
		const char *match = settings_find(other, line);
		if (match != NULL && line_bytes(match) == line_bytes(line) && memcmp(match, line, line_bytes(line)) == 0)
			continue;
		char name[SHOWN_BYTES_MAX], our_value[SHOWN_BYTES_MAX], their_value[SHOWN_BYTES_MAX];
		size_t count = name_bytes(line) < sizeof name - 1 ? name_bytes(line) : sizeof name - 1;
		memcpy(name, line, count);
		name[count] = '\0';
		show_value(one == ours->settings ? line : match, our_value);
		show_value(one == ours->settings ? match : line, their_value);
		return differ(ours, theirs, name, our_value, their_value);
	}
	return ST_OK;
}

enum status greeting_compare(const struct greeting *ours, const struct greeting *theirs)
{
	if (strcmp(ours->version, theirs->version) != 0)
		return differ(ours, theirs, "the version of smelt", ours->version, theirs->version);
	if (ours->protocol != theirs->protocol)
		return FAIL(ST_SETTINGS, "host %s speaks protocol %u of smelt and host %s protocol %u; all hosts of a training must have the same image",
			ours->host, ours->protocol, theirs->host, theirs->protocol);
	if (ours->hosts_count != theirs->hosts_count)
		return FAIL(ST_SETTINGS, "resourceconfig.json lists %u hosts on host %s and %u on host %s; all hosts of a training must have the same",
			ours->hosts_count, ours->host, theirs->hosts_count, theirs->host);
	TRY(compare_settings(ours->settings, theirs->settings, ours, theirs));
	return compare_settings(theirs->settings, ours->settings, ours, theirs);
}

/* --- welcome --------------------------------------------------------------------------------------------------------- */

enum status welcome_write(const int *devices, int hosts_count, struct text *text)
{
	TRY(add_u32(text, (size_t)hosts_count));
	for (int i = 0; i < hosts_count; i++)
		TRY(add_u32(text, (size_t)devices[i]));
	return ST_OK;
}

enum status welcome_read(const uint8_t *bytes, size_t count, int hosts_count, int *devices)
{
	struct wire wire = {.bytes = bytes, .count = count}, again;
	if (wire_take_u32(&wire) != (uint32_t)hosts_count || wire.count != 4 * (size_t)hosts_count)
		return FAIL(ST_DATA, "a welcome for another number of hosts than %d (%zu bytes)", hosts_count, count);
	again = wire;
	for (int i = 0; i < hosts_count; i++) {
		uint32_t value = wire_take_u32(&wire);
		if (value < 1 || value > GREETING_DEVICES_MAX)
			return FAIL(ST_DATA, "a welcome in which host %d has %u devices", i, value);
	}
	for (int i = 0; i < hosts_count; i++)
		devices[i] = (int)wire_take_u32(&again);
	return ST_OK;
}
