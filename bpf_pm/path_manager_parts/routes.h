/* SPDX-License-Identifier: GPL-2.0-only */
/* By which way packets leave: the programs cannot ask, so the service tells what it has asked for. */
#ifndef MPTCP_PM_ROUTES_H
#define MPTCP_PM_ROUTES_H

#include "maps.h"

/* Write into the claim what is known of the routes to each remote. */
static __always_inline void refresh_routes(struct claim *claim)
{
	struct destination destination = { .mark = claim->mark };
	const struct route *route;
	struct remote *to;

	for (u32 remote = 0; remote < REMOTES && is_known(claim, remote); remote++) {
		to = &claim->remotes[remote];
		__builtin_memcpy(destination.ip, to->address.ip6, sizeof(destination.ip));
		destination.port = to->address.port;
		route = route_to(&destination);
		/* What was known of the way from an address holds no longer when it is back. */
		to->unroutable = route ? route->unroutable & ~claim->came : 0;
		to->bound = route ? route->bound : 0;
	}
	barrier();
}

#endif
