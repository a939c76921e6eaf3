/* listen.h: the listening socket. It is open before anything slow begins, so that the platform finds a server at once. */
#pragma once

#include "core/base/status.h"

/* Listens on every IPv4 address. ST_SETTINGS when the port is taken or forbidden. *fd is non-blocking and closed on exec. */
enum status listen_open(int port, int *fd);
