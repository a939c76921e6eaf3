/* nccl_environment.h: variables by which NCCL and the fabric's library learn about the machine.
 *
 * Only what is not set yet is set: the user knows better. */
#pragma once

/* What AWS's fabric adapter (EFA) of this machine is. */
enum efa { EFA_NONE, EFA_PLAIN, EFA_READS /* p4d, p4de: it reads remote memory, but must be told to */ };

/* directory: where the system lists such devices, "/sys/class/infiniband". */
enum efa efa_find(const char *directory);

/* interface_name: towards the other hosts; NULL or "": NCCL looks by itself. Before NCCL is first called; no other thread may read the environment
 * meanwhile. */
void nccl_environment_set(const char *interface_name, int hosts, enum efa efa);
