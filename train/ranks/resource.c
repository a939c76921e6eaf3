/* resource.c: see resource.h. */
#include "train/ranks/resource.h"

#include "core/base/log.h"

#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "resourceconfig.json"

/* A host's name into `to`; `where` opens the error sentence. */
static enum status host_read(const struct json *json, const char *where, char to[HOST_BYTES])
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	if (json_kind(json) != JSON_STRING)
		return FAIL(ST_SETTINGS, FILE_NAME ": %s must be a host's name, found %s", where, json_kind_text(json_kind(json)));
	const char *name = json_string(json);
	size_t length = strlen(name);
	if (length == 0 || length >= HOST_BYTES || name[strspn(name, letters)] != '\0' || name[0] == '.' || name[0] == '-')
		return FAIL(ST_SETTINGS, FILE_NAME ": %s: \"%.260s\" is no host name (1 to %d letters, digits, '.', '-', '_'; no '.' or '-' in front)",
			where, name, HOST_BYTES - 1);
	memcpy(to, name, length + 1);
	return ST_OK;
}

static int host_order(const void *a, const void *b)
{
	return strcmp(a, b);
}

static enum status hosts_read(const struct json *json, const struct json *current, struct resource *resource)
{
	if (json != NULL && json_kind(json) != JSON_ARRAY && json_kind(json) != JSON_NULL)
		return FAIL(ST_SETTINGS, FILE_NAME ": hosts must be a list of names, found %s", json_kind_text(json_kind(json)));
	size_t count = json != NULL ? json_count(json) : 0;
	if (count > HOSTS_MAX)
		return FAIL(ST_SETTINGS, FILE_NAME ": %zu hosts, at most %d are possible", count, HOSTS_MAX);
	resource->hosts_count = count > 0 ? (int)count : 1;
	resource->hosts = calloc((size_t)resource->hosts_count, sizeof *resource->hosts);
	if (resource->hosts == NULL)
		return FAIL(ST_MEMORY, "no memory for the names of %d hosts", resource->hosts_count);
	char here[HOST_BYTES] = "localhost";
	if (current != NULL && json_kind(current) != JSON_NULL)
		TRY(host_read(current, "current_host", here));
	else if (count > 1)
		return FAIL(ST_SETTINGS, FILE_NAME ": %zu hosts, but current_host does not say which of them this is", count);
	else if (count == 1)
		TRY(host_read(json_first(json), "hosts", here));
	if (count == 0) {
		memcpy(resource->hosts[0], here, sizeof here);
		return ST_OK;
	}
	int used = 0;
	for (const struct json *item = json_first(json); item != NULL; item = json_next(item))
		TRY(host_read(item, "hosts", resource->hosts[used++]));
	qsort(resource->hosts, count, sizeof *resource->hosts, host_order);
	for (int i = 1; i < resource->hosts_count; i++)
		if (strcmp(resource->hosts[i - 1], resource->hosts[i]) == 0)
			return FAIL(ST_SETTINGS, FILE_NAME ": the host %s is there twice", resource->hosts[i]);
	const char(*found)[HOST_BYTES] = bsearch(here, resource->hosts, count, sizeof *resource->hosts, host_order);
	if (found == NULL)
		return FAIL(ST_SETTINGS, FILE_NAME ": current_host %s is not among the %zu hosts, the first of which is %s", here, count, resource->hosts[0]);
	resource->rank = (int)(found - (const char(*)[HOST_BYTES])resource->hosts);
	return ST_OK;
}

static enum status interface_read(const struct json *json, char to[INTERFACE_BYTES])
{
	if (json == NULL || json_kind(json) == JSON_NULL)
		return ST_OK;
	if (json_kind(json) != JSON_STRING)
		return FAIL(ST_SETTINGS, FILE_NAME ": network_interface_name must be a string, found %s", json_kind_text(json_kind(json)));
	const char *name = json_string(json);
	if (name[0] == '\0')
		return ST_OK;
	if (strlen(name) < INTERFACE_BYTES && if_nametoindex(name) != 0)
		strcpy(to, name);
	else
		log_info("network_interface_name=%s is not an interface of this machine and is left out", name);
	return ST_OK;
}

enum status resource_load(const struct opt_ml *opt_ml, struct resource *resource)
{
	struct json *json = NULL;
	struct resource made = {.hosts = NULL};
	TRY(opt_ml_config(opt_ml, FILE_NAME, &json));
	enum status status = hosts_read(json_member(json, "hosts"), json_member(json, "current_host"), &made);
	if (status == ST_OK)
		status = interface_read(json_member(json, "network_interface_name"), made.interface);
	json_free(json);
	if (status != ST_OK)
		resource_free(&made);
	else
		*resource = made;
	return status;
}

void resource_free(struct resource *resource)
{
	free(resource->hosts);
	*resource = (struct resource){.hosts = NULL};
}

const char *resource_host(const struct resource *resource)
{
	return resource->hosts[resource->rank];
}
