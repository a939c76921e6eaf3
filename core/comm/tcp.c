/* tcp.c: see tcp.h. */
#define _GNU_SOURCE /* SOCK_NONBLOCK, getifaddrs, s6_addr32 */
#include "core/comm/tcp.h"

#include "core/base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 256, KEEPALIVE_IDLE_S = 10, KEEPALIVE_EVERY_S = 5, KEEPALIVE_COUNT = 4, UNANSWERED_MS = 30000 };

static socklen_t address_bytes(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static void address_set_port(struct sockaddr_storage *address, int port)
{
	if (address->ss_family == AF_INET)
		((struct sockaddr_in *)address)->sin_port = htons((uint16_t)port);
	else
		((struct sockaddr_in6 *)address)->sin6_port = htons((uint16_t)port);
}

/* Any address of this machine, of one family; port 0. */
static struct sockaddr_storage address_any(int family)
{
	struct sockaddr_storage address = {.ss_family = (sa_family_t)family};
	return address;
}

/* The first address of a family that an interface has; one that holds on its own link only is taken when there is no other. */
static bool interface_address(const char *interface, int family, struct sockaddr_storage *address)
{
	struct ifaddrs *list = NULL;
	bool found = false, global = false;
	if (getifaddrs(&list) != 0)
		return false;
	for (const struct ifaddrs *entry = list; entry != NULL && !global; entry = entry->ifa_next) {
		if (entry->ifa_addr == NULL || entry->ifa_addr->sa_family != family || strcmp(entry->ifa_name, interface) != 0)
			continue;
		struct sockaddr_storage one = {0};
		memcpy(&one, entry->ifa_addr, family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
		global = family == AF_INET || !IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)&one)->sin6_addr);
		if (!found || global)
			*address = one;
		found = true;
	}
	freeifaddrs(list);
	return found;
}

/* -1 and errno. */
static int listen_at(struct sockaddr_storage *address, int port, bool both_families)
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, only = !both_families;
	if (fd < 0)
		return -1;
	address_set_port(address, port);
	/* A training that ended a moment ago does not keep the port; one that runs does. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	/* An interface that has just come up may not use its IPv6 address for a second yet (duplicate address detection). */
	setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof one);
	if ((address->ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only) != 0) ||
		bind(fd, (const struct sockaddr *)address, address_bytes(address)) != 0 || listen(fd, BACKLOG) != 0) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static enum status listen_failed(int port, const char *interface)
{
	int error = errno;
	return FAIL(ST_SETTINGS, "port %d (rendezvous_port)%s%s cannot be listened on: %s%s", port, interface[0] != '\0' ? " of interface " : "", interface,
		strerror(error), error == EADDRINUSE ? "; another program has it, choose another port on all hosts" : "");
}

enum status tcp_listen(int port, const char *interface, int fds[TCP_LISTENERS_MAX], int *count)
{
	struct sockaddr_storage address;
	if (interface[0] == '\0') {
		address = address_any(AF_INET6);
		int fd = listen_at(&address, port, true);
		if (fd < 0 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL || errno == ENOPROTOOPT)) {
			address = address_any(AF_INET);
			fd = listen_at(&address, port, false);
		}
		if (fd < 0)
			return listen_failed(port, interface);
		fds[0] = fd;
		*count = 1;
		return ST_OK;
	}
	static const int families[TCP_LISTENERS_MAX] = {AF_INET, AF_INET6};
	int made[TCP_LISTENERS_MAX], made_count = 0;
	for (int i = 0; i < TCP_LISTENERS_MAX; i++) {
		if (!interface_address(interface, families[i], &address))
			continue;
		int fd = listen_at(&address, port, false);
		if (fd < 0) {
			enum status status = listen_failed(port, interface);
			while (made_count > 0)
				close(made[--made_count]);
			return status;
		}
		made[made_count++] = fd;
	}
	if (made_count == 0)
		return FAIL(ST_SETTINGS, "network interface %s (resourceconfig.json) has no address to listen on", interface);
	memcpy(fds, made, (size_t)made_count * sizeof made[0]);
	*count = made_count;
	return ST_OK;
}

