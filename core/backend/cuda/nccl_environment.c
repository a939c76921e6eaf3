/* nccl_environment.c: see nccl_environment.h. */
#include "core/backend/cuda/nccl_environment.h"

#include "core/base/log.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number in a small file of the system ("0x1d0f"); 0 when there is none. */
static unsigned long number_read(const char *directory, const char *device, const char *name)
{
	char path[512], text[32] = "";
	snprintf(path, sizeof path, "%s/%s/device/%s", directory, device, name);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return 0;
	bool read = fgets(text, sizeof text, file) != NULL;
	fclose(file);
	return read ? strtoul(text, NULL, 16) : 0;
}

enum efa efa_find(const char *directory)
{
	/* By the numbers of the PCI device: its name may be efa_0 or rdmap16s27. */
	enum { VENDOR_AMAZON = 0x1d0f, DEVICE_EFA_FIRST = 0xefa0, DEVICE_EFA_P4 = 0xefa1, DEVICE_EFA_LAST = 0xefaf };
	enum efa efa = EFA_NONE;
	DIR *devices = opendir(directory);
	if (devices == NULL)
		return EFA_NONE;
	for (struct dirent *entry; efa == EFA_NONE && (entry = readdir(devices)) != NULL;) {
		unsigned long device = number_read(directory, entry->d_name, "device");
		if (number_read(directory, entry->d_name, "vendor") == VENDOR_AMAZON && device >= DEVICE_EFA_FIRST && device <= DEVICE_EFA_LAST)
			efa = device == DEVICE_EFA_P4 ? EFA_READS : EFA_PLAIN;
	}
	closedir(devices);
	return efa;
}

void nccl_environment_set(const char *interface_name, int hosts, enum efa efa)
{
	char exactly[64] = "";
	if (interface_name != NULL && interface_name[0] != '\0')
		snprintf(exactly, sizeof exactly, "=%s", interface_name); /* without '=', eth1 would also mean eth10 */
	bool fabric = efa != EFA_NONE && hosts > 1;
	const struct {
		const char *name, *value;
		bool needed;
	} variables[] = {
		{"NCCL_DEBUG", "WARN", true}, /* its own reasons, beside our sentence */
		{"NCCL_SOCKET_IFNAME", exactly, exactly[0] != '\0'},
		{"FI_PROVIDER", "efa", fabric},
		{"FI_EFA_USE_DEVICE_RDMA", "1", fabric && efa == EFA_READS},
		{"NCCL_PROTO", "simple", fabric}, /* the others count on bytes that arrive in order */
		{"RDMAV_FORK_SAFE", "1", fabric},
	};
	for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
		const char *before = getenv(variables[i].name);
		if (!variables[i].needed)
			continue;
		log_debug("environment %s=%s%s", variables[i].name, before != NULL ? before : variables[i].value, before != NULL ? " (as it was)" : "");
		setenv(variables[i].name, variables[i].value, 0);
	}
}
