// SPDX-License-Identifier: Apache-2.0
/*
 * The peer of the benchmark: an mptcpd 0.12 plugin that opens, for each client-side connection,
 * one more subflow from the address named in SECOND_PATH to the connection's own remote address.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>

#include <mptcpd/path_manager.h>
#include <mptcpd/plugin.h>

static struct sockaddr_in second = { .sin_family = AF_INET };

static void established(mptcpd_token_t token, struct sockaddr const *local,
			struct sockaddr const *remote, bool server_side, struct mptcpd_pm *pm)
{
	(void)local;
	if (!server_side)
		mptcpd_pm_add_subflow(pm, token, 1, 0, (struct sockaddr *)&second, remote, false);
}

static struct mptcpd_plugin_ops const ops = { .connection_established = established };

static int init(struct mptcpd_pm *pm)
{
	char const *address = getenv("SECOND_PATH");

	(void)pm;
	if (!address || inet_pton(AF_INET, address, &second.sin_addr) != 1)
		return -1;
	return mptcpd_plugin_register_ops("second_path", &ops) ? 0 : -1;
}

static void finish(struct mptcpd_pm *pm)
{
	(void)pm;
}

MPTCPD_PLUGIN_DEFINE(second_path, "One subflow from a second address",
		     MPTCPD_PLUGIN_PRIORITY_DEFAULT, init, finish)