void tcp_prepare(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EVERY_S},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, UNANSWERED_MS},
	};
	/* Refinements: without one of them the parents' own beats still tell who is gone. */
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
}

/* Waits until the connection is made or refused. */
static enum status await_connection(int fd, const char *text, int64_t end_us, bool (*stopped)(void))
{
	struct pollfd socket_fd = {.fd = fd, .events = POLLOUT};
	for (;;) {
		int ready = poll(&socket_fd, 1, WAIT_SLICE_MS), error = 0;
		socklen_t bytes = sizeof error;
		if (stopped != NULL && stopped())
			return FAIL(ST_STOPPED, "stopped on request while connecting to %s", text);
		if (ready > 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) == 0)
			return error == 0 ? ST_OK : FAIL(ST_DEVICE, "%s: %s", text, strerror(error));
		if (clock_us() >= end_us)
			return FAIL(ST_DEVICE, "%s: no answer", text);
	}
}

enum status tcp_connect(const struct sockaddr_storage *address, const char *interface, int64_t end_us, bool (*stopped)(void), int *fd)
{
	char text[TCP_ADDRESS_BYTES];
	struct sockaddr_storage own;
	tcp_address_text(address, text);
	if (address->ss_family != AF_INET && address->ss_family != AF_INET6)
		return FAIL(ST_DEVICE, "%s: neither an IPv4 nor an IPv6 address", text);
	if (interface[0] != '\0' && !interface_address(interface, address->ss_family, &own))
		return FAIL(ST_DEVICE, "%s: network interface %s has no IPv%d address", text, interface, address->ss_family == AF_INET ? 4 : 6);
	int made = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (made < 0)
		return FAIL(ST_DEVICE, "%s: %s", text, strerror(errno));
	enum status status;
	if (interface[0] != '\0' && bind(made, (const struct sockaddr *)&own, address_bytes(&own)) != 0)
		status = FAIL(ST_DEVICE, "%s: cannot be reached from network interface %s: %s", text, interface, strerror(errno));
	else if (connect(made, (const struct sockaddr *)address, address_bytes(address)) == 0)
		status = ST_OK;
	else
		status = errno == EINPROGRESS || errno == EINTR ? await_connection(made, text, end_us, stopped) : FAIL(ST_DEVICE, "%s: %s", text, strerror(errno));
	if (status != ST_OK) {
		close(made);
		return status;
	}
	tcp_prepare(made);
	*fd = made;
	return ST_OK;
}

void tcp_address_text(const struct sockaddr_storage *address, char text[TCP_ADDRESS_BYTES])
{
	struct sockaddr_storage plain = *address;
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
	if (address->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
		struct sockaddr_in four = {.sin_family = AF_INET};
		memcpy(&four.sin_addr, six->sin6_addr.s6_addr + 12, 4);
		memset(&plain, 0, sizeof plain);
		memcpy(&plain, &four, sizeof four);
	}
	if ((plain.ss_family != AF_INET && plain.ss_family != AF_INET6) ||
		getnameinfo((const struct sockaddr *)&plain, address_bytes(&plain), text, TCP_ADDRESS_BYTES, NULL, 0, NI_NUMERICHOST) != 0)
		strcpy(text, "?");
}

void tcp_own_address(int fd, char text[TCP_ADDRESS_BYTES])
{
	struct sockaddr_storage address = {0};
	socklen_t bytes = sizeof address;
	if (getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
		address.ss_family = AF_UNSPEC;
	tcp_address_text(&address, text);
}

void tcp_peer_address(int fd, char text[TCP_ADDRESS_BYTES])
{
	struct sockaddr_storage address = {0};
	socklen_t bytes = sizeof address;
	if (getpeername(fd, (struct sockaddr *)&address, &bytes) != 0)
		address.ss_family = AF_UNSPEC;
	tcp_address_text(&address, text);
}
