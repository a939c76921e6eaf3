/* tcp.h: TCP sockets between hosts: listening, connecting, and the addresses of both ends. All are non-blocking and close on exec. */
#pragma once

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { TCP_ADDRESS_BYTES = 64, TCP_LISTENERS_MAX = 2 };
/* How long a wait for another host goes on before it looks whether it was told to stop. */
enum { WAIT_SLICE_MS = 50 };

/* interface "": one socket for IPv6 and IPv4 (only IPv4 where there is no IPv6); else one for each family in which the interface has an
 * address, bound to that. ST_SETTINGS when the port is taken or not permitted (the sentence names the setting rendezvous_port), or the
 * interface has no address. */
enum status tcp_listen(int port, const char *interface, int fds[TCP_LISTENERS_MAX], int *count);

/* Connects to one address by end_us (of clock_us), from the address that `interface` ("": any) has in its family. ST_DEVICE with the reason;
 * ST_STOPPED when `stopped` (asked at least every 100 ms, may be NULL) says so. */
enum status tcp_connect(const struct sockaddr_storage *address, const char *interface, int64_t end_us, bool (*stopped)(void), int *fd);

/* Small frames leave at once; a peer that vanishes without a word is noticed within about half a minute. */
void tcp_prepare(int fd);

/* Numeric, without the port; an IPv4 address on an IPv6 socket is written as IPv4. "?" when there is none. */
void tcp_own_address(int fd, char text[TCP_ADDRESS_BYTES]);
void tcp_peer_address(int fd, char text[TCP_ADDRESS_BYTES]);
void tcp_address_text(const struct sockaddr_storage *address, char text[TCP_ADDRESS_BYTES]);
