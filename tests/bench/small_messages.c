// SPDX-License-Identifier: Apache-2.0
/*
 * Small messages over many TCP connections, one in flight on each, with TCP_NODELAY:
 *
 *	small_messages server PORT			prints "ready", echoes until killed
 *	small_messages client ADDRESS PORT COUNT SECONDS	prints round trips per second
 *	small_messages connector ADDRESS PORT COUNT SECONDS	the same, each on a connection of its own
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define SIZE 64
#define EVENTS 64

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		err(1, "epoll_ctl");
}

/* Answer what came in: 0 once the peer has closed. */
static int answer(int fd)
{
	char data[SIZE];
	ssize_t size = read(fd, data, SIZE);

	return size > 0 && write(fd, data, size) == size;
}

static void serve(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct epoll_event events[EVENTS];
	int epoll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1024))
		err(1, "listen");
	watch(epoll, listener);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;

			if (fd == listener)
				watch(epoll, accept(listener, 0, 0));
			else if (!answer(fd))
				close(fd);
		}
	}
}

static void begin(int epoll, const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char data[SIZE] = { 0 };

	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)))
		err(1, "connect");
	watch(epoll, fd);
	if (write(fd, data, SIZE) != SIZE)
		err(1, "write");
}

static void ask(const char *ip, int port, int connections, double seconds, int once)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct epoll_event events[EVENTS];
	int epoll = epoll_create1(0);
	long round_trips = 0;
	double start;

	inet_pton(AF_INET, ip, &address.sin_addr);
	for (int i = 0; i < connections; i++)
		begin(epoll, &address);
	start = now();
	while (now() - start < seconds) {
		int count = epoll_wait(epoll, events, EVENTS, 1000);

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			char data[SIZE];

			if (once && read(fd, data, SIZE) == SIZE) {
				close(fd);
				begin(epoll, &address);
			} else if (once || !answer(fd)) {
				errx(1, "the server has closed");
			}
			round_trips++;
		}
	}
	printf("%.1f\n", round_trips / (now() - start));
}

int main(int count, char **arguments)
{
	if (count == 3 && !strcmp(arguments[1], "server"))
		serve(atoi(arguments[2]));
	else if (count == 6 &&
		 (!strcmp(arguments[1], "client") || !strcmp(arguments[1], "connector")))
		ask(arguments[2], atoi(arguments[3]), atoi(arguments[4]), atof(arguments[5]),
		    !strcmp(arguments[1], "connector"));
	else
		errx(2, "server PORT | client|connector ADDRESS PORT COUNT SECONDS");
	return 0;
}
