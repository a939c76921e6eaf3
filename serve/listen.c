/* listen.c: see listen.h. */
#define _GNU_SOURCE /* SOCK_NONBLOCK, SOCK_CLOEXEC */
#include "serve/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

enum status listen_open(int port, int *fd)
{
	int one = 1, made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (made < 0)
		return FAIL(ST_SETTINGS, "no socket can be made: %s", strerror(errno));
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_ANY)};
	/* A server that stopped a moment ago does not keep the port; one that runs does. */
	setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(made, (struct sockaddr *)&address, sizeof address) != 0 || listen(made, BACKLOG) != 0) {
		enum status status = FAIL(ST_SETTINGS, "port %d (SAGEMAKER_BIND_TO_PORT) cannot be listened on: %s", port, strerror(errno));
		close(made);
		return status;
	}
	*fd = made;
	return ST_OK;
}
